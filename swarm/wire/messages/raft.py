"""Member to member: Raft's own messages, batched by the sender, and membership calls."""

from __future__ import annotations

from attrs import frozen

from swarm.model.ids import NodeId, RaftId
from swarm.runtime.message import Message, Request
from swarm.wire.registry import MANAGERS, At, Lane, wire_message


@wire_message("raft.messages", to="raft", at=At.MANAGER, roles=MANAGERS, lane=Lane.CONTROL, prompt=True)
@frozen
class RaftMessages(Message):
    """Raft messages as bytes of `raft/codec.py`, in order; may be lost."""

    to_member: RaftId
    payload: tuple[bytes, ...]
    sender: RaftId = RaftId(0)
    address: str = ""
    """Where the sender is reached: a member that is far behind does not know every other one yet."""


@wire_message("raft.bulk", to="raft", at=At.MANAGER, roles=MANAGERS, lane=Lane.BULK)
@frozen
class RaftBulk(Message):
    """Snapshot chunks: the same, on a lane of their own."""

    to_member: RaftId
    payload: tuple[bytes, ...]
    sender: RaftId = RaftId(0)
    address: str = ""


@frozen
class Member:
    """One Raft member as the leader knows it."""

    raft_id: RaftId
    node_id: NodeId
    address: str
    learner: bool = False


@frozen
class Membership:
    """The caller's own member number and all members, itself included."""

    raft_id: RaftId
    members: tuple[Member, ...]


@wire_message("raft.join", to="membership", at=At.LEADER, roles=MANAGERS)
@frozen
class JoinRaft(Request[Membership]):
    """Become a member (first as a learner) reachable at `address`; a member already: its address is updated.

    An unspecified host is replaced by the caller's source address. PRECONDITION: the leader cannot reach the address.
    """

    address: str
    raft_id: RaftId = RaftId(0)
    """The caller's member number when it has its log. 0: it has none. A member of that node is then taken out first: one
    that has forgotten what it voted and acknowledged must not count under its old number."""


@wire_message("raft.leave", to="membership", at=At.LEADER, roles=MANAGERS)
@frozen
class LeaveRaft(Request[None]):
    """Take a member out. PRECONDITION with the arithmetic when that would break the quorum, unless `force`."""

    raft_id: RaftId
    force: bool = False
