"""The docker executor against the suite and on what only containers have: a real engine, real containers."""

from __future__ import annotations

import os

import pytest
import trio

from swarm.executors.base import Workload
from swarm.executors.docker import DockerExecutor
from swarm.executors.docker.engine import Engine
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.specs import ContainerSpec, ServiceSpec, TaskSpec
from swarm.ports.entropy import SystemEntropy
from swarm.testing.executor_suite import Behaviour, ExecutorSuite

pytestmark = pytest.mark.docker


class DockerHarness:
    """One node's share of the machine's engine."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.ids = SystemEntropy()
        self.node_id = NodeId(self.ids.new())
        self.engine = Engine(os.environ)

    def executor(self) -> DockerExecutor:
        return DockerExecutor(Engine(os.environ), self.node_id)

    def workload(self, behaviour: Behaviour) -> Workload:
        return self.container(
            ContainerSpec(
                self.image,
                command=("/bin/sh", "-c", behaviour.shell_script()),
                stop_grace_s=behaviour.grace_s,
            )
        )

    def broken_workload(self) -> Workload:
        return self.container(ContainerSpec(self.image, command=("/no/such/program",)))

    def container(self, spec: ContainerSpec, **more: object) -> Workload:
        task_fields = {key: more.pop(key) for key in ("resources", "log_driver") if key in more}
        return Workload(
            TaskId(self.ids.new()),
            ServiceId(self.ids.new()),
            RevisionNumber(1),
            Slot(1),
            self.node_id,
            "here",
            ServiceSpec("web", TaskSpec(spec, **task_fields), **more),  # type: ignore[arg-type]
        )

    async def leftovers(self, task_id: TaskId) -> list[str]:
        return await trio.to_thread.run_sync(self._leftovers, task_id)

    def _leftovers(self, task_id: TaskId) -> list[str]:
        found = self.engine.api.containers(all=True, filters={"label": f"swarm.task.id={task_id}"})
        return [container["Id"] for container in found]


@pytest.fixture
def harness(busybox_image: str) -> DockerHarness:
    return DockerHarness(busybox_image)


class TestDockerExecutor(ExecutorSuite):
    """Everything that is asked of any executor."""
