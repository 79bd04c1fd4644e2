"""Trio's private hook does what the simulator counts on: one seed, one order."""

from __future__ import annotations

import trio

from swarm.testing.deterministic import run_seeded


async def race() -> tuple[list[int], float]:
    order: list[int] = []

    async def runner(number: int) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        await trio.sleep(3600)
        order.append(number)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(runner, number)
    return order, trio.current_time() - began


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    first, took = run_seeded("a", race)
    assert (first, took) == run_seeded("a", race)
    others = {tuple(run_seeded(seed, race)[0]) for seed in "bcdefgh"}
    assert len(others | {tuple(first)}) > 4, "the order does not depend on the seed: trio's private hook has changed"
    assert took == 3600, "virtual time"


def test_the_hook_is_left_as_it_was() -> None:
    from trio._core import _run

    before, state = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()
    run_seeded("a", race)
    assert _run._ALLOW_DETERMINISTIC_SCHEDULING is before
    assert _run._r.getstate() == state
