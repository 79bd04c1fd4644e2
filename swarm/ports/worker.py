"""A thread of one's own for work that waits on a disk, one piece after the other, in order.

One idea: trio's general thread cache hands each piece of work to any thread, names it, copies contexts and asks a limiter, which
costs 180 us of processor time a piece. A thread that belongs to one owner needs a queue and a wake-up: 45 us (both measured
with an empty piece on two busy cores). Nothing here decides, and a piece that has begun is always waited for.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

import outcome
import trio

T = TypeVar("T")
Done: TypeAlias = Callable[[outcome.Outcome[Any]], None]
Piece: TypeAlias = tuple[Callable[[], Any], Done, trio.lowlevel.TrioToken]


class Worker:
    """The thread starts with the first piece and ends with `end`, or when its owner is forgotten."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Piece | None] = SimpleQueue()
        self._started = False
        self._under_way = 0
        self._parked: list[trio.lowlevel.Task] = []
        """They wait until nothing is under way."""
        weakref.finalize(self, self._queue.put, None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued or under way."""
        return not self._under_way

    async def run(self, work: Callable[[], T]) -> T:
        """What `work()` returns or raises, from the thread. A cancellation point before it is queued, never after."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.begin(work, partial(trio.lowlevel.reschedule, trio.lowlevel.current_task()))
        result: T = await trio.lowlevel.wait_task_rescheduled(_never)
        return result

    def begin(self, work: Callable[[], Any], done: Done) -> None:
        """Queue `work` and go on; the loop calls `done` with its outcome, outside of any task. `done` must not raise.

        Not called when the loop has ended meanwhile.
        """
        if not self._started:
            self._started = True
            threading.Thread(target=_work, args=(self._queue,), name=self._name, daemon=True).start()
        self._under_way += 1
        self._queue.put((work, partial(self._settle, done), trio.lowlevel.current_trio_token()))

    def _settle(self, done: Done, result: outcome.Outcome[Any]) -> None:
        self._under_way -= 1
        done(result)
        if not self._under_way:
            parked, self._parked = self._parked, []
            for task in parked:
                trio.lowlevel.reschedule(task)

    async def landed(self) -> None:
        """Return once nothing is queued or under way. Never cancelled, as `run` is not once its piece is queued."""
        while self._under_way:
            self._parked.append(trio.lowlevel.current_task())
            await trio.lowlevel.wait_task_rescheduled(_never)

    def end(self) -> None:
        """Let the thread go once the queue is empty; more work starts another one."""
        if self._started:
            self._started = False
            self._queue.put(None)


def _never(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def _work(queue: SimpleQueue[Piece | None]) -> None:
    """The thread. It holds no piece while it waits, so that what a piece refers to can be forgotten."""
    while (piece := queue.get()) is not None:
        work, done, token = piece
        result = outcome.capture(work)
        try:
            token.run_sync_soon(done, result)
        except trio.RunFinishedError:
            pass
        del piece, work, done, token, result
