"""Trio's private hook does what the simulator counts on: one seed, one order."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from swarm.testing.deterministic import PROCESS, continue_process, run_seeded, stop_process


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


async def abortion(*, by_deadline: bool) -> list[int]:
    """In which order the abort functions of parked tasks are called: by one cancel, or by deadlines that are all the same."""
    order: list[int] = []

    async def parked(number: int) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            order.append(number)
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.CancelScope(deadline=9.0 if by_deadline else float("inf")):
            await trio.lowlevel.wait_task_rescheduled(abort)

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(parked, number)
        await trio.sleep(1)
        if not by_deadline:
            nursery.cancel_scope.cancel()
    return order


@pytest.mark.parametrize("by_deadline", [False, True])
def test_what_is_cancelled_together_is_cancelled_in_the_same_order(by_deadline: bool) -> None:
    """Seed 20250 had one of two hashes: trio cancels from sets, and an abort function woke the writer of a connection."""
    keep: list[object] = []  # other objects between the runs, so that addresses differ
    orders = []
    for number in range(5):
        orders.append(run_seeded("a", partial(abortion, by_deadline=by_deadline)))
        keep.append([object() for _ in range(number * 997)])
    assert len(orders[0]) == 100
    assert all(order == orders[0] for order in orders)


def test_a_stopped_process_takes_no_step_and_finds_its_deadlines_passed() -> None:
    async def story() -> list[str]:
        seen: list[str] = []

        async def process() -> None:
            PROCESS.set("p")
            while True:
                with trio.move_on_after(1.0) as scope:
                    await trio.sleep_forever()
                assert scope.cancelled_caught
                seen.append(f"tick {trio.current_time() - began:g}")

        async def other() -> None:
            await trio.sleep(3.0)
            seen.append("other")

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process)
            nursery.start_soon(other)
            await trio.sleep(1.5)
            stop_process("p")
            await trio.sleep(10.0)
            continue_process("p")
            continue_process("nobody")
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        return seen

    assert run_seeded("a", story) == ["tick 1", "other", "tick 11.5"]


def test_the_hook_is_left_as_it_was() -> None:
    from trio._core import _run

    before, state = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()
    run_seeded("a", race)
    assert _run._ALLOW_DETERMINISTIC_SCHEDULING is before
    assert _run._r.getstate() == state
