"""How actors are reached: the same four calls whether the actor is on this node or across the wire.

Protocols only, and the `Caller` that a turn sees. The local implementation is `runtime/local.py`, the remote one belongs
to the wire. Nothing here may know how a message travels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from attrs import frozen

from swarm.runtime.errors import SwarmError
from swarm.runtime.message import Message, Request, Subscribe

R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

DEFAULT_WINDOW = 64
"""Items that a stream holds for a reader that is behind."""

LOCAL_ACTOR = "actor"
"""The role of callers on this node that are not peers."""


@frozen
class Caller:
    """Who asks, from the link that the message came over; never from the message."""

    node_id: str = ""
    role: str = LOCAL_ACTOR
    """A `PeerRole` value as text, or `LOCAL_ACTOR`."""
    cluster_id: str = ""
    address: str = ""

    @property
    def is_local_actor(self) -> bool:
        """Whether it is an actor (or other code) of this very node."""
        return self.role == LOCAL_ACTOR

    @staticmethod
    def here() -> Caller:
        """The caller that local actors are."""
        return HERE


HERE = Caller()


class Inlet(Protocol[T_co]):
    """The receiving end of a stream: `async for item in inlet`, or item by item."""

    async def receive(self) -> T_co:
        """The next item; `trio.EndOfChannel` when the actor closed the stream, `SwarmError` when it failed."""
        ...

    def __aiter__(self) -> Inlet[T_co]: ...

    async def __anext__(self) -> T_co: ...


class Sink(Protocol[T_contra]):
    """The sending end of a stream, kept by the actor for as long as it has something to say."""

    @property
    def closed(self) -> bool:
        """Whether either side ended it."""
        ...

    def offer(self, item: T_contra) -> bool:
        """Send without waiting; False when the window is full or the stream is closed."""
        ...

    async def send(self, item: T_contra) -> None:
        """Send, waiting for room (from a job); `trio.BrokenResourceError` when the stream is closed."""
        ...

    def close(self) -> None:
        """No more items; the reader gets what is buffered, then the end. Closed already: nothing happens."""
        ...

    def fail(self, error: SwarmError) -> None:
        """As `close`, but the reader's end is this error."""
        ...

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back once when the reader has gone (at once if it has). Not called for the actor's own `close`."""
        ...


class Ref(Protocol):
    """An actor, near or far."""

    @property
    def name(self) -> str:
        """The actor's name, for logs."""
        ...

    def offer(self, message: Message) -> bool:
        """Never waits; False when the mailbox is full or the actor is gone: the message is dropped."""
        ...

    async def tell(self, message: Message) -> None:
        """Waits for room in the mailbox; `ActorDied` when the actor is gone."""
        ...

    async def ask(self, request: Request[R], *, timeout_s: float) -> R:
        """The answer. Raises the `SwarmError` that the actor refused with, `ActorDied`, `AskTimeout`, `WouldDeadlock`."""
        ...

    def stream(self, request: Subscribe[T], *, window: int = DEFAULT_WINDOW) -> AbstractAsyncContextManager[Inlet[T]]:
        """A stream that lasts as long as its context; `window` items are held for a reader that is behind."""
        ...
