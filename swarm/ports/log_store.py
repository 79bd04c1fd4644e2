"""The log store port: where a member's hard state, entries and newest snapshot are kept.

One idea: a batch is on disk, whole, when `write` returns, and not at all when it raises. Everything that is read back was
checked: damage is an error with a name and a way out, never data. A store is used by one Raft member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from attrs import field, frozen

from swarm.raft.messages import Entry, HardState, Index, Snapshot, SnapshotMeta
from swarm.runtime.errors import ErrorCode, SwarmError


class LogDamaged(SwarmError):
    """What the disk holds fails its check; the text names the file, what is wrong and the way out."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.PRECONDITION, text)


class LogWriteFailed(SwarmError):
    """Nothing of the batch was written (the disk is full, or refuses); the same batch may be written again later."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, text)


@frozen
class Recovered:
    """What the disk holds."""

    hard_state: HardState = HardState()
    snapshot: SnapshotMeta = SnapshotMeta()
    """Of the newest snapshot; index 0 when there is none."""
    entries: tuple[Entry, ...] = field(default=(), repr=False)
    """In order without a gap; the first may be the last compacted one, kept for its term."""
    repaired: str = ""
    """What was repaired when it was opened (a torn last write), in words; empty when nothing was."""

    @property
    def is_empty(self) -> bool:
        """Whether this store was never written to."""
        return not self.entries and not self.snapshot.index and self.hard_state == HardState()


@frozen
class LogBatch:
    """One durable step, applied in this order."""

    hard_state: HardState | None = None
    snapshot: Snapshot | None = None
    """Replaces the snapshot and all entries: it came from the leader."""
    entries: tuple[Entry, ...] = field(default=(), repr=False)
    """Replace everything from `entries[0].index` on."""


WriteDone: TypeAlias = Callable[[Exception | None], None]
"""Told None when the batch is durable, else what `write` would have raised."""


class LogStore(Protocol):
    """One member's disk."""

    async def open(self) -> Recovered:
        """Check and read everything. `LogDamaged` when it fails its check."""
        ...

    async def write(self, batch: LogBatch) -> None:
        """Make a batch durable, in one transaction. `LogWriteFailed` when nothing of it was written.

        Never called again before it has returned. A cancelled write may or may not have happened.
        """
        ...

    def begin_write(self, batch: LogBatch, done: WriteDone) -> bool:
        """Begin what `write` does, without waiting; `done` is called later, in the loop but in no task, and must not raise.

        False when that takes more than one step (a snapshot) and was not begun: `write` does it. It cannot be cancelled.
        """
        ...

    async def landed(self) -> None:
        """Return once what `begin_write` began is done; like the thread itself, it is not cancelled."""
        ...

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot of this member's own state in place of the one before; entries stay. `LogWriteFailed`."""
        ...

    async def load_snapshot(self) -> Snapshot | None:
        """The newest snapshot, None when there is none. `LogDamaged` when it fails its check."""
        ...

    async def compact(self, through: Index) -> None:
        """Drop the entries before `through`; that one stays, for its term. `LogWriteFailed`."""
        ...

    async def erase(self) -> None:
        """Remove everything, for good. The store is then as new."""
        ...

    async def aclose(self) -> None:
        """Let go of the files; what was written is durable."""
        ...


def merge(batches: Sequence[LogBatch]) -> LogBatch:
    """One batch that leaves the disk as these leave it one after the other (group commit)."""
    if len(batches) == 1:
        return batches[0]
    hard_state: HardState | None = None
    snapshot: Snapshot | None = None
    entries: list[Entry] = []
    for batch in batches:
        hard_state = batch.hard_state or hard_state
        if batch.snapshot is not None:
            snapshot = batch.snapshot
            entries = []
        if batch.entries:
            first = batch.entries[0].index
            while entries and entries[-1].index >= first:
                entries.pop()
            entries.extend(batch.entries)
    return LogBatch(hard_state, snapshot, tuple(entries))
