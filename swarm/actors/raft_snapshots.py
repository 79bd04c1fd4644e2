"""Snapshots of one member: taken when the log has grown long, saved, the log compacted, and read again for those who need one.

One idea: the store encodes itself, the disk saves it, and only then the log lets go of what it covers. One at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from attrs import frozen

from swarm.actors.raft_feed import StoreFeed
from swarm.actors.raft_messages import SnapshotTaken, TakeSnapshot
from swarm.actors.raft_peers import Host
from swarm.model.specs import RaftSettings
from swarm.ports.log_store import LogStore
from swarm.raft.config import COMPACTION_HOLD_ENTRIES
from swarm.raft.core import Raft
from swarm.raft.messages import Index, Snapshot
from swarm.raft.ready import ChunkWanted
from swarm.runtime.errors import SwarmError
from swarm.runtime.message import Message
from swarm.runtime.ref import Ref

log = logging.getLogger(__name__)

LOG_BYTES_MAX = 64 * 1024 * 1024
"""A log in memory of this size is compacted whatever the interval says."""
LARGE_BYTES = 1024 * 1024
SHARE = 4
"""A snapshot larger than `LARGE_BYTES` waits until the log in memory has grown to one part in this many of its size: else
10,000 small writes a second would write a large state anew every second."""
ENCODE_TIMEOUT_S = 300.0
"""For the store to encode itself."""


@frozen
class SnapshotEncoded(Message):
    """The store gave its content."""

    taken: SnapshotTaken


@frozen
class SnapshotSaved(Message):
    """It is durable."""

    snapshot: Snapshot


@frozen
class SnapshotEnded(Message):
    """It is done; or failed, and the next look tries again."""

    problem: str = ""


@frozen
class SnapshotLoaded(Message):
    """The newest saved snapshot was read; None when it cannot be."""

    snapshot: Snapshot | None


class Snapshots:
    """Touched in the member's turns; its jobs touch nothing and send messages."""

    def __init__(self, raft: Raft, disk: LogStore, host: Host, feed: StoreFeed) -> None:
        self._raft = raft
        self._disk = disk
        self._host = host
        self._feed = feed
        self.settings = RaftSettings()
        self._busy = False
        self._size_bytes = 0
        """Of the last one that was taken, or installed."""
        self._failed_at: Index = 0
        """How far was applied when the last one failed: the next try comes after as many entries again."""
        self._sendable: dict[Index, Snapshot] = {}
        """What is on its way to other members, in memory for as long as that takes: a newer one does not restart it."""
        self._wanted: list[ChunkWanted] = []
        self._loading = False

    # --- taking ----------------------------------------------------------------------------------------------------
    def take_if_due(self) -> None:
        """Begin one when the log has grown by the interval, or is too large for memory."""
        store = self._feed.store
        if self._busy or store is None:
            return
        grown = self._feed.given - max(self._raft.snapshot_index, self._failed_at)
        interval, log_bytes = self.settings.snapshot_interval, self._raft.log_bytes
        worth_it = self._size_bytes <= LARGE_BYTES or log_bytes * SHARE >= self._size_bytes
        if interval and grown >= interval and worth_it and not self._is_in_vain(grown):
            due = True
        else:
            due = grown > 0 and log_bytes >= LOG_BYTES_MAX
        if due:
            self._busy = True
            self._host.job(self._encode, store, name="snapshot: encode")

    def _is_in_vain(self, grown: Index) -> bool:
        """Whether the log would let go of nothing: a member that is being sent the last one needs all entries after it."""
        return grown < COMPACTION_HOLD_ENTRIES and bool(self._raft.sending)

    def replaced_by(self, snapshot: Snapshot) -> None:
        """The leader's was installed: the next one of its own will be about as large."""
        self._size_bytes = sum(map(len, snapshot.chunks))

    async def _encode(self, store: Ref) -> None:
        try:
            taken = await store.ask(TakeSnapshot(), timeout_s=ENCODE_TIMEOUT_S)
        except SwarmError as error:
            await self._host.ref.tell(SnapshotEnded(error.text))
        else:
            await self._host.ref.tell(SnapshotEncoded(taken))

    def encoded(self, message: SnapshotEncoded) -> None:
        """Save it, unless the leader's came meanwhile."""
        self._size_bytes = sum(map(len, message.taken.chunks))
        meta = self._raft.describe_snapshot(message.taken.index)
        if meta is None:
            self._busy = False
            return
        self._host.job(self._save, Snapshot(meta, message.taken.chunks or (b"",)), name="snapshot: save")

    async def _save(self, snapshot: Snapshot) -> None:
        try:
            await self._disk.save_snapshot(snapshot)
        except SwarmError as error:
            await self._host.ref.tell(SnapshotEnded(error.text))
        else:
            await self._host.ref.tell(SnapshotSaved(snapshot))

    def saved(self, message: SnapshotSaved) -> None:
        """Let go of the entries that it covers, in memory now, on disk next."""
        meta = message.snapshot.meta
        before = self._raft.first_index
        through = self._raft.snapshot_taken(meta, kept_entries=self.settings.kept_entries)
        log.info("snapshot of %d saved, the log begins at %d", meta.index, through + 1)
        if self._raft.first_index == before:
            self._busy = False
        else:
            self._host.job(self._compact, through, name="snapshot: compact")

    async def _compact(self, through: Index) -> None:
        problem = ""
        try:
            await self._disk.compact(through)
        except SwarmError as error:
            problem = error.text
        await self._host.ref.tell(SnapshotEnded(problem))

    def ended(self, message: SnapshotEnded) -> None:
        """Done, or given up for now."""
        self._busy = False
        if message.problem:
            self._failed_at = self._feed.given
            log.error("no snapshot could be taken: %s", message.problem)

    # --- sending ---------------------------------------------------------------------------------------------------
    def want(self, wanted: Iterable[ChunkWanted]) -> None:
        """Chunks that members are to get."""
        for one in wanted:
            snapshot = self._sendable.get(one.meta.index)
            if snapshot is not None:
                self._supply(one, snapshot)
                continue
            self._wanted.append(one)
            if not self._loading:
                self._loading = True
                self._host.job(self._load, name="snapshot: load")

    async def _load(self) -> None:
        try:
            snapshot = await self._disk.load_snapshot()
        except SwarmError as error:
            log.error("the saved snapshot cannot be read: %s", error.text)
            snapshot = None
        await self._host.ref.tell(SnapshotLoaded(snapshot))

    def loaded(self, message: SnapshotLoaded) -> None:
        """Go on with what waited for it; whoever wants an older one starts over with this."""
        self._loading = False
        snapshot = message.snapshot
        if snapshot is not None:
            self._sendable[snapshot.meta.index] = snapshot
        wanted, self._wanted = self._wanted, []
        for one in wanted:
            if snapshot is not None and one.meta == snapshot.meta:
                self._supply(one, snapshot)
            else:
                self._raft.report_snapshot(one.to, ok=False)

    def _supply(self, wanted: ChunkWanted, snapshot: Snapshot) -> None:
        self._raft.supply_chunk(wanted, len(snapshot.chunks), snapshot.chunks[wanted.number])

    def tick(self) -> None:
        """Forget what nobody is being sent any more."""
        if self._sendable and not self._loading:
            sending = self._raft.sending
            for index in [index for index in self._sendable if index not in sending]:
                del self._sendable[index]
