"""How long do services take on real daemons: create, rolling update, scale to zero? Seconds, median and worst of the rounds.

`python -m benchmarks.rollout`: one manager (drained) and two workers on loopback, process tasks that stop at once (`sleep`
dies at SIGTERM). Timed over the manager's local socket: from the request until the tasks' RUNNING (or their end) is committed,
as a watcher sees it. An update ends when all new tasks run, all old ones have ended and the update is completed (monitor 0).
The bars: a rolling update of ten, two at a time, no delay, under 1.5 s; ten to zero under 0.5 s.

The peer's figures are Docker Swarm 20.10 with containers, taken elsewhere on such a machine; a container's own start costs it
60 to 100 ms, a process's start costs us well under one.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from attrs import evolve

from swarm.model.objects import Service
from swarm.model.specs import NodeSpec, ProcessSpec, Replicated, RestartPolicy, ServiceSpec, TaskSpec, UpdateConfig
from swarm.model.states import Availability, TaskState
from swarm.testing.daemons import local_cluster
from swarm.wire.client import LocalClient
from swarm.wire.messages.control import (
    CreateService,
    GetService,
    ListNodes,
    ListTasks,
    RemoveService,
    ServiceProgress,
    ServiceView,
    UpdateNode,
    UpdateService,
    WatchService,
)

ROUNDS = int(os.environ.get("SWARM_ROLLOUT_ROUNDS", "5"))
SIZES = (1, 10, 50)
PEER_CREATE = {1: "0.37 to 0.48", 10: "0.85 to 1.25", 50: "3.5 to 3.8"}
PATIENCE_S = 60.0


class Bench:
    """Services by way of one local socket."""

    def __init__(self, socket: str) -> None:
        self.client = LocalClient(socket)

    def create(self, name: str, replicas: int) -> Service:
        """A service of sleepers, running."""
        spec = ServiceSpec(
            name,
            TaskSpec(ProcessSpec(("sleep", "600")), restart=RestartPolicy(delay_s=0.0)),
            Replicated(replicas),
            update=UpdateConfig(parallelism=2, delay_s=0.0, monitor_s=0.0),
        )
        service = self.client.ask(CreateService(spec), timeout_s=PATIENCE_S).service
        self.until(service, lambda progress: progress.running == replicas)
        return service

    def until(self, service: Service, holds: Callable[[ServiceProgress], bool]) -> None:
        """Watch until it holds."""
        for progress in self.client.stream(WatchService(service.id), timeout_s=PATIENCE_S):
            if holds(progress):
                return
        raise RuntimeError(f"the progress of {service.spec.name} ended early")

    def view(self, service: Service) -> ServiceView:
        """The service now."""
        return self.client.ask(GetService(service.id), timeout_s=PATIENCE_S)

    def change(self, service: Service, change: Callable[[ServiceSpec], ServiceSpec]) -> Service:
        """Write the changed spec."""
        now = self.view(service).service
        request = UpdateService(now.id, now.version, change(now.spec))
        return self.client.ask(request, timeout_s=PATIENCE_S).service

    def remove(self, service: Service) -> None:
        """Remove it, all of its tasks ended."""
        self.client.ask(RemoveService(service.id), timeout_s=PATIENCE_S)
        self.until(service, lambda progress: progress.removed)

    def timed_create(self, name: str, replicas: int) -> float:
        """Seconds from the request until all run."""
        began = time.perf_counter()
        service = self.create(name, replicas)
        took = time.perf_counter() - began
        self.remove(service)
        return took

    def timed_update(self, service: Service, number: int) -> float:
        """Seconds from the request until all tasks of the new revision run and all old ones have ended."""
        began = time.perf_counter()
        self.change(service, lambda spec: _with_environment(spec, number))
        self.until(service, lambda progress: progress.converged and not progress.stopping)
        took = time.perf_counter() - began
        tasks = self.client.ask(ListTasks(service=service.id, all=False), timeout_s=PATIENCE_S)
        revision = self.view(service).service.revision
        states = [(view.task.revision, view.task.status.state) for view in tasks]
        if states != [(revision, TaskState.RUNNING)] * 10:
            raise RuntimeError(f"not updated: {states}")
        return took

    def timed_to_zero(self, service: Service) -> float:
        """Seconds from the request until no task runs; then it is filled again."""
        began = time.perf_counter()
        self.change(service, lambda spec: evolve(spec, mode=Replicated(0)))
        self.until(service, lambda progress: progress.converged and not progress.stopping)
        took = time.perf_counter() - began
        left = [
            view.task.status.state
            for view in self.client.ask(ListTasks(service=service.id, all=True), timeout_s=PATIENCE_S)
            if view.task.status.state <= TaskState.RUNNING
        ]
        if left:
            raise RuntimeError(f"not empty: {left}")
        self.change(service, lambda spec: evolve(spec, mode=Replicated(10)))
        self.until(service, lambda progress: progress.running == 10)
        return took


def _with_environment(spec: ServiceSpec, number: int) -> ServiceSpec:
    runtime = spec.task.runtime
    assert isinstance(runtime, ProcessSpec)
    return evolve(spec, task=evolve(spec.task, runtime=evolve(runtime, env=(f"ROUND={number}",))))


def report(what: str, times: list[float], bar: str, peer: str) -> None:
    """One line."""
    print(f"{what:<46} {statistics.median(times):7.3f} {max(times):7.3f}   {bar:<8} {peer}", flush=True)


def main() -> None:
    """Print the figures."""
    with local_cluster() as cluster:
        for name in ("manager", "worker-1", "worker-2"):
            cluster.start(name)
        bench = Bench(cluster.socket("manager"))
        for view in bench.client.ask(ListNodes(), timeout_s=PATIENCE_S):
            node = view.node
            if node.description.hostname == "manager":
                spec: NodeSpec = evolve(node.spec, availability=Availability.DRAIN)
                bench.client.ask(UpdateNode(node.id, node.version, spec), timeout_s=PATIENCE_S)
        bench.timed_create("warm", 10)
        print(
            f"{'seconds, ' + str(ROUNDS) + ' rounds':<46} {'median':>7} {'worst':>7}   {'bar':<8} Docker Swarm (containers)"
        )
        for size in SIZES:
            times = [bench.timed_create(f"create-{size}-{round}", size) for round in range(ROUNDS)]
            report(f"create of {size}, to all RUNNING", times, "-", PEER_CREATE[size])
        ten = bench.create("ten", 10)
        bench.timed_update(ten, 0)
        report(
            "rolling update of 10, two at a time, no delay",
            [bench.timed_update(ten, round) for round in range(1, ROUNDS + 1)],
            "1.5",
            "18 to the last new task",
        )
        report("scale 10 to 0", [bench.timed_to_zero(ten) for _ in range(ROUNDS)], "0.5", "3.7")
        bench.remove(ten)


if __name__ == "__main__":
    main()
