"""`swarm node ...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from swarm.commands.tree.options import (
    GROUP_SETTINGS,
    Detach,
    Format,
    Name,
    Names,
    Quiet,
    Socket,
    Stale,
    Timeout,
    context_of,
    now,
    wait_of,
)

if TYPE_CHECKING:
    from swarm.commands.context import Context

app = typer.Typer(help="Nodes: the machines of the cluster.", **GROUP_SETTINGS)


@app.command("ls")
def node_ls(socket: Socket = None, format: Format = "table", quiet: Quiet = False, stale: Stale = False) -> None:
    """List nodes."""
    from swarm.commands import nodes

    nodes.list_nodes(context_of(socket, format, quiet), stale)


@app.command("inspect")
def node_inspect(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Show everything that is known of nodes (`self`: this one)."""
    from swarm.commands import nodes

    nodes.inspect(context_of(socket, format, quiet), names, now())


def _availability(names: list[str], state: str, detach: bool, timeout: str | None, context: Context) -> None:
    from swarm.commands import nodes
    from swarm.model.states import Availability

    nodes.set_availability(context, names, Availability[state], wait_of(detach, timeout, context.quiet))


@app.command("drain")
def node_drain(
    names: Names,
    detach: Detach = False,
    timeout: Timeout = None,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Move all tasks elsewhere and place no new ones."""
    _availability(names, "DRAIN", detach, timeout, context_of(socket, format, quiet))


@app.command("pause")
def node_pause(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Place no new tasks; what runs goes on."""
    _availability(names, "PAUSE", True, None, context_of(socket, format, quiet))


@app.command("activate")
def node_activate(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Let tasks be placed again."""
    _availability(names, "ACTIVE", True, None, context_of(socket, format, quiet))


@app.command("update")
def node_update(
    name: Name,
    label_add: Annotated[list[str] | None, typer.Option("--label-add", help="Set a label, NAME=VALUE")] = None,
    label_rm: Annotated[list[str] | None, typer.Option("--label-rm", help="Remove a label by name")] = None,
    availability: Annotated[str | None, typer.Option("--availability", help="active, pause or drain")] = None,
    role: Annotated[str | None, typer.Option("--role", help="worker or manager")] = None,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Change a node's labels, availability or role."""
    from swarm.commands import nodes

    nodes.update(context_of(socket, format, quiet), name, label_add or (), label_rm or (), availability, role)


@app.command("promote")
def node_promote(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Make nodes managers."""
    from swarm.commands import nodes
    from swarm.model.states import Role

    nodes.set_role(context_of(socket, format, quiet), names, Role.MANAGER)


@app.command("demote")
def node_demote(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Make nodes workers."""
    from swarm.commands import nodes
    from swarm.model.states import Role

    nodes.set_role(context_of(socket, format, quiet), names, Role.WORKER)


@app.command("rm")
def node_rm(
    names: Names,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also a node that is ready")] = False,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Forget nodes; their certificates are refused from then on."""
    from swarm.commands import nodes

    nodes.remove(context_of(socket, format, quiet), names, force)
