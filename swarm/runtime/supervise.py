"""Runs an actor's lives: turns, crashes, restarts.

A crash settles what the actor owed (asks fail at once), keeps what is queued, and makes a new actor behind the same ref.
Too many crashes within a period end the scope. Besides `scope.py` this is the only place that catches `Exception`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from logging import Logger
from typing import TYPE_CHECKING, Any, ClassVar

import trio
from attrs import define, field, frozen

from swarm.runtime.actor import Actor, Shape
from swarm.runtime.context import InTurn, asker
from swarm.runtime.errors import ActorFailed, AskTimeout, ErrorCode, ScopeEnded, SwarmError
from swarm.runtime.local import Cell
from swarm.runtime.trace import Trace
from swarm.runtime.turn import Call

if TYPE_CHECKING:
    from swarm.runtime.scope import Scope

BATCH_TURNS = 128
"""Turns between two breaths of the loop; bounds a batch also where the clock is virtual and stands still."""
BATCH_S = 0.002
"""Seconds between two breaths: a fifth of what one turn may take."""


@frozen
class Restart:
    """How many crashes within how long are forgiven; one more ends the scope."""

    intensity: int = 3
    period_s: float = 10.0
    NEVER: ClassVar[Restart]


Restart.NEVER = Restart(intensity=0)


@define(eq=False)
class Supervisor:
    """One actor's."""

    cell: Cell
    scope: Scope
    factory: Callable[[], Actor]
    restart: Restart
    log: Logger
    trace: Trace | None
    crashes: deque[float] = field(factory=deque)
    """When it crashed, within the last period."""
    start_error: Exception | None = None
    """Why its very first start failed."""

    async def run(self, first: Actor) -> None:
        """All lives of the actor; returns when it is gone for good."""
        cell = self.cell
        asker.set(InTurn(cell, trio.lowlevel.current_task()))
        try:
            with cell.cancel_scope:
                await self._lives(first)
        finally:
            why = f"actor {cell.path} has ended: {cell.stop_reason or self.scope.reason or 'its scope was cancelled'}"
            cell.close_mailbox(why)
            cell.settle(why)
            cell.ended.set()
            cell.start_settled.set()
            self.scope.forget(cell)
            if self.trace is not None:
                self.trace.ended(cell.path, cell.stop_reason)
        if cell.cancel_scope.cancelled_caught and cell.stop_reason:
            self.log.warning("actor %s did not stop within %g s and was cancelled", cell.path, cell.shutdown_s)

    async def _lives(self, first: Actor) -> None:
        cell = self.cell
        actor: Actor | None = first
        restarts = 0
        while True:
            crash = await self._life(actor, restarts)
            if crash is None:
                return
            if not cell.alive:
                self.start_error = crash
                cell.stop_reason = cell.stop_reason or f"it failed to start: {crash}"
                return
            self.log.error("actor %s crashed: %r", cell.path, crash, exc_info=crash)
            if self.trace is not None:
                self.trace.crashed(cell.path, crash)
            cell.settle(f"actor {cell.path} crashed")
            if cell.stop_reason:
                return
            if not self._forgiven():
                self._escalate(crash)
                return
            restarts += 1
            actor = None
            await trio.lowlevel.checkpoint()

    def _forgiven(self) -> bool:
        now = trio.current_time()
        self.crashes.append(now)
        while self.crashes[0] <= now - self.restart.period_s:
            self.crashes.popleft()
        return len(self.crashes) <= self.restart.intensity

    def _escalate(self, crash: Exception) -> None:
        path = self.cell.path
        often = f"{len(self.crashes)} times in {self.restart.period_s:g} s" if self.restart.intensity else "once"
        failure = ActorFailed(path, f"actor {path} crashed {often} and is given up: {type(crash).__name__}: {crash}")
        failure.__cause__ = crash
        self.cell.stop_reason = "it crashed too often"
        self.scope.fail(failure)

    async def _life(self, actor: Actor | None, restarts: int) -> Exception | None:
        """One life: None when it ended in order, else the bug that ended it."""
        cell = self.cell
        crash: Exception | None = None
        try:
            if actor is None:
                actor = self.factory()
                cell.handlers = actor.handlers
            actor.name, actor.ref, actor.scope, actor._cell = cell.name, cell.ref, self.scope, cell
            if self.trace is not None:
                self.trace.begins(cell.path, actor)
            async with trio.open_nursery() as nursery:
                actor._nursery = nursery
                await actor.started()
                if self.trace is not None:
                    self.trace.started(cell.path, restarts)
                cell.alive = True
                cell.start_settled.set()
                await self._turns(actor)
                await actor.stopping()
                nursery.cancel_scope.cancel()
        except* Exception as group:
            crash = _only(group)
        return crash

    async def _turns(self, actor: Actor) -> None:
        """Handle messages until the mailbox is closed, in batches that let the other tasks run in between."""
        mailbox = self.cell.mailbox
        items = mailbox.items
        trace = self.trace
        while True:
            if not items:
                if mailbox.closed:
                    return
                await mailbox.wait()
            now = trio.current_time()
            until = now + BATCH_S
            for _ in range(BATCH_TURNS):
                if not items or now >= until:
                    break
                message, turn = mailbox.take()
                began = 0.0 if trace is None else trace.clock()
                waiting = self._turn(actor, message, turn, now)
                if waiting is not None:
                    await waiting
                if trace is not None:
                    trace.turn(self.cell.path, message, turn.caller, trace.clock() - began)
                now = trio.current_time()
            if items:
                await trio.lowlevel.checkpoint()

    def _turn(self, actor: Actor, message: Any, turn: Any, now: float) -> Awaitable[None] | None:
        """One turn; what is given back is the rest of it, to be awaited."""
        cell = self.cell
        handler = cell.handlers.get(type(message))
        if handler is None:  # queued for an earlier life that was of another class
            cell.refuse(turn, SwarmError(ErrorCode.INVALID, f"{cell.path} takes no {type(message).__name__}"))
            return None
        function, is_async, shape = handler
        if shape is Shape.ANSWERED:
            if turn.settled:
                return None
            if turn.deadline <= now:
                turn.fail(AskTimeout(f"{type(message).__name__} was not handled before its deadline"))
                return None
            cell.call = turn
        if is_async:
            return self._rest(function(actor, message, turn), message, turn)
        try:
            result = function(actor, message, turn)
        except SwarmError as refusal:
            self._refused(message, turn, refusal)
        else:
            if shape is Shape.ANSWERED and not turn.deferred:
                turn.answer(result)
        cell.call = None
        return None

    async def _rest(self, running: Awaitable[Any], message: Any, turn: Any) -> None:
        try:
            result = await running
        except SwarmError as refusal:
            self._refused(message, turn, refusal)
        else:
            if isinstance(turn, Call) and not turn.deferred:
                turn.answer(result)
        self.cell.call = None

    def _refused(self, message: Any, turn: Any, refusal: SwarmError) -> None:
        """A refusal is an answer; that of a one-way message has nobody to go to but the log.

        That a scope ended meanwhile is no news there: whoever ended it says why.
        """
        if not self.cell.refuse(turn, refusal) and not isinstance(refusal, ScopeEnded):
            self.log.warning("actor %s refused %s: %r", self.cell.path, type(message).__name__, refusal)


def _only(group: BaseExceptionGroup[Exception]) -> Exception:
    """The one exception in a group, or the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
