"""Recent failures: a node on which a group's tasks keep failing is the last choice for more of them.

Times come from the statuses themselves, so that a new leader that reads the history left in the store counts alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from swarm.model.ids import Instant, NodeId, TaskId
from swarm.model.objects import Task
from swarm.model.states import TaskState

LOOK_BACK_S = 300.0
"""How long a failure counts (the reference's five minutes)."""
FAULTY_FROM = 5
"""Failures within `LOOK_BACK_S` that make a node faulty for a group."""
REMEMBERED_MAX = 100_000
"""Failures kept at the most, about 20 MB; the oldest are forgotten first."""


class Failures:
    """Failures of the last minutes, by group and node."""

    def __init__(self) -> None:
        self.by_group: dict[str, dict[NodeId, dict[TaskId, Instant]]] = {}
        """Failures that still count, by group, node and task; changed here alone."""
        self._order: list[tuple[Instant, str, NodeId, TaskId]] = []

    def record(self, group: str, task: Task) -> None:
        """Remember that this task failed or was rejected on its node; a task counts once."""
        if task.status.state not in (TaskState.FAILED, TaskState.REJECTED) or not task.node_id:
            return
        tasks = self.by_group.setdefault(group, {}).setdefault(task.node_id, {})
        if task.id in tasks:
            return
        at = tasks[task.id] = Instant(task.status.applied_at or task.status.at)
        heappush(self._order, (at, group, task.node_id, task.id))
        if len(self._order) > REMEMBERED_MAX:
            self._forget_oldest()

    def expire(self, now: Instant) -> Iterable[NodeId]:
        """Forget what is older than `LOOK_BACK_S`; gives the nodes that were faulty for a group until now."""
        cured: list[NodeId] = []
        while self._order and self._order[0][0] <= now - LOOK_BACK_S:
            before = len(self.by_group[self._order[0][1]][self._order[0][2]])
            node_id = self._forget_oldest()
            if before >= FAULTY_FROM:
                cured.append(node_id)
        return cured

    def faulty(self, group: str) -> dict[NodeId, int]:
        """The nodes that are faulty for the group, with the number of recent failures."""
        by_node = self.by_group.get(group)
        if not by_node:
            return {}
        return {node_id: len(tasks) for node_id, tasks in by_node.items() if len(tasks) >= FAULTY_FROM}

    def _forget_oldest(self) -> NodeId:
        _, group, node_id, task_id = heappop(self._order)
        by_node = self.by_group[group]
        del by_node[node_id][task_id]
        if not by_node[node_id]:
            del by_node[node_id]
        if not by_node:
            del self.by_group[group]
        return node_id
