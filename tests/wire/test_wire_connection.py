"""What is offered promptly leaves in the turn that it was offered in, and nothing is lost or overtaken when it cannot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from swarm.ca.identity import LOCAL, Peer
from swarm.ports.net import PromptTransport, TransportClosed
from swarm.wire.connection import Connection
from swarm.wire.frames import HELLO, OPEN, VERSION, Frame, decode_batch, encode_batch
from swarm.wire.mux import LIMITS


class Wire:
    """A prompt transport whose kernel takes as many messages as it is told to."""

    peer: Peer = LOCAL
    remote_address = "there"

    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.takes = 1000
        self.broken = False
        self._held: list[Frame] = []
        self._let = trio.Event()
        self._arriving, self._arrived = trio.open_memory_channel[bytes](10)

    def begin(self, data: bytes) -> bool:
        """Send, or hold."""
        if self.broken:
            raise TransportClosed("broken")
        if not self.takes:
            self._held += decode_batch(data)
            return False
        self.takes -= 1
        self.sent += decode_batch(data)
        return True

    async def finish(self) -> None:
        """Wait until the kernel takes more."""
        if self.broken:
            raise TransportClosed("broken")
        await self._let.wait()
        self.sent += self._held
        self._held = []

    async def send(self, data: bytes) -> None:
        """As the real one."""
        if not self.begin(data):
            await self.finish()

    async def receive(self) -> bytes:
        """What the test says."""
        return await self._arrived.receive()

    async def aclose(self) -> None:
        """Nothing to close."""

    def let(self) -> None:
        """The kernel takes everything again."""
        self.takes = 1000
        self._let.set()

    async def greet(self) -> None:
        """The peer's Hello."""
        await self._arriving.send(encode_batch([(HELLO, VERSION, "session", "control")]))
        await trio.testing.wait_all_tasks_blocked()

    def bodies(self) -> list[bytes]:
        """Of the calls that were sent."""
        return [frame[4] for frame in self.sent if frame[0] == OPEN]


def connection() -> Connection:
    link: Any = SimpleNamespace(session="session", gone=lambda why="": AssertionError(why))
    return Connection(link, "control", dialler=True, limits=LIMITS)


async def test_a_prompt_offer_has_left_when_the_call_returns_and_takes_along_what_waited() -> None:
    wire, here = Wire(), connection()
    assert isinstance(wire, PromptTransport)
    async with trio.open_nursery() as nursery:
        here.offer("tag", b"before there was a transport", prompt=True)
        nursery.start_soon(here.run, wire)
        await wire.greet()
        assert wire.bodies() == [b"before there was a transport"]
        here.offer("tag", b"now", prompt=True)
        assert wire.bodies()[1:] == [b"now"]
        wire.sent.clear()
        here.offer("tag", b"later", prompt=False)
        assert wire.bodies() == []
        here.offer("tag", b"with it", prompt=True)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.bodies() == [b"later", b"with it"]
        nursery.cancel_scope.cancel()


async def test_what_the_kernel_does_not_take_is_finished_by_the_writer_before_anything_else_is_sent() -> None:
    wire, here = Wire(), connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run, wire)
        await wire.greet()
        wire.takes = 0
        here.offer("tag", b"one", prompt=True)
        await trio.testing.wait_all_tasks_blocked()
        wire.takes = 1000
        here.offer("tag", b"two", prompt=True)
        here.offer("tag", b"three", prompt=True)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.bodies() == []
        wire.let()
        await trio.testing.wait_all_tasks_blocked()
        assert wire.bodies() == [b"one", b"two", b"three"]
        nursery.cancel_scope.cancel()


async def test_a_connection_that_is_gone_does_not_fail_the_one_who_offers(autojump_clock: object) -> None:
    wire, here = Wire(), connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run, wire)
        await wire.greet()
        wire.broken = True
        here.offer("tag", b"into the void", prompt=True)
    assert here.mux.over
