"""`swarm svc ...`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from swarm.commands.service_flags import On, with_flags
from swarm.commands.tree.lazy import PanelCommand
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

app = typer.Typer(help="Services: declare, change, watch, explain.", **GROUP_SETTINGS)


Command = Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND ARG...]", help="What to run")]
Plan = Annotated[bool, typer.Option("--plan", help="Show what would start, stop and move; change nothing")]


@app.command("create", cls=PanelCommand)
@with_flags(On.CREATE)
def svc_create(
    command: Command = None,
    plan: Plan = False,
    detach: Detach = False,
    timeout: Timeout = None,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Declare a service and wait until it runs."""
    from swarm.commands import services

    services.create(context_of(socket, format, quiet), flags, command or (), plan, wait_of(detach, timeout, quiet))


@app.command("update", cls=PanelCommand)
@with_flags(On.UPDATE)
def svc_update(
    name: Name,
    command: Command = None,
    plan: Plan = False,
    detach: Detach = False,
    timeout: Timeout = None,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Change a service and wait until its tasks have followed."""
    from swarm.commands import services

    services.update(
        context_of(socket, format, quiet), name, flags, command or (), plan, wait_of(detach, timeout, quiet)
    )


@app.command("scale")
def svc_scale(
    targets: Annotated[list[str], typer.Argument(metavar="NAME=N...", help="Services and their numbers of replicas")],
    detach: Detach = False,
    timeout: Timeout = None,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Set the number of replicas."""
    from swarm.commands import services

    services.scale(context_of(socket, format, quiet), targets, wait_of(detach, timeout, quiet))


@app.command("rollback")
def svc_rollback(
    name: Name,
    to: Annotated[int | None, typer.Option("--to", help="Revision number (default: the previous one)")] = None,
    detach: Detach = False,
    timeout: Timeout = None,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Return to an earlier revision."""
    from swarm.commands import services

    services.rollback(context_of(socket, format, quiet), name, to, wait_of(detach, timeout, quiet))


@app.command("rm")
def svc_rm(
    names: Names,
    detach: Detach = False,
    timeout: Timeout = None,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Remove services and their tasks."""
    from swarm.commands import services

    services.remove(context_of(socket, format, quiet), names, wait_of(detach, timeout, quiet))


@app.command("ls")
def svc_ls(socket: Socket = None, format: Format = "table", quiet: Quiet = False, stale: Stale = False) -> None:
    """List services."""
    from swarm.commands import services

    services.list_services(context_of(socket, format, quiet), stale)


@app.command("ps")
def svc_ps(
    names: Names,
    running: Annotated[bool, typer.Option("--running", help="Only tasks that are wanted to run")] = False,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """List the tasks of services."""
    from swarm.commands import services

    services.tasks(context_of(socket, format, quiet), names, not running, now())


@app.command("inspect")
def svc_inspect(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Show everything that is known of services."""
    from swarm.commands import services

    services.inspect(context_of(socket, format, quiet), names)


@app.command("logs")
def svc_logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines")] = False,
    tail: Annotated[str, typer.Option("--tail", "-n", help="Last lines of each task: a number or all")] = "all",
    since: Annotated[str | None, typer.Option("--since", help="Only lines after: 10m (ago) or an ISO time")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Print each line's time")] = False,
    socket: Socket = None,
    format: Format = "table",
) -> None:
    """Print the output of a service or of a task."""
    from swarm.commands import services

    services.logs(context_of(socket, format), name, follow, tail, since, timestamps, now())


@app.command("why")
def svc_why(name: Name, socket: Socket = None, format: Format = "table") -> None:
    """Explain why each task is where it is, or what keeps it from running."""
    from swarm.commands import services

    services.why(context_of(socket, format), name)


@app.command("history")
def svc_history(name: Name, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """List a service's revisions: who changed what, when."""
    from swarm.commands import services

    services.history(context_of(socket, format, quiet), name)
