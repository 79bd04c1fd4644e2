"""`swarm cluster ...`: what is set for the whole cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve

from swarm.commands import output
from swarm.commands.context import Context, fail, usage
from swarm.commands.parse import duration_s
from swarm.model.objects import Cluster
from swarm.model.specs import ClusterSettings
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.client import LocalClient
from swarm.wire.messages.control import GetCluster, UpdateClusterSettings

CONFLICT_RETRIES = 5
"""How often a change is repeated when somebody else changed the cluster at the same moment."""
DEFAULT_REPLACE_AFTER = "default"
"""What a user types to have replacing follow the heartbeat again."""
_DURATIONS = ("heartbeat_period", "certificate_expiry", "replace_after")


def inspect(context: Context, now: float) -> None:
    """The cluster's id and settings."""
    cluster = context.ask(GetCluster())
    context.show(cluster, [cluster.id], lambda: output.print_fields(_fields(cluster, now)))


def _fields(cluster: Cluster, now: float) -> Iterable[tuple[str, str]]:
    settings = cluster.settings
    replace = settings.replace_after_s
    yield "ID", cluster.id
    yield "Created", f"{output.age(now, cluster.created_at)} ago"
    yield "Task history limit", "all" if settings.task_history_limit < 0 else str(settings.task_history_limit)
    yield "Revision history limit", str(settings.revision_history_limit)
    yield "Heartbeat period", f"{settings.heartbeat_period_s:g} s"
    yield "Replace after", "three heartbeat periods" if replace is None else f"{replace:g} s"
    yield "Certificate expiry", f"{settings.certificate_expiry_s / 3600:g} h"
    interval = settings.raft.snapshot_interval
    yield "Snapshot interval", f"{interval} entries" if interval else "off"
    yield "Kept entries", str(settings.raft.kept_entries)
    yield "Removed nodes", str(len(cluster.removed_nodes))


def update(context: Context, typed: dict[str, Any]) -> None:
    """Change what was typed, and show what is set then."""
    if not typed:
        usage("nothing to change: swarm cluster update --help lists what can be set")
    try:
        values = {name: _value(name, value) for name, value in typed.items()}
    except ValueError as error:
        usage(error)
    cluster = _write(context, values)
    context.show(cluster, [cluster.id], lambda: output.print_lines([cluster.id]))


def _value(name: str, value: Any) -> Any:
    if name not in _DURATIONS or (name == "replace_after" and value == DEFAULT_REPLACE_AFTER):
        return value
    try:
        return duration_s(value)
    except ValueError as error:
        raise ValueError(f"--{name.replace('_', '-')}: {error}") from None


def changed(settings: ClusterSettings, values: dict[str, Any]) -> ClusterSettings:
    """The settings with the given values, by the name of their flag."""
    raft = {name: values[name] for name in ("snapshot_interval", "kept_entries") if name in values}
    limits = {name: values[name] for name in ("task_history_limit", "revision_history_limit") if name in values}
    durations = {f"{name}_s": values[name] for name in _DURATIONS if name in values}
    if durations.get("replace_after_s") == DEFAULT_REPLACE_AFTER:
        durations["replace_after_s"] = None
    return evolve(settings, raft=evolve(settings.raft, **raft), **limits, **durations)


def _write(context: Context, values: dict[str, Any]) -> Cluster:
    """Read, change, write; again when somebody else wrote in between."""
    try:
        with LocalClient(context.socket) as client:
            for attempt in range(CONFLICT_RETRIES):
                cluster = client.ask(GetCluster(), timeout_s=30)
                request = UpdateClusterSettings(cluster.version, changed(cluster.settings, values))
                try:
                    return client.ask(request, timeout_s=30)
                except SwarmError as error:
                    if error.code is not ErrorCode.OUT_OF_DATE or attempt == CONFLICT_RETRIES - 1:
                        raise
    except SwarmError as error:
        fail(error)
    raise AssertionError("the loop returns or raises")
