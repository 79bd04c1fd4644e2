"""What a handler gets beside its message: who asks, until when, and a way to answer later.

A `Call` is one ask on its way: the turn that the handler sees, the reply that it may defer, and what the asker waits for.
It is settled exactly once: answered, failed, or given up by the asker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from swarm.runtime.context import INFINITY, NO_CHAIN, Chain
from swarm.runtime.errors import SwarmError
from swarm.runtime.ref import HERE, Caller, Sink

if TYPE_CHECKING:
    from swarm.runtime.local import Cell

R = TypeVar("R")
T = TypeVar("T")


class Later(Generic[R]):
    """A reply that is still owed. Whoever holds it answers once, from any turn or job of the actor."""

    __slots__ = ()

    @property
    def done(self) -> bool:
        """Whether it was answered, failed or given up; answering then does nothing."""
        raise NotImplementedError

    def answer(self, value: R) -> None:
        """Reply."""
        raise NotImplementedError

    def fail(self, error: SwarmError) -> None:
        """Refuse."""
        raise NotImplementedError

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call back when the asker gives up (at once if it has)."""
        raise NotImplementedError


class Turn(Generic[R]):
    """Handed to the handlers of `Message` and `Request`."""

    __slots__ = ("caller", "deadline")

    def __init__(self, caller: Caller, deadline: float = INFINITY) -> None:
        self.caller = caller
        self.deadline = deadline
        """`trio.current_time()` at which the asker gives up; infinity for one-way messages."""

    @property
    def chain(self) -> Chain:
        """The actors whose turns wait for this one."""
        return NO_CHAIN

    def defer(self) -> Later[R]:
        """The reply, to be given later; the handler's return value is then ignored. `TypeError` for one-way messages."""
        raise TypeError("a one-way message has no reply to defer")


HERE_TURN: Turn[Any] = Turn(HERE)
"""The turn of every one-way message from this node."""


class StreamTurn(Generic[T]):
    """Handed to the handlers of `Subscribe`: who subscribes, and where the items go."""

    __slots__ = ("caller", "chain", "deadline", "sink", "window")

    def __init__(self, caller: Caller, chain: Chain, sink: Sink[T], window: int) -> None:
        self.caller = caller
        self.chain = chain
        self.sink = sink
        self.window = window
        """How many items the reader can be behind."""
        self.deadline = INFINITY


class Call(Turn[R], Later[R]):
    """One ask."""

    __slots__ = ("_cell", "_chain", "_on_cancel", "_on_done", "_task", "deferred", "error", "settled", "value")

    def __init__(
        self,
        cell: Cell,
        caller: Caller,
        deadline: float,
        chain: Chain,
        on_done: Callable[[Call[R]], None] | None = None,
    ) -> None:
        self.caller = caller
        self.deadline = deadline
        self._chain = chain
        self._cell = cell
        self._task: trio.lowlevel.Task | None = None
        self._on_done = on_done
        self._on_cancel: list[Callable[[], object]] | None = None
        self.settled = False
        self.deferred = False
        self.value: R | None = None
        self.error: SwarmError | None = None

    @property
    def chain(self) -> Chain:
        """The actors whose turns wait for this one."""
        return self._chain

    @property
    def done(self) -> bool:
        """Whether it was answered, failed or given up."""
        return self.settled

    def defer(self) -> Later[R]:
        """The reply, to be given later."""
        if not self.deferred:
            self.deferred = True
            if not self.settled:
                self._cell.deferred[self] = None
        return self

    def answer(self, value: R) -> None:
        """Reply; does nothing when it is done already."""
        if not self.settled:
            self.value = value
            self._settle()

    def fail(self, error: SwarmError) -> None:
        """Refuse; does nothing when it is done already."""
        if not self.settled:
            self.error = error
            self._settle()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call back when the asker gives up; at once when the call is over without an answer from here."""
        if self.settled:
            callback()
        elif self._on_cancel is None:
            self._on_cancel = [callback]
        else:
            self._on_cancel.append(callback)

    def give_up(self) -> None:
        """The asker wants no answer any more: a job that works on one is told, a queued request is not handled."""
        if self.settled:
            return
        self.settled = True
        if self.deferred:
            self._cell.deferred.pop(self, None)
        callbacks, self._on_cancel = self._on_cancel or [], None
        for callback in callbacks:
            callback()

    async def outcome(self, deadline: float) -> R:
        """Park the asker until it is settled; `trio.TooSlowError` when `deadline` comes first."""
        if not self.settled:
            self._task = trio.lowlevel.current_task()
            if deadline == INFINITY:
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            else:
                with trio.CancelScope(deadline=deadline):
                    await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._task is not None:  # its own deadline ended the wait
            raise trio.TooSlowError
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # settled without an error: `answer` has set it

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self.give_up()
        return trio.lowlevel.Abort.SUCCEEDED

    def _settle(self) -> None:
        self.settled = True
        self._on_cancel = None
        if self.deferred:
            self._cell.deferred.pop(self, None)
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)
        elif self._on_done is not None:
            self._on_done(self)
