"""A network under faults, in virtual time: delay, cut connections, partitions both ways or one way, clogging, refused dials.

One idea: what is sent over a connection arrives late or not at all, never out of order, as TCP gives it. A direction between
two hosts that is blocked holds its messages, as retransmission does, until it opens again or the connection is given up. Who a
peer is comes from its certificate, as for real. No decision is made here: a `SimNetwork` is told what is broken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import trio
from attrs import define, field

from swarm.ca.certificates import CertificateError, peer_of, verify_chain
from swarm.ca.credentials import Credentials
from swarm.ca.identity import ANONYMOUS, LOCAL, Peer, PeerRole
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy
from swarm.ports.net import DialError, Listener, Transport, TransportClosed
from swarm.wire.local import LocalListener

WINDOW_MESSAGES: Final = 64
"""Messages under way in one direction of a connection; a sender waits beyond that, as on a full socket buffer."""
BACKLOG: Final = 128
FIRST_PORT: Final = 40_000
SLOW_ONE_IN: Final = 50
"""One message in so many takes ten times as long."""


@define
class Life:
    """One run of one node's daemon. Once revoked, nothing that it still does has an effect."""

    host: str
    revoked: bool = False

    async def check(self) -> None:
        """A checkpoint that a dead daemon does not come back from."""
        if self.revoked:
            await trio.sleep_forever()


@define(eq=False)
class Pipe:
    """One direction of a connection."""

    network: SimNetwork
    source: str
    target: str
    messages: deque[tuple[float, bytes]] = field(factory=deque)
    closed: bool = False
    """No more will be sent; what is under way still arrives."""
    broken: bool = False
    """Both ends see it as gone at once."""
    _bell: trio.Event = field(factory=trio.Event)
    _last: float = 0.0

    def ring(self) -> None:
        """Something about this direction has changed."""
        self._bell.set()
        self._bell = trio.Event()

    def end(self, *, broken: bool = False) -> None:
        """Close it in order, or break it."""
        self.closed = True
        if broken:
            self.broken = True
            self.messages.clear()
        self.ring()

    async def put(self, data: bytes) -> None:
        """One message more."""
        await trio.lowlevel.checkpoint()
        while not self.closed and len(self.messages) >= WINDOW_MESSAGES:
            await self._bell.wait()
        if self.closed:
            raise TransportClosed(f"{self.target}: closed")
        self._last = max(self._last, trio.current_time() + self.network.latency(self.source, self.target))
        self.messages.append((self._last, data))
        self.ring()

    async def get(self) -> bytes:
        """The next message, once it has arrived."""
        await trio.lowlevel.checkpoint()
        while True:
            if self.broken:
                raise TransportClosed(f"{self.source}: connection reset")
            passes = not self.network.is_blocked(self.source, self.target)
            if self.messages and passes:
                due = self.messages[0][0]
                if due <= trio.current_time():
                    data = self.messages.popleft()[1]
                    self.ring()
                    return data
            elif self.closed and passes:
                raise TransportClosed(f"{self.source}: closed")
            bell = self._bell
            with trio.move_on_at(self.messages[0][0] if self.messages and passes else float("inf")):
                await bell.wait()


class SimTransport:
    """One end of a connection."""

    def __init__(self, life: Life, peer: Peer, address: str, out: Pipe, into: Pipe) -> None:
        self._life = life
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
        """Hand over one message."""
        await self._life.check()
        await self._out.put(data)

    async def receive(self) -> bytes:
        """The next message."""
        await self._life.check()
        return await self._into.get()

    async def aclose(self) -> None:
        """End both directions; the other side still reads what is under way."""
        if not self._life.revoked:
            self._out.end()
            self._into.end(broken=True)
        await trio.lowlevel.checkpoint()


@define(eq=False)
class SimListener:
    """A bound address, or a node's local socket."""

    life: Life
    address: str
    credentials: Credentials | None
    queue: trio.MemorySendChannel[Any]
    """Of transports; of byte streams at level BYTES."""
    accepted: trio.MemoryReceiveChannel[Any]

    async def accept(self) -> Transport:
        """The next connection."""
        accepted: Transport = await self.accepted.receive()
        return accepted


class SimNetwork:
    """What all nodes share: who listens where, which directions are blocked, and every connection that stands."""

    def __init__(self, entropy: Entropy, *, latency_s: tuple[float, float] = (0.0002, 0.002)) -> None:
        self._entropy = entropy
        self.latency_s = latency_s
        self.listeners: dict[str, SimListener] = {}
        self.connections: dict[tuple[Pipe, Pipe], None] = {}
        self.blocked: dict[tuple[str, str], int] = {}
        """(from host, to host) to how many faults block it."""
        self.slow: dict[str, float] = {}
        """Host to seconds that each message from or to it takes more."""
        self.refusing: set[str] = set()
        """Hosts that take no new connections."""
        self.sent = 0
        self._unblocked = trio.Event()
        self._next_port = FIRST_PORT

    # --- what is broken --------------------------------------------------------------------------------------------
    def is_blocked(self, source: str, target: str) -> bool:
        """Whether nothing arrives in this direction."""
        return (source, target) in self.blocked

    def block(self, source: str, target: str) -> None:
        """Let nothing through in this direction until `unblock`, which undoes one `block`."""
        self.blocked[source, target] = self.blocked.get((source, target), 0) + 1

    def unblock(self, source: str, target: str) -> None:
        """One fault less in this direction."""
        left = self.blocked.get((source, target), 0) - 1
        if left > 0:
            self.blocked[source, target] = left
            return
        self.blocked.pop((source, target), None)
        self._unblocked.set()
        self._unblocked = trio.Event()
        for pipe in self._pipes():
            if (pipe.source, pipe.target) == (source, target):
                pipe.ring()

    async def open_both_ways(self, source: str, target: str) -> None:
        """Wait until a handshake could pass."""
        while self.is_blocked(source, target) or self.is_blocked(target, source):
            await self._unblocked.wait()

    def heal(self) -> None:
        """A perfect network again."""
        for source, target in list(self.blocked):
            self.blocked[source, target] = 1
            self.unblock(source, target)
        self.slow.clear()
        self.refusing.clear()

    def cut(self, host: str, other: str | None = None) -> int:
        """Break the connections of a host, or between two; how many."""
        found = 0
        for pair in list(self.connections):
            ends = {pair[0].source, pair[0].target}
            if host in ends and (other is None or other in ends):
                del self.connections[pair]
                found += not pair[0].broken
                for pipe in pair:
                    pipe.end(broken=True)
        return found

    def silence(self, host: str) -> None:
        """The host has lost its power: its connections stand for the others, and nothing ever comes over them."""
        for pair in list(self.connections):
            for pipe in pair:
                if pipe.source == host:
                    pipe.messages.clear()
                    pipe.source = f"{host} (gone)"
                    self.block(pipe.source, pipe.target)

    def latency(self, source: str, target: str) -> float:
        """How long the next message takes."""
        self.sent += 1
        low, high = self.latency_s
        delay = self._entropy.uniform(low, high)
        if self._entropy.integer(1, SLOW_ONE_IN) == 1:
            delay *= 10
        return delay + self.slow.get(source, 0.0) + self.slow.get(target, 0.0)

    def draw(self) -> float:
        """A number between 0 and 1, for whoever simulates a part of the network."""
        return self._entropy.uniform(0.0, 1.0)

    # --- connections -----------------------------------------------------------------------------------------------
    def port(self) -> int:
        """A port that nobody has."""
        self._next_port += 1
        return self._next_port

    def connect(self, near: Life, far: Life) -> tuple[Pipe, Pipe]:
        """The two directions of a new connection."""
        self.connections = {pair: None for pair in self.connections if not (pair[0].closed and pair[1].closed)}
        pair = Pipe(self, near.host, far.host), Pipe(self, far.host, near.host)
        self.connections[pair] = None
        return pair

    def net(self, life: Life, clock: Clock) -> SimNet:
        """The network as one run of a node sees it."""
        return SimNet(self, life, clock)

    def bind(self, life: Life, address: str, credentials: Credentials | None) -> SimListener:
        """Listen; `DialError` when somebody does."""
        found = self.listeners.get(address)
        if found is not None and not found.life.revoked:
            raise DialError(f"cannot listen on {address}: address already in use; choose another with --listen")
        listener = self.listeners[address] = SimListener(
            life, address, credentials, *trio.open_memory_channel[Any](BACKLOG)
        )
        return listener

    def unbind(self, listener: SimListener) -> None:
        """Nobody is accepted any more."""
        if self.listeners.get(listener.address) is listener:
            del self.listeners[listener.address]
        listener.queue.close()
        listener.accepted.close()

    def listener_at(self, address: str) -> SimListener | None:
        """Whoever answers there."""
        found = self.listeners.get(address)
        return None if found is None or found.life.revoked else found

    async def dial_local(self, life: Life, path: str) -> Transport:
        """Connect to a node's local socket as an operator does."""
        await trio.lowlevel.checkpoint()
        listener = self.listener_at(path)
        if listener is None:
            raise DialError(f"{path}: no daemon answers")
        forth, back = self.connect(life, listener.life)
        far = SimTransport(listener.life, LOCAL, "the local socket", back, forth)
        try:
            listener.queue.send_nowait(far)
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            raise DialError(f"{path}: no daemon answers") from None
        return SimTransport(life, Peer(PeerRole.MANAGER), path, forth, back)

    def _pipes(self) -> list[Pipe]:
        return [pipe for pair in self.connections for pipe in pair]


class SimNet:
    """One run of one node's side: `actors.context.NodeNet`."""

    def __init__(self, network: SimNetwork, life: Life, clock: Clock) -> None:
        self._network = network
        self._life = life
        self._clock = clock
        self._credentials: Credentials | None = None
        self._listeners: list[SimListener] = []

    def set_credentials(self, credentials: Credentials | None) -> None:
        """New connections are made with these."""
        self._credentials = credentials
        for listener in self._listeners:
            listener.credentials = credentials

    def listen(self, address: str) -> AbstractAsyncContextManager[Listener]:
        """Listen while the context is open."""
        return self._listen(address)

    @asynccontextmanager
    async def _listen(self, address: str) -> AsyncIterator[Listener]:
        host, _, port = address.rpartition(":")
        bound = f"{host}:{self._network.port()}" if port == "0" else address
        listener = self._network.bind(self._life, bound, self._credentials)
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
            self._network.unbind(listener)

    async def dial(self, address: str, *, anonymous: bool = False, timeout_s: float) -> Transport:
        """Connect, with the checks of both certificates."""
        await trio.lowlevel.checkpoint()
        await self._life.check()
        listener = await self._reach(address, timeout_s)
        mine = None if anonymous else self._credentials
        there = self._identity_of(address, listener, anonymous)
        here = ANONYMOUS
        if mine is not None:
            assert listener.credentials is not None, "checked with the server's identity"
            try:
                here = verify_chain(mine.certificate_pem, listener.credentials.root_pem, self._clock.now())
            except CertificateError as error:
                raise DialError(f"cannot connect to {address}: it refused this node's certificate: {error}") from None
        forth, back = self._network.connect(self._life, listener.life)
        far = SimTransport(listener.life, here, f"{self._life.host}:{self._network.port()}", back, forth)
        try:
            with trio.fail_after(timeout_s):
                await listener.queue.send(far)
        except (trio.ClosedResourceError, trio.BrokenResourceError, trio.TooSlowError):
            raise DialError(f"cannot connect to {address}: it stopped listening") from None
        return SimTransport(self._life, there, address, forth, back)

    async def _reach(self, address: str, timeout_s: float) -> SimListener:
        """Whoever listens there, after the time that handshakes take."""
        network, source, target = self._network, self._life.host, address.rpartition(":")[0]
        with trio.move_on_after(timeout_s):
            await trio.sleep(3 * network.latency(source, target))
            await network.open_both_ways(source, target)
            listener = network.listener_at(address)
            if listener is None or target in network.refusing:
                raise DialError(f"cannot connect to {address}: connection refused; is swarm running there?")
            return listener
        raise DialError(f"cannot connect to {address}: nothing answered within {timeout_s:g} s")

    def _identity_of(self, address: str, listener: SimListener, anonymous: bool) -> Peer:
        theirs = listener.credentials
        if theirs is None:
            raise DialError(f"cannot connect to {address}: it has no certificate")
        try:
            if self._credentials is None or (anonymous and not self._credentials.root_pem):
                there = peer_of(theirs.certificate_pem)
            else:
                there = verify_chain(theirs.certificate_pem, self._credentials.root_pem, self._clock.now())
        except CertificateError as error:
            raise DialError(f"cannot connect to {address}: {error}") from None
        if there.role is not PeerRole.MANAGER:
            raise DialError(f"cannot connect to {address}: its certificate is not a manager's")
        return there


@asynccontextmanager
async def listen_local_simulated(network: SimNetwork, life: Life, path: str) -> AsyncIterator[LocalListener]:
    """A node's local socket."""
    listener = network.bind(life, path, None)
    try:
        yield listener
    finally:
        network.unbind(listener)
