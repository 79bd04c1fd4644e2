"""The nouns of consensus: entries, memberships, snapshots' descriptions, and every message between members.

Messages are frozen values stamped with the sender's term when they are made; nothing here decides.
`RaftId`, `Index` and `Term` are plain ints: they are added and compared on the hot path, and this package may not import
the model's own id types.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias

from attrs import frozen

RaftId: TypeAlias = int
"""A member's number: random, never 0, never used again once removed."""
Index: TypeAlias = int
"""Place of an entry in the log; the first is 1, 0 stands before it."""
Term: TypeAlias = int

NOBODY: RaftId = 0
"""No member: no vote given, no leader known."""


class EntryKind(IntEnum):
    """What an entry is for; stored, so that numbers never change meaning."""

    NORMAL = 0
    """Data of the application; its only kind that the core does not look into."""
    MEMBERSHIP = 1
    """The whole membership from here on, encoded by `codec.encode_membership`."""
    EMPTY = 2
    """A new leader's first entry (thesis 6.4): it lets entries of earlier terms commit."""


class Entry(NamedTuple):
    """One place of the log. A tuple, because a leader makes tens of thousands a second and the codec packs it as it is."""

    index: Index  # type: ignore[assignment]  # shadows tuple.index, which nobody calls on an entry
    term: Term
    kind: EntryKind
    data: bytes


@frozen
class HardState:
    """What a member must not forget (paper, figure 2: currentTerm, votedFor).

    `commit` is a hint that spares a restart some waiting: it is written along with other things, never for its own sake.
    """

    term: Term = 0
    vote: RaftId = NOBODY
    commit: Index = 0


@frozen
class Member:
    """A member of the cluster. A learner gets entries and counts in no majority (thesis 4.2.1)."""

    raft_id: RaftId
    node_id: str
    address: str
    learner: bool = False


@frozen
class Membership:
    """Who takes part, and who never may again."""

    members: tuple[Member, ...] = ()
    """Sorted by raft id, each once."""
    removed: tuple[RaftId, ...] = ()
    """In the order of removal; the oldest are forgotten beyond `config.REMOVED_MAX`."""

    @property
    def voters(self) -> frozenset[RaftId]:
        """Ids whose votes and acknowledgements count."""
        return frozenset(member.raft_id for member in self.members if not member.learner)

    @property
    def ids(self) -> frozenset[RaftId]:
        """Ids of voters and learners."""
        return frozenset(member.raft_id for member in self.members)

    def find(self, raft_id: RaftId) -> Member | None:
        """The member of that id, None when there is none."""
        return next((member for member in self.members if member.raft_id == raft_id), None)


@frozen
class SnapshotMeta:
    """What a snapshot stands for: all entries through `index`, and the membership as of there."""

    index: Index = 0
    term: Term = 0
    membership: Membership = Membership()


@frozen
class Snapshot:
    """A whole snapshot: its description and the application's data in the chunks that it was saved in."""

    meta: SnapshotMeta
    chunks: tuple[bytes, ...]


@frozen
class AddLearner:
    """Add a member, as a learner; the leader promotes it to voter as soon as it has caught up."""

    member: Member


@frozen
class Promote:
    """Make a learner a voter."""

    raft_id: RaftId


@frozen
class Remove:
    """Take a member out, for good."""

    raft_id: RaftId


@frozen
class UpdateAddress:
    """A member is reached elsewhere from now on."""

    raft_id: RaftId
    address: str


MembershipChange: TypeAlias = AddLearner | Promote | Remove | UpdateAddress


@frozen
class RaftMessage:
    """From one member to another."""

    to: RaftId
    sender: RaftId
    term: Term
    """The sender's term; in `PreVote` and a granted `PreVoteReply` the term that the sender would campaign in."""


@frozen
class PreVote(RaftMessage):
    """Would you vote for me? Changes nothing at the receiver (thesis 9.6)."""

    last_index: Index
    last_term: Term


@frozen
class PreVoteReply(RaftMessage):
    """Answer to `PreVote`."""

    granted: bool


@frozen
class Vote(RaftMessage):
    """RequestVote (paper 5.2)."""

    last_index: Index
    last_term: Term
    transfer: bool = False
    """The old leader asked for this election: followers need not protect it (thesis 3.10, 4.2.3)."""


@frozen
class VoteReply(RaftMessage):
    """Answer to `Vote`; granted only once the vote is durable."""

    granted: bool


@frozen
class Append(RaftMessage):
    """AppendEntries (paper 5.3); the entries follow (prev_index, prev_term) without a gap."""

    prev_index: Index
    prev_term: Term
    commit: Index
    entries: tuple[Entry, ...]


@frozen
class AppendReply(RaftMessage):
    """Answer to `Append` once its entries are durable, or a refusal with a hint (thesis 2.1, 5.3 of the paper)."""

    index: Index
    """Accepted: durable and equal to the leader's log through here. Rejected: the `prev_index` that did not fit."""
    rejected: bool = False
    hint_index: Index = 0
    """Rejected: the largest index at which the logs may still agree."""
    hint_term: Term = 0
    """Rejected: the term of the entry at `hint_index`."""


@frozen
class Heartbeat(RaftMessage):
    """I lead. `round` numbers the read rounds (thesis 6.4) and comes back in the reply."""

    commit: Index
    """Never beyond what the receiver is known to hold."""
    round: int


@frozen
class HeartbeatReply(RaftMessage):
    """Answer to `Heartbeat`: at that moment the sender knew of no newer leader."""

    round: int
    last_index: Index = -1
    """Where the sender's log ends; below what it acknowledged when its disk lost writes. -1: it does not say."""


@frozen
class Commit(RaftMessage):
    """How far is committed, when no append has told it for a tick; has no answer."""

    commit: Index
    """Never beyond what the receiver is known to hold."""


@frozen
class SnapshotChunk(RaftMessage):
    """One chunk of a snapshot, for a member that needs entries which are compacted (paper 7, thesis 5)."""

    meta: SnapshotMeta
    number: int
    """0 and up."""
    total: int
    """How many chunks there are, at least 1."""
    data: bytes


@frozen
class SnapshotReply(RaftMessage):
    """How far the receiver has got with a snapshot."""

    index: Index
    """Which snapshot: `meta.index`."""
    next_number: int
    """The first chunk that is still missing."""
    gap: bool = False
    """A later chunk came before that one: send again from there."""
    installed: bool = False
    """All came and are durable."""


@frozen
class ReadRequest(RaftMessage):
    """A follower asks the leader for a read index (thesis 6.4)."""

    context: int


@frozen
class ReadReply(RaftMessage):
    """The leader's answer: a read is linearizable once the receiver has applied through `index`."""

    context: int
    index: Index


@frozen
class TimeoutNow(RaftMessage):
    """Campaign at once, I hand over to you (thesis 3.10)."""


@frozen
class Removed(RaftMessage):
    """You are no member any more; the removal is committed."""
