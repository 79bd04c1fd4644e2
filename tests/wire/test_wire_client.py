"""The unix socket: the gateway, the blocking client, and what a user is told when there is no daemon."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from nodes import Node, open_node

from swarm.actors.gateway import Gateway
from swarm.ca.identity import PeerRole
from swarm.model.ids import Instant, NodeId
from swarm.ports.net import DialError
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import AskTimeout, ErrorCode, SwarmError
from swarm.runtime.turn import Later, StreamTurn, Turn
from swarm.testing.net import MemoryNetwork
from swarm.wire import client as client_module
from swarm.wire import frames as f
from swarm.wire.client import LocalClient, NoDaemon
from swarm.wire.messages.control import ListServices
from swarm.wire.messages.node import GetNodeStatus, LeaveCluster, LeaveProgress, NodeStatusView, StopNode
from swarm.wire.messages.raft import LeaveRaft

pytestmark = pytest.mark.integration


class NodeActor(Actor):
    """Answers for the node."""

    def __init__(self) -> None:
        self.callers: list[Any] = []
        self.kept: list[Later[NodeStatusView]] = []
        self.gone = trio.Event()
        self.keep = False
        self.pause_s = 0.0

    @on(GetNodeStatus)
    def status(self, request: GetNodeStatus, turn: Turn[NodeStatusView]) -> NodeStatusView:
        self.callers.append(turn.caller)
        if self.keep:
            later = turn.defer()
            later.on_cancel(self.gone.set)
            self.kept.append(later)
        return NodeStatusView(
            "1", NodeId("n"), "c", "host", "manager", "ready", 1, "/s", "l", "a", ("m",), ("process",), Instant(0), 3
        )

    @on(StopNode)
    def stop(self, request: StopNode, turn: Turn[None]) -> None:
        raise SwarmError(ErrorCode.PRECONDITION, "not now", {"why": "test"})

    @on(LeaveCluster)
    def leave(self, request: LeaveCluster, turn: StreamTurn[LeaveProgress]) -> None:
        turn.sink.on_close(self.gone.set)
        self.job(self._leave, turn.sink, 200)

    async def _leave(self, sink: Any, count: int) -> None:
        try:
            await trio.sleep(self.pause_s)
            for number in range(count):
                await sink.send(LeaveProgress(str(number)))
            sink.close()
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def daemon(path: str) -> AsyncIterator[tuple[Node, NodeActor]]:
    async with open_node(MemoryNetwork(), "m1", PeerRole.MANAGER) as node:
        actor = NodeActor()
        await node.start("node", actor)
        await node.scope.start("gateway", lambda: Gateway(path, node.links))
        yield node, actor


async def blocking(function: Any, *arguments: Any, **options: Any) -> Any:
    return await trio.to_thread.run_sync(partial(function, *arguments, **options), abandon_on_cancel=True)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "swarm.sock")


async def test_asks_and_streams_of_an_operator(path: str) -> None:
    async with daemon(path) as (node, actor):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with LocalClient(path) as client:
            status = await blocking(client.ask, GetNodeStatus(), timeout_s=5)
            assert status.tasks_running == 3
            assert actor.callers[0].role == "local"
            items = await blocking(lambda: [item.text for item in client.stream(LeaveCluster(), window=5)])
            assert items == [str(number) for number in range(200)]
            with pytest.raises(SwarmError) as caught:
                await blocking(client.ask, StopNode(), timeout_s=5)
            assert (caught.value.code, caught.value.details) == (ErrorCode.PRECONDITION, {"why": "test"})
            with pytest.raises(SwarmError) as caught:
                await blocking(client.ask, LeaveRaft(1), timeout_s=5)  # type: ignore[arg-type]
            assert caught.value.code is ErrorCode.DENIED
            with pytest.raises(SwarmError) as caught:
                await blocking(client.ask, ListServices(), timeout_s=5)
            assert caught.value.code is ErrorCode.NOT_LEADER
        assert len(node.links.all) <= 1
    assert not os.path.exists(path)  # noqa: ASYNC240


async def test_several_commands_are_served_side_by_side(path: str) -> None:
    """A bug once: all clients named one session, and the second was told that it has a connection already."""
    async with daemon(path) as (_, actor):
        actor.keep = True
        with LocalClient(path) as first, LocalClient(path) as second:
            async with trio.open_nursery() as nursery:
                for client in (first, second):
                    nursery.start_soon(partial(blocking, client.ask, GetNodeStatus(), timeout_s=5))
                while len(actor.kept) < 2:
                    await trio.sleep(0.01)
                for later in actor.kept:
                    later.fail(SwarmError(ErrorCode.PRECONDITION, "enough"))
                nursery.cancel_scope.cancel()


async def test_a_late_answer_is_a_timeout_and_the_next_call_works(path: str) -> None:
    async with daemon(path) as (_, actor):
        actor.keep = True
        with LocalClient(path) as client:
            with pytest.raises(AskTimeout, match=r"within 0\.1 s"):
                await blocking(client.ask, GetNodeStatus(), timeout_s=0.1)
            with trio.fail_after(5):
                await actor.gone.wait()
            actor.keep = False
            actor.kept[0].answer("late")  # type: ignore[arg-type]
            assert (await blocking(client.ask, GetNodeStatus(), timeout_s=5)).hostname == "host"


async def test_a_goodbye_behind_the_last_answer_does_not_meet_the_next_call(path: str) -> None:
    """A bug once: the daemon stopped between two calls of a client, and the second raised an error of the multiplexer."""
    async with daemon(path) as (_, actor):
        with LocalClient(path) as client:
            await blocking(client.ask, GetNodeStatus(), timeout_s=5)
            client._mux.receive([(f.GO_AWAY, "the daemon is stopping")])
            assert (await blocking(client.ask, GetNodeStatus(), timeout_s=5)).hostname == "host"
            assert len(actor.callers) == 2


async def test_closing_the_iterator_ends_the_stream(path: str) -> None:
    async with daemon(path) as (_, actor):
        with LocalClient(path) as client:

            def first() -> str:
                stream = client.stream(LeaveCluster(), window=5)
                text = next(stream).text
                stream.close()  # type: ignore[attr-defined]
                return text

            assert await blocking(first) == "0"
            with trio.fail_after(5):
                await actor.gone.wait()
            assert (await blocking(client.ask, GetNodeStatus(), timeout_s=5)).hostname == "host"


async def test_who_waits_on_a_stream_hears_that_nothing_comes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "IDLE_S", 0.01)
    idle: list[str] = []

    def read(client: LocalClient) -> list[str]:
        stream = client.stream(LeaveCluster(), idle=lambda: idle.append(""))
        return [item.text for item in stream]

    async with daemon(path) as (_node, actor):
        actor.pause_s = 0.2
        with LocalClient(path) as client:
            assert await blocking(read, client) == [str(number) for number in range(200)]
    assert idle


async def test_a_client_that_goes_away_is_noticed(path: str) -> None:
    async with daemon(path) as (_, actor):
        actor.keep = True
        with LocalClient(path) as client, pytest.raises(AskTimeout):
            await blocking(client.ask, GetNodeStatus(), timeout_s=0.1)
        with trio.fail_after(5):
            await actor.gone.wait()


async def test_a_daemon_that_stops_says_so(path: str) -> None:
    with LocalClient(path) as client:
        async with daemon(path) as (node, _):
            await blocking(client.ask, GetNodeStatus(), timeout_s=5)
            node.links.close_where(lambda link: True, "this node is stopping")
            await trio.sleep(0.05)
            with pytest.raises(SwarmError, match="ended the connection: this node is stopping"):
                await blocking(client.ask, GetNodeStatus(), timeout_s=5)
        with pytest.raises(NoDaemon):
            await blocking(client.ask, GetNodeStatus(), timeout_s=5)


def test_without_a_daemon_the_user_is_told_what_to_do(path: str) -> None:
    with pytest.raises(NoDaemon, match=r"no such socket.*swarm up"):
        LocalClient(path).ask(GetNodeStatus(), timeout_s=1)
    left = socket.socket(socket.AF_UNIX)
    left.bind(path)
    left.close()
    with pytest.raises(NoDaemon, match="not running any more"):
        LocalClient(path).ask(GetNodeStatus(), timeout_s=1)
    with pytest.raises(NoDaemon):
        LocalClient("/" + "x" * 200).ask(GetNodeStatus(), timeout_s=1)


def test_something_else_at_the_socket_is_no_daemon(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        client = LocalClient(path)
        client._connect()
        peer, _ = other.accept()
        with peer:
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n")
            with pytest.raises(SwarmError, match="no swarm daemon"):
                client.ask(GetNodeStatus(), timeout_s=1)


async def test_a_stale_socket_is_replaced_and_a_living_one_is_not(path: str) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(path)
    left.close()
    async with daemon(path) as (node, _):
        with pytest.raises(DialError, match="another swarm daemon answers"):
            await node.scope.start("second", lambda: Gateway(path, node.links))
    Path(path).write_text("precious")  # noqa: ASYNC240
    async with open_node(MemoryNetwork(), "m1", PeerRole.MANAGER) as node:
        with pytest.raises(DialError, match="a file that is no socket"):
            await node.scope.start("gateway", lambda: Gateway(path, node.links))
        with pytest.raises(DialError, match="longer than"):
            await node.scope.start("gateway", lambda: Gateway(path + "x" * 100, node.links))
    assert Path(path).read_text() == "precious"  # noqa: ASYNC240


async def test_torn_and_oversized_messages_end_their_connection_only(path: str) -> None:
    async with daemon(path) as (_, _):
        for junk in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x05hello", b"\x00"):
            stream = await trio.open_unix_socket(path)
            await stream.send_all(junk)
            await stream.send_eof()
            with trio.fail_after(5):
                while await stream.receive_some():
                    pass
            await stream.aclose()
        hello = f.encode_batch([f.Hello(f.HELLO, 1, "s", "calls")])
        stream = await trio.open_unix_socket(path)
        await stream.send_all(len(hello).to_bytes(4, "big") + hello)
        assert b"no lane 'calls' for the local socket" in await stream.receive_some()
        await stream.aclose()
        with LocalClient(path) as client:
            assert (await blocking(client.ask, GetNodeStatus(), timeout_s=5)).hostname == "host"


def test_the_client_loads_neither_trio_nor_cryptography() -> None:
    code = (
        "import sys, swarm.wire.client, swarm.wire.messages.control as c;"
        "from swarm.wire.codec import declaration, encode_message;"
        "m = c.ListServices(); encode_message(declaration(m), m);"
        "print([n for n in ('trio', 'cryptography', 'ssl', 'docker', 'sqlite3') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
