"""A Raft member's disk in one SQLite file, `log.db`: hard state, entries and the newest snapshot, every record sealed.

One batch is one row, and one row is one statement: a thread that writes while the loop is busy has to ask for the interpreter
twice then, however many entries it carries. A row holds the whole hard state and the entries of its batch, and replaces
what earlier rows say from its first index on; the log is what is left when the rows are read in order. Rows are dropped from
the front only.

WAL mode, synchronous=FULL: one flush a batch. The file is locked for as long as it is open. What is read is checked three
times: SQLite's own structure, the seal of each record (bound to its place), and that rows and entries follow without a gap;
`wal.py` tells a torn last write from damage before SQLite opens the file. Nothing here interprets an entry.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgpack
import outcome
from attrs import frozen

from swarm.ports import sqlite_snapshots
from swarm.ports.entropy import Entropy
from swarm.ports.log_store import LogBatch, LogDamaged, Recovered, WriteDone
from swarm.ports.seal import SALT_BYTES, SealBroken, Sealer
from swarm.ports.sqlite_refusals import WAY_OUT, damaged, refusal
from swarm.ports.sqlite_snapshots import CHUNKS_A_TRANSACTION, SqliteSnapshots
from swarm.ports.wal import read_wal
from swarm.ports.worker import Worker
from swarm.raft.messages import Entry, EntryKind, HardState, Index, Snapshot, SnapshotMeta

T = TypeVar("T")

FILE_NAME = "log.db"
FORMAT = 1
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, record BLOB NOT NULL);
{sqlite_snapshots.SCHEMA}
"""
VACUUM_SHARE = 2
"""The file gives space back when more than one part in this many is free."""
_INSERT = "INSERT INTO records VALUES (?, ?, ?, ?)"
_KINDS = {int(kind): kind for kind in EntryKind}


@frozen
class _Row:
    """A stored row, and the last index of the log as of it, as far as later rows did not replace it."""

    seq: int
    end: Index


class SqliteLogStore:
    """The `LogStore` of a running manager, in `directory`."""

    def __init__(self, directory: Path, data_key: bytes, entropy: Entropy) -> None:
        self._directory = directory
        self._path = directory / FILE_NAME
        self._sealer = Sealer(data_key, entropy.bytes(SALT_BYTES))
        self._worker = Worker("swarm-log")
        """The one thread that owns everything below."""
        self._db: sqlite3.Connection | None = None
        self._hard_state = HardState()
        self._rows: deque[_Row] = deque()
        self._next_seq = 1
        self._snapshots = SqliteSnapshots(self._path, self._sealer)

    # --- the port --------------------------------------------------------------------------------------------------
    async def open(self) -> Recovered:
        """Lock, check and read everything. EXISTS: another process has the file open. `LogDamaged`: see its text."""
        return await self._in_thread(self._open)

    async def write(self, batch: LogBatch) -> None:
        """Make a batch durable in one transaction. `DiskFull` or another `LogWriteFailed`: nothing of it was written."""
        if batch.snapshot is not None:
            number = await self._stage(batch.snapshot)
            await self._in_thread(partial(self._replace, batch, batch.snapshot, number))
            await self._sweep()
        elif batch.entries or batch.hard_state is not None:
            await self._in_thread(partial(self._append, batch))

    def begin_write(self, batch: LogBatch, done: WriteDone) -> bool:
        """The thread begins at once; a snapshot takes several steps and is for `write`."""
        if batch.snapshot is not None:
            return False
        self._worker.begin(partial(self._translated, partial(self._append, batch)), partial(_tell, done))
        return True

    async def landed(self) -> None:
        """The thread has nothing left."""
        await self._worker.landed()

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the one before, in pieces between which batches are written."""
        if snapshot.meta.index > self._snapshots.meta.index:
            number = await self._stage(snapshot)
            await self._in_thread(partial(self._commit_snapshot, snapshot, number))
            await self._sweep()

    async def load_snapshot(self) -> Snapshot | None:
        """The newest snapshot, read in pieces between which batches are written."""
        loaded: Snapshot | None = Snapshot(SnapshotMeta(), ())
        while loaded is not None and not self._snapshots.is_whole(loaded):
            loaded = await self._in_thread(partial(self._load_some, loaded))
        return loaded

    async def compact(self, through: Index) -> None:
        """Drop rows all of whose entries lie before `through`, and give much free space back."""
        await self._in_thread(partial(self._compact, through))

    async def erase(self) -> None:
        """Remove the files."""
        await self._in_thread(self._erase)

    async def aclose(self) -> None:
        """Fold the write-ahead log into the file and unlock it."""
        try:
            await self._in_thread(self._close)
        finally:
            if self._worker.is_idle:
                self._close()  # cancelled before its thread began: close here, rather than leave the file locked
            self._worker.end()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._worker.run(partial(self._translated, work))

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            raise refusal(self._path, error) from error

    async def _stage(self, snapshot: Snapshot) -> int:
        """The number under which a snapshot's chunks are now written, while nothing points to it yet."""
        number = await self._in_thread(lambda: self._snapshots.begin(self._opened()))
        for start in range(0, len(snapshot.chunks), CHUNKS_A_TRANSACTION):
            await self._in_thread(partial(self._stage_some, snapshot, number, start))
        return number

    async def _sweep(self) -> None:
        while await self._in_thread(lambda: self._snapshots.sweep(self._opened())):
            pass

    # --- opening ---------------------------------------------------------------------------------------------------
    def _open(self) -> Recovered:
        if self._db is not None:
            raise RuntimeError("the log store is open already")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        repaired = self._look_into_wal()
        self._path.touch(mode=0o600)
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0.0)
        try:
            return self._read_all(db, repaired)
        except BaseException:
            self._db = None
            db.close()
            raise

    def _read_all(self, db: sqlite3.Connection, repaired: str) -> Recovered:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        if db.execute("PRAGMA page_count").fetchone()[0] == 0:
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA secure_delete=OFF")  # records are sealed; erasing is done by erasing the key
        db.executescript(SCHEMA)
        problems = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
        if problems != ["ok"]:
            raise damaged(self._path, "its structure fails SQLite's check", "; ".join(problems))
        self._db = db
        self._check_format(db)
        self._snapshots.read_meta(db)
        entries = self._read_records(db)
        while self._snapshots.sweep(db):
            pass
        _sync_directory(self._directory)
        return Recovered(self._hard_state, self._snapshots.meta, tuple(entries), repaired)

    def _look_into_wal(self) -> str:
        """What will be repaired; `LogDamaged` when acknowledged writes would be lost."""
        name = f"{FILE_NAME}-wal"
        try:
            wal = read_wal(self._directory / name)
        except ValueError as error:
            raise damaged(self._path, f"{name}: {error}", "the newest writes cannot be read") from None
        if wal is None or not (wal.is_torn or wal.is_damaged):
            return ""
        if wal.is_damaged:
            what = (
                f"frame {wal.valid + 1} of {name} or one shortly after it fails its check, and whole writes follow it"
            )
            raise damaged(self._path, what, "those writes were acknowledged and would be lost")
        return (
            f"a write that was cut short was dropped from {self._directory / name} "
            f"({wal.last - wal.valid} of {wal.last} pages); it was never acknowledged"
        )

    def _check_format(self, db: sqlite3.Connection) -> None:
        meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('format', 'key')"))
        if not meta:
            db.execute("BEGIN IMMEDIATE")
            sealed = self._sealer.seal(b"swarm", b"key")
            db.execute("INSERT INTO meta VALUES ('format', ?), ('key', ?)", (FORMAT, sealed))
            db.execute("COMMIT")
            return
        if meta.get("format") != FORMAT:
            raise LogDamaged(
                f"{self._path} has format {meta.get('format')!r}; this version of swarm reads format {FORMAT}. "
                "If a newer version wrote it, start that one"
            )
        try:
            self._sealer.open(meta.get("key"), b"key")
        except SealBroken:
            if not self._opens_any_record(db):
                raise LogDamaged(
                    f"{self._path} is sealed with another data key than {self._directory / 'data.key'} holds. Bring the "
                    "data key that belongs to this log back; without it the log cannot be read. " + WAY_OUT
                ) from None
            # Only the check is damaged: the key does open what counts.
            db.execute("UPDATE meta SET value = ? WHERE key = 'key'", (self._sealer.seal(b"swarm", b"key"),))

    def _opens_any_record(self, db: sqlite3.Connection) -> bool:
        for seq, first, last, record in db.execute("SELECT * FROM records ORDER BY seq DESC LIMIT 8"):
            try:
                self._sealer.open(record, _record_place(seq, first, last))
            except SealBroken:
                continue
            return True
        return False

    def _read_records(self, db: sqlite3.Connection) -> list[Entry]:
        """All rows in order, each replacing what comes before from its first index on."""
        entries: list[Entry] = []
        self._rows.clear()
        self._hard_state, self._next_seq = HardState(), 1
        for seq, first, last, record in db.execute("SELECT * FROM records ORDER BY seq"):
            span = f"entries {first} to {last}" if first <= last else "the hard state"
            if self._rows and seq != self._next_seq:
                raise damaged(
                    self._path, f"rows {self._next_seq} to {seq - 1} are missing", f"so are entries before {first}"
                )
            try:
                plain = self._sealer.open(record, _record_place(seq, first, last))
            except SealBroken as error:
                raise damaged(
                    self._path, f"row {seq} ({span}): {error}", f"{span} and what follows cannot be trusted"
                ) from None
            term, vote, commit, start, packed = msgpack.unpackb(plain)[:5]
            self._hard_state = HardState(term, vote, commit)
            if packed and entries:
                if start > entries[-1].index + 1:
                    raise damaged(
                        self._path, f"entries {entries[-1].index + 1} to {start - 1} are missing", "the log has a gap"
                    )
                del entries[max(start - entries[0].index, 0) :]
            entries += [Entry(start + at, *_term_kind_data(fields)) for at, fields in enumerate(packed)]
            self._remember(seq, first, last)
            self._next_seq = seq + 1
        if entries and entries[0].index > self._snapshots.meta.index + 1:
            missing = f"entries {self._snapshots.meta.index + 1} to {entries[0].index - 1}"
            raise damaged(self._path, f"{missing} are missing", "neither the snapshot nor the log has them")
        return entries

    # --- writing ---------------------------------------------------------------------------------------------------
    def _append(self, batch: LogBatch) -> None:
        row, values, hard = self._record_of(batch)
        self._opened().execute(_INSERT, values)
        self._took_effect(row, hard, batch)

    def _replace(self, batch: LogBatch, snapshot: Snapshot, number: int) -> None:
        """A snapshot from the leader: it and the batch's entries are all that there is from now on."""
        db = self._opened()
        row, values, hard = self._record_of(batch)
        with _Transaction(db):
            self._snapshots.point_to(db, snapshot, number)
            db.execute("DELETE FROM records")
            db.execute(_INSERT, values)
        self._snapshots.took_effect(snapshot, number)
        self._rows.clear()
        self._took_effect(row, hard, batch)

    def _record_of(self, batch: LogBatch) -> tuple[_Row, tuple[int, int, int, bytes], HardState]:
        hard = batch.hard_state or self._hard_state
        entries = batch.entries
        seq, first = self._next_seq, entries[0].index if entries else 0
        last = first + len(entries) - 1
        packed = [(entry.term, int(entry.kind), entry.data) for entry in entries]
        plain = msgpack.packb((hard.term, hard.vote, hard.commit, first, packed))
        sealed = self._sealer.seal(plain, _record_place(seq, first, last))
        return _Row(seq, last), (seq, first, last, sealed), hard

    def _took_effect(self, row: _Row, hard: HardState, batch: LogBatch) -> None:
        self._hard_state = hard
        self._next_seq = row.seq + 1
        self._remember(row.seq, batch.entries[0].index if batch.entries else 0, row.end)

    def _remember(self, seq: int, first: Index, last: Index) -> None:
        """Keep in mind how far each row still counts: this one replaces everything from its first entry on."""
        if first > last:
            self._rows.append(_Row(seq, self._rows[-1].end if self._rows else 0))
            return
        replaced: list[_Row] = []
        while self._rows and self._rows[-1].end >= first:
            replaced.append(self._rows.pop())
        self._rows.extend(_Row(old.seq, first - 1) for old in reversed(replaced))
        self._rows.append(_Row(seq, last))

    def _stage_some(self, snapshot: Snapshot, number: int, start: int) -> None:
        db = self._opened()
        with _Transaction(db):
            self._snapshots.stage(db, snapshot, number, start)

    def _load_some(self, loaded: Snapshot) -> Snapshot | None:
        return self._snapshots.load_some(self._opened(), loaded)

    def _commit_snapshot(self, snapshot: Snapshot, number: int) -> None:
        self._snapshots.point_to(self._opened(), snapshot, number)
        self._snapshots.took_effect(snapshot, number)

    def _compact(self, through: Index) -> None:
        """The newest row always stays: it holds the hard state."""
        db = self._opened()
        gone = 0
        while gone < len(self._rows) - 1 and self._rows[gone].end < through:
            gone += 1
        if gone:
            db.execute("DELETE FROM records WHERE seq < ?", (self._rows[gone].seq,))
            for _ in range(gone):
                self._rows.popleft()
        self._vacuum(db)

    def _vacuum(self, db: sqlite3.Connection) -> None:
        free = db.execute("PRAGMA freelist_count").fetchone()[0]
        if free * VACUUM_SHARE > db.execute("PRAGMA page_count").fetchone()[0]:
            db.executescript(f"PRAGMA incremental_vacuum({free // 2})")  # `execute` would stop after one page

    # --- ending ----------------------------------------------------------------------------------------------------
    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _erase(self) -> None:
        self._close()
        for suffix in ("", "-wal", "-shm", "-journal"):
            self._path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
        if self._directory.exists():
            _sync_directory(self._directory)

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise RuntimeError("the log store is not open")
        return self._db


class _Transaction:
    """BEGIN to COMMIT, or to ROLLBACK when something was raised."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
                return
            except sqlite3.Error:
                self._roll_back()
                raise
        self._roll_back()

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _tell(done: WriteDone, result: outcome.Outcome[None]) -> None:
    try:
        result.unwrap()
    except Exception as error:
        done(error)
    else:
        done(None)


def _record_place(seq: int, first: int, last: int) -> bytes:
    return b"record %d %d %d" % (seq, first, last)


def _term_kind_data(fields: list[Any]) -> tuple[int, EntryKind, bytes]:
    return fields[0], _KINDS[fields[1]], fields[2]


def _sync_directory(directory: Path) -> None:
    """The files' names are durable, too."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
