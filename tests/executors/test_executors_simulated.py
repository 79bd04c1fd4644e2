"""The simulated executor against the suite, and what only a simulation has, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from swarm.executors.base import ExecutorError, TemporaryError, Workload
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.specs import ProcessSpec, ServiceSpec, TaskSpec
from swarm.testing.executor import Script, SimulatedExecutor, SimulatedMachine, always, scripts_by_service
from swarm.testing.executor_suite import Behaviour, ExecutorSuite


class SimulatedHarness:
    """One simulated machine."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.machine = SimulatedMachine(lambda workload: self.scripts[workload.spec.name])

    def executor(self) -> SimulatedExecutor:
        return SimulatedExecutor(self.machine)

    def workload(self, behaviour: Behaviour) -> Workload:
        return self.scripted(
            Script(
                prepare_s=0.01,
                start_s=0.01,
                runs_s=behaviour.runs_s,
                exit_code=behaviour.exit_code,
                stop_s=None if behaviour.ignores_stop else 0.05,
                out=behaviour.out,
                err=behaviour.err,
            ),
            grace_s=behaviour.grace_s,
        )

    def broken_workload(self) -> Workload:
        return self.scripted(Script(start_error="command 'x' was not found on this node"))

    def scripted(self, script: Script, grace_s: float | None = None) -> Workload:
        number = len(self.scripts) + 1
        self.scripts[f"s{number}"] = script
        spec = ServiceSpec(f"s{number}", TaskSpec(ProcessSpec(("x",), stop_grace_s=grace_s)))
        ids = TaskId(f"t{number}"), ServiceId(f"s{number}"), RevisionNumber(1), Slot(1), NodeId("n")
        return Workload(*ids, "here", spec)

    async def leftovers(self, task_id: TaskId) -> list[str]:
        return [task_id] if task_id in self.machine.tasks else []


@pytest.fixture
def harness() -> SimulatedHarness:
    return SimulatedHarness()


class TestSimulatedExecutor(ExecutorSuite):
    """Everything that is asked of any executor."""


async def test_loss_of_power_ends_all_and_keeps_the_disk(harness: SimulatedHarness, autojump_clock: MockClock) -> None:
    workload = harness.scripted(Script())
    controller = harness.executor().controller(workload)
    await controller.prepare()
    await controller.start()
    assert harness.machine.running() == [workload]
    harness.machine.power_off()
    assert harness.machine.running() == []
    assert (await controller.wait()).code is None
    assert await harness.executor().known_tasks() == {workload.task_id}


async def test_durations_are_virtual_and_noted(harness: SimulatedHarness, autojump_clock: MockClock) -> None:
    controller = harness.executor().controller(harness.scripted(Script(prepare_s=3, start_s=4, runs_s=3600)))
    begin = trio.current_time()
    await controller.prepare()
    await controller.start()
    await controller.wait()
    assert trio.current_time() - begin == pytest.approx(3607)
    times = [(round(at - begin, 3), what) for at, what, _ in harness.machine.history]
    assert times == [(3, "prepared"), (7, "started")]


async def test_failures_as_scripted(harness: SimulatedHarness, autojump_clock: MockClock) -> None:
    controller = harness.executor().controller(harness.scripted(Script(temporary_errors=2, start_error="no")))
    for _ in range(2):
        with pytest.raises(TemporaryError):
            await controller.prepare()
    await controller.prepare()
    with pytest.raises(ExecutorError, match="no"):
        await controller.start()


def test_script_choosers(harness: SimulatedHarness) -> None:
    workload = harness.scripted(Script())
    assert always(Script(exit_code=1))(workload).exit_code == 1
    assert scripts_by_service({"s1": Script(exit_code=2)})(workload).exit_code == 2
    assert scripts_by_service({})(workload) == Script()
