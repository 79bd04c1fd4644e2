"""`svc why`: for each task of a service, why it is where it is, or what keeps it from running and what would change that. Pure.

The reasons are those that the planners left with the tasks; for tasks that wait, every node's verdict is worked out anew, once
for all that ask the same, so that the answer is about the cluster as it is now and costs what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from swarm.actors.control.views import service_view, task_views
from swarm.model.ids import NodeId, RevisionNumber
from swarm.model.objects import Service, Task
from swarm.model.snapshot import Snapshot
from swarm.model.specs import Global, GlobalJob, ReplicatedJob
from swarm.model.states import TaskState, UpdateState
from swarm.plan.schedule.explain import Explanation, explain, explain_spec
from swarm.wire.messages.control import ServiceWhy, SlotWhy, TaskView

NODES_SHOWN = 20
"""Verdicts of more nodes than fit on a screen help nobody; the nearest to fitting come first."""
_TOLD = (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_STARTED)

Explained: TypeAlias = "dict[tuple[RevisionNumber, NodeId], Explanation | None]"


def service_why(view: Snapshot, service: Service) -> ServiceWhy:
    """Live tasks in order of slot; of a service that gave up, the newest task of each slot."""
    tasks = view.tasks_of_service(service.id)
    shown = [task for task in tasks if task.is_live] or _newest_by_slot(tasks)
    explained: Explained = {}
    return ServiceWhy(
        service_view(view, service),
        tuple(_slot_why(view, one.task, one, explained) for one in task_views(view, shown)),
        tuple(_notes(view, service, shown)),
    )


def _newest_by_slot(tasks: Iterable[Task]) -> list[Task]:
    newest: dict[tuple[int, str], Task] = {}
    for task in tasks:
        key = (task.slot, task.node_id if task.slot == 0 else "")
        if key not in newest or newest[key].created_at <= task.created_at:
            newest[key] = task
    return list(newest.values())


def _notes(view: Snapshot, service: Service, shown: Iterable[Task]) -> Iterator[str]:
    status, mode = service.update_status, service.spec.mode
    if status is not None and status.state in _TOLD:
        yield status.message
    if isinstance(mode, ReplicatedJob) and mode.max_concurrent == 0 and mode.total_completions:
        yield "nothing starts: --max-concurrent is 0"
    if isinstance(mode, Global | GlobalJob):
        yield from _absences(view, service, {task.node_id for task in shown})


def _absences(view: Snapshot, service: Service, present: set[NodeId]) -> Iterator[str]:
    """Why nodes have no task of a service that wants one on each, the nearest to getting one first."""
    verdicts = explain_spec(view, service.spec, service.id).nodes
    absent = [verdict for verdict in verdicts if verdict.node_id not in present]
    for verdict in absent[:NODES_SHOWN]:
        why = "; ".join(obstacle.text for obstacle in verdict.obstacles) or "it gets one now"
        yield f"none on {verdict.hostname}: {why}"
    if len(absent) > NODES_SHOWN:
        yield f"none on {len(absent) - NODES_SHOWN} more nodes"


def _slot_why(view: Snapshot, task: Task, shown: TaskView, explained: Explained) -> SlotWhy:
    reason = task.reason.text if task.reason is not None else ""
    state = task.status.state
    if state.is_terminal:
        ended = task.status.error or task.status.message or "it has ended"
        return SlotWhy(shown, placed=bool(task.node_id), text="; ".join(filter(None, (ended, reason))))
    if state > TaskState.PENDING:
        text = "; ".join(filter(None, (reason, task.status.error)))
        return SlotWhy(shown, placed=True, text=text or "it was placed before reasons were kept")
    key = (task.revision, task.node_id)
    if key not in explained:
        explained[key] = explain(view, task)
    explanation = explained[key]
    if explanation is None:
        return SlotWhy(shown, placed=False, text="its service is being removed")
    verdicts = tuple(
        f"{verdict.hostname}: {'; '.join(obstacle.text for obstacle in verdict.obstacles) or 'would take it now'}"
        for verdict in explanation.nodes[:NODES_SHOWN]
    )
    made = task.reason.made if task.reason is not None else ""
    waits = task.status.error or reason or "the scheduler has not looked at it yet"
    text = "; ".join(filter(None, (made, waits)))
    return SlotWhy(shown, placed=False, text=text, advice=explanation.change, nodes=verdicts)
