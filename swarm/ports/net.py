"""The network port: authenticated, ordered, message-preserving transports between nodes.

The real one (`wire/websocket.py` with `wire/tls.py`) is websockets over mutual TLS; the simulator has its own. Above this
port nobody sees a socket. A transport is used by exactly one writer task and one reader task.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from swarm.ca.identity import Peer


class Transport(Protocol):
    """One connection: whole binary messages both ways, in order, to a peer whose certificate was checked."""

    @property
    def peer(self) -> Peer:
        """Who the other side is, from its certificate; an anonymous `Peer` for a client without one."""
        ...

    @property
    def remote_address(self) -> str:
        """The other side's host:port as seen here."""
        ...

    async def send(self, data: bytes) -> None:
        """Hand one message to the network; `TransportClosed` when the connection is gone. Never cancelled midway."""
        ...

    async def receive(self) -> bytes:
        """The next message; `TransportClosed` when the connection ended."""
        ...

    async def aclose(self) -> None:
        """End it, within a bounded time, forcefully if needed."""
        ...


@runtime_checkable
class PromptTransport(Transport, Protocol):
    """A transport that may be able to send without waiting."""

    def begin(self, data: bytes) -> bool:
        """Take one message and send what can be sent at once; True when that is all of it. `TransportClosed`.

        Otherwise `finish` is awaited before anything else is sent.
        """
        ...

    async def finish(self) -> None:
        """Send the rest of what `begin` took; `TransportClosed`."""
        ...


class TransportClosed(Exception):
    """The connection is gone; the text says how it ended as far as it is known."""


class DialError(Exception):
    """No connection could be made: the text names the address and says why and what to do."""


class Listener(Protocol):
    """A bound wire port."""

    @property
    def address(self) -> str:
        """host:port that is really bound (port 0 resolved)."""
        ...

    async def accept(self) -> Transport:
        """The next transport whose handshake succeeded; failed handshakes are counted and dropped."""
        ...


class Net(Protocol):
    """How a node reaches others and is reached."""

    def listen(self, address: str) -> AbstractAsyncContextManager[Listener]:
        """Listen on host:port; raises `DialError` when the port is taken or not permitted."""
        ...

    async def dial(self, address: str, *, anonymous: bool = False, timeout_s: float) -> Transport:
        """Connect to host:port and check that the peer is of this cluster; `anonymous` sends no certificate."""
        ...
