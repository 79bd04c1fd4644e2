"""Trio under a seed: the same tasks take their steps in the same order in every run. Only this file touches trio's internals.

Trio shuffles the tasks that are ready, so that nobody counts on their order. With `_ALLOW_DETERMINISTIC_SCHEDULING` it sorts
them first, and with `_r` seeded the shuffle is the same each time: still every order, but one that a seed brings back. What it
cancels, though, it takes from sets and from a heap that breaks ties by address, and an abort function may wake another task (a
call that is given up wakes the writer that tells the peer): here both keep the order in which they were filled.
All of it is private: the trio version is pinned and `tests/testing/test_testing_deterministic.py` fails should they change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from heapq import heappush
from itertools import count
from typing import Any, TypeVar

import trio
import trio.testing
from trio._core import _run

T = TypeVar("T")


class _Ordered(dict[Any, None]):
    """What trio asks of a set, in the order in which it was filled."""

    def add(self, one: Any) -> None:
        """At the end, unless it is there."""
        self[one] = None

    remove = dict.__delitem__


@contextmanager
def _cancelled_in_order() -> Iterator[None]:
    """Cancel the tasks and scopes within a scope, and the scopes of one deadline, in the order in which they came up."""
    made, add, numbers = _run.CancelStatus.__init__, _run.Deadlines.add, count()

    def make(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self._children, self._tasks = _Ordered(), _Ordered()

    def push(self: Any, deadline: float, cancel_scope: Any) -> None:
        heappush(self._heap, (deadline, next(numbers), cancel_scope))
        self._active += 1

    _run.CancelStatus.__init__, _run.Deadlines.add = make, push  # type: ignore[method-assign]
    try:
        yield
    finally:
        _run.CancelStatus.__init__, _run.Deadlines.add = made, add  # type: ignore[method-assign]


PROCESS: ContextVar[object] = ContextVar("simulated_process", default=None)
"""Whose task it is, for `stop_process`: set it in a task, and all that it starts belong to it."""
_stopped: dict[object, list[Any]] = {}
"""Stopped processes, and their tasks that would run."""


def stop_process(process: object) -> None:
    """None of its tasks takes a step from now on, whatever wakes it; its deadlines pass meanwhile (SIGSTOP)."""
    _stopped.setdefault(process, [])


def continue_process(process: object) -> None:
    """All its tasks that were woken meanwhile run (SIGCONT); nothing happens when it is not stopped."""
    _run.GLOBAL_RUN_CONTEXT.runner.runq.extend(_stopped.pop(process, ()))


@contextmanager
def _stoppable() -> Iterator[None]:
    """Have woken tasks of stopped processes wait."""
    wake = _run.Runner.reschedule

    def held_back(self: Any, task: Any, *next_send: Any) -> None:
        wake(self, task, *next_send)
        if _stopped and (held := _stopped.get(task.context.get(PROCESS))) is not None:
            held.append(self.runq.pop())

    _run.Runner.reschedule = held_back  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        _run.Runner.reschedule = wake  # type: ignore[method-assign]
        _stopped.clear()


def run_seeded(seed: str, function: Callable[..., Awaitable[T]], *args: object) -> T:
    """`trio.run` in virtual time, which jumps to the next deadline whenever nothing can run, scheduled by `seed`."""
    before, state = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final for trio's users, not for its tests
    _run._r.seed(seed)
    try:
        clock = trio.testing.MockClock(autojump_threshold=0.0)
        with _cancelled_in_order(), _stoppable():
            return trio.run(function, *args, clock=clock, strict_exception_groups=True)
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        _run._r.setstate(state)
