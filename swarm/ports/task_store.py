"""The task store port: what a node's agent remembers of its tasks, so that it finds them again after a restart.

One idea: a task is recorded before anything is done for it, and a status before it is reported. A batch is on disk, whole,
when the call returns. Losing the store loses no workload: what runs is adopted again from the next full assignment.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import trio
from attrs import frozen

from swarm.model import plain
from swarm.model.ids import TaskId
from swarm.model.objects import Task, TaskStatus, revision_key
from swarm.model.specs import ServiceSpec
from swarm.runtime.errors import ErrorCode, SwarmError

T = TypeVar("T")

LOG = logging.getLogger("swarm.task_store")
FILE_NAME = "tasks.db"
_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spec (key TEXT PRIMARY KEY, spec BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS task (
    id TEXT PRIMARY KEY, spec TEXT NOT NULL, task BLOB NOT NULL, status BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS task_by_spec ON task (spec);
"""


class TaskStoreFailed(SwarmError):
    """Nothing of the batch was written; it may be tried again."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, text)


@frozen
class StoredTask:
    """One task as it was recorded last; its own status wins over the one in `task`."""

    task: Task
    spec: ServiceSpec
    status: TaskStatus | None = None


class TaskStore(Protocol):
    """One agent's record. Calls may overlap; they take effect in the order in which they were made."""

    async def open(self) -> list[StoredTask]:
        """All that is recorded. Opening again gives it again."""
        ...

    async def assign(self, tasks: Sequence[StoredTask], removed: Iterable[TaskId] = ()) -> None:
        """Record tasks (a status that is None leaves the recorded one) and forget others, in one batch."""
        ...

    async def record(self, statuses: Mapping[TaskId, TaskStatus]) -> None:
        """Record newer statuses; those of tasks that are not recorded are passed over."""
        ...

    async def aclose(self) -> None:
        """Let go of the file; what was recorded is durable."""
        ...


class SqliteTaskStore:
    """One SQLite file in the agent's directory, behind one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._connection: sqlite3.Connection | None = None
        self._turn = trio.Lock()

    async def open(self) -> list[StoredTask]:
        """All that is recorded; a damaged file is put aside, and the record begins anew."""
        return await self._run(self._open)

    async def assign(self, tasks: Sequence[StoredTask], removed: Iterable[TaskId] = ()) -> None:
        """One transaction."""
        gone = [(id,) for id in removed]
        if tasks or gone:
            await self._run(lambda: self._assign(tasks, gone))

    async def record(self, statuses: Mapping[TaskId, TaskStatus]) -> None:
        """One transaction."""
        rows = [(plain.dumps(status, TaskStatus), id) for id, status in statuses.items()]
        if rows:
            await self._run(lambda: self._record(rows))

    async def aclose(self) -> None:
        """Close the file."""
        await self._run(self._close)

    async def _run(self, function: Callable[[], T]) -> T:
        async with self._turn:
            try:
                return await trio.to_thread.run_sync(function)
            except (sqlite3.Error, OSError) as error:
                raise TaskStoreFailed(f"the record of tasks, {self._path}, cannot be used: {error}") from error

    # --- in the thread ---------------------------------------------------------------------------------------------
    def _open(self) -> list[StoredTask]:
        self._close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return self._read()
        except (sqlite3.DatabaseError, plain.PlainError, KeyError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._close()
            aside = self._path.with_suffix(".damaged")
            LOG.error(
                "%s is damaged (%s): it is kept as %s, tasks are adopted from the managers", self._path, error, aside
            )
            os.replace(self._path, aside)
            for leftover in ("-wal", "-shm"):
                Path(f"{self._path}{leftover}").unlink(missing_ok=True)
            return self._read()

    def _read(self) -> list[StoredTask]:
        connection = self._connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version={_FORMAT}")
        os.chmod(self._path, 0o600)
        specs = {key: plain.loads(data, ServiceSpec) for key, data in connection.execute("SELECT key, spec FROM spec")}
        return [
            StoredTask(
                plain.loads(task, Task), specs[spec], None if status is None else plain.loads(status, TaskStatus)
            )
            for spec, task, status in connection.execute("SELECT spec, task, status FROM task ORDER BY id")
        ]

    def _assign(self, tasks: Sequence[StoredTask], gone: list[tuple[TaskId]]) -> None:
        with self._transaction() as connection:
            for stored in tasks:
                task = stored.task
                key = revision_key(task.service_id, task.revision)
                status = None if stored.status is None else plain.dumps(stored.status, TaskStatus)
                connection.execute(
                    "INSERT OR IGNORE INTO spec (key, spec) VALUES (?, ?)", (key, plain.dumps(stored.spec, ServiceSpec))
                )
                connection.execute(
                    "INSERT INTO task (id, spec, task, status) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
                    "SET spec = excluded.spec, task = excluded.task, status = coalesce(excluded.status, task.status)",
                    (task.id, key, plain.dumps(task, Task), status),
                )
            if gone:
                connection.executemany("DELETE FROM task WHERE id = ?", gone)
                connection.execute("DELETE FROM spec WHERE key NOT IN (SELECT spec FROM task)")

    def _record(self, rows: list[tuple[bytes, TaskId]]) -> None:
        with self._transaction() as connection:
            connection.executemany("UPDATE task SET status = ? WHERE id = ?", rows)

    def _transaction(self) -> _Transaction:
        if self._connection is None:
            raise sqlite3.ProgrammingError("it is not open")
        return _Transaction(self._connection)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Transaction:
    """BEGIN, then COMMIT or ROLLBACK."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")
