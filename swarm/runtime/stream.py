"""A stream's buffer with its two ends: the actor's `Sink` and the reader's `Inlet`.

The window is the buffer's size, and its only credit: a full window refuses `offer` and makes `send` wait. The wire uses the
same class for the receiving end of a stream that comes from another node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import trio

from swarm.runtime.errors import SwarmError
from swarm.runtime.ref import Sink

T = TypeVar("T")


class Pipe(Generic[T]):
    """Both ends of one stream; items in order, at most `window` of them unread."""

    __slots__ = ("_callbacks", "_ended", "_error", "_items", "_left", "_reader", "_registry", "_senders", "window")

    def __init__(self, window: int, registry: dict[Sink[Any], None] | None = None) -> None:
        if window < 1:
            raise ValueError(f"a stream's window holds at least one item, not {window}")
        self.window = window
        self._items: deque[T] = deque()
        self._reader: trio.lowlevel.Task | None = None
        self._senders: deque[trio.lowlevel.Task] = deque()
        self._ended = False  # the actor's side: no more items
        self._left = False  # the reader's side: it has gone
        self._error: SwarmError | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._registry = registry  # the open streams of the actor that answers; this one is in it while it is open
        if registry is not None:
            registry[self] = None

    # --- the actor's end -------------------------------------------------------------------------------------------
    @property
    def closed(self) -> bool:
        """Whether either side ended it."""
        return self._ended or self._left

    def offer(self, item: T) -> bool:
        """Send without waiting; False when the window is full or the stream is closed."""
        if self._ended or self._left or len(self._items) >= self.window:
            return False
        self._items.append(item)
        self._wake_reader()
        return True

    async def send(self, item: T) -> None:
        """Send, waiting for room; `trio.BrokenResourceError` when the stream is or gets closed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.offer(item):
            if self.closed:
                raise trio.BrokenResourceError("the stream is closed")
            task = trio.lowlevel.current_task()
            self._senders.append(task)

            def abort(_: object, task: trio.lowlevel.Task = task) -> trio.lowlevel.Abort:
                self._senders.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)

    def close(self) -> None:
        """No more items; the reader gets what is buffered, then the end."""
        self._end(None)

    def fail(self, error: SwarmError) -> None:
        """As `close`, but the reader's end is this error."""
        self._end(error)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back once when the reader has gone (at once if it has)."""
        if self._left:
            callback()
        elif not self._ended:
            self._callbacks.append(callback)

    def _end(self, error: SwarmError | None) -> None:
        if self.closed:
            return
        self._ended = True
        self._error = error
        self._forget()
        self._callbacks.clear()
        self._wake_reader()
        self._wake_senders()

    # --- the reader's end ------------------------------------------------------------------------------------------
    @property
    def unread(self) -> int:
        """How many items wait for the reader."""
        return len(self._items)

    async def receive(self) -> T:
        """The next item; `trio.EndOfChannel` when the stream was closed, its `SwarmError` when it failed."""
        if self._items or self._ended or self._left:
            await trio.lowlevel.checkpoint()
        while not self._items:
            if self._left:
                raise trio.ClosedResourceError("this end of the stream was closed")
            if self._error is not None:
                raise self._error
            if self._ended:
                raise trio.EndOfChannel
            if self._reader is not None:
                raise trio.BusyResourceError("a stream has one reader")
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort_reader)
        item = self._items.popleft()
        if self._senders:
            trio.lowlevel.reschedule(self._senders.popleft())
        return item

    def __aiter__(self) -> Pipe[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def leave(self) -> None:
        """The reader wants no more; the sink is told through `on_close`. What is buffered is dropped."""
        if self._left:
            return
        self._left = True
        self._forget()
        self._items.clear()
        callbacks, self._callbacks = self._callbacks, []
        self._wake_senders()
        self._wake_reader()
        for callback in callbacks:
            callback()

    def _forget(self) -> None:
        if self._registry is not None:
            self._registry.pop(self, None)

    def _abort_reader(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            trio.lowlevel.reschedule(reader)

    def _wake_senders(self) -> None:
        senders, self._senders = self._senders, deque()
        for sender in senders:
            trio.lowlevel.reschedule(sender)
