"""The writer of one Raft member: whatever is ready goes to disk together, in order, one write at a time.

One idea: while a write is under way, what comes up meanwhile gathers, and the next write takes all of it (group commit). A
disk that is full is waited for, with nothing acknowledged meanwhile; any other failure ends the member.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from swarm.ports.log_store import LogBatch, LogStore, LogWriteFailed, merge
from swarm.raft.ready import Ready

WRITE_RETRY_S = 1.0
"""Between two tries to write to a disk that refused."""


class RaftDisk:
    """Takes what the core hands out. Its fields are touched in the member's turns and by its one job, never both at once."""

    def __init__(
        self,
        store: LogStore,
        written: Callable[[tuple[Ready, ...]], Awaitable[None]],
        refused: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._written = written
        """Called by the job when these are durable, in order."""
        self._refused = refused
        """Called by the job when the disk refused; it goes on trying."""
        self._waiting: list[Ready] = []
        self._wake = trio.Event()
        self._under_way = 0
        self._idle = trio.Event()
        self._idle.set()

    @property
    def is_idle(self) -> bool:
        """Whether all that was taken is durable."""
        return not self._under_way

    def take(self, ready: Ready) -> None:
        """Write it, after all that came before."""
        self._waiting.append(ready)
        self._under_way += 1
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._wake.set()

    def settled(self, count: int) -> None:
        """The member has taken note of `count` that were written."""
        self._under_way -= count
        if not self._under_way:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until all that was taken is durable."""
        await self._idle.wait()

    async def run(self) -> None:
        """The job."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            batch: list[Ready] = []
            while True:
                batch += self._waiting
                self._waiting.clear()
                merged = merge([LogBatch(ready.hard_state, ready.snapshot, ready.entries) for ready in batch])
                try:
                    if merged != _NOTHING:
                        await self._store.write(merged)
                    break
                except LogWriteFailed as error:
                    await self._refused(error.text)
                    await trio.sleep(WRITE_RETRY_S)
            await self._written(tuple(batch))


_NOTHING = LogBatch()
