"""Where the byte streams under TLS come from: TCP here, a simulation elsewhere."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import trio

from swarm.wire.addresses import join_address

ByteStream: TypeAlias = trio.abc.Stream


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
