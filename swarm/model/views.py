"""What belongs to one service in the store's indexes, and the live views that readers get of it.

Views hold ids and look each object up when it is asked for, so that they cost nothing to make and are never out of date.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from swarm.model.ids import RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.idset import IdSet, each
from swarm.model.objects import Task
from swarm.model.usage import RevisionUse


class Lineage:
    """What belongs to one service id: its revisions (ascending) and its task ids by slot; outlives the service itself."""

    __slots__ = ("id", "revisions", "slots", "tasks")

    def __init__(self, id: ServiceId) -> None:
        self.id = id
        self.revisions: list[RevisionUse] = []
        self.slots: dict[Slot, IdSet] = {}
        self.tasks = 0

    def use(self, number: RevisionNumber) -> RevisionUse | None:
        """The revision's entry; the newest is asked for most."""
        revisions = self.revisions
        if revisions and revisions[-1].revision.number == number:
            return revisions[-1]
        for entry in reversed(revisions):
            if entry.revision.number == number:
                return entry
        return None


class ServiceTasks(Collection[Task]):
    """A service's tasks, by slot and then creation; a live view."""

    __slots__ = ("_lineage", "_tasks")

    def __init__(self, lineage: Lineage, tasks: dict[TaskId, Task]) -> None:
        self._lineage = lineage
        self._tasks = tasks

    def __len__(self) -> int:
        return self._lineage.tasks

    def __iter__(self) -> Iterator[Task]:
        tasks = self._tasks
        slots = self._lineage.slots
        for slot in sorted(slots):
            ids = slots[slot]
            if isinstance(ids, str):
                yield tasks[TaskId(ids)]
            else:
                for id in ids:
                    yield tasks[TaskId(id)]

    def __contains__(self, task: object) -> bool:
        return isinstance(task, Task) and task.service_id == self._lineage.id and self._tasks.get(task.id) == task


class ServiceSlots(Mapping[Slot, Collection[Task]]):
    """A service's slots, ascending, each with its tasks in order of creation; a live view."""

    __slots__ = ("_slots", "_tasks")

    def __init__(self, slots: dict[Slot, IdSet], tasks: dict[TaskId, Task]) -> None:
        self._slots = slots
        self._tasks = tasks

    def __getitem__(self, slot: Slot) -> tuple[Task, ...]:
        tasks = self._tasks
        return tuple([tasks[TaskId(id)] for id in each(self._slots[slot])])

    def __iter__(self) -> Iterator[Slot]:
        return iter(sorted(self._slots))

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, slot: object) -> bool:
        return slot in self._slots


class PendingTasks(Collection[Task]):
    """Tasks whose status is PENDING or below, in order of creation; a live view."""

    __slots__ = ("_pending", "_tasks")

    def __init__(self, pending: dict[TaskId, None], tasks: dict[TaskId, Task]) -> None:
        self._pending = pending
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[Task]:
        return map(self._tasks.__getitem__, self._pending)

    def __contains__(self, task: object) -> bool:
        return isinstance(task, Task) and task.id in self._pending and self._tasks.get(task.id) == task
