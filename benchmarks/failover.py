"""How long nobody can write when the leader is killed, stopped in order, or frozen; and how often leaders change needlessly.

    python -m benchmarks.failover [--trials 20] [--idle-minutes 2] [--only kill,stop,freeze,idle]

Three managers as three processes on loopback, real TLS, every commit on disk. A write changes a node's label through a
persistent local connection to a manager that does not lead, and is repeated while it is refused. Seconds:

    kill    SIGKILL of the leader to the next accepted write
    stop    SIGTERM of the leader: the longest time between two accepted writes until its process has ended; failed calls
    freeze  SIGSTOP of the leader (its connections stay open) to the next accepted write
    idle    elections, and changes of the leader, while other programs keep every core busy
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable

from attrs import define, evolve, field

from swarm.model.objects import Node
from swarm.ports.clock import monotonic_seconds, pause
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.testing.daemons import LocalCluster, alive, local_cluster, wait_until
from swarm.wire.client import LocalClient
from swarm.wire.messages.control import GetNode, UpdateNode
from swarm.wire.messages.node import GetNodeStatus, NodeStatusView

NAMES = ("m1", "m2", "m3")
TRY_S = 0.5
"""A write that hangs for this long is given up and repeated."""
CALM_S = 1.0
"""Between trials."""


@define
class Writer:
    """One client with a persistent connection."""

    client: LocalClient
    node: Node
    count: int = 0
    failed: list[str] = field(factory=list)

    def write(self, timeout_s: float = TRY_S) -> None:
        """One write, accepted; refusals and time-outs are noted and the write is repeated."""
        while True:
            spec = evolve(self.node.spec, labels={**self.node.spec.labels, "count": str(self.count)})
            try:
                request = UpdateNode(self.node.id, self.node.version, spec)
                self.node = self.client.ask(request, timeout_s=timeout_s).node
                self.count += 1
                return
            except SwarmError as error:
                if error.code is not ErrorCode.OUT_OF_DATE:
                    self.failed.append(f"{error.code.value}: {error.text}")
            pause(0.002)
            try:
                self.node = self.client.ask(GetNode(self.node.id), timeout_s=timeout_s).node
            except SwarmError as error:
                self.failed.append(f"{error.code.value}: {error.text}")


def status(cluster: LocalCluster, name: str) -> NodeStatusView:
    """A manager's own state."""
    with LocalClient(cluster.socket(name)) as client:
        return client.ask(GetNodeStatus(), timeout_s=10)


def settled(cluster: LocalCluster) -> tuple[str, int]:
    """Wait until all managers are ready and follow one leader; its name and its process."""
    found: dict[str, NodeStatusView] = {}

    def look() -> bool:
        try:
            found.update({name: status(cluster, name) for name in NAMES})
        except SwarmError:
            return False
        views = found.values()
        return (
            len({view.leader for view in views} - {""}) == 1
            and all(view.state == "ready" for view in views)
            and all(member.reachable and not member.learner for view in views for member in view.members)
        )

    wait_until(look, "all managers follow one leader", 60)
    pause(CALM_S)
    look()
    leader = next(view for view in found.values() if view.node_id == view.leader)
    return leader.hostname, leader.pid


def writer(cluster: LocalCluster, through: str) -> Writer:
    """A writer that has written once."""
    client = LocalClient(cluster.socket(through))
    node = client.ask(GetNode(status(cluster, through).node_id), timeout_s=10).node
    made = Writer(client, node)
    made.write()
    return made


def other(name: str, trial: int) -> str:
    """A manager that does not lead: each of them in turn."""
    return [one for one in NAMES if one != name][trial % 2]


def kill(cluster: LocalCluster, trial: int) -> float:
    """One SIGKILL."""
    name, pid = settled(cluster)
    client = writer(cluster, other(name, trial))
    began = monotonic_seconds()
    os.kill(pid, signal.SIGKILL)
    client.write()
    took = monotonic_seconds() - began
    client.client.close()
    wait_until(lambda: not alive(pid), "the killed process is gone")
    cluster.start(name)
    return took


def freeze(cluster: LocalCluster, trial: int) -> float:
    """One SIGSTOP."""
    name, pid = settled(cluster)
    client = writer(cluster, other(name, trial))
    began = monotonic_seconds()
    os.kill(pid, signal.SIGSTOP)
    try:
        client.write()
        took = monotonic_seconds() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    client.client.close()
    return took


def stop(cluster: LocalCluster, trial: int, failed: list[str]) -> float:
    """One orderly stop under a client that writes all the time."""
    name, pid = settled(cluster)
    client = writer(cluster, other(name, trial))
    gaps, ended = [0.0], threading.Event()

    def write_on() -> None:
        before = monotonic_seconds()
        while not ended.is_set():
            client.write(timeout_s=10)
            now = monotonic_seconds()
            gaps.append(now - before)
            before = now

    thread = threading.Thread(target=write_on)
    thread.start()
    pause(0.3)
    gaps[:] = [0.0]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid), "the leader has ended")
    ended.set()
    thread.join()
    failed += client.failed
    client.client.close()
    cluster.start(name)
    return max(gaps)


def idle(cluster: LocalCluster, minutes: float) -> tuple[int, int]:
    """Elections (terms) and changes of the leader while every core is kept busy."""
    name, _ = settled(cluster)
    before, changes = status(cluster, name), 0
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        leader, end = before.leader, monotonic_seconds() + 60 * minutes
        while monotonic_seconds() < end:
            pause(1.0)
            now = status(cluster, name).leader
            changes += now != leader
            leader = now
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return status(cluster, name).term - before.term, changes


def report(what: str, took: Iterable[float], more: str = "") -> None:
    """One line of figures."""
    ordered = sorted(took)
    print(
        f"{what:7} {len(ordered):3} trials   median {statistics.median(ordered):.3f} s   "
        f"best {ordered[0]:.3f} s   worst {ordered[-1]:.3f} s{more}",
        flush=True,
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--idle-minutes", type=float, default=2.0)
    parser.add_argument("--only", default="kill,stop,freeze,idle")
    options = parser.parse_args()
    failed: list[str] = []
    parts: dict[str, Callable[[LocalCluster, int], float]] = {
        "kill": kill,
        "stop": lambda cluster, trial: stop(cluster, trial, failed),
        "freeze": freeze,
    }
    with local_cluster() as cluster:
        for name in NAMES:
            cluster.start(name, "manager")
        chosen = options.only.split(",")
        for what in chosen:
            if what in parts:
                part = parts[what]
                took = [part(cluster, trial) for trial in range(options.trials)]
                report(what, took, f"   failed calls {len(failed)}" if what == "stop" else "")
        for text in sorted(set(failed)):
            print(f"        failed: {text}")
        if "idle" in chosen:
            elections, changes = idle(cluster, options.idle_minutes)
            print(f"idle    {options.idle_minutes:g} minutes   elections {elections}   changes of the leader {changes}")
        load = os.getloadavg()[0]
        print(f"machine {os.cpu_count()} cores, load average {load:.1f} at the end", flush=True)


if __name__ == "__main__":
    main()
