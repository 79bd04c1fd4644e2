"""The writer of a member: begun in the turn, one write at a time, in order, and nothing told before it is durable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from swarm.actors.raft_disk import WRITE_RETRY_S, RaftDisk
from swarm.ports.log_store import LogBatch, LogWriteFailed, WriteDone
from swarm.raft.messages import Entry, EntryKind, Snapshot, SnapshotMeta
from swarm.raft.ready import Ready
from swarm.testing.memory_log import MemoryLogStore


def ready(number: int, *, entries: bool = True, snapshot: Snapshot | None = None) -> Ready:
    """One that writes entry `number`."""
    written = (Entry(number, 1, EntryKind.NORMAL, b""),) if entries else ()
    return Ready(number, None, snapshot, written, (), (), (), (), (), (), None, False)


class Held(MemoryLogStore):
    """What is begun is done when the test says so."""

    def __init__(self) -> None:
        super().__init__(latency_s=0.0)
        self.begun: list[tuple[LogBatch, WriteDone]] = []

    def begin_write(self, batch: LogBatch, done: WriteDone) -> bool:
        if batch.snapshot is not None:
            return False
        assert not self.begun, "one write at a time"
        self.begun.append((batch, done))
        return True

    async def landed(self) -> None:
        with trio.CancelScope(shield=True):
            while self.begun:
                await trio.sleep(0.01)

    def end(self, error: Exception | None = None) -> list[int]:
        """Of the write under way: the entries that it made durable."""
        batch, done = self.begun.pop()
        if error is None:
            self._put(batch)
        done(error)
        return [entry.index for entry in batch.entries]


class World:
    """A disk and what its member was told; `room` is in its mailbox."""

    def __init__(self) -> None:
        self.store = Held()
        self.room = True
        self.told: list[list[int]] = []
        self.later: list[list[int]] = []
        self.refusals: list[str] = []
        self.disk = RaftDisk(self.store, self._offer, self._tell, self._refused)

    def _note(self, batch: tuple[Ready, ...]) -> list[int]:
        stored = {entry.index for entry in self.store.entries}
        assert all(entry.index in stored for one in batch for entry in one.entries), "told before it was durable"
        self.disk.settled(len(batch))
        return [one.number for one in batch]

    def _offer(self, batch: tuple[Ready, ...]) -> bool:
        if self.room:
            self.told.append(self._note(batch))
        return self.room

    async def _tell(self, batch: tuple[Ready, ...]) -> None:
        await trio.lowlevel.checkpoint()
        self.later.append(self._note(batch))

    async def _refused(self, text: str) -> None:
        self.refusals.append(text)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.disk.run)
        yield world
        nursery.cancel_scope.cancel()


async def test_a_write_begins_at_once_and_what_comes_up_meanwhile_shares_the_next(autojump_clock: object) -> None:
    async with running() as world:
        for number in (1, 2, 3):
            world.disk.take(ready(number))
        assert world.store.end() == [1] and world.told == [[1]], "no task had to run for it"
        assert world.store.end() == [2, 3] and world.told == [[1], [2, 3]]
        assert world.disk.is_idle and not world.store.begun


async def test_one_that_writes_nothing_is_told_behind_the_writes_before_it(autojump_clock: object) -> None:
    async with running() as world:
        world.disk.take(ready(1))
        world.disk.take(ready(2, entries=False))
        assert world.told == []
        world.store.end()
        assert world.told == [[1], [2]] and world.disk.is_idle and not world.store.begun


async def test_a_refused_write_is_tried_again_with_all_that_came_up(autojump_clock: object) -> None:
    async with running() as world:
        world.disk.take(ready(1))
        world.store.end(LogWriteFailed("full"))
        world.store.refuses = "still full"
        world.disk.take(ready(2))
        await trio.sleep(2.5 * WRITE_RETRY_S)
        assert world.refusals == ["full", "still full", "still full"] and not world.told and not world.later
        world.store.refuses = ""
        await trio.sleep(WRITE_RETRY_S)
        assert world.later == [[1, 2]] and world.disk.is_idle and world.store.writes == 1
        world.disk.take(ready(3))
        assert world.store.end() == [3], "and goes on as before"


async def test_without_room_in_the_mailbox_the_next_write_waits(autojump_clock: object) -> None:
    async with running() as world:
        world.disk.take(ready(1))
        world.room = False
        world.disk.take(ready(2))
        world.store.end()
        assert not world.store.begun and world.later == []
        await trio.testing.wait_all_tasks_blocked()
        assert world.later == [[1]] and world.store.end() == [2]


async def test_a_snapshot_is_written_by_the_job(autojump_clock: object) -> None:
    async with running() as world:
        meta = SnapshotMeta(4, 1)
        world.disk.take(ready(1))
        world.disk.take(ready(5, snapshot=Snapshot(meta, ())))
        world.store.end()
        await trio.sleep(0.1)
        assert world.later == [[5]] and world.store.snapshot is not None and world.store.snapshot.meta == meta


async def test_any_other_failure_ends_the_member(autojump_clock: object) -> None:
    world = World()
    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.disk.run)
            world.disk.take(ready(1))
            world.store.end(ZeroDivisionError())
    assert world.told == world.later == []


async def test_a_member_that_is_cancelled_waits_for_what_was_begun_and_is_told_nothing(autojump_clock: object) -> None:
    world, ended = World(), trio.Event()

    async def life() -> None:
        await world.disk.run()

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with scope:
                await life()
            ended.set()

        scope = trio.CancelScope()
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        world.disk.take(ready(1))
        world.disk.take(ready(2))
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        assert world.store.end() == [1]
        await ended.wait()
    assert world.told == world.later == [] and not world.store.begun, "its successor's mailbox is the same one"
