"""The pure parts under the process executor: records, status lines, signals, control groups."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.executors.process.record import parse_record
from swarm.ports import accounts, cgroups, processes
from swarm.ports.cgroups import Home, Limits, parse_homes
from swarm.ports.processes import ProcessId, parse_stat, signal_number

STAT = "4242 (a) b (c) S 1 4000 4001 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2"


def test_status_line_of_a_process_with_an_odd_name() -> None:
    found = parse_stat(STAT)
    assert (found.id, found.state, found.group, found.session) == (ProcessId(4242, 987654), "S", 4000, 4001)
    assert found.is_alive
    assert not parse_stat(STAT.replace(" S ", " Z ")).is_alive


@given(st.text(max_size=60))
def test_any_text_is_a_status_line_or_refused(text: str) -> None:
    try:
        parse_stat(text)
    except ValueError as refused:
        assert "not a process status line" in str(refused)


def test_record() -> None:
    assert not parse_record(b"").was_started
    record = parse_record(f"boot a\nboot b\nshell {STAT}\nchild {STAT}\nexit 3\n".encode())
    assert record.boot == "b"
    assert record.shell == record.child == ProcessId(4242, 987654)
    assert record.ending("b").code == 3
    assert record.runs_in("b") == ProcessId(4242, 987654)
    assert record.runs_in("a") is None


@given(st.integers(0, 200))
def test_torn_record_says_what_was_written_whole(cut: int) -> None:
    whole = f"boot a\nshell {STAT}\nchild {STAT}\nexit 3\n".encode()
    record = parse_record(whole[:cut])
    lines = whole[:cut].count(b"\n")
    assert (record.boot == "a") == (lines >= 1)
    assert record.was_started == (lines >= 2)
    assert (record.child is not None) == (lines >= 3)
    assert (record.exit_code == 3) == (lines >= 4)


def test_record_of_a_command_that_could_not_be_executed() -> None:
    assert "interpreter" in parse_record(b"failed 127\nexit 127\n").failure
    assert "permission" in parse_record(b"failed 126\n").failure
    assert parse_record(b"failed 126 Permission denied\n").failure == "Permission denied"


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), (" SIGUSR1 ", signal.SIGUSR1), ("RTMIN+3", signal.SIGRTMIN + 3)],
)
def test_signal_names(name: str, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize("name", ["", "0", "99", "SIGNOPE", "SIG", "RTMIN+999", "-9"])
def test_bad_signal_names(name: str) -> None:
    with pytest.raises(ValueError, match="unknown signal"):
        signal_number(name)


def test_accounts() -> None:
    root = accounts.find("root")
    assert (root.user_id, root.group_id, root.home) == (0, 0, "/root")
    assert accounts.find("0") == root
    assert accounts.find("54321:99").groups == (99,)
    for text in ("54321", "no-such-user", "root:no-such-group", ""):
        with pytest.raises(accounts.AccountError):
            accounts.find(text)


# --- control groups -----------------------------------------------------------------------------------------------------
HYBRID = """\
31 24 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:29 /outer /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
34 31 0:30 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
35 31 0:31 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw
"""


def test_homes_of_a_machine_with_both_versions() -> None:
    own = "5:name=systemd:/\n4:memory:/outer/inner\n1:cpu:/\n0::/mine\n"
    assert parse_homes(HYBRID, own) == (
        Home("/sys/fs/cgroup/uni fied/mine", 2, frozenset()),
        Home("/sys/fs/cgroup/cpu", 1, frozenset({"cpu"})),
        Home("/sys/fs/cgroup/memory/inner", 1, frozenset({"memory"})),
    )


def test_homes_of_a_machine_with_none() -> None:
    assert parse_homes("21 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "") == ()


def test_limits_that_no_group_can_hold_are_named() -> None:
    group = cgroups.create((), "task", Limits(nano_cpus=1, memory_bytes=1))
    assert group.directories == ()
    assert [text.partition(":")[0] for text in group.unenforced] == ["cpu", "memory"]


def test_no_limit_no_group(tmp_path: Path) -> None:
    assert cgroups.create((version2(tmp_path),), "task", Limits()) == cgroups.Group()


def version2(directory: Path) -> Home:
    """Files that stand for a delegated group of version 2, which not every test machine has."""
    (directory / "cgroup.subtree_control").touch()
    return Home(str(directory), 2, frozenset({"cpu", "memory", "pids"}))


def test_limits_of_version_2(tmp_path: Path) -> None:
    group = cgroups.create((version2(tmp_path),), "task", Limits(nano_cpus=1_500_000_000, memory_bytes=1 << 20, pids=7))
    directory = tmp_path / "swarm-tasks" / "task"
    assert group.unenforced == ()
    assert group.tracked == str(directory)
    assert (directory / "cpu.max").read_text() == "150000 100000"
    assert (directory / "memory.max").read_text() == "1048576"
    assert (directory / "pids.max").read_text() == "7"
    for parent in (tmp_path, tmp_path / "swarm-tasks"):
        assert (parent / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_smallest_cpu_limit_is_what_the_kernel_takes(tmp_path: Path) -> None:
    cgroups.create((version2(tmp_path),), "task", Limits(nano_cpus=1))
    assert (tmp_path / "swarm-tasks" / "task" / "cpu.max").read_text() == "1000 100000"


@pytest.mark.skipif(not cgroups.homes(), reason="no control group may be written to")
def test_members_of_a_group_are_found_killed_and_the_group_removed() -> None:
    import subprocess

    homes = tuple(home for home in cgroups.homes() if home.version == 2)
    if not homes:
        pytest.skip("no control group of version 2")
    group = cgroups.create(homes, "swarm-test-members", Limits(pids=100))
    script = f"echo 0 > {group.tracked}/cgroup.procs; exec sleep 100"
    child = subprocess.Popen(["sh", "-c", script])
    try:
        while child.pid not in cgroups.members(group):
            assert child.poll() is None
        assert not cgroups.remove(group)
        if not cgroups.kill(group):
            child.kill()
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
    assert cgroups.remove(group)
    assert cgroups.existing(homes, "swarm-test-members").directories == ()
    assert processes.stat(child.pid) is None
