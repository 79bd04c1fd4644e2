"""The real network: binary websocket messages over mutual TLS, as a `ports.net.Net`.

One idea: a connection is handed out only after its TLS and websocket handshakes, with the peer that the certificate names.
Each lives in a task of its own in the net's nursery, so that no failure inside the websocket library reaches anybody but
the user of that connection. Byte streams come from `Streams`, so that a simulation can run this code on streams of its own.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias

import trio
import trio_websocket

from swarm.ca.certificates import CertificateError
from swarm.ca.credentials import Credentials
from swarm.ca.identity import Peer, PeerRole
from swarm.ports.net import DialError, Listener, Transport, TransportClosed
from swarm.wire.addresses import split_address
from swarm.wire.frames import ANONYMOUS_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX
from swarm.wire.reasons import handshake_reason, os_reason
from swarm.wire.streams import RECEIVE_BYTES, ByteStream, Streams, TcpStreams
from swarm.wire.tls import client_context, explain, peer_of_stream, server_context
from swarm.wire.tls_stream import TlsStream
from swarm.wire.websocket_transport import LibrarySide, WebsocketTransport

HANDSHAKE_S: Final = 10.0
"""A peer that connects has this long for TLS and for the websocket request; slow links need 3 round trips."""
HANDSHAKES_MAX: Final = 256
"""Handshakes under way at once on one port; more connections wait in the kernel's backlog."""
LINGER_S: Final = 1.0
"""After a failed handshake, so that the alert reaches the peer instead of a reset."""
ACCEPT_RETRY_S: Final = 0.1
"""After a failed accept."""
RESOURCE: Final = "/swarm/1"


_Upgrade: TypeAlias = Callable[[trio.Nursery, LibrarySide], Awaitable[trio_websocket.WebSocketConnection]]


class WebsocketNet:
    """`ports.net.Net` over TCP, TLS 1.3 and websockets. Made by `open_net`."""

    def __init__(self, nursery: trio.Nursery, streams: Streams) -> None:
        self._nursery = nursery
        self._streams = streams
        self._credentials: Credentials | None = None
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._anonymous = client_context(None, anonymous=True)

    @property
    def credentials(self) -> Credentials | None:
        """What new connections are made with."""
        return self._credentials

    def set_credentials(self, credentials: Credentials | None) -> None:
        """From now on prove this node with these, and trust their roots; connections that stand are not touched.

        Credentials without a certificate (a machine that knows the root and is about to join) only dial anonymously.
        """
        proven = credentials is not None and bool(credentials.certificate_pem)
        server = server_context(credentials) if credentials is not None and proven else None
        client = client_context(credentials, anonymous=False) if proven else None
        self._anonymous = client_context(credentials, anonymous=True)
        self._server, self._client, self._credentials = server, client, credentials

    # --- accepting --------------------------------------------------------------------------------------------------
    def listen(self, address: str) -> AbstractAsyncContextManager[Listener]:
        """Listen on host:port while the context is open; what was accepted lives on."""
        return self._listen(address)

    @asynccontextmanager
    async def _listen(self, address: str) -> AsyncIterator[Listener]:
        host, port = _parse(address)
        try:
            listeners = await self._streams.listen(host, port)
        except OSError as error:
            raise DialError(f"cannot listen on {address}: {os_reason(error)}") from error
        try:
            async with trio.open_nursery() as nursery:
                listener = WebsocketListener(self, self._streams.local_address(listeners[0]))
                for each in listeners:
                    nursery.start_soon(listener.run, each, nursery)
                try:
                    yield listener
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            # Not within the nursery: what ends it would be lost to the `Cancelled` that waiting in a cancelled one raises.
            for each in listeners:
                await trio.aclose_forcefully(each)

    async def accept(self, raw: ByteStream) -> WebsocketTransport:
        """Both handshakes on a stream that was accepted; `TransportClosed` says why they failed."""
        if self._server is None:
            raise TransportClosed("this node has no certificate yet")
        address = self._streams.remote_address(raw)
        stream = TlsStream(raw, self._server, server_side=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            await _send_alert(stream)
            raise TransportClosed(f"{address}: TLS handshake failed: {error.__cause__ or 'connection lost'}") from error
        peer = _peer_of(stream)
        limit = ANONYMOUS_MESSAGE_BYTES_MAX if peer.role is PeerRole.ANONYMOUS else MESSAGE_BYTES_MAX

        async def upgrade(nursery: trio.Nursery, side: LibrarySide) -> trio_websocket.WebSocketConnection:
            request = await trio_websocket.wrap_server_stream(
                nursery, side, max_message_size=limit, receive_buffer_size=RECEIVE_BYTES
            )
            if request.path != RESOURCE:
                await request.reject(404, body=b"this is the port of a swarm manager\n")
                raise TransportClosed(f"{address}: asked for {request.path!r}")
            return await request.accept()

        return await self._carried(stream, False, peer, address, limit, upgrade)

    # --- dialling ---------------------------------------------------------------------------------------------------
    async def dial(self, address: str, *, anonymous: bool = False, timeout_s: float) -> Transport:
        """Connect and check that a manager of this cluster answers; `DialError` says what failed and what to do."""
        host, port = _parse(address)
        context = self._anonymous if anonymous else self._client
        if context is None:
            raise DialError(f"cannot connect to {address}: this node has no certificate yet; it has to join first")
        raw: ByteStream | None = None
        transport: WebsocketTransport | None = None
        try:
            with trio.fail_after(timeout_s):
                raw = await self._streams.connect(host, port)
                transport = await self._dial(raw, context, address)
            return transport
        except trio.TooSlowError:
            where = "nothing answered" if raw is None else "it accepted the connection but did not finish the handshake"
            raise DialError(f"cannot connect to {address}: {where} within {timeout_s:g} s") from None
        except OSError as error:
            raise DialError(f"cannot connect to {address}: {os_reason(error)}") from error
        except TransportClosed as error:
            raise DialError(f"cannot connect to {address}: {error}") from error
        finally:
            if raw is not None and transport is None:
                await trio.aclose_forcefully(raw)

    async def _dial(self, raw: ByteStream, context: ssl.SSLContext, address: str) -> WebsocketTransport:
        stream = TlsStream(raw, context)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise TransportClosed(
                explain(error.__cause__) or "the connection broke off; is this swarm's port?"
            ) from error
        peer = _peer_of(stream)
        if context.verify_mode is not ssl.CERT_NONE and peer.role is not PeerRole.MANAGER:
            raise TransportClosed("its certificate is not a manager's; nodes connect to managers only")

        async def upgrade(nursery: trio.Nursery, side: LibrarySide) -> trio_websocket.WebSocketConnection:
            return await trio_websocket.wrap_client_stream(
                nursery,
                side,  # type: ignore[arg-type]  # the library needs any stream, its annotation names two
                address,
                RESOURCE,
                max_message_size=MESSAGE_BYTES_MAX,
                receive_buffer_size=RECEIVE_BYTES,
            )

        return await self._carried(stream, True, peer, address, MESSAGE_BYTES_MAX, upgrade)

    # --- both -------------------------------------------------------------------------------------------------------
    async def _carried(
        self, stream: TlsStream, is_client: bool, peer: Peer, address: str, limit: int, upgrade: _Upgrade
    ) -> WebsocketTransport:
        args = (stream, is_client, peer, address, limit, upgrade)
        transport: WebsocketTransport = await self._nursery.start(self._carry, *args)
        return transport

    async def _carry(
        self,
        stream: TlsStream,
        is_client: bool,
        peer: Peer,
        address: str,
        limit: int,
        upgrade: _Upgrade,
        *,
        task_status: trio.TaskStatus[WebsocketTransport],
    ) -> None:
        transport: WebsocketTransport | None = None
        refused: BaseException | None = None
        side = LibrarySide(stream, is_client=is_client)
        try:
            async with trio.open_nursery() as nursery:
                side.on_end = nursery.cancel_scope.cancel
                connection = await upgrade(nursery, side)
                side.on_end = lambda: None
                transport = WebsocketTransport(connection, stream, side, peer, address, limit)
                task_status.started(transport)
                await transport.released.wait()
                nursery.cancel_scope.cancel()
        # Whatever the websocket library stumbles over ends this connection and nothing else; its user sees it closed.
        except* Exception as group:
            refused = group.exceptions[0]
        finally:
            await trio.aclose_forcefully(stream)
        if transport is None:
            if isinstance(refused, TransportClosed):
                raise refused
            raise TransportClosed(explain(side.error) or handshake_reason(refused)) from refused


class WebsocketListener:
    """A bound port with the handshakes that are under way on it."""

    def __init__(self, net: WebsocketNet, address: str) -> None:
        self.address = address
        self.failed_handshakes = 0
        """Connections that never became transports: port scans, foreign certificates, plain HTTP."""
        self._net = net
        self._slots = trio.Semaphore(HANDSHAKES_MAX)
        self._ready, self._accepted = trio.open_memory_channel[WebsocketTransport](0)

    async def accept(self) -> Transport:
        """The next transport whose handshakes succeeded."""
        return await self._accepted.receive()

    async def run(self, listener: trio.abc.Listener[trio.abc.Stream], nursery: trio.Nursery) -> None:
        """Accept until cancelled."""
        while True:
            await self._slots.acquire()
            try:
                stream = await listener.accept()
            except OSError:
                # Out of descriptors or memory: what is open must end first; try again after a breath.
                self._slots.release()
                await trio.sleep(ACCEPT_RETRY_S)
                continue
            nursery.start_soon(self._handshake, stream)

    async def _handshake(self, stream: ByteStream) -> None:
        transport: WebsocketTransport | None = None
        handed_out = False
        try:
            with trio.move_on_after(HANDSHAKE_S):
                transport = await self._net.accept(stream)
            if transport is not None:
                await self._ready.send(transport)
                handed_out = True
        except TransportClosed:
            pass
        finally:
            self._slots.release()
            if not handed_out:
                self.failed_handshakes += 1
                if transport is not None:
                    transport.released.set()
                await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_net(
    credentials: Credentials | None = None, streams: Streams | None = None
) -> AsyncIterator[WebsocketNet]:
    """A net whose connections live as long as this context."""
    async with trio.open_nursery() as nursery:
        net = WebsocketNet(nursery, streams or TcpStreams())
        if credentials is not None:
            net.set_credentials(credentials)
        try:
            yield net
        finally:
            nursery.cancel_scope.cancel()


async def _send_alert(stream: TlsStream) -> None:
    """Give the peer the TLS alert of a handshake that failed here, so that it can say why.

    The rest of what it sends is read, so that the alert is not lost to a reset.
    """
    with trio.move_on_after(LINGER_S):
        try:
            await stream.send_alert()
            if isinstance(stream.raw, trio.abc.HalfCloseableStream):
                await stream.raw.send_eof()
            while await stream.raw.receive_some(RECEIVE_BYTES):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    await trio.aclose_forcefully(stream)


def _peer_of(stream: TlsStream) -> Peer:
    try:
        return peer_of_stream(stream.session)
    except CertificateError as error:
        raise TransportClosed(str(error)) from error


def _parse(address: str) -> tuple[str, int]:
    try:
        return split_address(address)
    except ValueError as error:
        raise DialError(str(error)) from None
