"""The worker's side against a scripted dispatcher and a simulated machine, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
from attrs import define, evolve, field, frozen

from swarm.actors.agent import Agent, AgentConfig
from swarm.actors.session_messages import AgentStatus, GetAgentStatus, LeaveSession, RemoveAllTasks, SessionNews
from swarm.executors.base import ExecutorError, LogOptions, Workload
from swarm.model.ids import Instant, NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.objects import Node, Task, TaskStatus
from swarm.model.specs import ContainerSpec, NodeDescription, ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.runtime import (
    Actor,
    ErrorCode,
    LocalRef,
    Message,
    Scope,
    Sink,
    StreamTurn,
    SwarmError,
    Turn,
    on,
    open_scope,
)
from swarm.testing.executor import Script, SimulatedController, SimulatedExecutor, SimulatedMachine, scripts_by_service
from swarm.testing.task_store import MemoryTaskStore
from swarm.wire.messages.dispatcher import (
    AssignedSpec,
    AssignedTask,
    Assignments,
    DescribeNode,
    Heartbeat,
    HeartbeatReply,
    LeaveNode,
    ManagerAddress,
    OpenSession,
    ReportAccepted,
    ReportStatus,
    SessionChanged,
    SessionItem,
    SessionOpened,
)
from swarm.wire.messages.node import ReadLogs

S = TaskState
ME = NodeId("me")
STOPPING = [S.SHUTDOWN, S.REMOVE]


class TrioClock:
    def now(self) -> Instant:
        return Instant(1000.0 + trio.current_time())

    def monotonic(self) -> float:
        return trio.current_time()


class Highest:
    """Entropy without surprises: jitter is always the longest."""

    def bytes(self, size: int) -> bytes:
        return bytes(size)

    def uniform(self, low: float, high: float) -> float:
        return high

    def integer(self, low: int, high: int) -> int:
        return high

    def new(self) -> str:
        return "x" * 25


@frozen
class Send(Message):
    item: SessionItem


@frozen
class Hang(Message):
    """End the session's stream."""


class FakeDispatcher(Actor):
    """Answers; the test says what it refuses and what it sends."""

    def __init__(self) -> None:
        self.sink: Sink[SessionItem] | None = None
        self.opened_at: list[float] = []
        self.descriptions: list[NodeDescription] = []
        self.heartbeats: list[float] = []
        self.reports: list[tuple[float, TaskId, TaskState]] = []
        self.batches: list[int] = []
        self.statuses: dict[TaskId, TaskStatus] = {}
        self.refuse_open: SwarmError | None = None
        self.refuse_report: Callable[[ReportStatus], SwarmError | None] = lambda request: None
        self.refuse_heartbeat: SwarmError | None = None
        self.first: tuple[SessionItem, ...] = ()
        self.left: list[str] = []

    @property
    def session(self) -> str:
        return f"session{len(self.opened_at)}"

    @on(OpenSession)
    def open(self, request: OpenSession, turn: StreamTurn[SessionItem]) -> None:
        self.opened_at.append(trio.current_time())
        self.descriptions.append(request.description)
        if self.refuse_open is not None:
            raise self.refuse_open
        self.sink = turn.sink
        turn.sink.offer(SessionOpened(self.session, 5.0))
        for item in self.first:
            turn.sink.offer(item)

    @on(Heartbeat)
    def heartbeat(self, request: Heartbeat, turn: Turn[HeartbeatReply]) -> HeartbeatReply:
        assert request.session_id == self.session
        self.heartbeats.append(trio.current_time())
        if self.refuse_heartbeat is not None:
            raise self.refuse_heartbeat
        return HeartbeatReply(4.0)

    @on(ReportStatus)
    def report(self, request: ReportStatus, turn: Turn[ReportAccepted]) -> ReportAccepted:
        error = self.refuse_report(request)
        self.batches.append(len(request.reports))
        if error is not None:
            raise error
        for report in request.reports:
            self.reports.append((trio.current_time(), report.task_id, report.status.state))
            self.statuses[report.task_id] = report.status
        return ReportAccepted()

    @on(DescribeNode)
    def describe(self, request: DescribeNode, turn: Turn[ReportAccepted]) -> ReportAccepted:
        self.descriptions.append(request.description)
        return ReportAccepted()

    @on(LeaveNode)
    def leave(self, request: LeaveNode, turn: Turn[None]) -> None:
        self.left.append(request.session_id)

    @on(Send)
    def send(self, message: Send, turn: Turn[None]) -> None:
        assert self.sink is not None
        assert self.sink.offer(message.item)

    @on(Hang)
    def hang(self, message: Hang, turn: Turn[None]) -> None:
        assert self.sink is not None
        self.sink.close()

    def states(self, name: str) -> list[TaskState]:
        return [state for _, id, state in self.reports if id == name]


class Front(Actor):
    """The actor `node`."""

    def __init__(self) -> None:
        self.news: list[SessionNews] = []

    @on(SessionNews)
    def take(self, news: SessionNews, turn: Turn[None]) -> None:
        self.news.append(news)


@define
class Connection:
    dispatcher: LocalRef
    goods: list[bool]
    gone: trio.Event
    node_id: NodeId = NodeId("manager1")

    async def closed(self) -> str:
        await self.gone.wait()
        return "the link is gone"

    def done(self, *, good: bool, error: SwarmError | None = None) -> None:
        self.goods.append(good)


@define
class Finder:
    dispatcher: LocalRef
    goods: list[bool] = field(factory=list)
    known: tuple[ManagerAddress, ...] = ()
    gone: trio.Event = field(factory=trio.Event)
    error: SwarmError | None = None

    async def connect(self) -> Connection:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.gone = trio.Event()
        return Connection(self.dispatcher, self.goods, self.gone)

    def learn(self, managers: tuple[ManagerAddress, ...]) -> None:
        self.known = managers


@define
class Bench:
    """Everything that outlives an agent."""

    machine: SimulatedMachine = field(factory=SimulatedMachine)
    store: MemoryTaskStore = field(factory=MemoryTaskStore)
    dispatcher: FakeDispatcher = field(factory=FakeDispatcher)
    sequence: int = 0
    base: NodeDescription = NodeDescription("me")
    front: Front = field(factory=Front)
    scope: Scope = field(init=False)
    dispatcher_ref: LocalRef = field(init=False)
    finder: Finder = field(init=False)
    executor_class: type[SimulatedExecutor] = SimulatedExecutor
    agent_class: type[Agent] = Agent

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[LocalRef]:
        """One life of the agent; leaving stops it in order, and tasks go on."""
        async with open_scope("test") as outside:
            self.scope = outside
            self.dispatcher_ref = await outside.start("dispatcher", lambda: self.dispatcher)
            self.finder = Finder(self.dispatcher_ref)
            async with outside.open("node") as node:
                front = await node.start("node", lambda: self.front)
                config = AgentConfig(ME, "me", {"process": self.executor_class(self.machine)}, lambda: self.base)
                yield await node.start(
                    "agent", lambda: self.agent_class(config, self.store, self.finder, front, TrioClock(), Highest())
                )

    def assignments(self, *tasks: Task, full: bool = False, removed: tuple[str, ...] = ()) -> Assignments:
        self.sequence += 1
        specs = {(task.service_id, task.revision): spec_of(task) for task in tasks}
        return Assignments(
            self.sequence,
            full,
            tuple(AssignedSpec(service, revision, spec) for (service, revision), spec in specs.items()),
            tuple(AssignedTask(task) for task in tasks),
            tuple(TaskId(id) for id in removed),
        )

    async def send(self, *tasks: Task, full: bool = False, removed: tuple[str, ...] = ()) -> None:
        await self.dispatcher_ref.tell(Send(self.assignments(*tasks, full=full, removed=removed)))

    def did(self, name: str) -> list[str]:
        return [what for _, what, id in self.machine.history if id == name]


def spec_of(task: Task) -> ServiceSpec:
    runtime: Any = ContainerSpec("busybox") if task.service_id == "container" else ProcessSpec(("sleep", "1"))
    return ServiceSpec(task.service_id, TaskSpec(runtime))


def task(name: str, desired: TaskState = S.RUNNING, service: str = "web") -> Task:
    return Task(
        TaskId(name),
        ServiceId(service),
        RevisionNumber(1),
        Slot(1),
        ME,
        desired,
        TaskStatus(S.ASSIGNED),
    )


# --- tasks ---------------------------------------------------------------------------------------------------------
async def test_a_task_goes_its_way_and_each_state_is_recorded_then_reported(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"job": Script(prepare_s=1, start_s=1, runs_s=3)})))
    bench.dispatcher.first = (bench.assignments(task("a", S.COMPLETE, "job"), full=True),)
    async with bench.agent():
        await trio.sleep(20)
        assert bench.dispatcher.states("a")[-1] is S.COMPLETE
        assert [state for state in bench.dispatcher.states("a") if state in (S.PREPARING, S.STARTING, S.RUNNING)] == [
            S.PREPARING,
            S.STARTING,
            S.RUNNING,
        ]
        status = bench.dispatcher.statuses[TaskId("a")]
        assert (status.exit_code, status.error, status.at) == (0, "", 1005.0)
        assert bench.store.tasks[TaskId("a")].status == status
        assert bench.did("a") == ["prepared", "started"]


@pytest.mark.parametrize(
    ("script", "state", "error"),
    [
        (Script(prepare_error="no such program"), S.REJECTED, "no such program"),
        (Script(start_error="port 80 is taken"), S.FAILED, "port 80 is taken"),
        (Script(runs_s=1, exit_code=3), S.FAILED, "exited with code 3"),
    ],
)
async def test_failures_before_starting_reject_and_later_ones_fail(
    script: Script, state: TaskState, error: str, autojump_clock: Any
) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": script})))
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    async with bench.agent():
        await trio.sleep(5)
        status = bench.dispatcher.statuses[TaskId("a")]
        assert (status.state, status.error) == (state, error)


async def test_a_runtime_that_is_not_here_rejects_the_task(autojump_clock: Any) -> None:
    bench = Bench()
    bench.dispatcher.first = (bench.assignments(task("a", service="container"), full=True),)
    async with bench.agent():
        await trio.sleep(5)
        status = bench.dispatcher.statuses[TaskId("a")]
        assert status.state is S.REJECTED and "cannot run docker tasks" in status.error


async def test_temporary_errors_are_tried_again_with_growing_pauses(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": Script(temporary_errors=3)})))
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    async with bench.agent():
        await trio.sleep(0.4)
        status = bench.dispatcher.statuses[TaskId("a")]
        assert (status.state, status.error) == (S.PREPARING, "the simulated runtime does not answer")
        await trio.sleep(10)
        status = bench.dispatcher.statuses[TaskId("a")]
        assert (status.state, status.error) == (S.RUNNING, "")
        assert bench.machine.history[0][0] == pytest.approx(0.5 + 1 + 2)


async def test_a_task_pauses_at_ready_until_it_is_wanted(autojump_clock: Any) -> None:
    bench = Bench()
    bench.dispatcher.first = (bench.assignments(task("a", S.READY), full=True),)
    async with bench.agent():
        await trio.sleep(5)
        assert bench.dispatcher.states("a")[-1] is S.READY
        assert bench.did("a") == ["prepared"]
        await bench.send(task("a", S.RUNNING))
        await trio.sleep(1)
        assert bench.dispatcher.states("a")[-1] is S.RUNNING
        await bench.send(task("a", S.READY))  # never back
        await trio.sleep(1)
        assert bench.store.tasks[TaskId("a")].task.desired is S.RUNNING
        assert bench.dispatcher.states("a")[-1] is S.RUNNING


@pytest.mark.parametrize("desired", STOPPING)
@pytest.mark.parametrize("after_s", [0.5, 1.5, 5.0])
async def test_a_stop_acts_at_once_in_every_state(desired: TaskState, after_s: float, autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": Script(prepare_s=1, start_s=1, stop_s=2)})))
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    async with bench.agent():
        await trio.sleep(after_s)
        await bench.send(task("a", desired))
        await trio.sleep(0.001)
        if after_s > 2:
            assert bench.machine.history[-1] == (pytest.approx(after_s), "signalled", "a")
        await trio.sleep(3)
        status = bench.dispatcher.statuses[TaskId("a")]
        assert (status.state, status.error) == (S.SHUTDOWN, "")
        assert bench.dispatcher.reports[-1][0] == pytest.approx(after_s + (2 if after_s > 2 else 0), abs=0.01)
        assert status.exit_code == (143 if after_s > 2 else None)


async def test_a_stop_does_not_wait_for_the_pause_after_an_error(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": Script(temporary_errors=100)})))
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    async with bench.agent():
        await trio.sleep(20.2)
        await bench.send(task("a", S.SHUTDOWN))
        await trio.sleep(0.01)
        assert bench.dispatcher.states("a")[-1] is S.SHUTDOWN


async def test_removed_tasks_are_stopped_and_forgotten(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": Script(stop_s=2)})))
    bench.dispatcher.first = (bench.assignments(task("a"), task("b"), task("c"), full=True),)
    async with bench.agent():
        await trio.sleep(1)
        await bench.send(removed=("a", "unknown"))
        await trio.sleep(5)
        assert bench.did("a") == ["prepared", "started", "signalled", "removed"]
        assert set(bench.store.tasks) == {"b", "c"}
        # a full set removes what is not in it
        await bench.send(task("b"), full=True)
        await trio.sleep(5)
        assert set(bench.store.tasks) == set(bench.machine.tasks) == {"b"}


async def test_what_nobody_owns_is_removed_after_the_first_full_set(autojump_clock: Any) -> None:
    bench = Bench()
    stray = SimulatedExecutor(bench.machine).controller(
        Workload(TaskId("stray"), ServiceId("web"), RevisionNumber(1), Slot(1), ME, "me", spec_of(task("stray")))
    )
    await stray.prepare()
    await stray.start()
    async with bench.agent():
        await trio.sleep(5)
        assert len(bench.machine.running()) == 1  # nobody has said what is owned
        await bench.send(task("a"), full=True)
        await trio.sleep(5)
        assert [workload.task_id for workload in bench.machine.running()] == ["a"]


# --- restarts of the agent -------------------------------------------------------------------------------------------
async def test_tasks_outlive_the_agent_and_are_adopted(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"short": Script(runs_s=30), "web": Script()})))
    bench.dispatcher.first = (
        bench.assignments(task("a"), task("b", S.COMPLETE, "short"), task("c", S.READY), full=True),
    )
    async with bench.agent():
        await trio.sleep(5)
    assert len(bench.machine.running()) == 2
    await trio.sleep(100)  # b ends while nobody looks
    bench.dispatcher = FakeDispatcher()
    bench.dispatcher.refuse_open = SwarmError(ErrorCode.UNAVAILABLE, "no leader")
    history = list(bench.machine.history)
    async with bench.agent() as agent:
        await trio.sleep(1)
        # before any session: adopted from the record, b's end was found, nothing was started twice
        assert bench.machine.history == history
        assert bench.store.tasks[TaskId("b")].status == evolve(
            bench.store.tasks[TaskId("b")].status or TaskStatus(), state=S.COMPLETE, exit_code=0
        )
        assert (await agent.ask(GetAgentStatus(), timeout_s=1)).running == 1
        bench.dispatcher.refuse_open = None
        await trio.sleep(10)
        # on registration every status is reported anew
        assert {id: status.state for id, status in bench.dispatcher.statuses.items()} == {
            "a": S.RUNNING,
            "b": S.COMPLETE,
            "c": S.READY,
        }


@frozen
class Bomb(Message):
    pass


class CrashingAgent(Agent):
    @on(Bomb)
    def explode(self, message: Bomb, turn: Turn[None]) -> None:
        raise RuntimeError("a bug in the agent")


async def test_a_crash_of_the_agent_does_not_touch_the_tasks(autojump_clock: Any) -> None:
    bench = Bench(agent_class=CrashingAgent)
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    async with bench.agent() as agent:
        await trio.sleep(5)
        history = list(bench.machine.history)
        await agent.tell(Bomb())
        await trio.sleep(5)
        assert bench.machine.history == history
        assert len(bench.dispatcher.opened_at) == 2
        status = await agent.ask(GetAgentStatus(), timeout_s=1)
        assert (status.registered, status.running) == (True, 1)


class BuggyController(SimulatedController):
    async def start(self) -> Any:
        raise RuntimeError("a bug in an executor")


class BuggyExecutor(SimulatedExecutor):
    def controller(self, workload: Workload) -> SimulatedController:
        if workload.spec.name == "bad-start":
            return BuggyController(self._machine, workload)
        if workload.spec.name == "bad":
            raise RuntimeError("a bug in an executor")
        return super().controller(workload)


async def test_an_executor_with_a_bug_fails_its_task_only(autojump_clock: Any) -> None:
    bench = Bench(executor_class=BuggyExecutor)
    tasks = (task("a"), task("b", service="bad-start"), task("c", service="bad"))
    bench.dispatcher.first = (bench.assignments(*tasks, full=True),)
    async with bench.agent():
        await trio.sleep(5)
        assert len(bench.dispatcher.opened_at) == 1
        statuses = bench.dispatcher.statuses
        assert {id: status.state for id, status in statuses.items()} == {
            "a": S.RUNNING,
            "b": S.FAILED,
            "c": S.REJECTED,
        }
        assert "failed 3 times in a way that is a bug" in statuses[TaskId("b")].error
        await bench.send(task("a"), full=True)
        await trio.sleep(5)
        assert set(bench.store.tasks) == {"a"}


# --- sessions ------------------------------------------------------------------------------------------------------
async def test_heartbeats_come_in_the_rhythm_that_is_asked_for(autojump_clock: Any) -> None:
    bench = Bench()
    async with bench.agent():
        await trio.sleep(20)
        assert bench.dispatcher.heartbeats == [5, 9, 13, 17]


async def test_any_failure_ends_the_session_and_pauses_grow_until_one_is_registered(autojump_clock: Any) -> None:
    bench = Bench()
    bench.dispatcher.refuse_open = SwarmError(ErrorCode.UNAVAILABLE, "no leader")
    async with bench.agent() as agent:
        await trio.sleep(30)
        opened = bench.dispatcher.opened_at
        pauses = [round(later - earlier, 3) for earlier, later in pairwise(opened)]
        assert pauses[:8] == [0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 8.0, 8.0]
        status = await agent.ask(GetAgentStatus(), timeout_s=1)
        assert status == AgentStatus(False, "no leader", ("process",))
        bench.dispatcher.refuse_open = None
        await trio.sleep(8)
        bench.dispatcher.heartbeats.clear()
        at = trio.current_time()
        await bench.dispatcher_ref.tell(Hang())
        await trio.sleep(1)
        assert bench.dispatcher.opened_at[-1] == pytest.approx(at + 0.1)
        bench.dispatcher.refuse_heartbeat = SwarmError(ErrorCode.NOT_FOUND, "no such session")
        count = len(bench.dispatcher.opened_at)
        await trio.sleep(5)
        assert len(bench.dispatcher.opened_at) == count + 1
        bench.dispatcher.refuse_heartbeat = None
        bench.finder.gone.set()
        await trio.sleep(1)
        assert len(bench.dispatcher.opened_at) == count + 2
        status = await agent.ask(GetAgentStatus(), timeout_s=1)
        assert (status.registered, status.leader, status.waiting) == (True, "manager1", "")
        assert bench.finder.goods[-1] and not bench.finder.goods[0]


async def test_a_refusal_of_this_node_is_kept_until_it_is_registered(autojump_clock: Any) -> None:
    bench = Bench()
    bench.dispatcher.refuse_open = SwarmError(ErrorCode.DENIED, "this node was removed")
    async with bench.agent() as agent:
        await trio.sleep(1)
        bench.dispatcher.refuse_open = SwarmError(ErrorCode.UNAVAILABLE, "no leader")
        await trio.sleep(20)
        status = await agent.ask(GetAgentStatus(), timeout_s=1)
        assert (status.waiting, status.refused) == ("no leader", "this node was removed")
        bench.dispatcher.refuse_open = None
        await trio.sleep(20)
        status = await agent.ask(GetAgentStatus(), timeout_s=1)
        assert (status.registered, status.refused) == (True, "")


async def test_a_gap_in_the_sequence_opens_one_new_session(autojump_clock: Any) -> None:
    bench = Bench()
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    async with bench.agent():
        await trio.sleep(1)
        bench.sequence += 1
        for name in ("b", "c", "d"):
            bench.dispatcher_ref.offer(Send(bench.assignments(task(name))))
        bench.dispatcher.first = (bench.assignments(task("a"), task("z"), full=True),)
        await trio.sleep(10)
        assert len(bench.dispatcher.opened_at) == 2
        assert set(bench.store.tasks) == {"a", "z"}


async def test_a_task_without_its_spec_is_a_gap(autojump_clock: Any) -> None:
    bench = Bench()
    async with bench.agent():
        await trio.sleep(1)
        whole = bench.assignments(task("a"), full=True)
        await bench.dispatcher_ref.tell(Send(evolve(whole, specs=())))
        bench.dispatcher.first = (whole,)
        await trio.sleep(1)
        assert len(bench.dispatcher.opened_at) == 2
        assert set(bench.store.tasks) == {"a"}


async def test_assignments_that_cannot_be_recorded_are_asked_for_again(autojump_clock: Any) -> None:
    bench = Bench()
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    bench.store.refusing = "the disk is full"
    async with bench.agent() as agent:
        await trio.sleep(2)
        assert bench.machine.history == []
        assert len(bench.dispatcher.opened_at) > 2
        bench.store.refusing = ""
        await trio.sleep(5)
        assert bench.did("a") == ["prepared", "started"]
        assert (await agent.ask(GetAgentStatus(), timeout_s=1)).running == 1


async def test_an_agent_that_stops_while_the_disk_is_full_does_not_crash(autojump_clock: Any, caplog: Any) -> None:
    bench = Bench()
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    async with bench.agent():
        await trio.sleep(2)
        bench.store.refusing = "the disk is full"
        bench.machine.power_off()
        await trio.sleep(1)
    assert [record.getMessage() for record in caplog.records if "crashed" in record.getMessage()] == []
    assert "1 statuses are not recorded: the disk is full" in caplog.text


async def test_a_changed_machine_is_described_again(autojump_clock: Any) -> None:
    bench = Bench()
    async with bench.agent():
        await trio.sleep(50)
        assert len(bench.dispatcher.descriptions) == 1
        assert bench.dispatcher.descriptions[0].executors == ("process",)
        bench.base = evolve(bench.base, hostname="renamed")
        await trio.sleep(20)
        assert [description.hostname for description in bench.dispatcher.descriptions] == ["me", "renamed"]
        assert len(bench.dispatcher.opened_at) == 1


async def test_an_executor_that_does_not_answer_is_left_out_of_the_description(autojump_clock: Any) -> None:
    class Broken(SimulatedExecutor):
        async def describe(self, base: NodeDescription) -> NodeDescription:
            raise ExecutorError("the engine does not answer")

    bench = Bench(executor_class=Broken)
    async with bench.agent():
        await trio.sleep(1)
        assert bench.dispatcher.descriptions[0].executors == ()


async def test_news_of_the_session_go_to_the_node_and_the_finder(autojump_clock: Any) -> None:
    bench = Bench()
    managers = (ManagerAddress(NodeId("m1"), "10.0.0.1:4242"),)
    bench.dispatcher.first = (SessionChanged(Node(ME), managers, b"roots"),)
    async with bench.agent():
        await trio.sleep(1)
        assert bench.front.news == [SessionNews(Node(ME), managers, b"roots")]
        assert bench.finder.known == managers


# --- reports -------------------------------------------------------------------------------------------------------
async def test_reports_are_sent_until_accepted_and_only_the_newest(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": Script(prepare_s=0.1, start_s=0.1, runs_s=1)})))
    bench.dispatcher.refuse_report = lambda request: SwarmError(ErrorCode.UNAVAILABLE, "leadership lost")
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    async with bench.agent():
        await trio.sleep(10)
        assert bench.dispatcher.reports == []
        assert bench.store.tasks[TaskId("a")].status is not None
        bench.dispatcher.refuse_report = lambda request: None
        await trio.sleep(10)
        assert bench.dispatcher.states("a") == [S.COMPLETE]


async def test_many_changes_travel_together(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": Script(prepare_s=1, runs_s=5)})))
    bench.dispatcher.first = (bench.assignments(*(task(f"t{n:03}") for n in range(200)), full=True),)
    async with bench.agent():
        await trio.sleep(20)
        assert {status.state for status in bench.dispatcher.statuses.values()} == {S.COMPLETE}
        assert len(bench.dispatcher.statuses) == 200
        assert len(bench.dispatcher.batches) < 30


async def test_one_task_that_is_refused_does_not_hold_up_the_others(autojump_clock: Any) -> None:
    bench = Bench()
    bench.dispatcher.refuse_report = lambda request: (
        SwarmError(ErrorCode.DENIED, "not yours") if any(one.task_id == "b" for one in request.reports) else None
    )
    bench.dispatcher.first = (bench.assignments(task("a"), task("b"), task("c"), full=True),)
    async with bench.agent():
        await trio.sleep(5)
        assert set(bench.dispatcher.statuses) == {"a", "c"}
        assert {status.state for status in bench.dispatcher.statuses.values()} == {S.RUNNING}


async def test_a_status_is_recorded_before_it_is_reported_and_at_a_stop(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": Script(prepare_s=2)})))
    bench.store.write_s = 0.5
    seen: list[bool] = []

    def recorded(request: ReportStatus) -> None:
        for report in request.reports:
            stored = bench.store.tasks[report.task_id].status
            assert stored is not None
            seen.append(stored.state >= report.status.state)

    bench.dispatcher.refuse_report = recorded
    bench.dispatcher.first = (bench.assignments(task("a"), full=True),)
    async with bench.agent():
        await trio.sleep(2.51)  # prepared a moment ago, not recorded yet
        stored = bench.store.tasks[TaskId("a")].status
        assert stored is not None and stored.state < S.READY
    stored = bench.store.tasks[TaskId("a")].status
    assert stored is not None and stored.state is S.RUNNING
    assert seen and all(seen)


# --- leaving, logs -------------------------------------------------------------------------------------------------
async def test_leaving_removes_every_task_and_takes_no_more(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": Script(stop_s=3)})))
    bench.dispatcher.first = (bench.assignments(task("a"), task("b"), full=True),)
    async with bench.agent() as agent:
        await trio.sleep(1)
        await agent.ask(RemoveAllTasks(), timeout_s=60)
        assert trio.current_time() == pytest.approx(4)
        assert bench.machine.tasks == {} and bench.store.tasks == {}
        await bench.send(task("c"))
        await trio.sleep(1)
        assert bench.machine.tasks == {}
        await agent.ask(RemoveAllTasks(), timeout_s=1)
        await agent.ask(LeaveSession(), timeout_s=1)
        assert bench.dispatcher.left == ["session1"]


async def test_leaving_without_a_session_is_refused(autojump_clock: Any) -> None:
    bench = Bench()
    bench.dispatcher.refuse_open = SwarmError(ErrorCode.UNAVAILABLE, "no leader")
    async with bench.agent() as agent:
        await trio.sleep(1)
        with pytest.raises(SwarmError, match="no manager can be told now: no leader"):
            await agent.ask(LeaveSession(), timeout_s=1)


async def test_logs_are_merged_and_end(autojump_clock: Any) -> None:
    bench = Bench(SimulatedMachine(scripts_by_service({"web": Script(out=("one", "two"), runs_s=10)})))
    bench.dispatcher.first = (bench.assignments(task("a"), task("b"), full=True),)
    async with bench.agent() as agent:
        await trio.sleep(1)
        ids = (TaskId("a"), TaskId("b"), TaskId("unknown"))
        async with agent.stream(ReadLogs(ids, LogOptions())) as inlet:
            lines = [(line.task_id, line.data) async for line in inlet]
        assert sorted(lines) == [("a", b"one"), ("a", b"two"), ("b", b"one"), ("b", b"two")]
        async with agent.stream(ReadLogs(ids, LogOptions(follow=True)), window=1) as inlet:
            async for _ in inlet:
                pass
        assert trio.current_time() == pytest.approx(10)
        async with agent.stream(ReadLogs(ids, LogOptions(follow=True)), window=1) as inlet:
            await inlet.receive()
