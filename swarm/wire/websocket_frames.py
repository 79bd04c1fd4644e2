"""Binary messages out of a websocket's bytes (RFC 6455, section 5). Sans-IO.

One idea: what is the websocket's own business (ping, pong, close) is set aside, byte for byte, for the library that made the
handshake; only data frames are taken apart here. The library's general decoder costs a message forty times as much.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from wsproto.frame_protocol import XorMaskerSimple

FIN: Final = 0x80
RESERVED: Final = 0x70
OPCODE: Final = 0x0F
MASKED: Final = 0x80
LENGTH: Final = 0x7F
LENGTH_IN_2: Final = 126
LENGTH_IN_8: Final = 127
KEY_BYTES: Final = 4
SHORT_BYTES: Final = 1024
"""Up to here a payload is unmasked as one number: half the library's time at 300 bytes, twice its time at 64 KiB."""

CONTINUATION, TEXT, BINARY, CLOSE, PONG = 0x0, 0x1, 0x2, 0x8, 0xA

PROTOCOL_ERROR: Final = 1002
UNACCEPTABLE: Final = 1003
POLICY: Final = 1008
TOO_LARGE: Final = 1009


class FramingError(Exception):
    """The peer sent what it must not: `code` is what the websocket is closed with, the text says what it was."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def _unmasked(key: bytes, payload: bytes | bytearray) -> bytes:
    """Section 5.3: each byte is combined with the key's, in turn. As one number where that is faster."""
    size = len(payload)
    if size > SHORT_BYTES:
        return bytes(XorMaskerSimple(key).process(bytearray(payload)))
    keys = (key * (size // KEY_BYTES + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")


class Splitter:
    """One direction of a websocket. `from_client`: the sender has to mask (section 5.1); the receiver takes no other."""

    def __init__(self, *, from_client: bool, limit: int) -> None:
        self.messages: deque[bytes] = deque()
        """Whole binary messages, in order; the caller takes them out."""
        self.aside = bytearray()
        """Whole control frames as they came; the caller takes them out."""
        self.closing = False
        """The close frame is the last thing in `aside`: no message follows it."""
        self._mask = MASKED if from_client else 0
        self._limit = limit
        self._buffer = bytearray()
        self._parts: bytearray | None = None
        """A fragmented message, so far: one buffer, in which fragments without content take nothing."""

    def rest(self) -> bytes:
        """What was fed and not taken apart; it begins with a frame. Nothing is to be fed any more."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def feed(self, data: bytes) -> None:
        """Bytes came. `FramingError` when they are against the rules, or a message is larger than the limit."""
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        at = 0
        try:
            while not self.closing:
                end = self._frame(buffer, at)
                if end == at:
                    break
                at = end
        finally:  # what is refused is left at its beginning
            if buffer is data:
                self._buffer += data[at:]
            else:
                del self._buffer[:at]

    def _frame(self, buffer: bytes | bytearray, at: int) -> int:
        """Take apart the frame that begins at `at`: where it ends, or `at` when it is not complete."""
        had = len(buffer)
        if had < at + 2:
            return at
        first, second = buffer[at], buffer[at + 1]
        size, body = second & LENGTH, at + 2
        if size >= LENGTH_IN_2:
            body += 2 if size == LENGTH_IN_2 else 8
            if had < body:
                return at
            size = int.from_bytes(buffer[at + 2 : body], "big")
        if second & MASKED != self._mask or first & RESERVED:
            raise FramingError(PROTOCOL_ERROR, "a websocket frame with a wrong mask or reserved bits")
        self._check(first & OPCODE, size)
        if self._mask:
            body += KEY_BYTES
        end = body + size
        if had < end:
            return at
        if first & OPCODE >= CLOSE:
            self.aside += buffer[at:end]
            self.closing = first & OPCODE == CLOSE
        elif self._mask:
            self._data(first, _unmasked(bytes(buffer[body - KEY_BYTES : body]), buffer[body:end]))
        else:
            self._data(first, bytes(buffer[body:end]))
        return end

    def _check(self, opcode: int, size: int) -> None:
        if opcode == TEXT:
            raise FramingError(UNACCEPTABLE, "a text message")
        if opcode not in (CONTINUATION, BINARY) and not (CLOSE <= opcode <= PONG and size < LENGTH_IN_2):
            raise FramingError(PROTOCOL_ERROR, f"a websocket frame of kind {opcode} and {size} bytes")
        if opcode >= CLOSE:
            return
        parts = self._parts
        if (opcode == CONTINUATION) != (parts is not None):
            raise FramingError(PROTOCOL_ERROR, "fragments of websocket messages out of order")
        if len(parts or b"") + size > self._limit:
            raise FramingError(TOO_LARGE, f"Exceeded maximum message size: {self._limit} bytes")

    def _data(self, first: int, payload: bytes) -> None:
        if first & FIN and self._parts is None:
            self.messages.append(payload)
            return
        parts = self._parts = bytearray() if self._parts is None else self._parts
        parts += payload
        if first & FIN:
            self.messages.append(bytes(parts))
            self._parts = None


class Skipper:
    """Walks over the frames behind a refusal and keeps nothing of them but whether the peer's close came.

    What is no frame looks like one of some length: then no close is seen, and time has to end the connection.
    """

    def __init__(self) -> None:
        self.closed = False
        """The peer's close frame has come: it knows, and sends no more."""
        self._head = b""
        """The beginning of a frame that does not tell its length yet: thirteen bytes at the most."""
        self._left = 0
        """Bytes of the present frame that are still to come."""

    def feed(self, data: bytes) -> None:
        """Bytes came."""
        skipped = min(self._left, len(data))
        self._left -= skipped
        buffer, at = self._head + data[skipped:], 0
        while not self.closed and (size := _frame_bytes(buffer, at)):
            self.closed = buffer[at] & OPCODE == CLOSE
            self._left = max(0, at + size - len(buffer))
            at += size - self._left
        self._head = buffer[at:]


def _frame_bytes(buffer: bytes, at: int) -> int:
    """The length of the frame that begins at `at`, head included; 0 when its head is not whole."""
    if len(buffer) < at + 2:
        return 0
    second, body = buffer[at + 1], at + 2
    size = second & LENGTH
    if size >= LENGTH_IN_2:
        body += 2 if size == LENGTH_IN_2 else 8
        if len(buffer) < body:
            return 0
        size = int.from_bytes(buffer[at + 2 : body], "big")
    return body - at + (KEY_BYTES if second & MASKED else 0) + size
