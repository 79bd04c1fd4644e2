"""The real network on loopback: who gets in, who does not, and what each is told."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio_websocket
from certs import DAY_S, TestCluster
from wsproto.frame_protocol import FrameProtocol

from swarm.ca.credentials import Credentials
from swarm.ca.identity import ANONYMOUS, PeerRole
from swarm.ports.net import DialError, Listener, Transport, TransportClosed
from swarm.wire import websocket, websocket_transport
from swarm.wire.frames import ANONYMOUS_MESSAGE_BYTES_MAX
from swarm.wire.streams import TcpStreams
from swarm.wire.tls import client_context
from swarm.wire.tls_stream import TlsStream
from swarm.wire.websocket import WebsocketListener, WebsocketNet, open_net
from swarm.wire.websocket_transport import CLOSE_S, LibrarySide

pytestmark = pytest.mark.integration

HERE = TestCluster()
ELSEWHERE = TestCluster("cluster-b")
SERVER = HERE.credentials("m1")


@asynccontextmanager
async def served(credentials: Credentials = SERVER) -> AsyncIterator[tuple[WebsocketNet, Listener]]:
    async with open_net(credentials) as net, net.listen("127.0.0.1:0") as listener:
        yield net, listener


async def dialled(listener: Listener, credentials: Credentials | None, anonymous: bool = False) -> str:
    """The text of the DialError."""
    async with open_net(credentials) as net:
        with pytest.raises(DialError) as caught:
            await net.dial(listener.address, anonymous=anonymous, timeout_s=5)
    assert listener.address in str(caught.value)
    return str(caught.value)


async def both(net: WebsocketNet, listener: Listener, anonymous: bool = False) -> tuple[Transport, Transport]:
    near = await net.dial(listener.address, anonymous=anonymous, timeout_s=5)
    return near, await listener.accept()


async def test_what_fails_while_a_port_is_listened_on_is_not_lost() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with served():
            raise LookupError("within")
    assert caught.group_contains(LookupError, match="within")


async def test_both_sides_know_each_other_and_messages_pass_whole() -> None:
    async with served() as (_, listener), open_net(HERE.credentials("w1", PeerRole.WORKER)) as net:
        near, far = await both(net, listener)
        assert (near.peer.role, near.peer.node_id, near.peer.cluster_id) == (PeerRole.MANAGER, "m1", "cluster-a")
        assert (far.peer.role, far.peer.node_id, far.peer.cluster_id) == (PeerRole.WORKER, "w1", "cluster-a")
        assert far.peer.expires_at > 0
        assert near.remote_address == listener.address
        assert far.remote_address.startswith("127.0.0.1:")
        for size in (0, 1, 70_000, 3_000_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send, bytes(size))
                assert await far.receive() == bytes(size)
        await far.send(b"back")
        assert await near.receive() == b"back"
        await near.aclose()
        with pytest.raises(TransportClosed):
            await far.receive()
        with pytest.raises(TransportClosed):
            await far.send(b"late")
        await far.aclose()


async def test_anonymous_peers_get_in_with_and_without_a_root_and_no_trust_in_what_was_not_checked() -> None:
    async with served() as (_, listener):
        async with open_net(None) as net:
            near, far = await both(net, listener, anonymous=True)
            assert near.peer == ANONYMOUS
            assert far.peer == ANONYMOUS
        async with open_net(HERE.root_only()) as net:
            near, far = await both(net, listener, anonymous=True)
            assert near.peer.node_id == "m1"
            assert far.peer == ANONYMOUS
            with pytest.raises(DialError, match="has to join first"):
                await net.dial(listener.address, timeout_s=5)


async def test_a_peer_without_a_certificate_may_send_little() -> None:
    async with served() as (_, listener), open_net(HERE.root_only()) as net:
        near, far = await both(net, listener, anonymous=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send, bytes(ANONYMOUS_MESSAGE_BYTES_MAX + 1))
            with pytest.raises(TransportClosed, match="maximum message size"):
                await far.receive()
        await far.aclose()
        with pytest.raises(TransportClosed, match="maximum message size"):
            await near.receive()
        await near.aclose()


async def test_a_foreign_server_is_refused_by_the_dialler() -> None:
    async with served(ELSEWHERE.credentials("x")) as (_, listener):
        text = await dialled(listener, HERE.credentials("w1", PeerRole.WORKER))
        assert "another cluster" in text
        assert "another cluster" in await dialled(listener, HERE.root_only(), anonymous=True)


async def test_a_worker_cannot_pose_as_a_manager() -> None:
    async with served(HERE.credentials("w2", PeerRole.WORKER)) as (_, listener):
        assert "not a manager's" in await dialled(listener, HERE.credentials("w1", PeerRole.WORKER))


async def test_a_foreign_client_is_refused_and_told_why() -> None:
    foreign = ELSEWHERE.credentials("x")
    trusting = Credentials(foreign.certificate_pem, foreign.key_pem, HERE.root_pem)
    async with served() as (_, listener):
        assert "another cluster" in await dialled(listener, trusting)
        assert isinstance(listener, WebsocketListener)
        with trio.fail_after(5):
            while listener.failed_handshakes != 1:  # a counter has no event
                await trio.sleep(0.01)


async def test_without_the_alert_the_dialler_still_gets_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def close_only(stream: TlsStream) -> None:
        await trio.aclose_forcefully(stream)

    monkeypatch.setattr(websocket, "_send_alert", close_only)
    foreign = ELSEWHERE.credentials("x")
    trusting = Credentials(foreign.certificate_pem, foreign.key_pem, HERE.root_pem)
    async with served() as (_, listener):
        assert "does not take this node's certificate" in await dialled(listener, trusting)


async def test_an_expired_client_is_refused_and_told_why() -> None:
    async with served() as (_, listener):
        assert "has expired" in await dialled(listener, HERE.credentials("w1", PeerRole.WORKER, age_s=2 * DAY_S))


async def test_an_expired_server_is_refused() -> None:
    async with served(HERE.credentials("m1", age_s=2 * DAY_S)) as (_, listener):
        assert "not valid now" in await dialled(listener, HERE.credentials("w1", PeerRole.WORKER))


async def test_dialling_nothing_and_something_else() -> None:
    async with open_net(SERVER) as net:
        async with served() as (_, listener):
            address = listener.address
        with pytest.raises(DialError, match="is swarm running there"):
            await net.dial(address, timeout_s=5)
        with pytest.raises(DialError, match="HOST:PORT"):
            await net.dial("nonsense", timeout_s=5)
        async with trio.open_nursery() as nursery:
            [plain] = await trio.open_tcp_listeners(0, host="127.0.0.1")

            async def answer(stream: trio.SocketStream) -> None:
                await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

            nursery.start_soon(trio.serve_listeners, answer, [plain])
            with pytest.raises(DialError, match="does not speak TLS"):
                await net.dial(TcpAddress(plain), timeout_s=5)
            nursery.cancel_scope.cancel()
        [silent] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        with pytest.raises(DialError, match=r"did not finish the handshake within 0\.2 s"):
            await net.dial(TcpAddress(silent), timeout_s=0.2)
        await silent.aclose()


def TcpAddress(listener: trio.SocketListener) -> str:
    return TcpStreams().local_address(listener)


async def test_a_taken_port_is_named() -> None:
    async with served() as (net, listener):
        with pytest.raises(DialError, match="another program has the port"):
            async with net.listen(listener.address):
                pass


async def test_new_credentials_are_used_from_the_next_connection_on() -> None:
    async with served() as (server, listener), open_net(HERE.credentials("w1", PeerRole.WORKER)) as net:
        _, before = await both(net, listener)
        net.set_credentials(HERE.credentials("w1", PeerRole.MANAGER))
        server.set_credentials(HERE.credentials("m2"))
        near, far = await both(net, listener)
        assert (before.peer.role, far.peer.role) == (PeerRole.WORKER, PeerRole.MANAGER)
        assert near.peer.node_id == "m2"


async def test_closing_on_a_peer_that_does_not_read_is_bounded() -> None:
    async with served() as (_, listener), open_net(HERE.credentials("w1", PeerRole.WORKER)) as net:
        near, _ = await both(net, listener)
        with trio.move_on_after(0.5):
            while True:
                await near.send(bytes(1 << 20))
        with trio.fail_after(CLOSE_S + 2):
            await near.aclose()


async def test_any_websocket_client_is_served_with_pings_fragments_and_closing() -> None:
    async with served() as (_, listener):
        host, port = listener.address.rsplit(":", 1)
        stream = TlsStream(
            await trio.open_tcp_stream(host, int(port)), client_context(HERE.root_only(), anonymous=True)
        )
        await stream.do_handshake()
        async with trio.open_nursery() as nursery:
            client = await trio_websocket.wrap_client_stream(nursery, stream, listener.address, "/swarm/1")  # type: ignore[arg-type]
            far = await listener.accept()
            await client.send_message(b"one")
            assert await far.receive() == b"one"
            async with trio.open_nursery() as reading:
                got: list[bytes] = []

                async def read_two() -> None:
                    got.extend([await far.receive(), await far.receive()])

                reading.start_soon(read_two)
                with trio.fail_after(5):
                    await client.ping(b"are you there")
                frames = FrameProtocol(True, [])
                await stream.send_all(bytes(frames.send_data(b"in ", fin=False)) + bytes(frames.send_data(b"parts")))
                await client.send_message(b"two")
            assert got == [b"in parts", b"two"]
            await far.send(b"three")
            assert await client.get_message() == b"three"
            nursery.start_soon(client.aclose, 1001, "going home")
            with pytest.raises(TransportClosed, match="going home"):
                await far.receive()
            with pytest.raises(TransportClosed, match="going home"):
                await far.send(b"late")
            await far.aclose()
        await trio.aclose_forcefully(stream)


async def test_a_text_message_ends_the_connection_with_the_reason() -> None:
    async with served() as (_, listener):
        host, port = listener.address.rsplit(":", 1)
        stream = TlsStream(
            await trio.open_tcp_stream(host, int(port)), client_context(HERE.root_only(), anonymous=True)
        )
        await stream.do_handshake()
        async with trio.open_nursery() as nursery:
            client = await trio_websocket.wrap_client_stream(nursery, stream, listener.address, "/swarm/1")  # type: ignore[arg-type]
            far = await listener.accept()
            await client.send_message("text")
            with pytest.raises(TransportClosed, match="a text message"):
                await far.receive()
            nursery.start_soon(far.aclose)
            with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                await client.get_message()
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1003
            await client.aclose()
        await trio.aclose_forcefully(stream)


async def test_a_refusal_ends_with_the_answer_of_the_peer_and_not_with_the_time_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket_transport, "CLOSE_S", math.inf)
    async with served() as (_, listener):
        host, port = listener.address.rsplit(":", 1)
        stream = TlsStream(
            await trio.open_tcp_stream(host, int(port)), client_context(HERE.root_only(), anonymous=True)
        )
        await stream.do_handshake()
        async with trio.open_nursery() as nursery:
            client = await trio_websocket.wrap_client_stream(nursery, stream, listener.address, "/swarm/1")  # type: ignore[arg-type]
            far = await listener.accept()
            nursery.start_soon(client.send_message, bytes(3 << 20))
            with pytest.raises(TransportClosed, match="maximum message size"):
                await far.receive()
            with trio.fail_after(30):  # this client, as others, leaves it to the server to close the connection
                await far.aclose()
            with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                await client.get_message()
            assert caught.value.reason is not None and caught.value.reason.code == 1009
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)


async def test_pings_that_come_faster_than_they_are_answered_end_the_connection() -> None:
    async with served() as (_, listener):
        host, port = listener.address.rsplit(":", 1)
        stream = TlsStream(
            await trio.open_tcp_stream(host, int(port)), client_context(HERE.root_only(), anonymous=True)
        )
        await stream.do_handshake()
        async with trio.open_nursery() as nursery:
            await trio_websocket.wrap_client_stream(nursery, stream, listener.address, "/swarm/1")  # type: ignore[arg-type]
            far = await listener.accept()
            nursery.start_soon(stream.send, bytes(FrameProtocol(True, []).ping(bytes(125))) * 20_000)
            with trio.fail_after(10), pytest.raises(TransportClosed, match="pings"):
                await far.receive()
            nursery.cancel_scope.cancel()
        await far.aclose()
        await trio.aclose_forcefully(stream)


async def test_messages_that_come_with_the_head_of_the_handshake_are_not_lost() -> None:
    for is_client in (True, False):
        status = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
        head = status if is_client else b"GET /swarm/1 HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
        whole = head + b"frames"
        for cut, unread in ((1, b"frames"), (len(head) - 2, b"frames"), (len(head), b""), (len(head) + 3, b"fra")):
            side = LibrarySide(Pieces([whole[:cut], whole[cut:]]), is_client=is_client)  # type: ignore[arg-type]
            given = b""
            while len(given) < len(head):
                given += await side.receive_some()
            assert given == head
            assert side.unread == unread
            assert not side.is_handed_back
    refused = LibrarySide(Pieces([b"HTTP/1.1 404 Not Found\r\n\r\nbo", b"dy"]), is_client=True)  # type: ignore[arg-type]
    assert await refused.receive_some() == b"HTTP/1.1 404 Not Found\r\n\r\nbo"
    assert await refused.receive_some() == b"dy"


class Pieces:
    """A stream of which only reading is asked."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._pieces.pop(0)
