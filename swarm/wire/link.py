"""A link: one peer, whoever dialled, on up to three connections that live and die as one.

One idea: each lane (control, calls, bulk) has a connection of its own, so that a heartbeat never waits behind a snapshot. The
dialler opens a lane when something is first sent on it; the accepting side, which cannot dial, asks for it over a lane that
is up. Peers without a certificate and local callers have a single connection for everything. A link is up only after the
peer's Hello, and ends when one of its connections does, when the peer has shown no sign of life, or when its certificate
expires by the clock port.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from swarm.ca.identity import Peer, PeerRole
from swarm.ports.clock import Clock
from swarm.ports.net import Transport
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.authorize import describe
from swarm.wire.connection import Connection, Incoming
from swarm.wire.frames import Frame
from swarm.wire.mux import LIMITS, Limits
from swarm.wire.registry import Lane
from swarm.wire.remote import RemoteRef

SINGLE: Final = "single"
"""The one connection of a link that has no lanes."""
LANES: Final = frozenset(lane.value for lane in Lane)
PING_S: Final = 10.0
"""A connection on which nothing arrived for this long is asked for a sign of life."""
SILENCE_S: Final = 30.0
"""A connection on which nothing arrived for this long is taken for dead."""
ANONYMOUS_S: Final = 60.0
"""A peer without a certificate has this long for all that it may ask."""
ANONYMOUS_LIMITS: Final = Limits(calls=8, held_bytes=256 * 1024, outbox_bytes=64 * 1024, outbox_bytes_max=1024 * 1024)


class Handler(Protocol):
    """Who takes the peer's calls."""

    def handle(self, incoming: Incoming) -> None:
        """Answer it, now or later; must not wait and must not raise."""
        ...


class Owner(Protocol):
    """What a link needs of the one that made it."""

    clock: Clock
    handler: Handler

    @property
    def node_id(self) -> str:
        """This node's id, empty before it has one."""
        ...

    def carry(self, link: Link, connection: Connection, transport: Transport, first: Sequence[Frame]) -> None:
        """Run a connection in a task of its own."""
        ...

    def dial_lane(self, link: Link, connection: Connection) -> None:
        """Dial a further connection of a link that this side dialled, in a task of its own."""
        ...


class Link:
    """One peer. `peer` is who its certificate says."""

    def __init__(self, owner: Owner, peer: Peer, address: str, session: str, *, dialler: bool, single: bool) -> None:
        self.peer = peer
        self.remote_address = address
        """host:port of the peer: what was dialled, or where its first connection came from."""
        self.session = session
        self.dialler = dialler
        self.single = single
        self.owner = owner
        self.connections: dict[str, Connection] = {}
        self.reason = ""
        """Why it ended, once it has."""
        self._running = 0
        self._limits = ANONYMOUS_LIMITS if peer.role is PeerRole.ANONYMOUS and not dialler else LIMITS
        self._over = trio.Event()
        self._closed = trio.Event()
        self._on_close: list[Callable[[], object]] = []

    def __str__(self) -> str:
        return f"{describe(self.peer)} at {self.remote_address}"

    def __repr__(self) -> str:
        return f"<Link to {self}{': ' + self.reason if self.reason else ''}>"

    @property
    def handler(self) -> Handler:
        """Who takes the peer's calls."""
        return self.owner.handler

    @property
    def is_open(self) -> bool:
        """Whether calls may be made on it."""
        return not self.reason

    def ref(self, to: str) -> RemoteRef:
        """A remote actor, as if it were here."""
        return RemoteRef(self, to)

    async def closed(self) -> str:
        """Wait until the link has ended; why."""
        await self._closed.wait()
        return self.reason

    def close(self, reason: str) -> None:
        """End it, telling the peer why. Calls of both sides fail at once; `closed` returns when all is flushed."""
        if self.reason:
            return
        self.reason = reason
        self._over.set()
        for connection in self.connections.values():
            connection.end(reason)
        if not self._running:
            self._closed.set()

    def gone(self, reason: str = "") -> SwarmError:
        """The error of calls that this link can no longer carry."""
        why = self.reason or reason or "it was closed"
        return SwarmError(ErrorCode.UNAVAILABLE, f"the link to {self} has ended: {why}")

    # --- lanes ------------------------------------------------------------------------------------------------------
    def connection(self, lane: Lane) -> Connection:
        """The connection of a lane; on its way, with calls queued in it, if it is not there yet. Raises UNAVAILABLE."""
        connection = self.connections.get(SINGLE if self.single else lane.value)
        if connection is not None:
            if connection.mux.over:
                raise self.gone(connection.mux.over)
            return connection
        if self.reason or self.single:
            raise self.gone()
        connection = self.add(lane.value)
        if self.dialler:
            self.owner.dial_lane(self, connection)
        else:
            self._ask_for(lane.value)
        return connection

    def add(self, lane: str) -> Connection:
        """A connection for a lane that has none; it gets its transport later."""
        connection = Connection(self, lane, dialler=self.dialler, limits=self._limits)
        self.connections[lane] = connection
        return connection

    def wanted(self, lane: str) -> None:
        """The accepting side asks for a lane. Only a dialler can open one; anything else is passed over."""
        if self.dialler and not self.single and lane in LANES:
            self.connection(Lane(lane))

    def _ask_for(self, lane: str) -> None:
        for connection in self.connections.values():
            if connection.attached and not connection.mux.over:
                connection.mux.want(lane)
                connection.kick()
                return

    def attach(self, lane: str, transport: Transport, first: Sequence[Frame]) -> bool:
        """Give a lane its transport, whose first frames were read already. False when it has one, or the link is over."""
        connection = self.connections.get(lane)
        if self.reason or (connection is not None and connection.attached):
            return False
        self.owner.carry(self, connection or self.add(lane), transport, first)
        return True

    # --- its life ---------------------------------------------------------------------------------------------------
    def started(self) -> None:
        """A connection runs."""
        self._running += 1

    def stopped(self, why: str) -> None:
        """A connection has ended, and so does the link."""
        self._running -= 1
        self.close(why)
        if not self._running:
            self._closed.set()

    async def watch(self) -> None:
        """Look after the link until it is over: signs of life, and the peer's certificate."""
        born = trio.current_time()
        silent_since: dict[str, float] = {}
        while not self.reason:
            now = trio.current_time()
            if self._certificate_expired():
                return self.close(f"the certificate of {describe(self.peer)} has expired; the node has to renew it")
            if self._limits is ANONYMOUS_LIMITS and now - born >= ANONYMOUS_S:
                return self.close(f"a peer without a certificate is served for {ANONYMOUS_S:g} s only")
            for lane, connection in self.connections.items():
                if self.peer.role is PeerRole.LOCAL:
                    break  # the kernel tells when a local client ends, and one that waits for its user may be silent
                if connection.heard or not connection.attached:
                    connection.heard = False
                    silent_since[lane] = now
                elif now - silent_since.get(lane, now) >= SILENCE_S:
                    return self.close(f"no sign of life for {SILENCE_S:g} s")
                else:
                    connection.mux.ping(int(now))
                    connection.kick()
            with trio.move_on_after(PING_S):
                await self._over.wait()
        return None

    def _certificate_expired(self) -> bool:
        return bool(self.peer.expires_at) and self.owner.clock.now() >= self.peer.expires_at
