"""The actor `store`: the one copy of the cluster's state on a manager, applied from the log and from nowhere else.

One idea: an entry is a number and bytes. On the manager that proposed it the groups behind the bytes are kept until the entry
comes back committed, and are applied without decoding; everywhere else, and after a restart, they are decoded. Either way the
same entry at the same index gives the same state. Many proposals are in flight at once; which of them are refused is found
out when they are applied, identically on every manager.

It never reads a clock, never decides what to propose, and answers a proposal only once it is applied here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import cast

import trio
from attrs import define, frozen

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
from swarm.model.change_codec import decode_groups, decode_objects, encode_groups, encode_objects
from swarm.model.changes import Group, GroupResult, Kind
from swarm.model.events import Event
from swarm.model.ids import Version
from swarm.model.objects import Cluster, StoreObject
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

PROPOSAL_BYTES_MAX = 1_572_864
"""1.5 MiB: an entry must fit into the log's, the wire's and every follower's buffers many times over."""
PROPOSALS_MAX = 8192
"""Proposals in flight; whoever comes after them is told to come back."""
NUMBER_BYTES = 16
"""An entry's number: 8 random bytes of this actor's life, 8 that count."""
READ_TIMEOUT_S = 30.0
SNAPSHOT_PIECE_OBJECTS = 500
"""Objects encoded in one go, under a millisecond."""
SNAPSHOT_CHUNK_BYTES = 65_536
_LENGTH_BYTES = 4

Results = tuple[GroupResult, ...]


@define(eq=False)
class _Proposal:
    """What was proposed here and is not applied yet."""

    groups: tuple[Group, ...]
    later: Later[Results]


@frozen
class _ProposalFailed(Message):
    """The Raft member would not, or may not have."""

    number: bytes
    error: SwarmError


@frozen
class _ReadIndexKnown(Message):
    """What the reads that were asked for together have to wait for."""

    index: int
    error: SwarmError | None


class StoreActor(Actor):
    """Answers `actors/store_messages.py`; told by the Raft member what was committed."""

    mailbox_capacity = 8192
    shutdown_s = 2.0

    def __init__(self, raft: LocalRef, entropy: Entropy) -> None:
        self._raft = raft
        self._life = entropy.bytes(NUMBER_BYTES - 8)
        self._count = 0
        self._store = Store()
        self._applied = 0
        self._proposals: dict[bytes, _Proposal] = {}
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
        """Ask for everything: this store is empty."""
        await self._raft.tell(AttachStore(self.ref))

    # --- proposing -------------------------------------------------------------------------------------------------
    @on(ProposeChanges)
    def propose(self, request: ProposeChanges, turn: Turn[Results]) -> Results | None:
        """Hand the encoded groups to the Raft member; answered when they come back."""
        if not request.groups:
            return ()
        data = encode_groups(request.groups)
        if len(data) > PROPOSAL_BYTES_MAX:
            raise SwarmError(
                ErrorCode.INVALID,
                f"a change of {len(data)} bytes is too large; one proposal holds {PROPOSAL_BYTES_MAX} at most",
            )
        if len(self._proposals) >= PROPOSALS_MAX:
            raise SwarmError(ErrorCode.UNAVAILABLE, "too many changes are under way; try again in a moment")
        self._count += 1
        number = self._life + self._count.to_bytes(8, "big")
        self._proposals[number] = _Proposal(request.groups, turn.defer())
        self._raft.deliver(
            Propose(number + data, request.term),
            caller=HERE,
            deadline=INFINITY,
            chain=NO_CHAIN,
            on_done=lambda call: self._proposed(number, call),
        )
        return None

    def _proposed(self, number: bytes, call: Call[int]) -> None:
        """Runs in the Raft member's turn: only errors matter, success shows by the entry coming back."""
        if call.error is not None and not self.ref.offer(_ProposalFailed(number, call.error)):
            self.job(self.ref.tell, _ProposalFailed(number, call.error))

    @on(_ProposalFailed)
    def proposal_failed(self, message: _ProposalFailed, turn: Turn[None]) -> None:
        """Tell the author; should the entry be committed after all, it is applied like anybody else's."""
        proposal = self._proposals.pop(message.number, None)
        if proposal is not None:
            proposal.later.fail(message.error)

    # --- applying --------------------------------------------------------------------------------------------------
    @on(ApplyEntries)
    def apply(self, message: ApplyEntries, turn: Turn[None]) -> None:
        """Apply committed entries in order, answer their authors, tell the watchers once."""
        events: list[Event] = []
        for entry in message.entries:
            self._apply(entry, events)
        self._applied = max(message.through, message.entries[-1].index if message.entries else 0)
        self._answer_reads()
        if events:
            self._publish(events)

    def _apply(self, entry: AppliedEntry, events: list[Event]) -> None:
        number = entry.data[:NUMBER_BYTES]
        proposal = self._proposals.pop(number, None)
        groups: Sequence[Group]
        groups = proposal.groups if proposal is not None else decode_groups(entry.data[NUMBER_BYTES:])
        results, happened = self._store.apply(groups, Version(entry.index))
        events.extend(happened)
        if proposal is not None:
            proposal.later.answer(tuple(results))

    @on(InstallSnapshot)
    def install(self, message: InstallSnapshot, turn: Turn[None]) -> None:
        """Replace everything; watchers begin anew, since no list of events leads from the old state to this one."""
        self._store.restore(objects_of(message.chunks), Version(message.index))
        self._applied = message.index
        unknown = SwarmError(
            ErrorCode.UNAVAILABLE, "a snapshot replaced the state; whether the change is in it is not known"
        )
        for proposal in self._proposals.values():
            proposal.later.fail(unknown)
        self._proposals.clear()
        for sink in self._watchers:
            sink.fail(SwarmError(ErrorCode.OVERRUN, "the state was replaced by a snapshot; watch anew"))
        self._watchers.clear()
        self._tell_compaction()
        self._answer_reads()

    # --- watching --------------------------------------------------------------------------------------------------
    @on(WatchStore)
    def watch(self, request: WatchStore, turn: StreamTurn[Committed]) -> None:
        """The state now, then every batch."""
        turn.sink.offer(Committed(self._store, (), Version(self._applied)))
        self._watchers.append(turn.sink)

    def _publish(self, events: list[Event]) -> None:
        if any(event.kind is Kind.CLUSTER for event in events):
            self._tell_compaction()
        committed = Committed(self._store, tuple(events), Version(self._applied))
        keep: list[Sink[Committed]] = []
        for sink in self._watchers:
            if sink.offer(committed):
                keep.append(sink)
            elif not sink.closed:
                sink.fail(SwarmError(ErrorCode.OVERRUN, "this watcher is too slow for what is committed; watch anew"))
        self._watchers = keep

    def _tell_compaction(self) -> None:
        cluster: Cluster | None = self._store.cluster
        if cluster is None or cluster.settings.raft == self._compaction:
            return
        self._compaction = cluster.settings.raft
        self._raft.offer(SetCompaction(self._compaction.snapshot_interval, self._compaction.kept_entries))

    # --- reading ---------------------------------------------------------------------------------------------------
    @on(ReadBarrier)
    def read_barrier(self, request: ReadBarrier, turn: Turn[Snapshot]) -> None:
        """Reads that come while a read index is being asked for share the next one."""
        self._reads_asked.append(turn.defer())
        self._ask_read_index()

    def _ask_read_index(self) -> None:
        if self._reads_asking or not self._reads_asked:
            return
        self._reads_asking, self._reads_asked = self._reads_asked, []
        self.job(self._read_index, name="read-index")

    async def _read_index(self) -> None:
        index, problem = 0, None
        try:
            index = await self._raft.ask(ReadIndex(), timeout_s=READ_TIMEOUT_S)
        except SwarmError as error:
            problem = error
        await self.ref.tell(_ReadIndexKnown(index, problem))

    @on(_ReadIndexKnown)
    def read_index_known(self, message: _ReadIndexKnown, turn: Turn[None]) -> None:
        """Answer at once what is applied already."""
        asking, self._reads_asking = self._reads_asking, []
        for later in asking:
            if message.error is not None:
                later.fail(message.error)
            elif self._applied >= message.index:
                later.answer(self._store)
            else:
                self._reads_waiting.append((message.index, later))
        self._ask_read_index()

    def _answer_reads(self) -> None:
        if not self._reads_waiting:
            return
        waiting, self._reads_waiting = self._reads_waiting, []
        for index, later in waiting:
            if self._applied >= index:
                later.answer(self._store)
            else:
                self._reads_waiting.append((index, later))

    # --- snapshots -------------------------------------------------------------------------------------------------
    @on(TakeSnapshot)
    def take_snapshot(self, request: TakeSnapshot, turn: Turn[SnapshotTaken]) -> None:
        """The objects of this moment, which never change, encoded piece by piece while the store moves on."""
        self.answer_in_job(turn, self._encode, self._store.dump(), self._applied, name="snapshot")

    async def _encode(self, objects: list[StoreObject], index: int) -> SnapshotTaken:
        pieces: list[bytes] = []
        for start in range(0, len(objects), SNAPSHOT_PIECE_OBJECTS):
            piece = encode_objects(objects[start : start + SNAPSHOT_PIECE_OBJECTS])
            pieces.append(len(piece).to_bytes(_LENGTH_BYTES, "big") + piece)
            await trio.lowlevel.checkpoint()
        data = b"".join(pieces)
        chunks = tuple(
            data[start : start + SNAPSHOT_CHUNK_BYTES] for start in range(0, len(data), SNAPSHOT_CHUNK_BYTES)
        )
        return SnapshotTaken(index, chunks)


def objects_of(chunks: Sequence[bytes]) -> Iterator[StoreObject]:
    """The objects that a snapshot's chunks hold, in order."""
    data = memoryview(b"".join(chunks))
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        at += _LENGTH_BYTES
        yield from decode_objects(cast(bytes, data[at : at + size]))
        at += size
