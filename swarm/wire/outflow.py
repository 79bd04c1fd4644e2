"""The sending end of a stream to a peer: what an actor here gets as its `Sink`.

Its window is the reader's own: an offer that finds no credit is refused at once, as it would be for a reader on this node, and
no task stands between the actor and the connection's outbox.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from swarm.runtime.errors import SwarmError
from swarm.wire.codec import encode_reply
from swarm.wire.connection import Incoming
from swarm.wire.registry import WireMessage

T = TypeVar("T")


class Outflow(Generic[T]):
    """One stream of the peer's, as `runtime.ref.Sink`."""

    __slots__ = ("_declared", "_ended", "_incident", "_incoming", "forget")

    def __init__(
        self, incoming: Incoming, declared: WireMessage, incident: Callable[[Exception, str], SwarmError]
    ) -> None:
        self._incoming = incoming
        self._declared = declared
        self._incident = incident
        self._ended = False
        self.forget: Callable[[], None] = lambda: None
        """Called when the actor ends it."""

    @property
    def closed(self) -> bool:
        """Whether either side ended it."""
        return self._incoming.done

    def offer(self, item: T) -> bool:
        """Send without waiting; False when the reader is behind, or the stream is closed."""
        if not self._incoming.connection.mux.credit(self._incoming.number):
            return False
        body = self._encoded(item)
        return body is not None and self._incoming.offer(body)

    async def send(self, item: T) -> None:
        """Send, waiting for the reader; `trio.BrokenResourceError` when the stream is closed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        body = None if self._incoming.done else self._encoded(item)
        if body is None:
            raise trio.BrokenResourceError("the stream is closed")
        await self._incoming.send(body)

    def close(self) -> None:
        """No more items."""
        self._end()
        self._incoming.answer()

    def fail(self, error: SwarmError) -> None:
        """As `close`, but the reader's end is this error."""
        self._end()
        self._incoming.fail(error)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back once when the reader has gone (at once if it has). Not called for the actor's own `close`."""
        if not self._ended:
            self._incoming.on_cancel(callback)

    def _end(self) -> None:
        if not self._incoming.done:
            self._ended = True
            self.forget()

    def _encoded(self, item: T) -> bytes | None:
        try:
            return encode_reply(self._declared, item)
        except SwarmError as refusal:
            self.fail(refusal)
        # An item of a type that is not declared: a bug here, which the reader is told of by its number only.
        except Exception as bug:
            self.fail(self._incident(bug, self._declared.tag))
        return None
