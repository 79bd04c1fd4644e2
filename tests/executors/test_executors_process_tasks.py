"""What only processes have: sessions, users, limits, agents that are killed. Real processes, on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from swarm.executors.base import ExecutorError, Exit, LogOptions, Running, Stream, Workload
from swarm.executors.process import ProcessExecutor, shim
from swarm.executors.process.controller import ProcessController
from swarm.executors.process.record import parse_record
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.specs import (
    NO_RESOURCES,
    GenericResource,
    ProcessSpec,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    TaskSpec,
)
from swarm.ports import accounts, cgroups, processes
from swarm.ports.entropy import SystemEntropy

pytestmark = pytest.mark.integration
IDS = SystemEntropy()
LIBRARY_SIGNALS = 0b11 << 31
"""32 and 33 belong to the C library, which lets nobody change them."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may start tasks as other users")


def task(*command: str, limits: Resources = NO_RESOURCES, **spec: object) -> Workload:
    runtime = ProcessSpec(command, **spec)  # type: ignore[arg-type]
    service = ServiceSpec("web", TaskSpec(runtime, ResourceRequirements(limits)), labels={"tier": "front"})
    generic = (GenericResource("gpu", 2, ("a", "b")), GenericResource("slots", 3))
    ids = TaskId(IDS.new()), ServiceId(IDS.new()), RevisionNumber(1), Slot(2), NodeId(IDS.new())
    return Workload(*ids, "here", service, generic)


def shell(script: str, **spec: object) -> Workload:
    return task("sh", "-c", script, **spec)  # type: ignore[arg-type]


@pytest.fixture
def executor(tmp_path: Path) -> ProcessExecutor:
    return ProcessExecutor(str(tmp_path / "process"), env=os.environ)


@pytest.fixture
def groupless(tmp_path: Path) -> ProcessExecutor:
    """As on a machine where no control group may be written to."""
    return ProcessExecutor(str(tmp_path / "process"), env=os.environ, homes=())


@asynccontextmanager
async def started(executor: ProcessExecutor, workload: Workload) -> AsyncIterator[tuple[ProcessController, Running]]:
    controller = executor.controller(workload)
    with trio.fail_after(30):
        try:
            await controller.prepare()
            yield controller, await controller.start()
        finally:
            with trio.CancelScope(shield=True):
                await controller.remove()


async def output(executor: ProcessExecutor, workload: Workload, stream: Stream = Stream.STDOUT) -> list[str]:
    async with started(executor, workload) as (controller, _):
        await controller.wait()
        return [line.data.decode() async for line in controller.logs(LogOptions(streams=(stream,)))]


async def printed(controller: ProcessController, count: int) -> list[str]:
    lines: list[str] = []
    async for line in controller.logs(LogOptions(follow=True)):
        lines.append(line.data.decode())
        if len(lines) == count:
            break
    return lines


def alive(pid: int) -> bool:
    found = processes.stat(pid)
    return found is not None and found.is_alive


# --- what a command sees ------------------------------------------------------------------------------------------------
async def test_arguments_arrive_as_they_are(executor: ProcessExecutor) -> None:
    odd = ("two words", "", "$HOME `x` \"'", "*", "-n", "ünï", "line\nbreak")
    found = await output(executor, task(sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *odd))
    assert found == [ascii(list(odd))]


async def test_environment_is_the_tasks_own(executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_TOKEN", "secret")
    workload = task(
        "env",
        env=("A=1", "A=2", "a.b=dotted", "SWARM__LINE=x", "code=y", "EMPTY=", "MULTI=a\nb", "PS1=p", "LANG"),
    )
    found = await output(executor, workload)
    assert "SWARM_TOKEN" not in "".join(found)
    for line in (
        "A=2",
        "a.b=dotted",
        "code=y",
        "EMPTY=",
        "MULTI=a",
        "b",
        "PS1=p",
        f"SWARM_TASK_ID={workload.task_id}",
        "SWARM_TASK_SLOT=2",
        "SWARM_SERVICE_NAME=web",
        "SWARM_RESOURCE_GPU=a,b",
        "SWARM_RESOURCE_SLOTS=3",
    ):
        assert line in found
    assert any(line.startswith("PATH=/") for line in found)
    assert any(line.startswith("HOME=/") for line in found)
    assert not any(line.startswith("LANG=") for line in found)


async def test_command_inherits_nothing_else(executor: ProcessExecutor) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        found = await output(executor, shell("ls /proc/self/fd | wc -l; cat"))
    finally:
        os.close(read)
        os.close(write)
    assert found == ["4"]  # 0, 1, 2 and the directory that ls reads; stdin is empty


async def test_signals_are_as_at_a_fresh_start(executor: ProcessExecutor) -> None:
    for line in await output(executor, task("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")):
        assert int(line.split()[1], 16) & ~LIBRARY_SIGNALS == 0, line


async def test_directory(executor: ProcessExecutor, tmp_path: Path) -> None:
    assert await output(executor, task("pwd", dir=str(tmp_path))) == [str(tmp_path)]
    workload = task("sh", "-c", "pwd; touch kept; ls")
    assert await output(executor, workload) == [f"{tmp_path}/process/{workload.task_id}/work", "kept"]


async def test_placeholders(executor: ProcessExecutor) -> None:
    workload = task("sh", "-c", "echo {{.Service.Name}}-{{.Task.Slot}} $TIER", env=("TIER={{.Service.Labels.tier}}",))
    assert await output(executor, workload) == ["web-2 front"]


# --- what cannot run ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (task("no-such-program"), ["'no-such-program'", "not found", "PATH="]),
        (task("/no/such/program"), ["/no/such/program", "does not exist"]),
        (task("/etc"), ["/etc", "is a directory"]),
        (task("true", dir="/no/such/dir"), ["/no/such/dir", "does not exist"]),
        (task("true", dir="relative"), ["'relative'", "absolute"]),
        (task("true", user="nobody-at-all"), ["'nobody-at-all'", "does not exist"]),
        (task("true", user=":x"), ["names no user"]),
        (task("true", env=("=x",)), ["'=x'", "NAME=value"]),
        (task("true", "a\0b"), ["NUL"]),
    ],
)
async def test_what_cannot_run_is_refused_before_the_start(
    executor: ProcessExecutor, workload: Workload, words: list[str]
) -> None:
    controller = executor.controller(workload)
    with pytest.raises(ExecutorError) as refused:
        await controller.prepare()
    await controller.remove()
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("workload", [task(), task(""), task("x", stop_signal="SIGNOPE"), task("x", "{{.Nope}}")])
def test_bad_specs_get_no_controller(executor: ProcessExecutor, workload: Workload) -> None:
    with pytest.raises(ExecutorError):
        executor.controller(workload)


async def test_not_executable(executor: ProcessExecutor, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("hello")
    with pytest.raises(ExecutorError, match="permission denied"):
        await output(executor, task(str(plain)))


async def test_missing_interpreter_fails_the_start_in_words(executor: ProcessExecutor, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    workload = task(str(script))
    controller = executor.controller(workload)
    await controller.prepare()
    for _ in range(2):
        with pytest.raises(ExecutorError, match="interpreter"):
            await controller.start()
    with pytest.raises(ExecutorError, match="interpreter"):
        await executor.controller(workload).wait()
    assert (await controller.shutdown()).code == 127
    await controller.remove()


@pytest.mark.parametrize("shell_name", ["dash", "bash", "busybox"])
async def test_every_shell_that_may_be_sh(
    shell_name: str, executor: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shutil.which(shell_name)
    if found is None:
        pytest.skip(f"no {shell_name} on this machine")
    (tmp_path / "sh").symlink_to(found)
    monkeypatch.setattr(shim, "SHELL", str(tmp_path / "sh"))
    variables = {"A=1 '\"$", "a.b=2", "SWARM__LINE=x"}
    assert variables <= set(await output(executor, task("env", env=tuple(variables))))
    async with started(executor, shell("ls /proc/self/fd | wc -l; exit 7")) as (controller, _):
        assert (await controller.wait()).code == 7
        assert [line.data async for line in controller.logs(LogOptions())] == [b"4"]
    async with started(executor, task("sleep", "60", stop_signal="SIGINT")) as (controller, _):
        assert (await controller.shutdown()).code == 128 + signal.SIGINT
    async with started(executor, task("sleep", "60")) as (controller, _):
        await controller.terminate()
        assert (await controller.wait()).code == 137
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    if shell_name == "bash":  # it cannot tell a failed exec from a command that ends with 127
        async with started(executor, task(str(script))) as (controller, _):
            assert await controller.wait() == Exit(127, "a command was not found")
        return
    with pytest.raises(ExecutorError, match="interpreter"):
        await output(executor, task(str(script)))


async def test_program_that_vanished_does_not_hinder_adoption(executor: ProcessExecutor, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho up; sleep 0.3; exit 6\n")
    program.chmod(0o755)
    workload = task(str(program))
    async with started(executor, workload) as (controller, running):
        await printed(controller, 1)
        program.unlink()
        adopted = executor.controller(workload)
        await adopted.prepare()
        assert (await adopted.start()).pid == running.pid
        assert (await adopted.wait()).code == 6


# --- signals ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["SIGINT", "hup", "SIGQUIT", "SIGUSR1", "RTMIN+3", "15"])
async def test_stop_signal(executor: ProcessExecutor, name: str) -> None:
    number = processes.signal_number(name)
    code = f"""
import signal, sys, time
signal.signal({number}, lambda *_: sys.exit(42))
print("up", flush=True)
time.sleep(60)"""
    async with started(executor, task(sys.executable, "-c", code, stop_signal=name)) as (controller, _):
        await printed(controller, 1)
        assert (await controller.shutdown()).code == 42


async def test_default_action_of_the_stop_signal(executor: ProcessExecutor) -> None:
    async with started(executor, task("sleep", "60")) as (controller, running):
        assert (await controller.shutdown()).code == 128 + signal.SIGTERM
        assert not alive(running.pid)


FAMILY = "setsid sleep 1001 & sleep 1002 & (setsid sh -c 'sleep 1003 & echo $!; wait' &) ; echo $!; sleep 1004"


@pytest.mark.parametrize("ends", ["shutdown", "terminate", "remove", "by itself"])
@pytest.mark.parametrize("kind", ["grouped", "groupless"])
async def test_nobody_of_the_family_survives(kind: str, ends: str, executor: ProcessExecutor) -> None:
    script = FAMILY if ends != "by itself" else FAMILY.replace("sleep 1004", "exit 3")
    limits = Resources(memory_bytes=1 << 30) if kind == "grouped" else NO_RESOURCES
    workload = shell(script, stop_grace_s=5, limits=limits)
    async with started(executor, workload) as (controller, _):
        pids = [int(text) for text in await printed(controller, 2)]
        if ends == "by itself":
            assert (await controller.wait()).code == 3
        else:
            assert all(alive(pid) for pid in pids)
            await getattr(controller, ends)()
        marker = f"SWARM_TASK_ID={workload.task_id}".encode()
        assert [found for found in processes.all_processes() if marker in processes.environment(found.id.pid)] == []
        assert not any(alive(pid) for pid in pids)


async def test_stopped_process_is_killed_too(executor: ProcessExecutor) -> None:
    async with started(executor, task("sleep", "1000", stop_grace_s=0.1)) as (controller, running):
        os.kill(running.pid, signal.SIGSTOP)
        assert (await controller.shutdown()).code in (137, 143)
        assert not alive(running.pid)


# --- agents that are killed ---------------------------------------------------------------------------------------------------
AGENT = """
import os, sys, trio
from swarm.executors.process import ProcessExecutor
from tests_support import workload
async def main():
    controller = ProcessExecutor(sys.argv[1], env=os.environ).controller(workload(sys.argv[2], sys.argv[3]))
    await controller.prepare()
    print((await controller.start()).pid, flush=True)
    await trio.sleep_forever()
trio.run(main)
"""
SUPPORT = """
from swarm.executors.base import Workload
from swarm.model.ids import *
from swarm.model.specs import ProcessSpec, ServiceSpec, TaskSpec
def workload(task_id, script):
    spec = ServiceSpec("web", TaskSpec(ProcessSpec(("sh", "-c", script))))
    return Workload(TaskId(task_id), ServiceId("s"), RevisionNumber(1), Slot(1), NodeId("n"), "here", spec)
"""


@pytest.mark.parametrize("when", ["while it runs", "and it ends while nobody looks"])
async def test_task_of_a_killed_agent(tmp_path: Path, when: str) -> None:
    (tmp_path / "tests_support.py").write_text(SUPPORT)
    script = "echo before; read x < gate; echo after; exit 11"
    workload = shell(script)
    directory = tmp_path / "process"
    executor = ProcessExecutor(str(directory), env=os.environ)
    gate = directory / workload.task_id / "work" / "gate"
    gate.parent.mkdir(parents=True)
    os.mkfifo(gate)
    env = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{tmp_path}"}
    agent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", AGENT, str(directory), workload.task_id, script], stdout=subprocess.PIPE, env=env
    )
    assert agent.stdout is not None
    pid = int(agent.stdout.readline())
    agent.kill()
    agent.wait()
    agent.stdout.close()
    assert alive(pid)

    def open_gate() -> None:
        gate.write_text("go\n")

    if "nobody" in when:
        command = processes.stat(pid)
        assert command is not None
        open_gate()
        await processes.ended(command.id)
    assert await executor.known_tasks() == {workload.task_id}
    async with started(executor, workload) as (controller, running):
        assert running.pid == pid
        if "nobody" not in when:
            open_gate()
        assert (await controller.wait()).code == 11
        assert [line.data async for line in controller.logs(LogOptions(follow=True))] == [b"before", b"after"]


async def test_shell_that_was_killed_takes_its_command_along(executor: ProcessExecutor, tmp_path: Path) -> None:
    workload = task("sleep", "1000")
    async with started(executor, workload) as (controller, running):
        record = parse_record((tmp_path / "process" / workload.task_id / "record").read_bytes())
        assert record.shell is not None
        os.kill(record.shell.pid, signal.SIGKILL)
        exit = await controller.wait()
        assert exit.code is None
        assert "killed" in exit.detail
        assert not alive(running.pid)


def forge(executor_dir: Path, workload: Workload, change: Callable[[str], str]) -> None:
    path = executor_dir / workload.task_id / "record"
    path.write_text(change(path.read_text()))


async def test_another_boot_means_that_it_ended(executor: ProcessExecutor, tmp_path: Path) -> None:
    workload = task("sleep", "1000")
    async with started(executor, workload) as (controller, running):
        path = tmp_path / "process" / workload.task_id / "record"
        text = path.read_text()
        path.write_text(text.replace(processes.boot_id(), "another-boot"))
        exit = await controller.wait()
        assert (exit.code, exit.detail) == (None, "the machine was restarted")
        await controller.shutdown()
        assert alive(running.pid), "a pid of another boot is somebody else's"
        path.write_text(text)


async def test_pid_that_somebody_else_has_now_is_left_alone(executor: ProcessExecutor, tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)  # noqa: ASYNC220
    try:
        found = processes.stat(stranger.pid)
        assert found is not None
        workload = task("sleep", "1000")
        directory = tmp_path / "process" / workload.task_id
        directory.mkdir(parents=True)
        fields = ["S", "1", str(stranger.pid), str(stranger.pid), *["0"] * 15, str(found.id.started - 1), "0"]
        line = f"{stranger.pid} (sh) {' '.join(fields)}"
        (directory / "record").write_text(f"boot {processes.boot_id()}\nshell {line}\nchild {line}\n")
        controller = executor.controller(workload)
        assert (await controller.shutdown()).code is None
        await controller.terminate()
        await controller.remove()
        assert alive(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()


# --- users --------------------------------------------------------------------------------------------------------------------
@needs_root
async def test_user(executor: ProcessExecutor, tmp_path: Path) -> None:
    nobody = accounts.find("nobody")
    code = (
        "import os; print(os.getresuid(), os.getresgid(), sorted(os.getgroups()), os.environ['HOME']); open('x', 'w')"
    )
    for text, group, groups in (("nobody", nobody.group_id, nobody.groups), ("4321:99", 99, (99,))):
        user = nobody.user_id if text == "nobody" else 4321
        home = nobody.home if text == "nobody" else "/"
        found = await output(executor, task("python3", "-c", code, user=text, env=("PATH=/usr/bin:/bin",)))
        assert found == [f"{(user,) * 3} {(group,) * 3} {sorted(groups)} {home}"]


@needs_root
async def test_user_who_may_not_execute_the_program(executor: ProcessExecutor, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    with pytest.raises(ExecutorError, match="Permission denied"):
        await output(executor, task(str(program), user="nobody"))


@needs_root
async def test_signals_of_another_user_are_as_at_a_fresh_start(executor: ProcessExecutor) -> None:
    workload = task("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", user="nobody")
    for line in await output(executor, workload):
        assert int(line.split()[1], 16) & ~LIBRARY_SIGNALS == 0, line


async def test_node_that_is_not_root_says_so(executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "may_become_others", lambda: False)
    with pytest.raises(ExecutorError, match="run the node as root"):
        await output(executor, task("true", user="4321:99"))
    own = accounts.current()
    assert await output(executor, task("echo", "me", user=f"{own.user_id}:{own.group_id}")) == ["me"]


# --- limits -------------------------------------------------------------------------------------------------------------------
EAT = "data = bytearray(300 << 20); print(len(data))"


@pytest.mark.skipif("memory" not in cgroups.enforceable(cgroups.homes()), reason="no memory control group to write to")
async def test_memory_limit_kills_the_task(executor: ProcessExecutor) -> None:
    workload = task(sys.executable, "-c", EAT, limits=Resources(memory_bytes=100 << 20))
    async with started(executor, workload) as (controller, running):
        assert running.note == ""
        assert (await controller.wait()).code == 137
    assert cgroups.existing(cgroups.homes(), workload.task_id).directories == ()


@pytest.mark.skipif("cpu" not in cgroups.enforceable(cgroups.homes()), reason="no CPU control group to write to")
async def test_cpu_limit_slows_the_task(executor: ProcessExecutor) -> None:
    code = "import time, os\nend = time.time() + 1\nwhile time.time() < end: pass\nprint(sum(os.times()[:2]))"
    workload = task(sys.executable, "-c", code, limits=Resources(nano_cpus=200_000_000))
    used_s = float((await output(executor, workload))[0])
    assert used_s < 0.5


async def test_memory_limit_without_control_groups_holds_for_a_process(groupless: ProcessExecutor) -> None:
    workload = task(sys.executable, "-c", EAT, limits=Resources(memory_bytes=100 << 20, nano_cpus=10**9))
    async with started(groupless, workload) as (controller, running):
        assert "memory limit holds for each process alone" in running.note
        assert "cpu limit is not enforced" in running.note
        assert (await controller.wait()).code == 1
        errors = [line.data async for line in controller.logs(LogOptions(streams=(Stream.STDERR,)))]
        assert b"MemoryError" in errors[-1]
