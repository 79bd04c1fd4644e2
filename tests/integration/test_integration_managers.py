"""Managers as their users meet them, with real daemons: promoted, demoted, lost, moved, restarted one after the other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field

from swarm.model.specs import NodeSpec
from swarm.ports.clock import monotonic_seconds
from swarm.ports.free_ports import free_port
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.testing.daemons import LocalCluster, alive, local_cluster, wait_until
from swarm.wire.client import LocalClient
from swarm.wire.messages.control import GetNode, ListNodes, NodeView, UpdateNode
from swarm.wire.messages.node import GetNodeStatus, NodeStatusView

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
ORDERLY_WRITE_S_MAX = 2.0
"""Far above what it takes (the benchmark measures that): a loaded machine must not fail a test."""


@pytest.fixture(scope="module")
def three() -> Iterator[LocalCluster]:
    """Three managers and a worker with a running service; each test leaves all of them in place and ready."""
    with local_cluster() as found:
        found.start("m1")
        found.start("m2", "manager")
        found.start("m3", "manager")
        found.start("w1")
        found.run(
            "svc", "create", "--name", "keep", "--replicas", "2", "--constraint", "node.hostname==w1", "--timeout", "30s",
            "--", "sleep", "600", node="m1",
        )  # fmt: skip
        settle(found, "m1", managers=3, nodes=4)
        yield found


def status(cluster: LocalCluster, node: str) -> NodeStatusView:
    with LocalClient(cluster.socket(node)) as client:
        return client.ask(GetNodeStatus(), timeout_s=10)


def nodes(cluster: LocalCluster, node: str, stale: bool = False) -> dict[str, NodeView]:
    with LocalClient(cluster.socket(node)) as client:
        found = client.ask(ListNodes(stale=stale), timeout_s=10)
    return {view.node.description.hostname: view for view in found}


def leader(cluster: LocalCluster, node: str = "m1") -> str:
    return next(name for name, view in nodes(cluster, node).items() if view.leader)


def settle(cluster: LocalCluster, node: str, managers: int, nodes_: int = 0, **more: int) -> None:
    wanted = more.get("nodes", nodes_)

    def settled() -> bool:
        try:
            found = nodes(cluster, node)
            here = status(cluster, node)
        except SwarmError:
            return False
        voters = [member for member in here.members if not member.learner]
        return (
            len(voters) == managers
            and all(member.reachable for member in voters)
            and sum(view.reachable is True for view in found.values()) == managers
            and len(found) == wanted
            and all(view.node.status.state.name == "READY" for view in found.values())
        )

    wait_until(settled, f"{managers} managers of {wanted} nodes are ready and reach each other")


def task_pids(cluster: LocalCluster, node: str = "m1") -> dict[str, int]:
    views: list[Any] = cluster.json("svc", "ps", "keep", "--running", node=node)
    return {view["task"]["id"]: view["task"]["status"]["pid"] for view in views}


# --- roles -------------------------------------------------------------------------------------------------------------
def test_a_worker_becomes_a_manager_and_back_without_restart_or_touching_its_tasks(three: LocalCluster) -> None:
    pid, tasks = three.pid("w1"), task_pids(three)
    for _ in range(2):
        three.run("node", "promote", "w1", node="m2")
        settle(three, "w1", managers=4, nodes=4)
        assert status(three, "w1").role == "manager"
        assert (three.directory / "w1" / "raft" / "data.key").exists()
        assert three.run("node", "ls", "-q", node="w1")
        three.run("node", "demote", "w1", node="m3")
        wait_until(
            lambda: status(three, "w1").role == "worker" and status(three, "w1").state == "ready", "it works again"
        )
        assert not (three.directory / "w1" / "raft").exists(), "what a worker must not keep is gone"
        settle(three, "m1", managers=3, nodes=4)
    assert (three.pid("w1"), task_pids(three)) == (pid, tasks)
    assert all(alive(task) for task in tasks.values())


def test_the_leader_itself_is_demoted_and_promoted_again(three: LocalCluster) -> None:
    tasks, first = task_pids(three), leader(three)
    other = next(name for name in ("m1", "m2", "m3") if name != first)
    three.run("node", "demote", first, node=first)
    wait_until(
        lambda: status(three, first).role == "worker" and status(three, first).state == "ready", "it is a worker"
    )
    assert leader(three, other) != first
    settle(three, other, managers=2, nodes=4)
    assert "worker" in three.run("status", node=first)
    three.run("node", "promote", first, node=other)
    settle(three, first, managers=3, nodes=4)
    assert task_pids(three) == tasks


def test_a_promoted_node_that_cannot_listen_works_on_and_tries_again(three: LocalCluster) -> None:
    tasks, address = task_pids(three), three.addresses["w1"]
    host, _, port = address.rpartition(":")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, int(port)))
        taken.listen()
        three.run("node", "promote", "w1", node="m1")
        wait_until(lambda: "in use" in status(three, "w1").state, "it says why")
        assert task_pids(three) == tasks
    settle(three, "w1", managers=4, nodes=4)
    three.run("node", "demote", "w1", node="m1")
    settle(three, "m1", managers=3, nodes=4)
    wait_until(lambda: status(three, "w1").role == "worker", "it is a worker again")
    assert task_pids(three) == tasks


def test_a_manager_leaves_even_when_it_leads_and_its_machine_joins_again(three: LocalCluster) -> None:
    name = leader(three)
    other = next(one for one in ("m1", "m2", "m3") if one != name)
    pid = three.pid(name)
    left = three.attempt("leave", node=name)
    assert left.returncode == 0, left.stderr
    wait_until(lambda: name not in nodes(three, other), "its record is gone")
    settle(three, other, managers=2, nodes=3)
    wait_until(lambda: not alive(pid), "its daemon has ended")
    assert not (three.directory / name / "node.json").exists()
    token = three.run("token", "manager", "-q", node=other).strip()
    three.run(
        "join", three.addresses[other], "--state-dir", str(three.directory / name), "--listen", three.addresses[name],
        "--hostname", name, "--executor", "process", "--detach", env={"SWARM_TOKEN": token},
    )  # fmt: skip
    settle(three, name, managers=3, nodes=4)


# --- reading and writing from any manager ------------------------------------------------------------------------------
def test_any_manager_answers_and_shows_leader_term_and_lag(three: LocalCluster) -> None:
    name, seen = leader(three), set()
    for manager in ("m1", "m2", "m3"):
        three.run("node", "update", "w1", "--label-add", f"from-{manager}=yes", node=manager)
        views = nodes(three, manager)
        assert f"from-{manager}" in views["w1"].node.spec.labels, (
            "a read sees the write before it, wherever it was made"
        )
        assert [host for host, view in views.items() if view.leader] == [name]
        here = status(three, manager)
        seen.add((here.term, here.leader))
        assert here.applied_index > 0
        table = three.run("node", "ls", node=manager)
        assert "Leader" in table and table.count("Reachable") == 2
        assert "Term" in three.run("status", node=manager)
    assert len(seen) == 1


def test_a_stale_read_is_answered_by_the_manager_that_gets_it_even_without_a_quorum(three: LocalCluster) -> None:
    away = [three.pid("m2"), three.pid("m3")]
    try:
        for pid in away:
            os.kill(pid, signal.SIGSTOP)
        began = monotonic_seconds()
        table = three.run("node", "ls", "--stale", node="m1")
        assert "w1" in table
        assert monotonic_seconds() - began < 5
    finally:
        for pid in away:
            os.kill(pid, signal.SIGCONT)
    settle(three, "m1", managers=3, nodes=4)


# --- restarts ----------------------------------------------------------------------------------------------------------
@define
class Writer:
    """Writes a label again and again through one manager at a time; every call must succeed."""

    cluster: LocalCluster
    through: str
    written: int = 0
    slowest_s: float = 0.0
    failed: list[str] = field(factory=list)
    _end: bool = False

    def run(self) -> None:
        through, client = self.through, LocalClient(self.cluster.socket(self.through))
        id = nodes(self.cluster, self.through)["w1"].node.id
        while not self._end:
            if self.through != through:
                client.close()
                through, client = self.through, LocalClient(self.cluster.socket(self.through))
            began = monotonic_seconds()
            try:
                self._write(client, id)
            except SwarmError as error:
                self.failed.append(f"through {through} after {self.written}: {error!r}")
            self.slowest_s = max(self.slowest_s, monotonic_seconds() - began)
            self.written += 1
        client.close()

    def _write(self, client: LocalClient, id: Any) -> None:
        while True:
            node = client.ask(GetNode(id), timeout_s=10).node
            spec: NodeSpec = evolve(node.spec, labels={**node.spec.labels, "count": str(self.written)})
            try:
                client.ask(UpdateNode(node.id, node.version, spec), timeout_s=10)
            except SwarmError as error:
                if error.code is not ErrorCode.OUT_OF_DATE:
                    raise
            else:
                return

    def end(self) -> None:
        self._end = True


def test_a_rolling_restart_of_all_managers_costs_a_writing_client_no_failed_call(three: LocalCluster) -> None:
    writer = Writer(three, "m2")
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        for name, through in (("m1", "m2"), ("m3", "m2"), ("m2", "m3")):
            writer.through = through
            before = writer.written
            wait_until(lambda before=before: writer.written > before + 3, "the writer uses another manager")  # type: ignore[misc]
            three.run("stop", node=name)
            before = writer.written
            wait_until(lambda before=before: writer.written > before + 3, "writes go on")  # type: ignore[misc]
            three.start(name)
            settle(three, name, managers=3, nodes=4)
    finally:
        writer.end()
        thread.join()
    assert writer.failed == []
    assert writer.slowest_s < ORDERLY_WRITE_S_MAX
    labels = nodes(three, "m1")["w1"].node.spec.labels
    assert labels["count"] == str(writer.written - 1)


def test_a_killed_leader_is_replaced_and_comes_back(three: LocalCluster) -> None:
    name = leader(three)
    other = next(one for one in ("m1", "m2", "m3") if one != name)
    three.kill(name)
    three.run("node", "update", "w1", "--label-add", "after=kill", node=other)
    assert leader(three, other) != name
    three.start(name)
    settle(three, name, managers=3, nodes=4)


def test_a_removed_manager_that_comes_back_says_so_and_its_machine_joins_again(three: LocalCluster) -> None:
    name = next(one for one in ("m1", "m2", "m3") if one != leader(three))
    other = next(one for one in ("m1", "m2", "m3") if one != name)
    three.kill(name)
    wait_until(lambda: nodes(three, other)[name].node.status.state.name != "READY", "the loss is seen")
    three.run("node", "rm", "--force", name, node=other)
    state = ["--state-dir", str(three.directory / name)]
    with subprocess.Popen(three.command("up", *state), stderr=subprocess.DEVNULL, start_new_session=True) as daemon:
        wait_until(lambda: "was removed from the cluster" in state_of(three, name), "it says so")
        assert "swarm leave --force" in state_of(three, name)
        left = three.attempt("leave", "--force", node=name)
        assert left.returncode == 0, left.stderr
        assert daemon.wait(30) == 0
    token = three.run("token", "manager", "-q", node=other).strip()
    three.run(
        "join", three.addresses[other], *state, "--listen", three.addresses[name],
        "--hostname", name, "--executor", "process", "--detach", env={"SWARM_TOKEN": token},
    )  # fmt: skip
    settle(three, name, managers=3, nodes=4)


def state_of(cluster: LocalCluster, node: str) -> str:
    """What a node says that it waits for; empty while it does not answer."""
    try:
        return status(cluster, node).state
    except SwarmError:
        return ""


# --- addresses ---------------------------------------------------------------------------------------------------------
def test_managers_that_come_back_elsewhere_are_known_by_their_key_and_the_worker_follows(three: LocalCluster) -> None:
    for name in ("m1", "m2", "m3"):
        three.run("stop", node=name)
        address = f"127.0.0.1:{free_port()}"
        three.run("up", "--state-dir", str(three.directory / name), "--listen", address, "--detach")
        three.addresses[name] = address
        settle(three, name, managers=3, nodes=4)
        for other in ("m1", "m2", "m3"):
            wait_until(
                lambda other=other, address=address: address in {one.address for one in status(three, other).members},  # type: ignore[misc]
                f"{other} knows where {name} is",
            )
    wanted = {three.addresses[name] for name in ("m1", "m2", "m3")}
    wait_until(lambda: set(status(three, "w1").managers) == wanted, "the worker knows where all managers are")
    three.run("stop", node="w1")
    three.start("w1")
    settle(three, "m1", managers=3, nodes=4)


# --- losing the quorum; the last one, since it ends with another cluster ------------------------------------------------
def test_quorum_is_protected_and_a_survivor_goes_on_alone_when_it_is_lost(three: LocalCluster) -> None:
    tasks, name = task_pids(three), leader(three)
    first, second = (one for one in ("m1", "m2", "m3") if one != name)
    three.kill(first)
    wait_until(lambda: nodes(three, name)[first].reachable is False, "the loss is seen")
    for command, target in ((["node", "demote", second], name), (["leave"], second), (["node", "demote", name], name)):
        refused = three.attempt(*command, node=target)
        assert refused.returncode == 1, refused.stdout
        assert "3 managers, 2 reachable: removing" in refused.stderr and "would leave 1 of 2" in refused.stderr
    wait_until(lambda: nodes(three, name)[first].node.status.state.name != "READY", "its node is not ready")
    assert "demote" in three.attempt("node", "rm", first, node=name).stderr
    three.run("node", "rm", "--force", first, node=name)
    wait_until(lambda: len(status(three, name).members) == 2, "the lost one is out")
    three.kill(second)
    stuck = three.attempt("node", "update", "w1", "--label-add", "no=quorum", node=name)
    assert stuck.returncode == 4 and "reach" in stuck.stderr
    worker = three.pid("w1")
    three.run("stop", node=name)
    state = ["--state-dir", str(three.directory / name)]
    forced = three.attempt("up", *state, "--force-new-cluster", "--detach")
    assert forced.returncode == 0, forced.stderr
    assert f"the logs of {second}" in forced.stderr and "could not be seen" in forced.stderr
    wait_until(lambda: nodes(three, name)["w1"].node.status.state.name == "READY", "the worker found it")
    assert (three.pid("w1"), task_pids(three, name)) == (worker, tasks)
    assert "after" in nodes(three, name)["w1"].node.spec.labels
    assert "could not be seen" in three.run("status", node=name)
    wait_until(lambda: nodes(three, name)[second].node.status.state.name != "READY", "the other is not ready")
    three.run("node", "rm", second, node=name)
    assert set(nodes(three, name)) == {name, "w1"}


# --- backup ------------------------------------------------------------------------------------------------------------
def test_a_backup_brings_the_cluster_back_on_another_address_with_its_workers_and_their_tasks(tmp_path: Path) -> None:
    with local_cluster() as cluster:
        cluster.start("m1")
        cluster.start("w1")
        cluster.run(
            "svc", "create", "--name", "keep", "--replicas", "2", "--constraint", "node.hostname==w1", "--timeout", "30s",
            "--", "sleep", "600", node="m1",
        )  # fmt: skip
        worker, tasks = cluster.pid("w1"), task_pids(cluster)
        token = cluster.run("token", "worker", "-q", node="m1")
        plain, sealed, secret = tmp_path / "plain", tmp_path / "sealed", {"SWARM_PASSPHRASE": "correct horse"}
        assert "not encrypted" in cluster.attempt("backup", str(plain), node="m1").stderr
        cluster.run("backup", str(sealed), node="m1", env=secret)
        assert [path.stat().st_mode & 0o777 for path in (plain, sealed)] == [0o600, 0o600]
        assert b"PRIVATE KEY" in plain.read_bytes() and b"PRIVATE KEY" not in sealed.read_bytes()
        assert cluster.attempt("backup", str(sealed), node="m1", env=secret).returncode == 1, "nothing is overwritten"
        assert cluster.attempt("backup", str(tmp_path / "no"), node="w1").returncode == 4
        cluster.kill("m1")

        root, address = cluster.directory / "new", f"127.0.0.1:{free_port()}"
        options = ["--state-dir", str(root), "--listen", address, "--hostname", "new", "--executor", "process"]
        for env, words in (({}, "sealed"), ({"SWARM_PASSPHRASE": "wrong"}, "passphrase is wrong")):
            refused = cluster.attempt("restore", str(sealed), *options, env=env)
            assert refused.returncode == 1 and words in refused.stderr
            assert not (root / "node.json").exists()
        restored = cluster.attempt("restore", str(sealed), *options, env=secret)
        assert restored.returncode == 0, restored.stderr
        assert "1 service, 1 worker\n" in restored.stderr and "m1" in restored.stderr
        assert cluster.attempt("restore", str(sealed), *options, env=secret).returncode == 1, "it is a node already"
        cluster.run("up", "--state-dir", str(root), "--detach")
        assert cluster.run("token", "worker", "-q", node="new") == token
        cluster.run("stop", node="w1")
        cluster.run("up", "--state-dir", str(cluster.directory / "w1"), "--manager", address, "--detach")
        wait_until(lambda: nodes(cluster, "new")["w1"].node.status.state.name == "READY", "the worker is back")
        assert task_pids(cluster, "new") == tasks and cluster.pid("w1") != worker
        assert set(nodes(cluster, "new")) == {"new", "w1"}
        cluster.run("svc", "scale", "keep=3", "--timeout", "30s", node="new")
        old = cluster.attempt("up", "--state-dir", str(cluster.directory / "m1"), "--detach")
        assert old.returncode == 0, "it leads a cluster of its own, which nobody follows"
