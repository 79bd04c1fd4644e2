"""The store's content as the chunks of a snapshot, and back; piece by piece, so that the event loop breathes.

    format byte, then pieces: four bytes of length, then the bytes of `change_codec.encode_objects`

all cut into chunks of 64 KiB without regard to pieces. The objects come in an order in which each can be inserted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import trio

from swarm.model.change_codec import decode_objects, encode_objects
from swarm.model.objects import StoreObject
from swarm.model.plain import PlainError
from swarm.model.tables import Tables

FORMAT = 1
PIECE_OBJECTS = 500
"""Encoded or decoded in one go: a millisecond."""
CHUNK_BYTES = 64 * 1024
"""As `raft.config.SNAPSHOT_CHUNK_BYTES`."""
_LENGTH_BYTES = 4


async def chunks_of(objects: Sequence[StoreObject]) -> tuple[bytes, ...]:
    """The chunks that hold these objects."""
    chunks: list[bytes] = []
    buffer = bytearray((FORMAT,))
    for start in range(0, len(objects), PIECE_OBJECTS):
        piece = encode_objects(objects[start : start + PIECE_OBJECTS])
        buffer += len(piece).to_bytes(_LENGTH_BYTES, "big")
        buffer += piece
        full = len(buffer) - len(buffer) % CHUNK_BYTES
        chunks += [bytes(buffer[at : at + CHUNK_BYTES]) for at in range(0, full, CHUNK_BYTES)]
        del buffer[:full]
        await trio.lowlevel.checkpoint()
    return (*chunks, bytes(buffer)) if buffer else tuple(chunks)


async def tables_of(chunks: Sequence[bytes]) -> Tables:
    """Tables with everything that the chunks hold; PlainError when they hold no snapshot that this version knows."""
    tables = Tables()
    for piece in _pieces(chunks):
        tables.load(decode_objects(piece))
        await trio.lowlevel.checkpoint()
    return tables


def _pieces(chunks: Sequence[bytes]) -> Iterator[bytes]:
    if not chunks or chunks[0][:1] != bytes((FORMAT,)):
        raise PlainError(f"not a snapshot of format {FORMAT}, which is all that this version reads")
    buffer = bytearray(chunks[0][1:])
    for chunk in (*chunks[1:], b""):
        buffer += chunk
        at = 0
        while len(buffer) - at >= _LENGTH_BYTES:
            end = at + _LENGTH_BYTES + int.from_bytes(buffer[at : at + _LENGTH_BYTES], "big")
            if end > len(buffer):
                break
            yield bytes(buffer[at + _LENGTH_BYTES : end])
            at = end
        del buffer[:at]
    if buffer:
        raise PlainError("the snapshot's last piece is cut short")
