"""The `swarm` command: names its branches and runs the one that was typed.

What can be typed in each branch stands in `swarm/commands/tree/`, what it does in `swarm/commands/`. A branch is loaded when
it is typed, so that `swarm --help` costs no more than Typer.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from typing import Annotated, ClassVar

import typer

from swarm.commands.hiding import hide_secrets
from swarm.commands.tree.lazy import Branch, LazyGroup

EXIT_CODES = (
    "Exit codes: 0 done and converged; 1 refused or failed; 2 wrong usage; 3 not converged within --timeout, or no "
    "longer waited for (Ctrl-C); 4 no daemon or no leader reachable; 130 ended with Ctrl-C."
)
_LOCAL = "swarm.commands.tree.local"
_SERVICES = "swarm.commands.tree.services"
OUTPUT_LOST = frozenset({errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT})
"""How writing to stdout fails for reasons outside: a reader that went, a full disk."""


class Root(LazyGroup):
    """`swarm` itself."""

    branches: ClassVar[Mapping[str, Branch]] = {
        "up": Branch(_LOCAL, "Start this machine's node; the first time, a new cluster."),
        "join": Branch(_LOCAL, "Join this machine to a cluster, as the token says."),
        "status": Branch(_LOCAL, "How this machine's node is: role, leader, members, certificate."),
        "stop": Branch(_LOCAL, "Stop this machine's daemon in order; its tasks go on running."),
        "leave": Branch(_LOCAL, "Stop this node's tasks, take it out of the cluster, erase its state."),
        "svc": Branch(_SERVICES, "Services: declare, change, watch, explain.", is_group=True),
        "node": Branch("swarm.commands.tree.nodes", "Nodes: the machines of the cluster.", is_group=True),
        "task": Branch("swarm.commands.tree.tasks", "Tasks: single runs of a service.", is_group=True),
        "token": Branch("swarm.commands.tree.tokens", "Join tokens: the secrets that let machines in.", is_group=True),
        "cluster": Branch("swarm.commands.tree.cluster", "The cluster: what is set for all of it.", is_group=True),
        "backup": Branch(_LOCAL, "Save the whole cluster, keys included, in one file, while it runs."),
        "restore": Branch(_LOCAL, "Make this machine the only manager of a saved cluster."),
        "service": Branch(_SERVICES, "The same as svc.", is_group=True, hidden=True),
    }


app = typer.Typer(
    cls=Root,
    help=f"Run services on a cluster of machines.\n\n{EXIT_CODES}",
    add_completion=True,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(asked: bool) -> None:
    if asked:
        from swarm import __version__

        typer.echo(f"swarm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it")] = False,
) -> None:
    """Run services on a cluster of machines."""


def main() -> None:
    """Run what was typed; ends the process with the command's exit code, 1 when its output could not be delivered."""
    hide_secrets()
    try:
        app(prog_name="swarm")
    except OSError as error:
        if error.filename is not None or error.errno not in OUTPUT_LOST:
            raise
        _output_lost(error)
    finally:
        _flush()


def _flush() -> None:
    """Deliver what is still in the buffer: what fails here would be a traceback of the interpreter's own otherwise."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _output_lost(error)


def _output_lost(error: OSError) -> None:
    """End the command and say why; a reader that has had enough (`swarm node ls | head -1`) is no failure."""
    from swarm.commands.output import silence

    silence(sys.stdout)
    if error.errno != errno.EPIPE:
        sys.stderr.write(f"error: the output could not be written: {error.strerror}\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
