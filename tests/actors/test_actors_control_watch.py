"""Convergence that is told to a person who waits must last."""

from __future__ import annotations

from attrs import evolve

from swarm.actors.control.watch import Hold
from swarm.model.ids import ServiceId
from swarm.wire.messages.control import ServiceProgress

RUNS = ServiceProgress(ServiceId("s"), "replicated", desired=2, running=2, converged=True)
WAITS = evolve(RUNS, running=1, converged=False)


def test_convergence_is_told_only_after_it_has_lasted() -> None:
    hold = Hold(1.0)
    assert not hold.judge(RUNS, 10.0).converged
    assert not hold.judge(RUNS, 10.9).converged
    assert hold.judge(RUNS, 11.0) == RUNS


def test_a_task_that_ends_right_after_its_start_begins_the_wait_anew() -> None:
    hold = Hold(1.0)
    hold.judge(RUNS, 10.0)
    assert hold.judge(WAITS, 10.5) == WAITS
    assert not hold.judge(RUNS, 11.2).converged
    assert hold.judge(RUNS, 12.2).converged


def test_without_a_hold_it_is_told_at_once() -> None:
    assert Hold(0.0).judge(RUNS, 0.0) == RUNS


def test_what_is_scaled_to_nothing_is_told_at_once() -> None:
    stopped = evolve(RUNS, desired=0, running=0, text="stopped, none runs")
    assert Hold(1.0).judge(stopped, 10.0) == stopped


def test_a_completed_job_is_told_at_once() -> None:
    done = evolve(RUNS, mode="replicated-job")
    assert Hold(1.0).judge(done, 10.0) == done
