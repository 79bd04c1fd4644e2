"""A `Ref` without an actor, for tests: keeps what it is told, answers as the test says, feeds streams by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, cast

import trio
from attrs import define, field

from swarm.runtime import ActorDied, AskTimeout, ErrorCode, Inlet, Message, Request, Subscribe, SwarmError
from swarm.runtime.stream import Pipe

R = TypeVar("R")
T = TypeVar("T")


@define(eq=False)
class ProbeRef:
    """Everything that is sent here is in `sent`, in order; `answers` maps a message class to what answers it.

    An answer is a function of the request, sync or async, that returns or raises; without one an ask waits until it times out.
    """

    name: str = "probe"
    answers: dict[type, Callable[[Any], Any]] = field(factory=dict)
    sent: list[Any] = field(factory=list)
    pipes: list[Pipe[Any]] = field(factory=list)
    """The sinks of the streams that were opened, in order."""
    full: bool = False
    """Offers are refused, tells wait."""
    dead: str = ""
    """Why the actor is gone; empty while it lives."""
    _changed: trio.Event = field(factory=trio.Event)

    def offer(self, message: Message) -> bool:
        """Kept, unless full or dead."""
        if self.full or self.dead:
            return False
        self._keep(message)
        return True

    async def tell(self, message: Message) -> None:
        """Kept, once there is room."""
        await trio.lowlevel.checkpoint()
        while self.full and not self.dead:
            await self._changed.wait()
        self._check()
        self._keep(message)

    async def ask(self, request: Request[R], *, timeout_s: float) -> R:
        """Kept and answered."""
        await trio.lowlevel.checkpoint()
        self._check()
        self._keep(request)
        with trio.move_on_after(timeout_s):
            answer = self.answers.get(type(request))
            if answer is None:
                await trio.sleep_forever()
            else:
                value = answer(request)
                return cast("R", await value if hasattr(value, "__await__") else value)
        raise AskTimeout(f"{self.name} did not answer {type(request).__name__} in time ({timeout_s:g} s)")

    def stream(self, request: Subscribe[T], *, window: int = 64) -> AbstractAsyncContextManager[Inlet[T]]:
        """Kept; its sink is the newest of `pipes`."""
        return self._stream(request, window)

    @asynccontextmanager
    async def _stream(self, request: Subscribe[T], window: int) -> AsyncIterator[Inlet[T]]:
        await trio.lowlevel.checkpoint()
        self._check()
        pipe: Pipe[T] = Pipe(window)
        self.pipes.append(pipe)
        self._keep(request)
        try:
            yield pipe
        finally:
            pipe.leave()

    def die(self, why: str) -> None:
        """The actor is gone: what is asked or told from now on fails, open streams fail."""
        self.dead = why
        for pipe in self.pipes:
            pipe.fail(ActorDied(why))
        self._ring()

    def set_full(self, full: bool) -> None:
        """Whether there is room."""
        self.full = full
        self._ring()

    async def next(self, message_class: type[R], *, count: int = 1) -> R:
        """The `count`th message of a class that was sent here, once it is there."""
        while True:
            found = [message for message in self.sent if type(message) is message_class]
            if len(found) >= count:
                return found[count - 1]
            await self._changed.wait()

    def refuse(self, message_class: type, code: ErrorCode, text: str) -> None:
        """Answer this class with a refusal from now on."""

        def answer(_: object) -> None:
            raise SwarmError(code, text)

        self.answers[message_class] = answer

    def _check(self) -> None:
        if self.dead:
            raise ActorDied(self.dead)

    def _keep(self, message: object) -> None:
        self.sent.append(message)
        self._ring()

    def _ring(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
