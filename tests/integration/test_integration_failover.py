"""Services while the machine of the leader is lost: three managers that run tasks, and the one that leads is killed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from test_integration_services import QUICK, Services, converged, marked

from swarm.testing.daemons import local_cluster, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

MANAGERS = ("m1", "m2", "m3")


@pytest.fixture
def swarm() -> Iterator[Services]:
    """Three managers that beat once a second."""
    with local_cluster() as cluster:
        for name in MANAGERS:
            cluster.start(name, "manager")
        swarm = Services(cluster, "m1")
        swarm.run("cluster", "update", "--heartbeat-period", "1s")
        yield swarm


def leader_of(swarm: Services) -> str:
    (name,) = (view["node"]["description"]["hostname"] for view in swarm.json("node", "ls") if view["leader"])
    return str(name)


def test_all_goes_on_when_the_leaders_machine_is_lost_and_when_it_returns(swarm: Services) -> None:
    leader = leader_of(swarm)
    swarm.node = next(name for name in MANAGERS if name != leader)
    other = next(name for name in MANAGERS if name not in (leader, swarm.node))
    # One that waits for its node, one that was moved by a drain, one that is being updated, one that waits for a node.
    converged(swarm.create("loyal", "--constraint", f"node.hostname=={leader}", "--replace-after", "1h"))
    (loyal,) = swarm.tasks("loyal")
    converged(swarm.create("moved", "--constraint", f"node.hostname!={leader}"))
    (place,) = swarm.places("moved")
    swarm.run("node", "drain", place, "--timeout", "20s")
    swarm.run("node", "activate", place)
    swarm.run("svc", "create", "--name", "nowhere", "--constraint", "node.labels.zone==z", "--detach", "--", "true")
    flags = ("--replicas", "6", "--env", "MARK=rolling", "--update-delay", "500ms", "--update-monitor", "500ms")
    converged(swarm.create("rolling", *flags, "--replace-after", "1s"))
    before = {name: swarm.run("svc", "why", name) for name in ("moved", "nowhere")}
    assert "is being drained" in before["moved"] and "--label-add zone=z" in before["nowhere"]

    command = swarm.cluster.command("svc", "update", "rolling", "--env-add", "V=2", "--timeout", "60s")
    environment = {"SWARM_SOCKET": swarm.cluster.socket(swarm.node), "PATH": ""}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as update:
        wait_until(lambda: any(view["task"]["revision"] == 2 for view in swarm.tasks("rolling")), "the update began")
        swarm.cluster.kill(leader)
        wait_until(lambda: leader_of(swarm) != leader, "another one leads")
        gone = ("disconnected", "down")
        wait_until(lambda: swarm.node_states()[leader] in gone, "its machine is shown to be gone")
        _, told = update.communicate(timeout=90)
        assert update.returncode == 0 and "converged" in told, told
    assert set(swarm.places("rolling")) == {swarm.node, other} and len(swarm.tasks("rolling")) == 6
    assert {view["task"]["revision"] for view in swarm.tasks("rolling")} == {2}
    assert f"node {leader} is lost" in swarm.run("svc", "why", "rolling")
    after = {name: swarm.run("svc", "why", name) for name in before}
    assert after["moved"] == before["moved"], "reasons are kept with the tasks"
    assert f"{leader}: is d" in after["nowhere"], "what nodes lack is of now"
    assert swarm.ids("loyal") == {loyal["task"]["id"]}, "it may come back with its node"

    swarm.cluster.start(leader)
    wait_until(lambda: swarm.node_states()[leader] == "ready", "it is back")
    wait_until(lambda: len(marked("rolling")) == 6, "its old copies have stopped")
    (adopted,) = swarm.tasks("loyal")
    assert adopted["task"]["id"] == loyal["task"]["id"]
    assert adopted["task"]["status"]["pid"] == loyal["task"]["status"]["pid"], "the same process, adopted"


def test_a_drain_goes_on_when_the_leader_is_killed(swarm: Services) -> None:
    leader = leader_of(swarm)
    swarm.node, drained = (name for name in MANAGERS if name != leader)
    slow = ("sh", "-c", "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.1; done")
    converged(swarm.create("slow", *QUICK, "--replicas", "3", "--replace-after", "1h", command=slow))
    command = swarm.cluster.command("node", "drain", drained, "--timeout", "60s")
    environment = {"SWARM_SOCKET": swarm.cluster.socket(swarm.node), "PATH": ""}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as drain:
        wait_until(
            lambda: any("drain" in (view["task"]["reason"] or {}).get("text", "") for view in swarm.tasks("slow")),
            "the drain began",
        )
        swarm.cluster.kill(leader)
        _, told = drain.communicate(timeout=90)
        assert drain.returncode == 0 and f"{drained}: drained" in told, told
    assert drained not in swarm.places("slow")
