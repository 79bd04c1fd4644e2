"""A look into SQLite's write-ahead log before SQLite opens it: is what it would pass over a torn last write, or damage?

After a crash SQLite replays the log up to the first frame that fails its check sum and passes over the rest in silence. That is
right for the last write, which nobody was told of. But a flipped byte further up would make acknowledged writes vanish just
so. A frame of the same generation (the same salts) after a whole transaction that SQLite does not recognise tells the two
apart: the write after a torn one cannot have begun.

Format: https://www.sqlite.org/fileformat2.html section 4 (header of 32 bytes, frames of 24 bytes and a page).
"""

from __future__ import annotations

import operator
import struct
from pathlib import Path

from attrs import frozen

HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
SALT_BYTES_ALIKE = 6
_MAGIC = (0x377F0682, 0x377F0683)


@frozen
class WalFrames:
    """What a write-ahead log holds of its present generation, by position (from 1) of its frames."""

    valid: int
    """Frames that SQLite will replay: whole transactions whose check sums hold."""
    last: int
    """The last frame of this generation, valid or not."""
    ended_after: int
    """Ended transactions after `valid`, which SQLite will pass over."""
    ended_at: int
    """The first frame after `valid` that ends a transaction, 0 when there is none."""

    @property
    def is_torn(self) -> bool:
        """Whether the last write was cut short: nobody was told that it happened."""
        return self.last > self.valid and not self.is_damaged

    @property
    def is_damaged(self) -> bool:
        """Whether acknowledged writes would be passed over: something follows the end of a broken transaction."""
        return self.ended_after > 1 or (self.ended_after == 1 and self.last > self.ended_at)


def read_wal(path: Path) -> WalFrames | None:
    """The frames in the log at `path`, None when it is absent or empty. ValueError when its header fails its check.

    The header is on disk before the first frame is written, so that a crash does not tear it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if not data:
        return None
    if len(data) < HEADER_BYTES:
        raise ValueError("its header is cut short")
    magic, _version, page_bytes = struct.unpack(">3I", data[:12])
    if magic not in _MAGIC or page_bytes < 512:
        raise ValueError("its header is none of SQLite's")
    order = ">" if magic & 1 else "<"
    sums = _checksum(data[:24], order, (0, 0))
    if sums != struct.unpack(">2I", data[24:32]):
        raise ValueError("its header fails its check")
    return _scan(data, FRAME_HEADER_BYTES + page_bytes, order, sums)


def _scan(data: bytes, step: int, order: str, sums: tuple[int, int]) -> WalFrames:
    salts = data[16:24]
    chain = True
    valid = last = ended_after = ended_at = 0
    for position, start in enumerate(range(HEADER_BYTES, len(data) - FRAME_HEADER_BYTES + 1, step), start=1):
        same_generation = _same_generation(data[start + 8 : start + 16], salts)
        ends = data[start + 4 : start + 8] != b"\0\0\0\0"
        if chain:
            body = data[start + FRAME_HEADER_BYTES : start + step]
            if data[start + 8 : start + 16] == salts and len(body) == step - FRAME_HEADER_BYTES:
                sums = _checksum(body, order, _checksum(data[start : start + 8], order, sums))
                chain = sums == struct.unpack(">2I", data[start + 16 : start + 24])
            else:
                chain = False
        if not same_generation:
            continue
        last = position
        if ends and chain:
            valid = position
        elif ends:
            ended_after += 1
            ended_at = ended_at or position
    return WalFrames(valid, last, ended_after, ended_at)


def _same_generation(frame_salts: bytes, salts: bytes) -> bool:
    """Whether a frame was written since the log began anew; a flipped byte in its salts does not make it an older one.

    The second salt is drawn anew for each generation: an older frame agrees in about three or four bytes of eight.
    """
    return frame_salts == salts or sum(map(operator.eq, frame_salts, salts)) >= SALT_BYTES_ALIKE


def _checksum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    s0, s1 = sums
    for first, second in struct.iter_unpack(f"{order}2I", data):
        s0 = (s0 + first + s1) & 0xFFFFFFFF
        s1 = (s1 + second + s0) & 0xFFFFFFFF
    return s0, s1
