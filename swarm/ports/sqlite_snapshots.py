"""The snapshot half of the SQLite log store: sealed chunks, and one row that says which of them are the snapshot.

A snapshot is staged in small transactions under a number of its own, so that batches of entries get in between, and takes
effect when `point_to` names that number. Whatever no number leads to (a crash, a full disk) is swept later.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import msgpack

from swarm.ports.seal import SealBroken, Sealer
from swarm.ports.sqlite_refusals import damaged
from swarm.raft.codec import BadMessage, decode_meta, encode_meta
from swarm.raft.messages import Snapshot, SnapshotMeta

SCHEMA = "CREATE TABLE IF NOT EXISTS chunks (id INTEGER PRIMARY KEY, record BLOB NOT NULL);"
CHUNKS_A_TRANSACTION = 16
"""1 MiB: a batch of entries waits 5 ms at the most for one such piece."""
SWEEP_CHUNKS = 256
"""Deleting is cheaper than writing; the same bound on the wait."""
NUMBER_SHIFT = 20
"""A chunk's id: its snapshot's number, then in this many bits its place (`raft.config.SNAPSHOT_CHUNKS_MAX` is 2**16)."""
_NUMBER_OF_ID = f"id >> {NUMBER_SHIFT}"


class SqliteSnapshots:
    """The chunks and the description of the newest snapshot. Every method blocks: call it in the store's thread."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        self._number = 0
        self._count = 0
        self.meta = SnapshotMeta()
        """Of the newest durable snapshot; index 0 when there is none."""

    def read_meta(self, db: sqlite3.Connection) -> None:
        """Find out which snapshot there is."""
        self._number, self._count, self.meta = 0, 0, SnapshotMeta()
        found = db.execute("SELECT value FROM meta WHERE key = 'snapshot'").fetchone()
        if found is not None:
            try:
                self._number, self._count, meta = msgpack.unpackb(self._sealer.open(found[0], b"snapshot"))[:3]
                self.meta = decode_meta(meta)
            except (SealBroken, BadMessage, ValueError) as error:
                raise damaged(self._path, f"the description of its snapshot: {error}", "the snapshot is lost") from None

    def begin(self, db: sqlite3.Connection) -> int:
        """A number for a snapshot that is to be staged, larger than any that has chunks."""
        highest = db.execute(f"SELECT max({_NUMBER_OF_ID}) FROM chunks").fetchone()[0]
        return 1 + max(highest or 0, self._number)

    def stage(self, db: sqlite3.Connection, snapshot: Snapshot, number: int, start: int) -> None:
        """Write the next chunks from `start` on, in the caller's transaction."""
        chunks = snapshot.chunks[start : start + CHUNKS_A_TRANSACTION]
        for at, chunk in enumerate(chunks, start=start):
            place = _place(number, at, snapshot.meta, len(snapshot.chunks))
            db.execute(
                "INSERT INTO chunks VALUES (?, ?)", (number << NUMBER_SHIFT | at, self._sealer.seal(chunk, place))
            )

    def point_to(self, db: sqlite3.Connection, snapshot: Snapshot, number: int) -> None:
        """Make a staged snapshot the newest, in the caller's transaction; `took_effect` follows its commit."""
        plain = msgpack.packb((number, len(snapshot.chunks), encode_meta(snapshot.meta)))
        db.execute("INSERT OR REPLACE INTO meta VALUES ('snapshot', ?)", (self._sealer.seal(plain, b"snapshot"),))

    def took_effect(self, snapshot: Snapshot, number: int) -> None:
        """The new description is durable."""
        self._number, self._count, self.meta = number, len(snapshot.chunks), snapshot.meta

    def sweep(self, db: sqlite3.Connection) -> bool:
        """Delete some chunks that belong to no snapshot; whether there may be more. A disk that refuses is left alone."""
        stale = f"SELECT id FROM chunks WHERE {_NUMBER_OF_ID} != ? LIMIT {SWEEP_CHUNKS}"
        with contextlib.suppress(sqlite3.OperationalError):
            return db.execute(f"DELETE FROM chunks WHERE id IN ({stale})", (self._number,)).rowcount == SWEEP_CHUNKS
        return False

    def load_some(self, db: sqlite3.Connection, loaded: Snapshot) -> Snapshot | None:
        """`loaded` and the next chunks after it, each checked; begun anew when the newest snapshot is another one by now.

        None when there is no snapshot. `is_whole` says when there is no more to load.
        """
        if not self._number:
            return None
        chunks = loaded.chunks if loaded.meta == self.meta else ()
        low = self._number << NUMBER_SHIFT
        end = min(len(chunks) + CHUNKS_A_TRANSACTION, self._count)
        name = f"the snapshot of index {self.meta.index}"
        more: list[bytes] = []
        rows = db.execute("SELECT id, record FROM chunks WHERE id >= ? AND id < ?", (low + len(chunks), low + end))
        for number, record in rows:
            at = number - low
            try:
                more.append(self._sealer.open(record, _place(self._number, at, self.meta, self._count)))
            except SealBroken as error:
                what = f"chunk {at} of {self._count} of {name}: {error}"
                raise damaged(self._path, what, "the snapshot cannot be used") from None
        if len(chunks) + len(more) != end:
            total = db.execute(f"SELECT count(*) FROM chunks WHERE {_NUMBER_OF_ID} = ?", (self._number,)).fetchone()[0]
            raise damaged(self._path, f"{name} has {total} of {self._count} chunks", "it cannot be used")
        return Snapshot(self.meta, (*chunks, *more))

    def is_whole(self, loaded: Snapshot) -> bool:
        """Whether all of the newest snapshot is there."""
        return bool(self._number) and loaded.meta == self.meta and len(loaded.chunks) == self._count


def _place(number: int, at: int, meta: SnapshotMeta, count: int) -> bytes:
    return b"chunk %d.%d of %d of %d.%d" % (number, at, count, meta.index, meta.term)
