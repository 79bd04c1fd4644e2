"""What belongs to one service in the store's indexes, and the live views that readers get of it.

Views hold ids and look each object up when it is asked for, so that they cost nothing to make and are never out of date.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from swarm.model.ids import RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.idset import EMPTY, IdSet, each
from swarm.model.objects import Task
from swarm.model.usage import RevisionUse


class Lineage:
    """What belongs to one service id: its revisions (ascending) and its task ids by slot; outlives the service itself.

    A cluster may have as many services as tasks, so that one with a single slot holds no dict of them.
    """

    __slots__ = ("_by_slot", "_only_ids", "_only_slot", "id", "revisions", "tasks")

    def __init__(self, id: ServiceId) -> None:
        self.id = id
        self.revisions: tuple[RevisionUse, ...] = ()
        self.tasks = 0
        self._by_slot: dict[Slot, IdSet] | None = None
        """From the second slot on; the two below are for the only one."""
        self._only_slot = Slot(0)
        self._only_ids: IdSet = EMPTY

    def use(self, number: RevisionNumber) -> RevisionUse | None:
        """The revision's entry; the newest is asked for most."""
        revisions = self.revisions
        if revisions and revisions[-1].number == number:
            return revisions[-1]
        for entry in reversed(revisions):
            if entry.number == number:
                return entry
        return None

    def named(self, number: RevisionNumber) -> RevisionUse:
        """The entry of a revision that a task names: it is kept for as long as the task is."""
        use = self.use(number)
        assert use is not None, "a revision that a task names is kept"
        return use

    def ids(self, slot: Slot) -> IdSet:
        """The ids of a slot's tasks in order of creation; `EMPTY` for a slot without any."""
        if self._by_slot is not None:
            return self._by_slot.get(slot, EMPTY)
        return self._only_ids if slot == self._only_slot else EMPTY

    def put(self, slot: Slot, ids: IdSet) -> None:
        """Replace what `ids` gives for the slot."""
        by_slot = self._by_slot
        if by_slot is None:
            if slot == self._only_slot or not self._only_ids:
                self._only_slot, self._only_ids = slot, ids
                return
            by_slot = self._by_slot = {self._only_slot: self._only_ids}
            self._only_ids = EMPTY
        if ids:
            by_slot[slot] = ids
        else:
            del by_slot[slot]
            if not by_slot:
                self._by_slot = None

    def numbers(self) -> list[Slot]:
        """The slots that have tasks, ascending."""
        if self._by_slot is not None:
            return sorted(self._by_slot)
        return [self._only_slot] if self._only_ids else []

    @property
    def slots(self) -> int:
        """How many slots have tasks."""
        return len(self._by_slot) if self._by_slot is not None else int(bool(self._only_ids))


class ServiceTasks(Collection[Task]):
    """A service's tasks, by slot and then creation; a live view."""

    __slots__ = ("_lineage", "_tasks")

    def __init__(self, lineage: Lineage, tasks: dict[TaskId, Task]) -> None:
        self._lineage = lineage
        self._tasks = tasks

    def __len__(self) -> int:
        return self._lineage.tasks

    def __iter__(self) -> Iterator[Task]:
        tasks, ids_of = self._tasks, self._lineage.ids
        for slot in self._lineage.numbers():
            ids = ids_of(slot)
            if isinstance(ids, str):
                yield tasks[TaskId(ids)]
            else:
                for id in ids:
                    yield tasks[TaskId(id)]

    def __contains__(self, task: object) -> bool:
        return isinstance(task, Task) and task.service_id == self._lineage.id and self._tasks.get(task.id) == task


class ServiceSlots(Mapping[Slot, Collection[Task]]):
    """A service's slots, ascending, each with its tasks in order of creation; a live view."""

    __slots__ = ("_lineage", "_tasks")

    def __init__(self, lineage: Lineage, tasks: dict[TaskId, Task]) -> None:
        self._lineage = lineage
        self._tasks = tasks

    def __getitem__(self, slot: Slot) -> tuple[Task, ...]:
        ids, tasks = self._lineage.ids(slot), self._tasks
        if not ids:
            raise KeyError(slot)
        return tuple([tasks[TaskId(id)] for id in each(ids)])

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._lineage.numbers())

    def __len__(self) -> int:
        return self._lineage.slots

    def __contains__(self, slot: object) -> bool:
        return isinstance(slot, int) and bool(self._lineage.ids(Slot(slot)))


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
