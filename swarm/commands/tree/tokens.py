"""`swarm token ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.commands.tree.options import GROUP_SETTINGS, Format, Quiet, Socket, context_of

app = typer.Typer(help="Join tokens: the secrets that let machines in.", **GROUP_SETTINGS)


@app.command("worker")
def token_worker(
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new token; the old one is refused")] = False,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """The token for workers."""
    from swarm.commands import tokens
    from swarm.model.states import Role

    tokens.show(context_of(socket, format, quiet), Role.WORKER, rotate)


@app.command("manager")
def token_manager(
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new token; the old one is refused")] = False,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """The token for managers."""
    from swarm.commands import tokens
    from swarm.model.states import Role

    tokens.show(context_of(socket, format, quiet), Role.MANAGER, rotate)
