"""What the other actors of a manager ask of its Raft member, and what the member tells the store. Data only.

`actors/raft_member.py` answers the requests; `actors/store.py` attaches itself and is told what was committed. What
members say to each other is elsewhere (`wire/messages/raft.py`).
"""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

from swarm.model.ids import NodeId, RaftId
from swarm.runtime.message import Message, Request, Subscribe
from swarm.runtime.ref import Ref
from swarm.wire.messages.node import MemberView
from swarm.wire.messages.raft import Member


# --- asked of the member -------------------------------------------------------------------------------------------
@frozen
class Propose(Request[int]):
    """Commit `data`; answered with its index once it is committed and handed to the store.

    NOT_LEADER: nothing was proposed (another leader, or another term than `term`). UNAVAILABLE: too much in flight, or
    leadership was lost meanwhile and the outcome is not known.
    """

    data: bytes
    term: int | None = None


@frozen
class ReadIndex(Request[int]):
    """The index that a linearizable read must have seen applied. UNAVAILABLE: no leader with a quorum answers."""


@frozen
class TransferLeadership(Request[None]):
    """Hand the leadership to `target` (None: the most up-to-date voter); answered when another member leads.

    PRECONDITION: there is nobody to take it. TIMEOUT: it did not happen; this member goes on leading.
    """

    target: RaftId | None = None


class MembershipVerb(StrEnum):
    """What is done with a member."""

    ADD_LEARNER = "add-learner"
    PROMOTE = "promote"
    """A learner becomes a voter."""
    REMOVE = "remove"
    UPDATE = "update"
    """Its address changed."""


@frozen
class ChangeMembership(Request[None]):
    """One change of the members, answered when committed. PRECONDITION: another change is under way."""

    verb: MembershipVerb
    member: Member


@frozen
class Leadership:
    """Who leads, as this member knows it."""

    term: int
    leader: RaftId | None
    is_leader: bool
    """This member leads and has applied everything of earlier terms: leader-only work may begin."""
    leader_node: NodeId = NodeId("")
    leader_address: str = ""
    removed: bool = False
    """This member's removal is committed: it takes no part any more, its manager is to stop and erase the log."""


@frozen
class WatchLeadership(Subscribe[Leadership]):
    """The present state at once, then each change; only the newest matters."""


@frozen
class RaftStatusView:
    """The member's own state and what it knows of the others (match indexes on the leader only)."""

    raft_id: RaftId
    role: str
    term: int
    leader: RaftId | None
    commit_index: int
    applied_index: int
    first_index: int = 0
    last_index: int = 0
    members: tuple[MemberView, ...] = ()
    problem: str = ""
    """Why this member acknowledges nothing at the moment (its disk is full), in words; empty when all is well."""
    given_up: tuple[str, ...] = ()
    """After a forced new cluster: node ids of the members whose logs could not be seen."""
    pending_change: bool = False
    """A membership change is not committed yet, or the leader is so new that it cannot begin one."""


@frozen
class GetRaftStatus(Request[RaftStatusView]):
    """How this member stands."""


@frozen
class SetCompaction(Message):
    """The cluster's settings for the log, told by the store whenever they change."""

    snapshot_interval: int
    """Applied entries between snapshots; 0 disables periodic ones."""
    kept_entries: int
    """Entries kept after a snapshot for slow followers."""


# --- told to the store ---------------------------------------------------------------------------------------------
@frozen
class AttachStore(Message):
    """The store, empty, is ready: hand it the newest snapshot if there is one, then every committed entry after it.

    Attaching again (a restarted store) starts from the beginning.
    """

    store: Ref


@frozen
class AppliedEntry:
    """One committed entry that is for the store."""

    index: int
    term: int
    data: bytes


@frozen
class ApplyEntries(Message):
    """Committed entries in order of their index, each exactly once. Entries that are Raft's own are left out.

    `through` is the index up to which all is handed over, those left out included (0: the last entry's).
    """

    entries: tuple[AppliedEntry, ...]
    through: int = 0


@frozen
class InstallSnapshot(Message):
    """Replace everything by this snapshot of the store as of `index`; `chunks` in order are what `TakeSnapshot` gave."""

    index: int
    term: int
    chunks: tuple[bytes, ...]


@frozen
class SnapshotTaken:
    """The store's content as of `index`."""

    index: int
    chunks: tuple[bytes, ...]


@frozen
class TakeSnapshot(Request[SnapshotTaken]):
    """Encode the store's present content; asked by the member, from a job, when its log has grown long enough."""
