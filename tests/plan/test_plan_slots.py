"""Which slots go first, what the keys name, when an ended task is replaced, and work in slices."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from orch_world import CountingIds, World, spec

from swarm.model.changes import Create
from swarm.model.ids import Instant, NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.objects import Task, TaskStatus
from swarm.model.specs import ProcessSpec, RestartPolicy
from swarm.model.states import Availability, Origin, RestartCondition, TaskState
from swarm.plan.keys import ALL, EVERYTHING, Key, node_key, parse_key, part_key
from swarm.plan.orchestrator import BUDGET
from swarm.plan.replicated import ReplicatedPlanner
from swarm.plan.restart import judge, old_task_timeout_s, restarts_after
from swarm.plan.slots import Candidate, choose_removed


# --- scale-down ----------------------------------------------------------------------------------------------------
def candidates(text: str) -> list[Candidate]:
    """`1a 2b- 3`: slot 1 runs on a, slot 2 is on b and does not run, slot 3 has no node."""
    found = []
    for word in text.split():
        number = word.rstrip("abc-")
        node = word[len(number) :].rstrip("-")
        found.append(Candidate(int(number), NodeId(node), runs=bool(node) and "-" not in word, steady=bool(node)))
    return found


@pytest.mark.parametrize(
    ("slots", "wanted", "removed"),
    [
        ("1a 2b 3b 4c 5c 6c 7", 6, [7]),  # the unplaced one
        ("1a 2b 3b 4c 5c 6c", 4, [6, 5]),  # two from the crowded node, higher slots first
        ("1a 2b- 4c 3b", 2, [2, 4]),  # 3 is b's first that runs, so 2 is b's second; then the highest number
        ("1a 2a 3a", 0, [3, 2, 1]),
        ("1a- 2a 3a", 1, [1, 3]),
        ("1a 2b 3c", 3, []),
    ],
)
def test_what_goes_first(slots: str, wanted: int, removed: list[int]) -> None:
    assert choose_removed(candidates(slots), wanted) == removed


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", ""]), st.booleans(), st.booleans()), max_size=30),
    st.data(),
)
def test_giving_some_up_first_changes_nothing_and_order_does_not_matter(
    rows: list[tuple[str, bool, bool]], data: st.DataObject
) -> None:
    all_ = [Candidate(n, NodeId(node), runs, steady and bool(node)) for n, (node, runs, steady) in enumerate(rows, 1)]
    wanted = data.draw(st.integers(0, len(all_)))
    between = data.draw(st.integers(wanted, len(all_)))
    removed = choose_removed(all_, wanted)
    first = choose_removed(data.draw(st.permutations(all_)), between)
    rest = choose_removed([it for it in all_ if it.number not in first], wanted)
    assert first + rest == removed


# --- keys ----------------------------------------------------------------------------------------------------------
def test_keys_name_what_they_name() -> None:
    service = ServiceId("s")
    assert parse_key("s") == Key(service=service)
    assert parse_key(part_key(service, 7)) == Key(service=service, part="7")
    assert parse_key(part_key(service, ALL)) == Key(service=service, part="all")
    assert parse_key(node_key(NodeId("n"))) == Key(node=NodeId("n"))
    assert parse_key(EVERYTHING) == Key(everything=True)


# --- verdicts ------------------------------------------------------------------------------------------------------
def ended(
    state: TaskState = TaskState.FAILED, *, revision: int = 1, restarts: int = 0, at: float = 100.0, made: float = 0.0
) -> Task:
    return Task(
        TaskId(f"t{made}"),
        ServiceId("s"),
        RevisionNumber(revision),
        Slot(1),
        status=TaskStatus(state, applied_at=Instant(at)),
        created_at=Instant(made),
        origin=Origin.RESTART if restarts else Origin.CREATED,
        restarts=restarts,
    )


@pytest.mark.parametrize(
    ("policy", "task", "job", "restart"),
    [
        (RestartPolicy(), ended(), False, True),
        (RestartPolicy(), ended(TaskState.COMPLETE), False, True),
        (RestartPolicy(), ended(TaskState.COMPLETE), True, False),
        (RestartPolicy(RestartCondition.ON_FAILURE), ended(TaskState.COMPLETE), False, False),
        (RestartPolicy(RestartCondition.ON_FAILURE), ended(TaskState.REJECTED), False, True),
        (RestartPolicy(RestartCondition.NONE), ended(TaskState.SHUTDOWN), False, False),
        (RestartPolicy(max_attempts=2), ended(restarts=1), False, True),
        (RestartPolicy(max_attempts=2), ended(restarts=2), False, False),
        (RestartPolicy(max_attempts=2), ended(restarts=9, revision=3), False, True),
    ],
)
def test_verdicts(policy: RestartPolicy, task: Task, job: bool, restart: bool) -> None:
    assert judge(task, policy, [task], RevisionNumber(1), job=job).restart is restart


def test_a_window_counts_restarts_made_within_it_and_before_the_end() -> None:
    policy = RestartPolicy(max_attempts=2, window_s=50)
    last = ended(restarts=3, made=90, at=100)
    history = [ended(restarts=1, made=50), ended(restarts=2, made=51), last, ended(restarts=4, made=100)]
    assert not judge(last, policy, history, RevisionNumber(1)).restart  # 51 and 90
    assert judge(
        last, policy, [history[0], last, history[3]], RevisionNumber(1)
    ).restart  # 90 alone: 50 and 100 are not within


def test_counts_go_on_within_a_revision_only() -> None:
    assert restarts_after(ended(restarts=2), RevisionNumber(1)) == 3
    assert restarts_after(ended(restarts=2), RevisionNumber(2)) == 1


def test_a_long_grace_period_is_waited_for() -> None:
    declared = spec()
    slow = evolve(declared, task=evolve(declared.task, runtime=ProcessSpec(("x",), stop_grace_s=120.0)))
    assert (old_task_timeout_s(declared), old_task_timeout_s(slow), old_task_timeout_s(None)) == (60, 150, 60)


# --- slices --------------------------------------------------------------------------------------------------------
def test_a_large_service_is_made_in_slices() -> None:
    world = World("a")
    world.create(spec(replicas=3 * BUDGET + 7))
    planner = ReplicatedPlanner()
    memory, keys = planner.start(world.store)
    pending, sizes = list(keys), []
    while pending:
        plan = planner.plan(world.store, pending, memory, world.now, CountingIds(f"p{len(sizes)}-"))
        memory, pending = plan.memory, list(plan.again)
        sizes.append(sum(isinstance(change, Create) for group in plan.groups for change in group))
        if plan.groups:
            world.rehearsal.commit(plan.groups)
    assert max(sizes) <= BUDGET and sum(sizes) == 3 * BUDGET + 7
    assert sorted(world.by_slot()) == list(range(1, 3 * BUDGET + 8))


@pytest.mark.parametrize("disturbance", ["leader", "scale", "touch", "fail", "remove", "drain"])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_service_that_is_disturbed_while_it_is_made_is_made_all_the_same(disturbance: str, calls: int) -> None:
    world = World("a b")
    world.create(spec(replicas=2 * BUDGET, restart=RestartPolicy(delay_s=1)))
    for _ in range(calls):
        world.rehearsal.plan_once()
    wanted = 2 * BUDGET
    match disturbance:
        case "leader":
            world.new_leader()
        case "scale":
            wanted = BUDGET // 2
            world.scale(wanted)
        case "touch":
            world.touch()
        case "fail" if world.tasks():
            world.place()
            world.report(world.tasks()[0].id, TaskState.FAILED)
        case "remove":
            wanted = 0
            world.remove()
        case "drain":
            world.place()
            world.set_node("a", availability=Availability.DRAIN)
    world.pass_time(5)
    assert len([task for task in world.store.tasks() if task.is_live]) == wanted
    assert {task.status.state for task in world.store.tasks() if task.is_live} <= {TaskState.RUNNING}


def test_a_large_scale_down_is_done_in_slices() -> None:
    world = World("a b")
    world.create(spec(replicas=3 * BUDGET))
    world.run()
    world.scale(BUDGET)
    for _ in range(2):
        world.rehearsal.plan_once()
    world.new_leader()
    world.run()
    assert len(world.tasks()) == BUDGET
