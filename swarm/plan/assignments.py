"""One node's share of the tasks, and what of it must be told to the node. Pure.

A node sees its own tasks from ASSIGNED on, terminal ones too while they are stored, and nothing else. It is told a task
when it first sees it and when what is wanted of it changes: its own status reports are never sent back. A spec travels
once per session and is forgotten on both sides when the last task that names it was removed. The cost of a change is
that of the tasks it names, never that of the share.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from swarm.model.ids import NodeId, RevisionNumber, ServiceId, TaskId
from swarm.model.objects import Task
from swarm.model.snapshot import Snapshot
from swarm.model.specs import GenericResource, ServiceSpec
from swarm.model.states import TaskState

SpecKey = tuple[ServiceId, RevisionNumber]


@frozen
class Told:
    """What the node knows of one task, as far as it matters: a change of anything else is not sent."""

    desired: TaskState
    generic: tuple[GenericResource, ...]
    spec: SpecKey


@frozen
class ShareChange:
    """What to tell the node. `specs` come before the tasks that name them; `full` replaces all that it knew."""

    sequence: int
    full: bool
    specs: tuple[tuple[SpecKey, ServiceSpec], ...] = ()
    tasks: tuple[Task, ...] = ()
    removed: tuple[TaskId, ...] = ()


class NodeShare:
    """What one node was told in its present session."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self.sequence = 0
        self._told: dict[TaskId, Told] = {}
        self._spec_users: dict[SpecKey, int] = {}
        """Told tasks that name the spec; its keys are the specs that the node has."""

    def full(self, view: Snapshot) -> ShareChange:
        """Everything that the node is to know, from scratch."""
        self._told.clear()
        self._spec_users.clear()
        tasks = tuple(task for task in view.tasks_of_node(self.node_id) if is_visible(task, self.node_id))
        specs = self._learn(view, tasks)
        self.sequence += 1
        return ShareChange(self.sequence, True, specs, tasks)

    def change(self, view: Snapshot, task_ids: Iterable[TaskId]) -> ShareChange | None:
        """What these tasks' present state adds to what the node knows; None when it is nothing.

        `task_ids` are those that changed since the last call, each once, of this node or not.
        """
        tasks: list[Task] = []
        removed: list[TaskId] = []
        for task_id in task_ids:
            task = view.task(task_id)
            if task is None or not is_visible(task, self.node_id):
                if task_id in self._told:
                    removed.append(task_id)
            elif self._told.get(task_id) != _told(task):
                tasks.append(task)
        if not tasks and not removed:
            return None
        specs = self._learn(view, tasks)
        self._forget(removed)
        self.sequence += 1
        return ShareChange(self.sequence, False, specs, tuple(tasks), tuple(removed))

    def _learn(self, view: Snapshot, tasks: Iterable[Task]) -> tuple[tuple[SpecKey, ServiceSpec], ...]:
        specs: list[tuple[SpecKey, ServiceSpec]] = []
        for task in tasks:
            told = _told(task)
            if task.id not in self._told:
                users = self._spec_users.get(told.spec, 0)
                if users == 0 and (spec := view.spec_of(task)) is not None:
                    specs.append((told.spec, spec))
                self._spec_users[told.spec] = users + 1
            self._told[task.id] = told
        return tuple(specs)

    def _forget(self, task_ids: Iterable[TaskId]) -> None:
        for task_id in task_ids:
            key = self._told.pop(task_id).spec
            self._spec_users[key] -= 1
            if self._spec_users[key] == 0:
                del self._spec_users[key]


class NodeSpecs:
    """The node's side: the specs that it has in its present session, forgotten when `NodeShare` takes them for forgotten."""

    def __init__(self) -> None:
        self._specs: dict[SpecKey, ServiceSpec] = {}
        self._named: dict[TaskId, SpecKey] = {}
        self._users: dict[SpecKey, int] = {}
        """Tasks that name the spec, as in `NodeShare`."""

    def __len__(self) -> int:
        return len(self._specs)

    def get(self, task: Task) -> ServiceSpec | None:
        """The spec that a task names, None when it was never told or is forgotten."""
        return self._specs.get((task.service_id, task.revision))

    def clear(self) -> None:
        """A new session, or a full set, tells everything anew."""
        self._specs.clear()
        self._named.clear()
        self._users.clear()

    def learn(self, specs: Iterable[tuple[SpecKey, ServiceSpec]], tasks: Iterable[Task]) -> None:
        """What one message tells, before what it removes."""
        self._specs.update(specs)
        for task in tasks:
            if task.id not in self._named:
                key = self._named[task.id] = (task.service_id, task.revision)
                self._users[key] = self._users.get(key, 0) + 1

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Tasks that were removed, with the specs that no other one names."""
        for task_id in task_ids:
            key = self._named.pop(task_id, None)
            if key is None:
                continue
            self._users[key] -= 1
            if self._users[key] == 0:
                del self._users[key]
                self._specs.pop(key, None)


def is_visible(task: Task, node_id: NodeId) -> bool:
    """Whether the node is to know of the task."""
    return task.node_id == node_id and task.status.state >= TaskState.ASSIGNED


def _told(task: Task) -> Told:
    return Told(task.desired, task.generic, (task.service_id, task.revision))
