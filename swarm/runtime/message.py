"""The three kinds of message between actors. Subclasses are frozen attrs classes and hold data only.

class Tick(Message): ...                        one way
class Heartbeat(Request[HeartbeatReply]): ...   answered once
class Watch(Subscribe[Committed]): ...          answered by a stream
"""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import frozen

R = TypeVar("R")
T = TypeVar("T")


@frozen
class Message:
    """One way: the sender learns nothing of what became of it."""


@frozen
class Request(Generic[R]):
    """Answered exactly once: with an R, or with an error."""


@frozen
class Subscribe(Generic[T]):
    """Answered by a stream of T that either side may end."""
