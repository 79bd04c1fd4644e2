"""The clock port: the only place where wall time is read.

Sleeping and timeouts go through trio itself, whose clock the simulator replaces; this port adds wall time, which can jump.
"""

from __future__ import annotations

import time
from typing import Protocol

from swarm.model.ids import Instant


class Clock(Protocol):
    """What time it is."""

    def now(self) -> Instant:
        """Seconds since 1970 by this node's wall clock; it may jump either way."""
        ...

    def monotonic(self) -> float:
        """Seconds that only move forward; comparable within one process only."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> Instant:
        """The machine's wall clock."""
        return Instant(time.time())

    def monotonic(self) -> float:
        """Trio's clock, so that it agrees with trio's deadlines."""
        import trio  # here, so that commands that only read the time do not load it

        return trio.current_time()


def wall_seconds() -> float:
    """Seconds since 1970, for commands that run outside the daemon."""
    return time.time()


def monotonic_seconds() -> float:
    """Seconds that only move forward, for commands that run outside the daemon."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Block this process; never inside the daemon."""
    time.sleep(seconds)
