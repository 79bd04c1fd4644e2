"""All links of a node: dials them, takes accepted connections together into sessions, and runs their tasks.

One idea: every task of every link lives in one nursery here, so that whoever holds a `Link` need not be a parent of anything
and leaving `open_links` means that no link is left. It decides nothing about messages: those go to the router.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from swarm.ca.identity import Peer, PeerRole
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy
from swarm.ports.net import DialError, Net, Transport, TransportClosed
from swarm.wire.authorize import describe
from swarm.wire.connection import FLUSH_S, Connection
from swarm.wire.frames import GO_AWAY, HELLO, Frame, FrameError, Hello, decode_batch, encode_batch
from swarm.wire.link import LANES, SINGLE, Handler, Link
from swarm.wire.registry import Lane

HELLO_S: Final = 10.0
"""An accepted connection has this long to say Hello."""
LANE_DIAL_S: Final = 10.0
"""For a further connection of a link that is up."""
SESSION_BYTES: Final = 16
LINKS_MAX: Final = 20_000
"""Accepted links at once: twice the largest cluster that is planned for."""
ANONYMOUS_LINKS_MAX: Final = 256
"""Accepted links of peers without a certificate at once."""


class Links:
    """Made by `open_links`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        net: Net,
        handler: Handler,
        clock: Clock,
        entropy: Entropy,
        node_id: Callable[[], str],
    ) -> None:
        self.net = net
        self.handler = handler
        self.clock = clock
        self._nursery = nursery
        self._entropy = entropy
        self._node_id = node_id
        self._accepted: dict[tuple[Peer, str], Link] = {}
        """By (node id, role, cluster) and session: nobody joins another's session."""
        self._dialled: dict[Link, None] = {}
        self._anonymous = 0
        """How many of the accepted links are of peers without a certificate."""
        self._shared: dict[str, Link] = {}
        self._dialling: dict[str, trio.Event] = {}

    @property
    def node_id(self) -> str:
        """This node's id, empty before it has one."""
        return self._node_id()

    @property
    def all(self) -> list[Link]:
        """Links that are open, accepted and dialled."""
        return [*self._accepted.values(), *self._dialled]

    # --- dialling ---------------------------------------------------------------------------------------------------
    async def dial(self, address: str, *, anonymous: bool = False, timeout_s: float) -> Link:
        """A new link to the manager at `address`, up: it has said Hello. `DialError` says what is wrong and what to do.

        `anonymous`: without this node's certificate, with a single connection. It is the caller's to close.
        """
        started = trio.current_time()
        lane = SINGLE if anonymous else Lane.CONTROL.value
        transport = await self.net.dial(address, anonymous=anonymous, timeout_s=timeout_s)
        session = self._entropy.bytes(SESSION_BYTES).hex()
        link = Link(self, transport.peer, address, session, dialler=True, single=anonymous)
        connection = link.add(lane)
        self._dialled[link] = None
        self._nursery.start_soon(self._live, link)
        self.carry(link, connection, transport, ())
        try:
            with trio.move_on_after(timeout_s - (trio.current_time() - started)):
                await connection.up.wait()
        finally:
            if not connection.up.is_set():
                link.close("no Hello in time")
        if not connection.mux.over and link.is_open:
            return link
        if link.reason == "no Hello in time":
            raise DialError(f"cannot connect to {address}: it did not say Hello within {timeout_s:g} s")
        raise DialError(f"cannot connect to {address}: {connection.mux.over}")

    async def to(self, address: str, *, timeout_s: float) -> Link:
        """The link to the manager at `address`, shared by all who ask here; dialled when there is none that is open."""
        with trio.move_on_after(timeout_s):
            while address in self._dialling:
                await self._dialling[address].wait()
        link = self._shared.get(address)
        if link is not None and link.is_open:
            return link
        if address in self._dialling:
            raise DialError(f"cannot connect to {address}: still trying after {timeout_s:g} s")
        done = self._dialling[address] = trio.Event()
        try:
            link = self._shared[address] = await self.dial(address, timeout_s=timeout_s)
        finally:
            del self._dialling[address]
            done.set()
        return link

    def dial_lane(self, link: Link, connection: Connection) -> None:
        """Dial a further connection of a link, in a task of its own; when that fails, the link ends."""
        self._nursery.start_soon(self._dial_lane, link, connection)

    async def _dial_lane(self, link: Link, connection: Connection) -> None:
        try:
            transport = await self.net.dial(link.remote_address, timeout_s=LANE_DIAL_S)
        except DialError as error:
            link.close(str(error))
            return
        if not link.is_open or transport.peer.node_id != link.peer.node_id:
            await transport.aclose()
            link.close(f"another node answers at {link.remote_address} now")
            return
        self.carry(link, connection, transport, ())

    # --- accepting --------------------------------------------------------------------------------------------------
    async def accept(self, transport: Transport) -> Link | None:
        """Take over an accepted connection: its Hello says which link it belongs to. None when it was turned away.

        The peer is told why. Returns once the connection is part of a link; does not wait for its end.
        """
        try:
            with trio.fail_after(HELLO_S):
                frames = decode_batch(await transport.receive())
            hello = _hello_of(frames)
        except (TransportClosed, FrameError, trio.TooSlowError) as error:
            await self._turn_away(transport, f"no Hello: {error or 'nothing came'}")
            return None
        refusal = self._refusal(transport.peer, hello)
        if not refusal:
            link = self._session(transport, hello)
            if link.attach(hello.lane, transport, frames):
                return link
            refusal = f"this session has a {hello.lane} connection already"
        await self._turn_away(transport, refusal)
        return None

    def _refusal(self, peer: Peer, hello: Hello) -> str:
        single = hello.lane == SINGLE
        if not single and (hello.lane not in LANES or peer.role in (PeerRole.ANONYMOUS, PeerRole.LOCAL)):
            return f"no lane {hello.lane!r} for {describe(peer)}"
        if peer.expires_at and self.clock.now() >= peer.expires_at:
            return f"the certificate of {describe(peer)} has expired; compare the clocks, or join again"
        if peer.role is PeerRole.ANONYMOUS and self._anonymous >= ANONYMOUS_LINKS_MAX:
            return "too many peers without a certificate at once; try again"
        if len(self._accepted) >= LINKS_MAX:
            return "too many links; try again"
        return ""

    def _session(self, transport: Transport, hello: Hello) -> Link:
        peer = transport.peer
        link = self._accepted.get(_key(peer, hello.session))
        if link is None:
            single = hello.lane == SINGLE
            link = Link(self, peer, transport.remote_address, hello.session, dialler=False, single=single)
            self._accepted[_key(peer, link.session)] = link
            self._anonymous += peer.role is PeerRole.ANONYMOUS
            self._nursery.start_soon(self._live, link)
        return link

    async def _turn_away(self, transport: Transport, reason: str) -> None:
        try:
            with trio.move_on_after(FLUSH_S):
                await transport.send(encode_batch([(GO_AWAY, reason)]))
        except TransportClosed:
            pass
        await transport.aclose()

    # --- running ----------------------------------------------------------------------------------------------------
    def carry(self, link: Link, connection: Connection, transport: Transport, first: Sequence[Frame]) -> None:
        """Run a connection in a task of its own."""
        link.started()
        self._nursery.start_soon(self._carry, link, connection, transport, first)

    async def _carry(self, link: Link, connection: Connection, transport: Transport, first: Sequence[Frame]) -> None:
        why = "this node is stopping"
        try:
            why = await connection.run(transport, first)
        finally:
            link.stopped(why)

    async def _live(self, link: Link) -> None:
        try:
            await link.watch()
            await link.closed()
        finally:
            if link.dialler:
                self._dialled.pop(link, None)
            elif self._accepted.pop(_key(link.peer, link.session), None) is not None:
                self._anonymous -= link.peer.role is PeerRole.ANONYMOUS
            for address in [address for address, shared in self._shared.items() if shared is link]:
                del self._shared[address]

    def close_where(self, condition: Callable[[Link], bool], reason: str) -> int:
        """End the links that meet the condition, telling the peers why; how many."""
        chosen = [link for link in self.all if condition(link)]
        for link in chosen:
            link.close(reason)
        return len(chosen)

    async def aclose(self, reason: str) -> None:
        """End all links, telling the peers why, and wait until they have ended: `FLUSH_S` and a little."""
        links = self.all
        for link in links:
            link.close(reason)
        for link in links:
            await link.closed()


def _hello_of(frames: list[Frame]) -> Hello:
    if not frames or frames[0][0] != HELLO:
        raise FrameError("the first frame is another")
    return Hello(*frames[0][:4])


def _key(peer: Peer, session: str) -> tuple[Peer, str]:
    # The certificate may be renewed between two connections of a session; the node must be the same.
    return Peer(peer.role, peer.node_id, peer.cluster_id), session


@asynccontextmanager
async def open_links(
    net: Net, handler: Handler, *, clock: Clock, entropy: Entropy, node_id: Callable[[], str] = str
) -> AsyncIterator[Links]:
    """A node's links; leaving the context ends them all, telling the peers that this node stops."""
    async with trio.open_nursery() as nursery:
        links = Links(nursery, net, handler, clock, entropy, node_id)
        try:
            yield links
            await links.aclose("this node is stopping")
        finally:
            nursery.cancel_scope.cancel()
