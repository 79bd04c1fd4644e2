"""The test kit's ref behaves as a ref."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from attrs import frozen

from swarm.runtime import ActorDied, AskTimeout, ErrorCode, Message, Ref, Request, Subscribe, SwarmError
from swarm.testing.probe import ProbeRef


@frozen
class Note(Message):
    text: str


@frozen
class Double(Request[int]):
    value: int


@frozen
class Numbers(Subscribe[int]):
    pass


async def test_it_keeps_answers_refuses_and_dies(autojump_clock: Any) -> None:
    probe = ProbeRef()
    ref: Ref = probe
    assert ref.offer(Note("a"))
    await ref.tell(Note("b"))
    assert probe.sent == [Note("a"), Note("b")]
    with pytest.raises(AskTimeout):
        await ref.ask(Double(1), timeout_s=2)
    probe.answers[Double] = lambda request: request.value * 2
    assert await ref.ask(Double(2), timeout_s=2) == 4
    probe.refuse(Double, ErrorCode.DENIED, "no")
    with pytest.raises(SwarmError, match="no"):
        await ref.ask(Double(2), timeout_s=2)
    async with ref.stream(Numbers()) as inlet:
        probe.pipes[0].offer(7)
        assert await inlet.receive() == 7
        probe.die("gone")
        with pytest.raises(ActorDied):
            await inlet.receive()
    assert not ref.offer(Note("c"))
    with pytest.raises(ActorDied, match="gone"):
        await ref.tell(Note("c"))


async def test_a_tell_waits_while_it_is_full(autojump_clock: Any) -> None:
    probe = ProbeRef(full=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe.tell, Note("late"))
        await trio.sleep(1)
        assert not probe.offer(Note("x")) and probe.sent == []
        probe.set_full(False)
        assert await probe.next(Note) == Note("late")
