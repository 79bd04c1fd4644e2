"""How long does a person wait? `svc create` to RUNNING, `swarm --help`, `swarm node ls`; milliseconds, whole processes.

The bars: a process replica RUNNING 150 ms after `svc create` was sent, help in 300 ms, `node ls` in 400 ms. The peer's
figures (docker service create, one container) stand in the reference notes: 370 to 480 ms; swarmctl node ls: 7 ms.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from swarm.testing.daemons import LocalCluster, local_cluster

ROUNDS = 15


def show(what: str, values_ms: list[float]) -> None:
    """One line of result."""
    ordered = sorted(values_ms)
    worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{what:<58} median {statistics.median(ordered):7.1f} ms   p99 {worst:7.1f} ms   n={len(ordered)}")


def whole_process(cluster: LocalCluster, arguments: list[str], node: str) -> list[float]:
    """Wall times of the command as a process."""
    environment = {**os.environ, "SWARM_SOCKET": cluster.socket(node)}
    found = []
    for round_number in range(ROUNDS + 1):
        began = time.perf_counter()
        subprocess.run(cluster.command(*arguments), env=environment, check=True, capture_output=True)
        if round_number:
            found.append((time.perf_counter() - began) * 1000)
    return found


def create_to_running(cluster: LocalCluster, node: str) -> list[float]:
    """From sending CreateService to a task that ListTasks shows as RUNNING, over the local socket."""
    from swarm.commands.service_spec import new_spec
    from swarm.model.states import TaskState
    from swarm.wire.client import LocalClient
    from swarm.wire.messages.control import CreateService, ListTasks, RemoveService, WatchService

    found = []
    with LocalClient(cluster.socket(node)) as client:
        for round_number in range(ROUNDS + 1):
            name = f"bench-{round_number}"
            spec = new_spec({"name": name, "replicas": 1}, ["sleep", "600"])
            began = time.perf_counter()
            written = client.ask(CreateService(spec), timeout_s=20)
            while True:
                tasks = client.ask(ListTasks(service=name), timeout_s=20)
                if any(view.task.status.state is TaskState.RUNNING for view in tasks):
                    break
                time.sleep(0.001)
            if round_number:
                found.append((time.perf_counter() - began) * 1000)
            client.ask(RemoveService(name), timeout_s=20)
            for progress in client.stream(WatchService(written.service.id), timeout_s=30):
                if progress.removed:
                    break
    return found


def main() -> None:
    """Print the figures."""
    with local_cluster() as cluster:
        cluster.start("manager")
        cluster.start("worker")
        show("svc create of one process replica to RUNNING", create_to_running(cluster, "manager"))
        show("swarm --help", whole_process(cluster, ["--help"], "manager"))
        show("swarm node ls", whole_process(cluster, ["node", "ls"], "manager"))
        bare = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            bare.append((time.perf_counter() - began) * 1000)
        show("python -c pass (the floor of any command)", bare)


if __name__ == "__main__":
    main()
