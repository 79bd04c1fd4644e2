"""Gathering what is to be written: whoever waits is told exactly once, and in the end the store says the newest wish."""

from __future__ import annotations

from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.actors.dispatch_batch import STATUSES_MAX, Batch, Gathered, NodeWish, fulfil
from swarm.model.changes import Create, Delete, Kind, Update
from swarm.model.ids import Instant, NodeId, RevisionNumber, ServiceId, TaskId, Version
from swarm.model.objects import Node, NodeStatus, Revision, Service, Task, TaskStatus
from swarm.model.specs import NodeDescription, NodeSpec, ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import NodeState, TaskState
from swarm.model.store import Store
from swarm.runtime.errors import ErrorCode, SwarmError

NOW = Instant(1.8e9)
SPEC = ServiceSpec("web", TaskSpec(ProcessSpec(("true",))))
SERVICE = Service(ServiceId("s"), SPEC)
NODES = [NodeId(f"n{number}") for number in range(3)]
TASKS = [TaskId(f"t{number}") for number in range(4)]
LOST = SwarmError(ErrorCode.UNAVAILABLE, "leadership was lost")


def new_store(tasks: list[TaskId] = TASKS) -> Store:
    store = Store()
    made = [
        Create(Task(id, SERVICE.id, RevisionNumber(1), node_id=NODES[0], status=TaskStatus(TaskState.ASSIGNED)))
        for id in tasks
    ]
    nodes = [Create(Node(id)) for id in NODES]
    revision = Create(Revision(SERVICE.id, RevisionNumber(1), SPEC))
    results, _ = store.apply([(Create(SERVICE), revision, *nodes, *made)], Version(1))
    assert results == [None]
    return store


@define
class Waits:
    """Counts what each waiter was told."""

    told: list[list[SwarmError | None]] = field(factory=list)

    def new(self) -> object:
        mine: list[SwarmError | None] = []
        self.told.append(mine)
        return mine.append


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("status"), st.sampled_from(TASKS), st.sampled_from([s for s in TaskState if s > 192 and s != 800])),
        st.tuples(st.just("state"), st.sampled_from(NODES), st.sampled_from(NodeState)),
        st.tuples(st.just("describe"), st.sampled_from(NODES), st.sampled_from("abc")),
        st.tuples(st.just("label"), st.sampled_from(NODES), st.sampled_from("xyz")),
        st.tuples(st.just("remove"), st.sampled_from(NODES[2:]), st.none()),
        st.tuples(st.sampled_from(["take", "commit", "lose", "lose"]), st.none(), st.none()),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=200)
@given(STEPS)
def test_everybody_is_told_once_and_the_newest_wish_is_stored(steps: list[tuple[str, str, object]]) -> None:
    store, gathered, waits = new_store(), Gathered(), Waits()
    flying: Batch | None = None
    states: dict[NodeId, NodeState] = {}
    names: dict[NodeId, str] = {}
    furthest: dict[TaskId, TaskState] = {}

    def apply(*groups: object) -> list[object]:
        return store.apply(list(groups), Version(store.version + 1))[0]

    for verb, who, what in steps:
        if verb == "status":
            gathered.add_status(TaskId(who), TaskStatus(what))
            gathered.status_waiters.append(waits.new())
            furthest[TaskId(who)] = max(furthest.get(TaskId(who), TaskState.ASSIGNED), what)
        elif verb == "state":
            gathered.add_node(NodeId(who), NodeWish(what, waiters=[waits.new()]))
            states[NodeId(who)] = what
        elif verb == "describe":
            gathered.add_node(NodeId(who), NodeWish(description=NodeDescription(what), waiters=[waits.new()]))
            names[NodeId(who)] = what
        elif verb == "label" and (node := store.node(NodeId(who))) is not None:
            apply((Update(evolve(node, spec=NodeSpec(labels={"l": what}))),))
        elif verb == "remove":
            apply((Delete(Kind.NODE, who),))
        elif verb == "take" and flying is None:
            flying = gathered.take(store, NOW)
        elif verb == "commit" and flying is not None:
            gathered.settle(flying, apply(*flying.groups))
            flying = None
        elif verb == "lose" and flying is not None:
            gathered.fail(flying, LOST)
            flying = None
    lost = any(error is LOST for told in waits.told for error in told)
    for _ in range(10):
        flying = flying or gathered.take(store, NOW)
        gathered.settle(flying, apply(*flying.groups))
        flying = None
    assert not gathered
    assert all(len(told) == 1 for told in waits.told)
    for task_id, state in furthest.items():
        task = store.task(task_id)
        assert task is not None and task.status.state is state, "what was reported is not lost with a proposal"
    for node_id in NODES:
        node = store.node(node_id)
        if node is not None and not lost:
            assert node.status.state is states.get(node_id, NodeState.UNKNOWN)
            assert node.description.hostname == names.get(node_id, "")


def test_a_lost_proposal_is_tried_again_unless_something_further_on_waits() -> None:
    """Found by the property above: an older status that came while the newer one was in flight must not replace it."""
    for later, expected in ((TaskState.ACCEPTED, TaskState.RUNNING), (TaskState.FAILED, TaskState.FAILED)):
        store, gathered = new_store(), Gathered()
        gathered.add_status(TASKS[0], TaskStatus(TaskState.RUNNING))
        lost = gathered.take(store, NOW)
        gathered.add_status(TASKS[0], TaskStatus(later))
        gathered.fail(lost, LOST)
        store.apply(gathered.take(store, NOW).groups, Version(store.version + 1))
        task = store.task(TASKS[0])
        assert task is not None and task.status.state is expected


def test_more_than_fits_goes_into_the_next_one_and_the_answer_waits_for_all() -> None:
    ids = [TaskId(f"m{number}") for number in range(STATUSES_MAX + 5)]
    store, gathered, waits = new_store(ids), Gathered(), Waits()
    for id in ids:
        gathered.add_status(id, TaskStatus(TaskState.RUNNING))
    gathered.status_waiters.append(waits.new())
    for size, told in ((STATUSES_MAX, []), (5, [None])):
        batch = gathered.take(store, NOW)
        assert len(batch.groups) == size
        gathered.settle(batch, store.apply(batch.groups, Version(store.version + 1))[0])
        assert waits.told == [told]
    assert not gathered


def test_what_is_so_already_is_answered_and_not_written() -> None:
    store, gathered, waits = new_store(), Gathered(), Waits()
    gathered.add_node(NODES[0], NodeWish(NodeState.UNKNOWN, waiters=[waits.new()]))
    assert gathered.take(store, NOW).groups == ()
    assert waits.told == [[None]] and not gathered


def test_since_moves_only_with_the_state() -> None:
    node = Node(NODES[0], status=NodeStatus(NodeState.READY, "", "1.2.3.4", Instant(5.0)))
    same = fulfil(node, NodeWish(NodeState.READY, "again"), NOW)
    assert (same.status.since, same.status.message, same.status.address) == (5.0, "again", "1.2.3.4")
    assert fulfil(node, NodeWish(NodeState.DOWN), NOW).status.since == NOW
