"""Where this node finds managers: the list as it was last told, how well each served, and the link to the one in use.

One idea: any manager will do, since each forwards to the leader, so the choice is a weighted draw that forgets slowly. A link
that works is kept from session to session; a manager that names the leader is believed once. A node that is a manager
itself asks itself first, and others in turn while that does not help. Weights after SwarmKit's `remotes` package.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

import trio
from attrs import define, field

from swarm.actors.session import ManagerConnection
from swarm.ca.identity import Peer, PeerRole
from swarm.model.ids import NodeId
from swarm.ports.entropy import Entropy
from swarm.ports.net import DialError
from swarm.runtime import ErrorCode, Ref, Request, SwarmError
from swarm.wire.messages.dispatcher import ManagerAddress

R = TypeVar("R")

DIAL_TIMEOUT_S = 5.0
TRIES_MAX = 3
"""Managers that are dialled for one session, so that looking for one takes a bounded time."""
GOOD, BAD = 10.0, -10.0
"""What an observation adds to a manager's weight, smoothed."""
SMOOTHING = 0.5
WEIGHT_MAX = 256.0
WEIGHT_FLOOR = 0.001
"""Even the worst manager is drawn now and then."""
LEADER_DETAIL = "leader"
_NEXT = frozenset(
    {ErrorCode.UNAVAILABLE, ErrorCode.NOT_LEADER, ErrorCode.TIMEOUT, ErrorCode.ACTOR_DIED, ErrorCode.MAILBOX_FULL}
)
"""Refusals after which another manager is asked."""


class ManagerLink(Protocol):
    """What is used of a `wire.link.Link`."""

    peer: Peer

    @property
    def is_open(self) -> bool: ...
    def ref(self, to: str) -> Ref: ...
    async def closed(self) -> str: ...
    def close(self, reason: str) -> None: ...


L_co = TypeVar("L_co", bound=ManagerLink, covariant=True)


class Dialler(Protocol[L_co]):
    """What is used of `wire.links.Links`."""

    async def to(self, address: str, *, timeout_s: float) -> L_co: ...
    async def dial(self, address: str, *, anonymous: bool = False, timeout_s: float) -> L_co: ...


class LocalActors(Protocol):
    """What is used of a `wire.router.Router`."""

    me: Peer

    def local(self, to: str) -> Ref: ...
    def own(self, name: str) -> Ref | None: ...


@define(eq=False)
class _Served:
    """A manager over a link. `address` is what was dialled."""

    managers: Managers
    link: ManagerLink
    address: str

    @property
    def node_id(self) -> NodeId:
        return NodeId(self.link.peer.node_id)

    @property
    def dispatcher(self) -> Ref:
        return self.link.ref("dispatcher")

    async def closed(self) -> str:
        return await self.link.closed()

    def done(self, *, good: bool, error: SwarmError | None = None) -> None:
        self.managers.observe(self.address, good=good and self.link.is_open, error=error)


@define(eq=False)
class _Here:
    """This node's own manager side."""

    managers: Managers
    node_id: NodeId
    dispatcher: Ref

    async def closed(self) -> str:
        await trio.sleep_forever()

    def done(self, *, good: bool, error: SwarmError | None = None) -> None:
        self.managers.observe_here(good=good)


@define(eq=False)
class Managers:
    """The managers that this node knows; a `ManagerFinder`, and how the renewer reaches the authority."""

    links: Dialler[ManagerLink]
    router: LocalActors
    entropy: Entropy
    _weights: dict[str, float] = field(factory=dict, init=False)
    """By host:port."""
    _in_use: tuple[str, ManagerLink] | None = field(default=None, init=False)
    _leader: str = field(default="", init=False)
    """Address that a manager named as the leader's; tried first, once."""
    _skip_here: bool = field(default=False, init=False)
    """This node's own manager side did not help the last time."""

    def remember(self, addresses: Iterable[str]) -> None:
        """Managers that were known when this node last ran."""
        for address in addresses:
            self._weights.setdefault(address, GOOD)

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that are known, best first."""
        return tuple(sorted(self._weights, key=lambda address: (-self._weights[address], address)))

    # --- what was seen ---------------------------------------------------------------------------------------------
    def learn(self, managers: tuple[ManagerAddress, ...]) -> None:
        """These are the managers now; how well known ones served is kept. An empty list is no news."""
        listed = [one.address for one in managers if one.address and one.node_id != self.router.me.node_id]
        if not any(one.address for one in managers):
            return
        self._weights = {address: self._weights.get(address, GOOD) for address in listed}

    def observe(self, address: str, *, good: bool, error: SwarmError | None = None) -> None:
        """How a manager served."""
        if not good and self._in_use is not None and self._in_use[0] == address:
            self._drop("another manager is tried")
        if error is not None and error.code is ErrorCode.NOT_LEADER:
            self._leader = error.details.get(LEADER_DETAIL, "")
        if address in self._weights:
            weight = SMOOTHING * (GOOD if good else BAD) + (1 - SMOOTHING) * self._weights[address]
            self._weights[address] = min(max(weight, -WEIGHT_MAX), WEIGHT_MAX)

    def observe_here(self, *, good: bool) -> None:
        """How this node's own manager side served."""
        self._skip_here = not good

    # --- a manager for a session -------------------------------------------------------------------------------------
    async def connect(self) -> ManagerConnection:
        """One that answers; UNAVAILABLE says which were tried and why they did not."""
        here = self._here("dispatcher")
        if here is not None and not (self._skip_here and self._weights):
            return _Here(self, NodeId(self.router.me.node_id), here)
        self._skip_here = False
        if self._in_use is not None and self._in_use[1].is_open and not self._leader:
            return _Served(self, self._in_use[1], self._in_use[0])
        refusals = []
        for address in self._order()[:TRIES_MAX]:
            try:
                link = await self.links.to(address, timeout_s=DIAL_TIMEOUT_S)
            except DialError as error:
                self.observe(address, good=False)
                refusals.append(str(error))
                continue
            if self._in_use is not None and self._in_use[1] is not link:
                self._drop("another manager is used")
            self._in_use = (address, link)
            return _Served(self, link, address)
        raise SwarmError(
            ErrorCode.UNAVAILABLE, "no manager answers: " + ("; ".join(refusals) or "this node knows none")
        )

    def _drop(self, why: str) -> None:
        """Use another one from now on. Between managers the link is Raft's as well, and the forwarded calls': it stays."""
        if self._in_use is not None:
            if self.router.me.role is not PeerRole.MANAGER:
                self._in_use[1].close(why)
            self._in_use = None

    def _here(self, to: str) -> Ref | None:
        return self.router.local(to) if self.router.me.role is PeerRole.MANAGER else None

    def _order(self) -> list[str]:
        """Every known address once: the named leader, then drawn by weight."""
        left = dict(self._weights)
        order = []
        leader, self._leader = self._leader, ""
        if leader:
            left.pop(leader, None)
            order.append(leader)
        while left:
            order.append(self._draw(left))
            del left[order[-1]]
        return order

    def _draw(self, weights: dict[str, float]) -> str:
        shares = [(address, max(0.0, weight) + WEIGHT_FLOOR) for address, weight in weights.items()]
        point = self.entropy.uniform(0.0, sum(share for _, share in shares))
        for address, share in shares:
            point -= share
            if point <= 0.0:
                return address
        return shares[-1][0]

    # --- the authority -----------------------------------------------------------------------------------------------
    async def ask_authority(self, request: Request[R], *, anonymous: bool, timeout_s: float) -> R:
        """Ask the authority of any manager that answers; `anonymous` dials without this node's certificate.

        A manager whose own certificate has expired asks its own authority, which helps it even without a leader.
        """
        refusals: list[str] = []
        deadline = trio.current_time() + timeout_s
        here = self.router.own("ca") if anonymous else self._here("ca")
        if here is not None:
            try:
                return await here.ask(request, timeout_s=timeout_s)
            except SwarmError as error:
                self._next_or_raise(error, refusals)
        for address in self._order():
            left = deadline - trio.current_time()
            if left <= 0:
                break
            try:
                return await self._ask_at(address, request, anonymous=anonymous, timeout_s=left)
            except DialError as error:
                refusals.append(str(error))
            except SwarmError as error:
                self._next_or_raise(error, refusals)
        raise SwarmError(
            ErrorCode.UNAVAILABLE, "no manager's authority answers: " + ("; ".join(refusals) or "this node knows none")
        )

    @staticmethod
    def _next_or_raise(error: SwarmError, refusals: list[str]) -> None:
        if error.code not in _NEXT:
            raise error
        refusals.append(error.text)

    async def _ask_at(self, address: str, request: Request[R], *, anonymous: bool, timeout_s: float) -> R:
        dial_s = min(timeout_s, DIAL_TIMEOUT_S)
        if not anonymous:
            link = await self.links.to(address, timeout_s=dial_s)
            return await link.ref("ca").ask(request, timeout_s=timeout_s)
        link = await self.links.dial(address, anonymous=True, timeout_s=dial_s)
        try:
            return await link.ref("ca").ask(request, timeout_s=timeout_s)
        finally:
            link.close("answered")
