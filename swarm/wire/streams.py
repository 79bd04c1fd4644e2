"""Where the byte streams under TLS come from: TCP here, a simulation elsewhere; and how bytes pass through them fastest.

A trio stream tries, waits and gives way at each call. Where it is a socket, a `Carrier` waits first and reads once, and hands
bytes to the kernel without giving way: each turn of the loop that is saved is a twentieth of a millisecond of a write's time.
"""

from __future__ import annotations

import os
from typing import Final, Protocol, TypeAlias

import trio

from swarm.wire.addresses import join_address

ByteStream: TypeAlias = trio.abc.Stream
RECEIVE_BYTES: Final = 64 * 1024
"""Bytes read at once."""


class Carrier(Protocol):
    """How TLS moves bytes over a stream."""

    def send_now(self, data: bytes) -> int:
        """How many of these bytes are on their way, without waiting; `trio.BrokenResourceError`."""
        ...

    async def receive(self) -> bytes:
        """What arrives next, empty at the end. Always gives way to other tasks."""
        ...


class StreamCarrier:
    """Over any stream."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def send_now(self, data: bytes) -> int:
        """A stream cannot be tried."""
        return 0

    async def receive(self) -> bytes:
        """As the stream has it."""
        return bytes(await self._stream.receive_some(RECEIVE_BYTES))


class SocketCarrier:
    """Over a socket, which trio has made non-blocking."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = stream.socket

    def send_now(self, data: bytes) -> int:
        """What fits into the kernel's buffer."""
        try:
            return os.write(self._open(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    async def receive(self) -> bytes:
        """Wait, then read."""
        while True:
            await trio.lowlevel.wait_readable(self._open())
            try:
                return os.read(self._open(), RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    def _open(self) -> int:
        descriptor = self._socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError("this socket was already closed")
        return descriptor


def carrier(stream: ByteStream) -> Carrier:
    """The fastest one for a stream."""
    return SocketCarrier(stream) if isinstance(stream, trio.SocketStream) else StreamCarrier(stream)


class Streams(Protocol):
    """Where byte streams come from: TCP, or a simulation."""

    async def connect(self, host: str, port: int) -> ByteStream:
        """A stream to that place; raises `OSError`."""
        ...

    async def listen(self, host: str, port: int) -> list[trio.abc.Listener[trio.abc.Stream]]:
        """Bound listeners; raises `OSError`."""
        ...

    def local_address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> str:
        """host:port that a listener is bound to."""
        ...

    def remote_address(self, stream: ByteStream) -> str:
        """host:port of a stream's other side."""
        ...


class TcpStreams:
    """The machine's TCP."""

    async def connect(self, host: str, port: int) -> ByteStream:
        """To the first of the host's addresses that answers."""
        return await trio.open_tcp_stream(host, port)

    async def listen(self, host: str, port: int) -> list[trio.abc.Listener[trio.abc.Stream]]:
        """On every address of the host; all interfaces for an unspecified one."""
        return list(await trio.open_tcp_listeners(port, host=host))

    def local_address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> str:
        """As the kernel says."""
        assert isinstance(listener, trio.SocketListener)
        host, port = listener.socket.getsockname()[:2]
        return join_address(host, port)

    def remote_address(self, stream: ByteStream) -> str:
        """As the kernel says; empty when the connection is gone already."""
        assert isinstance(stream, trio.SocketStream)
        try:
            host, port = stream.socket.getpeername()[:2]
        except OSError:
            return ""
        return join_address(host, port)
