"""Plain processes as tasks: the embedded executor, which needs nothing installed but a POSIX shell. Linux.

Its one idea: a task belongs to its own supervising shell (`shim`), not to the agent. The agent may be killed and
started again; it finds the task's directory and goes on (`remains`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import trio
from attrs import evolve

from swarm.executors.base import ExecutorContext, ExecutorError, ExecutorUnavailable, Stream, Workload
from swarm.executors.process.controller import ProcessController
from swarm.executors.process.launch import Launch, prepare_launch
from swarm.executors.process.layout import Layout
from swarm.executors.process.output import tend
from swarm.executors.process.remains import Remains
from swarm.executors.process.shim import SHELL
from swarm.executors.template import expand_workload
from swarm.model.ids import TaskId, is_id
from swarm.model.specs import NodeDescription, Platform, ProcessSpec
from swarm.ports import cgroups, disk, machine, processes

KIND = "process"
TEND_PERIOD_S = 1.0
"""How exact a line's time is, and how far an output may outgrow its bound."""
ENDED_CHECK_PERIODS = 60
"""How often tasks that ended unseen are looked for, in tending periods: it costs more than looking at a size."""
TASKS_PER_BREATH = 64
LIMIT_PLUGIN = "limit"
"""The plugin type under which a node says which limits it enforces for processes: (`limit`, `process/cpu`)."""


class ProcessExecutor:
    """Runs tasks as processes below `directory`; see `executors.base.Executor`."""

    kind = KIND

    def __init__(
        self, directory: str, *, env: Mapping[str, str], homes: tuple[cgroups.Home, ...] | None = None
    ) -> None:
        """`env` is the node's own environment, of which tasks get PATH, language and time zone.

        `homes` are the control groups to use, None for all that this machine allows, empty for none.
        """
        self._directory = directory
        self._env = env
        self._homes = cgroups.homes() if homes is None else homes
        self._boot = processes.boot_id()
        self._tended: dict[TaskId, dict[Stream, int]] = {}
        """Tasks that may still write, with the size of each output when it was seen last."""
        disk.make_directory(directory)

    async def describe(self, base: NodeDescription) -> NodeDescription:
        """`base` with this machine's platform, CPUs and memory where it names none, and the limits that hold here."""
        await trio.lowlevel.checkpoint()
        own = machine.describe()
        limits = cgroups.enforceable(self._homes)
        resources = evolve(
            base.resources,
            nano_cpus=base.resources.nano_cpus or own.nano_cpus,
            memory_bytes=base.resources.memory_bytes or own.memory_bytes,
        )
        platform = Platform(base.platform.architecture or own.architecture, base.platform.os or own.os)
        return evolve(
            base,
            platform=platform,
            resources=resources,
            executors=tuple(sorted({*base.executors, KIND})),
            plugins=tuple(sorted({*base.plugins, *((LIMIT_PLUGIN, f"{KIND}/{name}") for name in limits)})),
        )

    def controller(self, workload: Workload) -> ProcessController:
        """The controller of a process task; raises `ExecutorError` for another runtime or a bad placeholder or signal."""
        expanded = expand_workload(workload)
        spec = expanded.spec.task.runtime
        if not isinstance(spec, ProcessSpec):
            raise ExecutorError(f"the process executor cannot run a {workload.spec.task.runtime_kind} task")
        if not spec.command or not spec.command[0]:
            raise ExecutorError("the service has no command")
        remains = self._remains(workload.task_id)

        def launch() -> Launch:
            return prepare_launch(expanded, spec, self._env, remains.layout.scratch)

        def started() -> None:
            self._tended.setdefault(workload.task_id, {})

        def ended() -> None:
            self._tended.pop(workload.task_id, None)

        return ProcessController(spec, remains, launch, started, ended)

    async def known_tasks(self) -> frozenset[TaskId]:
        """Every task that has a directory here."""
        await trio.lowlevel.checkpoint()
        return frozenset(TaskId(name) for name in disk.list_directory(self._directory) if is_id(name))

    async def discard(self, task_id: TaskId) -> None:
        """Kills and deletes a task that nobody owns any more."""
        await self._remains(task_id).remove()

    async def run(self) -> None:
        """Times and bounds the outputs of the tasks that run, about once a second."""
        for task_id in await self.known_tasks():
            self._tended.setdefault(task_id, {})
        period = 0
        while True:
            looks_for_ended = period % ENDED_CHECK_PERIODS == 0
            for number, task_id in enumerate(tuple(self._tended), 1):
                if task_id in self._tended:
                    self._tend(task_id, looks_for_ended=looks_for_ended)
                if number % TASKS_PER_BREATH == 0:
                    await trio.lowlevel.checkpoint()
            period += 1
            await trio.sleep(TEND_PERIOD_S)

    def _tend(self, task_id: TaskId, *, looks_for_ended: bool) -> None:
        remains = self._remains(task_id)
        ended = looks_for_ended and remains.has_ended()
        sizes = self._tended[task_id]
        for stream in Stream:
            sizes[stream] = tend(remains.layout, stream, sizes.get(stream, 0))
        if ended:
            del self._tended[task_id]

    def _remains(self, task_id: TaskId) -> Remains:
        return Remains(Layout(self._directory, task_id), self._homes, self._boot)


def factory(context: ExecutorContext) -> ProcessExecutor:
    """The process executor of a node; raises `ExecutorUnavailable` where there is no Linux or no shell."""
    if sys.platform != "linux":
        raise ExecutorUnavailable(f"processes need Linux, this is {sys.platform}")
    if not disk.is_executable(SHELL):
        raise ExecutorUnavailable(f"processes need a POSIX shell at {SHELL}")
    return ProcessExecutor(f"{context.state_dir}/{KIND}", env=context.env)
