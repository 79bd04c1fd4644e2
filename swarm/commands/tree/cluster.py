"""`swarm cluster ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.commands.tree.options import GROUP_SETTINGS, Format, Quiet, Socket, context_of, now

app = typer.Typer(help="The cluster: what is set for all of it.", **GROUP_SETTINGS)


@app.command("inspect")
def cluster_inspect(socket: Socket = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Show what is set for the whole cluster."""
    from swarm.commands import cluster

    cluster.inspect(context_of(socket, format, quiet), now())


@app.command("update")
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
    quiet: Quiet = False,
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
    cluster.update(context_of(socket, format, quiet), typed(values))
