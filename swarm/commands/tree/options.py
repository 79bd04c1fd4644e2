"""Options that many commands share, and what every command makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.commands.tree.lazy import WholeLinesGroup

if TYPE_CHECKING:
    from swarm.commands.context import Context
    from swarm.commands.progress import Wait

GROUP_SETTINGS: dict[str, Any] = {
    "cls": WholeLinesGroup,
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 110},
}

Socket = Annotated[
    str | None,
    typer.Option("--socket", help="The daemon's socket (default: SWARM_SOCKET, else the state directory's)"),
]
Format = Annotated[str, typer.Option("--format", help="table or json")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Do not wait until the cluster has converged")]
Timeout = Annotated[
    str | None, typer.Option("--timeout", help="Give up waiting after this time (exit code 3): 30s, 5m")
]
Stale = Annotated[bool, typer.Option("--stale", help="Answer from this manager's own state, which may be old")]
StateDir = Annotated[
    str | None, typer.Option("--state-dir", help="Default: /var/lib/swarm for root, else the user's state directory")
]
Listen = Annotated[str | None, typer.Option("--listen", help="HOST:PORT for other nodes (default 0.0.0.0:4242)")]
Advertise = Annotated[str | None, typer.Option("--advertise", help="HOST:PORT at which other nodes reach this one")]
Hostname = Annotated[str | None, typer.Option("--hostname", help="Name of this node (default: the machine's)")]
NodeLabel = Annotated[list[str] | None, typer.Option("--label", help="Label of this node, NAME=VALUE (repeatable)")]
Executor = Annotated[
    str | None, typer.Option("--executor", help="What this node runs: auto (all that work here), process or docker")
]
GenericNodeResource = Annotated[
    list[str] | None,
    typer.Option("--generic-resource", help="Own resource of this node, gpu=2 or gpu=UUID1,gpu=UUID2"),
]
DetachDaemon = Annotated[bool, typer.Option("--detach", "-d", help="Return when the node is ready; the daemon goes on")]
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error")]


Name = Annotated[str, typer.Argument(metavar="NAME", help="Name, id or unambiguous beginning of an id")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names, ids or unambiguous beginnings of ids")]


def context_of(socket: str | None, format: str = "table", quiet: bool = False) -> Context:
    """Where and how to answer; an unknown format ends the command."""
    from swarm.commands.context import Context, socket_path, usage

    if format not in ("table", "json"):
        usage(f"--format {format!r} is not known: table or json")
    return Context(socket=socket_path(socket), format=format, quiet=quiet)


def wait_of(detach: bool, timeout: str | None, quiet: bool = False) -> Wait:
    """How to wait; a malformed time-out ends the command."""
    from swarm.commands.context import usage
    from swarm.commands.parse import duration_s
    from swarm.commands.progress import Wait

    try:
        return Wait(detach=detach, timeout_s=None if timeout is None else duration_s(timeout), quiet=quiet)
    except ValueError as error:
        usage(f"--timeout: {error}")


def now() -> float:
    """Seconds since 1970."""
    from swarm.ports.clock import wall_seconds

    return wall_seconds()
