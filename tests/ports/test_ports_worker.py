"""A thread of one's own: order, errors, cancellation, and an end."""

from __future__ import annotations

import gc
import threading

import outcome
import pytest
import trio

from swarm.ports.worker import Worker


def threads() -> int:
    return sum(thread.name == "bench" for thread in threading.enumerate())


async def ended() -> None:
    with trio.fail_after(5):
        while threads():
            await trio.to_thread.run_sync(lambda: None)


async def test_work_is_done_in_order_in_one_thread() -> None:
    worker, order, idents = Worker("bench"), [], set()

    def piece(number: int) -> int:
        order.append(number)
        idents.add(threading.get_ident())
        return number

    async def ask(number: int) -> None:
        assert await worker.run(lambda: piece(number)) == number

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert sorted(order) == list(range(20)) and len(idents) == 1
    assert threading.get_ident() not in idents and worker.is_idle
    worker.end()
    await ended()
    assert await worker.run(lambda: 1) == 1, "more work starts another thread"
    worker.end()
    worker.end()
    await ended()


async def test_what_work_raises_is_raised() -> None:
    worker = Worker("bench")
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 2) == 2
    worker.end()


async def test_a_piece_that_has_begun_is_waited_for_and_one_that_has_not_is_not_begun() -> None:
    worker, begun, go = Worker("bench"), threading.Event(), threading.Event()
    done: list[str] = []

    def slow() -> None:
        begun.set()
        go.wait()
        done.append("slow")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, slow)
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
        assert not worker.is_idle
        go.set()
    assert done == ["slow"]
    with trio.CancelScope() as scope:
        scope.cancel()
        await worker.run(lambda: done.append("never"))
    assert done == ["slow"] and worker.is_idle
    worker.end()


async def test_what_was_begun_is_waited_for_though_cancelled() -> None:
    begun, go = threading.Event(), threading.Event()
    worker, told = Worker("bench"), []
    await worker.landed()
    worker.begin(lambda: (begun.set(), go.wait()), told.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.landed)
        nursery.start_soon(worker.landed)
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
        assert not told
        go.set()
    assert len(told) == 1 and worker.is_idle
    worker.end()


async def test_the_thread_ends_with_its_owner() -> None:
    worker = Worker("bench")
    await worker.run(lambda: None)
    assert threads() == 1
    del worker
    gc.collect()
    await ended()


def test_work_that_outlives_the_loop_troubles_nobody() -> None:
    begun, go = threading.Event(), threading.Event()
    worker = Worker("bench")

    async def abandon() -> None:
        async def ask() -> None:
            await worker.run(lambda: (begun.set(), go.wait()))

        trio.lowlevel.spawn_system_task(ask)
        await trio.to_thread.run_sync(begun.wait)
        threading.Timer(0.05, go.set).start()

    trio.run(abandon)
    worker.end()


async def test_what_was_begun_tells_its_outcome_without_a_task_that_waits() -> None:
    worker, results, told = Worker("bench"), [], trio.Event()

    def done(result: outcome.Outcome[object]) -> None:
        results.append(result)
        if len(results) == 2:
            told.set()

    worker.begin(lambda: 1, done)
    worker.begin(lambda: 1 // 0, done)
    assert not worker.is_idle and not results
    assert await worker.run(lambda: 3) == 3, "in line behind them"
    await told.wait()
    assert worker.is_idle
    assert results[0].unwrap() == 1
    with pytest.raises(ZeroDivisionError):
        results[1].unwrap()
    worker.end()
