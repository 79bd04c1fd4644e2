"""A process task's output on this node's disk: bounding it, timing it, reading it.

Its one idea: the task writes into two plain files in append mode and depends on no reader; the node bounds a file by
punching a hole at its head, which moves no byte and no offset under the writer, so that nothing is lost between a copy
and a cut. Where the file system has no holes, the file is cut to nothing when it is full, and that is said in the log.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator

import trio

from swarm.executors.base import LogLine, LogOptions, Stream
from swarm.executors.process.layout import Layout
from swarm.executors.process.marks import (
    MARK_BYTES,
    MARKS_MAX,
    Mark,
    Timeline,
    decode_marks,
    encode_marks,
    thin,
)
from swarm.model.ids import Instant
from swarm.ports import disk

OUTPUT_BYTES_MAX = 16 << 20
"""On disk, per stream of a task; then its older half is given back."""
OUTPUT_BYTES_KEPT = 8 << 20
BLOCK_BYTES = 4096
"""Holes are made of whole blocks."""
LINE_BYTES_MAX = 64 << 10
"""A longer line is handed out in pieces of this size."""
CHUNK_BYTES = 64 << 10
FOLLOW_POLL_S = 0.1
"""How late a follower may learn of a line; only while somebody follows."""
LINES_PER_BREATH = 256
"""Lines between two moments for everybody else."""


# --- tending -------------------------------------------------------------------------------------------------------
def tend(layout: Layout, stream: Stream, known_size: int) -> int:
    """Marks what was written since the output had `known_size` bytes, bounds it, and returns its size now."""
    path = layout.output(stream)
    facts = disk.facts(path)
    if facts is None or facts.size_bytes == known_size:
        return known_size
    if facts.size_bytes < known_size:
        _forget_marks(layout, stream)
    mark = Mark(facts.size_bytes, facts.modified_at)
    disk.append_bytes(layout.marks(stream), encode_marks([mark]))
    _bound_marks(layout, stream)
    if facts.disk_bytes > OUTPUT_BYTES_MAX:
        return _bound(layout, stream, facts.size_bytes)
    return facts.size_bytes


def _bound(layout: Layout, stream: Stream, size: int) -> int:
    """Gives the older part of a full output back to the disk; the size afterwards."""
    path = layout.output(stream)
    hole_end = (size - OUTPUT_BYTES_KEPT) // BLOCK_BYTES * BLOCK_BYTES
    if disk.punch_hole(path, 0, hole_end):
        return size
    disk.truncate(path, 0)
    _forget_marks(layout, stream)
    disk.append_bytes(path, f"swarm: {size} bytes of older output were dropped\n".encode())
    return 0


def _bound_marks(layout: Layout, stream: Stream) -> None:
    path = layout.marks(stream)
    facts = disk.facts(path)
    if facts is not None and facts.size_bytes > MARKS_MAX * MARK_BYTES:
        first = disk.first_data(layout.output(stream))
        disk.replace_bytes(path, encode_marks(thin(decode_marks(disk.read_bytes(path)), first)))


def _forget_marks(layout: Layout, stream: Stream) -> None:
    disk.replace_bytes(layout.marks(stream), b"")


# --- reading -------------------------------------------------------------------------------------------------------
class OutputReader:
    """Reads one stream of a task from a position on, line by line."""

    def __init__(self, layout: Layout, stream: Stream) -> None:
        self._layout = layout
        self._stream = stream
        self._path = layout.output(stream)
        self._position = 0
        self._rest = b""
        """Bytes before `_position` that are not a whole line yet."""
        if disk.facts(self._path) is not None:
            self._position = disk.first_data(self._path)
        self._skips_first = self._position > 0
        """The first line after a hole is a part of one."""

    def lines(self, *, to_end: bool) -> Iterator[LogLine]:
        """The lines that are there now and were not read yet; `to_end` also gives a last line without a newline."""
        timeline = self._timeline()
        while chunk := self._read():
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            offset = self._position - len(self._rest)
            for piece in whole:
                offset -= len(piece) + 1
            for piece in whole:
                offset += len(piece) + 1
                yield from self._line(piece, timeline.at(offset))
            while len(self._rest) > LINE_BYTES_MAX:
                piece, self._rest = self._rest[:LINE_BYTES_MAX], self._rest[LINE_BYTES_MAX:]
                yield from self._line(piece, timeline.at(self._position))
        if to_end and self._rest:
            piece, self._rest = self._rest, b""
            yield from self._line(piece, timeline.at(self._position))

    def _line(self, data: bytes, at: Instant) -> Iterator[LogLine]:
        if self._skips_first:
            self._skips_first = False
            return
        for start in range(0, max(1, len(data)), LINE_BYTES_MAX):
            yield LogLine(self._stream, data[start : start + LINE_BYTES_MAX], at)

    def _read(self) -> bytes:
        facts = disk.facts(self._path)
        if facts is None:
            return b""
        if facts.size_bytes < self._position:
            self._position, self._rest = 0, b""
        chunk = disk.read_at(self._path, self._position, CHUNK_BYTES)
        self._position += len(chunk)
        return chunk

    def _timeline(self) -> Timeline:
        facts = disk.facts(self._path)
        marks: list[Mark] = []
        if disk.facts(self._layout.marks(self._stream)) is not None:
            marks = decode_marks(disk.read_bytes(self._layout.marks(self._stream)))
        return Timeline(marks, facts.modified_at if facts is not None else Instant(0.0))


class Output:
    """The task's lines that `options` asks for; following ends once `has_ended` and all was read.

    An iterator without anything to close: whoever reads may walk away at any line.
    """

    def __init__(self, layout: Layout, options: LogOptions, has_ended: Callable[[], bool]) -> None:
        self._readers = [OutputReader(layout, stream) for stream in Stream if stream in options.streams]
        self._follows = options.follow
        self._has_ended = has_ended
        self._ended = has_ended()
        present = self._new_lines(to_end=self._ended or not options.follow)
        if options.since is not None:
            since = options.since
            present = (line for line in present if line.at >= since)
        if options.tail is not None:
            present = iter(deque(present, maxlen=max(0, options.tail)))
        self._lines = present
        self._handed_out = 0

    def __aiter__(self) -> Output:
        return self

    async def __anext__(self) -> LogLine:
        while True:
            line = next(self._lines, None)
            if line is not None:
                self._handed_out += 1
                if self._handed_out % LINES_PER_BREATH == 1:
                    await trio.lowlevel.checkpoint()
                return line
            if not self._follows or self._ended:
                await trio.lowlevel.checkpoint()
                raise StopAsyncIteration
            self._ended = self._has_ended()
            self._lines = self._new_lines(to_end=self._ended)
            if not self._ended:
                await trio.sleep(FOLLOW_POLL_S)

    def _new_lines(self, *, to_end: bool) -> Iterator[LogLine]:
        return heapq.merge(*(reader.lines(to_end=to_end) for reader in self._readers), key=_time)


def _time(line: LogLine) -> Instant:
    return line.at
