"""A simulated machine that runs tasks in virtual time: what the simulator and agent tests use for an executor.

Its one idea: a `SimulatedMachine` outlives the executors that agents make on it, as a real machine outlives an agent that
is killed; only `power_off` ends its tasks. What a task does is a `Script`, chosen by a function of its workload, so that
a seeded caller draws durations and failures and a test writes them down. No threads, no real time, no randomness.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import trio
from attrs import define, evolve, field, frozen

from swarm.executors.base import ExecutorError, Exit, LogLine, LogOptions, Running, Stream, TemporaryError, Workload
from swarm.executors.template import expand_workload
from swarm.model.ids import TaskId
from swarm.model.objects import PortStatus
from swarm.model.specs import NANO_CPUS_PER_CORE, NodeDescription, Platform, Resources
from swarm.model.states import PublishMode
from swarm.ports.clock import Clock, SystemClock

DEFAULT_GRACE_S = 10.0
FIRST_PID = 100


@frozen
class Script:
    """What a task does; times are seconds of virtual time."""

    prepare_s: float = 0.0
    start_s: float = 0.0
    runs_s: float | None = None
    """None: until it is stopped."""
    exit_code: int = 0
    stop_s: float | None = 0.0
    """How long it takes to obey its stop signal; None: it does not."""
    out: tuple[str, ...] = ()
    err: tuple[str, ...] = ()
    prepare_error: str = ""
    start_error: str = ""
    temporary_errors: int = 0
    """So many calls of prepare and start fail first and may be tried again."""


@define
class SimulatedTask:
    """A task on a simulated machine: prepared, running or ended."""

    workload: Workload
    script: Script
    pid: int
    temporary_errors_left: int
    is_prepared: bool = False
    started_at: float | None = None
    ends_at: float | None = None
    """Trio's time; in the future while it runs."""
    exit: Exit = field(default=Exit(None, "it was never started"))
    lines: list[LogLine] = field(factory=list)
    changed: trio.Event = field(factory=trio.Event)

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.started_at is not None and (self.ends_at is None or self.ends_at > trio.current_time())

    def end_by(self, at: float, exit: Exit) -> None:
        """It ends at this time, unless it ends earlier."""
        if self.ends_at is None or at < self.ends_at:
            self.ends_at = at
            self.exit = exit
            self.change()

    def change(self) -> None:
        """Wakes whoever waits for the task."""
        self.changed.set()
        self.changed = trio.Event()

    async def end(self) -> None:
        """Waits until it has ended, if it was started."""
        await trio.lowlevel.checkpoint()
        while self.started_at is not None and self.is_running:
            changed = self.changed
            with trio.move_on_at(float("inf") if self.ends_at is None else self.ends_at):
                await changed.wait()


def always(script: Script) -> Callable[[Workload], Script]:
    """The same script for every task."""
    return lambda workload: script


@define
class SimulatedMachine:
    """A machine: tasks by id, in the order of their preparation, and what has happened on it."""

    script: Callable[[Workload], Script] = field(factory=lambda: always(Script()))
    resources: Resources = Resources(nano_cpus=4 * NANO_CPUS_PER_CORE, memory_bytes=8 << 30)
    platform: Platform = Platform("x86_64", "linux")
    clock: Clock = field(factory=SystemClock)
    tasks: dict[TaskId, SimulatedTask] = field(factory=dict)
    history: list[tuple[float, str, TaskId]] = field(factory=list)
    """(trio's time, `prepared`, `started`, `signalled`, `killed` or `removed`, task): for checkers."""

    def task(self, workload: Workload) -> SimulatedTask:
        """The task, made when it is new."""
        known = self.tasks.get(workload.task_id)
        if known is None:
            script = self.script(workload)
            known = SimulatedTask(workload, script, FIRST_PID + len(self.history), script.temporary_errors)
            self.tasks[workload.task_id] = known
        return known

    def running(self) -> list[Workload]:
        """What runs now."""
        return [task.workload for task in self.tasks.values() if task.is_running]

    def power_off(self) -> None:
        """Every task ends at once, as in a loss of power; what is on the disk stays."""
        for task in self.tasks.values():
            if task.is_running:
                task.end_by(trio.current_time(), Exit(None, "the machine was restarted"))

    def note(self, what: str, task_id: TaskId) -> None:
        """Adds to the history."""
        self.history.append((trio.current_time(), what, task_id))


class SimulatedController:
    """One task on a simulated machine; see `executors.base.Controller`."""

    def __init__(self, machine: SimulatedMachine, workload: Workload) -> None:
        self._machine = machine
        self._workload = workload

    async def prepare(self) -> None:
        """Takes the script's time; fails as it says."""
        task = self._machine.task(self._workload)
        await self._try(task, task.script.prepare_s, task.script.prepare_error, is_done=task.is_prepared)
        if not task.is_prepared:
            task.is_prepared = True
            self._machine.note("prepared", self._workload.task_id)

    async def start(self) -> Running:
        """Takes the script's time; fails as it says."""
        task = self._machine.task(self._workload)
        await self._try(task, task.script.start_s, task.script.start_error, is_done=task.started_at is not None)
        if task.started_at is None:
            self._begin(task)
        ports = tuple(
            PortStatus(port.target, port.published or 30000 + task.pid, port.protocol)
            for port in self._workload.spec.ports
            if port.mode is PublishMode.HOST
        )
        return Running(pid=task.pid, handle=f"simulated/{task.workload.task_id}", ports=ports)

    async def wait(self) -> Exit:
        """As the script says, or how it was stopped."""
        task = self._known()
        if task is None:
            await trio.lowlevel.checkpoint()
            return Exit(None, "it was never started")
        await task.end()
        return task.exit

    async def shutdown(self) -> Exit:
        """It ends after the script's `stop_s`, or is killed after its grace."""
        task = self._known()
        if task is not None and task.is_running:
            self._machine.note("signalled", self._workload.task_id)
            runtime = self._workload.spec.task.runtime
            grace_s = getattr(runtime, "stop_grace_s", None)
            grace_s = DEFAULT_GRACE_S if grace_s is None else grace_s
            now, stop_s = trio.current_time(), task.script.stop_s
            if stop_s is not None:
                task.end_by(now + stop_s, Exit(143))
            task.end_by(now + grace_s, Exit(137, "killed (SIGKILL)"))
        return await self.wait()

    async def terminate(self) -> None:
        """It ends at once."""
        await trio.lowlevel.checkpoint()
        task = self._known()
        if task is not None and task.is_running:
            self._machine.note("killed", self._workload.task_id)
            task.end_by(trio.current_time(), Exit(137, "killed (SIGKILL)"))

    async def remove(self) -> None:
        """It ends at once and is forgotten."""
        await _remove(self._machine, self._workload.task_id)

    def logs(self, options: LogOptions) -> SimulatedOutput:
        """What the script prints."""
        return SimulatedOutput(self._machine, self._workload.task_id, options)

    def _known(self) -> SimulatedTask | None:
        return self._machine.tasks.get(self._workload.task_id)

    async def _try(self, task: SimulatedTask, duration_s: float, error: str, *, is_done: bool) -> None:
        if is_done:
            await trio.lowlevel.checkpoint()
            return
        await trio.sleep(duration_s)
        if task.temporary_errors_left:
            task.temporary_errors_left -= 1
            raise TemporaryError("the simulated runtime does not answer")
        if error:
            raise ExecutorError(error)

    def _begin(self, task: SimulatedTask) -> None:
        now = self._machine.clock.now()
        task.started_at = trio.current_time()
        task.lines += [LogLine(Stream.STDOUT, line.encode(), now) for line in task.script.out]
        task.lines += [LogLine(Stream.STDERR, line.encode(), now) for line in task.script.err]
        self._machine.note("started", self._workload.task_id)
        if task.script.runs_s is not None:
            task.end_by(task.started_at + task.script.runs_s, Exit(task.script.exit_code))
        task.change()


class SimulatedOutput:
    """A simulated task's lines."""

    def __init__(self, machine: SimulatedMachine, task_id: TaskId, options: LogOptions) -> None:
        self._task = machine.tasks.get(task_id)
        self._options = options
        lines = [line for line in self._task.lines if self._wants(line)] if self._task is not None else []
        if options.since is not None:
            lines = [line for line in lines if line.at >= options.since]
        if options.tail is not None:
            lines = lines[max(0, len(lines) - options.tail) :]
        self._lines = deque(lines)
        self._seen = len(self._task.lines) if self._task is not None else 0

    def __aiter__(self) -> SimulatedOutput:
        return self

    async def __anext__(self) -> LogLine:
        await trio.lowlevel.checkpoint()
        while not self._lines:
            task = self._task
            if task is None or not self._options.follow:
                raise StopAsyncIteration
            self._lines += [line for line in task.lines[self._seen :] if self._wants(line)]
            self._seen = len(task.lines)
            if self._lines:
                break
            if task.started_at is not None:
                await task.end()
                raise StopAsyncIteration
            await task.changed.wait()
        return self._lines.popleft()

    def _wants(self, line: LogLine) -> bool:
        return line.stream in self._options.streams


class SimulatedExecutor:
    """The executor of one agent's life on a simulated machine; see `executors.base.Executor`."""

    def __init__(self, machine: SimulatedMachine, kind: str = "process") -> None:
        self.kind = kind
        self._machine = machine

    async def describe(self, base: NodeDescription) -> NodeDescription:
        """The machine's resources where `base` names none."""
        await trio.lowlevel.checkpoint()
        resources = base.resources if base.resources.nano_cpus else self._machine.resources
        platform = base.platform if base.platform.os else self._machine.platform
        executors = tuple(sorted({*base.executors, self.kind}))
        return evolve(base, resources=resources, platform=platform, executors=executors)

    def controller(self, workload: Workload) -> SimulatedController:
        """The controller of a task of this kind; raises `ExecutorError` for others, and for a bad placeholder."""
        if workload.spec.task.runtime_kind != self.kind:
            raise ExecutorError(
                f"the simulated {self.kind} executor cannot run a {workload.spec.task.runtime_kind} task"
            )
        return SimulatedController(self._machine, expand_workload(workload))

    async def known_tasks(self) -> frozenset[TaskId]:
        """Every task that was not removed."""
        await trio.lowlevel.checkpoint()
        return frozenset(self._machine.tasks)

    async def discard(self, task_id: TaskId) -> None:
        """Ends and forgets a task."""
        await _remove(self._machine, task_id)

    async def run(self) -> None:
        """Nothing to do in the background."""
        await trio.sleep_forever()


async def _remove(machine: SimulatedMachine, task_id: TaskId) -> None:
    await trio.lowlevel.checkpoint()
    task = machine.tasks.pop(task_id, None)
    if task is not None:
        if task.is_running:
            task.end_by(trio.current_time(), Exit(137, "killed (SIGKILL)"))
        task.change()
        machine.note("removed", task_id)


def scripts_by_service(scripts: Mapping[str, Script], default: Script = Script()) -> Callable[[Workload], Script]:
    """A script for each service's name."""
    return lambda workload: scripts.get(workload.spec.name, default)
