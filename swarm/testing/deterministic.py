"""Trio under a seed: the same tasks take their steps in the same order in every run. Only this file touches trio's internals.

Trio shuffles the tasks that are ready, so that nobody counts on their order. With `_ALLOW_DETERMINISTIC_SCHEDULING` it sorts
them first, and with `_r` seeded the shuffle is the same each time: still every order, but one that a seed brings back. Both
names are private, so the trio version is pinned and `tests/testing/test_testing_deterministic.py` fails should they change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio.testing
from trio._core import _run

T = TypeVar("T")


def run_seeded(seed: str, function: Callable[..., Awaitable[T]], *args: object) -> T:
    """`trio.run` in virtual time, which jumps to the next deadline whenever nothing can run, scheduled by `seed`."""
    before, state = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final for trio's users, not for its tests
    _run._r.seed(seed)
    try:
        clock = trio.testing.MockClock(autojump_threshold=0.0)
        return trio.run(function, *args, clock=clock, strict_exception_groups=True)
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        _run._r.setstate(state)
