"""`swarm task ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.commands.tree.options import GROUP_SETTINGS, Format, Names, Quiet, Socket, context_of, now

app = typer.Typer(help="Tasks: single runs of a service.", **GROUP_SETTINGS)


@app.command("ls")
def task_ls(
    service: Annotated[str, typer.Option("--service", help="Only of this service")] = "",
    on_node: Annotated[str, typer.Option("--node", help="Only on this node")] = "",
    all: Annotated[bool, typer.Option("--all", "-a", help="Also tasks that are history")] = False,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """List tasks."""
    from swarm.commands import tasks

    tasks.list_tasks(context_of(socket, format, quiet), service, on_node, all, now())


@app.command("inspect")
def task_inspect(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Show everything that is known of tasks."""
    from swarm.commands import tasks

    tasks.inspect(context_of(socket, format, quiet), names, now())
