"""A log store in memory, for tests and the simulator: durable exactly when `write` has returned, faults on demand.

One idea: the object is the disk and outlives the member; `crash` forgets what was not finished, as a power cut does.
"""

from __future__ import annotations

import trio

from swarm.ports.log_store import LogBatch, LogDamaged, LogWriteFailed, Recovered, WriteDone
from swarm.raft.messages import Entry, HardState, Index, Snapshot, SnapshotMeta


class MemoryLogStore:
    """One member's disk. `latency_s` is what a write takes."""

    def __init__(self, latency_s: float = 0.0005) -> None:
        self.latency_s = latency_s
        self.refuses = ""
        """Why the disk takes nothing ("No space left on device"); empty for a disk that works."""
        self.damaged = ""
        """Why opening fails; empty for a disk that is whole."""
        self.hard_state = HardState()
        self.entries: list[Entry] = []
        self.snapshot: Snapshot | None = None
        self.is_erased = False
        """Whether it was erased, and nothing was written since."""
        self.writes = 0
        """How many batches were made durable."""
        self._life = 0
        self._writing = False
        self._under_way: LogBatch | None = None

    def crash(self, *, keep: bool = False) -> None:
        """The power goes: a write that has not returned never happened, or (`keep`) did although nobody learned of it."""
        self._life += 1
        if keep and self._under_way is not None and not self.refuses:
            self._put(self._under_way)
        self._under_way = None
        self._writing = False

    async def open(self) -> Recovered:
        """What was durable."""
        if self.damaged:
            raise LogDamaged(self.damaged)
        meta = self.snapshot.meta if self.snapshot is not None else SnapshotMeta()
        return Recovered(self.hard_state, meta, tuple(self.entries))

    async def write(self, batch: LogBatch) -> None:
        """Durable after `latency_s`."""
        assert not self._writing, "one write at a time"
        self._writing, self._under_way = True, batch
        try:
            await self._disk_time()
            self._put(batch)
        finally:
            self._writing, self._under_way = False, None

    def begin_write(self, batch: LogBatch, done: WriteDone) -> bool:
        """Only by `write`, whose task ends with its machine."""
        return False

    async def landed(self) -> None:
        """Nothing is ever begun."""

    def _put(self, batch: LogBatch) -> None:
        self.is_erased = False
        if batch.snapshot is not None:
            self.snapshot = batch.snapshot
            self.entries = []
        if batch.entries:
            first = batch.entries[0].index
            while self.entries and self.entries[-1].index >= first:
                self.entries.pop()
            assert not self.entries or self.entries[-1].index == first - 1, "a log has no gaps"
            self.entries.extend(batch.entries)
        if batch.hard_state is not None:
            self.hard_state = batch.hard_state
        self.writes += 1

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """In place of the one before."""
        await self._disk_time()
        if self.snapshot is None or self.snapshot.meta.index < snapshot.meta.index:
            self.snapshot = snapshot

    async def load_snapshot(self) -> Snapshot | None:
        """The newest."""
        await self._disk_time(writes=False)
        return self.snapshot

    async def compact(self, through: Index) -> None:
        """The entry at `through` stays."""
        await self._disk_time()
        self.entries = [entry for entry in self.entries if entry.index >= through]

    async def erase(self) -> None:
        """As new."""
        await self._disk_time(writes=False)
        self.hard_state, self.entries, self.snapshot, self.is_erased = HardState(), [], None, True

    async def aclose(self) -> None:
        """Nothing to let go of."""

    async def _disk_time(self, *, writes: bool = True) -> None:
        life = self._life
        await trio.sleep(self.latency_s)
        if life != self._life:
            await trio.sleep_forever()
        if writes and self.refuses:
            raise LogWriteFailed(self.refuses)
