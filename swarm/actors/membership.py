"""The actor `membership`: who joins and leaves the managers' consensus. Runs on each manager, answers on the leader.

One idea: one operation after the other, each a handful of steps that a retry finds done. A new member begins as a learner
and is made a voter by the Raft core when it has caught up. Nobody is taken out if the rest could not go on, unless forced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio
from attrs import frozen

from swarm.actors.raft_messages import (
    ChangeMembership,
    GetRaftStatus,
    MembershipVerb,
    RaftStatusView,
    TransferLeadership,
)
from swarm.actors.raft_peers import PeerLinks
from swarm.model.ids import NodeId, RaftId
from swarm.ports.entropy import Entropy
from swarm.ports.net import DialError
from swarm.raft.quorum import removal
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.message import Request
from swarm.runtime.ref import Ref
from swarm.runtime.turn import Turn
from swarm.wire.addresses import join_address, split_address
from swarm.wire.messages.node import MemberView
from swarm.wire.messages.raft import JoinRaft, LeaveRaft, Member, Membership

log = logging.getLogger(__name__)

REACH_S = 5.0
"""For the leader to reach a manager that wants to join."""
STATUS_S = 5.0
CHANGE_S = 10.0
"""For one membership change to commit."""
TRANSFER_S = 5.0
PENDING_RETRY_S = 0.05
"""Another change is under way; it takes a round trip or two."""
PENDING_TRIES = 100
RAFT_ID_MAX = (1 << 63) - 1
UNSPECIFIED = frozenset({"0.0.0.0", "::", ""})


@frozen
class CheckDemotion(Request[None]):
    """Whether a manager may be demoted. NOT_FOUND: it is no member. PRECONDITION: the rest could not go on."""

    node_id: NodeId


class MembershipActor(Actor):
    """`name_of` gives a node's name for people; by default its id."""

    def __init__(
        self, raft: Ref, links: PeerLinks, entropy: Entropy, name_of: Callable[[NodeId], str] = lambda node_id: node_id
    ) -> None:
        self._raft = raft
        self._links = links
        self._entropy = entropy
        self._name_of = name_of
        self._one_at_a_time = trio.Lock()

    @on(JoinRaft)
    def join(self, request: JoinRaft, turn: Turn[Membership]) -> None:
        """Let the caller in, or follow it to another address."""
        self.answer_in_job(turn, self._join, request, NodeId(turn.caller.node_id), turn.caller.address)

    @on(LeaveRaft)
    def leave(self, request: LeaveRaft, turn: Turn[None]) -> None:
        """Take a member out; gone already is success."""
        self.answer_in_job(turn, self._leave, request)

    @on(CheckDemotion)
    def check_demotion(self, request: CheckDemotion, turn: Turn[None]) -> None:
        """Whether the rest could go on."""
        self.answer_in_job(turn, self._check_demotion, request)

    # --- joining ---------------------------------------------------------------------------------------------------
    async def _join(self, request: JoinRaft, node_id: NodeId, source: str) -> Membership:
        if not node_id:
            raise SwarmError(ErrorCode.DENIED, "only a node with a certificate of this cluster can join its managers")
        address = _reachable_address(request.address, source)
        async with self._one_at_a_time:
            view = await self._leading()
            present = next((member for member in view.members if member.node_id == node_id), None)
            if present is not None and present.raft_id == request.raft_id:
                await self._move(present, address, node_id)
                return await self._membership(RaftId(present.raft_id))
            await self._reach(address, node_id)
            if present is not None:
                log.info("node %s joins again without its log: member %x goes", node_id, present.raft_id)
                await self._take_out(view, present, force=False)
            member = Member(self._fresh_id(view), node_id, address)
            await self._change(MembershipVerb.ADD_LEARNER, member)
            log.info("node %s at %s joins as member %x", node_id, address, member.raft_id)
            return await self._membership(member.raft_id)

    async def _move(self, present: MemberView, address: str, node_id: NodeId) -> None:
        if present.address == address:
            return
        await self._reach(address, node_id)
        await self._change(MembershipVerb.UPDATE, Member(RaftId(present.raft_id), node_id, address))
        log.info("member %x of node %s is at %s now", present.raft_id, node_id, address)

    async def _reach(self, address: str, node_id: NodeId) -> None:
        """A member that nobody reaches would count in every majority and never answer."""
        hint = "check its --advertise address and firewall"
        try:
            link = await self._links.to(address, timeout_s=REACH_S)
        except DialError as error:
            raise SwarmError(
                ErrorCode.PRECONDITION, f"the leader cannot reach the new manager at {address}: {error}; {hint}"
            ) from error
        if link.peer.node_id != node_id:
            text = f"node {link.peer.node_id or 'unknown'} answers at {address}, not {node_id}; {hint}"
            raise SwarmError(ErrorCode.PRECONDITION, text)

    def _fresh_id(self, view: RaftStatusView) -> RaftId:
        """Random, so that no member's number ever comes back; the core refuses removed ones."""
        present = {member.raft_id for member in view.members}
        while (raft_id := self._entropy.integer(1, RAFT_ID_MAX)) in present:
            pass
        return RaftId(raft_id)

    async def _membership(self, raft_id: RaftId) -> Membership:
        view = await self._leading()
        members = [Member(RaftId(one.raft_id), one.node_id, one.address, one.learner) for one in view.members]
        return Membership(raft_id, tuple(members))

    # --- leaving ---------------------------------------------------------------------------------------------------
    async def _leave(self, request: LeaveRaft) -> None:
        async with self._one_at_a_time:
            view = await self._leading()
            target = next((member for member in view.members if member.raft_id == request.raft_id), None)
            if target is not None:
                await self._take_out(view, target, force=request.force)

    async def _take_out(self, view: RaftStatusView, target: MemberView, *, force: bool) -> None:
        if not force:
            self._check_quorum(view, target)
        if target.raft_id == view.raft_id:
            await self._hand_over_and_leave(target, force=force)
            return
        await self._change(MembershipVerb.REMOVE, Member(RaftId(target.raft_id), target.node_id, target.address))
        log.info("member %x of node %s was taken out", target.raft_id, target.node_id)

    async def _hand_over_and_leave(self, target: MemberView, *, force: bool) -> None:
        """The leader itself is to go: another one leads first, and takes it out."""
        await self._raft.ask(TransferLeadership(), timeout_s=TRANSFER_S)
        view = await self._raft.ask(GetRaftStatus(), timeout_s=STATUS_S)
        leader = next((member for member in view.members if member.raft_id == view.leader), None)
        if leader is None:
            raise _not_leading(view)
        try:
            link = await self._links.to(leader.address, timeout_s=REACH_S)
        except DialError as error:
            raise SwarmError(ErrorCode.UNAVAILABLE, f"the new leader cannot be reached: {error}; try again") from error
        request = LeaveRaft(RaftId(target.raft_id), force)
        await link.ref("membership").ask(request, timeout_s=CHANGE_S)

    async def _check_demotion(self, request: CheckDemotion) -> None:
        view = await self._leading()
        target = next((member for member in view.members if member.node_id == request.node_id), None)
        if target is None:
            name = self._name_of(request.node_id)
            raise SwarmError(ErrorCode.NOT_FOUND, f"{name} is no member of the managers' consensus")
        self._check_quorum(view, target)

    def _check_quorum(self, view: RaftStatusView, target: MemberView) -> None:
        """Refuse with the arithmetic what would leave too few managers to go on."""
        if target.learner:
            return
        voters = [member.raft_id for member in view.members if not member.learner]
        reachable = [member.raft_id for member in view.members if member.reachable]
        after = removal(voters, reachable, target.raft_id)
        name = self._name_of(target.node_id)
        if after.voters == 1:
            text = f"{name} is the only manager: without it there is no cluster; promote another node first"
            raise SwarmError(ErrorCode.PRECONDITION, text)
        if not after.keeps_quorum:
            raise SwarmError(
                ErrorCode.PRECONDITION,
                f"{after.voters} managers, {after.reachable} reachable: removing {name} would leave {after.left} of "
                f"{after.voters - 1}, and {after.needed} {'is' if after.needed == 1 else 'are'} needed to go on; bring a manager "
                "back, or promote another node, first",
            )

    # --- the member ------------------------------------------------------------------------------------------------
    async def _leading(self) -> RaftStatusView:
        """This member's state; NOT_LEADER with the leader's address when it does not lead."""
        view = await self._raft.ask(GetRaftStatus(), timeout_s=STATUS_S)
        if view.role != "leader":
            raise _not_leading(view)
        return view

    async def _change(self, verb: MembershipVerb, member: Member) -> None:
        """One change, after the one that may be under way (a learner's promotion)."""
        for _ in range(PENDING_TRIES):
            view = await self._leading()
            if not view.pending_change:
                break
            await trio.sleep(PENDING_RETRY_S)
        await self._raft.ask(ChangeMembership(verb, member), timeout_s=CHANGE_S)


def _not_leading(view: RaftStatusView) -> SwarmError:
    leader = next((member for member in view.members if member.raft_id == view.leader), None)
    details = {"leader": leader.address} if leader is not None else {}
    return SwarmError(ErrorCode.NOT_LEADER, "this manager does not lead; ask the leader", details)


def _reachable_address(address: str, source: str) -> str:
    """What others dial: an unspecified host stands for where the caller was seen."""
    try:
        host, port = split_address(address)
        if host in UNSPECIFIED:
            host, _ = split_address(source)
    except ValueError as error:
        raise SwarmError(ErrorCode.INVALID, str(error)) from error
    if not port:
        raise SwarmError(ErrorCode.INVALID, f"{address!r} has no port that others could dial")
    return join_address(host, port)
