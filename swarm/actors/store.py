"""The actor `store`: the one copy of the cluster's state on a manager, applied from the log and from nowhere else.

An author's proposal becomes entries, the entries come back committed, and only then the store changes and the author is
answered. Many proposals are in flight; which groups are refused shows when they are applied, identically on every member.
Whatever takes long (a burst of entries, a large proposal, a snapshot) is done in slices between which the loop breathes, and
each slice ends with watchers told of exactly what the view shows. It reads no clock and never decides what to propose.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import trio
from attrs import frozen

from swarm.actors.raft_messages import (
    AppliedEntry,
    ApplyEntries,
    AttachStore,
    InstallSnapshot,
    Propose,
    ReadIndex,
    SetCompaction,
    SnapshotTaken,
    TakeSnapshot,
)
from swarm.actors.store_messages import Committed, ProposeChanges, ReadBarrier, WatchStore
from swarm.actors.store_proposals import (
    ENTRY_BYTES_MAX,
    ENTRY_CHANGES,
    LIFE_BYTES,
    NUMBER_BYTES,
    Proposal,
    Proposals,
    Results,
    TooLarge,
)
from swarm.actors.store_snapshots import chunks_of, tables_of
from swarm.model.change_codec import decode_groups
from swarm.model.changes import Group, Kind
from swarm.model.events import Event
from swarm.model.ids import Version
from swarm.model.objects import StoreObject
from swarm.model.plain import PlainError
from swarm.model.snapshot import Snapshot
from swarm.model.specs import RaftSettings
from swarm.model.store import Store
from swarm.ports.entropy import Entropy
from swarm.runtime.actor import Actor, on
from swarm.runtime.context import INFINITY, NO_CHAIN
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.local import LocalRef
from swarm.runtime.message import Message
from swarm.runtime.ref import HERE, Sink
from swarm.runtime.turn import Call, Later, StreamTurn, Turn

log = logging.getLogger(__name__)

ENTRIES_IN_FLIGHT_MAX = 8192
"""Entries proposed here and not applied yet; authors beyond that are told to come back."""
READ_TIMEOUT_S = 30.0
"""For a read index: the askers' own timeouts are shorter."""


@frozen
class _Failed(Message):
    """An entry will not be committed, or nobody knows."""

    number: bytes
    error: SwarmError


@frozen
class _SendMore(Message):
    """Make the next entry of a large proposal."""


@frozen
class _ReadIndexKnown(Message):
    """What the reads that were asked for together have to see applied."""

    index: int
    error: SwarmError | None


class EntryUnreadable(Exception):
    """A committed entry, or the snapshot, is of a kind that this version does not know; going on would diverge."""


class StoreActor(Actor):
    """Answers `actors/store_messages.py`; the Raft member tells it what was committed."""

    mailbox_capacity = 8192
    shutdown_s = 2.0

    def __init__(self, raft: LocalRef, entropy: Entropy) -> None:
        self._raft = raft
        self._entropy = entropy
        self._begin()

    def _begin(self) -> None:
        """Empty, as `AttachStore` promises."""
        self._store = Store()
        self._applied = 0
        self._proposals = Proposals(self._entropy.bytes(LIFE_BYTES))
        self._unsent: deque[Proposal] = deque()
        """Large proposals of which entries are still to be made; the head has sent at least one."""
        self._watchers: list[Sink[Committed]] = []
        self._reads_asked: list[Later[Snapshot]] = []
        """For the next read index."""
        self._reads_asking: list[Later[Snapshot]] = []
        """For the read index that is being asked for."""
        self._reads_waiting: list[tuple[int, Later[Snapshot]]] = []
        """For the store to have applied this index."""
        self._compaction: RaftSettings | None = None

    def view(self) -> Snapshot:
        """This manager's own state, which may be behind the leader's."""
        return self._store

    async def started(self) -> None:
        """Ask for everything: this store is empty, after a restart as well."""
        self._begin()
        await self._raft.tell(AttachStore(self.ref))

    # --- proposing -------------------------------------------------------------------------------------------------
    @on(ProposeChanges)
    def propose(self, request: ProposeChanges, turn: Turn[Results]) -> Results:
        """Into the log, in one entry or several; answered when all of it is applied here."""
        if not request.groups:
            return ()
        if len(self._proposals) + len(self._unsent) >= ENTRIES_IN_FLIGHT_MAX:
            raise SwarmError(ErrorCode.UNAVAILABLE, "too many changes are under way; try again in a moment")
        proposal = Proposal(request.groups, request.term, turn.defer())
        self._send_entry(proposal)
        if proposal.sent < len(proposal.groups):
            self._unsent.append(proposal)
            if len(self._unsent) == 1:
                self._soon(_SendMore())
        return ()

    @on(_SendMore)
    def send_more(self, _message: _SendMore, _turn: Turn[None]) -> None:
        """One entry a turn."""
        proposal = self._unsent[0]
        if proposal.sent < len(proposal.groups) and not proposal.later.done:
            self._send_entry(proposal)
        if proposal.sent >= len(proposal.groups) or proposal.later.done:
            self._unsent.popleft()
        if self._unsent:
            self._soon(_SendMore())

    def _send_entry(self, proposal: Proposal) -> None:
        try:
            number, data = self._proposals.next_entry(proposal)
        except TooLarge as error:
            text = (
                f"a change of {error.size_bytes} bytes is too large: one atomic change holds {ENTRY_BYTES_MAX} bytes "
                "at the most. Split it, or take what is large (labels, environment, payloads) out of the spec"
            )
            proposal.failed(SwarmError(ErrorCode.INVALID, text))
            return
        try:
            self._raft.deliver(
                Propose(data, proposal.term),
                caller=HERE,
                deadline=INFINITY,
                chain=NO_CHAIN,
                on_done=lambda call: self._delivered(number, call),
            )
        except SwarmError as error:  # the member is gone
            self._proposals.take(number)
            proposal.failed(error)

    def _delivered(self, number: bytes, call: Call[int]) -> None:
        """Runs in the Raft member's turn and touches nothing. Success shows by the entry coming back."""
        if call.error is not None:
            self._soon(_Failed(number, call.error))

    def _soon(self, message: Message) -> None:
        if not self.ref.offer(message) and self.ref.unreached().code is ErrorCode.MAILBOX_FULL:
            self.job(self.ref.tell, message)

    @on(_Failed)
    def failed(self, message: _Failed, _turn: Turn[None]) -> None:
        """Tell the author. Should the entry come back after all, it is decoded and applied like anybody else's."""
        found = self._proposals.take(message.number)
        if found is not None:
            found[0].failed(message.error)

    # --- applying --------------------------------------------------------------------------------------------------
    @on(ApplyEntries)
    async def apply(self, message: ApplyEntries, _turn: Turn[None]) -> None:
        """Apply committed entries in order; watchers are told slice by slice of what the view then shows."""
        events: list[Event] = []
        last = len(message.entries) - 1
        for place, entry in enumerate(message.entries):
            self._apply(entry, events)
            if len(events) >= ENTRY_CHANGES and place < last:
                self._publish(events)
                events = []
                await trio.lowlevel.checkpoint()
        self._applied = max(self._applied, message.through)
        self._publish(events)

    def _apply(self, entry: AppliedEntry, events: list[Event]) -> None:
        found = self._proposals.take(entry.data[:NUMBER_BYTES])
        groups = self._decoded(entry) if found is None else found[1]
        results, happened = self._store.apply(groups, Version(entry.index))
        self._applied = entry.index
        events += happened
        if found is not None:
            found[0].applied(results)

    def _decoded(self, entry: AppliedEntry) -> Sequence[Group]:
        try:
            return decode_groups(entry.data[NUMBER_BYTES:])
        except PlainError as error:
            raise EntryUnreadable(
                f"entry {entry.index} of the log cannot be applied: {error}. If a manager of a newer version wrote it, "
                "this one has to be upgraded before it can go on"
            ) from error

    @on(InstallSnapshot)
    async def install(self, message: InstallSnapshot, _turn: Turn[None]) -> None:
        """Replace everything. Watchers begin anew: no list of events leads from the old state to this one."""
        try:
            tables = await tables_of(message.chunks)
        except PlainError as error:
            raise EntryUnreadable(f"the snapshot of index {message.index} cannot be read: {error}") from error
        self._store.replace(tables, Version(message.index))
        self._applied = message.index
        self._proposals.fail_all(_replaced)
        for sink in self._watchers:
            sink.fail(SwarmError(ErrorCode.OVERRUN, "the state was replaced by a snapshot; watch anew"))
        self._watchers.clear()
        self._tell_compaction()
        self._answer_reads()

    # --- watching --------------------------------------------------------------------------------------------------
    @on(WatchStore)
    def watch(self, _request: WatchStore, turn: StreamTurn[Committed]) -> None:
        """The state now, then every batch."""
        sink = turn.sink
        sink.offer(Committed(self._store, (), Version(self._applied)))
        self._watchers.append(sink)
        sink.on_close(lambda: self._watchers.remove(sink) if sink in self._watchers else None)

    def _publish(self, events: list[Event]) -> None:
        """Whoever waits for an index gets it, watchers get the events, Raft its settings."""
        self._answer_reads()
        if not events:
            return
        if any(event.kind is Kind.CLUSTER for event in events):
            self._tell_compaction()
        committed = Committed(self._store, tuple(events), Version(self._applied))
        slow = [sink for sink in self._watchers if not sink.offer(committed)]
        for sink in slow:
            self._watchers.remove(sink)
            sink.fail(SwarmError(ErrorCode.OVERRUN, "this watcher is too slow for what is committed; watch anew"))

    def _tell_compaction(self) -> None:
        cluster = self._store.cluster
        if cluster is not None and cluster.settings.raft != self._compaction:
            self._compaction = cluster.settings.raft
            self._tell_raft(SetCompaction(self._compaction.snapshot_interval, self._compaction.kept_entries))

    def _tell_raft(self, message: Message) -> None:
        if not self._raft.offer(message):
            self.job(self._raft.tell, message)

    # --- reading ---------------------------------------------------------------------------------------------------
    @on(ReadBarrier)
    def read(self, _request: ReadBarrier, turn: Turn[Snapshot]) -> Snapshot:
        """Reads that come while an index is being asked for share the next one."""
        self._reads_asked.append(turn.defer())
        self._ask_read_index()
        return self._store

    def _ask_read_index(self) -> None:
        if not self._reads_asking and self._reads_asked:
            self._reads_asking, self._reads_asked = self._reads_asked, []
            self.job(self._read_index, name="read index")

    async def _read_index(self) -> None:
        index, problem = 0, None
        try:
            index = await self._raft.ask(ReadIndex(), timeout_s=READ_TIMEOUT_S)
        except SwarmError as error:
            problem = error
        await self.ref.tell(_ReadIndexKnown(index, problem))

    @on(_ReadIndexKnown)
    def read_index_known(self, message: _ReadIndexKnown, _turn: Turn[None]) -> None:
        """Answer those at once for whom enough is applied."""
        asking, self._reads_asking = self._reads_asking, []
        for later in asking:
            if message.error is not None:
                later.fail(message.error)
            else:
                self._reads_waiting.append((message.index, later))
        self._answer_reads()
        self._ask_read_index()

    def _answer_reads(self) -> None:
        if not self._reads_waiting:
            return
        waiting, self._reads_waiting = self._reads_waiting, []
        for index, later in waiting:
            if self._applied >= index:
                later.answer(self._store)
            elif not later.done:
                self._reads_waiting.append((index, later))

    # --- snapshots -------------------------------------------------------------------------------------------------
    @on(TakeSnapshot)
    def take_snapshot(self, _request: TakeSnapshot, turn: Turn[SnapshotTaken]) -> None:
        """The objects of this moment never change: they are encoded piece by piece while the store moves on."""
        self.answer_in_job(turn, self._encode, self._store.dump(), self._applied, name="snapshot")

    async def _encode(self, objects: list[StoreObject], index: int) -> SnapshotTaken:
        return SnapshotTaken(index, await chunks_of(objects))


def _replaced() -> SwarmError:
    return SwarmError(
        ErrorCode.UNAVAILABLE,
        "a snapshot replaced the state before the change was applied here; look whether it is in it before repeating it",
    )
