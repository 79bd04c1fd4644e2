"""The process executor against the suite, on real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from swarm.executors.base import Workload
from swarm.executors.process import ProcessExecutor
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.specs import ProcessSpec, ServiceSpec, TaskSpec
from swarm.ports.entropy import SystemEntropy
from swarm.ports.processes import all_processes, environment
from swarm.testing.executor_suite import Behaviour, ExecutorSuite

pytestmark = pytest.mark.integration


class ProcessHarness:
    """One node's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ids = SystemEntropy()

    def executor(self) -> ProcessExecutor:
        return ProcessExecutor(str(self.directory), env=os.environ)

    def workload(self, behaviour: Behaviour) -> Workload:
        return self.process(
            ProcessSpec(("sh", "-c", behaviour.shell_script()), stop_grace_s=behaviour.grace_s),
        )

    def broken_workload(self) -> Workload:
        return self.process(ProcessSpec(("no-such-program",)))

    def process(self, spec: ProcessSpec, **task: object) -> Workload:
        return Workload(
            TaskId(self.ids.new()),
            ServiceId(self.ids.new()),
            RevisionNumber(1),
            Slot(1),
            NodeId(self.ids.new()),
            "here",
            ServiceSpec("web", TaskSpec(spec, **task)),  # type: ignore[arg-type]
        )

    async def leftovers(self, task_id: TaskId) -> list[str]:
        return await trio.to_thread.run_sync(self._leftovers, task_id)

    def _leftovers(self, task_id: TaskId) -> list[str]:
        found = [str(path) for path in self.directory.rglob("*") if task_id in str(path)]
        found += [str(path) for path in Path("/sys/fs/cgroup").rglob(task_id)]
        marker = f"SWARM_TASK_ID={task_id}".encode()
        return found + [str(process) for process in all_processes() if marker in environment(process.id.pid)]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[ProcessHarness]:
    yield ProcessHarness(tmp_path / "process")


class TestProcessExecutor(ExecutorSuite):
    """Everything that is asked of any executor."""
