"""What the changes do to one task, and what stands in their way: pure functions of the task and the change."""

from __future__ import annotations

from swarm.model.changes import Advance, Assign, Kind, Refusal, RefusalCode
from swarm.model.construct import copier_of
from swarm.model.ids import NO_NODE, NodeId, Version
from swarm.model.objects import Node, Task, TaskStatus, revision_key
from swarm.model.tables import RUNNING

with_version = copier_of(Task, "version")
with_assignment = copier_of(Task, "node_id", "status", "generic", "reason", "version")
_with_progress = copier_of(Task, "desired", "status", "reason", "version")
_with_running_at = copier_of(TaskStatus, "running_at")


def judge_task(task: Task, *, exists: bool, service: bool, revision: bool) -> Refusal | None:
    """What stands in the way of a new task, given whether it, its service and its revision are there."""
    if exists:
        return exists_already(Kind.TASK, task.id)
    if not service:
        text = f"task {task.id} names service {task.service_id}, which is gone"
        return Refusal(RefusalCode.NOT_FOUND, Kind.SERVICE, task.service_id, text)
    if not revision:
        key = revision_key(task.service_id, task.revision)
        return Refusal(RefusalCode.NOT_FOUND, Kind.REVISION, key, f"task {task.id} names revision {key}, which is gone")
    return None


def judge_assign(change: Assign, task: Task | None, node: Node | None) -> Refusal | None:
    """What stands in the way of an assignment, given the task and the node that it names."""
    id = change.task_id
    if task is None:
        return Refusal(RefusalCode.NOT_FOUND, Kind.TASK, id, f"task {id} is gone")
    if task.version != change.version:
        return out_of_date(Kind.TASK, id, change.version, task.version)
    if node is None:
        text = f"node {change.node_id} is gone; task {id} cannot be bound to it"
        return Refusal(RefusalCode.NOT_FOUND, Kind.NODE, change.node_id, text)
    if task.node_id and task.node_id != change.node_id:
        text = f"task {id} is bound to node {task.node_id} and never moves to {change.node_id}"
        return Refusal(RefusalCode.IMMUTABLE, Kind.TASK, id, text)
    return None


def assigned(before: Task, change: Assign, node_id: NodeId, index: Version) -> Task:
    """The task bound to the node; `node_id` is the stored node's own string, so that tasks share it."""
    reason = change.reason if change.reason is not None else before.reason
    return with_assignment(before, node_id, change.status, change.generic, reason, index)


def advanced(before: Task, change: Advance, index: Version) -> Task:
    """The task moved forward; `before` itself when the change brings nothing new."""
    desired, status, reason = before.desired, before.status, before.reason
    if change.desired is not None and change.desired > desired:
        desired = change.desired
    new = change.status
    if new is not None and new.state >= RUNNING and not new.running_at:
        new = _since_running(new, status)
    if new is not None and (new.state > status.state or (new.state == status.state and new != status)):
        status = new
    if change.reason is not None and change.reason != reason:
        reason = change.reason
    if desired is before.desired and status is before.status and reason is before.reason:
        return before
    return _with_progress(before, desired, status, reason, index)


def _since_running(new: TaskStatus, before: TaskStatus) -> TaskStatus:
    """`new` with the time at which the task began to run, when `before` knows it."""
    began = before.running_at
    if not began and before.state == RUNNING:
        began = before.applied_at or before.at
    return _with_running_at(new, began) if began else new


def judge_update(before: Task, after: Task) -> Refusal | None:
    """What stands in the way of replacing a task by `after`: its identity is for life."""
    same = before.service_id == after.service_id and before.revision == after.revision and before.slot == after.slot
    if same and before.node_id in (NO_NODE, after.node_id):
        return None
    text = f"task {before.id} keeps its service, revision, slot and node for life; create another one"
    return Refusal(RefusalCode.IMMUTABLE, Kind.TASK, before.id, text)


def out_of_date(kind: Kind, id: str, seen: Version, stored: Version) -> Refusal:
    """The author saw another version than the stored one."""
    text = f"{kind.value} {id} was changed at version {stored}; the change saw version {seen}"
    return Refusal(RefusalCode.OUT_OF_DATE, kind, id, text)


def exists_already(kind: Kind, id: str) -> Refusal:
    """The id is taken."""
    return Refusal(RefusalCode.EXISTS, kind, id, f"{kind.value} {id} exists already")
