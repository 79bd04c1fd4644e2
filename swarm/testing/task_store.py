"""A task store in memory that outlives the agents that use it, as a disk outlives processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import trio
from attrs import define, evolve, field

from swarm.model.ids import TaskId
from swarm.model.objects import TaskStatus
from swarm.ports.task_store import StoredTask, TaskStoreFailed


@define
class MemoryTaskStore:
    """See `ports.task_store.TaskStore`. While `refusing`, every write fails with that text."""

    tasks: dict[TaskId, StoredTask] = field(factory=dict)
    write_s: float = 0.0
    """Virtual time that a write takes."""
    refusing: str = ""
    writes: int = 0

    async def open(self) -> list[StoredTask]:
        """All that is recorded, by id."""
        await trio.lowlevel.checkpoint()
        return [self.tasks[id] for id in sorted(self.tasks)]

    async def assign(self, tasks: Sequence[StoredTask], removed: Iterable[TaskId] = ()) -> None:
        """All at once, after `write_s`."""
        await self._write()
        for stored in tasks:
            known = self.tasks.get(stored.task.id)
            status = stored.status if stored.status is not None or known is None else known.status
            self.tasks[stored.task.id] = evolve(stored, status=status)
        for id in removed:
            self.tasks.pop(id, None)

    async def record(self, statuses: Mapping[TaskId, TaskStatus]) -> None:
        """All at once, after `write_s`."""
        await self._write()
        for id, status in statuses.items():
            if id in self.tasks:
                self.tasks[id] = evolve(self.tasks[id], status=status)

    async def aclose(self) -> None:
        """Nothing to do: it stays for the next agent."""
        await trio.lowlevel.checkpoint()

    async def _write(self) -> None:
        await trio.sleep(self.write_s)
        if self.refusing:
            raise TaskStoreFailed(self.refusing)
        self.writes += 1
