"""A network in memory: `ports.net.Net` without sockets, for tests under virtual time.

Messages arrive whole, in order and at once; a connection holds `QUEUE_MESSAGES` of them each way, so that a peer that does not
read is felt. Who a peer is stands in its `MemoryNet`, where the real network has certificates.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from swarm.ca.identity import ANONYMOUS, Peer, PeerRole
from swarm.ports.net import DialError, Listener, Transport, TransportClosed

QUEUE_MESSAGES: Final = 16
"""Messages under way in one direction of a connection; a sender waits beyond that."""
BACKLOG: Final = 128
"""Connections that wait to be accepted; a dialler waits beyond that."""
FIRST_PORT: Final = 40_000
"""Ports that are given out for port 0, and to diallers, count up from here."""


class MemoryTransport:
    """One end of a connection."""

    def __init__(
        self, peer: Peer, address: str, out: trio.MemorySendChannel[bytes], into: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        self._peer = peer
        self._address = address
        self._out = out
        self._into = into

    @property
    def peer(self) -> Peer:
        """Who the other side is."""
        return self._peer

    @property
    def remote_address(self) -> str:
        """The other side's host:port."""
        return self._address

    async def send(self, data: bytes) -> None:
        """Queue one message."""
        try:
            await self._out.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise TransportClosed(f"{self._address}: closed") from None

    async def receive(self) -> bytes:
        """The next message."""
        try:
            return await self._into.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise TransportClosed(f"{self._address}: closed") from None

    async def aclose(self) -> None:
        """End it; the other side still reads what is under way."""
        self.cut()
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        """End it now, from outside: a broken cable."""
        self._out.close()
        self._into.close()


class MemoryListener:
    """A bound address."""

    def __init__(self, address: str, peer: Peer) -> None:
        self._address = address
        self.peer = peer
        self._ready, self._accepted = trio.open_memory_channel[Transport](BACKLOG)

    @property
    def address(self) -> str:
        """host:port."""
        return self._address

    async def accept(self) -> Transport:
        """The next connection."""
        return await self._accepted.receive()

    async def connect(self, transport: Transport) -> None:
        """A dialler has come."""
        await self._ready.send(transport)

    def close(self) -> None:
        """Nobody is accepted any more."""
        self._ready.close()
        self._accepted.close()


class MemoryNetwork:
    """What all nodes of a test share: the bound addresses and the connections between them."""

    def __init__(self) -> None:
        self.listeners: dict[str, MemoryListener] = {}
        self.connections: list[tuple[MemoryTransport, MemoryTransport]] = []
        """(dialler's end, acceptor's end) of every connection ever made, in order."""
        self._next_port = FIRST_PORT

    def net(self, peer: Peer, host: str) -> MemoryNet:
        """The network as `peer` on `host` sees it."""
        return MemoryNet(self, peer, host)

    def port(self) -> int:
        """A port that nobody has."""
        self._next_port += 1
        return self._next_port


class MemoryNet:
    """One node's side; `peer` is who it is and may change."""

    def __init__(self, network: MemoryNetwork, peer: Peer, host: str) -> None:
        self.network = network
        self.peer = peer
        self.host = host

    def listen(self, address: str) -> AbstractAsyncContextManager[Listener]:
        """Listen while the context is open."""
        return self._listen(address)

    @asynccontextmanager
    async def _listen(self, address: str) -> AsyncIterator[Listener]:
        host, _, port = address.rpartition(":")
        bound = f"{host}:{self.network.port()}" if port == "0" else address
        if bound in self.network.listeners:
            raise DialError(f"cannot listen on {bound}: address already in use; choose another with --listen")
        listener = self.network.listeners[bound] = MemoryListener(bound, self.peer)
        try:
            yield listener
        finally:
            del self.network.listeners[bound]
            listener.close()

    async def dial(self, address: str, *, anonymous: bool = False, timeout_s: float) -> Transport:
        """Connect, with the checks that certificates would get."""
        await trio.lowlevel.checkpoint()
        listener = self.network.listeners.get(address)
        if listener is None:
            raise DialError(f"cannot connect to {address}: connection refused; is swarm running there?")
        me = ANONYMOUS if anonymous else self.peer
        if not anonymous and listener.peer.cluster_id != me.cluster_id:
            raise DialError(f"cannot connect to {address}: its certificate is not of this node's cluster")
        if listener.peer.role is not PeerRole.MANAGER:
            raise DialError(f"cannot connect to {address}: its certificate is not a manager's")
        forth, here = trio.open_memory_channel[bytes](QUEUE_MESSAGES)
        back, there = trio.open_memory_channel[bytes](QUEUE_MESSAGES)
        near = MemoryTransport(listener.peer, address, forth, there)
        far = MemoryTransport(me, f"{self.host}:{self.network.port()}", back, here)
        self.network.connections.append((near, far))
        with trio.move_on_after(timeout_s):
            try:
                await listener.connect(far)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                raise DialError(f"cannot connect to {address}: it stopped listening") from None
            return near
        raise DialError(f"cannot connect to {address}: nothing answered within {timeout_s:g} s")
