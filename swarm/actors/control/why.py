"""`svc why`: for each task of a service, why it is where it is, or what keeps it from running and what would change that. Pure.

The reasons are those that the planners left with the tasks; for a task that waits, every node's verdict is worked out anew, so
that the answer is about the cluster as it is now.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarm.actors.control.views import service_view, task_views
from swarm.model.objects import Service, Task
from swarm.model.snapshot import Snapshot
from swarm.model.states import TaskState
from swarm.plan.schedule.explain import explain
from swarm.wire.messages.control import ServiceWhy, SlotWhy, TaskView

NODES_SHOWN = 20
"""Verdicts of more nodes than fit on a screen help nobody; the nearest to fitting come first."""


def service_why(view: Snapshot, service: Service) -> ServiceWhy:
    """Live tasks in order of slot; of a service that gave up, the newest task of each slot."""
    tasks = view.tasks_of_service(service.id)
    shown = [task for task in tasks if task.is_live] or _newest_by_slot(tasks)
    return ServiceWhy(
        service_view(view, service), tuple(_slot_why(view, one.task, one) for one in task_views(view, shown))
    )


def _newest_by_slot(tasks: Iterable[Task]) -> list[Task]:
    newest: dict[tuple[int, str], Task] = {}
    for task in tasks:
        key = (task.slot, task.node_id if task.slot == 0 else "")
        if key not in newest or newest[key].created_at <= task.created_at:
            newest[key] = task
    return list(newest.values())


def _slot_why(view: Snapshot, task: Task, shown: TaskView) -> SlotWhy:
    reason = task.reason.text if task.reason is not None else ""
    state = task.status.state
    if state.is_terminal:
        ended = task.status.error or task.status.message or "it has ended"
        return SlotWhy(shown, placed=bool(task.node_id), text="; ".join(filter(None, (ended, reason))))
    if state > TaskState.PENDING:
        text = "; ".join(filter(None, (reason, task.status.error)))
        return SlotWhy(shown, placed=True, text=text or "it was placed before reasons were kept")
    explanation = explain(view, task)
    if explanation is None:
        return SlotWhy(shown, placed=False, text="its service is being removed")
    verdicts = tuple(
        f"{verdict.hostname}: {'; '.join(obstacle.text for obstacle in verdict.obstacles) or 'would take it now'}"
        for verdict in explanation.nodes[:NODES_SHOWN]
    )
    text = task.status.error or reason or "the scheduler has not looked at it yet"
    return SlotWhy(shown, placed=False, text=text, advice=explanation.change, nodes=verdicts)
