"""One connection of a link: drives a multiplexer over a transport, with one writer task and one reader task.

One idea: callers only put frames into the multiplexer's outbox; the writer wakes, drains the whole outbox into messages of
about 128 KiB at most, and is the only one who sends, so that a cancelled caller cannot tear a TLS record and many small
frames cost one websocket message. The reader always reads: what arrives is handed on without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import outcome
import trio

from swarm.ports.net import PromptTransport, Transport, TransportClosed
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.stream import Pipe
from swarm.wire import events as e
from swarm.wire import mux as m
from swarm.wire.errors import error_of
from swarm.wire.frames import BATCH_BYTES, OFFER, Frame, FrameError, Open, decode_batch, encode_batch

if TYPE_CHECKING:
    from swarm.wire.link import Link

FLUSH_S: Final = 2.0
"""For sending what is left, GoAway included, once a connection is to end."""


class Pending(Protocol):
    """Whoever waits on this side for a call that was made to the peer."""

    def answered(self, body: bytes) -> None:
        """The call was answered."""

    def failed(self, error: SwarmError) -> None:
        """The call was refused, or its connection ended."""

    def arrived(self, body: bytes) -> None:
        """The stream's next item."""

    def ended(self) -> None:
        """The stream is complete."""


class Waiter:
    """A task that is parked until its ask or tell is answered."""

    __slots__ = ("_task",)

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self._task = task

    def answered(self, body: bytes) -> None:
        """Wake it with the answer."""
        trio.lowlevel.reschedule(self._task, outcome.Value(body))

    def failed(self, error: SwarmError) -> None:
        """Wake it with the error."""
        trio.lowlevel.reschedule(self._task, outcome.Error(error))

    def arrived(self, body: bytes) -> None:
        """An ask has no items; the multiplexer has refused this frame."""
        raise AssertionError

    def ended(self) -> None:
        """An ask has no end without an answer; the multiplexer has refused this frame."""
        raise AssertionError


class Inflow:
    """The receiving end of a stream from the peer: bodies, at most the window of them."""

    __slots__ = ("pipe",)

    def __init__(self, window: int) -> None:
        self.pipe: Pipe[bytes] = Pipe(window)

    def answered(self, body: bytes) -> None:
        """A stream is not answered; the multiplexer has refused this frame."""
        raise AssertionError

    def failed(self, error: SwarmError) -> None:
        """What is buffered is read first, then the error."""
        self.pipe.fail(error)

    def arrived(self, body: bytes) -> None:
        """Buffer it. Credit keeps the peer within the window."""
        room = self.pipe.offer(body)
        assert room or self.pipe.closed

    def ended(self) -> None:
        """What is buffered is read first, then the end."""
        self.pipe.close()


class Incoming:
    """A call of the peer, until it is answered, failed, or given up by the peer or with the connection."""

    __slots__ = ("_callbacks", "_credit", "connection", "deadline", "done", "number", "open")

    def __init__(self, connection: Connection, number: int, opened: Open) -> None:
        self.connection = connection
        self.number = number
        self.open = opened
        self.deadline = float("inf")
        """`trio.current_time()` at which the peer gives up."""
        if opened.time_left_s is not None:
            self.deadline = trio.current_time() + opened.time_left_s
        self.done = number == 0
        """Whether nothing more can be said on it; an offer never is answered."""
        self._callbacks: list[Callable[[], object]] = []
        self._credit: trio.Event | None = None

    @property
    def link(self) -> Link:
        """The link that it came over."""
        return self.connection.link

    def answer(self, body: bytes = b"") -> None:
        """The answer, or the end of the stream; nothing happens when the peer gave up."""
        if not self.done:
            self._finish()
            self.connection.mux.answer(self.number, body)
            self.connection.kick()

    def fail(self, error: SwarmError) -> None:
        """The refusal; nothing happens when the peer gave up."""
        if not self.done:
            self._finish()
            self.connection.mux.fail(self.number, error.code.value, error.text, error.details)
            self.connection.kick()

    def offer(self, body: bytes) -> bool:
        """The stream's next item, if it has credit; False when it has none, or is over."""
        if not self.connection.mux.item(self.number, body):
            return False
        self.connection.kick()
        return True

    async def send(self, body: bytes) -> None:
        """The stream's next item, waiting for credit and room; `trio.BrokenResourceError` when it is over."""
        while not self.connection.mux.has_room and not self.done:
            await self.connection.parked()
        while not self.offer(body):
            if self.done:
                raise trio.BrokenResourceError("the subscriber has gone")
            self._credit = trio.Event()
            await self._credit.wait()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call back when the peer gives up or the connection ends (at once if that has happened)."""
        if self.done:
            callback()
        else:
            self._callbacks.append(callback)

    def credited(self) -> None:
        """More items may be sent."""
        if self._credit is not None:
            self._credit.set()

    def cancelled(self) -> None:
        """The peer gave up, or the connection ended."""
        if self.done:
            return
        callbacks = self._callbacks
        self._finish()
        for callback in callbacks:
            callback()

    def _finish(self) -> None:
        self.done = True
        self._callbacks = []
        self.connection.served.pop(self.number, None)
        self.credited()


class Connection:
    """A lane's connection. Calls may be made before it has a transport: they wait in the outbox, bounded as always."""

    def __init__(self, link: Link, lane: str, *, dialler: bool, limits: m.Limits) -> None:
        self.link = link
        self.lane = lane
        self.mux = m.Mux(dialler=dialler, limits=limits)
        self.up = trio.Event()
        """The peer's Hello came, or the connection is over."""
        self.heard = True
        """Whether anything arrived since the link last looked."""
        self.pending: dict[int, Pending] = {}
        self.served: dict[int, Incoming] = {}
        self._room = trio.lowlevel.ParkingLot()
        self._writer: trio.lowlevel.Task | None = None
        self._transport: Transport | None = None
        self._prompt: PromptTransport | None = None
        """The transport, if it can send without waiting."""
        self._unfinished = False
        """`flush` began a message that the writer is to finish."""
        self._scope = trio.CancelScope()
        self.mux.hello(link.session, lane)

    @property
    def attached(self) -> bool:
        """Whether it has a transport."""
        return self._transport is not None

    # --- calls to the peer ------------------------------------------------------------------------------------------
    async def room(self) -> None:
        """Wait until the outbox has room; UNAVAILABLE when the connection is over."""
        while not self.mux.has_room and not self.mux.over:
            await self.parked()
        if self.mux.over:
            raise self.link.gone(self.mux.over)

    async def parked(self) -> None:
        """Wait until the outbox may have room, or the connection is over."""
        await self._room.park()

    def offer(self, tag: str, body: bytes, *, prompt: bool) -> None:
        """Put an offer into the outbox, and send it in this very turn if it is to be prompt. Raises UNAVAILABLE."""
        try:
            self.mux.open(OFFER, tag, body)
        except m.MuxClosed:
            raise self.link.gone() from None
        if prompt:
            self.flush()
        else:
            self.kick()

    def call(self, pending: Pending | None, kind: int, tag: str, body: bytes, **options: Any) -> int:
        """Put an Open into the outbox; `pending` hears of its outcome (None for offers). Raises UNAVAILABLE."""
        try:
            number = self.mux.open(kind, tag, body, **options)
        except m.MuxClosed:
            raise self.link.gone() from None
        except m.TooManyCalls as error:
            raise SwarmError(ErrorCode.MAILBOX_FULL, f"{error} to {self.link}; try again") from None
        if pending is not None:
            self.pending[number] = pending
        self.kick()
        return number

    async def answer_to(self, kind: int, tag: str, body: bytes, **options: Any) -> bytes:
        """Make an ask or a tell and wait for its answer; being cancelled cancels it on the far side."""
        waiter = Waiter(trio.lowlevel.current_task())
        number = self.call(waiter, kind, tag, body, **options)

        def abort(_: object) -> trio.lowlevel.Abort:
            self.give_up(number, "the caller gave up")
            return trio.lowlevel.Abort.SUCCEEDED

        answer: bytes = await trio.lowlevel.wait_task_rescheduled(abort)
        return answer

    def give_up(self, number: int, reason: str) -> None:
        """No outcome is wanted any more."""
        if self.pending.pop(number, None) is not None:
            self.mux.cancel(number, reason)
            self.kick()

    def taken(self, number: int, body: bytes) -> None:
        """A stream's item was read."""
        self.mux.taken(number, len(body))
        self.kick()

    def kick(self) -> None:
        """There may be something to send."""
        if self.mux.overflown and not self.mux.over:
            self.end("the peer does not read what it asked for")
        if self._writer is not None and (self.mux.has_output or self.mux.over):
            self._wake_writer()

    def _wake_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            trio.lowlevel.reschedule(writer)

    def flush(self) -> None:
        """Send what there is in this very turn, if that can be done without waiting; else the writer does, as ever.

        For a caller that has gathered all it has to say: waking the writer would cost it a turn of the loop and gather no more.
        """
        transport, mux = self._prompt, self.mux
        if (
            transport is None
            or self._writer is None
            or mux.over
            or not mux.has_output
            or mux.outbox_bytes > BATCH_BYTES
        ):
            return self.kick()
        try:
            if transport.begin(encode_batch(mux.take())):
                return None
        except TransportClosed:
            pass  # the reader finds out why, and the writer meets it again
        self._unfinished = True
        return self._wake_writer()

    def end(self, reason: str) -> None:
        """Tell the peer why, send what is left for `FLUSH_S`, then close."""
        self.mux.go_away(reason)
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + FLUSH_S)
        self.kick()
        self._over()

    # --- the two tasks ----------------------------------------------------------------------------------------------
    async def run(self, transport: Transport, first: Sequence[Frame] = ()) -> str:
        """Carry frames until the connection is over; why. `first` are frames that were read from it already."""
        self._transport = transport
        self._prompt = transport if isinstance(transport, PromptTransport) else None
        why = ""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, transport, nursery.cancel_scope)
                    why = await self._read(transport, first)
                    # What we were about to say (an error, GoAway) still goes out while the transport takes it.
                    self._scope.deadline = min(self._scope.deadline, trio.current_time() + FLUSH_S)
                    self.mux.go_away(why)
                    self.kick()
        finally:
            self.mux.go_away(why or "the connection was closed")
            self._over()
            await transport.aclose()
        return self.mux.over

    async def _write(self, transport: Transport, scope: trio.CancelScope) -> None:
        mux = self.mux
        try:
            while True:
                if self._unfinished and self._prompt is not None:
                    self._unfinished = False
                    await self._prompt.finish()
                batch = mux.take()
                if batch:
                    await transport.send(encode_batch(batch))
                    if mux.has_room:
                        self._room.unpark_all()
                elif mux.over:
                    return scope.cancel()
                else:
                    self._writer = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._unpark)
        except TransportClosed:
            # The reader may still find why, a GoAway that was on its way; it has as long for it as a flush.
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + FLUSH_S)

    def _unpark(self, _: object) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _read(self, transport: Transport, first: Sequence[Frame]) -> str:
        try:
            self._receive(first)
            while not self.mux.over:
                self._receive(decode_batch(await transport.receive()))
        except TransportClosed as closed:
            return f"the connection ended: {closed}"
        except (FrameError, m.ProtocolError) as error:
            return f"protocol error: {error}"
        return self.mux.over

    def _receive(self, frames: Sequence[Frame]) -> None:
        self.heard = True
        for event in self.mux.receive(frames):
            _ON[type(event)](self, event)
        self.kick()

    def _on_up(self, event: e.Up) -> None:
        self.up.set()

    def _on_opened(self, event: e.Opened) -> None:
        incoming = Incoming(self, event.call, event.open)
        if event.call:
            self.served[event.call] = incoming
        self.link.handler.handle(incoming)

    def _on_answered(self, event: e.Answered) -> None:
        pending = self.pending.pop(event.call, None)
        if pending is not None:
            pending.answered(event.body)

    def _on_failed(self, event: e.Failed) -> None:
        pending = self.pending.pop(event.call, None)
        if pending is not None:
            pending.failed(error_of(event.code, event.text, event.details))

    def _on_item(self, event: e.ItemArrived) -> None:
        pending = self.pending.get(event.call)
        if pending is not None:
            pending.arrived(event.body)

    def _on_ended(self, event: e.Ended) -> None:
        pending = self.pending.pop(event.call, None)
        if pending is not None:
            pending.ended()

    def _on_cancelled(self, event: e.Cancelled) -> None:
        incoming = self.served.get(event.call)
        if incoming is not None:
            incoming.cancelled()

    def _on_credited(self, event: e.Credited) -> None:
        incoming = self.served.get(event.call)
        if incoming is not None:
            incoming.credited()

    def _on_ponged(self, event: e.Ponged) -> None:
        """That it arrived is all that counts."""

    def _on_wanted(self, event: e.Wanted) -> None:
        self.link.wanted(event.lane)

    def _on_gone_away(self, event: e.GoneAway) -> None:
        self._over()

    def _over(self) -> None:
        self.up.set()
        self._room.unpark_all()
        pending, self.pending = self.pending, {}
        for waiting in pending.values():
            waiting.failed(self.link.gone(self.mux.over))
        for incoming in list(self.served.values()):
            incoming.cancelled()


_ON: Final[dict[type, Callable[[Connection, Any], None]]] = {
    e.Up: Connection._on_up,
    e.Opened: Connection._on_opened,
    e.Answered: Connection._on_answered,
    e.Failed: Connection._on_failed,
    e.ItemArrived: Connection._on_item,
    e.Ended: Connection._on_ended,
    e.Cancelled: Connection._on_cancelled,
    e.Credited: Connection._on_credited,
    e.Ponged: Connection._on_ponged,
    e.Wanted: Connection._on_wanted,
    e.GoneAway: Connection._on_gone_away,
}
