"""What is wrong with a service's spec: each rule by its refusal, and by what it must not refuse."""

from __future__ import annotations

import pytest
from attrs import evolve

from swarm.model.specs import (
    ContainerSpec,
    GenericResource,
    GlobalJob,
    Mode,
    Placement,
    ProcessSpec,
    Replicated,
    ReplicatedJob,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    RuntimeSpec,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarm.model.validate import TASKS_MAX, problems


def service(runtime: RuntimeSpec | None = None, mode: Mode | None = None, **task: object) -> ServiceSpec:
    runtime = runtime or ProcessSpec(("sleep", "1"))
    return ServiceSpec("web", TaskSpec(runtime, **task), mode=mode or Replicated())  # type: ignore[arg-type]


def reserving(kind: str, amount: int) -> ResourceRequirements:
    return ResourceRequirements(reservations=Resources(generic=(GenericResource(kind, amount),)))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (service(mode=Replicated(-1)), "replicas is -1; it must be 0 or more"),
        (service(mode=Replicated(TASKS_MAX + 1)), "at most 1000000"),
        (service(mode=ReplicatedJob(1, TASKS_MAX + 1)), "total completions"),
        (service(mode=ReplicatedJob(-1, 1)), "max concurrent is -1"),
        (service(ProcessSpec(("sleep",), stop_signal="SIGBOGUS")), "'SIGBOGUS' is not a signal"),
        (service(ContainerSpec("nginx", stop_signal="RTMIN+")), "is not a signal"),
        (service(ProcessSpec(("sleep",), stop_grace_s=-1.0)), "stop grace period is -1 s"),
        (service(resources=reserving("gpu", 0)), "an amount of 1 or more"),
        (service(restart=RestartPolicy(max_attempts=-1)), "restart attempts is -1"),
        (service(restart=RestartPolicy(delay_s=-1)), "restart delay is -1 s"),
        (service(restart=RestartPolicy(window_s=float("nan"))), "restart window is nan s"),
        (service(placement=Placement(("zone=a",))), "neither '==' nor '!='"),
        (service(placement=Placement(preferences=("zone",))), "is not a label"),
        (service(placement=Placement(max_replicas=-1)), "replicas per node is -1"),
        (evolve(service(), update=UpdateConfig(parallelism=-1)), "update parallelism is -1"),
        (evolve(service(), rollback=UpdateConfig(max_failure_ratio=1.5)), "rollback failure ratio is 1.5"),
        (evolve(service(), update=UpdateConfig(max_failure_ratio=float("nan"))), "update failure ratio is nan"),
        (evolve(service(mode=GlobalJob()), update=UpdateConfig()), "a job has no rolling update"),
        (evolve(service(), replace_after_s=-1.0), "replace-after is -1 s"),
    ],
)
def test_a_wrong_spec_is_refused_by_name(spec: ServiceSpec, words: str) -> None:
    assert len(problems(spec)) == 1 and words in problems(spec)[0]


@pytest.mark.parametrize("signal", ["", "SIGTERM", "term", "usr1", "15", "RTMIN+3", "sigrtmax-1"])
def test_every_spelling_of_a_signal_is_taken(signal: str) -> None:
    assert problems(service(ContainerSpec("nginx", stop_signal=signal))) == []


@pytest.mark.parametrize("mode", [Replicated(0), Replicated(TASKS_MAX), ReplicatedJob(0, 0), GlobalJob()])
def test_nothing_and_very_much_may_be_asked_for(mode: Mode) -> None:
    assert problems(service(mode=mode)) == []
