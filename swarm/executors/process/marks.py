"""When a task's output was written: pairs (offset, time), as bytes and back. Pure.

A task writes into a plain file, so that it needs nobody to read it, and a file has no time per line. The agent looks at
it about once a second and notes "what lies below this offset was written by this time". A line's time is thus exact to
about a second while an agent ran, and the time of the last write for what was written while none did.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence

from attrs import frozen

from swarm.model.ids import Instant

_MARK = struct.Struct("<Qd")
MARK_BYTES = _MARK.size
MARKS_MAX = 4096
"""Then every second one is forgotten: 64 KiB a stream, and the older the coarser."""


@frozen
class Mark:
    """Everything below `offset` was written by `at`."""

    offset: int
    at: Instant


def encode_marks(marks: Sequence[Mark]) -> bytes:
    """16 bytes a mark."""
    return b"".join(_MARK.pack(mark.offset, mark.at) for mark in marks)


def decode_marks(data: bytes) -> list[Mark]:
    """The marks in `data`; a torn last one does not count, nor does one that goes back behind its predecessor."""
    marks: list[Mark] = []
    whole = len(data) // MARK_BYTES * MARK_BYTES
    for offset, at in _MARK.iter_unpack(data[:whole]):
        if not marks or (offset > marks[-1].offset and at >= marks[-1].at):
            marks.append(Mark(offset, Instant(at)))
    return marks


def thin(marks: Sequence[Mark], first_offset: int) -> list[Mark]:
    """Every second mark of those that still say something about a file that begins at `first_offset`; the last stays."""
    useful = [mark for mark in marks if mark.offset > first_offset]
    return useful[len(useful) % 2 ^ 1 :: 2] if useful else []


class Timeline:
    """The time of any offset of one output, from its marks and from when the file was written last."""

    def __init__(self, marks: Sequence[Mark], written_at: Instant) -> None:
        self._marks = marks
        self._offsets = [mark.offset for mark in marks]
        self._written_at = max(written_at, marks[-1].at) if marks else written_at

    def at(self, end: int) -> Instant:
        """By when the byte before offset `end` was written."""
        index = bisect_left(self._offsets, end)
        return self._marks[index].at if index < len(self._marks) else self._written_at
