"""Both task stores do the same; the SQLite one also survives its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from swarm.model.ids import Instant, RevisionNumber, ServiceId, TaskId
from swarm.model.objects import Task, TaskStatus
from swarm.model.specs import ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.ports.task_store import SqliteTaskStore, StoredTask, TaskStore, TaskStoreFailed
from swarm.testing.task_store import MemoryTaskStore

RUNNING = TaskStatus(TaskState.RUNNING, Instant(5.0), pid=7)


def stored(name: str, revision: int = 1) -> StoredTask:
    spec = ServiceSpec(f"web{revision}", TaskSpec(ProcessSpec(("sleep", "1"))))
    return StoredTask(Task(TaskId(name), ServiceId("s"), RevisionNumber(revision)), spec)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TaskStore:
    return MemoryTaskStore() if request.param == "memory" else SqliteTaskStore(tmp_path / "agent")


async def test_what_was_recorded_is_read_again(store: TaskStore) -> None:
    assert await store.open() == []
    await store.assign([stored("b", 2), stored("a")])
    await store.record({TaskId("a"): RUNNING, TaskId("unknown"): RUNNING})
    await store.aclose()
    assert await store.open() == [evolve(stored("a"), status=RUNNING), stored("b", 2)]
    # what is wanted changes, the status stays; another task goes, and its spec with it
    newer = stored("a")
    newer = evolve(newer, task=evolve(newer.task, desired=TaskState.SHUTDOWN))
    await store.assign([newer], [TaskId("b"), TaskId("unknown")])
    assert await store.open() == [evolve(newer, status=RUNNING)]
    await store.assign([], [])
    await store.record({})
    await store.aclose()


async def test_the_file_is_private_and_nothing_is_lost_without_a_close(tmp_path: Path) -> None:
    store = SqliteTaskStore(tmp_path / "agent")
    await store.open()
    await store.assign([stored("a")])
    other = SqliteTaskStore(tmp_path / "agent")
    assert await other.open() == [stored("a")]
    assert (tmp_path / "agent" / "tasks.db").stat().st_mode & 0o777 == 0o600
    await store.aclose()
    await other.aclose()


@pytest.mark.parametrize("damage", [b"this is not a database, is it? " * 10, None])
async def test_a_damaged_file_is_put_aside(tmp_path: Path, damage: bytes | None) -> None:
    store = SqliteTaskStore(tmp_path)
    await store.open()
    await store.assign([stored("a")])
    if damage is None:
        connection = store._connection
        assert connection is not None
        connection.execute("UPDATE task SET task = x'ff00'")
    await store.aclose()
    if damage is not None:
        (tmp_path / "tasks.db").write_bytes(damage)
    assert await store.open() == []
    assert (tmp_path / "tasks.damaged").exists()
    await store.assign([stored("a")])
    assert await store.open() == [stored("a")]
    await store.aclose()


async def test_a_store_that_cannot_write_says_so(tmp_path: Path) -> None:
    store = SqliteTaskStore(tmp_path)
    with pytest.raises(TaskStoreFailed, match=r"tasks\.db, cannot be used: it is not open"):
        await store.record({TaskId("a"): RUNNING})
    (tmp_path / "file").write_text("")
    with pytest.raises(TaskStoreFailed, match="cannot be used"):
        await SqliteTaskStore(tmp_path / "file" / "agent").open()
    memory = MemoryTaskStore(refusing="disk full")
    with pytest.raises(TaskStoreFailed, match="disk full"):
        await memory.assign([stored("a")])
