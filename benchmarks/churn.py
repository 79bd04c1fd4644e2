"""Does a manager grow while services come and go? Resident memory (MB) over rounds of `svc create` and `svc rm`.

The bar: flat. Each round creates a service of one process task, waits until it runs, removes it and waits until it is gone; so
each round writes some fifteen log entries. What may grow is bounded: the log between two snapshots (SWARM_CHURN_INTERVAL entries;
1,000 here, so that the rounds pass several of them, 10,000 where nobody says otherwise) and the history of ended tasks.
"""

from __future__ import annotations

import os
import sys
import time

from benchmarks.idle import resident_mb
from swarm.testing.daemons import LocalCluster, local_cluster

ROUNDS = int(os.environ.get("SWARM_CHURN_ROUNDS", "1000"))
SHOWN = 10
"""Lines of result."""
INTERVAL_ENTRIES = int(os.environ.get("SWARM_CHURN_INTERVAL", "1000"))


def main() -> None:
    """Print the memory of a manager and a worker, and how much a round adds once the first third has warmed them up."""
    with local_cluster() as cluster:
        cluster.start("manager")
        cluster.start("worker")
        cluster.run("cluster", "update", "--snapshot-interval", str(INTERVAL_ENTRIES), node="manager")
        cluster.run("node", "drain", "manager", node="manager")
        run_rounds(cluster)


def run_rounds(cluster: LocalCluster) -> None:
    """All rounds over one connection, measured in between."""
    from swarm.commands.service_spec import new_spec
    from swarm.wire.client import LocalClient
    from swarm.wire.messages.control import CreateService, RemoveService, WatchService

    pids = {name: cluster.pid(name) for name in ("manager", "worker")}
    seen: dict[str, list[tuple[int, float]]] = {name: [] for name in pids}
    began = time.perf_counter()
    with LocalClient(cluster.socket("manager")) as client:
        for done in range(ROUNDS + 1):
            if done % max(1, ROUNDS // SHOWN) == 0:
                for name, pid in pids.items():
                    seen[name].append((done, resident_mb(pid)))
                figures = "   ".join(f"{name} {series[-1][1]:6.1f} MB" for name, series in seen.items())
                print(f"after {done:5} rounds   {figures}   {time.perf_counter() - began:6.1f} s")
                sys.stdout.flush()
            if done == ROUNDS:
                break
            spec = new_spec({"name": f"round-{done}", "replicas": 1, "stop_grace_period": "1s"}, ["sleep", "600"])
            written = client.ask(CreateService(spec), timeout_s=20)
            for progress in client.stream(WatchService(written.service.id, hold_s=0.0), timeout_s=30):
                if progress.converged:
                    break
            client.ask(RemoveService(spec.name), timeout_s=20)
            for progress in client.stream(WatchService(written.service.id), timeout_s=30):
                if progress.removed:
                    break
    for name, series in seen.items():
        late = series[len(series) // 3 :]
        grown_kb = (late[-1][1] - late[0][1]) * 1000 / max(1, late[-1][0] - late[0][0])
        print(f"{name:<10} {grown_kb:+6.1f} kB a round from round {late[0][0]} on")


if __name__ == "__main__":
    main()
