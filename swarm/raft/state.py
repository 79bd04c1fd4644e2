"""The fields of one member and the few moves that every subject makes: send, follow, step back, change the membership.

The handlers in `election`, `replication`, `read_index`, `snapshot`, `transfer` and `membership` work on this; only `core`
is for callers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from attrs import define, frozen

from swarm.raft.config import Config
from swarm.raft.log import Log
from swarm.raft.messages import (
    NOBODY,
    Entry,
    EntryKind,
    HardState,
    Index,
    RaftId,
    RaftMessage,
    Snapshot,
    SnapshotMeta,
    Term,
)
from swarm.raft.progress import Progress
from swarm.raft.ready import ChunkWanted, ReadState, Role

RandomInt = Callable[[int, int], int]
"""An integer in [low, high], both included."""


@frozen
class ReadRound:
    """Reads that one heartbeat round answers together."""

    number: int
    commit: Index
    """The leader's commit index when the round began: what the reads must see."""
    reads: tuple[tuple[RaftId, int], ...]
    """(who asked, context)."""


@define
class Incoming:
    """A snapshot that arrives in chunks. Only chunks of one sender fit together: others cut theirs differently."""

    sender: RaftId
    meta: SnapshotMeta
    total: int
    chunks: list[bytes]


class State:
    """One member. Every field is touched by the handlers of this package alone."""

    def __init__(self, raft_id: RaftId, config: Config, random: RandomInt, hard_state: HardState, log: Log) -> None:
        self.id = raft_id
        self.config = config
        self.random = random
        self.log = log
        self.term: Term = hard_state.term
        self.vote: RaftId = hard_state.vote
        self.role = Role.FOLLOWER
        self.leader: RaftId = NOBODY
        self.removed = False
        """This member was taken out: it answers nothing any more."""
        self.applied: Index = log.snapshot.index
        """What the application has reported."""
        self.handed: Index = log.snapshot.index
        """What it was given. `applied <= handed <= log.persisted`."""

        self.ticks = 0
        self.elapsed = 0
        """Ticks since the leader was heard (follower), the campaign began (candidate), the quorum was checked (leader)."""
        self.attempts = 0
        """Campaigns since a leader was heard: each makes the next wait longer."""
        self.timeout = 0
        """Ticks of `elapsed` at which a follower or candidate campaigns."""
        self.votes: dict[RaftId, bool] = {}

        self.progress: dict[RaftId, Progress] = {}
        """Leader: every member, itself included."""
        self.heartbeat_elapsed = 0
        self.first_own: Index = 0
        """Leader: the index of its term's first entry."""
        self.uncommitted_bytes = 0
        """Leader: data bytes proposed in this term and not committed."""
        self.transfer_target: RaftId = NOBODY
        self.transfer_elapsed = 0

        self.read_round = 0
        self.reads_queued: list[tuple[RaftId, int]] = []
        """Leader: reads that wait for the next round."""
        self.read_rounds: deque[ReadRound] = deque()
        """Leader: rounds under way, oldest first."""
        self.reads_forwarded: set[int] = set()
        """Follower: contexts that the leader was asked for."""

        self.incoming: Incoming | None = None

        self.outbox: list[RaftMessage] = []
        self.outbox_after: list[RaftMessage] = []
        self.ack: Index | None = None
        """Follower: the newest index to acknowledge with the next Ready; one reply for all appends of a batch."""
        self.installed: Snapshot | None = None
        self.reads: list[ReadState] = []
        self.reads_failed: list[int] = []
        self.chunks_wanted: list[ChunkWanted] = []
        self.reset_timeout()

    # --- who is what -----------------------------------------------------------------------------------------------
    @property
    def voters(self) -> frozenset[RaftId]:
        """The voters of the membership in force."""
        return self.log.voters

    @property
    def others(self) -> list[RaftId]:
        """The other voters, sorted."""
        return sorted(self.voters - {self.id})

    @property
    def is_settled(self) -> bool:
        """Leader: an entry of its own term is committed, so that its commit index is the cluster's (thesis 6.4)."""
        return self.log.term_at(self.log.commit) == self.term

    @property
    def may_campaign(self) -> bool:
        """Whether this member may become leader.

        One whose own removal is not committed yet still has to: it may be the only one that holds it (thesis 4.2.2).
        """
        if self.removed:
            return False
        log = self.log
        return self.id in self.voters or (
            log.membership_index > log.commit and self.id in log.membership_at(log.commit).voters
        )

    # --- sending ---------------------------------------------------------------------------------------------------
    def send(self, message: RaftMessage) -> None:
        """It may leave at once: it promises nothing that a crash could take back."""
        self.outbox.append(message)

    def send_after(self, message: RaftMessage) -> None:
        """It may leave only when all that was handed out for writing is durable: votes and acknowledgements."""
        self.outbox_after.append(message)

    # --- changing role ---------------------------------------------------------------------------------------------
    def follow(self, leader: RaftId) -> None:
        """A message of the present term's leader came."""
        if self.role is not Role.FOLLOWER or self.leader != leader:
            self.step_back(self.term, leader)
        self.elapsed = 0
        if self.attempts:
            self.attempts = 0
            self.reset_timeout()

    def step_back(self, term: Term, leader: RaftId) -> None:
        """Be a follower in `term`, of `leader` if one is known; whatever belonged to the former role is dropped."""
        if term > self.term:
            self.term = term
            self.vote = NOBODY
            self.ack = None
        self.role = Role.FOLLOWER
        self._lead_by(leader)
        self.elapsed = 0
        self.reset_timeout()
        self.votes = {}
        self.progress = {}
        self.transfer_target = NOBODY
        self.chunks_wanted.clear()
        self.uncommitted_bytes = 0

    def forget_leader(self) -> None:
        """Nobody is known to lead."""
        self._lead_by(NOBODY)

    def lead(self) -> None:
        """Be the leader of the present term; what a leader keeps starts empty."""
        self.role = Role.LEADER
        self._lead_by(self.id)
        self.elapsed = self.heartbeat_elapsed = 0
        self.attempts = 0
        self.first_own = self.log.last_index + 1
        self.votes = {}
        self.read_round = 0
        self.uncommitted_bytes = 0

    def _lead_by(self, leader: RaftId) -> None:
        if leader == self.leader:
            return
        self.leader = leader
        lost = [context for who, context in self._leader_reads() if who == self.id]
        self.reads_failed.extend([*lost, *sorted(self.reads_forwarded)])
        self.reads_queued.clear()
        self.read_rounds.clear()
        self.reads_forwarded.clear()

    def _leader_reads(self) -> Iterable[tuple[RaftId, int]]:
        for waiting in self.read_rounds:
            yield from waiting.reads
        yield from self.reads_queued

    def reset_timeout(self) -> None:
        """Draw the next election timeout (paper 5.2): long while a leader may be there, short between attempts."""
        config = self.config
        if not self.attempts:
            self.timeout = self.random(config.election_ticks, 2 * config.election_ticks - 1)
            return
        longest = min(config.retry_ticks << min(self.attempts, 16), config.election_ticks)
        self.timeout = self.random(min(config.retry_ticks, longest), longest)

    # --- the log ---------------------------------------------------------------------------------------------------
    def append(self, kind: EntryKind, datas: Iterable[bytes]) -> None:
        """Leader: add entries of its own term."""
        log, term = self.log, self.term
        entries = [Entry(index, term, kind, data) for index, data in enumerate(datas, log.last_index + 1)]
        before = log.size_bytes
        log.append(entries)
        self.uncommitted_bytes += log.size_bytes - before
        if kind is EntryKind.MEMBERSHIP:
            self.membership_changed()

    def membership_changed(self) -> None:
        """Leader: the membership in force is another one; feed exactly its members."""
        membership = self.log.membership
        for raft_id in [raft_id for raft_id in self.progress if raft_id not in membership.ids]:
            del self.progress[raft_id]
        for raft_id in sorted(membership.ids - self.progress.keys()):
            fresh = Progress(next=self.log.last_index + 1, active=True)
            fresh.round_target, fresh.round_started = self.log.last_index, self.ticks
            self.progress[raft_id] = fresh
        if self.id in self.progress:
            self.progress[self.id].match = self.log.persisted
