"""The command as people and scripts meet it: what several names do, what is printed where, and which words errors use."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.testing.daemons import LocalCluster, local_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CODE_OUTPUT_LOST = 1


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalCluster]:
    """One manager and one worker, for tests that leave them as they were."""
    with local_cluster() as found:
        found.start("m")
        found.start("w")
        yield found


def create(cluster: LocalCluster, *names: str) -> None:
    for name in names:
        cluster.run("svc", "create", "--name", name, "--replicas", "1", "--detach", "--", "sleep", "600", node="m")


def names(cluster: LocalCluster) -> set[str]:
    return {view["service"]["spec"]["name"] for view in cluster.json("svc", "ls", node="m")}


def piped(cluster: LocalCluster, words: str, end: str) -> tuple[list[int], str]:
    """Exit codes of `swarm WORDS | END` (or `> /dev/full`), and stderr."""
    script = f'"$@" {words} {end}; echo "${{PIPESTATUS[@]}}" >&2'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *cluster.command()],
        env={"SWARM_SOCKET": cluster.socket("m")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    *lines, codes = done.stderr.splitlines()
    return [int(code) for code in codes.split()], "\n".join(lines)


# --- several names -------------------------------------------------------------------------------------------------------
def test_nothing_is_removed_scaled_or_drained_when_one_of_the_names_is_unknown(shared: LocalCluster) -> None:
    create(shared, "one", "two")
    for arguments in (
        ["svc", "rm", "one", "two", "nope"],
        ["svc", "scale", "one=3", "nope=1"],
        ["svc", "ps", "one", "nope"],
        ["svc", "inspect", "one", "nope"],
        ["node", "drain", "w", "nope"],
        ["node", "pause", "w", "nope"],
        ["node", "demote", "m", "nope"],
        ["node", "rm", "--force", "w", "nope"],
        ["task", "inspect", "one.1", "nope"],
    ):
        done = shared.attempt(*arguments, node="m")
        assert (done.returncode, "nope" in done.stderr, done.stdout) == (1, True, ""), arguments
    assert names(shared) == {"one", "two"}
    assert shared.json("svc", "inspect", "one", node="m")[0]["service"]["spec"]["mode"]["replicas"] == 1
    nodes = shared.json("node", "ls", node="m")
    assert {view["node"]["spec"]["availability"] for view in nodes} == {"active"}
    shared.run("svc", "rm", "one", "two", "one", node="m")
    assert names(shared) == set()


def test_a_scale_that_one_service_refuses_scales_none(shared: LocalCluster) -> None:
    create(shared, "some")
    shared.run("svc", "create", "--name", "all", "--mode", "global", "--detach", "--", "sleep", "600", node="m")
    done = shared.attempt("svc", "scale", "some=3", "all=2", node="m")
    assert done.returncode == 2 and "global" in done.stderr
    assert shared.json("svc", "inspect", "some", node="m")[0]["service"]["spec"]["mode"]["replicas"] == 1
    shared.run("svc", "rm", "some", "all", node="m")


# --- JSON and ids --------------------------------------------------------------------------------------------------------
def test_what_changes_objects_prints_them_as_json_or_their_ids(shared: LocalCluster) -> None:
    create(shared, "shown")
    id = shared.run("svc", "ls", "-q", node="m").strip()
    scaled = shared.json("svc", "scale", "shown=2", node="m")
    assert [(service["id"], service["spec"]["mode"]["replicas"]) for service in scaled] == [(id, 2)]
    assert shared.json("svc", "update", "shown", "--label-add", "a=b", node="m")["id"] == id
    assert shared.json("svc", "rollback", "shown", node="m")["id"] == id
    for verb, availability in (("pause", "pause"), ("drain", "drain"), ("activate", "active")):
        views = shared.json("node", verb, "w", node="m")
        assert [view["node"]["spec"]["availability"] for view in views] == [availability]
    node = shared.run("node", "pause", "w", "-q", node="m").strip()
    assert shared.json("node", "activate", "w", "-q", node="m") == [node]
    assert shared.json("node", "update", "w", "--label-add", "x=y", node="m")["node"]["spec"]["labels"] == {"x": "y"}
    assert shared.run("node", "update", "w", "--label-rm", "x", "-q", node="m").strip() == node
    assert shared.json("svc", "ls", "-q", node="m") == [id]
    assert shared.run("status", "-q", node="w").strip() == node
    assert [service["id"] for service in shared.json("svc", "rm", "shown", node="m")] == [id]


def test_log_lines_are_json_lines(shared: LocalCluster) -> None:
    shared.run(
        "svc", "create", "--name", "talk", "--restart-condition", "none", "--mode", "replicated-job",
        "--", "sh", "-c", "echo one; echo two >&2", node="m",
    )  # fmt: skip
    lines = shared.run("svc", "logs", "talk", "--format", "json", node="m").splitlines()
    assert sorted(json.loads(line)["line"]["data"] for line in lines) == ["one", "two"]
    shared.run("svc", "rm", "talk", node="m")


# --- where output goes ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("words", ["node ls", "svc ls --format json", "--help", "node ls -q"])
def test_a_full_disk_under_the_output_is_an_error_of_one_line(shared: LocalCluster, words: str) -> None:
    codes, told = piped(shared, words, "> /dev/full")
    assert codes == [CODE_OUTPUT_LOST]
    assert told == "error: the output could not be written: No space left on device"


@pytest.mark.parametrize("words", ["node ls", "node inspect self m w --format json", "svc why quiet"])
def test_a_reader_that_has_had_enough_is_no_failure(shared: LocalCluster, words: str) -> None:
    create(shared, "quiet")
    codes, told = piped(shared, words, "| true")
    assert (codes, told) == ([0, 0], "")
    shared.run("svc", "rm", "quiet", node="m")


def test_a_command_goes_on_waiting_when_nobody_reads_what_it_says(shared: LocalCluster) -> None:
    codes, told = piped(shared, "svc create --name unread -- sleep 600", "2>&1 | true")
    assert (codes, told) == ([0, 0], "")
    assert [view["running"] for view in shared.json("svc", "ls", node="m")] == [1]
    codes, _ = piped(
        shared, "svc create --name never --constraint node.labels.no==1 --timeout 1s -- true", "2>&1 | true"
    )
    assert codes == [3, 0]
    shared.run("svc", "rm", "unread", "never", node="m")


# --- words ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments", [["svc", "ls"], ["node", "ls", "--stale"], ["token", "worker"], ["svc", "why", "x"]]
)
def test_a_worker_says_that_managers_answer(shared: LocalCluster, arguments: list[str]) -> None:
    done = shared.attempt(*arguments, node="w")
    assert done.returncode == 4
    assert "this node is a worker" in done.stderr and "control." not in done.stderr


def test_a_manager_that_starts_says_so_in_words(tmp_path: Path) -> None:
    with local_cluster() as cluster:
        cluster.start("m")
        told = cluster.log("m")
        assert "dispatcher.open_session is" not in told


@pytest.mark.parametrize("where", ["/proc/no-state", "file", "file/below"])
def test_an_unusable_state_directory_is_the_same_error_detached_or_not(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("not a directory")
    directory = str(tmp_path / where)
    with local_cluster() as cluster:
        found = [cluster.attempt("up", "--state-dir", directory, *end) for end in ([], ["--detach"])]
    assert [done.returncode for done in found] == [1, 1]
    assert found[0].stderr == found[1].stderr
    assert directory in found[0].stderr or str(tmp_path / "file") in found[0].stderr


def test_a_manager_that_cannot_be_reached_is_exit_code_4_detached_or_not(shared: LocalCluster, tmp_path: Path) -> None:
    token = shared.run("token", "worker", "-q", node="m").strip()
    for end in ([], ["--detach"]):
        done = shared.attempt(
            "join", "127.0.0.1:1", "--state-dir", str(tmp_path / "n"), *end, env={"SWARM_TOKEN": token}
        )
        assert (done.returncode, "127.0.0.1:1" in done.stderr) == (4, True), done.stderr


def test_the_printed_join_command_works_and_a_typed_token_gets_a_warning(shared: LocalCluster) -> None:
    shown = shared.run("token", "worker", node="m")
    line = next(line.strip() for line in shown.splitlines() if "swarm join" in line)
    assert line.startswith("SWARM_TOKEN=SWARM-1-") and "--token" not in line
    token, address = line.partition("=")[2].split()[0], line.split()[-1]
    done = shared.attempt(
        "join", address, "--token", token[:-4], "--state-dir", str(shared.directory / "x"), "--detach"
    )
    assert done.returncode == 1
    assert "process list" in done.stderr and "SWARM_TOKEN" in done.stderr and token[:-4] not in done.stderr


# --- Ctrl-C --------------------------------------------------------------------------------------------------------------
def interrupted(cluster: LocalCluster, *arguments: str, after: str) -> tuple[int, str]:
    """Exit code and the rest of stderr of a command that gets SIGINT once it has printed `after`."""
    with subprocess.Popen(
        cluster.command(*arguments),
        env={"SWARM_SOCKET": cluster.socket("m")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if after in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    return process.returncode, rest


def test_ending_a_follow_is_no_error_and_ending_a_wait_tells_how_to_go_on(shared: LocalCluster) -> None:
    shared.run("svc", "create", "--name", "said", "--", "sh", "-c", "echo hello; sleep 600", node="m")
    assert interrupted(shared, "svc", "logs", "said", "--follow", after="hello") == (130, "")
    never = ["svc", "create", "--name", "never", "--constraint", "node.labels.no==1", "--", "true"]
    code, told = interrupted(shared, *never, after="no suitable node")
    assert (code, told) == (
        3,
        "no longer waiting: the change of never goes on; swarm svc ps never shows how far it is\n",
    )
    shared.run("svc", "rm", "said", "never", node="m")
