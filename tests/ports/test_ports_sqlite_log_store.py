"""The SQLite log store: what was written is read back, whatever was in the way; damage is told from a torn write."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.ports.entropy import SystemEntropy
from swarm.ports.log_store import LogBatch, LogDamaged, LogWriteFailed, Recovered
from swarm.ports.sqlite_log_store import SqliteLogStore
from swarm.ports.sqlite_refusals import DiskFull
from swarm.ports.sqlite_snapshots import CHUNKS_A_TRANSACTION
from swarm.raft.messages import Entry, EntryKind, HardState, Member, Membership, Snapshot, SnapshotMeta
from swarm.runtime.errors import ErrorCode, SwarmError

KEY = bytes(range(32))


def entry(index: int, term: int = 1, data: bytes = b"") -> Entry:
    return Entry(index, term, EntryKind.NORMAL, data or b"entry %d of term %d" % (index, term))


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(entry(index, term) for index in range(first, last + 1))


def snapshot(index: int, chunks: int = 3, size: int = 100) -> Snapshot:
    membership = Membership((Member(2**62 + 1, "n1", "a:1"), Member(7, "n2", "b:2", True)), (9,))
    return Snapshot(SnapshotMeta(index, 1, membership), tuple(b"%d" % at * size for at in range(chunks)))


@asynccontextmanager
async def opened(directory: Path, key: bytes = KEY) -> AsyncIterator[tuple[SqliteLogStore, Recovered]]:
    store = SqliteLogStore(directory, key, SystemEntropy())
    recovered = await store.open()
    try:
        yield store, recovered
    finally:
        await store.aclose()


async def recovered_in(directory: Path, key: bytes = KEY) -> Recovered:
    async with opened(directory, key) as (_, recovered):
        return recovered


async def crashed(directory: Path, work: Callable[[SqliteLogStore], Awaitable[None]]) -> Path:
    """A copy of the files as they are when the process is killed after `work`."""
    copy = directory.with_name(directory.name + "-crashed")
    async with opened(directory) as (store, _):
        await work(store)
        shutil.copytree(directory, copy)
    return copy


async def write_ten(store: SqliteLogStore) -> None:
    for index in range(1, 11):
        await store.write(LogBatch(HardState(1, 7, index - 1), entries=(entry(index),)))


async def test_a_new_store_is_empty_and_private(tmp_path: Path) -> None:
    recovered = await recovered_in(tmp_path / "raft")
    assert recovered.is_empty and not recovered.repaired
    assert (tmp_path / "raft" / "log.db").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "raft").stat().st_mode & 0o777 == 0o700


async def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(
            LogBatch(HardState(3, 2**62 + 5, 1), entries=(Entry(1, 3, EntryKind.EMPTY, b""), entry(2, 3)))
        )
        await store.write(LogBatch(HardState(4, 0, 2)))
        await store.write(LogBatch(entries=(Entry(3, 4, EntryKind.MEMBERSHIP, b"\x00" * 100_000),)))
        await store.write(LogBatch())
    recovered = await recovered_in(tmp_path)
    assert recovered.hard_state == HardState(4, 0, 2)
    assert recovered.entries == (
        Entry(1, 3, EntryKind.EMPTY, b""),
        entry(2, 3),
        Entry(3, 4, EntryKind.MEMBERSHIP, b"\x00" * 100_000),
    )
    assert isinstance(recovered.entries[2].kind, EntryKind)


async def test_what_was_begun_is_durable_when_it_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        told: list[Exception | None] = []
        assert store.begin_write(LogBatch(HardState(1, 2, 0), entries=entries(1, 3)), told.append)
        assert not told
        assert not store.begin_write(LogBatch(snapshot=snapshot(9)), told.append), "that takes several steps"
        await store.compact(1)  # in line behind it
        assert told == [None]
    recovered = await recovered_in(tmp_path)
    assert recovered.entries == entries(1, 3) and recovered.hard_state == HardState(1, 2, 0)


async def test_a_killed_process_has_lost_nothing(tmp_path: Path) -> None:
    recovered = await recovered_in(await crashed(tmp_path / "raft", write_ten))
    assert recovered.entries == entries(1, 10) and recovered.hard_state == HardState(1, 7, 9)
    assert recovered.repaired == ""


async def test_entries_replace_what_follows_their_first_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(LogBatch(entries=entries(1, 10)))
        await store.write(LogBatch(entries=entries(5, 6, term=2)))
        await store.write(LogBatch(entries=entries(7, 7, term=3)))
    assert (await recovered_in(tmp_path)).entries == entries(1, 4) + entries(5, 6, 2) + entries(7, 7, 3)


async def test_compaction_keeps_the_entry_that_it_is_asked_to_keep(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await write_ten(store)
        await store.save_snapshot(snapshot(8))
        await store.compact(6)
        await store.write(LogBatch(HardState(2, 0, 9)))
        await store.compact(8)
    recovered = await recovered_in(tmp_path)
    assert recovered.entries == entries(8, 10) and recovered.snapshot == snapshot(8).meta
    assert recovered.hard_state == HardState(2, 0, 9)


async def test_compaction_of_everything_keeps_the_hard_state(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await write_ten(store)
        await store.save_snapshot(snapshot(10))
        await store.compact(10)
        await store.compact(10)
        await store.write(LogBatch(entries=entries(11, 11)))
        await store.compact(11)
    recovered = await recovered_in(tmp_path)
    assert recovered.hard_state == HardState(1, 7, 9) and recovered.entries[-1] == entry(11)


async def test_a_snapshot_replaces_the_one_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, recovered):
        assert await store.load_snapshot() is None and recovered.snapshot.index == 0
        await write_ten(store)
        for index in (4, 9):
            await store.save_snapshot(snapshot(index, chunks=2 * CHUNKS_A_TRANSACTION + 1))
        await store.save_snapshot(snapshot(8))
        assert await store.load_snapshot() == snapshot(9, chunks=2 * CHUNKS_A_TRANSACTION + 1)
    async with opened(tmp_path) as (store, recovered):
        assert recovered.snapshot == snapshot(9).meta and recovered.entries == entries(1, 10)
        assert await store.load_snapshot() == snapshot(9, chunks=2 * CHUNKS_A_TRANSACTION + 1)
    assert stored(tmp_path, "SELECT count(*) FROM chunks") == [(2 * CHUNKS_A_TRANSACTION + 1,)]


async def test_a_snapshot_that_is_replaced_while_it_is_read_is_read_anew(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await write_ten(store)
        await store.save_snapshot(snapshot(4, chunks=3 * CHUNKS_A_TRANSACTION))
        pieces = 0
        load_some = store._load_some

        def replaced_after_one(loaded: Snapshot) -> Snapshot | None:
            nonlocal pieces
            pieces += 1
            if pieces == 2:
                newer = snapshot(9, chunks=2 * CHUNKS_A_TRANSACTION)
                number = store._snapshots.begin(store._opened())
                for start in range(0, len(newer.chunks), CHUNKS_A_TRANSACTION):
                    store._stage_some(newer, number, start)
                store._commit_snapshot(newer, number)
                while store._snapshots.sweep(store._opened()):
                    pass
            return load_some(loaded)

        store._load_some = replaced_after_one  # type: ignore[method-assign]
        assert await store.load_snapshot() == snapshot(9, chunks=2 * CHUNKS_A_TRANSACTION)
        assert pieces == 3


def stored(directory: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """What a statement of SQLite's own gives on the closed file."""
    with sqlite3.connect(directory / "log.db") as db:
        rows = db.execute(statement, values).fetchall()
    db.close()
    return rows


async def test_a_leaders_snapshot_replaces_log_and_hard_state_in_one_step(tmp_path: Path) -> None:
    async def install(store: SqliteLogStore) -> None:
        await write_ten(store)
        await store.write(LogBatch(HardState(5, 0, 50), snapshot(50, chunks=40), entries(51, 52, 5)))

    recovered = await recovered_in(await crashed(tmp_path / "raft", install))
    assert recovered.entries == entries(51, 52, 5)
    assert (recovered.snapshot.index, recovered.hard_state) == (50, HardState(5, 0, 50))


async def test_a_crash_amid_a_snapshot_leaves_the_one_before(tmp_path: Path) -> None:
    async def half(store: SqliteLogStore) -> None:
        await store.write(LogBatch(entries=entries(1, 5)))
        await store.save_snapshot(snapshot(3))
        await store._stage(snapshot(5, chunks=40))

    copy = await crashed(tmp_path / "raft", half)
    async with opened(copy) as (store, recovered):
        assert recovered.snapshot.index == 3 and await store.load_snapshot() == snapshot(3)
        await store.save_snapshot(snapshot(5, chunks=2))
        assert await store.load_snapshot() == snapshot(5, chunks=2)
    assert stored(copy, "SELECT count(*) FROM chunks") == [(2,)]


async def test_batches_get_in_between_the_pieces_of_a_snapshot(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _), trio.open_nursery() as nursery:
        await store.write(LogBatch(entries=entries(1, 1)))
        nursery.start_soon(store.save_snapshot, snapshot(1, chunks=20 * CHUNKS_A_TRANSACTION, size=60_000))
        written = 1
        while store._snapshots.meta.index == 0:
            written += 1
            await store.write(LogBatch(entries=entries(written, written)))
    assert written > 10


async def test_space_is_used_again_and_given_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        for index in range(1, 40):
            await store.write(LogBatch(entries=(entry(index, data=os.urandom(50_000)),)))
        await store.compact(39)
    assert (tmp_path / "log.db").stat().st_size < 1_300_000


async def test_erased_it_is_as_new(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await write_ten(store)
        await store.save_snapshot(snapshot(3))
        await store.erase()
        assert os.listdir(tmp_path) == []
        assert (await store.open()).is_empty
        await store.write(LogBatch(entries=entries(1, 1)))
    assert (await recovered_in(tmp_path)).entries == entries(1, 1)


async def test_two_processes_cannot_have_it(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(SwarmError, match="in use by another process") as refused:
            await recovered_in(tmp_path)
    assert refused.value.code == ErrorCode.EXISTS
    await recovered_in(tmp_path)


# --- the slow twin -------------------------------------------------------------------------------------------------
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 4), st.integers(1, 3)),
        st.tuples(st.just("hard"), st.integers(1, 9), st.just(0)),
        st.tuples(st.just("snapshot"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("install"), st.integers(1, 5), st.integers(0, 2)),
        st.tuples(st.just("compact"), st.integers(0, 6), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_the_store_and_a_list_agree(tmp_path: Path, drawn: list[tuple[str, int, int]]) -> None:
    trio.run(follow, Path(tempfile.mkdtemp(dir=tmp_path)), drawn)


async def follow(directory: Path, drawn: list[tuple[str, int, int]]) -> None:
    """Do the steps with the store and with a dict of entries; compare at each reopening."""
    log: dict[int, Entry] = {}
    hard, kept, base = HardState(), 0, 0
    store = SqliteLogStore(directory, KEY, SystemEntropy())
    await store.open()
    for term, (verb, a, b) in enumerate([*drawn, ("reopen", 0, 0)], start=1):
        last = max(log, default=kept)
        if verb == "append":
            first = max(last + 1 - a, kept + 1)
            batch = entries(first, first + b - 1, term)
            log = {index: it for index, it in log.items() if index < first} | {it.index: it for it in batch}
            await store.write(LogBatch(entries=batch))
        elif verb == "hard":
            hard = HardState(term, a)
            await store.write(LogBatch(hard))
        elif verb == "snapshot":
            kept = max(kept, last - a)
            await store.save_snapshot(snapshot(last - a) if last - a > 0 else snapshot(0))
        elif verb == "install":
            kept, hard = last + a, HardState(term, 9)
            batch = entries(kept + 1, kept + b, term)
            log = {it.index: it for it in batch}
            await store.write(LogBatch(hard, snapshot(kept), batch))
        elif verb == "compact":
            base = max(kept - a, base)
            await store.compact(base)
        else:
            await store.aclose()
            store = SqliteLogStore(directory, KEY, SystemEntropy())
            recovered = await store.open()
            needed = [it for index, it in log.items() if index >= base]
            assert [it for it in recovered.entries if it.index >= base] == needed
            assert (recovered.hard_state, recovered.snapshot.index) == (hard, kept)
    await store.aclose()


# --- damage --------------------------------------------------------------------------------------------------------
def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 0x10,)))


FRAME = 4096 + 24


async def test_a_torn_last_write_is_dropped_and_told(tmp_path: Path) -> None:
    copy = await crashed(tmp_path / "raft", write_ten)
    wal = copy / "log.db-wal"
    for cut in (1, 100, 4096, 4100):
        torn = tmp_path / f"torn{cut}"
        shutil.copytree(copy, torn)
        os.truncate(torn / "log.db-wal", wal.stat().st_size - cut)
        recovered = await recovered_in(torn)
        assert recovered.entries == entries(1, 9) and recovered.hard_state == HardState(1, 7, 8)
        if cut < 4096:
            assert "cut short was dropped" in recovered.repaired


async def test_a_flipped_byte_in_the_write_ahead_log_is_damage(tmp_path: Path) -> None:
    """SQLite alone would silently forget everything from the flipped byte on."""
    copy = await crashed(tmp_path / "raft", write_ten)
    frames = ((copy / "log.db-wal").stat().st_size - 32) // FRAME
    source = random.Random(3)
    for frame in range(frames - 1):
        for offset in (source.randrange(24), 24 + source.randrange(4096)):
            damaged = tmp_path / f"damaged{frame}-{offset}"
            shutil.copytree(copy, damaged)
            flip(damaged / "log.db-wal", 32 + frame * FRAME + offset)
            with pytest.raises(LogDamaged, match="acknowledged and would be lost"):
                await recovered_in(damaged)
            with pytest.raises(LogDamaged):
                await recovered_in(damaged)
            shutil.rmtree(damaged)


async def test_a_flipped_byte_in_its_header_is_damage(tmp_path: Path) -> None:
    for at in range(0, 32, 3):
        copy = await crashed(tmp_path / f"raft{at}", write_ten)
        flip(copy / "log.db-wal", at)
        with pytest.raises(LogDamaged, match=r"log\.db-wal: its header"):
            await recovered_in(copy)


async def test_a_flipped_byte_in_the_file_is_never_read_as_data(tmp_path: Path) -> None:
    async with opened(tmp_path / "raft") as (store, expected):
        await store.write(
            LogBatch(HardState(2, 1, 0), entries=tuple(entry(n, 2, os.urandom(700)) for n in range(1, 30)))
        )
        for index in range(30, 50):
            await store.write(LogBatch(entries=(entry(index, 2, os.urandom(700)),)))
        await store.save_snapshot(snapshot(20, chunks=3, size=5000))
        expected_snapshot = await store.load_snapshot()
    expected = await recovered_in(tmp_path / "raft")
    size = (tmp_path / "raft" / "log.db").stat().st_size
    source = random.Random(5)
    refused = 0
    for trial in range(60):
        copy = tmp_path / f"copy{trial}"
        shutil.copytree(tmp_path / "raft", copy)
        flip(copy / "log.db", source.randrange(size))
        try:
            async with opened(copy) as (store, recovered):
                assert recovered == expected
                assert await store.load_snapshot() == expected_snapshot
        except LogDamaged as error:
            refused += 1
            assert str(copy / "log.db") in error.text and "swarm node rm" in error.text
        shutil.rmtree(copy)
    assert refused > 30


async def test_damage_names_the_entries(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(LogBatch(entries=entries(1, 4)))
        await store.write(LogBatch(entries=entries(5, 9)))
    ((record,),) = stored(tmp_path, "SELECT record FROM records WHERE seq = 2")
    stored(tmp_path, "UPDATE records SET record = ? WHERE seq = 2", record[:-1] + bytes((record[-1] ^ 1,)))
    with pytest.raises(LogDamaged, match=r"row 2 \(entries 5 to 9\): it fails its check"):
        await recovered_in(tmp_path)


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (
            "UPDATE records SET record = (SELECT record FROM records WHERE seq = 1) WHERE seq = 2",
            "row 2 .* fails its check",
        ),
        ("UPDATE records SET seq = 99 WHERE seq = 3", "rows 3 to 98 are missing"),
        ("DELETE FROM records WHERE seq = 2", "rows 2 to 2 are missing"),
        ("DELETE FROM records WHERE seq = 1", "entries 1 to 4 are missing"),
        ("UPDATE records SET first = 6, last = 10 WHERE seq = 2", "fails its check"),
        ("UPDATE records SET record = 'text' WHERE seq = 2", "no sealed record"),
        ("UPDATE records SET record = x'0102' WHERE seq = 2", "no sealed record"),
        ("UPDATE meta SET value = x'00' WHERE key = 'snapshot'", "description of its snapshot"),
        ("UPDATE meta SET value = 2 WHERE key = 'format'", "has format 2; this version of swarm reads format 1"),
    ],
)
async def test_records_that_were_moved_or_lost_are_damage(tmp_path: Path, statement: str, text: str) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(LogBatch(entries=entries(1, 4)))
        await store.write(LogBatch(entries=entries(5, 9)))
        await store.write(LogBatch(entries=entries(10, 10)))
        if "snapshot" in statement:
            await store.save_snapshot(snapshot(3))
    stored(tmp_path, statement)
    with pytest.raises(LogDamaged, match=text):
        await recovered_in(tmp_path)


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("DELETE FROM chunks WHERE id & 2", "has 2 of 3 chunks"),
        ("UPDATE chunks SET record = (SELECT record FROM chunks LIMIT 1)", "chunk 1 of 3 of the snapshot of index 3"),
    ],
)
async def test_a_damaged_snapshot_is_refused(tmp_path: Path, statement: str, text: str) -> None:
    async with opened(tmp_path) as (store, _):
        await write_ten(store)
        await store.save_snapshot(snapshot(3))
    stored(tmp_path, statement)
    async with opened(tmp_path) as (store, _):
        with pytest.raises(LogDamaged, match=text):
            await store.load_snapshot()


async def test_another_data_key_is_not_called_damage(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await write_ten(store)
    with pytest.raises(LogDamaged, match=r"sealed with another data key than .*data\.key holds"):
        await recovered_in(tmp_path, key=bytes(32))
    assert (await recovered_in(tmp_path)).entries == entries(1, 10)


async def test_a_damaged_check_of_the_key_alone_is_repaired(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await write_ten(store)
    stored(tmp_path, "UPDATE meta SET value = x'00' WHERE key = 'key'")
    for _ in range(2):
        assert (await recovered_in(tmp_path)).entries == entries(1, 10)


async def test_another_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"not a database at all" * 500)
    with pytest.raises(LogDamaged, match="not a database"):
        await recovered_in(tmp_path)


async def test_nothing_is_stored_in_the_clear(tmp_path: Path) -> None:
    async def secret(store: SqliteLogStore) -> None:
        await store.write(LogBatch(entries=(entry(1, data=b"a very secret thing"),)))
        await store.save_snapshot(Snapshot(SnapshotMeta(1, 1), (b"a very secret thing",)))

    copy = await crashed(tmp_path / "raft", secret)
    for file in copy.iterdir():
        assert b"secret" not in file.read_bytes()


# --- a full disk ---------------------------------------------------------------------------------------------------
async def test_a_full_disk_takes_nothing_and_works_again_later(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await write_ten(store)
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages + 10}")
        large = LogBatch(HardState(9, 9, 9), entries=(entry(11, data=os.urandom(100_000)),))
        for _ in range(2):
            with pytest.raises(DiskFull, match="nothing is committed on this manager until space is free"):
                await store.write(large)
        with pytest.raises(LogWriteFailed):
            await store.save_snapshot(snapshot(10, chunks=20, size=60_000))
        with pytest.raises(LogWriteFailed):
            await store.write(LogBatch(snapshot=snapshot(20, chunks=20, size=60_000)))
        store._db.execute("PRAGMA max_page_count=100000")
        await store.write(LogBatch(entries=(entry(11),)))
    recovered = await recovered_in(tmp_path)
    assert recovered.entries == entries(1, 11) and recovered.hard_state == HardState(1, 7, 9)
    assert recovered.snapshot.index == 0


@pytest.mark.integration
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
async def test_a_really_full_disk(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    await trio.run_process(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(mount)])
    try:
        (mount / "ballast").write_bytes(b"x" * 150_000)
        async with opened(mount / "raft") as (store, _):
            written = 0
            with pytest.raises(DiskFull):
                while written < 1000:
                    await store.write(LogBatch(HardState(1, 1, written), entries=(entry(written + 1),)))
                    written += 1
            with pytest.raises(DiskFull):
                await store.write(LogBatch(entries=(entry(written + 1),)))
            (mount / "ballast").unlink()
            await store.write(LogBatch(entries=(entry(written + 1),)))
        recovered = await recovered_in(mount / "raft")
        assert recovered.entries == entries(1, written + 1) and recovered.hard_state == HardState(1, 1, written - 1)
    finally:
        await trio.run_process(["umount", str(mount)])
