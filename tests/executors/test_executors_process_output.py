"""A task's output on the disk: what is read, when it was written, how it is bounded."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.executors.base import LogOptions, Stream
from swarm.executors.process import output
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
from swarm.executors.process.output import LINE_BYTES_MAX, OUTPUT_BYTES_KEPT, OUTPUT_BYTES_MAX, Output, tend
from swarm.model.ids import Instant, TaskId
from swarm.ports import disk

LAST = 1_000_000.0


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "task").mkdir()
    return Layout(str(tmp_path), TaskId("task"))


def write(layout: Layout, data: bytes, at: float = LAST, stream: Stream = Stream.STDOUT) -> None:
    disk.append_bytes(layout.output(stream), data)
    os.utime(layout.output(stream), (at, at))


ALL = LogOptions()


async def read(layout: Layout, options: LogOptions = ALL) -> list[bytes]:
    return [line.data async for line in Output(layout, options, lambda: True)]


# --- reading ------------------------------------------------------------------------------------------------------------
async def test_nothing_was_written(layout: Layout) -> None:
    assert await read(layout) == []


async def test_lines(layout: Layout) -> None:
    write(layout, b"one\n\ntwo\r\n\xff\0bytes\nlast without newline")
    assert await read(layout) == [b"one", b"", b"two\r", b"\xff\0bytes", b"last without newline"]


async def test_24_2_logs_are_not_throttled(layout: Layout) -> None:
    """There, after 10 MiB one byte a second came through."""
    lines = 12 * 1024
    write(layout, (b"x" * 1023 + b"\n") * lines)
    for _ in range(2):
        assert len(await read(layout)) == lines, "nor does a second reader pay for the first"


async def test_long_line_comes_in_pieces(layout: Layout) -> None:
    line = os.urandom(LINE_BYTES_MAX * 3 + 5).replace(b"\n", b"x")
    write(layout, b"before\n" + line + b"\nafter\n")
    pieces = await read(layout)
    assert pieces[0] == b"before"
    assert pieces[-1] == b"after"
    assert b"".join(pieces[1:-1]) == line
    assert max(map(len, pieces)) <= LINE_BYTES_MAX


@given(st.lists(st.binary(max_size=50).filter(lambda line: b"\n" not in line), max_size=30), st.integers(1, 64))
async def test_chunks_do_not_show(lines: list[bytes], chunk: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "CHUNK_BYTES", chunk)
        layout = Layout(root, TaskId("task"))
        disk.make_directory(layout.directory)
        write(layout, b"".join(line + b"\n" for line in lines))
        assert await read(layout) == lines


async def test_streams_are_merged_by_time(layout: Layout) -> None:
    sizes = {Stream.STDOUT: 0, Stream.STDERR: 0}
    for number in range(6):
        stream = Stream.STDERR if number % 2 else Stream.STDOUT
        write(layout, f"{number}\n".encode(), LAST + number, stream)
        sizes[stream] = tend(layout, stream, sizes[stream])
    assert await read(layout) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert await read(layout, LogOptions(tail=3)) == [b"3", b"4", b"5"]
    assert await read(layout, LogOptions(since=Instant(LAST + 2))) == [b"2", b"3", b"4", b"5"]
    assert await read(layout, LogOptions(since=Instant(LAST + 2), tail=1)) == [b"5"]
    assert await read(layout, LogOptions(streams=(Stream.STDERR,))) == [b"1", b"3", b"5"]


async def test_follower_sees_what_comes_and_ends_with_the_task(layout: Layout) -> None:
    ended: list[bool] = []
    lines = Output(layout, LogOptions(follow=True), lambda: bool(ended))
    write(layout, b"one\ntw")
    assert (await anext(lines)).data == b"one"
    write(layout, b"o\n")
    assert (await anext(lines)).data == b"two"
    write(layout, b"rest")
    ended.append(True)
    assert [line.data async for line in lines] == [b"rest"]


# --- time ---------------------------------------------------------------------------------------------------------------
async def test_a_line_has_the_time_of_the_first_look_after_it(layout: Layout) -> None:
    write(layout, b"one\n", LAST)
    size = tend(layout, Stream.STDOUT, 0)
    write(layout, b"two\nthree\n", LAST + 10)
    tend(layout, Stream.STDOUT, size)
    write(layout, b"four\n", LAST + 20)
    times = [line.at - LAST async for line in Output(layout, LogOptions(), lambda: True)]
    assert times == [0, 10, 10, 20]


@given(st.lists(st.tuples(st.integers(0, 2**60), st.floats(0, 2**40)), max_size=20))
def test_marks_read_back_only_forward(pairs: list[tuple[int, float]]) -> None:
    marks = [Mark(offset, Instant(at)) for offset, at in pairs]
    found = decode_marks(encode_marks(marks) + b"torn")
    assert all(a.offset < b.offset and a.at <= b.at for a, b in pairwise(found))
    assert set(found) <= set(marks)


@given(st.sets(st.integers(1, 1000)), st.integers(0, 1000))
def test_thinning_keeps_the_newest_and_halves(offsets: set[int], first: int) -> None:
    marks = [Mark(offset, Instant(offset)) for offset in sorted(offsets)]
    useful = [mark for mark in marks if mark.offset > first]
    found = thin(marks, first)
    assert found == [mark for mark in useful if mark in found]
    assert len(found) == (len(useful) + 1) // 2
    assert found[-1:] == useful[-1:]


@given(st.sets(st.integers(1, 50)), st.integers(1, 60))
def test_timeline_is_the_first_mark_that_covers(offsets: set[int], end: int) -> None:
    marks = [Mark(offset, Instant(offset * 2)) for offset in sorted(offsets)]
    slow = next((mark.at for mark in marks if mark.offset >= end), Instant(1000))
    assert Timeline(marks, Instant(1000)).at(end) == slow


async def test_number_of_marks_is_bounded(layout: Layout) -> None:
    many = [Mark(offset, Instant(offset)) for offset in range(1, MARKS_MAX + 1)]
    disk.append_bytes(layout.marks(Stream.STDOUT), encode_marks(many))
    write(layout, b"x" * (MARKS_MAX + 1))
    tend(layout, Stream.STDOUT, 0)
    assert len(decode_marks(disk.read_bytes(layout.marks(Stream.STDOUT)))) <= MARKS_MAX // 2 + 1
    found = disk.facts(layout.marks(Stream.STDOUT))
    assert found is not None
    assert found.size_bytes <= MARKS_MAX * MARK_BYTES


# --- bounds -------------------------------------------------------------------------------------------------------------
LINE_BYTES = 256


def fill(layout: Layout) -> int:
    """Writes more than fits, as numbered lines; their number."""
    count = OUTPUT_BYTES_MAX // LINE_BYTES + 100
    write(layout, b"".join(b"%0255d\n" % number for number in range(count)))
    return count


async def test_head_of_a_full_output_is_given_back_to_the_disk(layout: Layout) -> None:
    writer = disk.open_append(layout.output(Stream.STDOUT))
    count = fill(layout)
    size = tend(layout, Stream.STDOUT, 0)
    found = disk.facts(layout.output(Stream.STDOUT))
    assert found is not None
    if found.disk_bytes > OUTPUT_BYTES_MAX:
        pytest.skip("the file system of the temporary directory has no holes")
    assert found.disk_bytes <= OUTPUT_BYTES_KEPT + 2 * output.BLOCK_BYTES
    os.write(writer, b"after\n")
    os.close(writer)
    assert tend(layout, Stream.STDOUT, size) == size + 6
    lines = await read(layout)
    assert lines[-1] == b"after"
    numbers = [int(line) for line in lines[:-1]]
    assert numbers == list(range(count - len(numbers), count))
    assert len(numbers) >= OUTPUT_BYTES_KEPT // LINE_BYTES - 1
    assert await read(layout, LogOptions(tail=1)) == [b"after"]


async def test_without_holes_a_full_output_starts_anew_and_says_so(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "punch_hole", lambda *_: False)
    lines = Output(layout, LogOptions(follow=True), lambda: False)
    fill(layout)
    assert (await anext(lines)).data == b"%0255d" % 0
    size = tend(layout, Stream.STDOUT, 0)
    write(layout, b"after\n")
    found = await read(layout)
    assert b"older output were dropped" in found[0]
    assert found[1:] == [b"after"]
    tend(layout, Stream.STDOUT, size)
    async for line in lines:
        if line.data == b"after":
            break
