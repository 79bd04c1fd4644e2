"""What must hold of every change of a task, whoever made it: the formal model's properties (section 24.5 of the rules).

A status never goes back and is never REMOVE; what is wanted never goes back; identity and node never change once set; whatever
is on its way has a node. Each planner writes its own part only: orchestrators wish, the scheduler places, the enforcer rejects,
the reaper deletes what cannot be running.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from swarm.model.changes import Kind
from swarm.model.events import Event
from swarm.model.ids import Ids, Instant
from swarm.model.objects import Task
from swarm.model.snapshot import Snapshot
from swarm.model.states import NodeState, TaskState
from swarm.plan.base import Plan, Planner

ORCHESTRATORS = ("replicated", "global", "jobs")
_STATUSES = {
    "scheduler": (TaskState.PENDING, TaskState.ASSIGNED, TaskState.SHUTDOWN),
    "enforce": (TaskState.REJECTED,),
}


class Author:
    """Who planned last; empty for whoever is no planner."""

    name = ""


class Signed:
    """A planner that signs the plans that it makes."""

    def __init__(self, planner: Planner[Any], author: Author) -> None:
        self._planner = planner
        self._author = author
        self.name = planner.name
        self.slice_keys = planner.slice_keys

    def start(self, view: Snapshot) -> tuple[Any, Iterable[str]]:
        return self._planner.start(view)

    def dirty(self, event: Event, memory: Any) -> Iterable[str]:
        return self._planner.dirty(event, memory)

    def plan(self, view: Snapshot, keys: Collection[str], memory: Any, now: Instant, ids: Ids) -> Plan[Any]:
        self._author.name = self.name
        return self._planner.plan(view, keys, memory, now, ids)


def check(view: Snapshot, event: Event, author: str) -> None:
    """Raise when the event, which is committed already, is one that must not be."""
    if event.kind is not Kind.TASK:
        return
    before, after = event.before, event.after
    assert before is None or isinstance(before, Task)
    if isinstance(after, Task):
        _check_task(before, after, author)
    elif author and before is not None:
        assert author == "reap", f"{author} deleted {before}"
        _check_deletion(view, before)


def _check_task(before: Task | None, after: Task, author: str) -> None:
    state = after.status.state
    assert state is not TaskState.REMOVE
    assert after.node_id or not TaskState.ASSIGNED <= state <= TaskState.RUNNING, "it is on its way nowhere"
    if before is None:
        assert not author or (author in ORCHESTRATORS and state is TaskState.NEW)
        return
    assert state >= before.status.state and after.desired >= before.desired
    assert (after.service_id, after.slot, after.revision, after.job_iteration, after.created_at) == (
        before.service_id,
        before.slot,
        before.revision,
        before.job_iteration,
        before.created_at,
    )
    assert after.node_id == before.node_id or not before.node_id
    if author in ORCHESTRATORS:
        assert after.status == before.status and after.node_id == before.node_id, f"{author} reported"
    elif author:
        assert after.desired is before.desired, f"{author} wished"
        assert state in _STATUSES[author]
        assert after.node_id == before.node_id or author == "scheduler"


def _check_deletion(view: Snapshot, gone: Task) -> None:
    assert not gone.is_live, "a live record was deleted"
    state, node = gone.status.state, view.node(gone.node_id)
    if TaskState.ASSIGNED <= state <= TaskState.RUNNING:
        lost = node is None or node.status.state is NodeState.DOWN
        assert lost and gone.desired is TaskState.REMOVE, "its task may still run"
