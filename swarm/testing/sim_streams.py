"""Level BYTES: byte streams of the simulated network, under the shipped TLS and websocket code.

One idea: a stream's two directions are the same `Pipe`s that carry whole messages at level FRAMES, so every fault is the same:
chunks come late, in order, in pieces now and then, or the connection breaks. What is in them (keys, nonces, masks) is OpenSSL's
and differs from run to run; how many chunks there are does not, and so the schedule is the seed's.
"""

from __future__ import annotations

import errno
import os
from typing import Final

import trio

from swarm.ports.net import TransportClosed
from swarm.testing.sim_net import Life, Pipe, SimListener, SimNetwork
from swarm.wire.streams import ByteStream

TORN_SHARE: Final = 0.05
"""So many of the chunks arrive in two pieces, as a kernel may give them."""


class SimStream(trio.abc.HalfCloseableStream):
    """One end of a simulated byte stream."""

    def __init__(self, life: Life, remote_address: str, out: Pipe, into: Pipe) -> None:
        self.remote_address = remote_address
        self._life = life
        self._out = out
        self._into = into
        self._unread = b""
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over bytes; they are under way when this returns."""
        await self._alive()
        try:
            await self._out.put(bytes(data))
        except TransportClosed as closed:
            raise trio.BrokenResourceError(str(closed)) from closed

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived; empty after the other side's end."""
        await self._alive()
        data, self._unread = self._unread, b""
        if data:
            await trio.lowlevel.checkpoint()
        else:
            try:
                data = await self._into.get()
            except TransportClosed as closed:
                if self._into.broken:
                    raise trio.BrokenResourceError(str(closed)) from closed
                return b""
            # One draw a chunk, whatever its length: signatures differ by a byte from run to run, and nothing else may.
            draw = self._into.network.draw()
            if draw < TORN_SHARE:
                data, self._unread = _cut(data, max(1, int(len(data) * draw / TORN_SHARE)))
        if max_bytes is not None and len(data) > max_bytes:
            data, rest = _cut(data, max_bytes)
            self._unread = rest + self._unread
        return data

    async def wait_send_all_might_not_block(self) -> None:
        """`send_all` waits by itself."""
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """Nothing more follows from here."""
        await self._alive()
        self._out.end()

    async def aclose(self) -> None:
        """End both directions; the other side still reads what is under way."""
        self._closed = True
        if not self._life.revoked:
            self._out.end()
            self._into.end(broken=True)
        await trio.lowlevel.checkpoint()

    async def _alive(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was already closed")
        await self._life.check()


class SimStreamListener(trio.abc.Listener[trio.abc.Stream]):
    """A bound port."""

    def __init__(self, network: SimNetwork, bound: SimListener) -> None:
        self.bound = bound
        self._network = network

    async def accept(self) -> trio.abc.Stream:
        """The next connection."""
        stream: trio.abc.Stream = await self.bound.accepted.receive()
        return stream

    async def aclose(self) -> None:
        """Nobody is accepted any more."""
        self._network.unbind(self.bound)
        await trio.lowlevel.checkpoint()


class SimStreams:
    """`wire.streams.Streams` of one run of a node."""

    def __init__(self, network: SimNetwork, life: Life) -> None:
        self._network = network
        self._life = life

    async def connect(self, host: str, port: int) -> ByteStream:
        """A stream to that place, after a round trip."""
        network, source, address = self._network, self._life.host, f"{host}:{port}"
        await self._life.check()
        await trio.sleep(2 * network.latency(source, host))
        await network.open_both_ways(source, host)
        listener = network.listener_at(address)
        if listener is None or host in network.refusing:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        forth, back = network.connect(self._life, listener.life)
        far = SimStream(listener.life, f"{source}:{network.port()}", back, forth)
        try:
            await listener.queue.send(far)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from None
        return SimStream(self._life, address, forth, back)

    async def listen(self, host: str, port: int) -> list[trio.abc.Listener[trio.abc.Stream]]:
        """The one bound port."""
        await trio.lowlevel.checkpoint()
        bound = self._network.bind(self._life, f"{host}:{port or self._network.port()}", None)
        return [SimStreamListener(self._network, bound)]

    def local_address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> str:
        """host:port that a listener is bound to."""
        assert isinstance(listener, SimStreamListener), "made by `listen`"
        return listener.bound.address

    def remote_address(self, stream: ByteStream) -> str:
        """host:port of a stream's other side."""
        assert isinstance(stream, SimStream), "made by `connect` or accepted"
        return stream.remote_address


def _cut(data: bytes, at: int) -> tuple[bytes, bytes]:
    return data[:at], data[at:]
