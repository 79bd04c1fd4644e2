"""Finding and killing every process of a task, grandchildren included, and nobody else's.

Its one idea: three nets, the best one that there is. A control group holds them all, whatever they do. Without one, the
session holds all but those that made a session of their own, and the task's variable in a process's environment finds
those. A pid is trusted only with its start time.
"""

from __future__ import annotations

import signal

import trio
from attrs import frozen

from swarm.executors.base import TemporaryError
from swarm.executors.process.launch import TASK_ID_VARIABLE
from swarm.model.ids import TaskId
from swarm.ports import cgroups, processes
from swarm.ports.processes import ProcessId

KILL_ROUNDS_MAX = 50
"""Looks for survivors; each round kills all that it finds, so only something that cannot die is left after some."""
KILL_ROUND_PAUSE_S_MAX = 0.1


@frozen
class Members:
    """Whose processes: a task's, started below a supervising shell (which does not count as one)."""

    task_id: TaskId
    shell: ProcessId
    group: cgroups.Group

    def find(self) -> list[ProcessId]:
        """All that run now. Reads /proc when there is no control group: call it in a thread."""
        if self.group.tracked:
            return self._in_group()
        marker = f"{TASK_ID_VARIABLE}={self.task_id}".encode()
        leader = processes.stat(self.shell.pid)
        session_is_ours = leader is not None and leader.id == self.shell
        return [
            found.id
            for found in processes.all_processes()
            if found.id.started >= self.shell.started
            and found.id != self.shell
            and (
                (session_is_ours and found.session == self.shell.pid)
                or marker in processes.environment(found.id.pid).split(b"\0")
            )
        ]

    async def kill(self) -> None:
        """Kills them, those that they start meanwhile too, and returns once none is left; the shell is spared.

        Raises `TemporaryError` when something does not die, as in an uninterruptible wait for a disk.
        """
        pause_s = 0.001
        for _ in range(KILL_ROUNDS_MAX):
            found = await trio.to_thread.run_sync(self._kill_once)
            if not found:
                return
            await trio.sleep(pause_s)
            pause_s = min(KILL_ROUND_PAUSE_S_MAX, pause_s * 2)
        raise TemporaryError(f"{len(found)} processes of the task do not end although they were killed: {_pids(found)}")

    def _kill_once(self) -> list[ProcessId]:
        found = self.find()
        if found and not cgroups.kill(self.group):
            for process in found:
                processes.signal_process(process, signal.SIGKILL)
        return found

    def _in_group(self) -> list[ProcessId]:
        stats = [processes.stat(pid) for pid in cgroups.members(self.group)]
        return [found.id for found in stats if found is not None and found.is_alive and found.id != self.shell]


def _pids(found: list[ProcessId]) -> str:
    return ", ".join(str(process.pid) for process in found[:10])
