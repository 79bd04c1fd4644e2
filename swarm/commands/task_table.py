"""Tasks as tables: what `svc ps`, `task ls` and `node inspect` show."""

from __future__ import annotations

from collections.abc import Iterable

from swarm.commands import output
from swarm.commands.context import Context
from swarm.model.states import TaskState
from swarm.wire.messages.control import TaskView


def print_tasks(context: Context, views: Iterable[TaskView], now: float) -> None:
    """Tasks as `ps` shows them; older tasks of a slot stand below the newest with a mark."""
    views = list(views)
    context.show(views, (view.task.id for view in views), lambda: _print_table(views, now))


def _print_table(views: Iterable[TaskView], now: float) -> None:
    rows = []
    previous = ""
    for view in views:
        task = view.task
        rows.append(
            (
                task.id[: output.SHORT_ID],
                f" \\_ {view.name}" if view.name == previous else view.name,
                view.image,
                view.node_name or "-",
                task.desired.name.capitalize(),
                state_text(view, now),
                task.status.error or _waiting_text(view),
                ", ".join(f"{port.published}:{port.target}/{port.protocol}" for port in task.status.ports),
            )
        )
        previous = view.name
    output.print_table(("ID", "NAME", "RUNS", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"), rows)


def state_text(view: TaskView, now: float) -> str:
    """`Running 8 seconds ago`, with the exit code when there is one."""
    status = view.task.status
    since = output.age(now, status.applied_at or status.at)
    code = f" ({status.exit_code})" if status.exit_code not in (None, 0) else ""
    return f"{status.state.name.capitalize()}{code} {since} ago" if since else f"{status.state.name.capitalize()}{code}"


def _waiting_text(view: TaskView) -> str:
    task = view.task
    if task.status.state <= TaskState.PENDING and task.is_live and task.reason is not None:
        return task.reason.text
    return ""
