"""From what a user typed to the object: a full id, an exact name, or an unambiguous beginning of an id, in that order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from swarm.model.changes import Kind
from swarm.model.ids import NodeId, ServiceId, TaskId
from swarm.model.objects import Node, Service, Task
from swarm.model.snapshot import Snapshot
from swarm.runtime.errors import ErrorCode, SwarmError

T = TypeVar("T")

CANDIDATES_SHOWN = 5
PREFIX_MIN = 2
"""Fewer characters are taken for a mistake rather than for the beginning of an id."""


def find_service(view: Snapshot, who: str) -> Service:
    """The service of this id, name (any case) or id prefix; NOT_FOUND or INVALID (ambiguous) otherwise."""
    found = view.service(ServiceId(who)) or view.service_named(who)
    if found is not None:
        return found
    id = _by_prefix(view, Kind.SERVICE, "service", who, "swarm svc ls lists them")
    service = view.service(ServiceId(id))
    assert service is not None, "the prefix index names stored objects"
    return service


def find_node(view: Snapshot, who: str) -> Node:
    """The node of this id, hostname or id prefix; two nodes of one hostname are told apart by id."""
    found = view.node(NodeId(who))
    if found is not None:
        return found
    named = [node for node in view.nodes() if who and node.description.hostname == who]
    if len(named) == 1:
        return named[0]
    if named:
        raise _ambiguous("node", who, (node.id for node in named))
    id = _by_prefix(view, Kind.NODE, "node", who, "swarm node ls lists them")
    node = view.node(NodeId(id))
    assert node is not None, "the prefix index names stored objects"
    return node


def find_task(view: Snapshot, who: str) -> Task:
    """The task of this id, name (`service.slot`: the newest in that slot; `service.slot.id`) or id prefix."""
    found = view.task(TaskId(who))
    if found is not None:
        return found
    named = _named_task(view, who)
    if named is not None:
        return named
    id = _by_prefix(view, Kind.TASK, "task", who, "swarm task ls --all lists them")
    task = view.task(TaskId(id))
    assert task is not None, "the prefix index names stored objects"
    return task


def _named_task(view: Snapshot, who: str) -> Task | None:
    parts = who.split(".")
    if len(parts) not in (2, 3):
        return None
    service = view.service_named(parts[0])
    if service is None:
        return None
    if len(parts) == 3:
        task = view.task(TaskId(parts[2]))
        return task if task is not None and task.service_id == service.id else None
    nodes = {node.id for node in view.nodes() if parts[1] in (node.id, node.description.hostname)}
    of_slot = [
        task
        for task in view.tasks_of_service(service.id)
        if str(task.slot) == parts[1] or (task.slot == 0 and task.node_id in nodes)
    ]
    return max(of_slot, key=lambda task: (task.is_live, task.created_at, task.version), default=None)


def _by_prefix(view: Snapshot, kind: Kind, noun: str, who: str, hint: str) -> str:
    ids = list(view.ids_with_prefix(kind, who)) if len(who) >= PREFIX_MIN else []
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise _ambiguous(noun, who, ids)
    raise SwarmError(ErrorCode.NOT_FOUND, f"there is no {noun} {who!r}", {"hint": hint})


def _ambiguous(noun: str, who: str, ids: Iterable[str]) -> SwarmError:
    shown = sorted(ids)
    more = f" and {len(shown) - CANDIDATES_SHOWN} more" if len(shown) > CANDIDATES_SHOWN else ""
    names = ", ".join(shown[:CANDIDATES_SHOWN])
    return SwarmError(
        ErrorCode.INVALID, f"{who!r} stands for {len(shown)} {noun}s: {names}{more}", {"hint": "give more of the id"}
    )
