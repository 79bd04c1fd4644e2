"""A member's links to the others: kept up, dialled again, and what is sent over them batched per peer.

Each member dials every other one, by the address in the membership; what it sends goes over the link that it dialled. A
link that ends is news at once: it may have been the leader's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import trio
from attrs import define, frozen

from swarm.ca.identity import Peer
from swarm.model.ids import NodeId, RaftId
from swarm.ports.entropy import Entropy
from swarm.ports.net import DialError
from swarm.raft.codec import encode
from swarm.raft.messages import Membership, RaftMessage, SnapshotChunk
from swarm.runtime.message import Message
from swarm.runtime.ref import Ref
from swarm.wire.messages.raft import Member, RaftBulk, RaftMessages
from swarm.wire.registry import Lane

DIAL_S = 3.0
"""For one try; a host that is down answers nothing at all."""
REDIAL_S = 0.05
REDIAL_S_MAX = 1.0
"""Between tries: a manager that is back is to be heard soon."""
FAREWELL_S = 5.0
"""A link to a member that was removed stays this long: it is to be told."""
STRANGERS_MAX = 64
"""Senders outside the membership whose address is remembered: members that this one has not heard of yet."""
CHUNK_RETRY_S = 0.02
"""The bulk lane is full: wait for it to drain."""


class PeerLink(Protocol):
    """What a member needs of a link; `wire.link.Link` is one."""

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        ...

    def ref(self, to: str) -> Ref:
        """An actor at the other end."""
        ...

    def connection(self, lane: Lane) -> object:
        """The connection of a lane, dialled when there is none yet."""
        ...

    async def closed(self) -> str:
        """Wait for its end; why."""
        ...


class PeerLinks(Protocol):
    """What dials; `wire.links.Links` is one."""

    async def to(self, address: str, *, timeout_s: float) -> PeerLink:
        """The link to the manager at `address`. `DialError` when there is none to be had."""
        ...


@frozen
class LinkUp(Message):
    """A link to a member stands."""

    raft_id: RaftId
    ref: Ref


@frozen
class LinkLost(Message):
    """A link to a member is gone, or could not be made."""

    raft_id: RaftId
    reason: str


@define(eq=False)
class _Peer:
    member: Member
    scope: trio.CancelScope
    ref: Ref | None = None
    """Where to send; None while there is no link."""
    problem: str = "not connected yet"
    leaving: bool = False
    claimed: str = ""
    """Where the member itself says it is reached, when that is not what the membership says."""


class Host(Protocol):
    """The actor on whose behalf this works."""

    @property
    def ref(self) -> Ref:
        """Where its jobs send what they found out."""
        ...

    def job(self, function: Callable[..., Awaitable[object]], *args: Any, name: str = "") -> trio.CancelScope:
        """Run it in the actor's nursery."""
        ...


class RaftPeers:
    """Touched in the member's turns only."""

    def __init__(self, me: Member, links: PeerLinks, host: Host, entropy: Entropy) -> None:
        self._me = me
        self._links = links
        self._host = host
        self._entropy = entropy
        self._peers: dict[RaftId, _Peer] = {}
        self._strangers: dict[RaftId, Member] = {}
        self._membership: Membership | None = None

    # --- who is there ----------------------------------------------------------------------------------------------
    def follow(self, membership: Membership) -> None:
        """Keep links to these members; others' links end after a farewell."""
        if membership is self._membership:
            return
        self._membership = membership
        wanted = {RaftId(one.raft_id): one for one in membership.members if one.raft_id != self._me.raft_id}
        for raft_id, one in wanted.items():
            self._strangers.pop(raft_id, None)
            self._connect(Member(raft_id, NodeId(one.node_id), one.address, one.learner))
        for raft_id, peer in self._peers.items():
            if raft_id not in wanted and raft_id not in self._strangers and not peer.leaving:
                peer.leaving = True
                self._host.job(self._farewell, peer, name=f"farewell {raft_id:x}")

    def meet(self, member: Member) -> None:
        """Somebody who says to be reached there: a member that moved, or one who is not in the membership yet.

        `member.node_id` is who its certificate says; a member is known by that, so its new address may be tried at once.
        """
        known = self._peers.get(member.raft_id)
        if member.raft_id == self._me.raft_id or not member.address:
            return
        if known is not None and known.member.address == member.address:
            return
        if self._membership is not None and self._membership.find(member.raft_id) is not None:
            if known is not None and known.member.node_id == member.node_id:
                known.claimed = member.address
            return
        if member.raft_id not in self._strangers and len(self._strangers) >= STRANGERS_MAX:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            self._peers.pop(oldest).scope.cancel()
        self._strangers[member.raft_id] = member
        self._connect(member)

    def _connect(self, member: Member) -> None:
        known = self._peers.get(member.raft_id)
        if known is not None:
            known.leaving = False
            if known.member.address == member.address:
                known.member = member
                return
            known.scope.cancel()
        peer = self._peers[member.raft_id] = _Peer(member, trio.CancelScope())
        peer.scope = self._host.job(self._keep, peer, name=f"link {member.raft_id:x}")

    async def _farewell(self, peer: _Peer) -> None:
        await trio.sleep(FAREWELL_S)
        raft_id = peer.member.raft_id
        if peer.leaving and self._peers.get(raft_id) is peer:
            del self._peers[raft_id]
            peer.scope.cancel()

    async def _keep(self, peer: _Peer) -> None:
        """The job of one link: dial, wait for its end, dial again, in turns where it should be and where it says it is."""
        wait, turn = REDIAL_S, False
        while True:
            member, turn = peer.member, not turn
            address = peer.claimed if peer.claimed and not turn else member.address
            try:
                link = await self._links.to(address, timeout_s=DIAL_S)
            except DialError as error:
                reason = str(error)
            else:
                reason = _wrong_node(member, address, link)
                if not reason:
                    wait = REDIAL_S
                    # What is forwarded to the next leader is not to wait for its handshake.
                    link.connection(Lane.CALLS)
                    await self._host.ref.tell(LinkUp(member.raft_id, link.ref("raft")))
                    reason = await link.closed()
            await self._host.ref.tell(LinkLost(member.raft_id, reason))
            await trio.sleep(self._entropy.uniform(wait / 2, wait))
            wait = min(2 * wait, REDIAL_S_MAX)

    def link_up(self, message: LinkUp) -> None:
        """Take note."""
        peer = self._peers.get(message.raft_id)
        if peer is not None:
            peer.ref, peer.problem = message.ref, ""

    def link_lost(self, message: LinkLost) -> bool:
        """Take note; whether a link had been up."""
        peer = self._peers.get(message.raft_id)
        if peer is None:
            return False
        was_up = peer.ref is not None
        peer.ref, peer.problem = None, message.reason
        return was_up

    def is_reachable(self, raft_id: RaftId) -> bool:
        """Whether a link to it stands."""
        peer = self._peers.get(raft_id)
        return peer is not None and peer.ref is not None

    def problem(self, raft_id: RaftId) -> str:
        """Why there is no link, empty when there is one."""
        peer = self._peers.get(raft_id)
        return "no such member" if peer is None else peer.problem

    # --- sending ---------------------------------------------------------------------------------------------------
    def send(self, messages: Iterable[RaftMessage]) -> list[RaftId]:
        """Send, one batch a peer; the members that could not take theirs."""
        batches: dict[RaftId, list[bytes]] = {}
        for message in messages:
            if isinstance(message, SnapshotChunk):
                self._host.job(self._send_chunk, message, name="snapshot chunk")
            else:
                batches.setdefault(RaftId(message.to), []).append(encode(message))
        missed = []
        for raft_id, payload in batches.items():
            peer = self._peers.get(raft_id)
            batch = RaftMessages(raft_id, tuple(payload), self._me.raft_id, self._me.address)
            if peer is None or peer.ref is None or not peer.ref.offer(batch):
                missed.append(raft_id)
        return missed

    async def _send_chunk(self, message: SnapshotChunk) -> None:
        """Chunks wait for room on their lane; the leader has few enough under way."""
        raft_id = RaftId(message.to)
        bulk = RaftBulk(raft_id, (encode(message),), self._me.raft_id, self._me.address)
        while (peer := self._peers.get(raft_id)) is not None and peer.ref is not None:
            if peer.ref.offer(bulk):
                return
            await trio.sleep(CHUNK_RETRY_S)


def _wrong_node(member: Member, address: str, link: PeerLink) -> str:
    if member.node_id and link.peer.node_id != member.node_id:
        return f"node {link.peer.node_id} answers at {address}, not {member.node_id}"
    return ""
