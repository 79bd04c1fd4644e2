"""Consensus for one member, as a state machine without input or output.

How to drive it
---------------
Feed it: `tick` at a steady pace, `step` with every message that arrives, `propose` and its kin with what clients want.
Then take what has come up, as long as there is something:

    while (ready := raft.ready()) is not None:
        send(ready.messages)                      # at once
        write(ready)                              # snapshot, then hard state and entries, durably, in one go
        raft.persisted(ready)                     # ... when that write, and every earlier one, is on disk
        send(ready.messages_after)                # only now
        apply(ready.snapshot, ready.committed)    # in order; then raft.applied(index)

`ready` hands out everything once and does not wait for the disk: it may be called again, and messages stepped, while earlier
writes are under way. Three rules make that safe.

1. Writes reach the disk in the order of `Ready.number`; several may be merged into one (group commit). `persisted` is called
   for every Ready, in that order, those with nothing to write included.
2. `messages_after` of a Ready leave after its `persisted`. They carry votes and acknowledgements, which promise that this
   member will not forget. `messages` promise nothing: a leader's appends are there, so that followers write while the
   leader does (thesis 10.2.1).
3. `entries` replace the stored log from their first index on. A suffix may be replaced while its own write is under way;
   the core remembers, and counts for itself only what is durable and still stands. A leader commits an entry without its
   own disk when a majority of others has it.

`committed` holds only entries that are durable here, so that they may be applied without waiting. `snapshot` is to be saved
before it is applied, and replaces log and application state.

After a restart the same constructor takes what the disk holds. A member that knows nobody (it is about to join) starts with
nothing, and waits to be fed. A core that raises `InvariantBroken` must not be used any more.

Nothing here knows trio, clocks, files or loggers. `random(low, high)` is the one source of chance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from swarm.raft import election, membership, read_index, replication, snapshot, transfer
from swarm.raft.config import Config
from swarm.raft.errors import EntryTooLarge, InvariantBroken, NotLeader, Overloaded, StaleTerm, TransferInProgress
from swarm.raft.log import Log
from swarm.raft.messages import (
    NOBODY,
    Append,
    AppendReply,
    Commit,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    Index,
    Membership,
    MembershipChange,
    PreVote,
    PreVoteReply,
    RaftId,
    RaftMessage,
    Removed,
    SnapshotChunk,
    SnapshotMeta,
    Term,
    TimeoutNow,
    Vote,
    VoteReply,
)
from swarm.raft.progress import ProgressState
from swarm.raft.ready import ChunkWanted, Leadership, ProgressView, RaftStatus, Ready, Role
from swarm.raft.state import RandomInt, State
from swarm.raft.table import TABLE, TO_LEADER

_FROM_LEADER = (Append, Heartbeat, Commit, SnapshotChunk, TimeoutNow)
"""Only the leader of their term sends these."""


class Raft:
    """One member. `hard_state`, `stored` (the newest snapshot) and `entries` are what its disk holds."""

    def __init__(
        self,
        raft_id: RaftId,
        *,
        random: RandomInt,
        config: Config | None = None,
        hard_state: HardState | None = None,
        stored: SnapshotMeta | None = None,
        entries: Sequence[Entry] = (),
    ) -> None:
        hard_state = hard_state or HardState()
        log = Log(stored or SnapshotMeta(), entries, hard_state.commit)
        if raft_id == NOBODY:
            raise ValueError("0 is no member number")
        self._state = State(raft_id, config or Config(), random, hard_state, log)
        self._number = 0
        self._open: deque[Ready] = deque()
        self._told = (hard_state.term, hard_state.vote)
        self._led = Leadership(hard_state.term, NOBODY, Role.FOLLOWER)
        self._removal_told = False
        if raft_id in log.membership_at(log.commit).removed:
            membership.retire(self._state)
        if self._state.may_campaign and not self._state.others:
            election.pre_campaign(self._state)

    # --- fed by the world ------------------------------------------------------------------------------------------
    def tick(self) -> None:
        """A tick has passed."""
        state = self._state
        state.ticks += 1
        if state.removed:
            return
        if state.role is not Role.LEADER:
            election.tick(state)
            return
        replication.tick(state)
        snapshot.tick(state)
        transfer.tick(state)

    def step(self, message: RaftMessage) -> None:
        """A message came. Anything may come, late, twice or out of order; what does not fit any more is dropped."""
        state = self._state
        if message.to != state.id or state.removed:
            return
        if isinstance(message, Removed):
            membership.on_removed(state, message)
            return
        if message.sender in self._removed_members():
            state.send(Removed(message.sender, state.id, state.term))
            return
        if message.term != state.term and not self._admit(message):
            return
        if state.role is Role.LEADER and type(message) in TO_LEADER and message.sender not in state.progress:
            return
        TABLE[state.role][type(message)](state, message)

    def _removed_members(self) -> tuple[RaftId, ...]:
        log = self._state.log
        return log.membership_at(log.commit).removed

    def _admit(self, message: RaftMessage) -> bool:
        """Settle another term's message (paper 5.1); True when it is to be handled in the present term now."""
        state = self._state
        if message.term < state.term:
            self._answer_stale(message)
            return False
        if isinstance(message, PreVote) or (isinstance(message, PreVoteReply) and message.granted):
            return True
        if isinstance(message, Vote) and not message.transfer and election.is_protected(state):
            return False
        state.step_back(message.term, message.sender if isinstance(message, _FROM_LEADER) else NOBODY)
        return True

    def _answer_stale(self, message: RaftMessage) -> None:
        """Tell a leader or candidate of an older term what the term is, so that it steps back and can be led."""
        state = self._state
        if isinstance(message, PreVote):
            state.send(PreVoteReply(message.sender, state.id, state.term, False))
        elif isinstance(message, Vote):
            state.send(VoteReply(message.sender, state.id, state.term, False))
        elif isinstance(message, _FROM_LEADER):
            state.send(AppendReply(message.sender, state.id, state.term, 0, True))

    def hint_leader_lost(self, leader: RaftId) -> None:
        """The link to `leader` dropped: if it leads, ask for votes within `hint_jitter_ticks` instead of waiting."""
        if not self._state.removed:
            election.hint_leader_lost(self._state, leader)

    def report_unreachable(self, member: RaftId) -> None:
        """What was sent to `member` is probably lost: find out anew how far it is before sending more."""
        progress = self._state.progress.get(member)
        if progress is not None and progress.state.value == "replicate":
            progress.become_probe()

    def report_snapshot(self, member: RaftId, ok: bool) -> None:
        """How fetching or sending chunks for `member` went; not ok starts over with the newest snapshot."""
        snapshot.report(self._state, member, ok)

    def supply_chunk(self, wanted: ChunkWanted, total: int, data: bytes) -> None:
        """The chunk that `Ready.chunks_wanted` asked for; `total` is how many the snapshot has."""
        snapshot.supply(self._state, wanted, total, data)

    # --- asked by clients ------------------------------------------------------------------------------------------
    def propose(self, data: bytes, *, term: Term | None = None) -> Index:
        """Append `data` and get it committed: its index. It is committed when `Ready.committed` holds it.

        `term` fences: the caller's scope was opened in that term, and another one refuses. Raises `NotLeader`,
        `StaleTerm`, `TransferInProgress`, `EntryTooLarge`, `Overloaded`.
        """
        state = self._state
        self._check_proposable(term)
        size, config = len(data), state.config
        if size > config.entry_bytes_max:
            raise EntryTooLarge(size, config.entry_bytes_max)
        self._check_room(1, size)
        state.append(EntryKind.NORMAL, (data,))
        return state.log.last_index

    def propose_many(self, datas: Sequence[bytes], *, term: Term | None = None) -> range:
        """Append all of `datas` in a row, or refuse all: their indexes. Raises as `propose`."""
        state = self._state
        self._check_proposable(term)
        largest = max(map(len, datas), default=0)
        if largest > state.config.entry_bytes_max:
            raise EntryTooLarge(largest, state.config.entry_bytes_max)
        self._check_room(len(datas), sum(map(len, datas)))
        first = state.log.last_index + 1
        state.append(EntryKind.NORMAL, datas)
        return range(first, first + len(datas))

    def _check_proposable(self, term: Term | None) -> None:
        state = self._state
        if term is not None and term != state.term:
            raise StaleTerm(term, state.term)
        if state.role is not Role.LEADER:
            raise NotLeader(state.leader)
        if state.transfer_target:
            raise TransferInProgress(state.transfer_target)

    def _check_room(self, count: int, size: int) -> None:
        state, config = self._state, self._state.config
        under_way = state.log.last_index - state.log.commit
        if under_way + count > config.uncommitted_entries_max:
            raise Overloaded(
                f"{under_way} proposals are not committed yet, the limit is {config.uncommitted_entries_max}"
            )
        if state.uncommitted_bytes and state.uncommitted_bytes + size > config.uncommitted_bytes_max:
            raise Overloaded(f"{state.uncommitted_bytes} proposed bytes are not committed yet")

    def read_index(self, context: int) -> None:
        """Ask how far a linearizable read must see; answered by `Ready.reads` or `Ready.reads_failed`, or lost with a message.

        `context` tells the caller's reads apart. Raises `NotLeader` when nobody is known to lead, `Overloaded`.
        """
        read_index.request(self._state, context)

    def transfer(self, target: RaftId | None = None) -> RaftId:
        """Hand leadership to `target`, or to the live voter that is furthest: who it is.

        Proposals are refused until another member leads or an election timeout has passed. Raises `NotLeader`,
        `NoTransferTarget`.
        """
        return transfer.start(self._state, target)

    def change_membership(self, change: MembershipChange) -> Index:
        """Append one membership change: its index. Raises `NotLeader`, `TransferInProgress`, `ChangePending`, `ChangeRefused`."""
        return membership.change(self._state, change)

    def campaign(self) -> None:
        """Ask for votes now."""
        if self._state.role is not Role.LEADER:
            election.pre_campaign(self._state)

    # --- taken and done by the world -------------------------------------------------------------------------------
    def ready(self) -> Ready | None:
        """What has come up since the last call, None when there is nothing. See the top of this module."""
        state = self._state
        if state.role is Role.LEADER:
            if state.reads_queued:
                read_index.flush(state)
            replication.flush(state)
        if state.ack is not None:
            self._acknowledge(state.ack)
        committed = self._committed()
        led = self._led
        led_changed = led.role is not state.role or led.leader != state.leader or led.term != state.term
        hard_changed = self._told != (state.term, state.vote)
        removed = state.removed and not self._removal_told
        something = (
            committed or state.outbox or state.outbox_after or state.log.has_untaken or state.reads or removed
            or hard_changed or state.installed or state.reads_failed or state.chunks_wanted or led_changed
        )  # fmt: skip
        return self._take(committed, led_changed, hard_changed, removed) if something else None

    def _take(self, committed: tuple[Entry, ...], led_changed: bool, hard_changed: bool, removed: bool) -> Ready:
        state = self._state
        entries = state.log.take()
        if led_changed:
            self._led = Leadership(state.term, state.leader, state.role)
        hard_state = None
        if hard_changed or entries or state.installed:
            hard_state = HardState(state.term, state.vote, state.log.commit)
            self._told = (state.term, state.vote)
        self._number += 1
        ready = Ready(
            number=self._number,
            hard_state=hard_state,
            snapshot=state.installed,
            entries=entries,
            messages=tuple(state.outbox),
            messages_after=tuple(state.outbox_after),
            committed=committed,
            reads=tuple(state.reads),
            reads_failed=tuple(state.reads_failed),
            chunks_wanted=tuple(state.chunks_wanted),
            leadership=self._led if led_changed else None,
            removed=removed,
        )
        for taken in (state.outbox, state.outbox_after, state.reads, state.reads_failed, state.chunks_wanted):
            taken.clear()
        state.installed = None
        if committed:
            state.handed = committed[-1].index
        self._removal_told = self._removal_told or removed
        self._open.append(ready)
        return ready

    def _acknowledge(self, index: Index) -> None:
        state = self._state
        state.ack = None
        if state.role is Role.FOLLOWER and state.leader != NOBODY:
            state.send_after(AppendReply(state.leader, state.id, state.term, index))

    def _committed(self) -> tuple[Entry, ...]:
        state, config = self._state, self._state.config
        log, handed = state.log, state.handed
        if log.commit <= handed or log.persisted <= handed:
            return ()
        high = min(log.commit, log.persisted, state.applied + config.applying_entries_max)
        if high <= handed:
            return ()
        return state.log.slice(state.handed + 1, high, config.apply_bytes_max, high)

    def persisted(self, ready: Ready) -> None:
        """The writes of `ready`, the oldest one that was not reported yet, are durable (maybe it had none)."""
        if not self._open or self._open[0] is not ready:
            raise InvariantBroken(f"Ready {ready.number} was reported as durable out of order")
        self._open.popleft()
        state = self._state
        state.log.written()
        election.on_persisted(state, ready.hard_state)
        if state.role is Role.LEADER:
            replication.on_persisted(state)

    def applied(self, index: Index) -> None:
        """The application has applied everything through `index`."""
        state = self._state
        if index > state.handed:
            raise InvariantBroken(f"{index} was reported as applied, {state.handed} was handed over")
        state.applied = max(state.applied, index)

    def handed_over(self, low: Index, high: Index) -> tuple[Entry, ...]:
        """Committed entries low..high once more, for an application that begins anew behind the newest snapshot."""
        state = self._state
        if high > state.handed:
            raise InvariantBroken(f"entry {high} was asked for again, {state.handed} was handed over")
        return state.log.slice(low, high, state.config.apply_bytes_max, high) if low <= high else ()

    # --- snapshots and compaction ----------------------------------------------------------------------------------
    def describe_snapshot(self, index: Index) -> SnapshotMeta | None:
        """What a snapshot of the application as of `index` is stored with; None when a newer one is there already."""
        log = self._state.log
        if index > self._state.handed:
            raise InvariantBroken(f"a snapshot of {index} was to be taken, {self._state.handed} was handed over")
        term = log.term_at(index)
        if term is None or index <= log.snapshot.index:
            return None
        return SnapshotMeta(index, term, log.membership_at(index))

    def snapshot_taken(self, meta: SnapshotMeta, *, kept_entries: int) -> Index:
        """The snapshot is durable: forget what it covers, but for `kept_entries` and what followers are about to need.

        Returns the last index that is gone from memory, through which the stored log may be compacted too.
        """
        state = self._state
        if meta.index > state.log.snapshot.index:
            state.log.snapshot = meta
        return snapshot.compact(state, kept_entries)

    # --- looking in ------------------------------------------------------------------------------------------------
    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way that a single tick could move: heartbeats alone keep things as they are.

        A caller may then let as many ticks as a heartbeat takes pass at once, until something comes up.
        """
        state, log = self._state, self._state.log
        if state.role is Role.FOLLOWER:
            return state.leader != NOBODY and state.timeout >= state.config.election_ticks
        if state.role is not Role.LEADER or state.transfer_target or log.commit != log.last_index:
            return False
        last = log.last_index
        for raft_id, found in state.progress.items():
            is_up_to_date = found.state is ProgressState.REPLICATE and found.match == found.commit_told == last
            if raft_id != state.id and not is_up_to_date:
                return False
        return True

    @property
    def status(self) -> RaftStatus:
        """This member's state now."""
        state, log = self._state, self._state.log
        return RaftStatus(
            raft_id=state.id,
            role=state.role,
            term=state.term,
            leader=state.leader,
            commit=log.commit,
            applied=state.applied,
            persisted=log.persisted,
            first_index=log.first_index,
            last_index=log.last_index,
            log_bytes=log.size_bytes,
            membership=log.membership,
            progress={
                raft_id: ProgressView(found.match, found.next, found.state, found.active or raft_id == state.id)
                for raft_id, found in sorted(state.progress.items())
            },
            transfer_target=state.transfer_target,
            is_changing=log.membership_index > log.commit,
        )

    @property
    def first_index(self) -> Index:
        """The first entry that is not compacted."""
        return self._state.log.first_index

    @property
    def last_index(self) -> Index:
        """The last entry."""
        return self._state.log.last_index

    @property
    def handed(self) -> Index:
        """How far entries were handed over by `Ready.committed`, or a snapshot stood in for them."""
        return self._state.handed

    @property
    def snapshot_index(self) -> Index:
        """The newest durable snapshot's index."""
        return self._state.log.snapshot.index

    @property
    def log_bytes(self) -> int:
        """Data bytes of the log in memory."""
        return self._state.log.size_bytes

    @property
    def sending(self) -> frozenset[Index]:
        """Leader: indexes of the snapshots that are on their way to members."""
        transfers = (progress.transfer for progress in self._state.progress.values())
        return frozenset(transfer.meta.index for transfer in transfers if transfer is not None)

    @property
    def term(self) -> Term:
        """The present term."""
        return self._state.term

    @property
    def is_leader(self) -> bool:
        """Whether it leads, as far as it knows."""
        return self._state.role is Role.LEADER

    @property
    def leader(self) -> RaftId:
        """Who leads the present term, 0 when nobody is known to."""
        return self._state.leader

    @property
    def membership(self) -> Membership:
        """The membership in force."""
        return self._state.log.membership

    @property
    def transfer_target(self) -> RaftId:
        """Whom it is handing over to, 0 for nobody."""
        return self._state.transfer_target

    @property
    def is_removed(self) -> bool:
        """Whether this member was taken out."""
        return self._state.removed

    @property
    def first_own_index(self) -> Index:
        """Leader: its term's first entry. Applied through there, it knows everything that earlier terms committed."""
        return self._state.first_own

    @property
    def is_settled(self) -> bool:
        """Whether it leads and has committed an entry of its own term: what earlier terms left is known to it."""
        return self._state.role is Role.LEADER and self._state.is_settled
