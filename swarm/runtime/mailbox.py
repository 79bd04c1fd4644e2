"""A bounded queue with one reader. Senders that wait for room do so in order, so that FIFO per sender always holds.

No locks and no channels: trio runs one task at a time, and the reader and each waiting sender are parked tasks.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import outcome
import trio
from attrs import define, field

from swarm.runtime.errors import ActorDied


@define(eq=False)
class Waiting:
    """An item that found no room; `task` is parked until it does (None: its sender waits for something else)."""

    item: Any
    task: trio.lowlevel.Task | None = None
    withdrawn: bool = False


@define(eq=False)
class Mailbox:
    """`items` never holds more than `capacity`; whoever comes when there is no room waits in `waiting`, in order."""

    capacity: int
    items: deque[Any] = field(factory=deque)
    waiting: deque[Waiting] = field(factory=deque)
    closed: str = ""
    """Why nothing more is taken in; empty while open."""
    reader: trio.lowlevel.Task | None = None
    """The parked reader."""

    def has_room(self) -> bool:
        """Whether the next item would be queued at once."""
        return len(self.items) < self.capacity and not self.waiting

    def offer(self, item: Any) -> bool:
        """Queue without waiting; False when closed or without room."""
        if self.closed or self.waiting or len(self.items) >= self.capacity:
            return False
        self.items.append(item)
        if self.reader is not None:
            self._wake()
        return True

    def push(self, item: Any) -> Waiting | None:
        """Queue, or stand in line without parking; the place in line, None when it was queued at once."""
        if self.closed:
            raise ActorDied(self.closed)
        if self.offer(item):
            return None
        place = Waiting(item)
        self.waiting.append(place)
        return place

    async def put(self, item: Any) -> None:
        """Queue, waiting for room; `ActorDied` when the mailbox is or gets closed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        place = self.push(item)
        if place is None:
            return
        place.task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self.withdraw(place)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def withdraw(self, place: Waiting) -> None:
        """Leave the line. An item that was queued meanwhile stays queued."""
        if not place.withdrawn:
            place.withdrawn = True
            self.waiting.remove(place)

    def take(self) -> Any:
        """The oldest item; whoever waits longest gets its room. The mailbox must not be empty."""
        item = self.items.popleft()
        if self.waiting:
            place = self.waiting.popleft()
            place.withdrawn = True
            self.items.append(place.item)
            if place.task is not None:
                trio.lowlevel.reschedule(place.task)
        return item

    async def wait(self) -> None:
        """Park the reader until there is an item or the mailbox is closed."""
        if self.items or self.closed:
            return
        assert self.reader is None, "a mailbox has one reader"
        self.reader = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self.reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def close(self, why: str) -> list[Any]:
        """Take nothing more; gives back what was queued and what waited, for its senders to be told."""
        if self.closed:
            return []
        self.closed = why
        left = list(self.items)
        self.items.clear()
        for place in self.waiting:
            place.withdrawn = True
            left.append(place.item)
            if place.task is not None:
                trio.lowlevel.reschedule(place.task, outcome.Error(ActorDied(why)))
        self.waiting.clear()
        if self.reader is not None:
            self._wake()
        return left

    def _wake(self) -> None:
        reader, self.reader = self.reader, None
        if reader is not None:
            trio.lowlevel.reschedule(reader)
