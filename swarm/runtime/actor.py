"""What subsystems are written as: a class whose handlers run one at a time, plus jobs for whatever waits.

The table from message class to handler is made when the class is; a message handled twice fails the import. An actor's
fields are touched only in its turns. An actor never makes tasks other than through `job`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import trio

from swarm.runtime.context import InJob, asker
from swarm.runtime.errors import SwarmError
from swarm.runtime.message import Message, Request, Subscribe
from swarm.runtime.turn import Call, Later, Turn

if TYPE_CHECKING:
    from swarm.runtime.local import Cell, LocalRef
    from swarm.runtime.scope import Scope

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

_MARK = "__swarm_handles__"
MAILBOX_CAPACITY = 1024
"""Messages; a queue longer than this only adds waiting, and senders are to feel it."""
SHUTDOWN_S = 5.0
"""Seconds that an actor has for an orderly stop before it is cancelled."""


class Shape(IntEnum):
    """How a message is answered."""

    ONE_WAY = 0
    ANSWERED = 1
    STREAMED = 2


def shape_of(message_class: type) -> Shape:
    """The shape of a message class; `TypeError` for what is not a message."""
    if issubclass(message_class, Message):
        return Shape.ONE_WAY
    if issubclass(message_class, Request):
        return Shape.ANSWERED
    if issubclass(message_class, Subscribe):
        return Shape.STREAMED
    raise TypeError(f"{message_class.__name__} is neither a Message, a Request nor a Subscribe")


class Handler(NamedTuple):
    """An entry of an actor's table."""

    function: Callable[..., Any]
    is_async: bool
    shape: Shape


def on(message_class: type) -> Callable[[F], F]:
    """Mark a method `(self, message, turn)`, sync or async, as the handler of exactly this message class."""
    shape_of(message_class)
    if "__attrs_attrs__" not in vars(message_class):
        raise TypeError(f"message {message_class.__name__} is not a frozen attrs class")

    def mark(function: F) -> F:
        setattr(function, _MARK, (*getattr(function, _MARK, ()), message_class))
        return function

    return mark


def _handlers_of(cls: type) -> dict[type, Handler]:
    marks: dict[str, tuple[type, ...]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if hasattr(value, _MARK):
                marks[name] = getattr(value, _MARK)
    handlers: dict[type, Handler] = {}
    names: dict[type, str] = {}
    for name, message_classes in marks.items():
        function = getattr(cls, name)
        if len(inspect.signature(function).parameters) != 3:
            raise TypeError(f"{cls.__name__}.{name} must take (self, message, turn)")
        for message_class in message_classes:
            if message_class in handlers:
                raise TypeError(
                    f"{cls.__name__} handles {message_class.__name__} twice: {names[message_class]} and {name}"
                )
            names[message_class] = name
            handlers[message_class] = Handler(function, inspect.iscoroutinefunction(function), shape_of(message_class))
    return handlers


class Actor:
    """Base of all actors. `name`, `ref` and `scope` are set before `started` is called."""

    mailbox_capacity: ClassVar[int] = MAILBOX_CAPACITY
    shutdown_s: ClassVar[float] = SHUTDOWN_S
    handlers: ClassVar[dict[type, Handler]] = {}

    name: str
    ref: LocalRef
    scope: Scope
    """The scope that it lives in: for starting further actors, and for asking it to end."""
    _nursery: trio.Nursery
    _cell: Cell

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.handlers = _handlers_of(cls)

    async def started(self) -> None:
        """Runs before the first message; raising is a failed start."""

    async def stopping(self) -> None:
        """Runs at an orderly stop, after the last turn and while jobs still run; the mailbox is closed."""

    def job(self, function: Callable[..., Awaitable[object]], *args: Any, name: str = "") -> trio.CancelScope:
        """Run `function(*args)` in the actor's own nursery; the scope given back cancels it.

        It ends with the actor. An exception in it, a `SwarmError` too, crashes the actor: a job has nobody to answer. Once
        the actor is stopping, a `SwarmError` only ends the job: it may have met a mailbox that is closed already.
        """
        context = asker.get()
        cell = self._cell
        call = context.call if isinstance(context, InJob) and context.cell is cell else cell.call
        scope = trio.CancelScope()
        label = f"{cell.path}:{name or getattr(function, '__name__', 'job')}"
        self._nursery.start_soon(_run_job, InJob(cell, call), scope, function, args, name=label)
        return scope

    def answer_in_job(self, turn: Turn[R], function: Callable[..., Awaitable[R]], *args: Any, name: str = "") -> None:
        """Defer the turn's reply to a job: what it returns is the answer, a `SwarmError` that it raises the refusal.

        The job is cancelled when the asker gives up.
        """
        later = turn.defer()
        scope = self.job(_answer, later, function, args, name=name or getattr(function, "__name__", ""))
        later.on_cancel(scope.cancel)

    def finish(self, reason: str) -> None:
        """End this actor in order after the present turn; it is not restarted."""
        self._cell.request_stop(reason)


async def _run_job(
    context: InJob, scope: trio.CancelScope, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]
) -> None:
    asker.set(context)
    with scope:
        try:
            await function(*args)
        except* SwarmError:
            # at an orderly stop mailboxes close, its own first: a job that runs into one of them has just ended
            if not context.cell.stop_reason:
                raise


async def _answer(later: Later[R], function: Callable[..., Awaitable[R]], args: tuple[Any, ...]) -> None:
    try:
        value = await function(*args)
    except SwarmError as refusal:
        later.fail(refusal)
    else:
        later.answer(value)


__all__ = ["Actor", "Call", "Handler", "Shape", "on", "shape_of"]
