"""The reaper: the only planner that deletes records of tasks and revisions, and only those that nobody can need again.

A task's record goes when it is to be removed and cannot be running: it never got a node, it is over, or its node is gone or
down (a node that comes back is told its whole share, and stops what is not in it). History goes when its slot holds more
tasks than the limit, oldest first, but never a task that may still run, never one whose end the orchestrator has not
dealt with yet, and never the newest of a slot: it says whether the slot is finished. A revision goes when a service has more
than its limit and no task names it. The last records of a removed service take all of its revisions with them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable

from attrs import define, field, frozen

from swarm.model.changes import Change, Delete, Kind
from swarm.model.events import Event
from swarm.model.ids import Ids, Instant, NodeId, ServiceId
from swarm.model.ids import Slot as Number
from swarm.model.objects import Cluster, Node, Service, Task
from swarm.model.snapshot import Snapshot
from swarm.model.specs import ReplicatedJob
from swarm.model.states import NodeState, TaskState
from swarm.plan.base import Plan
from swarm.plan.keys import EVERYTHING, node_key, parse_key, part_key

BUDGET = 2_000
"""Deletions in one call at the most: a few milliseconds."""
LOOKS = 2_000
"""Slots of services that are looked at as a whole, in one call: about 5 ms."""
_REVISIONS = "revisions"
_ON_NODE = "@"
_BEYOND = ">"
"""Begins the part that stands for the slots above a number: where a look at a large service goes on."""


@frozen
class Nothing:
    """The reaper remembers nothing."""


@define
class _Draft:
    view: Snapshot
    changes: dict[ServiceId, dict[str, Change]] = field(factory=dict)
    again: dict[str, None] = field(factory=dict)
    deleted: int = 0
    looks: int = LOOKS

    @property
    def is_spent(self) -> bool:
        """Whether this call has done enough."""
        return self.deleted >= BUDGET or self.looks <= 0

    def delete(self, task: Task) -> None:
        gone = self.changes.setdefault(task.service_id, {})
        if task.id not in gone:
            gone[task.id] = Delete(Kind.TASK, task.id)
            self.deleted += 1


class Reaper:
    """The planner `reap`."""

    name = "reap"
    slice_keys = 512

    def start(self, view: Snapshot) -> tuple[Nothing, Iterable[str]]:
        """Every service, those included of which only tasks are left."""
        keys: dict[str, None] = {service.id: None for service in view.services()}
        keys.update((service_id, None) for service_id in view.services_with_tasks())
        return Nothing(), list(keys)

    def dirty(self, event: Event, memory: Nothing) -> Iterable[str]:
        """The keys that an event touches."""
        before, after = event.before, event.after
        match event.object:
            case Task() as task:
                if after is None:
                    return (part_key(task.service_id, _REVISIONS),)
                old = before if isinstance(before, Task) else None
                return (part_key(task.service_id, _part_of(task)),) if _may_be_reaped(old, task) else ()
            case Service() as service:
                return (part_key(service.id, _REVISIONS),)
            case Node() as node if after is None or node.status.state is NodeState.DOWN:
                return (node_key(node.id),)
            case Cluster():
                return (EVERYTHING,) if _limits_changed(before, after) else ()
        return ()

    def plan(self, view: Snapshot, keys: Collection[str], memory: Nothing, now: Instant, ids: Ids) -> Plan[Nothing]:
        """What to delete: one group for a service, its tasks before its revisions."""
        draft = _Draft(view)
        revisions: dict[ServiceId, None] = {}
        for text in keys:
            key = parse_key(text)
            if key.everything:
                draft.again.update((service.id, None) for service in view.services())
            elif draft.is_spent:
                draft.again[text] = None
            elif key.node is not None:
                _reap_node(draft, key.node)
            elif key.service is not None and key.part == _REVISIONS:
                revisions[key.service] = None
            elif key.service is not None and key.part.startswith(_BEYOND):
                _reap_service(draft, key.service, int(key.part[len(_BEYOND) :]))
            elif key.service is not None and key.part:
                _reap_slot(draft, key.service, _tasks_of_part(view, key.service, key.part))
            elif key.service is not None:
                _reap_service(draft, key.service, -1)
                revisions[key.service] = None
        for service_id in (*revisions, *draft.changes):
            _reap_revisions(draft, service_id)
        groups = tuple(tuple(changes.values()) for changes in draft.changes.values() if changes)
        return Plan(memory, groups, again=tuple(draft.again))


def _may_be_reaped(before: Task | None, after: Task) -> bool:
    """Whether this change can have made a record of the task's slot superfluous."""
    if before is None:
        return bool(after.origin)
    if after.is_live:
        return False
    if after.desired is not before.desired:
        return True
    return after.status.state is not before.status.state and after.status.state.is_terminal


def _limits_changed(before: object, after: object) -> bool:
    if not isinstance(before, Cluster) or not isinstance(after, Cluster):
        return True
    old, new = before.settings, after.settings
    return (old.task_history_limit, old.revision_history_limit) != (new.task_history_limit, new.revision_history_limit)


# --- parts of a service --------------------------------------------------------------------------------------------
def _part_of(task: Task) -> str:
    """The slot's number, or the node for the tasks of slot 0, which the global kinds share."""
    return str(task.slot) if task.slot else f"{_ON_NODE}{task.node_id}"


def _tasks_of_part(view: Snapshot, service_id: ServiceId, part: str) -> list[Task]:
    slots = view.slots_of_service(service_id)
    if not part.startswith(_ON_NODE):
        return list(slots.get(Number(int(part)), ()))
    service = view.service(service_id)
    node_id = NodeId(part[len(_ON_NODE) :])
    if not node_id or (service is not None and isinstance(service.spec.mode, ReplicatedJob)):
        return list(slots.get(Number(0), ()))
    tasks = [task for task in view.tasks_of_node(node_id) if task.service_id == service_id]
    return sorted(tasks, key=lambda task: (task.created_at, task.restarts))


def _reap_service(draft: _Draft, service_id: ServiceId, above: int) -> None:
    """The service's slots above a number, as many as the call still may look at."""
    service = draft.view.service(service_id)
    by_slot = service is not None and isinstance(service.spec.mode, ReplicatedJob)
    slots = draft.view.slots_of_service(service_id)
    numbers = list(slots)
    for number in numbers[bisect_right(numbers, above) :]:
        if draft.is_spent:
            draft.again[part_key(service_id, f"{_BEYOND}{above}")] = None
            return
        above = number
        tasks = slots[number]
        draft.looks -= 1
        if number or by_slot:
            if len(tasks) == 1 and not _is_leaving(tasks):
                continue
            _reap_slot(draft, service_id, tasks)
            continue
        on_nodes: dict[NodeId, list[Task]] = {}
        for task in tasks:
            on_nodes.setdefault(task.node_id, []).append(task)
        for share in on_nodes.values():
            _reap_slot(draft, service_id, share)


def _is_leaving(tasks: Iterable[Task]) -> bool:
    return any(task.desired is TaskState.REMOVE for task in tasks)


def _reap_node(draft: _Draft, node_id: NodeId) -> None:
    for task in draft.view.tasks_of_node(node_id):
        if task.desired is TaskState.REMOVE and _is_gone(draft.view, task):
            draft.delete(task)


def _reap_slot(draft: _Draft, service_id: ServiceId, tasks: Collection[Task]) -> None:
    staying: list[Task] = []
    for task in tasks:
        if task.desired is not TaskState.REMOVE:
            staying.append(task)
        elif _is_gone(draft.view, task):
            draft.delete(task)
    limit = _history_limit(draft.view, service_id) if len(staying) > 1 else None
    if limit is None:
        return
    excess = len(staying) - max(limit, 1)
    for task in staying[:-1]:
        if excess <= 0:
            return
        if _is_history(task):
            draft.delete(task)
            excess -= 1


def _is_gone(view: Snapshot, task: Task) -> bool:
    """Whether a task that is to be removed cannot be running, or only where its node will stop it."""
    state = task.status.state
    if state < TaskState.ASSIGNED or state.is_terminal:
        return True
    node = view.node(task.node_id)
    return node is None or node.status.state is NodeState.DOWN


def _is_history(task: Task) -> bool:
    """Whether a task is over and dealt with. What a job completed is its count, and stays."""
    return not task.is_live and (task.status.state < TaskState.ASSIGNED or task.status.state.is_terminal)


def _history_limit(view: Snapshot, service_id: ServiceId) -> int | None:
    """Tasks that a slot may hold, the running one included; None: as many as there are.

    A restart policy that counts within a window needs its restarts on record, however short the history is to be.
    """
    cluster, service = view.cluster, view.service(service_id)
    if cluster is None or service is None or cluster.settings.task_history_limit < 0:
        return None
    restart = service.spec.task.restart
    counted = restart.max_attempts + 1 if restart.max_attempts and restart.window_s > 0 else 0
    return max(cluster.settings.task_history_limit, counted)


# --- revisions -----------------------------------------------------------------------------------------------------
def _reap_revisions(draft: _Draft, service_id: ServiceId) -> None:
    view = draft.view
    gone = draft.changes.get(service_id, {})
    service = view.service(service_id)
    revisions = view.revisions_of(service_id)
    if service is None:
        if len(view.tasks_of_service(service_id)) > sum(1 for id in gone if "." not in id):
            return
        droppable = list(revisions)
    else:
        limit = max(1, view.cluster.settings.revision_history_limit) if view.cluster else len(revisions)
        surplus = len(revisions) - limit
        if surplus <= 0:
            return
        kept = {service.revision, service.previous}
        kept.update(task.revision for task in view.tasks_of_service(service_id) if task.id not in gone)
        droppable = [revision for revision in revisions if revision.number not in kept][:surplus]
    changes = draft.changes.setdefault(service_id, {})
    for revision in droppable:
        changes[revision.id] = Delete(Kind.REVISION, revision.id)
