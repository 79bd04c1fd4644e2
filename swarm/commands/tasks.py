"""`swarm task ...`: single tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarm.commands import output
from swarm.commands.context import Context
from swarm.commands.task_table import print_tasks, state_text
from swarm.wire.messages.control import GetTask, ListTasks, TaskView


def list_tasks(context: Context, service: str, node: str, all: bool, now: float) -> None:
    """Tasks of a service, of a node, or all that are wanted to run."""
    views = context.ask(ListTasks(service=service, node=node, all=all))
    print_tasks(context, views, now)


def inspect(context: Context, names: Sequence[str], now: float) -> None:
    """Everything that is known of tasks."""
    views = [context.ask(GetTask(name)) for name in names]
    context.show(
        views, (view.task.id for view in views), lambda: output.print_sections(_fields(view, now) for view in views)
    )


def _fields(view: TaskView, now: float) -> Iterable[tuple[str, str]]:
    task, status = view.task, view.task.status
    yield "ID", task.id
    yield "Name", view.name
    yield "Service", f"{view.service_name} ({task.service_id}), revision {task.revision}"
    yield "Runs", view.image
    yield "Node", f"{view.node_name} ({task.node_id})" if task.node_id else "not placed"
    yield "Desired state", task.desired.name.lower()
    yield "Current state", state_text(view, now)
    yield "Message", status.message
    yield "Error", status.error
    yield "Exit code", "" if status.exit_code is None else str(status.exit_code)
    yield "Process", str(status.pid) if status.pid else ""
    yield "Handle", status.handle
    yield "Ports", ", ".join(f"{port.published}:{port.target}/{port.protocol}" for port in status.ports)
    yield "Resources", ", ".join(f"{claim.kind}={','.join(claim.items) or claim.amount}" for claim in task.generic)
    if task.reason is not None:
        yield "Why", task.reason.text
        yield "Replaces", task.reason.previous_task
