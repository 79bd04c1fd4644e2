"""The actor `logs`, on the leader: the output of a service's tasks, gathered from the nodes that ran them.

One reader job per node and subscription; each passes lines on as fast as the subscriber takes them, so that nothing is
buffered beyond the streams' windows. A node that cannot be asked costs a note, never the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import trio
from attrs import define, field

from swarm.actors.control.lookup import find_service, find_task
from swarm.actors.control.views import node_name, task_view
from swarm.actors.store_messages import ReadBarrier, WatchStore
from swarm.executors.base import LogOptions
from swarm.model.ids import NodeId, ServiceId, TaskId
from swarm.model.objects import Task
from swarm.model.snapshot import Snapshot
from swarm.model.states import TaskState
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.ref import Ref, Sink
from swarm.runtime.turn import StreamTurn
from swarm.wire.messages.control import FollowLogs, LogItem
from swarm.wire.messages.node import ReadLogs

READ_TIMEOUT_S = 20.0
LINES_WINDOW = 256
"""Lines that a node may send ahead of the subscriber."""
WATCH_WINDOW = 256


@define
class _Target:
    """What a subscription reads, and the tasks that it already reads."""

    service_id: ServiceId | None
    task_id: TaskId | None
    asked: set[TaskId] = field(factory=set)

    def tasks(self, view: Snapshot) -> list[Task]:
        """Tasks that have started on a node and are not read yet, oldest first."""
        if self.task_id is not None:
            task = view.task(self.task_id)
            found: Collection[Task] = () if task is None else (task,)
        else:
            assert self.service_id is not None, "a target is a service or a task"
            found = view.tasks_of_service(self.service_id)
        return [
            task
            for task in found
            if task.id not in self.asked and task.node_id and task.status.state >= TaskState.STARTING
        ]

    def gone(self, view: Snapshot) -> bool:
        """Whether no further task can appear."""
        if self.task_id is not None:
            task = view.task(self.task_id)
            return task is None or task.status.state.is_terminal or self.task_id in self.asked
        return self.service_id is None or view.service(self.service_id) is None


class LogBroker(Actor):
    """Serves `FollowLogs`."""

    def __init__(self, store: Ref, agent_of: Callable[[NodeId], Ref | None]) -> None:
        """`agent_of` gives a node's agent while its link to this manager stands."""
        self._store = store
        self._agent_of = agent_of

    @on(FollowLogs)
    def follow(self, request: FollowLogs, turn: StreamTurn[LogItem]) -> None:
        """Start reading; a subscriber that leaves ends it."""
        scope = self.job(self._serve, request, turn.sink, name="logs")
        turn.sink.on_close(scope.cancel)

    async def _serve(self, request: FollowLogs, sink: Sink[LogItem]) -> None:
        try:
            view = await self._store.ask(ReadBarrier(), timeout_s=READ_TIMEOUT_S)
            target = _target_of(view, request.who)
        except SwarmError as error:
            sink.fail(error)
            return
        async with trio.open_nursery() as nursery:
            self._read_new(nursery, view, target, request, sink)
            if request.follow:
                await self._read_later_ones(nursery, target, request, sink)
        sink.close()

    async def _read_later_ones(
        self, nursery: trio.Nursery, target: _Target, request: FollowLogs, sink: Sink[LogItem]
    ) -> None:
        try:
            async with self._store.stream(WatchStore(), window=WATCH_WINDOW) as inlet:
                async for committed in inlet:
                    self._read_new(nursery, committed.snapshot, target, request, sink)
                    if target.gone(committed.snapshot):
                        return
        except SwarmError as error:
            sink.fail(error)

    def _read_new(
        self, nursery: trio.Nursery, view: Snapshot, target: _Target, request: FollowLogs, sink: Sink[LogItem]
    ) -> None:
        by_node: dict[NodeId, list[Task]] = {}
        for task in target.tasks(view):
            target.asked.add(task.id)
            by_node.setdefault(task.node_id, []).append(task)
        for node_id, tasks in by_node.items():
            names = {task.id: _task_name(view, task) for task in tasks}
            where = node_name(view, tasks[0])
            nursery.start_soon(partial(self._read_node, node_id, where, names, request, sink))

    async def _read_node(
        self, node_id: NodeId, where: str, names: dict[TaskId, str], request: FollowLogs, sink: Sink[LogItem]
    ) -> None:
        agent = self._agent_of(node_id)
        if agent is None:
            await _send(sink, LogItem(note=f"node {where} is not connected: the output of {_listed(names)} is missing"))
            return
        options = LogOptions(follow=request.follow, tail=request.tail, since=request.since)
        try:
            async with agent.stream(ReadLogs(tuple(names), options), window=LINES_WINDOW) as lines:
                async for line in lines:
                    await _send(sink, LogItem(line=line, task_name=names.get(line.task_id, ""), node_name=where))
        except SwarmError as error:
            await _send(sink, LogItem(note=f"the output of {_listed(names)} on {where} ended early: {error.text}"))


async def _send(sink: Sink[LogItem], item: LogItem) -> None:
    """Pass one item on; a subscriber that has left is no error, its job is being cancelled."""
    try:
        await sink.send(item)
    except trio.BrokenResourceError:
        pass


def _target_of(view: Snapshot, who: str) -> _Target:
    try:
        return _Target(find_service(view, who).id, None)
    except SwarmError as not_a_service:
        if not_a_service.code is not ErrorCode.NOT_FOUND:
            raise
    try:
        return _Target(None, find_task(view, who).id)
    except SwarmError as not_a_task:
        if not_a_task.code is not ErrorCode.NOT_FOUND:
            raise
        raise SwarmError(ErrorCode.NOT_FOUND, f"there is no service or task {who!r}", not_a_task.details) from None


def _task_name(view: Snapshot, task: Task) -> str:
    named = task_view(view, task)
    return f"{named.name}.{task.id[:8]}"


def _listed(names: dict[TaskId, str]) -> str:
    return ", ".join(sorted(names.values()))
