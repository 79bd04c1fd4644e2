"""The writer of one Raft member: whatever is ready goes to disk together, in order, one write at a time.

One idea: while a write is under way, what comes up meanwhile gathers, and the next write takes all of it (group commit). A
write begins in the very turn that has something to write, and its end is news in the member's mailbox: a job helps out only
where something has to wait. A disk that is full is waited for, with nothing acknowledged meanwhile; any other failure ends
the member.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from swarm.ports.log_store import LogBatch, LogStore, LogWriteFailed, merge
from swarm.raft.ready import Ready

WRITE_RETRY_S = 1.0
"""Between two tries to write to a disk that refused."""


class RaftDisk:
    """Takes what the core hands out. Its fields are touched between two steps of the loop's tasks, never by two at once."""

    def __init__(
        self,
        store: LogStore,
        offer: Callable[[tuple[Ready, ...]], bool],
        tell: Callable[[tuple[Ready, ...]], Awaitable[None]],
        refused: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._offer = offer
        """Called in no task when these are durable, in order; False when there was no room, and then `tell` is called."""
        self._tell = tell
        self._refused = refused
        """Called by the job when the disk refused; it goes on trying."""
        self._waiting: list[Ready] = []
        self._batch: tuple[Ready, ...] = ()
        """What is being written, or is durable and not told yet."""
        self._busy = False
        """Whether there is such a batch: the next one waits for it."""
        self._begun = False
        """The store has the batch, and calls when it is done."""
        self._durable = False
        self._error: Exception | None = None
        self._wake = trio.Event()
        """There is something for the job."""
        self._ended = False
        """The member has ended: nobody is there to be told any more."""
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
        if not self._under_way:
            self._idle = trio.Event()
        self._under_way += 1
        self._begin()

    def settled(self, count: int) -> None:
        """The member has taken note of `count` that were written."""
        self._under_way -= count
        if not self._under_way:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until all that was taken is durable."""
        await self._idle.wait()

    # --- without waiting -------------------------------------------------------------------------------------------
    def _begin(self) -> None:
        """The next batch, of all that waits, unless one is under way."""
        while self._waiting and not self._busy:
            self._busy, self._durable = True, False
            merged = self._gather()
            if merged is None:
                self._report()
                continue
            self._begun = self._store.begin_write(merged, self._landed)
            if not self._begun:
                self._wake.set()

    def _gather(self) -> LogBatch | None:
        """Let the batch have all that waits; what is to be written of it, None for nothing."""
        self._batch = (*self._batch, *self._waiting)
        self._waiting.clear()
        writes = [
            LogBatch(ready.hard_state, ready.snapshot, ready.entries) for ready in self._batch if ready.must_write
        ]
        return merge(writes) if writes else None

    def _landed(self, error: Exception | None) -> None:
        """The store is done."""
        self._begun = False
        if self._ended:
            return
        if error is None:
            self._report()
            self._begin()
        else:
            self._error = error
            self._wake.set()

    def _report(self) -> None:
        self._durable = True
        if self._offer(self._batch):
            self._batch, self._busy = (), False
        else:
            self._wake.set()

    # --- what has to wait ------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """The job. It ends only when the store has let go of what was begun."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await self._finish()
                self._batch, self._busy = (), False
                self._begin()
        finally:
            self._ended = True
            if self._begun:
                await self._store.landed()

    async def _finish(self) -> None:
        """Bring the batch to its end: it takes several steps, or was refused, or there was no room for the news."""
        while not self._durable:
            error, self._error = self._error, None
            try:
                if error is not None:
                    raise error
                merged = self._gather()
                if merged is not None:
                    await self._store.write(merged)
                self._durable = True
            except LogWriteFailed as refusal:
                await self._refused(refusal.text)
                await trio.sleep(WRITE_RETRY_S)
        await self._tell(self._batch)
