"""The place of an actor on this node, which outlives its restarts, and the `Ref` that leads to it.

A `Cell` holds what must survive a crash (mailbox, table) and what must be settled at one (the call in hand, deferred
replies, open streams). Nothing here runs: `supervise.py` does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import trio

from swarm.runtime.actor import Handler, Shape
from swarm.runtime.context import Asking, Chain, asking
from swarm.runtime.errors import ActorDied, AskTimeout, ErrorCode, SwarmError, WouldDeadlock
from swarm.runtime.mailbox import Mailbox
from swarm.runtime.message import Message, Request, Subscribe
from swarm.runtime.ref import DEFAULT_WINDOW, HERE, Caller, Inlet, Sink
from swarm.runtime.stream import Pipe
from swarm.runtime.turn import HERE_TURN, Call, StreamTurn, Turn

R = TypeVar("R")
T = TypeVar("T")


class Cell:
    """One actor's place."""

    def __init__(self, path: str, name: str, capacity: int, shutdown_s: float, handlers: dict[type, Handler]) -> None:
        self.path = path
        self.name = name
        self.shutdown_s = shutdown_s
        self.handlers = handlers
        self.mailbox = Mailbox(capacity)
        self.call: Call[Any] | None = None
        """The ask that the present turn works on."""
        self.deferred: dict[Call[Any], None] = {}
        self.streams: dict[Sink[Any], None] = {}
        """Ordered sets: what is settled at a crash is settled in the same order in every run."""
        self.waits_for: Cell | None = None
        """Whom the present turn waits for, if it is blocked."""
        self.stop_reason = ""
        self.alive = False
        """Whether it ever started."""
        self.start_settled = trio.Event()
        """Its first start has succeeded or failed."""
        self.ended = trio.Event()
        self.cancel_scope = trio.CancelScope()
        self.ref = LocalRef(self)

    def request_stop(self, reason: str) -> None:
        """Orderly stop: the turn in hand is finished, `stopping` runs; after `shutdown_s` all of it is cancelled."""
        if self.stop_reason:
            return
        self.stop_reason = reason
        self.cancel_scope.deadline = trio.current_time() + self.shutdown_s
        self.close_mailbox(f"actor {self.path} is stopping: {reason}")

    def close_mailbox(self, why: str) -> None:
        """Take nothing more; whoever waits for what is queued is told."""
        for _, turn in self.mailbox.close(why):
            self.refuse(turn, ActorDied(why))

    def settle(self, why: str) -> None:
        """Fail the call in hand, all deferred replies and all open streams."""
        call, self.call = self.call, None
        if call is not None:
            call.fail(ActorDied(why))
        for owed in tuple(self.deferred):
            owed.fail(ActorDied(why))
        for stream in tuple(self.streams):
            stream.fail(ActorDied(why))

    def refuse(self, turn: object, error: SwarmError) -> bool:
        """Tell whoever waits on this turn; False when nobody does, since it is a one-way message's."""
        if isinstance(turn, Call):
            turn.fail(error)
        elif isinstance(turn, StreamTurn):
            turn.sink.fail(error)
        else:
            return False
        return True

    def waits_in_circle(self, target: Cell) -> bool:
        """Whether `target` is this cell or waits, directly or not, for it."""
        seen: Cell | None = target
        while seen is not None:
            if seen is self:
                return True
            seen = seen.waits_for
        return False


class LocalRef:
    """Reaches an actor of this node. The wire passes `caller`, `chain` and a deadline of its own; others leave them."""

    __slots__ = ("_cell", "name")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.name = cell.name

    def __repr__(self) -> str:
        return f"<Ref {self._cell.path}>"

    @property
    def path(self) -> str:
        """Scope names and the actor's own, joined by slashes."""
        return self._cell.path

    @property
    def ended(self) -> bool:
        """Whether the actor is gone for good."""
        return self._cell.ended.is_set()

    def takes(self, message_class: type) -> bool:
        """Whether the actor has a handler for it."""
        return message_class in self._cell.handlers

    def offer(self, message: Message, *, caller: Caller = HERE) -> bool:
        """Never waits; False when the mailbox is full or the actor is gone."""
        cell = self._cell
        if type(message) not in cell.handlers:
            raise self._unhandled(message)
        return cell.mailbox.offer((message, HERE_TURN if caller is HERE else Turn(caller)))

    async def tell(self, message: Message, *, caller: Caller = HERE) -> None:
        """Waits for room; `ActorDied` when the actor is gone, `WouldDeadlock` when it waits for the teller."""
        cell = self._cell
        if type(message) not in cell.handlers:
            raise self._unhandled(message)
        item = (message, HERE_TURN if caller is HERE else Turn(caller))
        mailbox = cell.mailbox
        if mailbox.has_room() or mailbox.closed:
            await mailbox.put(item)
            return
        blocked = asking().blocked
        if blocked is None:
            await mailbox.put(item)
            return
        if blocked.waits_in_circle(cell):
            raise WouldDeadlock(
                f"{blocked.path} would wait for room at {cell.path}, which waits for it; tell from a job, or offer"
            )
        blocked.waits_for = cell
        try:
            await mailbox.put(item)
        finally:
            blocked.waits_for = None

    async def ask(
        self, request: Request[R], *, timeout_s: float, caller: Caller = HERE, chain: Chain | None = None
    ) -> R:
        """The answer; see `Ref.ask`. The deadline is the earlier of `timeout_s` from now and the asking turn's own."""
        cell = self._cell
        context = asking()
        call = self._call(request, context, trio.current_time() + timeout_s, caller, chain)
        place = cell.mailbox.push((request, call))
        blocked = context.blocked
        if blocked is not None:
            blocked.waits_for = cell
        try:
            return await call.outcome(call.deadline)
        except trio.TooSlowError:
            raise AskTimeout(f"{cell.path} did not answer {type(request).__name__} in time ({timeout_s:g} s)") from None
        finally:
            if place is not None:
                cell.mailbox.withdraw(place)
            if blocked is not None:
                blocked.waits_for = None

    def deliver(
        self,
        request: Request[R],
        *,
        caller: Caller,
        deadline: float,
        chain: Chain,
        on_done: Callable[[Call[R]], None],
    ) -> Call[R]:
        """Ask without a task that waits: `on_done(call)` is called once with `call.error` or else `call.value` set.

        For the wire's side of a remote ask. Stands in line for room as `ask` does, without parking anybody: whoever
        delivers has a limit of its own. `call.give_up()` when the asker cancels; `on_done` is not called then.
        Raises `SwarmError`: ACTOR_DIED, INVALID, WOULD_DEADLOCK.
        """
        cell = self._cell
        self._check(request, Shape.ANSWERED, chain)
        call: Call[R] = Call(cell, caller, deadline, chain, on_done)
        place = cell.mailbox.push((request, call))
        if place is not None:
            call.on_cancel(partial(cell.mailbox.withdraw, place))
        return call

    def deliver_stream(
        self, request: Subscribe[T], sink: Sink[T], *, caller: Caller, chain: Chain, window: int
    ) -> Callable[[], None]:
        """Subscribe with a sink of one's own, for the wire's side of a remote stream; stands in line as `deliver` does.

        The sink is failed when the actor dies, until what is given back was called: the sink has ended.
        Raises `SwarmError`: ACTOR_DIED, INVALID, WOULD_DEADLOCK.
        """
        cell = self._cell
        self._check(request, Shape.STREAMED, chain)
        cell.mailbox.push((request, StreamTurn(caller, chain, sink, window)))
        cell.streams[sink] = None
        return partial(cell.streams.pop, sink, None)

    def stream(
        self,
        request: Subscribe[T],
        *,
        window: int = DEFAULT_WINDOW,
        caller: Caller = HERE,
        chain: Chain | None = None,
    ) -> OpenStream[T]:
        """A stream for as long as the context lasts; entering waits for room in the mailbox."""
        return OpenStream(self, request, window, caller, chain)

    def unreached(self) -> SwarmError:
        """Why an offer to this actor has just failed."""
        closed = self._cell.mailbox.closed
        if closed:
            return ActorDied(closed)
        return SwarmError(ErrorCode.MAILBOX_FULL, f"{self._cell.path} has too much to do; try again")

    def _call(
        self, request: Request[R], context: Asking, deadline: float, caller: Caller, chain: Chain | None
    ) -> Call[R]:
        if chain is None:
            chain = context.chain
        self._check(request, Shape.ANSWERED, chain)
        return Call(self._cell, caller, min(deadline, context.deadline), chain)

    def _check(self, message: Request[Any] | Subscribe[Any], shape: Shape, chain: Chain) -> None:
        cell = self._cell
        if chain and cell.path in chain:
            raise WouldDeadlock(
                f"{type(message).__name__} to {cell.path} would come back to it while it waits: {' > '.join(chain)}"
            )
        handler = cell.handlers.get(type(message))
        if handler is None or handler.shape is not shape:
            raise self._unhandled(message)

    def _unhandled(self, message: object) -> SwarmError:
        return SwarmError(ErrorCode.INVALID, f"{self._cell.path} takes no {type(message).__name__}")


class OpenStream(AbstractAsyncContextManager[Inlet[T]]):
    """A subscription; leaving it tells the sink."""

    __slots__ = ("_caller", "_chain", "_pipe", "_ref", "_request", "_window")

    def __init__(self, ref: LocalRef, request: Subscribe[T], window: int, caller: Caller, chain: Chain | None) -> None:
        self._ref = ref
        self._request = request
        self._window = window
        self._caller = caller
        self._chain = chain
        self._pipe: Pipe[T] | None = None

    async def __aenter__(self) -> Inlet[T]:
        cell = self._ref._cell
        chain = asking().chain if self._chain is None else self._chain
        self._ref._check(self._request, Shape.STREAMED, chain)
        pipe: Pipe[T] = Pipe(self._window, cell.streams)
        await cell.mailbox.put((self._request, StreamTurn(self._caller, chain, pipe, self._window)))
        self._pipe = pipe
        return pipe

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pipe is not None:
            self._pipe.leave()
