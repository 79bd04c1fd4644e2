"""Whether, when and how a task that ended is replaced in its slot. Pure rules; the orchestrators call them.

What a decision needs lives in the task records: `restarts` counts the slot's restarts under its revision, `origin` and
`created_at` date them for the window, `start_after` holds the delay. Nothing is remembered anywhere else, so that a new
leader goes on exactly where the old one stopped. Moves (drain, node loss) and update steps are no restarts: they neither
wait nor count, since they are not the task's fault.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from swarm.model.ids import Instant, RevisionNumber
from swarm.model.objects import Task
from swarm.model.specs import ContainerSpec, ProcessSpec, RestartPolicy, ServiceSpec
from swarm.model.states import Origin, RestartCondition, TaskState

OLD_TASK_TIMEOUT_S = 60.0
"""How long a replacement waits at the most for a predecessor that does not stop, as in the reference."""
STOP_MARGIN_S = 30.0
"""Beyond a longer stop grace period: the time that killing and reporting may take after it."""


@frozen
class Verdict:
    """Whether an ended task is to be replaced; `text` says why not, or which attempt it is."""

    restart: bool
    text: str = ""


def judge(
    ended: Task, policy: RestartPolicy, history: Iterable[Task], revision: RevisionNumber, *, job: bool = False
) -> Verdict:
    """The verdict on a task that ended by itself, under its own spec's policy.

    `history` is all tasks of its slot, itself included; `revision` is the service's current one: a task of another
    revision gets a fresh allowance. A job's completed task is never run again.
    """
    state = ended.status.state
    if policy.condition is RestartCondition.NONE:
        return Verdict(False, "its restart condition is none")
    if state is TaskState.COMPLETE and (job or policy.condition is RestartCondition.ON_FAILURE):
        return Verdict(False, "it completed")
    if not policy.max_attempts or ended.revision != revision:
        return Verdict(True)
    if policy.window_s <= 0:
        count, within = ended.restarts, ""
    else:
        count, within = _recent(ended, policy.window_s, history), f" within {policy.window_s:g} s"
    if count >= policy.max_attempts:
        return Verdict(False, f"it was restarted {count} of at most {policy.max_attempts} times{within}")
    return Verdict(True, f"attempt {count + 1} of {policy.max_attempts}{within}")


def _recent(ended: Task, window_s: float, history: Iterable[Task]) -> int:
    """Restarts of the ended task's revision in its slot that fall within the window before its end."""
    end = ended_at(ended)
    return sum(
        1
        for task in history
        if task.origin is Origin.RESTART and task.revision == ended.revision and end - window_s < task.created_at < end
    )


def ended_at(task: Task) -> Instant:
    """When its last status was committed (leader's clock), else when it was produced."""
    return task.status.applied_at or task.status.at


def restarts_after(ended: Task, revision: RevisionNumber) -> int:
    """The count that the restart of `ended` under `revision` carries."""
    return ended.restarts + 1 if ended.revision == revision else 1


def old_task_timeout_s(spec: ServiceSpec | None) -> float:
    """How long a replacement waits for a predecessor of this spec that was told to stop.

    One minute, or longer for a task whose own stop grace period is longer: waiting less would run both.
    """
    grace_s = (
        spec.task.runtime.stop_grace_s if spec and isinstance(spec.task.runtime, ProcessSpec | ContainerSpec) else None
    )
    return max(OLD_TASK_TIMEOUT_S, grace_s + STOP_MARGIN_S if grace_s else 0.0)


def end_text(task: Task) -> str:
    """How a task ended, in words, for the reason of whatever follows."""
    status = task.status
    word = {
        TaskState.COMPLETE: "completed",
        TaskState.FAILED: "failed",
        TaskState.REJECTED: "was rejected",
        TaskState.SHUTDOWN: "was stopped",
        TaskState.ORPHANED: "was lost with its node",
    }.get(status.state, "ended")
    detail = status.error or (f"exit code {status.exit_code}" if status.exit_code else "")
    return f"{word} ({detail})" if detail else word
