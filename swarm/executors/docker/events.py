"""One event stream per engine: who waits for a container is woken by it, and nobody waits in a thread.

Its one idea: an event is only a hint to look again. After every (re)connection the whole list of this node's containers
is compared as well, so an event that was lost while the engine was away delays nobody for good.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from swarm.executors.base import ExecutorError, TemporaryError
from swarm.executors.docker.config import LABEL_NODE_ID, LABEL_TASK_ID
from swarm.executors.docker.engine import Engine
from swarm.executors.docker.streams import LongAnswer
from swarm.model.ids import NodeId, TaskId

if TYPE_CHECKING:
    from docker import APIClient

RECONNECT_S_MIN = 0.2
RECONNECT_S_MAX = 10.0
RECONCILE_PERIOD_S = 60.0
"""How long a lost event can go unnoticed while the stream seems to be up."""
ACTIONS = ("start", "die", "destroy", "health_status")
RUNNING = frozenset({"running", "paused", "restarting", "created"})


class Changes:
    """Who waits for which task's container."""

    def __init__(self) -> None:
        self._waiting: dict[TaskId, trio.Event] = {}

    def next(self, task_id: TaskId) -> trio.Event:
        """Set at the task's next change from now on: take it first, then look at the container, then wait."""
        return self._waiting.setdefault(task_id, trio.Event())

    def notify(self, task_id: TaskId) -> None:
        """Wakes who waits for this task."""
        waiting = self._waiting.pop(task_id, None)
        if waiting is not None:
            waiting.set()

    def notify_all_but(self, running: Iterable[TaskId]) -> None:
        """Wakes who waits for any task that is not among `running`."""
        kept = frozenset(running)
        for task_id in [task_id for task_id in self._waiting if task_id not in kept]:
            self.notify(task_id)


class EventStream:
    """Follows the engine's events of this node's containers, for as long as `run` runs."""

    def __init__(self, engine: Engine, node_id: NodeId, changes: Changes) -> None:
        self._engine = engine
        self._node_id = node_id
        self._changes = changes
        self._since: int | None = None
        """The engine's time of the last event, in whole seconds, to take up the stream where it broke."""

    async def run(self) -> None:
        """Runs until cancelled, through any number of engine restarts."""
        pause_s = RECONNECT_S_MIN
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reconcile_now_and_then)
            while True:
                began = trio.current_time()
                await self._follow_once()
                lasted_s = trio.current_time() - began
                pause_s = RECONNECT_S_MIN if lasted_s > RECONNECT_S_MAX else min(RECONNECT_S_MAX, pause_s * 2)
                await trio.sleep(pause_s)

    async def reconcile(self) -> None:
        """Wakes whoever waits for a container that does not run (any more)."""
        containers = await self._engine.call(partial(list_containers, label=f"{LABEL_NODE_ID}={self._node_id}"))
        self._compare(containers)

    async def _reconcile_now_and_then(self) -> None:
        while True:
            await trio.sleep(RECONCILE_PERIOD_S)
            try:
                await self.reconcile()
            except ExecutorError:
                continue  # the stream breaks too, then, and its return reconciles

    async def _follow_once(self) -> None:
        """One connection; returns when it broke or could not be made."""
        answer = LongAnswer()
        try:
            await trio.to_thread.run_sync(self._read, answer, abandon_on_cancel=True)
        except ExecutorError:
            return
        finally:
            answer.end()

    def _read(self, answer: LongAnswer) -> None:
        """In a thread: reads until the stream ends or is ended by whoever cancelled us."""
        label = f"{LABEL_NODE_ID}={self._node_id}"
        filters = {"type": ["container"], "label": [label], "event": list(ACTIONS)}
        parameters = {"filters": json.dumps(filters), "since": self._since}
        with self._engine.translated():
            api = self._engine.api
            with answer.reading(api, "/events", parameters) as response:
                containers = list_containers(api, label)
                trio.from_thread.run_sync(self._compare, containers)
                for line in response.iter_lines(chunk_size=None):
                    trio.from_thread.run_sync(self._take, parse_event(line))

    def _compare(self, containers: list[dict[str, Any]]) -> None:
        running = [TaskId(each["Labels"][LABEL_TASK_ID]) for each in containers if each["State"] in RUNNING]
        self._changes.notify_all_but(running)

    def _take(self, event: Mapping[str, Any]) -> None:
        self._since = int(event["time"]) if "time" in event else self._since
        attributes = event.get("Actor", {}).get("Attributes", {})
        if LABEL_TASK_ID in attributes:
            self._changes.notify(TaskId(attributes[LABEL_TASK_ID]))


def parse_event(line: bytes) -> dict[str, Any]:
    """One event of the stream; raises `TemporaryError` for what is none, and the stream is taken up anew."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise TemporaryError(f"the Docker Engine sent {line[:80]!r} among its events")
    return event


def list_containers(api: APIClient, label: str) -> list[dict[str, Any]]:
    """All containers with a label, running or not, that a task owns."""
    found: list[dict[str, Any]] = api.containers(all=True, filters={"label": [label]})
    return [container for container in found if LABEL_TASK_ID in container["Labels"]]
