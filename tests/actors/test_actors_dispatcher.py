"""The dispatcher: registration, heartbeats, shares, reports, and what ends a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from attrs import define, evolve

from swarm.actors.dispatcher import Dispatcher
from swarm.model.changes import Advance, Assign, Change, Create, Delete, Kind, Update
from swarm.model.ids import ClusterId, Instant, NodeId, RaftId, RevisionNumber, ServiceId, TaskId, Version
from swarm.model.objects import Cluster, ManagerStatus, Node, NodeStatus, Revision, Service, Task, TaskStatus
from swarm.model.specs import (
    ClusterSettings,
    NodeDescription,
    NodeSpec,
    ProcessSpec,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.states import Membership, NodeState, Role, TaskState
from swarm.model.store import Store
from swarm.ports.entropy import SystemEntropy
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.local import LocalRef
from swarm.runtime.ref import Caller, Inlet
from swarm.runtime.scope import open_scope
from swarm.testing.local_store import HoldProposals, LocalStoreActor, RefuseProposals, Replay
from swarm.wire.messages.dispatcher import (
    Assignments,
    DescribeNode,
    Heartbeat,
    LeaveNode,
    OpenSession,
    ReportStatus,
    SessionChanged,
    SessionItem,
    SessionOpened,
    TaskReport,
)

NOW = 1.8e9
N1, N2 = NodeId("n1"), NodeId("n2")
SPEC = ServiceSpec("web", TaskSpec(ProcessSpec(("true",))))
SERVICE = Service(ServiceId("s"), SPEC)
HOST = NodeDescription(hostname="host1")


class TrioClock:
    def now(self) -> Instant:
        return Instant(NOW + trio.current_time())

    def monotonic(self) -> float:
        return trio.current_time()


def caller(node_id: str = N1, role: str = "worker", address: str = "10.0.0.7:555") -> Caller:
    return Caller(node_id, role, "c", address)


def task(number: int, node: str = N1, state: TaskState = TaskState.ASSIGNED) -> Task:
    return Task(
        TaskId(f"t{number}"), SERVICE.id, RevisionNumber(1), node_id=NodeId(node), status=TaskStatus(state=state)
    )


@define
class Agent:
    """The agent's end of one session."""

    ref: LocalRef
    inlet: Inlet[SessionItem]
    who: Caller
    opened: SessionOpened

    async def next(self) -> SessionItem:
        with trio.fail_after(2):
            return await self.inlet.receive()

    async def nothing(self) -> None:
        with trio.move_on_after(1):
            item = await self.inlet.receive()
            raise AssertionError(f"unexpected: {item}")

    async def beat(self) -> float:
        return (await self.ref.ask(Heartbeat(self.opened.session_id), timeout_s=5, caller=self.who)).period_s

    async def report(self, *reports: tuple[str, TaskStatus]) -> None:
        items = tuple(TaskReport(TaskId(task_id), status) for task_id, status in reports)
        await self.ref.ask(ReportStatus(self.opened.session_id, items), timeout_s=60, caller=self.who)

    async def ended(self) -> SwarmError:
        with pytest.raises(SwarmError) as caught:
            with trio.fail_after(2):
                while True:
                    await self.inlet.receive()
        return caught.value


@define
class World:
    dispatcher: LocalRef
    store_ref: LocalRef
    actor: LocalStoreActor
    stack: AsyncExitStack

    @property
    def store(self) -> Store:
        return self.actor.store

    async def change(self, *changes: Change) -> None:
        await self.store_ref.ask(Replay(changes), timeout_s=5)

    def node(self, node_id: NodeId = N1) -> Node:
        node = self.store.node(node_id)
        assert node is not None
        return node

    def state(self, node_id: NodeId = N1) -> NodeState:
        return self.node(node_id).status.state

    def task(self, task_id: str) -> Task:
        found = self.store.task(TaskId(task_id))
        assert found is not None
        return found

    async def open(self, who: Caller | None = None, description: NodeDescription = HOST, window: int = 64) -> Agent:
        who = who or caller()
        stream = self.dispatcher.stream(OpenSession(description), window=window, caller=who)
        inlet = await self.stack.enter_async_context(stream)
        with trio.fail_after(2):
            opened = await inlet.receive()
        assert isinstance(opened, SessionOpened)
        return Agent(self.dispatcher, inlet, who, opened)

    async def ready(self, who: Caller | None = None) -> Agent:
        """A session whose first items were read."""
        agent = await self.open(who)
        assert isinstance(await agent.next(), SessionChanged)
        assert isinstance(await agent.next(), Assignments)
        return agent


@asynccontextmanager
async def world(*extra: Change, settings: ClusterSettings | None = None) -> AsyncIterator[World]:
    store = Store()
    actor = LocalStoreActor(store)
    cluster = Cluster(ClusterId("c"), settings or ClusterSettings(), root_certificate=b"root")
    base: tuple[Change, ...] = (
        Create(cluster), Create(SERVICE), Create(Revision(SERVICE.id, RevisionNumber(1), SPEC)), Create(Node(N1)),
        Create(Node(N2)),
    )  # fmt: skip
    results, _ = store.apply([base, extra] if extra else [base], Version(1))
    assert set(results) == {None}
    async with open_scope("leader") as scope, AsyncExitStack() as stack:
        store_ref = await scope.start("store", lambda: actor)
        ref = await scope.start("dispatcher", lambda: Dispatcher(store_ref, TrioClock(), SystemEntropy(), 1))
        yield World(ref, store_ref, actor, stack)


# --- registration --------------------------------------------------------------------------------------------------
async def test_a_node_registers_and_is_told_everything(autojump_clock: trio.testing.MockClock) -> None:
    async with world(Create(task(1)), Create(task(2, N2)), Create(task(3, state=TaskState.FAILED))) as here:
        agent = await here.open()
        assert 4.5 <= agent.opened.heartbeat_period_s <= 5.5
        news = await agent.next()
        assert isinstance(news, SessionChanged)
        assert news.node.id == N1 and news.managers == () and news.root_certificate == b"root"
        share = await agent.next()
        assert isinstance(share, Assignments) and share.full and share.sequence == 1
        assert [each.task.id for each in share.tasks] == ["t1", "t3"]
        assert [each.spec for each in share.specs] == [SPEC]
        node = here.node()
        assert node.status == NodeStatus(NodeState.READY, "", "10.0.0.7", node.status.since)
        assert node.description == HOST and node.status.since == pytest.approx(NOW, abs=1)


async def test_a_node_that_is_ready_already_finds_a_new_leader_without_a_write(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node(NodeId("n3"), status=NodeStatus(NodeState.READY, "", "10.0.0.7", Instant(NOW)), description=HOST)
    async with world(Create(node)) as here:
        await here.ready(caller("n3"))
        assert here.actor.proposals == []


async def test_registering_again_ends_the_earlier_session(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        first = await here.ready()
        second = await here.ready()
        assert first.opened.session_id != second.opened.session_id
        assert "another session" in (await first.ended()).text
        with pytest.raises(SwarmError) as caught:
            await first.beat()
        assert caught.value.code is ErrorCode.NOT_FOUND
        await second.beat()
        await trio.sleep(5)
        await second.beat()
        assert here.state() is NodeState.READY, "the end of the first session is no lost link"


async def test_a_fourth_quick_registration_is_refused_and_leaves_the_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as here:
        for _ in range(3):
            agent = await here.ready()
        with pytest.raises(SwarmError, match="too often") as caught:
            await here.open()
        assert caught.value.code is ErrorCode.UNAVAILABLE
        await agent.beat()
        await trio.sleep(9)
        await here.ready()


async def test_who_may_not_register(autojump_clock: trio.testing.MockClock) -> None:
    async with world(Create(Node(NodeId("p"), NodeSpec(membership=Membership.PENDING)))) as here:
        with pytest.raises(SwarmError, match="join it again") as caught:
            await here.open(caller("stranger"))
        assert caught.value.code is ErrorCode.NOT_FOUND
        with pytest.raises(SwarmError) as caught:
            await here.open(caller("p"))
        assert caught.value.code is ErrorCode.DENIED


async def test_a_registration_that_cannot_be_committed_fails(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        await here.store_ref.ask(RefuseProposals(SwarmError(ErrorCode.UNAVAILABLE, "no quorum")), timeout_s=1)
        with pytest.raises(SwarmError, match="no quorum"):
            await here.open()
        await here.store_ref.ask(RefuseProposals(None), timeout_s=1)
        await here.ready()


async def test_a_description_is_refreshed_without_a_new_session(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        new = evolve(HOST, engine_version="2")
        await here.dispatcher.ask(DescribeNode(agent.opened.session_id, new), timeout_s=5, caller=caller())
        assert here.node().description == new
        await agent.nothing()


# --- life and death ------------------------------------------------------------------------------------------------
async def test_heartbeats_write_nothing_and_keep_the_node_up(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        written = len(here.actor.proposals)
        for _ in range(30):
            assert 4.5 <= await agent.beat() <= 5.5
            await trio.sleep(5)
        assert here.state() is NodeState.READY
        mine = [g for groups in here.actor.proposals[written:] for g in groups if g[0].object.id == N1]
        assert mine == []


async def test_silence_takes_a_node_down_and_ends_its_session(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        await trio.sleep(13)
        assert here.state() is NodeState.READY
        await trio.sleep(4)
        assert here.state() is NodeState.DOWN
        assert "nothing was heard of it for" in here.node().status.message
        assert "has ended" in (await agent.ended()).text
        await here.ready()
        assert here.state() is NodeState.READY


async def test_a_lost_link_shows_at_once_and_becomes_down_after_the_grace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as here:
        await here.ready()
        await here.stack.aclose()
        await trio.sleep(0.1)
        assert here.state() is NodeState.DISCONNECTED
        await trio.sleep(12)
        assert here.state() is NodeState.DISCONNECTED
        await trio.sleep(5)
        assert here.state() is NodeState.DOWN


async def test_a_short_blip_is_over_when_the_node_is_back(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        await here.ready()
        await here.stack.aclose()
        await trio.sleep(2)
        agent = await here.ready()
        assert here.state() is NodeState.READY
        await trio.sleep(10)
        await agent.beat()
        await trio.sleep(10)
        assert here.state() is NodeState.READY


async def test_a_stall_of_the_leader_itself_blames_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        autojump_clock.autojump_threshold = float("inf")
        autojump_clock.jump(60)
        autojump_clock.autojump_threshold = 0
        await trio.sleep(1)
        assert here.state() is NodeState.READY
        await agent.beat()
        await trio.sleep(20)
        assert here.state() is NodeState.DOWN, "but real silence is noticed as before"


async def test_nodes_that_never_come_are_down_after_twice_the_grace(autojump_clock: trio.testing.MockClock) -> None:
    ready = Node(NodeId("n3"), status=NodeStatus(NodeState.READY, since=Instant(NOW)))
    async with world(Create(ready)) as here:
        await trio.sleep(9)
        assert here.state(ready.id) is NodeState.READY, "a new leader changes nothing by itself"
        await trio.sleep(2)
        assert here.state(ready.id) is NodeState.DISCONNECTED, "its machine may have been lost with the old leader"
        await trio.sleep(18)
        assert here.state(ready.id) is NodeState.DISCONNECTED
        await trio.sleep(2)
        assert here.state(ready.id) is here.state(N1) is NodeState.DOWN


async def test_a_day_after_a_node_went_down_its_tasks_are_given_up(autojump_clock: trio.testing.MockClock) -> None:
    down = Node(NodeId("n3"), status=NodeStatus(NodeState.DOWN, since=Instant(NOW - 86000)))
    states = [TaskState.ASSIGNED, TaskState.RUNNING, TaskState.COMPLETE]
    async with world(Create(down), *(Create(task(n, "n3", state)) for n, state in enumerate(states))) as here:
        await trio.sleep(390)
        assert here.task("t1").status.state is TaskState.RUNNING
        await trio.sleep(20)
        assert [here.task(f"t{n}").status.state for n in range(3)] == [
            TaskState.ORPHANED, TaskState.ORPHANED, TaskState.COMPLETE,
        ]  # fmt: skip
        assert "down for a day" in here.task("t1").status.error


async def test_a_changed_period_is_handed_out_with_the_next_heartbeat(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        cluster = here.store.cluster
        assert cluster is not None
        await here.change(Update(evolve(cluster, settings=ClusterSettings(heartbeat_period_s=1.0))))
        await trio.sleep(0.1)
        assert 0.9 <= await agent.beat() <= 1.1
        await trio.sleep(4)
        assert here.state() is NodeState.DOWN


# --- what ends a session -------------------------------------------------------------------------------------------
async def test_a_removed_node_is_told_so(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        await here.change(Delete(Kind.NODE, N1))
        error = await agent.ended()
        assert error.code is ErrorCode.NOT_FOUND and "join it again" in error.text
        await trio.sleep(60)


async def test_a_node_that_leaves_is_gone_for_good(autojump_clock: trio.testing.MockClock) -> None:
    leaving = Node(NodeId("n3"), certificate_expires_at=Instant(NOW + 5))
    extra = (Create(leaving), Create(task(1, "n3", TaskState.RUNNING)), Create(task(2, "n3", TaskState.FAILED)))
    async with world(*extra) as here:
        agent = await here.ready(caller("n3"))
        await here.dispatcher.ask(LeaveNode(agent.opened.session_id), timeout_s=5, caller=caller("n3"))
        assert here.store.node(leaving.id) is None
        assert [here.task(f"t{n}").status.state for n in (1, 2)] == [TaskState.ORPHANED, TaskState.FAILED]
        assert here.task("t1").status.error == "node host1 left the cluster"
        cluster = here.store.cluster
        assert cluster is not None and cluster.removed_nodes == {"n3": NOW + 5}
        assert (await agent.ended()).code is ErrorCode.NOT_FOUND


async def test_a_manager_cannot_just_leave(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        for node in (
            evolve(here.node(), role=Role.MANAGER),
            evolve(here.node(), spec=NodeSpec(desired_role=Role.MANAGER)),
        ):
            await here.change(Update(evolve(node, version=here.node().version)))
            with pytest.raises(SwarmError, match="swarm node demote") as caught:
                await here.dispatcher.ask(LeaveNode(agent.opened.session_id), timeout_s=5, caller=caller())
            assert caught.value.code is ErrorCode.PRECONDITION


async def test_another_certificate_role_needs_another_session(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        agent.who = caller(role="manager")
        with pytest.raises(SwarmError, match="another role") as caught:
            await agent.beat()
        assert caught.value.code is ErrorCode.NOT_FOUND
        await agent.ended()


@pytest.mark.parametrize("request_of", ["heartbeat", "report", "describe"])
async def test_calls_without_a_session_are_refused(request_of: str, autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        for session_id, who in (("", caller()), ("wrong", caller()), (agent.opened.session_id, caller(N2))):
            request = {
                "heartbeat": Heartbeat(session_id), "report": ReportStatus(session_id, ()),
                "describe": DescribeNode(session_id, HOST),
            }[request_of]  # fmt: skip
            with pytest.raises(SwarmError) as caught:
                await here.dispatcher.ask(request, timeout_s=5, caller=who)
            assert caught.value.code is ErrorCode.NOT_FOUND


# --- assignments ---------------------------------------------------------------------------------------------------
async def test_changes_are_sent_to_the_node_they_are_for(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        first, second = await here.ready(), await here.ready(caller(N2))
        await here.change(Create(evolve(task(1, ""), status=TaskStatus(TaskState.PENDING))))
        await here.change(
            Assign(TaskId("t1"), here.task("t1").version, N1, TaskStatus(TaskState.ASSIGNED)), Create(task(2, N2))
        )
        share = await first.next()
        assert isinstance(share, Assignments) and not share.full and share.sequence == 2
        assert [each.task.id for each in share.tasks] == ["t1"] and len(share.specs) == 1
        other = await second.next()
        assert isinstance(other, Assignments) and [each.task.id for each in other.tasks] == ["t2"]
        await here.change(Advance(TaskId("t1"), status=TaskStatus(TaskState.RUNNING)))
        await first.nothing()
        await here.change(Advance(TaskId("t1"), desired=TaskState.SHUTDOWN))
        share = await first.next()
        assert isinstance(share, Assignments) and share.sequence == 3
        assert share.tasks[0].task.desired is TaskState.SHUTDOWN and share.specs == ()
        await here.change(Delete(Kind.TASK, "t1"))
        share = await first.next()
        assert isinstance(share, Assignments) and share.removed == ("t1",)
        await second.nothing()


async def test_a_slow_reader_gets_one_message_for_all_that_happened(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.open(window=1)
        for number in range(50):
            await here.change(Create(task(number)))
        for number in range(25):
            await here.change(Delete(Kind.TASK, f"t{number}"))
        await trio.sleep(1)
        known: set[str] = set()
        messages = 0
        with trio.move_on_after(1.5):
            while True:
                item = await agent.next()
                if isinstance(item, Assignments):
                    messages += 1
                    assert item.sequence == messages
                    known |= {each.task.id for each in item.tasks}
                    known -= set(item.removed)
        assert known == {f"t{number}" for number in range(25, 50)}
        assert messages <= 3
        assert here.state() is NodeState.READY


async def test_a_watch_that_fell_behind_begins_anew_with_a_full_set(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        agent = await here.ready()
        here.actor.fail_watchers(SwarmError(ErrorCode.OVERRUN, "too slow"))
        here.store.apply([(Create(task(1)),)], Version(here.store.version + 1))
        assert isinstance(await agent.next(), SessionChanged)
        share = await agent.next()
        assert isinstance(share, Assignments) and share.full and [each.task.id for each in share.tasks] == ["t1"]


async def test_own_node_managers_and_roots_are_news(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        first, second = await here.ready(), await here.ready(caller(N2))
        await here.change(Update(evolve(here.node(), spec=NodeSpec(desired_role=Role.MANAGER))))
        news = await first.next()
        assert isinstance(news, SessionChanged) and news.node.spec.desired_role is Role.MANAGER
        await second.nothing()
        await here.change(Update(evolve(here.node(), manager=ManagerStatus(RaftId(1), "10.0.0.1:4242"))))
        for agent in (first, second):
            news = await agent.next()
            assert isinstance(news, SessionChanged)
            assert [(each.node_id, each.address) for each in news.managers] == [(N1, "10.0.0.1:4242")]
        cluster = here.store.cluster
        assert cluster is not None
        await here.change(Update(evolve(cluster, root_certificate=b"new root")))
        for agent in (first, second):
            news = await agent.next()
            assert isinstance(news, SessionChanged) and news.root_certificate == b"new root"
        await here.change(Delete(Kind.NODE, N1))
        news = await second.next()
        assert isinstance(news, SessionChanged) and news.managers == ()


async def test_a_crash_of_the_dispatcher_ends_sessions_and_serves_new_ones(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as here:
        agent = await here.ready()
        with pytest.raises(SwarmError):
            await here.dispatcher.ask(ReportStatus(agent.opened.session_id, None), timeout_s=5, caller=caller())
        assert (await agent.ended()).code is ErrorCode.ACTOR_DIED
        await here.ready()


# --- reports -------------------------------------------------------------------------------------------------------
RUNNING = TaskStatus(TaskState.RUNNING, at=Instant(5.0), pid=7)


async def test_a_report_is_answered_when_it_is_committed(autojump_clock: trio.testing.MockClock) -> None:
    async with world(Create(task(1))) as here:
        agent = await here.ready()
        await here.store_ref.ask(HoldProposals(True), timeout_s=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.report, ("t1", RUNNING))
            await trio.sleep(1)
            assert here.task("t1").status.state is TaskState.ASSIGNED
            await here.store_ref.ask(HoldProposals(False), timeout_s=1)
        status = here.task("t1").status
        assert evolve(status, applied_at=Instant(0.0)) == RUNNING
        assert status.applied_at == pytest.approx(NOW, abs=5)


async def test_all_that_arrives_while_a_proposal_is_in_flight_goes_into_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(*(Create(task(number)) for number in range(20))) as here:
        agent = await here.ready()
        before = len(here.actor.proposals)
        await here.store_ref.ask(HoldProposals(True), timeout_s=1)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(agent.report, (f"t{number}", RUNNING))
                await trio.sleep(0.01)
            await here.store_ref.ask(HoldProposals(False), timeout_s=1)
        assert [len(groups) for groups in here.actor.proposals[before:]] == [1, 19]
        assert all(here.task(f"t{number}").status.state is TaskState.RUNNING for number in range(20))


async def test_what_is_known_or_older_is_accepted_and_not_written(autojump_clock: trio.testing.MockClock) -> None:
    async with world(Create(task(1, state=TaskState.FAILED)), Create(task(2))) as here:
        agent = await here.ready()
        await agent.report(("t2", RUNNING))
        written = len(here.actor.proposals)
        await agent.report(("t2", RUNNING), ("t1", RUNNING), ("gone", RUNNING))
        assert len(here.actor.proposals) == written
        await agent.report(("t2", evolve(RUNNING, message="healthy")))
        assert here.task("t2").status.message == "healthy"


async def test_another_nodes_task_spoils_the_whole_report(autojump_clock: trio.testing.MockClock) -> None:
    async with world(Create(task(1)), Create(task(2, N2))) as here:
        agent = await here.ready()
        with pytest.raises(SwarmError, match="not a task of this node") as caught:
            await agent.report(("t1", RUNNING), ("t2", RUNNING))
        assert caught.value.code is ErrorCode.DENIED
        assert here.task("t1").status.state is TaskState.ASSIGNED


@pytest.mark.parametrize("state", [TaskState.NEW, TaskState.ASSIGNED, TaskState.REMOVE])
async def test_states_that_are_not_an_agents_to_report(
    state: TaskState, autojump_clock: trio.testing.MockClock
) -> None:
    async with world(Create(task(1))) as here:
        agent = await here.ready()
        with pytest.raises(SwarmError, match="no status that an agent reports"):
            await agent.report(("t1", TaskStatus(state)))


async def test_a_report_whose_outcome_is_not_known_is_refused_and_still_tried(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(Create(task(1))) as here:
        agent = await here.ready()
        await here.store_ref.ask(RefuseProposals(SwarmError(ErrorCode.UNAVAILABLE, "no quorum")), timeout_s=1)
        with pytest.raises(SwarmError, match="no quorum"):
            await agent.report(("t1", RUNNING))
        await here.store_ref.ask(RefuseProposals(None), timeout_s=1)
        await trio.sleep(1)
        assert here.task("t1").status.state is TaskState.RUNNING


async def test_a_node_object_that_changed_meanwhile_is_written_again(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as here:
        await here.store_ref.ask(HoldProposals(True), timeout_s=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.ready)
            await trio.sleep(1)
            here.store.apply(
                [(Update(evolve(here.node(), spec=NodeSpec(labels={"a": "b"}))),)], Version(here.store.version + 1)
            )
            await here.store_ref.ask(HoldProposals(False), timeout_s=1)
        assert here.state() is NodeState.READY and here.node().spec.labels == {"a": "b"}


async def test_a_thousand_nodes_are_each_told_only_their_own(autojump_clock: trio.testing.MockClock) -> None:
    names = [NodeId(f"m{number}") for number in range(1000)]
    async with world(*(Create(Node(name)) for name in names)) as here:
        agents = [await here.ready(caller(name)) for name in names]
        await here.change(*(Create(task(number, name)) for number, name in enumerate(names)))
        for number, agent in enumerate(agents):
            share = await agent.next()
            assert isinstance(share, Assignments) and [each.task.id for each in share.tasks] == [f"t{number}"]
        assert await agents[0].beat() >= 1000 / 80 - 0.5, "the period has grown with the cluster"
