"""Services as their users meet them: real daemons, real processes, everything through the command line and its exit codes."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from swarm.ports.clock import pause, wall_seconds
from swarm.ports.free_ports import free_port
from swarm.testing.daemons import LocalCluster, alive, local_cluster, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

Done = CompletedProcess[str]
QUICK = ("--restart-delay", "0s")
PATIENCE = "60s"
"""What a command that is to converge gets: no measure of speed, an end for one that hangs. A busy machine needs some."""
WATCHED = ("--update-monitor", "300ms", "--rollback-monitor", "300ms")


class Services:
    """The command line of one manager."""

    def __init__(self, cluster: LocalCluster, node: str = "m") -> None:
        self.cluster = cluster
        self.node = node

    def attempt(self, *arguments: str) -> Done:
        """Run `swarm ARGUMENTS`, whatever comes of it."""
        return self.cluster.attempt(*arguments, node=self.node)

    def run(self, *arguments: str) -> str:
        """What `swarm ARGUMENTS` printed."""
        return self.cluster.run(*arguments, node=self.node)

    def json(self, *arguments: str) -> Any:
        """What `swarm ARGUMENTS` printed as JSON."""
        return self.cluster.json(*arguments, node=self.node)

    def create(
        self, name: str, *flags: str, command: tuple[str, ...] = ("sleep", "600"), timeout: str = PATIENCE
    ) -> Done:
        """Declare a service and wait for it."""
        return self.attempt("svc", "create", "--name", name, *QUICK, *flags, "--timeout", timeout, "--", *command)

    def update(self, name: str, *flags: str, command: tuple[str, ...] = (), timeout: str = PATIENCE) -> Done:
        """Change a service and wait for it."""
        return self.attempt("svc", "update", name, *flags, "--timeout", timeout, *(("--", *command) if command else ()))

    def tasks(self, name: str, all: bool = False) -> list[Any]:
        """Its running tasks, or all that are recorded."""
        views = self.json("svc", "ps", name, *(() if all else ("--running",)))
        return [view for view in views if all or view["task"]["status"]["state"] == "running"]

    def places(self, name: str) -> Counter[str]:
        """How many of its tasks run on each node."""
        return Counter(view["node_name"] for view in self.tasks(name))

    def service(self, name: str) -> Any:
        """The service object."""
        return self.json("svc", "inspect", name)[0]["service"]

    def ids(self, name: str) -> set[str]:
        """The ids of its running tasks."""
        return {view["task"]["id"] for view in self.tasks(name)}

    def node_states(self) -> dict[str, str]:
        """Node names to states."""
        return {
            view["node"]["description"]["hostname"]: view["node"]["status"]["state"]
            for view in self.json("node", "ls")
        }  # fmt: skip

    @contextmanager
    def removed_after(self, *names: str) -> Iterator[None]:
        """Remove the services when the test is over, however it went."""
        try:
            yield
        finally:
            for name in names:
                self.attempt("svc", "rm", name, "--detach")


@pytest.fixture(scope="module")
def swarm() -> Iterator[Services]:
    """A manager and two workers, in zones a and b; the first worker has two graphics cards."""
    with local_cluster() as cluster:
        cluster.start("m")
        cluster.start("w1", "worker", "--label", "zone=a", "--generic-resource", "gpu=one,gpu=two")
        cluster.start("w2", "worker", "--label", "zone=b")
        yield Services(cluster)


def converged(done: Done) -> None:
    """The command waited until all was as declared."""
    assert done.returncode == 0, done.stderr
    assert "converged" in done.stderr


# --- modes -----------------------------------------------------------------------------------------------------------
def test_a_global_service_follows_the_nodes(swarm: Services) -> None:
    with swarm.removed_after("everywhere"):
        converged(swarm.create("everywhere", "--mode", "global"))
        assert swarm.places("everywhere") == {"m": 1, "w1": 1, "w2": 1}
        swarm.run("node", "drain", "w2", "--timeout", PATIENCE)
        assert swarm.places("everywhere") == {"m": 1, "w1": 1}
        swarm.cluster.start("w3")
        wait_until(lambda: swarm.places("everywhere") == {"m": 1, "w1": 1, "w3": 1}, "the new node has one")
        swarm.run("node", "activate", "w2")
        wait_until(lambda: sum(swarm.places("everywhere").values()) == 4, "the node that is back has one")
        swarm.cluster.run("leave", node="w3")
        wait_until(lambda: "w3" not in swarm.node_states() and len(swarm.tasks("everywhere")) == 3, "it has left")


def test_a_replicated_job_runs_to_completion(swarm: Services) -> None:
    with swarm.removed_after("batch"):
        done = swarm.create("batch", "--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2",
                            command=("sleep", "0.2"))  # fmt: skip
        converged(done)
        assert "5/5" in done.stderr
        states = Counter(view["task"]["status"]["state"] for view in swarm.tasks("batch", all=True))
        assert states == {"complete": 5}
        assert "(5/5 completed)" in swarm.run("svc", "ls")
        converged(swarm.update("batch", "--force"))
        assert swarm.service("batch")["job_iteration"] == 1
        assert "batch.0 " in swarm.run("svc", "ps", "batch"), "slots of a job are numbered from 0"
        converged(swarm.attempt("svc", "rollback", "batch", "--timeout", PATIENCE))
        assert (swarm.service("batch")["job_iteration"], swarm.service("batch")["update_status"]) == (2, None)


def test_a_job_whose_tasks_fail_for_good_fails_with_the_last_error(swarm: Services) -> None:
    with swarm.removed_after("doomed", "doomed-everywhere"):
        never = ("--restart-condition", "none")
        done = swarm.create(
            "doomed", "--mode", "replicated-job", "--replicas", "2", *never, command=("sh", "-c", "exit 7")
        )
        assert done.returncode == 1, done.stderr
        assert "doomed failed" in done.stderr and "7" in done.stderr
        done = swarm.create("doomed-everywhere", "--mode", "global-job", *never, command=("sh", "-c", "exit 8"))
        assert done.returncode == 1, done.stderr
        assert "8" in done.stderr


def test_a_global_job_runs_once_on_every_node(swarm: Services) -> None:
    with swarm.removed_after("once"):
        converged(swarm.create("once", "--mode", "global-job", command=("true",)))
        tasks = swarm.tasks("once", all=True)
        assert sorted(view["node_name"] for view in tasks) == ["m", "w1", "w2"]
        assert {view["task"]["status"]["state"] for view in tasks} == {"complete"}


# --- updates ---------------------------------------------------------------------------------------------------------
class Watcher:
    """Counts a service's running tasks in the background, by way of its processes.

    A look takes a while, in which tasks come and go, so that two looks in a row are laid upon each other: what both have
    seen ran at one moment between them, and what was there all the time is in one of them.
    """

    def __init__(self, swarm: Services, name: str) -> None:
        self._swarm, self._name = swarm, name
        self.at_once: list[int] = []
        """At least so many ran at one moment."""
        self.at_all: list[int] = []
        """No more ran at any moment."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        before = set(marked(self._name))
        while not self._over.is_set():
            now = set(marked(self._name))
            self.at_once.append(len(before & now))
            self.at_all.append(len(before | now))
            before = now
            pause(0.01)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def marked(name: str) -> list[int]:
    """Processes that run `sleep` with MARK=name in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or (entry / "comm").read_text() != "sleep\n":
                continue
            if f"\0MARK={name}\0".encode() in b"\0" + (entry / "environ").read_bytes() and alive(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("order", "least", "most"), [("stop-first", 2, 4), ("start-first", 4, 6)])
def test_a_rolling_update_keeps_to_its_order_and_parallelism(
    swarm: Services, order: str, least: int, most: int
) -> None:
    name = f"roll-{order}"
    with swarm.removed_after(name):
        flags = ("--replicas", "4", "--env", f"MARK={name}", *WATCHED)
        converged(swarm.create(name, *flags))
        before = swarm.ids(name)
        with Watcher(swarm, name) as watcher:
            converged(swarm.update(name, "--env-add", "B=1", "--update-order", order, "--update-parallelism", "2",
                                   "--update-delay", "300ms"))  # fmt: skip
        after = swarm.ids(name)
        assert len(after) == 4 and not before & after
        assert least <= min(watcher.at_all), watcher.at_all
        assert max(watcher.at_once) <= most, watcher.at_once
        assert swarm.service(name)["update_status"]["state"] == "completed"


def test_a_failing_update_pauses_with_exit_code_1_and_the_last_error(swarm: Services) -> None:
    with swarm.removed_after("pausing"):
        converged(swarm.create("pausing", "--replicas", "3", "--update-delay", "1s", "--update-monitor", "2s"))
        before = swarm.ids("pausing")
        done = swarm.update("pausing", command=("sh", "-c", "exit 9"))
        assert done.returncode == 1, done.stderr
        assert "paused" in done.stderr and "exited with code 9" in done.stderr.splitlines()[-1]
        assert len(before & swarm.ids("pausing")) == 2
        converged(swarm.attempt("svc", "rollback", "pausing", "--timeout", PATIENCE))
        assert len(swarm.ids("pausing")) == 3
        assert "sleep 600" in swarm.run("svc", "inspect", "pausing")


def test_a_failing_update_rolls_back_and_says_so(swarm: Services) -> None:
    with swarm.removed_after("returning"):
        converged(swarm.create("returning", "--replicas", "3", "--update-failure-action", "rollback", *WATCHED))
        done = swarm.update("returning", command=("sh", "-c", "exit 9"))
        assert done.returncode == 1, done.stderr
        assert "rolled back" in done.stderr and "exited with code 9" in done.stderr.splitlines()[-1]
        assert len(swarm.tasks("returning")) == 3
        assert "sleep 600" in swarm.run("svc", "inspect", "returning")
        assert swarm.service("returning")["update_status"]["state"] == "rollback_completed"


def test_a_failing_update_that_is_to_continue_goes_through_all(swarm: Services) -> None:
    with swarm.removed_after("stubborn"):
        flags = ("--replicas", "2", "--update-failure-action", "continue", "--restart-condition", "none", *WATCHED)
        converged(swarm.create("stubborn", *flags))
        done = swarm.update("stubborn", command=("sh", "-c", "exit 9"))
        assert done.returncode == 1, done.stderr
        assert "of 2 tasks ended" in done.stderr and "9" in done.stderr
        wait_until(lambda: not swarm.tasks("stubborn"), "both slots were tried")
        assert swarm.service("stubborn")["update_status"]["state"] == "completed"


def test_history_and_rollback_to_a_revision(swarm: Services) -> None:
    with swarm.removed_after("past"):
        converged(swarm.create("past", "--env", "V=1", *WATCHED))
        converged(swarm.update("past", "--env-add", "V=2"))
        converged(swarm.update("past", "--env-add", "V=3"))
        lines = swarm.run("svc", "history", "past").splitlines()
        assert [line.split()[0] for line in lines] == ["REVISION", "3", "2", "1"]
        assert "env" in lines[1] and "created" in lines[3] and " m " in lines[1]
        converged(swarm.attempt("svc", "rollback", "past", "--to", "1", "--timeout", PATIENCE))
        assert "V=1" in swarm.run("svc", "inspect", "past")
        converged(swarm.attempt("svc", "rollback", "past", "--timeout", PATIENCE))
        assert "V=3" in swarm.run("svc", "inspect", "past")
        missing = swarm.attempt("svc", "rollback", "past", "--to", "77")
        assert missing.returncode == 1 and "not kept" in missing.stderr
        assert "revision 1" in swarm.run("svc", "history", "past")


def test_force_replaces_all_and_an_unchanged_spec_nothing(swarm: Services) -> None:
    with swarm.removed_after("again"):
        converged(swarm.create("again", "--replicas", "2", *WATCHED))
        before = swarm.ids("again")
        converged(swarm.update("again", "--label-add", "a=b"))
        assert swarm.ids("again") == before
        converged(swarm.update("again", "--force"))
        assert not swarm.ids("again") & before


def test_an_update_interrupts_the_one_before(swarm: Services) -> None:
    with swarm.removed_after("hasty"):
        converged(swarm.create("hasty", "--replicas", "4", "--env", "V=1", *WATCHED))
        swarm.run("svc", "update", "hasty", "--env-add", "V=2", "--update-delay", "60s", "--detach")
        wait_until(lambda: any(view["task"]["revision"] == 2 for view in swarm.tasks("hasty")), "the first began")
        done = swarm.update("hasty", "--env-add", "V=3", "--update-delay", "0s")
        converged(done)
        assert {view["task"]["revision"] for view in swarm.tasks("hasty")} == {3}


# --- restarts --------------------------------------------------------------------------------------------------------
def test_restart_conditions_and_attempts(swarm: Services) -> None:
    with swarm.removed_after("never", "on-failure", "thrice"):
        assert swarm.create("never", "--restart-condition", "none", command=("false",)).returncode == 1
        assert len(swarm.tasks("never", all=True)) == 1
        done = swarm.create("on-failure", "--restart-condition", "on-failure", command=("true",))
        converged(done)  # it ended well, and is not restarted: all that was wanted was done
        assert len(swarm.tasks("on-failure", all=True)) == 1
        done = swarm.create("thrice", "--restart-max-attempts", "2", command=("sh", "-c", "exit 5"))
        assert done.returncode == 1 and "5" in done.stderr, done.stderr
        assert len(swarm.tasks("thrice", all=True)) == 3
        assert "thrice.1" in swarm.run("svc", "why", "thrice")


def test_attempts_are_counted_within_the_window(swarm: Services) -> None:
    with swarm.removed_after("windowed"):
        flags = ("--restart-max-attempts", "1", "--restart-window", "300ms", "--detach")
        swarm.create("windowed", *flags, command=("sh", "-c", "sleep 0.5; exit 1"))
        wait_until(lambda: len(swarm.tasks("windowed", all=True)) >= 4, "slow failures are restarted for ever")


# --- placement -------------------------------------------------------------------------------------------------------
def test_spread_constraints_and_a_changed_label(swarm: Services) -> None:
    with swarm.removed_after("spread", "pinned"):
        zoned = ("--constraint", "node.role==worker", "--placement-pref", "spread=node.labels.zone")
        converged(swarm.create("spread", "--replicas", "4", *zoned))
        assert swarm.places("spread") == {"w1": 2, "w2": 2}
        converged(swarm.create("pinned", "--constraint", "node.labels.zone==a"))
        assert swarm.places("pinned") == {"w1": 1}
        swarm.run("node", "update", "w2", "--label-add", "zone=a")
        swarm.run("node", "update", "w1", "--label-add", "zone=c")
        wait_until(lambda: swarm.places("pinned") == {"w2": 1}, "it follows the label")
        assert "no longer" in swarm.run("svc", "why", "pinned") or "constraint" in swarm.run("svc", "why", "pinned")
        swarm.run("node", "update", "w1", "--label-add", "zone=a")
        swarm.run("node", "update", "w2", "--label-add", "zone=b")


def test_what_does_not_fit_waits_with_exit_code_3_and_says_why(swarm: Services) -> None:
    with swarm.removed_after("crowd", "huge"):
        done = swarm.create("crowd", "--replicas", "4", "--replicas-max-per-node", "1", timeout="1500ms")
        assert done.returncode == 3
        wait_until(lambda: swarm.places("crowd") == {"m": 1, "w1": 1, "w2": 1}, "those that fit run")
        why = swarm.run("svc", "why", "crowd")
        assert why.count("running on") == 3 and "max" in why and "to place it:" in why
        done = swarm.create("huge", "--reserve-memory", "900g", timeout="1500ms")
        assert done.returncode == 3
        assert "not enough memory on 3 nodes" in done.stderr
        why = swarm.run("svc", "why", "huge")
        assert "memory" in why and "w1:" in why and "w2:" in why and "to place it:" in why


def test_generic_resources_are_given_out_and_named_in_the_environment(swarm: Services) -> None:
    with swarm.removed_after("cards", "third"):
        converged(swarm.create("cards", "--replicas", "2", "--generic-resource", "gpu=1"))
        assert swarm.places("cards") == {"w1": 2}
        given = set()
        for view in swarm.tasks("cards"):
            environment = Path(f"/proc/{view['task']['status']['pid']}/environ").read_text().split("\0")
            given |= {entry for entry in environment if "GPU" in entry.upper() and "=" in entry}
        assert sorted(entry.partition("=")[2] for entry in given) == ["one", "two"]
        done = swarm.create("third", "--generic-resource", "gpu=1", timeout="1500ms")
        assert done.returncode == 3 and "gpu" in done.stderr
        swarm.run("svc", "scale", "cards=1", "--timeout", PATIENCE)
        wait_until(lambda: swarm.places("third") == {"w1": 1}, "the freed card is taken")


def test_a_host_port_is_held_by_one_task_of_a_node(swarm: Services) -> None:
    port = str(free_port())
    with swarm.removed_after("door"):
        done = swarm.create("door", "--replicas", "4", "--publish", f"{port}:{port}", timeout="1500ms")
        assert done.returncode == 3
        wait_until(lambda: swarm.places("door") == {"m": 1, "w1": 1, "w2": 1}, "those that have a port run")
        assert port in swarm.run("svc", "why", "door")


# --- the flags -------------------------------------------------------------------------------------------------------
def test_every_policy_is_set_and_changed_by_its_flag(swarm: Services, tmp_path: Path) -> None:
    port, other, ended = str(free_port()), str(free_port()), tmp_path / "ended"
    policy = {
        "--update-parallelism": "2", "--update-delay": "10ms", "--update-failure-action": "rollback",
        "--update-order": "stop-first", "--update-monitor": "200ms", "--update-max-failure-ratio": "0.5",
        "--rollback-parallelism": "0", "--rollback-delay": "0s", "--rollback-failure-action": "continue",
        "--rollback-order": "stop-first", "--rollback-monitor": "100ms", "--rollback-max-failure-ratio": "1",
        "--restart-condition": "on-failure", "--restart-delay": "100ms", "--restart-max-attempts": "3",
        "--restart-window": "1m", "--replace-after": "30s", "--constraint": "node.labels.zone == a",
        "--placement-pref": "spread=node.labels.zone", "--replicas-max-per-node": "2", "--generic-resource": "gpu=1",
        "--reserve-cpu": "0.1", "--reserve-memory": "16m", "--limit-pids": "50", "--stop-signal": "USR1",
        "--stop-grace-period": "5s", "--env": "MARK=flagged", "--label": "tier=front",
        "--publish": f"published={port},target={port},protocol=tcp,mode=host",
    }  # fmt: skip
    trap = ("sh", "-c", f"trap 'echo USR1 >> {ended}; exit 0' USR1; while :; do sleep 0.05; done")
    with swarm.removed_after("flagged"):
        typed = [part for flag in policy.items() for part in flag]
        converged(swarm.attempt("svc", "create", "--name", "flagged", *typed, "--timeout", PATIENCE, "--", *trap))
        shown = swarm.run("svc", "inspect", "flagged")
        for words in ("2 at a time, stop-first, 0.01 s apart, watched for 0.2 s, rollback on failure of more than 50%",
                      "all at a time", "on-failure, after 0.1 s, at most 3 times within 60 s", "30 s after", "gpu=1",
                      "node.labels.zone == a", "at most 50", "USR1, grace 5 s", f"{port}:{port}/tcp"):  # fmt: skip
            assert words in shown, shown
        done = swarm.update(
            "flagged", "--constraint-rm", "node.labels.zone==a", "--constraint-add", "node.labels.zone==b",
            "--placement-pref-rm", "spread=node.labels.zone", "--placement-pref-add", "spread=node.labels.rack",
            "--env-rm", "MARK", "--env-add", "V=2", "--label-rm", "tier", "--label-add", "x=y", "--publish-rm", port,
            "--publish-add", f"{other}:{other}", "--generic-resource-rm", "gpu", "--replace-after", "default",
            "--replicas-max-per-node", "0", "--limit-pids", "0",
        )  # fmt: skip
        converged(done)
        assert ended.read_text() == "USR1\n", "the old task was stopped by its own signal"
        assert swarm.places("flagged") == {"w2": 1}
        spec = swarm.service("flagged")["spec"]
        assert (spec["labels"], spec["replace_after_s"]) == ({"x": "y"}, None)
        assert [one["published"] for one in spec["ports"]] == [int(other)]
        assert spec["task"]["placement"]["preferences"] == ["node.labels.rack"]
        (task,) = swarm.tasks("flagged")
        environment = Path(f"/proc/{task['task']['status']['pid']}/environ").read_text().split("\0")
        assert "V=2" in environment and "MARK=flagged" not in environment
        before = swarm.service("flagged")
        refused = swarm.attempt("svc", "update", "flagged", "--env-rm", "MARK")
        assert refused.returncode == 2 and "there is no such entry" in refused.stderr
        assert swarm.service("flagged") == before


def test_an_update_within_its_failure_ratio_goes_through(swarm: Services, tmp_path: Path) -> None:
    """One of four new tasks fails: a quarter is not more than a quarter."""
    once = tmp_path / "once"
    command = ("sh", "-c", f"mkdir {once} 2>/dev/null && exit 7; exec sleep 600")
    with swarm.removed_after("tolerant"):
        flags = ("--replicas", "4", "--update-max-failure-ratio", "0.25", *WATCHED)
        converged(swarm.create("tolerant", *flags))
        converged(swarm.update("tolerant", command=command))
        assert len(swarm.tasks("tolerant")) == 4
        once.rmdir()
        strict = swarm.update("tolerant", "--force", "--update-max-failure-ratio", "0.2")
        assert strict.returncode == 1 and "exited with code 7" in strict.stderr, strict.stderr


# --- looking before and after ----------------------------------------------------------------------------------------
def test_a_plan_shows_and_changes_nothing(swarm: Services) -> None:
    with swarm.removed_after("planned"):
        done = swarm.create("planned", "--replicas", "2", "--plan")
        assert done.returncode == 0 and done.stdout.count("start") == 2, done.stdout
        assert swarm.attempt("svc", "inspect", "planned").returncode == 1
        converged(swarm.create("planned", "--replicas", "2"))
        before = swarm.service("planned")
        shown = swarm.update("planned", "--replicas", "3", "--plan").stdout
        assert shown.count("start") == 1 and "stop" not in shown.replace("stop-first", ""), shown
        assert "stop" in swarm.update("planned", "--replicas", "1", "--plan").stdout
        assert "nothing would change" in swarm.update("planned", "--label-add", "x=y", "--plan").stdout
        assert swarm.service("planned") == before
        why = swarm.run("svc", "why", "planned")
        assert why.count("running on") == 2
        many = swarm.create("many", "--replicas", "20000", "--plan")
        assert many.returncode == 0 and many.stdout.count("start") == 10_000 and "10000 more to start" in many.stderr
        refused = swarm.create("many", "--replicas", "100000000", "--plan")
        assert refused.returncode == 1 and "at most 1000000" in refused.stderr
        assert swarm.attempt("svc", "inspect", "many").returncode == 1


# --- nodes that go and come ------------------------------------------------------------------------------------------
def test_a_drain_starts_the_replacement_of_a_single_replica_first(swarm: Services) -> None:
    with swarm.removed_after("single"):
        converged(swarm.create("single", "--env", "MARK=single"))
        (place,) = swarm.places("single")
        with Watcher(swarm, "single") as watcher:
            swarm.run("node", "drain", place, "--timeout", PATIENCE)
        assert min(watcher.at_all) >= 1, watcher.at_all
        assert place not in swarm.places("single")
        assert "drain" in swarm.run("svc", "why", "single")
        swarm.run("node", "activate", place)


def test_a_lost_node_is_shown_at_once_replaced_later_and_cleaned_when_it_returns(swarm: Services) -> None:
    with swarm.removed_after("lost", "loyal"):
        converged(swarm.create("lost", "--replicas", "3", "--replicas-max-per-node", "2", "--env", "MARK=lost",
                               "--replace-after", "2s"))  # fmt: skip
        converged(swarm.create("loyal", "--constraint", "node.labels.zone==b", "--replace-after", "1h"))
        (loyal,) = swarm.ids("loyal")
        gone = [view for view in swarm.tasks("lost") if view["node_name"] == "w2"]
        before, killed_at = swarm.ids("lost"), wall_seconds()
        assert gone
        swarm.cluster.kill("w2")
        wait_until(lambda: swarm.node_states()["w2"] in ("disconnected", "down"), "the loss is shown")
        wait_until(lambda: "w2" not in swarm.places("lost") and len(swarm.tasks("lost")) == 3, "replaced")
        assert len(marked("lost")) == 3 + len(gone), "the processes of a lost node go on"
        made = [view["task"]["created_at"] for view in swarm.tasks("lost") if view["task"]["id"] not in before]
        assert len(made) == len(gone) and min(made) - killed_at >= 2.0, "nothing is replaced before its time"
        swarm.cluster.start("w2")
        wait_until(lambda: swarm.node_states()["w2"] == "ready", "the node is back")
        wait_until(lambda: len(marked("lost")) == 3, "the surplus is stopped")
        assert swarm.ids("loyal") == {loyal}
        assert "w2" in swarm.places("loyal")


def test_a_node_that_returns_in_time_keeps_its_tasks(swarm: Services) -> None:
    with swarm.removed_after("patient"):
        converged(swarm.create("patient", "--replicas", "3", "--replace-after", "1m"))
        before = swarm.ids("patient")
        swarm.cluster.kill("w1")
        wait_until(lambda: swarm.node_states()["w1"] != "ready", "the loss is shown")
        swarm.cluster.start("w1")
        wait_until(lambda: swarm.node_states()["w1"] == "ready", "the node is back")
        assert swarm.ids("patient") == before


def test_a_task_that_is_killed_is_replaced_in_its_slot(swarm: Services) -> None:
    with swarm.removed_after("mortal"):
        converged(swarm.create("mortal", "--replicas", "2"))
        victim = swarm.tasks("mortal")[0]["task"]
        os.killpg(os.getpgid(victim["status"]["pid"]), signal.SIGKILL)
        wait_until(lambda: victim["id"] not in swarm.ids("mortal") and len(swarm.ids("mortal")) == 2, "replaced")
        assert sorted(view["task"]["slot"] for view in swarm.tasks("mortal")) == [1, 2]
        why = swarm.run("svc", "why", "mortal")
        assert "restart" in why or "replace" in why, why


# --- the cluster's settings ------------------------------------------------------------------------------------------
def test_the_settings_of_the_cluster_are_shown_and_changed(swarm: Services) -> None:
    before = swarm.json("cluster", "inspect")["settings"]
    assert (before["task_history_limit"], before["replace_after_s"]) == (5, None)
    flags = (
        "--task-history-limit",
        "1",
        "--replace-after",
        "30s",
        "--certificate-expiry",
        "24h",
        "--kept-entries",
        "9",
    )
    swarm.run("cluster", "update", *flags)
    after = swarm.json("cluster", "inspect")["settings"]
    assert (after["task_history_limit"], after["replace_after_s"], after["certificate_expiry_s"]) == (1, 30.0, 86400.0)
    assert after["raft"] == {**before["raft"], "kept_entries": 9}
    assert "Replace after" in swarm.run("cluster", "inspect")
    with swarm.removed_after("short-lived"):
        swarm.create("short-lived", "--detach", command=("sh", "-c", "sleep 0.1; exit 1"))
        wait_until(lambda: swarm.tasks("short-lived", all=True)[-1]["task"]["restarts"] >= 4, "it failed four times")
        wait_until(lambda: len(swarm.tasks("short-lived", all=True)) <= 3, "only one of them is kept")
    for flags, code, words in [
        ((), 2, "nothing to change"),
        (("--heartbeat-period", "soon"), 2, "--heartbeat-period"),
        (("--heartbeat-period", "0s"), 1, "heartbeat period is 0 s"),
        (("--task-history-limit", "-5"), 1, "task history limit is -5"),
    ]:
        refused = swarm.attempt("cluster", "update", *flags)
        assert (refused.returncode, words in refused.stderr) == (code, True), refused.stderr
    swarm.run("cluster", "update", "--task-history-limit", "5", "--replace-after", "default")
    assert swarm.json("cluster", "inspect")["settings"]["replace_after_s"] is None
