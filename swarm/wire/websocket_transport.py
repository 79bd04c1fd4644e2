"""One websocket after its handshake, as a `ports.net.Transport`.

One idea: trio-websocket makes the handshake, answers pings and closes; binary messages pass it by. The library sees the stream
through a `LibrarySide`, which gives it the head of the handshake, then only control frames, and everything once the connection is
to end. A message so costs no task, no queue and no turn of the loop beyond its reader's and its writer's.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

import trio
import trio_websocket
from wsproto.frame_protocol import FrameProtocol

from swarm.ca.identity import Peer
from swarm.ports.net import TransportClosed
from swarm.wire.tls import explain
from swarm.wire.tls_stream import TlsStream
from swarm.wire.websocket_frames import POLICY, FramingError, Skipper, Splitter

CLOSE_S: Final = 2.0
"""For the closing handshake; a peer that does not read is cut off after it."""
HEAD_END: Final = b"\r\n\r\n"
HEAD_BYTES_MAX: Final = 64 * 1024
"""A longer head is left to the library, which refuses it."""
UPGRADED: Final = b"HTTP/1.1 101 "
ASIDE_BYTES_MAX: Final = 64 * 1024
"""Control frames that the library has not read yet: five hundred of the longest, where an honest peer has one or two."""
LONG_BYTES: Final = 16 * 1024
"""A message from here on gives way to other tasks when it is sent: it has cost as much as a turn may."""


class _Gives(Enum):
    """What the library is given to read."""

    HEAD = "the head of the handshake, and all of it when it is a refusal"
    ASIDE = "control frames"
    ALL = "everything"
    END = "the end alone, be it the peer's close: what else comes behind a refusal means nothing"


class LibrarySide(trio.abc.Stream):
    """The stream as trio-websocket sees it. Remembers how it ended: the library does not, during its handshake."""

    def __init__(self, stream: TlsStream, *, is_client: bool) -> None:
        self.error: BaseException | None = None
        self.on_end: Callable[[], object] = lambda: None
        self.unread = b""
        """What came behind the head."""
        self._stream = stream
        self._is_client = is_client
        self._gives = _Gives.HEAD
        self._head = b""
        self._aside = bytearray()
        self._skipper = Skipper()
        self._wake = trio.Event()

    @property
    def is_handed_back(self) -> bool:
        """Whether the library reads by itself again."""
        return self._gives in (_Gives.ALL, _Gives.END)

    async def read(self) -> bytes:
        """From the stream itself: all that is there, empty at its end."""
        try:
            data = await self._stream.receive_some()
        except trio.BrokenResourceError as error:
            self._ended(error.__cause__)
            raise
        if not data:
            self._ended(None)
        return data

    def _ended(self, error: BaseException | None) -> None:
        self.error = self.error or error
        self.on_end()

    def pass_on(self, frames: bytearray) -> None:
        """Whole control frames, for the library; `FramingError` when it does not keep up with them."""
        if len(self._aside) + len(frames) > ASIDE_BYTES_MAX:
            raise FramingError(POLICY, "pings that come faster than they are answered")
        self._aside += frames
        self._wake.set()

    def hand_back(self, rest: bytes) -> None:
        """From now on the library reads everything, these bytes first."""
        self._aside += rest
        self._gives = _Gives.ALL
        self._wake.set()

    def refuse(self, rest: bytes) -> None:
        """From now on what arrives is thrown away, these bytes first, until the peer has read why it is refused."""
        self._skipper.feed(rest)
        self._gives = _Gives.END
        self._wake.set()

    # --- as the library calls it -------------------------------------------------------------------------------------
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What the library is to know of."""
        if self._gives is _Gives.HEAD:
            return await self._receive_head()
        while self._gives is _Gives.ASIDE and not self._aside:
            self._wake = trio.Event()
            await self._wake.wait()
        if self._aside:
            data = bytes(self._aside)
            self._aside.clear()
            return data
        while not self._skipper.closed:
            data = await self.read()
            if not data or self._gives is not _Gives.END:
                return data
            self._skipper.feed(data)
        return b""

    async def _receive_head(self) -> bytes:
        data = await self.read()
        before = len(self._head)
        self._head += data
        end = self._head.find(HEAD_END) + len(HEAD_END)
        if end < len(HEAD_END) and len(self._head) < HEAD_BYTES_MAX:
            return data
        if end < len(HEAD_END) or (self._is_client and not self._head.startswith(UPGRADED)):
            self._gives = _Gives.ALL
            return data
        self._gives = _Gives.ASIDE
        self.unread = data[end - before :]
        self._head = b""
        return data[: end - before]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Whole frames, between those of messages."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Until the kernel may take more."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


class WebsocketTransport:
    """One connection, as `ports.net.Transport`."""

    def __init__(
        self,
        connection: trio_websocket.WebSocketConnection,
        stream: TlsStream,
        side: LibrarySide,
        peer: Peer,
        remote_address: str,
        limit: int,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._side = side
        self._peer = peer
        self._remote_address = remote_address
        self._frames = FrameProtocol(connection.is_client, [])
        self._splitter = Splitter(from_client=connection.is_server, limit=limit)
        self._refusal: FramingError | None = None
        self.released = trio.Event()
        """Set once nobody uses it any more: its task ends then."""

    @property
    def peer(self) -> Peer:
        """From the certificate, fixed for the life of the connection."""
        return self._peer

    @property
    def remote_address(self) -> str:
        """host:port of the other side as seen here."""
        return self._remote_address

    async def send(self, data: bytes) -> None:
        """One binary message. A cancelled send may leave half a TLS record: only close after that."""
        if not self.begin(data):
            await self.finish()
        elif len(data) >= LONG_BYTES:
            await trio.lowlevel.checkpoint()

    def begin(self, data: bytes) -> bool:
        """One binary message, as far as the kernel takes it at once; True when that is all of it."""
        if self._connection.closed is not None:
            raise self._closed()
        try:
            return self._stream.begin(self._frames.send_data(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._broken(error) from error

    async def finish(self) -> None:
        """Wait for the kernel to take the rest."""
        try:
            await self._stream.finish()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> TransportClosed:
        self._side.error = self._side.error or error.__cause__
        return self._closed()

    async def receive(self) -> bytes:
        """The next binary message. Gives way to other tasks whenever none has arrived already."""
        messages = self._splitter.messages
        if self._side.unread:
            self._take(self._side.unread)
            self._side.unread = b""
        while not messages:
            if self._side.is_handed_back:
                await self._end()
            try:
                data = await self._side.read()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._take(data)
        return messages.popleft()

    def _take(self, data: bytes) -> None:
        splitter = self._splitter
        try:
            splitter.feed(data)
            if splitter.aside:
                self._side.pass_on(splitter.aside)
                splitter.aside.clear()
        except FramingError as error:
            self._refusal = error
            self._side.refuse(splitter.rest())
            raise TransportClosed(f"{self._remote_address}: {error}") from error
        if splitter.closing or not data:
            self._side.hand_back(splitter.rest())

    async def _end(self) -> None:
        """The library reads the end and says how it was; always raises `TransportClosed`."""
        try:
            while True:
                await self._connection.get_message()
        except trio_websocket.ConnectionClosed as closed:
            raise self._closed() from closed

    def _closed(self) -> TransportClosed:
        why, reason = explain(self._side.error), self._connection.closed
        if not why and reason is not None and reason.reason:
            why = reason.reason
        if not why:
            why = "closed" if reason is not None and reason.code == 1000 else "the connection broke off"
        return TransportClosed(f"{self._remote_address}: {why}")

    async def aclose(self) -> None:
        """Close in order for `CLOSE_S`, then by force."""
        if not self._side.is_handed_back:
            self._side.hand_back(self._splitter.rest())
        refusal = self._refusal
        try:
            with trio.move_on_after(CLOSE_S):
                if refusal is None:
                    await self._connection.aclose()
                else:
                    await self._connection.aclose(refusal.code, str(refusal))
        finally:
            self.released.set()
            await trio.aclose_forcefully(self._stream)
