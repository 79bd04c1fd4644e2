"""What there is of one process task on this machine, known by its id alone: its record, its processes, its files.

Its one idea: a task is what its directory says. An agent that was killed, or a node that lost its state, finds, kills and
deletes it without knowing what it was for.
"""

from __future__ import annotations

import signal

import trio
from attrs import frozen

from swarm.executors.base import Exit, Stream, TemporaryError
from swarm.executors.process.layout import Layout
from swarm.executors.process.members import Members
from swarm.executors.process.output import tend
from swarm.executors.process.record import TaskRecord, parse_record
from swarm.ports import cgroups, disk, processes
from swarm.ports.processes import ProcessId

SHELL_END_S_MAX = 5.0
"""How long the shell may take to note the exit code once its command is dead; then it is killed."""
REMOVE_ROUNDS_MAX = 20
REMOVE_PAUSE_S = 0.05
"""A control group stays busy for a moment after its last process was killed."""


@frozen
class Remains:
    """One task on this machine, in the boot named `boot`."""

    layout: Layout
    homes: tuple[cgroups.Home, ...]
    boot: str

    def record(self) -> TaskRecord:
        """How far it got."""
        try:
            return parse_record(disk.read_bytes(self.layout.record))
        except FileNotFoundError:
            return TaskRecord()

    def live_shell(self) -> ProcessId | None:
        """Its supervising shell, while it runs."""
        shell = self.record().runs_in(self.boot)
        return shell if shell is not None and processes.is_alive(shell) else None

    def has_ended(self) -> bool:
        """Whether it will not write any more: it ran and ended, or it is gone."""
        record = self.record()
        if record.was_started:
            return self.live_shell() is None
        return not disk.is_directory(self.layout.directory)

    async def ended(self) -> Exit:
        """Waits for its end, kills what it left running, and tells how it ended."""
        shell = self.record().runs_in(self.boot)
        if shell is None:
            await trio.lowlevel.checkpoint()
            return self.record().ending(self.boot)
        await processes.ended(shell)
        await self._members(shell).kill()
        processes.reap(shell.pid)
        for stream in Stream:
            tend(self.layout, stream, known_size=0)
        return self.record().ending(self.boot)

    async def kill(self) -> None:
        """Kills its command, whose shell then notes the exit code; a shell that does not is killed as well."""
        shell = self.record().runs_in(self.boot)
        if shell is None:
            await trio.lowlevel.checkpoint()
            return
        members = self._members(shell)
        await members.kill()
        with trio.move_on_after(SHELL_END_S_MAX):
            await processes.ended(shell)
        if processes.signal_process(shell, signal.SIGKILL):
            await processes.ended(shell)
            await members.kill()
        processes.reap(shell.pid)

    async def remove(self) -> None:
        """Kills it and deletes its control group and its directory."""
        await self.kill()
        group = cgroups.existing(self.homes, self.layout.task_id)
        for _ in range(REMOVE_ROUNDS_MAX):
            if cgroups.remove(group):
                break
            await trio.sleep(REMOVE_PAUSE_S)
        else:
            raise TemporaryError(f"the control group of task {self.layout.task_id} does not become empty")
        try:
            await trio.to_thread.run_sync(disk.remove_tree, self.layout.directory)
        except OSError as error:
            raise TemporaryError(f"cannot delete {error.filename}: {error.strerror}") from None

    def _members(self, shell: ProcessId) -> Members:
        return Members(self.layout.task_id, shell, cgroups.existing(self.homes, self.layout.task_id))
