"""The main job with real daemons on loopback: form a cluster, run a service, lose parts of it, come back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.testing.daemons import LocalCluster, alive, local_cluster, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with local_cluster() as found:
        yield found


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalCluster]:
    """One manager and one worker, for tests that leave them as they were."""
    with local_cluster() as found:
        found.start("m")
        found.start("w")
        yield found


def tasks(cluster: LocalCluster, service: str, node: str = "m") -> list[Any]:
    return [
        view
        for view in cluster.json("svc", "ps", service, "--running", node=node)
        if view["task"]["status"]["state"] == "running"
    ]


def states(cluster: LocalCluster, node: str = "m") -> dict[str, str]:
    return {
        view["node"]["description"]["hostname"]: view["node"]["status"]["state"]
        for view in cluster.json("node", "ls", node=node)
    }


def sleeper(name: str, replicas: int = 2, *more: str) -> list[str]:
    return [
        "svc",
        "create",
        "--name",
        name,
        "--replicas",
        str(replicas),
        "--timeout",
        "30s",
        *more,
        "--",
        "sleep",
        "600",
    ]


# --- the daily commands ------------------------------------------------------------------------------------------------
def test_a_service_is_created_scaled_updated_explained_and_removed(shared: LocalCluster) -> None:
    created = shared.attempt(*sleeper("day"), node="m")
    assert created.returncode == 0, created.stderr
    assert "2/2 converged" in created.stderr
    assert len(tasks(shared, "day")) == 2
    shared.run("svc", "scale", "day=4", "--timeout", "30s", node="m")
    before = tasks(shared, "day")
    assert sorted(view["task"]["slot"] for view in before) == [1, 2, 3, 4]
    shared.run("svc", "update", "day", "--env-add", "A=1", "--update-parallelism", "0", "--timeout", "60s", node="m")
    after = tasks(shared, "day")
    assert len(after) == 4
    assert not {view["task"]["id"] for view in before} & {view["task"]["id"] for view in after}
    assert "day" in shared.run("svc", "ls", node="m")
    assert "sleep 600" in shared.run("svc", "inspect", "day", node="m")
    why = shared.run("svc", "why", "day", node="m")
    assert "day.1" in why and "running on" in why
    shared.run("svc", "rm", "day", "--timeout", "30s", node="m")
    assert shared.run("svc", "ls", "-q", node="m") == ""
    for view in after:
        assert not alive(view["task"]["status"]["pid"])


def test_the_output_of_tasks_is_gathered_from_their_nodes(shared: LocalCluster) -> None:
    shared.run(
        "svc", "create", "--name", "talk", "--replicas", "2", "--timeout", "30s",
        "--", "sh", "-c", "echo hello from {{.Task.Slot}}; echo trouble >&2; sleep 600", node="m",
    )  # fmt: skip
    wait_until(
        lambda: shared.attempt("svc", "logs", "talk", node="m").stdout.count("hello from") == 2, "both have spoken"
    )
    done = shared.attempt("svc", "logs", "talk", node="m")
    assert "hello from 1" in done.stdout and "hello from 2" in done.stdout
    assert done.stderr.count("trouble") == 2
    shared.run("svc", "rm", "talk", "--timeout", "30s", node="m")


def test_ids_names_and_prefixes_are_taken_everywhere(shared: LocalCluster) -> None:
    shared.run(*sleeper("ids", 1), node="m")
    id = shared.run("svc", "ls", "-q", node="m").strip()
    assert shared.json("svc", "inspect", id[:8], node="m")[0]["service"]["id"] == id
    task = shared.run("svc", "ps", "ids", "-q", node="m").strip()
    assert shared.json("task", "inspect", task[:10], node="m")[0]["task"]["id"] == task
    assert shared.json("task", "inspect", "ids.1", node="m")[0]["task"]["id"] == task
    node = shared.json("node", "inspect", "w", node="m")[0]["node"]["id"]
    assert shared.json("node", "inspect", node[:10], node="m")[0]["node"]["id"] == node
    shared.run("svc", "rm", id[:8], "--timeout", "30s", node="m")


def test_a_constraint_that_nothing_meets_waits_with_a_reason_and_exit_code_3(shared: LocalCluster) -> None:
    done = shared.attempt(
        "svc", "create", "--name", "picky", "--constraint", "node.labels.zone==mars", "--timeout", "1s",
        "--", "sleep", "600", node="m",
    )  # fmt: skip
    assert done.returncode == 3
    assert "not converged after 1 s" in done.stderr
    why = shared.run("svc", "why", "picky", node="m")
    assert "constraint" in why and "to place it:" in why
    shared.run("node", "update", "w", "--label-add", "zone=mars", node="m")
    wait_until(lambda: len(tasks(shared, "picky")) == 1, "the label unblocks it")
    shared.run("node", "update", "w", "--label-rm", "zone", node="m")
    shared.run("svc", "rm", "picky", "--timeout", "30s", node="m")


def test_a_drained_node_runs_nothing_and_a_paused_one_gets_nothing(shared: LocalCluster) -> None:
    shared.run(*sleeper("move", 4), node="m")
    shared.run("node", "drain", "w", "--timeout", "30s", node="m")
    assert {view["node_name"] for view in tasks(shared, "move")} == {"m"}
    shared.run("node", "activate", "w", node="m")
    shared.run("node", "pause", "m", node="m")
    shared.run("svc", "scale", "move=6", "--timeout", "30s", node="m")
    assert sorted(view["node_name"] for view in tasks(shared, "move")) == ["m"] * 4 + ["w"] * 2
    shared.run("node", "activate", "m", node="m")
    shared.run("svc", "rm", "move", "--timeout", "30s", node="m")


# --- mistakes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["svc", "create", "--nme", "x", "--", "true"], 2, "--nme"),
        (["svc", "create", "--name", "x"], 2, "nothing to run"),
        (["svc", "create", "--name", "-x", "--", "true"], 1, "not allowed"),
        (["svc", "create", "--name", "x", "--constraint", "zone=a", "--", "true"], 1, "zone=a"),
        (["svc", "create", "--name", "x", "--reserve-cpu", "much", "--", "true"], 2, "--reserve-cpu"),
        (["svc", "create", "--name", "x", "--mode", "sometimes", "--", "true"], 2, "sometimes"),
        (["svc", "inspect", "nosuch"], 1, "nosuch"),
        (["svc", "scale", "nosuch"], 2, "NAME=N"),
        (["svc", "rm", "nosuch"], 1, "nosuch"),
        (["node", "inspect", "nosuch"], 1, "nosuch"),
        (["node", "rm", "w"], 1, "ready"),
        (["node", "rm", "m"], 1, "manager"),
        (["task", "inspect", "nosuch"], 1, "nosuch"),
        (["svc", "ls", "--format", "xml"], 2, "xml"),
        (["leave"], 1, "last manager"),
    ],
)
def test_a_mistake_gets_a_clear_error_and_loses_nothing(
    shared: LocalCluster, arguments: list[str], code: int, words: str
) -> None:
    done = shared.attempt(*arguments, node="m")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert states(shared) == {"m": "ready", "w": "ready"}


def test_a_name_that_is_taken_is_refused(shared: LocalCluster) -> None:
    shared.run(*sleeper("taken", 1), node="m")
    done = shared.attempt(*sleeper("TAKEN", 1), node="m")
    assert (done.returncode, "is taken" in done.stderr) == (1, True)
    shared.run("svc", "rm", "taken", "--timeout", "30s", node="m")


def test_without_a_daemon_the_exit_code_is_4(tmp_path: Path) -> None:
    with local_cluster() as empty:
        done = empty.attempt("svc", "ls", "--socket", str(tmp_path / "none.sock"))
        assert done.returncode == 4
        assert "swarm up" in done.stderr


def test_wrong_foreign_and_rotated_tokens_are_refused_and_nothing_is_left_behind(shared: LocalCluster) -> None:
    worker = shared.run("token", "worker", "-q", node="m").strip()
    shared.run("token", "worker", "--rotate", "-q", node="m")
    wrong_digest = worker.replace(worker.split("-")[2], "0" * len(worker.split("-")[2]))
    for number, (token, words) in enumerate(
        [("nonsense", "token"), (wrong_digest, "cluster"), (worker, "token"), (worker[:-3], "token")]
    ):
        name = f"refused-{number}"
        done = shared.attempt(
            "join", shared.addresses["m"], "--state-dir", str(shared.directory / name), "--detach", "--token", "-",
            stdin=token + "\n",
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert words in done.stderr
        assert token not in done.stderr
        assert not (shared.directory / name / "node.json").exists()
    assert states(shared) == {"m": "ready", "w": "ready"}


def test_a_state_directory_in_use_damaged_or_foreign_is_refused(shared: LocalCluster, tmp_path: Path) -> None:
    busy = shared.attempt("up", "--state-dir", str(shared.directory / "m"), "--detach")
    assert busy.returncode == 1 and "already runs" in busy.stderr
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("miaow")
    foreign = shared.attempt("up", "--state-dir", str(tmp_path / "photos"), "--detach")
    assert foreign.returncode == 1 and "holds no node" in foreign.stderr
    assert [entry.name for entry in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    joined = shared.attempt(
        "join", shared.addresses["m"], "--state-dir", str(shared.directory / "w"), "--detach",
        env={"SWARM_TOKEN": shared.run("token", "worker", "-q", node="m").strip()},
    )  # fmt: skip
    assert joined.returncode == 1


def test_a_port_in_use_is_refused_with_its_number(shared: LocalCluster, tmp_path: Path) -> None:
    address = shared.addresses["m"]
    done = shared.attempt("up", "--state-dir", str(tmp_path / "n"), "--listen", address, "--detach")
    assert done.returncode == 1
    assert address in done.stderr and "in use" in done.stderr
    names = {entry.name for entry in (tmp_path / "n").iterdir()}
    assert names <= {"lock", "swarm.log"}, "a cluster that never began is not there the next time"


def test_a_manager_whose_new_port_is_taken_comes_back_where_it_was(shared: LocalCluster, cluster: LocalCluster) -> None:
    cluster.start("m")
    cluster.run("stop", node="m")
    state = ("--state-dir", str(cluster.directory / "m"))
    done = cluster.attempt("up", *state, "--listen", shared.addresses["m"], "--detach")
    assert done.returncode == 1 and "in use" in done.stderr
    cluster.run("up", *state, "--detach")
    assert f"Listens at: {cluster.addresses['m']}" in " ".join(cluster.run("status", node="m").split())


def test_a_damaged_state_directory_is_named(cluster: LocalCluster) -> None:
    cluster.start("m")
    cluster.run("stop", node="m")
    (cluster.directory / "m" / "node.json").write_text("{")
    done = cluster.attempt("up", "--state-dir", str(cluster.directory / "m"), "--detach")
    assert done.returncode == 1
    assert "node.json is damaged" in done.stderr
    key = (cluster.directory / "m" / "pki" / "node.pem").read_bytes()
    (cluster.directory / "m" / "node.json").unlink()
    done = cluster.attempt("up", "--state-dir", str(cluster.directory / "m"), "--detach")
    assert done.returncode == 1
    assert "node.json is damaged: it is missing" in done.stderr
    assert (cluster.directory / "m" / "pki" / "node.pem").read_bytes() == key


def test_a_typed_token_does_not_stay_in_the_process_list(cluster: LocalCluster) -> None:
    cluster.start("m")
    token = cluster.run("token", "worker", "-q", node="m").strip()
    cluster.run(
        "join", cluster.addresses["m"], "--token", token, "--state-dir", str(cluster.directory / "w"),
        "--hostname", "w", "--executor", "process", "--detach",
    )  # fmt: skip
    cluster.names.append("w")
    command = Path(f"/proc/{cluster.pid('w')}/cmdline").read_bytes()
    environment = Path(f"/proc/{cluster.pid('w')}/environ").read_bytes()
    assert token.encode() not in command + environment


# --- losing parts --------------------------------------------------------------------------------------------------------
def test_a_manager_killed_at_any_moment_keeps_every_acknowledged_write_and_restarts_no_task(
    cluster: LocalCluster,
) -> None:
    cluster.start("m")
    cluster.start("w")
    cluster.run(*sleeper("stay", 4), node="m")
    before = {view["task"]["id"]: view["task"]["status"]["pid"] for view in tasks(cluster, "stay")}
    written = 0
    for round_number in range(3):
        for _ in range(3):
            cluster.run("node", "update", "w", "--label-add", f"n{written}=yes", node="m")
            written += 1
        cluster.kill("m")
        cluster.start("m")
        wait_until(lambda: states(cluster) == {"m": "ready", "w": "ready"}, f"all are ready, round {round_number}")
    labels = cluster.json("node", "inspect", "w", node="m")[0]["node"]["spec"]["labels"]
    assert {f"n{number}" for number in range(written)} <= set(labels)
    after = {view["task"]["id"]: view["task"]["status"]["pid"] for view in tasks(cluster, "stay")}
    assert after == before
    assert all(alive(pid) for pid in after.values())


def test_a_worker_agent_killed_and_started_again_adopts_its_tasks_and_learns_of_their_end(
    cluster: LocalCluster,
) -> None:
    cluster.start("m")
    cluster.start("w")
    cluster.run(*sleeper("adopt", 3, "--constraint", "node.hostname==w", "--restart-delay", "0s"), node="m")
    before = {view["task"]["id"]: view["task"]["status"]["pid"] for view in tasks(cluster, "adopt")}
    cluster.kill("w")
    ended = min(before, key=lambda id: before[id])
    os.killpg(os.getpgid(before[ended]), signal.SIGKILL)
    cluster.start("w")
    wait_until(lambda: len(tasks(cluster, "adopt")) == 3 and states(cluster)["w"] == "ready", "three run again")
    wait_until(
        lambda: ended not in {view["task"]["id"] for view in tasks(cluster, "adopt")}, "the dead one is replaced"
    )
    after = {view["task"]["id"]: view["task"]["status"]["pid"] for view in tasks(cluster, "adopt")}
    survivors = {id: pid for id, pid in before.items() if id != ended}
    assert survivors.items() <= after.items()


def test_stopping_a_daemon_leaves_its_tasks_running_and_leaving_ends_them(cluster: LocalCluster) -> None:
    cluster.start("m")
    cluster.start("w")
    cluster.run(*sleeper("linger", 2, "--constraint", "node.hostname==w"), node="m")
    pids = [view["task"]["status"]["pid"] for view in tasks(cluster, "linger")]
    cluster.run("stop", node="w")
    assert all(alive(pid) for pid in pids)
    cluster.start("w")
    wait_until(lambda: states(cluster)["w"] == "ready", "the worker is back")
    assert [view["task"]["status"]["pid"] for view in tasks(cluster, "linger")] == pids
    left = cluster.attempt("leave", node="w")
    assert left.returncode == 0, left.stderr
    wait_until(lambda: not any(alive(pid) for pid in pids), "its tasks have ended")
    wait_until(lambda: set(states(cluster)) == {"m"}, "its record is gone")
    assert not (cluster.directory / "w" / "node.json").exists()


def test_a_lost_machine_has_its_tasks_replaced_elsewhere(cluster: LocalCluster) -> None:
    cluster.start("m")
    cluster.start("w")
    cluster.run(*sleeper("heal", 4, "--replace-after", "1s", "--restart-delay", "0s"), node="m")
    lost = [view["task"]["status"]["pid"] for view in tasks(cluster, "heal") if view["node_name"] == "w"]
    assert lost
    cluster.kill("w")
    for pid in lost:
        os.killpg(os.getpgid(pid), signal.SIGKILL)
    wait_until(lambda: states(cluster)["w"] in ("disconnected", "down"), "the loss is shown")
    wait_until(lambda: [view["node_name"] for view in tasks(cluster, "heal")] == ["m"] * 4, "all run on the other")
