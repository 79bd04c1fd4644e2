"""Long answers of the engine: who ends one leaves no connection behind, whenever it happens. A real engine."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable

import pytest
import trio
from test_executors_docker import DockerHarness

from swarm.executors.base import ExecutorError
from swarm.executors.docker.engine import Engine
from swarm.executors.docker.events import Changes, EventStream
from swarm.executors.docker.streams import LongAnswer
from swarm.model.ids import NodeId, TaskId

pytestmark = pytest.mark.docker

EVENTS = "/events"


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch, busybox_image: str) -> list[socket.socket]:
    """Every socket that is connected from now on."""
    made: list[socket.socket] = []
    connect = socket.socket.connect

    def remember(this: socket.socket, address: str) -> None:
        made.append(this)
        connect(this, address)

    monkeypatch.setattr(socket.socket, "connect", remember)
    return made


@pytest.fixture
def engine(busybox_image: str) -> Engine:
    return Engine(os.environ)


def half_closed(sockets: list[socket.socket]) -> list[socket.socket]:
    """Those that were closed, but whose descriptor an unfinished answer keeps open."""
    assert sockets
    return [each for each in sockets if "[closed]" in repr(each) and each.fileno() != -1]


def test_reader_who_fails_closes_the_connection(engine: Engine, sockets: list[socket.socket]) -> None:
    api = engine.api
    before = len(sockets)
    with pytest.raises(RuntimeError, match="planted"), LongAnswer().reading(api, EVENTS, {}):
        raise RuntimeError("planted")
    assert [each.fileno() for each in sockets[before:]] in ([], [-1])  # [] when the pool's first one was taken


@pytest.mark.parametrize("ended_first", [True, False])
def test_answer_is_ended_from_another_thread(engine: Engine, sockets: list[socket.socket], ended_first: bool) -> None:
    answer = LongAnswer()
    is_open = threading.Event()
    outcome: list[str] = []

    def read() -> None:
        with answer.reading(engine.api, EVENTS, {}) as response:
            is_open.set()
            try:
                outcome.append(f"read {list(response.iter_content(chunk_size=None))}")
            except OSError as error:  # what requests raises for an answer that is cut off
                outcome.append(type(error).__name__)

    if ended_first:
        answer.end()
    reader = threading.Thread(target=read)
    reader.start()
    assert is_open.wait(20)
    answer.end()
    reader.join(20)
    assert not reader.is_alive()
    assert len(outcome) == 1
    assert not half_closed(sockets)
    answer.end()


def test_refusal_in_words(engine: Engine, sockets: list[socket.socket]) -> None:
    answer = LongAnswer().reading(engine.api, "/containers/no-such-one/logs", {"stdout": True})
    with pytest.raises(ExecutorError, match=r"/containers/no-such-one/logs: 404"), answer:
        raise AssertionError("there is nothing to read")
    assert not half_closed(sockets)


async def test_events_that_nobody_can_take_leave_no_connection(
    busybox_image: str, sockets: list[socket.socket]
) -> None:
    """As when a container's end is told in the moment in which the executor stops."""

    class Stopping(Changes):
        def notify_all_but(self, running: Iterable[TaskId]) -> None:
            raise RuntimeError("planted")

    harness = DockerHarness(busybox_image)
    stream = EventStream(harness.engine, NodeId(harness.node_id), Stopping())
    with trio.fail_after(30), pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="planted")):
        await stream.run()
    assert not half_closed(sockets)
