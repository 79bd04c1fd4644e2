"""Progress streams: the store's changes, narrowed to one service or node, as facts for a person who waits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import trio
from attrs import evolve

from swarm.actors.control.views import drain_progress, service_progress
from swarm.actors.store_messages import Committed, ReadBarrier, WatchStore
from swarm.model.changes import Kind
from swarm.model.events import Event
from swarm.model.ids import NodeId
from swarm.model.objects import Node, Revision, Service, Task
from swarm.model.snapshot import Snapshot
from swarm.ports.clock import Clock
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.ref import Inlet, Ref, Sink
from swarm.wire.messages.control import DrainProgress, ServiceProgress, WatchService

T = TypeVar("T")

WATCH_WINDOW = 256
"""Batches that a watcher may be behind before it is told to start anew."""
READ_TIMEOUT_S = 20.0
RECHECK_S = 0.25
"""Facts that change with time alone (an update's monitor period) are looked at this often."""


async def follow_service(store: Ref, request: WatchService, clock: Clock, sink: Sink[ServiceProgress]) -> None:
    """Send a service's progress whenever it changes, until it is gone with all of its tasks."""
    id = request.id
    hold = Hold(request.hold_s)

    def touches(event: Event) -> bool:
        found = event.object
        match found:
            case Service():
                return found.id == id
            case Task() | Revision():
                return found.service_id == id
            case Node():
                return True
        return False

    def look(view: Snapshot) -> ServiceProgress:
        return hold.judge(service_progress(view, id, clock.now()), clock.monotonic())

    await _follow(store, sink, touches, look, last=lambda progress: progress.removed)


class Hold:
    """Believes in convergence only when it lasts; what a job has completed stays completed, and what was stopped stopped."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._since: float | None = None

    def judge(self, progress: ServiceProgress, now_s: float) -> ServiceProgress:
        """The progress as it is told; `now_s` only moves forward."""
        if not progress.converged:
            self._since = None
            return progress
        if progress.mode.endswith("-job") or not progress.desired:
            return progress  # nothing runs that could end again
        if self._since is None:
            self._since = now_s
        if now_s - self._since >= self._hold_s:
            return progress
        return evolve(progress, converged=False, text="all run; making sure that they stay")


async def follow_drain(store: Ref, id: NodeId, sink: Sink[DrainProgress]) -> None:
    """Send a drain's progress whenever it changes, until nothing runs on the node."""

    def touches(event: Event) -> bool:
        found = event.object
        return isinstance(found, Task) or (event.kind is Kind.NODE and isinstance(found, Node) and found.id == id)

    def look(view: Snapshot) -> DrainProgress:
        node = view.node(id)
        return drain_progress(view, node) if node is not None else DrainProgress(id, remaining=0, converged=True)

    await _follow(store, sink, touches, look, last=lambda progress: progress.converged)


async def _follow(
    store: Ref,
    sink: Sink[T],
    touches: Callable[[Event], bool],
    look: Callable[[Snapshot], T],
    last: Callable[[T], bool],
) -> None:
    with trio.CancelScope() as scope:
        sink.on_close(scope.cancel)
        try:
            await store.ask(ReadBarrier(), timeout_s=READ_TIMEOUT_S)
            async with store.stream(WatchStore(), window=WATCH_WINDOW) as inlet:
                await _send_changes(inlet, sink, touches, look, last)
        except SwarmError as error:
            sink.fail(error)
        except trio.EndOfChannel:
            sink.fail(SwarmError(ErrorCode.UNAVAILABLE, "the leader changed"))


async def _send_changes(
    inlet: Inlet[Committed],
    sink: Sink[T],
    touches: Callable[[Event], bool],
    look: Callable[[Snapshot], T],
    last: Callable[[T], bool],
) -> None:
    shown: T | None = None
    view: Snapshot | None = None
    while True:
        committed: Committed | None = None
        with trio.move_on_after(math.inf if view is None else RECHECK_S):
            committed = await inlet.receive()
        if committed is not None:
            first, view = view is None, committed.snapshot
            if not first and not any(touches(event) for event in committed.events):
                continue
        assert view is not None, "the first item is waited for without a limit"
        facts = look(view)
        if facts != shown:
            shown = facts
            await sink.send(facts)
        if last(facts):
            sink.close()
            return
