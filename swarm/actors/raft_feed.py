"""Handing committed entries to the store: in order, each once, whatever the store's mailbox has room for.

One idea: as long as the store has room, an entry is offered in the turn that it is committed in; only when it has none, a
job waits for room. A store that begins anew gets the newest snapshot and everything after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import trio
from attrs import frozen

from swarm.actors.raft_messages import AppliedEntry, ApplyEntries, InstallSnapshot
from swarm.actors.raft_peers import Host
from swarm.actors.raft_waiting import Proposals
from swarm.ports.log_store import LogStore
from swarm.raft.core import Raft
from swarm.raft.messages import Entry, EntryKind, Index, Snapshot
from swarm.runtime.errors import ActorDied
from swarm.runtime.message import Message
from swarm.runtime.ref import Ref

REFILL_RETRY_S = 0.05
"""A leader's snapshot came meanwhile and is not on disk yet."""


@frozen
class StoreTook(Message):
    """The store took what had to wait."""

    store: Ref
    through: Index
    entries: tuple[Entry, ...]


@frozen
class StoreRefilled(Message):
    """A new store has the snapshot of `index`, 0 for none."""

    store: Ref
    index: Index


class StoreFeed:
    """Touched in the member's turns; its jobs touch nothing and send messages."""

    def __init__(self, raft: Raft, disk: LogStore, host: Host, proposals: Proposals) -> None:
        self._raft = raft
        self._disk = disk
        self._host = host
        self._proposals = proposals
        self._store: Ref | None = None
        self._refilling = False
        self._queue: deque[tuple[ApplyEntries | InstallSnapshot, Index, tuple[Entry, ...]]] = deque()
        """What the store had no room for: (message, through, entries). The head is with the job, if there is any."""
        self._telling: trio.CancelScope | None = None
        self.given: Index = 0
        """Everything through here is in the store's mailbox or behind it."""

    @property
    def store(self) -> Ref | None:
        """The store, None while there is none or it is being refilled."""
        return None if self._refilling else self._store

    def attach(self, store: Ref) -> None:
        """A store that is empty: fill it."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._queue.clear()
        self._store = store
        self._refilling = True
        self.given = 0
        self._host.job(self._refill, store, 0, name="refill the store")

    async def _refill(self, store: Ref, wait_s: float) -> None:
        await trio.sleep(wait_s)
        snapshot = await self._disk.load_snapshot()
        try:
            if snapshot is not None:
                await store.tell(InstallSnapshot(snapshot.meta.index, snapshot.meta.term, snapshot.chunks))
        except ActorDied:
            return
        await self._host.ref.tell(StoreRefilled(store, snapshot.meta.index if snapshot is not None else 0))

    def refilled(self, message: StoreRefilled) -> None:
        """The snapshot is there; now the entries after it, unless the log begins later by now."""
        if message.store is not self._store:
            return
        if message.index + 1 < self._raft.first_index:
            self._host.job(self._refill, message.store, REFILL_RETRY_S, name="refill the store")
            return
        self._refilling = False
        self._took(message.index, ())
        low = message.index + 1
        while entries := self._raft.handed_over(low, self._raft.handed):
            self._put(entries)
            low = entries[-1].index + 1

    def give(self, entries: tuple[Entry, ...]) -> None:
        """Committed entries, to be applied. Without a store they wait in the log."""
        if entries and self.store is not None:
            self._put(entries)

    def install(self, snapshot: Snapshot) -> None:
        """A leader's snapshot, durable now, replaces everything."""
        self._proposals.passed(snapshot.meta.index)
        if self.store is not None:
            meta = snapshot.meta
            self._send(InstallSnapshot(meta.index, meta.term, snapshot.chunks), meta.index, ())

    def _put(self, entries: Sequence[Entry]) -> None:
        through = entries[-1].index
        wanted = tuple(
            [AppliedEntry(entry.index, entry.term, entry.data) for entry in entries if entry.kind is EntryKind.NORMAL]
        )
        self._send(ApplyEntries(wanted, through), through, tuple(entries))

    def _send(self, message: ApplyEntries | InstallSnapshot, through: Index, entries: tuple[Entry, ...]) -> None:
        store = self._store
        assert store is not None
        if not self._queue and store.offer(message):
            self._took(through, entries)
            return
        self._queue.append((message, through, entries))
        if len(self._queue) == 1:
            self._tell_next(store)

    def _tell_next(self, store: Ref) -> None:
        self._telling = self._host.job(self._tell, store, *self._queue[0], name="wait for the store")

    async def _tell(
        self, store: Ref, message: ApplyEntries | InstallSnapshot, through: Index, entries: tuple[Entry, ...]
    ) -> None:
        try:
            await store.tell(message)
        except ActorDied:
            return  # Its successor attaches itself and is refilled.
        await self._host.ref.tell(StoreTook(store, through, entries))

    def took(self, message: StoreTook) -> None:
        """The head of the queue is with the store."""
        if message.store is not self._store or not self._queue or self._queue[0][1] != message.through:
            return
        self._queue.popleft()
        self._took(message.through, message.entries)
        while self._queue:
            waiting, through, entries = self._queue[0]
            if not message.store.offer(waiting):
                self._tell_next(message.store)
                return
            self._queue.popleft()
            self._took(through, entries)

    def _took(self, through: Index, entries: tuple[Entry, ...]) -> None:
        self.given = max(self.given, through)
        self._raft.applied(through)
        self._proposals.settle(entries)
