"""Bytes of the Engine's log endpoint to lines. Pure.

Without a terminal the two streams come in frames, `stream, 0, 0, 0, length` in eight bytes before each; with one there is
a single raw stream. Every line starts with its time, RFC 3339 with nanoseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime

from swarm.executors.base import LogLine, Stream
from swarm.model.ids import Instant

_HEADER = struct.Struct(">BxxxL")
_STREAMS = {0: Stream.STDOUT, 1: Stream.STDOUT, 2: Stream.STDERR}
LINE_BYTES_MAX = 64 << 10
"""Longer lines are handed out in pieces."""
_TIME_BYTES_MAX = 40


class Demultiplexer:
    """Takes chunks as they come and gives whole lines; `end` gives what is left."""

    def __init__(self, *, tty: bool) -> None:
        self._tty = tty
        self._frames = b""
        self._lines: dict[Stream, bytes] = {}

    def feed(self, chunk: bytes) -> Iterator[LogLine]:
        """The lines that this chunk completes."""
        if self._tty:
            yield from self._text(Stream.STDOUT, chunk)
            return
        self._frames += chunk
        while len(self._frames) >= _HEADER.size:
            number, length = _HEADER.unpack_from(self._frames)
            end = _HEADER.size + length
            if len(self._frames) < end:
                return
            payload, self._frames = self._frames[_HEADER.size : end], self._frames[end:]
            yield from self._text(_STREAMS.get(number, Stream.STDERR), payload)

    def end(self) -> Iterator[LogLine]:
        """Last lines without a newline."""
        for stream, rest in self._lines.items():
            if rest:
                yield self._line(stream, rest)
        self._lines.clear()

    def _text(self, stream: Stream, data: bytes) -> Iterator[LogLine]:
        *whole, rest = (self._lines.get(stream, b"") + data).split(b"\n")
        for line in whole:
            yield self._line(stream, line)
        if len(rest) > LINE_BYTES_MAX:
            yield self._line(stream, rest)
            rest = b""
        self._lines[stream] = rest

    def _line(self, stream: Stream, line: bytes) -> LogLine:
        at, text = split_time(line)
        return LogLine(stream, text.removesuffix(b"\r") if self._tty else text, at)


def split_time(line: bytes) -> tuple[Instant, bytes]:
    """The time before the first space, and what follows; time 0 and the whole line when there is none."""
    head, space, text = line.partition(b" ")
    if len(head) <= _TIME_BYTES_MAX and head[4:5] == b"-":
        try:
            return parse_time(head.decode("ascii")), text
        except ValueError:
            pass
    return Instant(0.0), line if space else head


def parse_time(text: str) -> Instant:
    """`2026-11-21T04:02:21.708285879Z`, or with an offset, to seconds since 1970."""
    seconds, dot, fraction = text.partition(".")
    if not dot:
        return Instant(datetime.fromisoformat(text).timestamp())
    digits = fraction.rstrip("Z")
    for sign in "+-":
        digits = digits.partition(sign)[0]
    zone = fraction[len(digits) :]
    whole = datetime.fromisoformat(seconds + zone.replace("Z", "+00:00"))
    return Instant(whole.replace(tzinfo=whole.tzinfo or UTC).timestamp() + float(f"0.{digits}"))


def format_time(at: Instant) -> str:
    """An instant as the Engine API takes it: seconds, a dot, nine digits."""
    return f"{max(0.0, at):.9f}"
