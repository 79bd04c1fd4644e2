"""What an observer of the kernel is told: the stall benchmark, the simulator's schedule hash, a debugger.

A hook handed to the outermost scope and inherited by all within. It must return at once and must never raise.
"""

from __future__ import annotations

from typing import Any

import trio

from swarm.runtime.ref import Caller


class Trace:
    """Does nothing; override what is of interest."""

    def clock(self) -> float:
        """What turns are measured with, in seconds."""
        return trio.current_time()

    def begins(self, actor: str, made: Any) -> None:
        """The actor at this path begins a life, as this object, for checkers that look at it between its turns."""

    def turn(self, actor: str, message: Any, caller: Caller, duration_s: float) -> None:
        """A turn of the actor at this path has ended; `caller` is whom the message counted as sent by."""

    def started(self, actor: str, restarts: int) -> None:
        """An actor takes messages from now on."""

    def crashed(self, actor: str, error: Exception) -> None:
        """A bug ended an actor's present life."""

    def ended(self, actor: str, reason: str) -> None:
        """An actor is gone for good."""
