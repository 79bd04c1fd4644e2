"""One task's supervisor: drives its controller from step to step, as `plan/task_step.py` says.

One idea: one operation at a time, in a job; when something newer is wanted the job is cancelled and the next operation begins
as soon as it has ended, without a pause. An operation that fails for the moment is tried again with growing pauses. The task's
own status is the truth: what managers know of it never overwrites it.
"""

from __future__ import annotations

import logging
from typing import TypeAlias

import trio
from attrs import define, frozen

from swarm.actors.reporter import StatusChanged
from swarm.executors.base import Controller, Executor, ExecutorError, Exit, Running, TemporaryError, Workload
from swarm.model.ids import TaskId
from swarm.model.objects import TaskStatus
from swarm.model.states import TaskState
from swarm.plan.task_step import Operation, Step, delayed, ended, failed, moved, next_step, started, stopped
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy
from swarm.runtime import Actor, Message, Ref, Turn, on

LOG = logging.getLogger("swarm.task")

RETRY_S = 0.5
"""First pause after a temporary error; doubled up to `RETRY_S_MAX`, each drawn between half and all of it."""
RETRY_S_MAX = 30.0
LIVES_MAX = 3
"""So many crashes of this supervisor, and the task is given up: its executor has a bug that this task meets."""


@frozen
class Wanted(Message):
    """What the managers want of the task now. What goes back in its life is ignored."""

    desired: TaskState


@frozen
class RemoveTask(Message):
    """The task is not this node's any more: stop it, delete what belongs to it, then tell `TaskRemoved`."""


@frozen
class TaskRemoved(Message):
    """Nothing is left of the task on this node."""

    task_id: TaskId


Outcome: TypeAlias = Running | Exit | ExecutorError | None
"""None: done, with nothing to tell."""


@frozen
class _Begin(Message):
    """First of a life's messages, unless something was queued for it before."""


@frozen
class _Ended(Message):
    """An operation has ended."""

    run: int
    outcome: Outcome


@define(eq=False)
class _Run:
    """An operation under way; `number` tells its outcome from that of an earlier one."""

    number: int
    step: Step | None
    """None: the removal."""
    cancel: trio.CancelScope | None = None


class TaskActor(Actor):
    """`task/<id>`. Made by the agent, which also makes it anew after a crash, with the newest `status`."""

    mailbox_capacity = 64

    def __init__(
        self,
        workload: Workload,
        status: TaskStatus,
        desired: TaskState,
        executor: Executor | None,
        reporter: Ref,
        agent: Ref,
        clock: Clock,
        entropy: Entropy,
        *,
        crashes: int = 0,
        removing: bool = False,
    ) -> None:
        self.workload = workload
        self.status = status
        self.desired = desired
        self._executor = executor
        self._controller: Controller | None = None
        self._reporter = reporter
        self._agent = agent
        self._clock = clock
        self._entropy = entropy
        self._crashes = crashes
        self._removing = removing
        self._run: _Run | None = None
        self._runs = 0
        self._retries = 0
        self._given_up = crashes >= LIVES_MAX
        self._one_at_a_time = trio.Lock()
        """Held by the operation that really runs: a cancelled one may take a moment to end."""

    @property
    def id(self) -> TaskId:
        """The task."""
        return self.workload.task_id

    async def started(self) -> None:
        """Begin in a turn: what an executor does wrong there is this supervisor's crash, not its maker's."""
        self.ref.offer(_Begin())

    @on(_Begin)
    async def begin(self, message: _Begin, turn: Turn[None]) -> None:
        """Find the controller and take the first step."""
        if self._given_up:
            text = f"its executor failed {self._crashes} times in a way that is a bug; the log of this node has the details"
            await self._become(failed(self.status, text, self._clock.now()))
        else:
            try:
                self._controller = self._resolve()
            except ExecutorError as error:
                await self._become(failed(self.status, str(error), self._clock.now()))
        await self._drive()

    def _resolve(self) -> Controller:
        if self._executor is None:
            kind = self.workload.spec.task.runtime_kind
            raise ExecutorError(f"this node cannot run {kind} tasks: it has no such executor")
        return self._executor.controller(self.workload)

    # --- turns -----------------------------------------------------------------------------------------------------
    @on(Wanted)
    async def wanted(self, message: Wanted, turn: Turn[None]) -> None:
        """Something newer is wanted."""
        if message.desired > self.desired:
            self.desired = message.desired
            await self._drive()

    @on(RemoveTask)
    async def remove(self, message: RemoveTask, turn: Turn[None]) -> None:
        """End all of it."""
        if not self._removing:
            self._removing = True
            await self._drive()

    @on(_Ended)
    async def operation_ended(self, message: _Ended, turn: Turn[None]) -> None:
        """Note the outcome and take the next step."""
        run = self._run
        if run is None or run.number != message.run:
            return  # something newer is wanted: its own outcome counts
        self._run = None
        if isinstance(message.outcome, TemporaryError):
            self._retries += 1
            if run.step is not None:
                await self._become(delayed(self.status, str(message.outcome), self._clock.now()))
        else:
            self._retries = 0
            if run.step is None:
                await self._removed(message.outcome)
                return
            await self._become(self._after(run.step, message.outcome))
        await self._drive()

    def _after(self, step: Step, outcome: Outcome) -> TaskStatus:
        """The status that an operation's outcome leads to."""
        now = self._clock.now()
        match outcome:
            case ExecutorError():
                return failed(self.status, str(outcome), now)
            case Running(pid=pid, handle=handle, ports=ports, note=note):
                return started(self.status, now, pid=pid, handle=handle, ports=ports, note=note)
            case Exit(code=code, detail=detail) if step.operation is Operation.WAIT:
                return ended(self.status, code, detail, now)
            case Exit(code=code):
                return stopped(self.status, code, now)
            case None:
                assert step.to is not None, "an operation leads to a state"
                return moved(self.status, step.to, now)

    async def _removed(self, outcome: Outcome) -> None:
        if isinstance(outcome, ExecutorError):
            LOG.error("task %s: what it left behind stays: %s", self.id, outcome)
        await self._agent.tell(TaskRemoved(self.id))

    async def _become(self, status: TaskStatus) -> None:
        if status != self.status:
            self.status = status
            await self._reporter.tell(StatusChanged(self.id, status))

    # --- steps -----------------------------------------------------------------------------------------------------
    async def _drive(self) -> None:
        """Go on until an operation is under way or nothing is to be done."""
        if self._given_up:
            if self._removing:
                await self._agent.tell(TaskRemoved(self.id))
            return
        if self._removing:
            self._operate(None)
            return
        while True:
            step = next_step(self.status.state, self.desired)
            if step.operation is not Operation.MOVE:
                break
            assert step.to is not None, "a move leads to a state"
            await self._become(moved(self.status, step.to, self._clock.now()))
        if step.operation is Operation.NOTHING:
            self._cancel()
        else:
            self._operate(step)

    def _operate(self, step: Step | None) -> None:
        """Have this operation be the one under way; None is the removal."""
        if self._run is not None and self._run.step == step:
            return
        if self._run is not None:
            self._cancel()
            self._retries = 0
        self._runs += 1
        run = self._run = _Run(self._runs, step)
        pause = min(RETRY_S * 2 ** (self._retries - 1), RETRY_S_MAX) if self._retries else 0.0
        name = "remove" if step is None else step.operation.value
        run.cancel = self.job(self._work, run, self._entropy.uniform(pause / 2, pause), name=name)

    def _cancel(self) -> None:
        """End what is under way."""
        run, self._run = self._run, None
        if run is not None and run.cancel is not None:
            run.cancel.cancel()

    # --- jobs ------------------------------------------------------------------------------------------------------
    async def _work(self, run: _Run, pause_s: float) -> None:
        if pause_s:
            await trio.sleep(pause_s)
        async with self._one_at_a_time:
            outcome = await self._try(run.step)
        await self.ref.tell(_Ended(run.number, outcome))

    async def _try(self, step: Step | None) -> Outcome:
        controller = self._controller
        if controller is None:
            return await self._without_controller(step)
        try:
            if step is None:
                await controller.shutdown()
                await controller.remove()
                return None
            return await self._perform(controller, step.operation)
        except ExecutorError as error:
            return error

    async def _without_controller(self, step: Step | None) -> Outcome:
        if step is None and self._executor is not None:
            try:
                await self._executor.discard(self.id)
            except ExecutorError as error:
                return error
        return None

    async def _perform(self, controller: Controller, operation: Operation) -> Outcome:
        match operation:
            case Operation.PREPARE:
                await controller.prepare()
                return None
            case Operation.START:
                return await controller.start()
            case Operation.WAIT:
                return await controller.wait()
            case Operation.SHUTDOWN:
                return await controller.shutdown()
            case _:
                raise AssertionError(f"{operation.value} is no operation of a controller")
