"""`swarm up`, `join`, `status`, `stop`, `leave`, `backup`, `restore`: this machine's node."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.commands.tree.options import (
    GROUP_SETTINGS,
    Advertise,
    DetachDaemon,
    Executor,
    Format,
    GenericNodeResource,
    Hostname,
    Listen,
    LogLevel,
    NodeLabel,
    Quiet,
    Socket,
    StateDir,
    context_of,
    now,
)

app = typer.Typer(help="", **GROUP_SETTINGS)


@app.command()
def up(
    state_dir: StateDir = None,
    listen: Listen = None,
    advertise: Advertise = None,
    hostname: Hostname = None,
    label: NodeLabel = None,
    executor: Executor = None,
    generic_resource: GenericNodeResource = None,
    force_new_cluster: Annotated[
        bool, typer.Option("--force-new-cluster", help="Go on alone from this manager's state after quorum loss")
    ] = False,
    manager: Annotated[
        list[str] | None,
        typer.Option("--manager", help="HOST:PORT of a manager, for a node whose known ones are all elsewhere now"),
    ] = None,
    detach: DetachDaemon = False,
    log_level: LogLevel = "info",
) -> None:
    """Start this machine's node; the first time, a new cluster."""
    from swarm.commands import daemon

    options = daemon.Options(
        state_dir, listen, advertise, hostname, label, executor, generic_resource, log_level, force_new_cluster, manager
    )
    daemon.up(options, detach)


@app.command()
def join(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Any manager of the cluster")],
    token: Annotated[
        str | None, typer.Option("--token", help="Join token: - (standard input), @FILE or the text; else SWARM_TOKEN")
    ] = None,
    state_dir: StateDir = None,
    listen: Listen = None,
    advertise: Advertise = None,
    hostname: Hostname = None,
    label: NodeLabel = None,
    executor: Executor = None,
    generic_resource: GenericNodeResource = None,
    detach: DetachDaemon = False,
    log_level: LogLevel = "info",
) -> None:
    """Join this machine to a cluster, as the token says.

    There is a token for workers and one for managers: swarm token worker, swarm token manager, on any manager.
    """
    from swarm.commands import daemon

    options = daemon.Options(state_dir, listen, advertise, hostname, label, executor, generic_resource, log_level)
    daemon.join(options, address, token, detach)


@app.command()
def status(socket: Socket = None, state_dir: StateDir = None, format: Format = "table", quiet: Quiet = False) -> None:
    """How this machine's node is: role, leader, members, certificate."""
    from swarm.commands import daemon

    daemon.status(context_of(socket or daemon.socket_of(state_dir), format, quiet), now())


@app.command()
def leave(
    force: Annotated[
        bool, typer.Option("--force", help="Leave even as the last manager, or without reaching one")
    ] = False,
    socket: Socket = None,
    state_dir: StateDir = None,
) -> None:
    """Stop this node's tasks, take it out of the cluster, erase its state."""
    from swarm.commands import daemon

    daemon.leave(context_of(socket or daemon.socket_of(state_dir)), force)


@app.command()
def stop(socket: Socket = None, state_dir: StateDir = None) -> None:
    """Stop this machine's daemon in order; its tasks go on running."""
    from swarm.commands import daemon

    daemon.stop_daemon(context_of(socket or daemon.socket_of(state_dir)))


Passphrase = Annotated[
    str | None, typer.Option("--passphrase", help="Passphrase: - or @FILE; else SWARM_PASSPHRASE; else not encrypted")
]


@app.command()
def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it")],
    passphrase: Passphrase = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it exists")] = False,
    socket: Socket = None,
) -> None:
    """Save the whole cluster, keys included, in one file, while it runs.

    Any manager can do it.
    """
    from swarm.commands import backup

    backup.save(context_of(socket), file, passphrase, force)


@app.command()
def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What swarm backup wrote")],
    passphrase: Passphrase = None,
    state_dir: StateDir = None,
    listen: Listen = None,
    advertise: Advertise = None,
    hostname: Hostname = None,
    executor: Executor = None,
) -> None:
    """Make this machine the only manager of a saved cluster.

    Start it with swarm up afterwards.
    """
    from swarm.commands import backup, daemon

    options = daemon.Options(state_dir, listen, advertise, hostname, None, executor, None, "info")
    backup.restore(options, file, passphrase)
