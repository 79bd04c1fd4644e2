"""Three managers and two workers as real daemons, hurt from a seed while clients write and read and services change.

Then everything heals, and: the history is linearizable, all managers hold the same state, every service has what it
declares, the processes that run are those of its tasks, and what no fault touched was not restarted.

`--chaos-minutes N` runs longer, `--chaos-seed S` another schedule.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos_clients import Client, Clients, History, LabelRegister, Operator, Register, VariableRegister, idle_service
from chaos_cluster import ChaosCluster, chaos_cluster
from chaos_faults import Faults

from swarm.model.ids import NodeId
from swarm.model.specs import Placement, ProcessSpec, Replicated, RestartPolicy, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.runtime.errors import SwarmError
from swarm.testing.daemons import alive, wait_until
from swarm.testing.linearizable import check
from swarm.wire.messages.control import CreateService, ListNodes, ListServices, ListTasks, TaskView

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

CLIENTS_A_MANAGER = 2
SPARED = "w1"
CONVERGE_S = 45.0
FOREVER = str(86_400 + os.getpid())
"""Seconds that tasks sleep: by this the processes of this run are told from any others."""


@pytest.fixture
def cluster(tell: Callable[[str], None]) -> Iterator[ChaosCluster]:
    with chaos_cluster(managers=3, workers=2, small_disks=1) as found:
        if found.why:
            tell(f"SKIPPED here: partitions and full disks: {found.why}")
        yield found


def sleeper(name: str, replicas: int, *constraints: str) -> ServiceSpec:
    process = ProcessSpec(("sleep", FOREVER), stop_grace_s=1.0)
    task = TaskSpec(process, restart=RestartPolicy(delay_s=0.5), placement=Placement(constraints=constraints))
    return ServiceSpec(name, task, Replicated(replicas))


def running(cluster: ChaosCluster, service: str = "") -> dict[str, TaskView]:
    """Running tasks by id."""
    views = cluster.ask(cluster.managers[0], ListTasks(service, all=False), 10.0)
    return {view.task.id: view for view in views if view.task.status.state is TaskState.RUNNING}


def settled(cluster: ChaosCluster) -> str:
    """What is not as it was declared; empty when all is well."""
    try:
        for view in cluster.ask(cluster.managers[0], ListNodes(), 10.0):
            if view.node.status.state.name != "READY" or view.reachable is False:
                return f"{view.node.description.hostname} is {view.node.status.state.name}, reachable {view.reachable}"
        for service in cluster.ask(cluster.managers[0], ListServices(), 10.0):
            if service.running != service.desired:
                return f"{service.service.spec.name} has {service.running} of {service.desired}"
        states = {
            name: (
                cluster.ask(name, ListServices(stale=True), 10.0),
                cluster.ask(name, ListTasks(stale=True), 10.0),
                [view.node for view in cluster.ask(name, ListNodes(stale=True), 10.0)],
            )
            for name in cluster.managers
        }
        applied = {name: cluster.status(name).applied_index for name in cluster.managers}
    except SwarmError as error:
        return repr(error)
    first = states[cluster.managers[0]]
    different = [name for name in cluster.managers if states[name] != first]
    if different:
        return f"{different} and {cluster.managers[0]} hold different states, applied {applied}"
    if len(set(applied.values())) > 1:
        return f"applied {applied}"
    return ""


def sleeping() -> set[int]:
    """Processes of this cluster's tasks, whoever knows of them."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if command[0].endswith(b"sleep") and command[1:2] == [FOREVER.encode()] and alive(int(entry.name)):
                found.add(int(entry.name))
    return found


def test_clients_and_services_live_through_faults_from_a_seed(
    cluster: ChaosCluster, chaos_seconds: float, chaos_seed: int, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    started_at = time.monotonic()
    history = History(tmp_path / "history.jsonl")
    shared = Clients(history)
    faults = Faults(
        cluster, chaos_seed, SPARED, lambda text: tell(f"{text}; {len(history.operations)} operations of clients")
    )
    stay = cluster.ask("m1", CreateService(sleeper("stay", 3, f"node.hostname=={SPARED}")))
    cluster.ask("m1", CreateService(sleeper("web", 4)))
    wait_until(lambda: not settled(cluster), "the cluster stands", 30)
    stay_before = {id: view.task.status.pid for id, view in running(cluster, stay.service.id).items()}
    assert len(stay_before) == 3
    registers: list[Register] = [LabelRegister(NodeId(cluster.ids[name]), name) for name in cluster.workers]
    for name in ("idle", "idle-2"):  # no manager's label: its record goes when it leaves
        service = cluster.ask("m1", CreateService(idle_service(name))).service
        registers.append(VariableRegister(service.id, name))
    sockets = [cluster.local.socket(name) for name in cluster.managers]
    clients = [
        Client(f"{name}-{number}", cluster.local.socket(name), registers, chaos_seed, shared)
        for name in cluster.managers
        for number in range(CLIENTS_A_MANAGER)
    ]
    operator = Operator(sockets, "web", 8, chaos_seed, shared)
    for thread in (*clients, operator):
        thread.start()
    try:
        faults.run(chaos_seconds)
        time.sleep(1.0)
    finally:
        shared.stop.set()
        for thread in (*clients, operator):
            thread.join(30)
    try:
        wait_until(lambda: not settled(cluster), "all is healed", CONVERGE_S)
        for name in cluster.managers:  # what was acknowledged is there, whoever is asked
            Client(f"end-{name}", cluster.local.socket(name), registers, 0, shared).read_all()
        assert shared.surprises == []
        violation = check(history.operations)
        assert violation is None, violation
        assert {id: view.task.status.pid for id, view in running(cluster, stay.service.id).items()} == stay_before
        wait_until(
            lambda: sleeping() == {view.task.status.pid for view in running(cluster).values()},
            "the processes that run are those of the tasks",
        )
        counts = history.counts()
        assert counts["read ok"] and counts["write ok"] and counts["swap ok"], counts
    except (AssertionError, TimeoutError):
        print("\n".join(faults.story))
        print(f"not settled: {settled(cluster)}")
        print(f"tasks run {sorted(sleeping())}, known {running_pids(cluster)}")
        print(cluster.logs())
        raise
    finally:
        history.close()
        report = (
            f"seed {chaos_seed}: {chaos_seconds:.0f} s of faults in {time.monotonic() - started_at:.0f} s; "
            f"{len(history.operations)} operations {dict(sorted(history.counts().items()))}; refusals "
            f"{dict(shared.refusals)}; {operator.changes} changes of a service; faults {dict(sorted(faults.counts.items()))}"
        )
        tell(f"{report}\nhistory: {history.path}; again: pytest tests/chaos --chaos-seed {chaos_seed}\n")


def running_pids(cluster: ChaosCluster) -> list[int] | str:
    """For a failure's report."""
    try:
        return sorted(view.task.status.pid for view in running(cluster).values())
    except SwarmError as error:
        return repr(error)
