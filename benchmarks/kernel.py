"""How much does the kernel cost over bare trio channels? Messages per second, told and asked, on one node.

`python -m benchmarks.kernel`: each round measures the bare thing and ours in the same run; median and worst (p99) of the
rounds, and the ratio of the medians. Nothing is random.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable

import trio
from attrs import frozen

from swarm.runtime import Actor, Message, Request, Turn, on, open_scope

TELLS = 50_000
ASKS = 10_000
ROUNDS = 15
CAPACITY = 1024


@frozen
class Add(Message):
    """One more."""

    value: int


@frozen
class Total(Request[int]):
    """The sum so far."""

    value: int


class Adder(Actor):
    """Adds."""

    mailbox_capacity = CAPACITY

    def __init__(self) -> None:
        self.total = 0
        self.count = 0

    @on(Add)
    def add(self, message: Add, turn: Turn[None]) -> None:
        """Adds."""
        self.total += message.value
        self.count += 1

    @on(Total)
    def answer(self, request: Total, turn: Turn[int]) -> int:
        """The sum."""
        self.total += request.value
        return self.total


async def bare_tells() -> None:
    """The bare thing for tells: one memory channel."""
    send, receive = trio.open_memory_channel[Add](CAPACITY)
    total = 0

    async def reader() -> None:
        nonlocal total
        async for message in receive:
            total += message.value

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        async with send:
            for number in range(TELLS):
                await send.send(Add(number))


async def tells() -> None:
    """Tells, waited for by one ask at the end (FIFO)."""
    async with open_scope("bench") as scope:
        ref = await scope.start("adder", Adder)
        for number in range(TELLS):
            await ref.tell(Add(number))
        await ref.ask(Total(0), timeout_s=60.0)


async def bare_asks() -> None:
    """The bare thing for asks: a request and an answer channel."""
    send, requests = trio.open_memory_channel[Total](1)
    answer, answers = trio.open_memory_channel[int](1)

    async def server() -> None:
        total = 0
        async for request in requests:
            total += request.value
            await answer.send(total)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server)
        async with send:
            for number in range(ASKS):
                await send.send(Total(number))
                await answers.receive()


async def asks() -> None:
    """Asks, one after the other."""
    async with open_scope("bench") as scope:
        ref = await scope.start("adder", Adder)
        for number in range(ASKS):
            await ref.ask(Total(number), timeout_s=60.0)


async def rate(function: Callable[[], Awaitable[None]], count: int) -> float:
    """Messages per second of one round."""
    gc.collect()
    began = time.perf_counter()
    await function()
    return count / (time.perf_counter() - began)


async def compare(
    what: str, bare: Callable[[], Awaitable[None]], ours: Callable[[], Awaitable[None]], count: int
) -> None:
    """Print both rates and the ratio."""
    await bare()
    await ours()
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(ROUNDS):
        rates["bare"].append(await rate(bare, count))
        rates["ours"].append(await rate(ours, count))
    medians = {}
    for name, values in rates.items():
        values.sort()
        medians[name] = values[len(values) // 2]
        worst = values[max(0, round(len(values) * 0.01) - 1)]
        print(f"{what:6} {name:5} median {medians[name]:>10,.0f}/s  p99 {worst:>10,.0f}/s")
    print(f"{what:6} ratio {medians['ours'] / medians['bare']:.2f}")


async def main() -> None:
    """All comparisons."""
    await compare("tells", bare_tells, tells, TELLS)
    await compare("asks", bare_asks, asks, ASKS)


if __name__ == "__main__":
    trio.run(main)
