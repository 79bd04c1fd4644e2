"""Refs to actors at the other end of a link: the four calls of `Ref`, with the same meaning as for an actor here.

The time left and the chain of asks travel with each call; cancelling a caller cancels the far job. A tell waits until the far
mailbox has taken the message, so that it means what it means locally.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from swarm.runtime.context import asking, qualify
from swarm.runtime.errors import AskTimeout, SwarmError
from swarm.runtime.message import Message, Request, Subscribe
from swarm.runtime.ref import DEFAULT_WINDOW, Inlet
from swarm.wire.codec import declaration, decode_reply, encode_message
from swarm.wire.connection import Connection, Inflow
from swarm.wire.frames import ASK, STREAM, TELL
from swarm.wire.registry import WireMessage

if TYPE_CHECKING:
    from swarm.wire.link import Link

R = TypeVar("R")
T = TypeVar("T")
Caller = tuple[str, str, str, str]


class RemoteRef:
    """An actor of the peer, by name. Raises UNAVAILABLE once the link has ended."""

    __slots__ = ("link", "name")

    def __init__(self, link: Link, name: str) -> None:
        self.link = link
        self.name = name

    def __repr__(self) -> str:
        return f"<Ref {self.name} of {self.link}>"

    def offer(self, message: Message) -> bool:
        """Never waits; False when the link is over or its outbox full. True does not mean that it arrived."""
        declared = self._declared(message)
        try:
            connection = self.link.connection(declared.lane)
            if not connection.mux.has_room:
                return False
            connection.offer(declared.tag, encode_message(declared, message), prompt=declared.prompt)
        except SwarmError:
            return False
        return True

    async def tell(self, message: Message) -> None:
        """Waits until the far mailbox has it; the `SwarmError` that it was refused with."""
        declared = self._declared(message)
        connection = self.link.connection(declared.lane)
        body = encode_message(declared, message)
        await connection.room()
        context = asking()
        await connection.answer_to(TELL, declared.tag, body, chain=qualify(context.chain, self.link.owner.node_id))

    async def ask(self, request: Request[R], *, timeout_s: float) -> R:
        """The answer; see `Ref.ask`. UNAVAILABLE when the link ends first: whether it was acted on is not known."""
        declared = self._declared(request)
        connection = self.link.connection(declared.lane)
        body = encode_message(declared, request)
        context = asking()
        chain = qualify(context.chain, self.link.owner.node_id) if context.chain else ()
        deadline = min(trio.current_time() + timeout_s, context.deadline)
        with trio.CancelScope(deadline=deadline):
            if not connection.mux.has_room:
                await connection.room()
            left = deadline - trio.current_time()
            answer = await connection.answer_to(ASK, declared.tag, body, time_left_s=left, chain=chain)
            value: R = decode_reply(declared, answer)
            return value
        raise AskTimeout(f"{self.link} did not answer in time ({timeout_s:g} s)")

    def stream(self, request: Subscribe[T], *, window: int = DEFAULT_WINDOW) -> RemoteStream[T]:
        """A stream for as long as the context lasts; leaving it ends it on the far side."""
        return RemoteStream(self.link, self._declared(request), request, window)

    def _declared(self, message: object) -> WireMessage:
        declared = declaration(message)
        if declared.to != self.name:
            raise TypeError(f"{declared.tag} is for the actor {declared.to!r}, not for {self.name!r}")
        return declared


class RemoteStream(AbstractAsyncContextManager[Inlet[T]], Generic[T]):
    """A subscription at the peer."""

    __slots__ = ("_declared", "_inlet", "_link", "_request", "_window")

    def __init__(self, link: Link, declared: WireMessage, request: Subscribe[T], window: int) -> None:
        self._link = link
        self._declared = declared
        self._request = request
        self._window = window
        self._inlet: RemoteInlet[T] | None = None

    async def __aenter__(self) -> Inlet[T]:
        connection = self._link.connection(self._declared.lane)
        body = encode_message(self._declared, self._request)
        await connection.room()
        chain = qualify(asking().chain, self._link.owner.node_id)
        self._inlet = RemoteInlet(connection, self._declared, body, self._window, chain=chain)
        return self._inlet

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._inlet is not None:
            self._inlet.leave()


class RemoteInlet(Generic[T]):
    """The receiving end of a stream from the peer; reading an item gives the peer room for another."""

    __slots__ = ("_connection", "_declared", "_inflow", "_number")

    def __init__(self, connection: Connection, declared: WireMessage, body: bytes, window: int, **options: Any) -> None:
        self._connection = connection
        self._declared = declared
        self._inflow = Inflow(window)
        self._number = connection.call(self._inflow, STREAM, declared.tag, body, window=window, **options)

    async def receive_body(self) -> bytes:
        """The next item as it came; `trio.EndOfChannel` after the last, `SwarmError` when the stream failed."""
        body = await self._inflow.pipe.receive()
        self._connection.taken(self._number, body)
        return body

    async def receive(self) -> T:
        """The next item; `trio.EndOfChannel` after the last, `SwarmError` when the stream failed."""
        item: T = decode_reply(self._declared, await self.receive_body())
        return item

    def __aiter__(self) -> RemoteInlet[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def leave(self) -> None:
        """No more is wanted."""
        self._connection.give_up(self._number, "the subscriber has gone")
        self._inflow.pipe.leave()
