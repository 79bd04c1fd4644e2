"""The agent: has on its node exactly the tasks that the managers assigned to it, through good days and bad.

One idea: what is assigned is recorded before it is acted on, each task has a supervisor of its own, and sessions with the
dispatcher come and go without touching what runs. After a restart the recorded tasks are adopted where they were; after the
first full set of assignments whatever nobody owns is removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import trio
from attrs import define, evolve, frozen

from swarm.actors.reporter import ForgetTask, GetStatuses, Reporter, SessionBegan, SessionEnded
from swarm.actors.session import ManagerFinder, SessionDown, SessionItemCame, Sessions, SessionUp
from swarm.actors.session_messages import AgentStatus, GetAgentStatus, LeaveSession, RemoveAllTasks, SessionNews
from swarm.actors.task import LIVES_MAX, RemoveTask, TaskActor, TaskRemoved, Wanted
from swarm.actors.task_logs import send_logs
from swarm.executors.base import Executor, ExecutorError, Workload
from swarm.model.ids import NodeId, TaskId
from swarm.model.objects import Task, TaskStatus
from swarm.model.specs import NodeDescription
from swarm.model.states import TaskState
from swarm.plan.assignments import NodeSpecs
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy
from swarm.ports.task_store import StoredTask, TaskStore
from swarm.runtime import (
    Actor,
    ErrorCode,
    Later,
    LocalRef,
    Message,
    Ref,
    Restart,
    Scope,
    StreamTurn,
    SwarmError,
    Turn,
    on,
)
from swarm.wire.messages.dispatcher import Assignments, LeaveNode, SessionChanged
from swarm.wire.messages.node import ReadLogs, TaskLogLine

LOG = logging.getLogger("swarm.agent")

DESCRIBE_TIMEOUT_S = 5.0
"""An executor that does not describe itself within this time is left out: nothing can be placed on it now."""
ASK_TIMEOUT_S = 10.0
LEFTOVERS_RETRY_S = 30.0


@frozen
class AgentConfig:
    """What an agent is told of its node."""

    node_id: NodeId
    hostname: str
    executors: Mapping[str, Executor]
    """By runtime kind."""
    base: Callable[[], NodeDescription]
    """What is known of the machine without asking executors (host name, user-defined resources, certificate issuer)."""


@frozen
class _TasksScope(Message):
    """The scope of the supervisors is open."""

    scope: Scope


@frozen
class _Leftovers(Message):
    """Tasks of which an executor still has something."""

    kind: str
    ids: frozenset[TaskId]


@define(eq=False)
class _Known:
    """A task of this node. `actor` is its supervisor's present life; `ref` outlives it."""

    stored: StoredTask
    actor: TaskActor | None = None
    ref: LocalRef | None = None
    crashes: int = 0


class Agent(Actor):
    """The actor `agent`; tells news to `node`."""

    mailbox_capacity = 1024
    shutdown_s = 15.0

    def __init__(
        self,
        config: AgentConfig,
        store: TaskStore,
        finder: ManagerFinder,
        node: Ref,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._config = config
        self._store = store
        self._finder = finder
        self._node = node
        self._clock = clock
        self._entropy = entropy
        self._tasks: dict[TaskId, _Known] = {}
        """Every task that this node has anything of, those being removed included."""
        self._removing: set[TaskId] = set()
        self._specs = NodeSpecs()
        """Those that this session was told; tasks keep their own."""
        self._scope: Scope | None = None
        self._reporter: Ref | None = None
        self._sessions: Sessions | None = None
        self._session: SessionUp | None = None
        self._number = 0
        """Of the session whose items are listened to; 0 for none."""
        self._sequence: int | None = None
        """Of the last assignments in this session."""
        self._swept = False
        self._waiting = "looking for a manager"
        self._refused = ""
        self._description = NodeDescription()
        self._leaving: list[Later[None]] = []

    async def started(self) -> None:
        """Open the record, then the scope of the supervisors; all else follows from there."""
        for stored in await self._store.open():
            self._tasks[stored.task.id] = _Known(stored)
        for executor in self._config.executors.values():
            self.job(executor.run, name=f"executor-{executor.kind}")
        self.job(self._host_tasks, name="tasks")

    async def stopping(self) -> None:
        """Supervisors and reporter have ended: nothing is written any more."""
        await self._store.aclose()

    async def _host_tasks(self) -> None:
        async with self.scope.open("tasks") as scope:
            await self.ref.tell(_TasksScope(scope))
            await trio.sleep_forever()

    @on(_TasksScope)
    async def begin(self, message: _TasksScope, turn: Turn[None]) -> None:
        """Adopt what was recorded, and look for a manager."""
        self._scope = message.scope
        known = {id: _status_of(known.stored) for id, known in self._tasks.items()}
        newest = [known]

        def make_reporter() -> Reporter:
            reporter = Reporter(self._store, self._entropy, newest[0])
            newest[0] = reporter.newest
            return reporter

        self._reporter = await message.scope.start("reporter", make_reporter)
        self._description = await self._describe()
        for id in tuple(self._tasks):
            await self._supervise(id)
            if self._leaving:
                await self._remove(id)
        self._sessions = Sessions(self.ref, self._finder, self._describe, self._entropy)
        self.job(self._sessions.run, name="sessions")

    # --- the session -----------------------------------------------------------------------------------------------
    @on(SessionUp)
    async def session_up(self, message: SessionUp, turn: Turn[None]) -> None:
        """Registered: everything is reported anew."""
        self._session, self._number, self._sequence = message, message.number, None
        self._specs.clear()
        self._waiting = self._refused = ""
        LOG.info("registered with the dispatcher through manager %s", message.manager)
        if self._reporter is not None:
            await self._reporter.tell(SessionBegan(message.dispatcher, message.session_id))

    @on(SessionDown)
    async def session_down(self, message: SessionDown, turn: Turn[None]) -> None:
        """What runs goes on."""
        if message.why != self._waiting:
            LOG.info("no session with a dispatcher: %s", message.why)
        self._waiting = message.why
        self._refused = message.why if message.denied else self._refused
        session, self._session, self._number = self._session, None, 0
        if session is not None and self._reporter is not None:
            await self._reporter.tell(SessionEnded(session.session_id))

    @on(SessionItemCame)
    async def item_came(self, message: SessionItemCame, turn: Turn[None]) -> None:
        """Take it up; whatever came after a gap in an earlier session is passed over."""
        if message.number != self._number:
            return
        match message.item:
            case Assignments() as assignments:
                await self._take(assignments)
            case SessionChanged(node=node, managers=managers, root_certificate=roots):
                self._finder.learn(managers)
                await self._node.tell(SessionNews(node, managers, roots))
            case _:
                self._reopen(f"a session holds no {type(message.item).__name__} after its beginning")

    def _reopen(self, why: str) -> None:
        """End this session, once: what else it sends is passed over."""
        number, self._number = self._number, 0
        if self._sessions is not None:
            self._sessions.end(number, why)

    # --- assignments -----------------------------------------------------------------------------------------------
    async def _take(self, assignments: Assignments) -> None:
        if self._leaving:
            return
        expected = None if self._sequence is None else self._sequence + 1
        if not assignments.full and assignments.sequence != expected:
            self._reopen(f"assignments {assignments.sequence} came where {expected} was due")
            return
        if assignments.full:
            self._specs.clear()
        specs = [((spec.service_id, spec.revision), spec.spec) for spec in assignments.specs]
        self._specs.learn(specs, (assigned.task for assigned in assignments.tasks))
        try:
            await self._apply(assignments)
        except SwarmError as error:  # nothing was recorded: the next session brings it again
            LOG.error("assignments could not be taken up: %s", error.text)
            self._reopen(error.text)
            return
        self._specs.forget(assignments.removed)
        self._sequence = assignments.sequence
        if assignments.full and not self._swept:
            self._swept = True
            for executor in self._config.executors.values():
                self.job(self._look_for_leftovers, executor)

    async def _apply(self, assignments: Assignments) -> None:
        newer = [self._stored(assigned.task) for assigned in assignments.tasks]
        await self._store.assign(newer)
        for stored in newer:
            await self._assign(stored)
        gone: Iterable[TaskId] = assignments.removed
        if assignments.full:
            mentioned = {stored.task.id for stored in newer}
            gone = [id for id in self._tasks if id not in mentioned]
        for id in gone:
            await self._remove(id)

    def _stored(self, task: Task) -> StoredTask:
        """The task with its spec. A known task keeps its own status, and what is wanted of it never goes back."""
        known = self._tasks.get(task.id)
        spec = self._specs.get(task)
        if spec is None and known is not None:
            spec = known.stored.spec
        if spec is None:
            raise SwarmError(ErrorCode.INVALID, f"task {task.id} was assigned without the spec that it is made from")
        if known is None:
            return StoredTask(task, spec, task.status)
        return StoredTask(evolve(task, desired=max(task.desired, known.stored.task.desired)), spec)

    async def _assign(self, stored: StoredTask) -> None:
        known = self._tasks.get(stored.task.id)
        if known is None:
            self._tasks[stored.task.id] = _Known(stored)
            await self._supervise(stored.task.id)
            return
        known.stored = evolve(stored, status=known.stored.status)
        if known.ref is not None:
            await known.ref.tell(Wanted(stored.task.desired))

    async def _remove(self, id: TaskId) -> None:
        known = self._tasks.get(id)
        if known is not None and known.ref is not None and id not in self._removing:
            self._removing.add(id)
            await known.ref.tell(RemoveTask())

    async def _supervise(self, id: TaskId) -> None:
        """Start the task's supervisor, which also survives crashes with the newest status."""
        known = self._tasks[id]
        workload = self._workload(known.stored)
        executor = self._config.executors.get(workload.spec.task.runtime_kind)
        assert self._scope is not None, "tasks are supervised once their scope is open"
        assert self._reporter is not None, "the reporter is started before the supervisors"
        reporter = self._reporter

        def make() -> TaskActor:
            before = known.actor
            if before is not None:
                known.crashes += 1
            known.actor = TaskActor(
                workload,
                _status_of(known.stored) if before is None else before.status,
                known.stored.task.desired,
                executor,
                reporter,
                self.ref,
                self._clock,
                self._entropy,
                crashes=known.crashes,
                removing=id in self._removing,
            )
            return known.actor

        known.ref = await self._scope.start(f"task/{id}", make, restart=Restart(intensity=LIVES_MAX))

    def _workload(self, stored: StoredTask) -> Workload:
        task = stored.task
        return Workload(
            task_id=task.id,
            service_id=task.service_id,
            revision=task.revision,
            slot=task.slot,
            node_id=self._config.node_id,
            hostname=self._config.hostname,
            spec=stored.spec,
            generic=task.generic,
            description=self._description,
        )

    # --- removal ---------------------------------------------------------------------------------------------------
    @on(TaskRemoved)
    async def task_removed(self, message: TaskRemoved, turn: Turn[None]) -> None:
        """Forget it: in the record last, so that a crash before only repeats the removal."""
        id = message.task_id
        known = self._tasks.pop(id, None)
        self._removing.discard(id)
        if known is None:
            return
        if known.ref is not None and self._scope is not None:
            await self._scope.end(known.ref, "the task was removed")
        if self._reporter is not None:
            await self._reporter.tell(ForgetTask(id))
        try:
            await self._store.assign((), [id])
        except SwarmError as error:
            LOG.error("removed task %s stays in the record, and is removed again later: %s", id, error.text)
        self._tell_left()

    @on(_Leftovers)
    def leftovers(self, message: _Leftovers, turn: Turn[None]) -> None:
        """Remove what nobody owns."""
        executor = self._config.executors[message.kind]
        for id in sorted(message.ids - self._tasks.keys()):
            self.job(self._discard, executor, id)

    async def _look_for_leftovers(self, executor: Executor) -> None:
        while True:
            try:
                ids = await executor.known_tasks()
            except ExecutorError as error:
                LOG.info("%s cannot say which tasks it has: %s", executor.kind, error)
                await trio.sleep(LEFTOVERS_RETRY_S)
                continue
            await self.ref.tell(_Leftovers(executor.kind, ids))
            return

    async def _discard(self, executor: Executor, id: TaskId) -> None:
        LOG.info("removing what is left of task %s: no manager knows it", id)
        while True:
            try:
                await executor.discard(id)
            except ExecutorError as error:
                LOG.warning("task %s leaves something behind for now: %s", id, error)
                await trio.sleep(LEFTOVERS_RETRY_S)
                continue
            return

    # --- what others ask -------------------------------------------------------------------------------------------
    @on(GetAgentStatus)
    def status(self, request: GetAgentStatus, turn: Turn[AgentStatus]) -> None:
        """How the agent stands now."""
        session = self._session
        status = AgentStatus(
            registered=session is not None,
            waiting=self._waiting,
            executors=tuple(sorted(self._config.executors)),
            leader=session.manager if session is not None else NodeId(""),
            refused=self._refused,
        )
        self.answer_in_job(turn, self._with_running, status)

    async def _with_running(self, status: AgentStatus) -> AgentStatus:
        if self._reporter is None:
            return status
        statuses = await self._reporter.ask(GetStatuses(), timeout_s=ASK_TIMEOUT_S)
        return evolve(status, running=sum(one.state is TaskState.RUNNING for one in statuses.values()))

    @on(RemoveAllTasks)
    async def leave(self, request: RemoveAllTasks, turn: Turn[None]) -> None:
        """Answered when nothing is left."""
        self._leaving.append(turn.defer())
        for id in tuple(self._tasks):
            await self._remove(id)
        self._tell_left()

    def _tell_left(self) -> None:
        if not self._tasks:
            for later in self._leaving:
                later.answer(None)

    @on(LeaveSession)
    def leave_session(self, request: LeaveSession, turn: Turn[None]) -> None:
        """Answered by the dispatcher."""
        session = self._session
        if session is None:
            raise SwarmError(ErrorCode.UNAVAILABLE, f"no manager can be told now: {self._waiting}")
        self.answer_in_job(turn, self._leave_node, session)

    async def _leave_node(self, session: SessionUp) -> None:
        await session.dispatcher.ask(LeaveNode(session.session_id), timeout_s=ASK_TIMEOUT_S)

    @on(ReadLogs)
    def read_logs(self, request: ReadLogs, turn: StreamTurn[TaskLogLine]) -> None:
        """The output of these tasks, merged, until the reader leaves or it has ended."""
        controllers = {}
        for id in request.task_ids:
            known = self._tasks.get(id)
            if known is None:
                continue
            executor = self._config.executors.get(known.stored.spec.task.runtime_kind)
            if executor is not None:
                controllers[id] = (executor, self._workload(known.stored))
        job = self.job(send_logs, turn.sink, controllers, request.options, self._config.node_id, name="logs")
        turn.sink.on_close(job.cancel)

    # --- the machine -----------------------------------------------------------------------------------------------
    async def _describe(self) -> NodeDescription:
        """The machine as its executors see it; one that does not answer is left out."""
        description = self._config.base()
        for executor in self._config.executors.values():
            with trio.move_on_after(DESCRIBE_TIMEOUT_S):
                try:
                    description = await executor.describe(description)
                except ExecutorError as error:
                    LOG.info("%s does not describe this machine now: %s", executor.kind, error)
        return description


def _status_of(stored: StoredTask) -> TaskStatus:
    return stored.task.status if stored.status is None else stored.status
