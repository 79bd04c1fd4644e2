"""One process task's way through this node: prepare, start, wait, stop, remove, each of them good for a second call.

Its one idea: nothing about a task is remembered here. What it is and how far it got stands in its directory, written by
its supervising shell, so a controller made by the next agent knows exactly what this one knew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import trio

from swarm.executors.base import ExecutorError, Exit, LogLine, LogOptions, Running, Stream, TemporaryError
from swarm.executors.process.launch import DEFAULT_STOP_GRACE_S, Launch, stop_signal_number
from swarm.executors.process.output import Output
from swarm.executors.process.record import TaskRecord
from swarm.executors.process.remains import Remains
from swarm.executors.process.shim import RECORD_FD, Stage, is_not_yet_the_command
from swarm.model.specs import ProcessSpec
from swarm.ports import cgroups, disk, processes

START_TIMEOUT_S = 30.0
"""From the shell's start to the command's exec: a few milliseconds; on a machine that is drowning, seconds."""
POLL_S_MIN = 0.0005
POLL_S_MAX = 0.05


class ProcessController:
    """The controller of one task; see `executors.base.Controller`."""

    def __init__(
        self,
        spec: ProcessSpec,
        remains: Remains,
        launch: Callable[[], Launch],
        started: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._remains = remains
        self._launch = launch
        """Checked only when it is started: adopting or removing a task must not fail because its program is gone."""
        self._started = started
        self._ended = ended
        self._stop_signal = stop_signal_number(spec.stop_signal)
        self._grace_s = DEFAULT_STOP_GRACE_S if spec.stop_grace_s is None else max(0.0, spec.stop_grace_s)

    async def prepare(self) -> None:
        """Makes the task's directory and finds the program, so that what a user got wrong is known before the start."""
        await trio.lowlevel.checkpoint()
        if not self._remains.record().was_started:
            self._make_directory(self._launch())

    async def start(self) -> Running:
        """Starts it and returns once its program was executed."""
        await trio.lowlevel.checkpoint()
        note = "" if self._remains.record().was_started else self._spawn()
        record = await self._executed()
        if record.failure:
            raise ExecutorError(self._cannot_execute(record.failure))
        self._started()
        pid = record.child.pid if record.child is not None else 0
        return Running(pid=pid, handle=self._remains.layout.directory, note=note)

    async def wait(self) -> Exit:
        """How it ended; all that it left running was killed by then."""
        exit = await self._remains.ended()
        self._ended()
        if failure := self._remains.record().failure:
            raise ExecutorError(self._cannot_execute(failure))
        return exit

    async def shutdown(self) -> Exit:
        """The stop signal to its process group, its grace, then SIGKILL to every process that it has."""
        shell = self._remains.live_shell()
        if shell is not None:
            processes.signal_group(shell, self._stop_signal)
            with trio.move_on_after(self._grace_s):
                await processes.ended(shell)
            await self._remains.kill()
        exit = await self._remains.ended()
        self._ended()
        return exit

    async def terminate(self) -> None:
        """SIGKILL to every process that it has."""
        await self._remains.kill()

    async def remove(self) -> None:
        """Kills what runs and deletes directory, output and control group."""
        await self._remains.remove()
        self._ended()

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """Its output, from its files."""
        return Output(self._remains.layout, options, self._remains.has_ended)

    def _spawn(self) -> str:
        """Starts the shell unless one runs; never waits, so that no cancellation can fall in between. Returns a note."""
        launch = self._launch()
        self._make_directory(launch)
        layout = self._remains.layout
        opened: list[int] = []
        try:
            opened += [disk.open_append(layout.record)]
            if not disk.try_lock(opened[0]):
                return ""
            opened += [disk.open_append(layout.output(stream)) for stream in (Stream.STDOUT, Stream.STDERR)]
            disk.append_bytes(layout.record, f"boot {self._remains.boot}\n".encode())
            limits = cgroups.Limits(launch.limit_nano_cpus, launch.limit_memory_bytes, launch.limit_pids)
            group = cgroups.create(self._remains.homes, layout.task_id, limits)
            arguments = _stage(launch, layout.scratch, group).arguments(processes.catchable_signals())
            fds = {RECORD_FD: opened[0], 1: opened[1], 2: opened[2]}
            processes.spawn(processes.Spawn(arguments, launch.env, fds))
        except OSError as error:
            raise TemporaryError(f"cannot start a process: {error.strerror or error}") from None
        finally:
            disk.close(opened)
        return _limit_note(group.unenforced)

    def _make_directory(self, launch: Launch) -> None:
        scratch = self._remains.layout.scratch
        try:
            disk.make_directory(scratch)
            if launch.account is not None:
                disk.give_to(scratch, launch.account.user_id, launch.account.group_id)
        except OSError as error:
            raise TemporaryError(f"cannot make {scratch}: {error.strerror}") from None

    async def _executed(self) -> TaskRecord:
        """The record once the command was executed, or could not be, or its shell was killed before."""
        pause_s = POLL_S_MIN
        with trio.move_on_after(START_TIMEOUT_S):
            while True:
                record = self._remains.record()
                if record.failure or record.exit_code is not None:
                    return record
                if record.was_started and self._remains.live_shell() is None:
                    return self._remains.record()
                if record.child is not None and not is_not_yet_the_command(processes.command_line(record.child.pid)):
                    await trio.lowlevel.checkpoint()
                    return self._remains.record()
                await trio.sleep(pause_s)
                pause_s = min(POLL_S_MAX, pause_s * 1.5)
        raise TemporaryError(f"the command was not executed within {START_TIMEOUT_S:g} s: is the machine overloaded?")

    def _cannot_execute(self, why: str) -> str:
        return f"cannot execute {self._spec.command[0]!r}: {why}"


def _stage(launch: Launch, scratch: str, group: cgroups.Group) -> Stage:
    falls_back = any(text.startswith("memory:") for text in group.unenforced)
    return Stage(
        command=launch.command,
        directory=launch.directory or scratch,
        data_limit_bytes=launch.limit_memory_bytes if falls_back else 0,
        control_groups=group.process_files,
        switch_user=launch.switch_user,
    )


def _limit_note(unenforced: Sequence[str]) -> str:
    notes: list[str] = []
    for text in unenforced:
        controller, _, why = text.partition(": ")
        if controller == "memory":
            notes.append(f"the memory limit holds for each process alone, not for the task: {why}")
        else:
            notes.append(f"the {controller} limit is not enforced: {why}")
    return "; ".join(notes)
