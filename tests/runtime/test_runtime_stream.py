"""Subscriptions: windows, ends from either side, overrun, death of the actor."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from attrs import frozen

from swarm.runtime import (
    Actor,
    ActorDied,
    AskTimeout,
    ErrorCode,
    Message,
    Request,
    Restart,
    Sink,
    StreamTurn,
    Subscribe,
    SwarmError,
    Turn,
    WouldDeadlock,
    on,
    open_scope,
)


@frozen
class Watch(Subscribe[int]):
    pass


@frozen
class Refused(Subscribe[int]):
    pass


@frozen
class Count(Subscribe[int]):
    to: int


@frozen
class Emit(Request[bool]):
    value: int


@frozen
class End(Message):
    pass


@frozen
class Overrun(Message):
    pass


@frozen
class Crash(Message):
    pass


class Source(Actor):
    def __init__(self) -> None:
        self.sinks: list[Sink[int]] = []
        self.left = 0

    @on(Watch)
    def watch(self, request: Watch, turn: StreamTurn[int]) -> None:
        self.sinks.append(turn.sink)
        turn.sink.on_close(self.one_left)

    def one_left(self) -> None:
        self.left += 1

    @on(Refused)
    def refused(self, request: Refused, turn: StreamTurn[int]) -> None:
        raise SwarmError(ErrorCode.DENIED, "not you")

    @on(Count)
    def count(self, request: Count, turn: StreamTurn[int]) -> None:
        self.job(self.send_all, turn.sink, request.to)

    async def send_all(self, sink: Sink[int], to: int) -> None:
        try:
            for number in range(to):
                await sink.send(number)
        except trio.BrokenResourceError:
            self.left += 1
        sink.close()

    @on(Emit)
    def emit(self, request: Emit, turn: Turn[bool]) -> bool:
        return all(sink.offer(request.value) for sink in self.sinks)

    @on(End)
    def end(self, message: End, turn: Turn[None]) -> None:
        for sink in self.sinks:
            sink.close()

    @on(Overrun)
    def overrun(self, message: Overrun, turn: Turn[None]) -> None:
        for sink in self.sinks:
            sink.fail(SwarmError(ErrorCode.OVERRUN, "too slow"))

    @on(Crash)
    def crash(self, message: Crash, turn: Turn[None]) -> None:
        raise RuntimeError("a bug")


async def test_items_come_in_order_until_the_actor_closes() -> None:
    async with open_scope("s") as scope:
        source = Source()
        ref = await scope.start("source", lambda: source)
        async with ref.stream(Watch()) as inlet:
            for value in range(3):
                assert await ref.ask(Emit(value), timeout_s=1)
            await ref.tell(End())
            assert [item async for item in inlet] == [0, 1, 2]
            with pytest.raises(trio.EndOfChannel):
                await inlet.receive()
        assert source.left == 0


async def test_a_full_window_refuses_and_the_overrun_comes_after_what_was_sent() -> None:
    async with open_scope("s") as scope:
        ref = await scope.start("source", Source)
        async with ref.stream(Watch(), window=2) as inlet:
            assert await ref.ask(Emit(1), timeout_s=1)
            assert await ref.ask(Emit(2), timeout_s=1)
            assert not await ref.ask(Emit(3), timeout_s=1)
            await ref.tell(Overrun())
            assert [await inlet.receive(), await inlet.receive()] == [1, 2]
            with pytest.raises(SwarmError) as overrun:
                await inlet.receive()
            assert overrun.value.code is ErrorCode.OVERRUN
            with pytest.raises(SwarmError):
                await inlet.receive()


async def test_a_sender_waits_for_the_reader(autojump_clock: Any) -> None:
    async with open_scope("s") as scope:
        ref = await scope.start("source", Source)
        got = []
        async with ref.stream(Count(20), window=3) as inlet:
            async for item in inlet:
                await trio.sleep(0.1)
                got.append(item)
        assert got == list(range(20))


async def test_the_reader_may_leave_first() -> None:
    async with open_scope("s") as scope:
        source = Source()
        ref = await scope.start("source", lambda: source)
        async with ref.stream(Count(20), window=3) as inlet:
            assert await inlet.receive() == 0
        await trio.testing.wait_all_tasks_blocked()
        assert source.left == 1
        async with ref.stream(Watch()):
            await ref.ask(Emit(1), timeout_s=1)
        assert source.left == 2
        assert source.sinks[0].closed
        assert not source.sinks[0].offer(5)


async def test_a_refused_subscription_fails_at_the_first_item() -> None:
    async with open_scope("s") as scope:
        ref = await scope.start("source", Source, restart=Restart.NEVER)
        async with ref.stream(Refused()) as inlet:
            with pytest.raises(SwarmError, match="not you"):
                await inlet.receive()
        with pytest.raises(SwarmError, match="takes no End"):
            async with ref.stream(End()):  # type: ignore[arg-type,var-annotated]
                pass


async def test_streams_of_an_actor_that_dies_fail_at_once(autojump_clock: Any) -> None:
    async with open_scope("s") as scope:
        ref = await scope.start("source", Source)
        async with ref.stream(Watch()) as inlet, ref.stream(Count(100), window=2) as second:
            await ref.ask(Emit(7), timeout_s=1)
            await ref.tell(Crash())
            assert await inlet.receive() == 7
            with pytest.raises(ActorDied, match="s/source crashed"):
                await inlet.receive()
            with pytest.raises(ActorDied):
                while True:
                    await second.receive()
                    await trio.sleep(0.1)
        async with ref.stream(Watch()) as inlet:
            await scope.end(ref, "over")
            with pytest.raises(ActorDied):
                await inlet.receive()
        with pytest.raises(ActorDied, match="over"):
            async with ref.stream(Watch()):
                pass


async def test_a_waiting_reader_can_be_cancelled(autojump_clock: Any) -> None:
    async with open_scope("s") as scope:
        ref = await scope.start("source", Source)
        async with ref.stream(Watch()) as inlet:
            with trio.move_on_after(1) as patience:
                await inlet.receive()
            assert patience.cancelled_caught
            assert await ref.ask(Emit(4), timeout_s=1)
            assert await inlet.receive() == 4


@frozen
class SubscribeToMyself(Request[int]):
    pass


async def test_a_turn_cannot_subscribe_to_its_own_actor(autojump_clock: Any) -> None:
    class Selfish(Source):
        @on(SubscribeToMyself)
        async def selfish(self, request: SubscribeToMyself, turn: Turn[int]) -> int:
            async with self.ref.stream(Watch()) as inlet:
                return await inlet.receive()

    async with open_scope("s") as scope:
        ref = await scope.start("source", Selfish)
        with pytest.raises(WouldDeadlock):
            await ref.ask(SubscribeToMyself(), timeout_s=1)
        with pytest.raises(AskTimeout):
            await ref.ask(SubscribeToMyself(), timeout_s=0)
