"""The output of some of a node's tasks, merged into one stream. Each task's own lines stay in order."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from swarm.executors.base import Executor, ExecutorError, LogOptions, Workload
from swarm.model.ids import NodeId, TaskId
from swarm.runtime import Sink
from swarm.wire.messages.node import TaskLogLine

LOG = logging.getLogger("swarm.logs")


async def send_logs(
    sink: Sink[TaskLogLine], tasks: Mapping[TaskId, tuple[Executor, Workload]], options: LogOptions, node_id: NodeId
) -> None:
    """Send until every task's output has ended, then close; run it as a job and cancel that when the reader leaves."""
    async with trio.open_nursery() as nursery:
        for id, (executor, workload) in tasks.items():
            nursery.start_soon(_send, sink, id, executor, workload, options, node_id)
    sink.close()


async def _send(
    sink: Sink[TaskLogLine],
    id: TaskId,
    executor: Executor,
    workload: Workload,
    options: LogOptions,
    node_id: NodeId,
) -> None:
    try:
        async for line in executor.controller(workload).logs(options):
            await sink.send(TaskLogLine(id, node_id, line.stream, line.at, line.data))
    except trio.BrokenResourceError:
        return  # the reader has left
    except ExecutorError as error:
        LOG.info("the output of task %s cannot be read: %s", id, error)
