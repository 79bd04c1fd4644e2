"""A worker's next step for one task, and what a step's outcome makes of the task's status. Pure.

`next_step` is a table of (status, desired), first match wins. One step is done at a time; a status only moves forward, and its
time changes only when something else in it does. Before STARTING a failure is a REJECTED task, from then on a FAILED one.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import evolve, frozen

from swarm.model.ids import Instant
from swarm.model.objects import PortStatus, TaskStatus
from swarm.model.states import TaskState


class Operation(StrEnum):
    """What the agent does next for a task."""

    NOTHING = "nothing"
    """Until something newer is wanted."""
    MOVE = "move"
    """Only the status changes."""
    PREPARE = "prepare"
    START = "start"
    WAIT = "wait"
    SHUTDOWN = "shutdown"


@frozen
class Step:
    """An operation and the state that its success leads to."""

    operation: Operation
    to: TaskState | None = None


NOTHING = Step(Operation.NOTHING)
_MESSAGES = {
    TaskState.ACCEPTED: "accepted",
    TaskState.PREPARING: "preparing",
    TaskState.READY: "prepared",
    TaskState.STARTING: "starting",
    TaskState.RUNNING: "started",
    TaskState.COMPLETE: "finished",
    TaskState.SHUTDOWN: "shutdown",
}


def next_step(state: TaskState, desired: TaskState) -> Step:
    """What to do for a task in this state of which `desired` is wanted."""
    if desired >= TaskState.SHUTDOWN:
        if state >= TaskState.COMPLETE:
            return NOTHING
        return Step(Operation.SHUTDOWN, TaskState.SHUTDOWN)
    if state > desired:
        return NOTHING
    if state is TaskState.PREPARING:
        return Step(Operation.PREPARE, TaskState.READY)
    if state is TaskState.STARTING:
        return Step(Operation.START, TaskState.RUNNING)
    if state is TaskState.RUNNING:
        return Step(Operation.WAIT, TaskState.COMPLETE)
    if state >= desired:
        return NOTHING
    if state in (TaskState.NEW, TaskState.PENDING, TaskState.ASSIGNED):
        return Step(Operation.MOVE, TaskState.ACCEPTED)
    if state is TaskState.ACCEPTED:
        return Step(Operation.MOVE, TaskState.PREPARING)
    if state is TaskState.READY:
        return Step(Operation.MOVE, TaskState.STARTING)
    return NOTHING


def moved(status: TaskStatus, to: TaskState, now: Instant) -> TaskStatus:
    """A step that led to `to` succeeded: the error of an earlier attempt is over."""
    assert to >= status.state, f"a task never goes back from {status.state.name} to {to.name}"
    return _stamped(status, evolve(status, state=to, message=_MESSAGES.get(to, ""), error=""), now)


def started(
    status: TaskStatus, now: Instant, *, pid: int, handle: str, ports: tuple[PortStatus, ...], note: str = ""
) -> TaskStatus:
    """The workload runs, and this is how it is known; `note` is for its user."""
    running = moved(status, TaskState.RUNNING, now)
    message = f"{running.message}: {note}" if note else running.message
    return _stamped(status, evolve(running, pid=pid, handle=handle, ports=ports, message=message), now)


def ended(status: TaskStatus, code: int | None, detail: str, now: Instant) -> TaskStatus:
    """The workload ended by itself: COMPLETE for code 0, else FAILED (also when the code cannot be known)."""
    if code == 0:
        return evolve(moved(status, TaskState.COMPLETE, now), exit_code=0, pid=0)
    said = "ended, and its exit code is not known" if code is None else f"exited with code {code}"
    error = f"{said}: {detail}" if detail else said
    return _stamped(status, evolve(_failed(status, error), exit_code=code, pid=0), now)


def stopped(status: TaskStatus, code: int | None, now: Instant) -> TaskStatus:
    """The workload was stopped because that was wanted."""
    return evolve(moved(status, TaskState.SHUTDOWN, now), exit_code=code, pid=0)


def failed(status: TaskStatus, error: str, now: Instant) -> TaskStatus:
    """A step failed for good. Terminal already: nothing changes."""
    if status.state.is_terminal:
        return status
    return _stamped(status, _failed(status, error), now)


def delayed(status: TaskStatus, error: str, now: Instant) -> TaskStatus:
    """A step failed and is tried again: the state stays, its user can read why it takes longer."""
    return _stamped(status, evolve(status, error=error), now)


def _failed(status: TaskStatus, error: str) -> TaskStatus:
    if status.state < TaskState.STARTING:
        return evolve(status, state=TaskState.REJECTED, message="cannot run here", error=error)
    return evolve(status, state=TaskState.FAILED, message="failed", error=error)


def _stamped(before: TaskStatus, after: TaskStatus, now: Instant) -> TaskStatus:
    return before if evolve(after, at=before.at) == before else evolve(after, at=now)
