"""The worker's table, and what outcomes make of a status."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.ids import Instant
from swarm.model.objects import PortStatus, TaskStatus
from swarm.model.states import TaskState
from swarm.plan.task_step import (
    NOTHING,
    Operation,
    Step,
    delayed,
    ended,
    failed,
    moved,
    next_step,
    started,
    stopped,
)

S = TaskState
OBSERVED = [state for state in TaskState if state is not S.REMOVE]
DESIRED = [S.READY, S.RUNNING, S.COMPLETE, S.SHUTDOWN, S.REMOVE]
NOW = Instant(100.0)
STOP = Step(Operation.SHUTDOWN, S.SHUTDOWN)
ACCEPT = Step(Operation.MOVE, S.ACCEPTED)
TO_PREPARING = Step(Operation.MOVE, S.PREPARING)
PREPARE = Step(Operation.PREPARE, S.READY)
TO_STARTING = Step(Operation.MOVE, S.STARTING)
START = Step(Operation.START, S.RUNNING)
WAIT = Step(Operation.WAIT, S.COMPLETE)

TABLE = {
    #             READY         RUNNING       COMPLETE      SHUTDOWN REMOVE
    S.NEW: (ACCEPT, ACCEPT, ACCEPT, STOP, STOP),
    S.PENDING: (ACCEPT, ACCEPT, ACCEPT, STOP, STOP),
    S.ASSIGNED: (ACCEPT, ACCEPT, ACCEPT, STOP, STOP),
    S.ACCEPTED: (TO_PREPARING, TO_PREPARING, TO_PREPARING, STOP, STOP),
    S.PREPARING: (PREPARE, PREPARE, PREPARE, STOP, STOP),
    S.READY: (NOTHING, TO_STARTING, TO_STARTING, STOP, STOP),
    S.STARTING: (NOTHING, START, START, STOP, STOP),
    S.RUNNING: (NOTHING, WAIT, WAIT, STOP, STOP),
    S.COMPLETE: (NOTHING,) * 5,
    S.SHUTDOWN: (NOTHING,) * 5,
    S.FAILED: (NOTHING,) * 5,
    S.REJECTED: (NOTHING,) * 5,
    S.ORPHANED: (NOTHING,) * 5,
}


@pytest.mark.parametrize("state", OBSERVED, ids=lambda state: state.name)
def test_the_table(state: TaskState) -> None:
    assert tuple(next_step(state, desired) for desired in DESIRED) == TABLE[state]


@given(st.sampled_from(OBSERVED), st.sampled_from(DESIRED))
def test_a_step_leads_forward_and_comes_to_an_end(state: TaskState, desired: TaskState) -> None:
    for _ in range(10):
        step = next_step(state, desired)
        if step.to is None:
            break
        assert step.to > state
        state = step.to
    else:
        pytest.fail("it never ends")
    if desired is S.READY:
        assert state >= S.READY


@given(st.sampled_from(OBSERVED))
def test_a_failure_before_starting_is_a_rejection(state: TaskState) -> None:
    status = TaskStatus(state, message="m")
    after = failed(status, "no such image", NOW)
    if state.is_terminal:
        assert after is status
    else:
        assert after.state is (S.REJECTED if state < S.STARTING else S.FAILED)
        assert after.error == "no such image" and after.at == NOW


def test_a_status_never_goes_back() -> None:
    with pytest.raises(AssertionError, match="never goes back"):
        moved(TaskStatus(S.RUNNING), S.READY, NOW)


def test_success_clears_the_error_and_an_unchanged_status_keeps_its_time() -> None:
    status = delayed(TaskStatus(S.PREPARING), "engine does not answer", NOW)
    assert (status.state, status.error, status.at) == (S.PREPARING, "engine does not answer", NOW)
    assert delayed(status, "engine does not answer", Instant(200.0)) is status
    ready = moved(status, S.READY, Instant(300.0))
    assert (ready.error, ready.at) == ("", 300.0)


def test_a_workload_that_runs_is_known_and_how_it_ended_is_told() -> None:
    ports = (PortStatus(80, 8080),)
    running = started(TaskStatus(S.STARTING), NOW, pid=7, handle="h", ports=ports, note="no memory limit here")
    assert running == TaskStatus(S.RUNNING, NOW, "started: no memory limit here", pid=7, handle="h", ports=ports)
    done = ended(running, 0, "", Instant(200.0))
    assert (done.state, done.exit_code, done.handle, done.pid) == (S.COMPLETE, 0, "h", 0)
    bad = ended(running, 137, "killed by the kernel", Instant(200.0))
    assert (bad.state, bad.exit_code, bad.error) == (S.FAILED, 137, "exited with code 137: killed by the kernel")
    lost = ended(running, None, "", Instant(200.0))
    assert (lost.state, lost.exit_code) == (S.FAILED, None) and "not known" in lost.error
    stop = stopped(running, 143, Instant(200.0))
    assert (stop.state, stop.exit_code, stop.error) == (S.SHUTDOWN, 143, "")
    assert evolve(stop, at=NOW).handle == "h"
