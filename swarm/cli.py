"""The `swarm` command: names the commands and their options; what each does stands in `swarm/commands/`.

Everything beyond Typer itself is imported inside the commands, so that `swarm --help` costs no more than Typer.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.commands.service_flags import On, with_flags

if TYPE_CHECKING:
    from swarm.commands.context import Context
    from swarm.commands.progress import Wait

EXIT_CODES = (
    "Exit codes: 0 done and converged; 1 refused or failed; 2 wrong usage; 3 not converged within --timeout; "
    "4 no daemon or no leader reachable."
)

_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 110},
}
app = typer.Typer(
    help=f"Run services on a cluster of machines.\n\n{EXIT_CODES}",
    add_completion=True,
    pretty_exceptions_enable=False,
    **_SETTINGS,
)
svc = typer.Typer(help="Services: declare, change, watch, explain.", **_SETTINGS)
node = typer.Typer(help="Nodes: the machines of the cluster.", **_SETTINGS)
task = typer.Typer(help="Tasks: single runs of a service.", **_SETTINGS)
token = typer.Typer(help="Join tokens: the secrets that let machines in.", **_SETTINGS)
cluster = typer.Typer(help="The cluster: what is set for all of it.", **_SETTINGS)
app.add_typer(svc, name="svc")
app.add_typer(node, name="node")
app.add_typer(task, name="task")
app.add_typer(token, name="token")
app.add_typer(cluster, name="cluster")
app.add_typer(svc, name="service", hidden=True)

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


def _context(socket: str | None, format: str = "table", quiet: bool = False) -> Context:
    from swarm.commands.context import Context, socket_path, usage

    if format not in ("table", "json"):
        usage(f"--format {format!r} is not known: table or json")
    return Context(socket=socket_path(socket), format=format, quiet=quiet)


def _wait(detach: bool, timeout: str | None, quiet: bool = False) -> Wait:
    from swarm.commands.context import usage
    from swarm.commands.parse import duration_s
    from swarm.commands.progress import Wait

    try:
        return Wait(detach=detach, timeout_s=None if timeout is None else duration_s(timeout), quiet=quiet)
    except ValueError as error:
        usage(f"--timeout: {error}")


def _now() -> float:
    from swarm.ports.clock import wall_seconds

    return wall_seconds()


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


# --- this machine's node -----------------------------------------------------------------------------------------------
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
        str | None, typer.Option("--token", help="Join token: -, @FILE or the text; else SWARM_TOKEN")
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
    """Join this machine to a cluster; the token decides whether as worker or as manager."""
    from swarm.commands import daemon

    options = daemon.Options(state_dir, listen, advertise, hostname, label, executor, generic_resource, log_level)
    daemon.join(options, address, token, detach)


@app.command()
def status(socket: Socket = None, format: Format = "table", state_dir: StateDir = None) -> None:
    """How this machine's node is: role, leader, members, certificate."""
    from swarm.commands import daemon

    daemon.status(_context(socket or daemon.socket_of(state_dir), format), _now())


@app.command()
def leave(
    force: Annotated[
        bool, typer.Option("--force", help="Leave even as the last manager, or without reaching one")
    ] = False,
    socket: Socket = None,
    state_dir: StateDir = None,
) -> None:
    """Stop this node's tasks, take it out of the cluster and erase its state."""
    from swarm.commands import daemon

    daemon.leave(_context(socket or daemon.socket_of(state_dir)), force)


@app.command()
def stop(socket: Socket = None, state_dir: StateDir = None) -> None:
    """Stop this machine's daemon in order; its tasks go on running."""
    from swarm.commands import daemon

    daemon.stop_daemon(_context(socket or daemon.socket_of(state_dir)))


@token.command("worker")
def token_worker(
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new token; the old one is refused")] = False,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """The token for workers."""
    from swarm.commands import tokens
    from swarm.model.states import Role

    tokens.show(_context(socket, format, quiet), Role.WORKER, rotate)


@token.command("manager")
def token_manager(
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new token; the old one is refused")] = False,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """The token for managers."""
    from swarm.commands import tokens
    from swarm.model.states import Role

    tokens.show(_context(socket, format, quiet), Role.MANAGER, rotate)


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
    """Save the whole cluster, keys included, in one file; from any manager, while it runs."""
    from swarm.commands import backup

    backup.save(_context(socket), file, passphrase, force)


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
    """Make this machine the only manager of a saved cluster; start it with swarm up afterwards."""
    from swarm.commands import backup, daemon

    options = daemon.Options(state_dir, listen, advertise, hostname, None, executor, None, "info")
    backup.restore(options, file, passphrase)


# --- services ------------------------------------------------------------------------------------------------------------
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name, id or unambiguous beginning of an id")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names, ids or unambiguous beginnings of ids")]
Command = Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND ARG...]", help="What to run")]
Plan = Annotated[bool, typer.Option("--plan", help="Show what would start, stop and move; change nothing")]


@svc.command("create")
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

    services.create(_context(socket, format, quiet), flags, command or (), plan, _wait(detach, timeout, quiet))


@svc.command("update")
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

    services.update(_context(socket, format, quiet), name, flags, command or (), plan, _wait(detach, timeout, quiet))


@svc.command("scale")
def svc_scale(
    targets: Annotated[list[str], typer.Argument(metavar="NAME=N...", help="Services and their numbers of replicas")],
    detach: Detach = False,
    timeout: Timeout = None,
    socket: Socket = None,
    quiet: Quiet = False,
) -> None:
    """Set the number of replicas."""
    from swarm.commands import services

    services.scale(_context(socket, quiet=quiet), targets, _wait(detach, timeout, quiet))


@svc.command("rollback")
def svc_rollback(
    name: Name,
    to: Annotated[int | None, typer.Option("--to", help="Revision number (default: the previous one)")] = None,
    detach: Detach = False,
    timeout: Timeout = None,
    socket: Socket = None,
    quiet: Quiet = False,
) -> None:
    """Return to an earlier revision."""
    from swarm.commands import services

    services.rollback(_context(socket, quiet=quiet), name, to, _wait(detach, timeout, quiet))


@svc.command("rm")
def svc_rm(
    names: Names, detach: Detach = False, timeout: Timeout = None, socket: Socket = None, quiet: Quiet = False
) -> None:
    """Remove services and their tasks."""
    from swarm.commands import services

    services.remove(_context(socket, quiet=quiet), names, _wait(detach, timeout, quiet))


@svc.command("ls")
def svc_ls(socket: Socket = None, format: Format = "table", quiet: Quiet = False, stale: Stale = False) -> None:
    """List services."""
    from swarm.commands import services

    services.list_services(_context(socket, format, quiet), stale)


@svc.command("ps")
def svc_ps(
    names: Names,
    running: Annotated[bool, typer.Option("--running", help="Only tasks that are wanted to run")] = False,
    socket: Socket = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """List the tasks of services."""
    from swarm.commands import services

    services.tasks(_context(socket, format, quiet), names, not running, _now())


@svc.command("inspect")
def svc_inspect(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Show everything that is known of services."""
    from swarm.commands import services

    services.inspect(_context(socket, format, quiet), names)


@svc.command("logs")
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

    services.logs(_context(socket, format), name, follow, tail, since, timestamps, _now())


@svc.command("why")
def svc_why(name: Name, socket: Socket = None, format: Format = "table") -> None:
    """Explain why each task is where it is, or what keeps it from running."""
    from swarm.commands import services

    services.why(_context(socket, format), name)


@svc.command("history")
def svc_history(name: Name, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """List a service's revisions: who changed what, when."""
    from swarm.commands import services

    services.history(_context(socket, format, quiet), name)


# --- nodes -----------------------------------------------------------------------------------------------------------------
@node.command("ls")
def node_ls(socket: Socket = None, format: Format = "table", quiet: Quiet = False, stale: Stale = False) -> None:
    """List nodes."""
    from swarm.commands import nodes

    nodes.list_nodes(_context(socket, format, quiet), stale)


@node.command("inspect")
def node_inspect(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Show everything that is known of nodes (`self`: this one)."""
    from swarm.commands import nodes

    nodes.inspect(_context(socket, format, quiet), names, _now())


def _availability(
    names: list[str], state: str, detach: bool, timeout: str | None, socket: str | None, quiet: bool
) -> None:
    from swarm.commands import nodes
    from swarm.model.states import Availability

    nodes.set_availability(_context(socket, quiet=quiet), names, Availability[state], _wait(detach, timeout, quiet))


@node.command("drain")
def node_drain(
    names: Names, detach: Detach = False, timeout: Timeout = None, socket: Socket = None, quiet: Quiet = False
) -> None:
    """Move all tasks elsewhere and place no new ones."""
    _availability(names, "DRAIN", detach, timeout, socket, quiet)


@node.command("pause")
def node_pause(names: Names, socket: Socket = None, quiet: Quiet = False) -> None:
    """Place no new tasks; what runs goes on."""
    _availability(names, "PAUSE", True, None, socket, quiet)


@node.command("activate")
def node_activate(names: Names, socket: Socket = None, quiet: Quiet = False) -> None:
    """Let tasks be placed again."""
    _availability(names, "ACTIVE", True, None, socket, quiet)


@node.command("update")
def node_update(
    name: Name,
    label_add: Annotated[list[str] | None, typer.Option("--label-add", help="Set a label, NAME=VALUE")] = None,
    label_rm: Annotated[list[str] | None, typer.Option("--label-rm", help="Remove a label by name")] = None,
    availability: Annotated[str | None, typer.Option("--availability", help="active, pause or drain")] = None,
    role: Annotated[str | None, typer.Option("--role", help="worker or manager")] = None,
    socket: Socket = None,
    quiet: Quiet = False,
) -> None:
    """Change a node's labels, availability or role."""
    from swarm.commands import nodes

    nodes.update(_context(socket, quiet=quiet), name, label_add or (), label_rm or (), availability, role)


@node.command("promote")
def node_promote(names: Names, socket: Socket = None, quiet: Quiet = False) -> None:
    """Make nodes managers."""
    from swarm.commands import nodes
    from swarm.model.states import Role

    nodes.set_role(_context(socket, quiet=quiet), names, Role.MANAGER)


@node.command("demote")
def node_demote(names: Names, socket: Socket = None, quiet: Quiet = False) -> None:
    """Make nodes workers."""
    from swarm.commands import nodes
    from swarm.model.states import Role

    nodes.set_role(_context(socket, quiet=quiet), names, Role.WORKER)


@node.command("rm")
def node_rm(
    names: Names,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also a node that is ready")] = False,
    socket: Socket = None,
    quiet: Quiet = False,
) -> None:
    """Forget nodes; their certificates are refused from then on."""
    from swarm.commands import nodes

    nodes.remove(_context(socket, quiet=quiet), names, force)


# --- tasks -----------------------------------------------------------------------------------------------------------------
@task.command("ls")
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

    tasks.list_tasks(_context(socket, format, quiet), service, on_node, all, _now())


@task.command("inspect")
def task_inspect(names: Names, socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Show everything that is known of tasks."""
    from swarm.commands import tasks

    tasks.inspect(_context(socket, format, quiet), names, _now())


# --- the cluster -----------------------------------------------------------------------------------------------------------
@cluster.command("inspect")
def cluster_inspect(socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Show what is set for the whole cluster."""
    from swarm.commands import cluster

    cluster.inspect(_context(socket, format, quiet), _now())


@cluster.command("update")
def cluster_update(
    task_history_limit: Annotated[
        int | None, typer.Option("--task-history-limit", help="Ended tasks kept in each slot; -1: all (default 5)")
    ] = None,
    revision_history_limit: Annotated[
        int | None, typer.Option("--revision-history-limit", help="Revisions kept of each service (default 10)")
    ] = None,
    heartbeat_period: Annotated[
        str | None, typer.Option("--heartbeat-period", help="How often nodes say that they live (default 5s)")
    ] = None,
    replace_after: Annotated[
        str | None,
        typer.Option(
            "--replace-after",
            help="How long a node may be unreachable before its tasks are replaced, where a service does not say; "
            "default: three heartbeat periods",
        ),
    ] = None,
    certificate_expiry: Annotated[
        str | None, typer.Option("--certificate-expiry", help="How long new certificates are valid (default 90d)")
    ] = None,
    snapshot_interval: Annotated[
        int | None,
        typer.Option("--snapshot-interval", help="Raft entries between two snapshots; 0: none (default 10000)"),
    ] = None,
    kept_entries: Annotated[
        int | None,
        typer.Option("--kept-entries", help="Raft entries kept after a snapshot for slow managers (default 500)"),
    ] = None,
    socket: Socket = None,
    format: Format = "table",
) -> None:
    """Change what is set for the whole cluster; it takes effect at once."""
    from swarm.commands import cluster
    from swarm.commands.context import typed

    values = {
        "task_history_limit": task_history_limit,
        "revision_history_limit": revision_history_limit,
        "heartbeat_period": heartbeat_period,
        "replace_after": replace_after,
        "certificate_expiry": certificate_expiry,
        "snapshot_interval": snapshot_interval,
        "kept_entries": kept_entries,
    }
    cluster.update(_context(socket, format), typed(values))


def main() -> None:
    """Entry point of the `swarm` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
