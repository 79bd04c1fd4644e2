"""The multiplexer: calls and streams of both sides over one ordered pipe of frames. Sans-IO.

One idea: what may arrive when is a table, (state, frame) to handler; whatever has no entry is a `ProtocolError` with the
names of both. Local operations put frames into the outbox, `receive` turns the peer's frames into events, `take` hands
out the next batch. Every call but an offer ends with exactly one End or Fail of the side that serves it, also after a
Cancel, so both sides always know which calls are open. It never waits, reads no clock, and decodes no body.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, TypeAlias

from attrs import frozen

from swarm.runtime.errors import ErrorCode
from swarm.wire.events import (
    Answered,
    Cancelled,
    Credited,
    Ended,
    Event,
    Failed,
    GoneAway,
    ItemArrived,
    Opened,
    Ponged,
    Up,
    Wanted,
)
from swarm.wire.frames import (
    BATCH_BYTES,
    CANCEL,
    CREDIT,
    END,
    FAIL,
    FRAME_BYTES,
    GO_AWAY,
    HELLO,
    ITEM,
    NAMES,
    OFFER,
    OPEN,
    PING,
    STREAM,
    TELL,
    VERSION,
    WANT,
    Frame,
    Hello,
    Open,
    cut,
    frame_bytes,
)


@frozen
class Limits:
    """How much of each thing one connection holds at most."""

    calls: int = 4096
    """Calls of one side that are open at once; the next one is refused with MAILBOX_FULL."""
    held_bytes: int = 64 * 1024 * 1024
    """Bodies of the peer's calls that are not answered yet, and stream items that were not read yet."""
    outbox_bytes: int = 512 * 1024
    """`has_room` says no above this: callers wait, offers are dropped. Four batches keep a fast link busy."""
    outbox_bytes_max: int = 128 * 1024 * 1024
    """Answers and items are never refused; a peer that leaves this much unread has its connection ended."""


LIMITS: Final = Limits()


class ProtocolError(Exception):
    """The peer broke the protocol; the connection is of no use any more. The text names the state and the frame."""


class MuxClosed(Exception):
    """The connection has ended; the text says why."""


class TooManyCalls(Exception):
    """So many of our calls are open on this connection that the peer would refuse another."""


# --- states ----------------------------------------------------------------------------------------------------------
class State(Enum):
    """Of the connection (the first three), or of a call as this side sees it."""

    NEW = "before hello"
    UP = "up"
    OVER = "over"

    WAITING = "our call, not answered"
    READING = "our stream"
    CANCELLED = "our call, cancelled, its end still to come"
    OURS_GONE = "our call, ended"
    OURS_UNUSED = "a call of ours that was never made"
    SERVING = "the peer's call, not answered"
    FEEDING = "the peer's stream"
    THEIRS_GONE = "the peer's call, ended"
    THEIRS_UNUSED = "a call of the peer that is new"


class _Call:
    """One open call. Counts items and bytes; the body itself is the caller's."""

    __slots__ = ("bytes", "credit", "number", "state", "taken", "window")

    def __init__(self, number: int, state: State, window: int, size: int) -> None:
        self.number = number
        self.state = state
        self.window = window
        self.credit = window
        """Items that the feeding side may still send; both sides count it, and it is never negative."""
        self.taken = 0
        """Items consumed since the last Credit that we sent."""
        self.bytes = size
        """Held for it: the request's body, or unread items."""


WINDOW_MAX: Final = 65536
"""Largest window and credit that is honoured: more is a broken peer."""


class Mux:
    """One connection's calls. The dialler's have odd numbers, the accepting side's even ones."""

    def __init__(self, *, dialler: bool, limits: Limits = LIMITS) -> None:
        self.state = State.NEW
        self.limits = limits
        self.over = ""
        """Why it is over, once it is."""
        self._next = 1 if dialler else 2
        self._parity = self._next & 1
        self._last_theirs = 0
        self._ours: dict[int, _Call] = {}
        self._theirs: dict[int, _Call] = {}
        self._held_bytes = 0
        self._urgent: deque[Frame] = deque()
        """Hello, and GoAway before the connection is up: what may be sent before the peer's Hello."""
        self._outbox: deque[tuple[int, Frame]] = deque()
        self.outbox_bytes = 0
        self._events: list[Event] = []

    # --- local operations -------------------------------------------------------------------------------------------
    @property
    def open_calls(self) -> int:
        """Calls of both sides that are open."""
        return len(self._ours) + len(self._theirs)

    @property
    def has_room(self) -> bool:
        """Whether a caller may add a call now instead of waiting."""
        return self.outbox_bytes <= self.limits.outbox_bytes

    @property
    def overflown(self) -> bool:
        """Whether the peer reads so slowly that the connection is to be ended."""
        return self.outbox_bytes > self.limits.outbox_bytes_max

    @property
    def has_output(self) -> bool:
        """Whether `take` would return anything."""
        return bool(self._urgent) or (bool(self._outbox) and self.state is not State.NEW)

    def hello(self, session: str, lane: str) -> None:
        """Send ours; the first thing on every connection."""
        self._urgent.append(Hello(HELLO, VERSION, session, lane))

    def open(
        self,
        kind: int,
        tag: str,
        body: bytes,
        *,
        time_left_s: float | None = None,
        window: int = 0,
        chain: tuple[str, ...] = (),
        caller: tuple[str, str, str, str] | None = None,
    ) -> int:
        """Call the peer; the number under which events will name the call (0 for an offer, which has none).

        Queued behind the peer's Hello. `TooManyCalls`, `MuxClosed`.
        """
        if self.state is State.OVER:
            raise MuxClosed(self.over)
        number = 0
        if kind != OFFER:
            if len(self._ours) >= self.limits.calls:
                raise TooManyCalls(f"{len(self._ours)} calls are open on this connection")
            number = self._next
            self._next += 2
            state = State.READING if kind == STREAM else State.WAITING
            self._ours[number] = _Call(number, state, window, 0)
        size = FRAME_BYTES + len(tag) + len(body)
        self._put(size, Open(OPEN, number, kind, tag, body, time_left_s, window, chain, caller))
        return number

    def answer(self, call: int, body: bytes = b"") -> bool:
        """End the peer's call with its answer, or its stream. False when it was cancelled in the meantime."""
        if not self._drop_theirs(call):
            return False
        self._put(FRAME_BYTES + len(body), (END, call, body) if body else (END, call))
        return True

    def item(self, call: int, body: bytes) -> bool:
        """Send a stream's next item. False when it has no credit or is not open any more."""
        stream = self._theirs.get(call)
        if stream is None or stream.credit <= 0:
            return False
        stream.credit -= 1
        self._put(FRAME_BYTES + len(body), (ITEM, call, body))
        return True

    def credit(self, call: int) -> int | None:
        """Items that the peer's stream may be sent now; None when it is not open any more."""
        stream = self._theirs.get(call)
        return None if stream is None else stream.credit

    def fail(self, call: int, code: str, text: str, details: dict[str, str] | None = None) -> bool:
        """End the peer's call or stream with an error. False when it was cancelled in the meantime."""
        if not self._drop_theirs(call):
            return False
        frame = (FAIL, call, code, cut(text), details or {})
        self._put(frame_bytes(frame), frame)
        return True

    def cancel(self, call: int, reason: str) -> bool:
        """Give up on our call; no event names it from now on. False when it has ended already."""
        ours = self._ours.get(call)
        if ours is None or ours.state is State.CANCELLED:
            return False
        self._cancel(ours, reason)
        return True

    def taken(self, call: int, size: int) -> None:
        """An item of `size` bytes of our stream was consumed: room for more, told to the peer in halves of the window."""
        stream = self._ours.get(call)
        if stream is None or stream.state is not State.READING:
            return
        stream.bytes -= size
        self._held_bytes -= size
        stream.taken += 1
        if stream.taken * 2 >= stream.window:
            stream.credit += stream.taken
            self._put(FRAME_BYTES, (CREDIT, call, stream.taken))
            stream.taken = 0

    def ping(self, number: int) -> None:
        """Ask the peer for a sign of life."""
        self._put(FRAME_BYTES, (PING, number, False))

    def want(self, lane: str) -> None:
        """Ask the dialler to open a lane."""
        self._put(FRAME_BYTES + len(lane), (WANT, lane))

    def go_away(self, reason: str) -> None:
        """Tell the peer why the connection ends now; nothing else is sent or taken in after it."""
        if self.state is State.OVER:
            return
        frame = (GO_AWAY, cut(reason))
        if self.state is State.NEW:
            self._outbox.clear()
            self.outbox_bytes = 0
            self._urgent.append(frame)
        else:
            self._put(frame_bytes(frame), frame)
        self._end(reason)

    def take(self, batch_bytes: int = BATCH_BYTES) -> list[Frame]:
        """The next frames to send as one message, about `batch_bytes` of them; empty when there is nothing to send."""
        batch: list[Frame] = []
        while self._urgent:
            batch.append(self._urgent.popleft())
        if self.state is State.NEW:
            return batch
        outbox, size = self._outbox, 0
        while outbox and size < batch_bytes:
            frame_size, frame = outbox.popleft()
            size += frame_size
            batch.append(frame)
        self.outbox_bytes -= size
        return batch

    # --- the peer's frames ------------------------------------------------------------------------------------------
    def receive(self, frames: Iterable[Frame]) -> list[Event]:
        """What these frames of the peer mean, in order. `ProtocolError` when one of them may not come now."""
        for frame in frames:
            kind = frame[0]
            call = None
            state = self.state
            if state is State.UP and OPEN <= kind <= CANCEL:
                number: int = frame[1]
                ours = (number & 1) == self._parity
                call = (self._ours if ours else self._theirs).get(number)
                if call is not None:
                    state = call.state
                elif ours and number:
                    state = State.OURS_GONE if number < self._next else State.OURS_UNUSED
                else:
                    new = number > self._last_theirs or (kind == OPEN and frame[2] == OFFER and number == 0)
                    state = State.THEIRS_UNUSED if new else State.THEIRS_GONE
            handler = _TABLE.get((state, kind))
            if handler is None:
                about = f" {frame[1]}" if OPEN <= kind <= CANCEL else ""
                raise ProtocolError(f"{NAMES[kind]}{about} came in state {state.value!r}")
            handler(self, call, frame)
        events, self._events = self._events, []
        return events

    def _on_hello(self, call: _Call | None, frame: Frame) -> None:
        hello = Hello(*frame[:4])
        self.state = State.UP
        self._events.append(Up(hello))

    def _on_ping(self, call: _Call | None, frame: Frame) -> None:
        if frame[2]:
            self._events.append(Ponged(frame[1]))
        else:
            self._put(FRAME_BYTES, (PING, frame[1], True))

    def _on_want(self, call: _Call | None, frame: Frame) -> None:
        self._events.append(Wanted(frame[1]))

    def _on_go_away(self, call: _Call | None, frame: Frame) -> None:
        self._outbox.clear()
        self.outbox_bytes = 0
        self._end(frame[1])
        self._events.append(GoneAway(frame[1]))

    def _on_open(self, call: _Call | None, frame: Frame) -> None:
        opened = Open(*frame[:9])
        number, kind, size = opened.call, opened.kind, len(opened.body)
        if kind == OFFER:
            if number:
                raise ProtocolError(f"an offer with the number {number}")
            self._events.append(Opened(0, opened))
            return
        if not number or not TELL <= kind <= STREAM or not 0 <= opened.window <= WINDOW_MAX:
            raise ProtocolError(f"open {number} of kind {kind} with window {opened.window}")
        self._last_theirs = number
        state = State.FEEDING if kind == STREAM else State.SERVING
        self._theirs[number] = _Call(number, state, opened.window, size)
        self._held_bytes += size
        if len(self._theirs) > self.limits.calls:
            self.fail(number, ErrorCode.MAILBOX_FULL, f"more than {self.limits.calls} calls are open on this link")
        elif self._held_bytes > self.limits.held_bytes:
            self.fail(number, ErrorCode.MAILBOX_FULL, f"calls of more than {self.limits.held_bytes} bytes are waiting")
        else:
            self._events.append(Opened(number, opened))

    def _on_answer(self, call: _Call | None, frame: Frame) -> None:
        assert call is not None
        self._drop_ours(call)
        self._events.append(Answered(call.number, frame[2] if len(frame) > 2 else b""))

    def _on_end(self, call: _Call | None, frame: Frame) -> None:
        assert call is not None
        self._drop_ours(call)
        self._events.append(Ended(call.number))

    def _on_fail(self, call: _Call | None, frame: Frame) -> None:
        assert call is not None
        self._drop_ours(call)
        details = {str(key): str(value) for key, value in frame[4].items()} if len(frame) > 4 else {}
        self._events.append(Failed(call.number, frame[2], frame[3], details))

    def _on_item(self, call: _Call | None, frame: Frame) -> None:
        assert call is not None
        body: bytes = frame[2]
        if call.credit <= 0:
            raise ProtocolError(f"item {call.number} came without credit")
        call.credit -= 1
        call.bytes += len(body)
        self._held_bytes += len(body)
        if self._held_bytes > self.limits.held_bytes:
            text = f"more than {self.limits.held_bytes} bytes of this link's streams are unread"
            self._cancel(call, text)
            self._events.append(Failed(call.number, ErrorCode.OVERRUN, text, {}))
        else:
            self._events.append(ItemArrived(call.number, body))

    def _on_credit(self, call: _Call | None, frame: Frame) -> None:
        assert call is not None
        if not 0 < frame[2] <= WINDOW_MAX or call.credit + frame[2] > call.window:
            raise ProtocolError(f"credit {call.number} of {frame[2]} on top of {call.credit}, window {call.window}")
        call.credit += frame[2]
        self._events.append(Credited(call.number))

    def _on_cancel(self, call: _Call | None, frame: Frame) -> None:
        assert call is not None
        reason = frame[2] if len(frame) > 2 else ""
        self.fail(call.number, ErrorCode.TIMEOUT, "the caller gave up")
        self._events.append(Cancelled(call.number, reason))

    def _on_end_of_cancelled(self, call: _Call | None, frame: Frame) -> None:
        assert call is not None
        self._drop_ours(call)

    def _ignore(self, call: _Call | None, frame: Frame) -> None:
        """A frame that crossed with the one that made it pointless."""

    # --- bookkeeping ------------------------------------------------------------------------------------------------
    def _put(self, size: int, frame: Frame) -> None:
        if self.state is State.OVER:
            return
        self._outbox.append((size, frame))
        self.outbox_bytes += size

    def _cancel(self, call: _Call, reason: str) -> None:
        call.state = State.CANCELLED
        self._held_bytes -= call.bytes
        call.bytes = 0
        frame = (CANCEL, call.number, cut(reason))
        self._put(frame_bytes(frame), frame)

    def _drop_ours(self, call: _Call) -> None:
        del self._ours[call.number]
        self._held_bytes -= call.bytes

    def _drop_theirs(self, number: int) -> bool:
        call = self._theirs.pop(number, None)
        if call is None:
            return False
        self._held_bytes -= call.bytes
        return True

    def _end(self, reason: str) -> None:
        self.state = State.OVER
        self.over = reason
        self._ours.clear()
        self._theirs.clear()
        self._held_bytes = 0


_Handler: TypeAlias = Callable[[Mux, "_Call | None", Frame], None]

_TABLE: Final[dict[tuple[State, int], _Handler]] = {
    # the connection
    (State.NEW, HELLO): Mux._on_hello,
    (State.NEW, GO_AWAY): Mux._on_go_away,
    (State.UP, PING): Mux._on_ping,
    (State.UP, WANT): Mux._on_want,
    (State.UP, GO_AWAY): Mux._on_go_away,
    # after our GoAway, or behind theirs: what was under way
    **{(State.OVER, kind): Mux._ignore for kind in range(len(NAMES))},
    # calls that we made
    (State.WAITING, END): Mux._on_answer,
    (State.WAITING, FAIL): Mux._on_fail,
    (State.READING, ITEM): Mux._on_item,
    (State.READING, END): Mux._on_end,
    (State.READING, FAIL): Mux._on_fail,
    (State.CANCELLED, ITEM): Mux._ignore,
    (State.CANCELLED, END): Mux._on_end_of_cancelled,
    (State.CANCELLED, FAIL): Mux._on_end_of_cancelled,
    # calls that the peer made
    (State.THEIRS_UNUSED, OPEN): Mux._on_open,
    (State.SERVING, CANCEL): Mux._on_cancel,
    (State.FEEDING, CREDIT): Mux._on_credit,
    (State.FEEDING, CANCEL): Mux._on_cancel,
    (State.THEIRS_GONE, CREDIT): Mux._ignore,
    (State.THEIRS_GONE, CANCEL): Mux._ignore,
}
