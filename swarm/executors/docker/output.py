"""A container's output: from the Engine, through a thread that lives as long as somebody reads.

Its one idea: the reader may walk away without a word. The thread belongs to the executor's nursery, hands over a few
batches and then waits for room, and ends when its iterator was forgotten: the last reference closes its connection.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import trio

from swarm.executors.base import ExecutorError, LogLine, LogOptions, Stream
from swarm.executors.docker.demux import Demultiplexer, format_time
from swarm.executors.docker.engine import Engine
from swarm.executors.docker.streams import LongAnswer

READERS_MAX = 64
"""Threads that read output at once on one node; more readers wait for a turn."""
BATCH_LINES_MAX = 256
BATCHES_MAX = 4
"""Read ahead of the reader; then the Engine has to wait."""


class Pump:
    """What the reading thread and the iterator share. All but `abandon` is called in trio's thread."""

    def __init__(self) -> None:
        self.batches: deque[list[LogLine]] = deque()
        self.error: ExecutorError | None = None
        self.ended = trio.Event()
        """The reading is over; what was read may still wait in `batches`."""
        self._is_abandoned = False
        self._changed = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self.answer = LongAnswer()
        """The engine's, to be ended when nobody reads any more."""

    def abandon(self) -> None:
        """Nobody reads any more. Called in whatever thread forgets the iterator."""
        self._is_abandoned = True
        self.answer.end()
        try:
            self._token.run_sync_soon(self.change)
        except trio.RunFinishedError:
            pass

    def change(self) -> None:
        """Wakes both sides."""
        self._changed.set()
        self._changed = trio.Event()

    async def put(self, batch: list[LogLine]) -> bool:
        """Waits for room and adds a batch; False when nobody reads any more."""
        while len(self.batches) >= BATCHES_MAX and not self._is_abandoned:
            await self._changed.wait()
        self.batches.append(batch)
        self.change()
        return not self._is_abandoned

    async def get(self) -> list[LogLine] | None:
        """The next batch, None at the end; raises what the reading ended with."""
        while not self.batches:
            if self.error is not None:
                raise self.error
            if self.ended.is_set():
                return None
            await self._changed.wait()
        batch = self.batches.popleft()
        self.change()
        return batch


class ContainerLogs:
    """Reads the output of an engine's containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limiter = trio.CapacityLimiter(READERS_MAX)

    async def read(self, pump: Pump, container: str, options: LogOptions, *, tty: bool) -> None:
        """Fills the pump until the output ends or nobody reads; runs in the executor's nursery."""
        try:
            await trio.to_thread.run_sync(
                self._read, pump, container, options, tty, limiter=self._limiter, abandon_on_cancel=True
            )
        except ExecutorError as error:
            pump.error = error
        finally:
            pump.ended.set()
            pump.abandon()

    def _read(self, pump: Pump, container: str, options: LogOptions, tty: bool) -> None:
        """In a thread. The raw stream: the SDK's own call mixes the two outputs and rounds `since` to seconds."""
        demultiplexer = Demultiplexer(tty=tty)
        parameters: dict[str, Any] = {
            "stdout": Stream.STDOUT in options.streams,
            "stderr": Stream.STDERR in options.streams,
            "timestamps": True,
            "follow": options.follow,
            "tail": "all" if options.tail is None else max(0, options.tail),
        }
        if options.since is not None:
            parameters["since"] = format_time(options.since)
        with self._engine.translated():
            with pump.answer.reading(self._engine.api, f"/containers/{container}/logs", parameters) as response:
                for chunk in response.iter_content(chunk_size=None):
                    if not self._hand_over(pump, demultiplexer.feed(chunk)):
                        return
            self._hand_over(pump, demultiplexer.end())

    @staticmethod
    def _hand_over(pump: Pump, lines: Iterator[LogLine]) -> bool:
        batch: list[LogLine] = []
        for line in lines:
            batch.append(line)
            if len(batch) >= BATCH_LINES_MAX:
                if not trio.from_thread.run(pump.put, batch):
                    return False
                batch = []
        return not batch or trio.from_thread.run(pump.put, batch)


class ContainerOutput:
    """The lines of one container, for one reader."""

    def __init__(self, start: Any) -> None:
        self._start = start
        """`async (Pump) -> bool`: starts the reading; False when there is nothing to read."""
        self.pump: Pump | None = None
        self._batch: deque[LogLine] = deque()

    def __aiter__(self) -> ContainerOutput:
        return self

    async def __anext__(self) -> LogLine:
        if self.pump is None:
            pump = Pump()
            weakref.finalize(self, pump.abandon)
            if not await self._start(pump):
                pump.ended.set()
            self.pump = pump
        while not self._batch:
            batch = await self.pump.get()
            if batch is None:
                raise StopAsyncIteration
            self._batch.extend(batch)
        return self._batch.popleft()
