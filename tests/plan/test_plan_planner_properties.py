"""Properties of the planners one by one: never above what the order allows, never below what is promised, at rest on one's own
result, the same from any leader. What holds of whole services under disturbances is in `test_plan_orch_properties.py`, the
scheduler's twin in `test_plan_schedule_spread.py`, the twins of liveness, roles, assignments and task steps in their files.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import schedule_world
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from orch_world import CountingIds, World, nothing_to_do, planners, spec
from test_plan_orch_properties import CALM, CHANGES, MACHINES, TROUBLE, Action, Player, actions, declared

from swarm.model.changes import Create
from swarm.model.events import Event
from swarm.model.ids import Instant, NodeId, RevisionNumber, Slot, TaskId
from swarm.model.objects import Task, TaskStatus
from swarm.model.specs import (
    ClusterSettings,
    Global,
    GlobalJob,
    Mode,
    Placement,
    Replicated,
    ReplicatedJob,
    RestartPolicy,
    UpdateConfig,
)
from swarm.model.states import Availability, FailureAction, NodeState, TaskState, UpdateOrder
from swarm.plan.enforce import ConstraintEnforcer
from swarm.plan.preview import dump_of, preview
from swarm.plan.reap import Reaper
from swarm.plan.schedule.planner import Scheduler

EXAMPLES = 50


# --- enforce -----------------------------------------------------------------------------------------------------------
RESERVED = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=8)


@given(RESERVED, st.integers(0, 10), st.integers(0, 10), st.sampled_from(["", "z"]))
def test_the_enforcer_rejects_what_no_longer_fits_and_nothing_else(
    reserved: list[tuple[int, int, bool]], cpus: int, memory: int, zone: str
) -> None:
    """Oldest first, each task stays that fits beside the older ones that stay."""
    world = schedule_world.World()
    world.node("n", cpus=99, memory=99, labels={"zone": "z"})
    expected: set[TaskId] = set()
    left = [cpus, memory]
    for number, (cores, size, bound) in enumerate(reserved):
        world.now = Instant(world.now + 1)
        constraints = ("node.labels.zone == z",) if bound else ()
        world.service(f"s{number}", cpus=cores, memory=size, constraints=constraints)
        id = world.task(f"s{number}", 1, node="n", state=TaskState.RUNNING)
        if (bound and zone != "z") or cores > left[0] or size > left[1]:
            expected.add(id)
        else:
            left = [left[0] - cores, left[1] - size]
    world.node("n", cpus=cpus, memory=memory, labels={"zone": zone} if zone else {})
    plans = []
    for _ in range(2):
        planner = ConstraintEnforcer()
        keys = list(planner.start(world.store)[1])
        plans.append(planner.plan(world.store, keys, None, world.now, schedule_world.NoIds()).groups)
    assert plans[0] == plans[1], "any leader rejects the same"
    assert world.commit(list(plans[0])) == [None] * len(expected)
    rejected = {task.id for task in world.store.tasks() if task.status.state is TaskState.REJECTED}
    assert rejected == expected
    assert not ConstraintEnforcer().plan(world.store, keys, None, world.now, schedule_world.NoIds()).groups


# --- reap --------------------------------------------------------------------------------------------------------------
RECORDS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from(["", "up", "down", "gone"]),
        st.sampled_from([state for state in TaskState if state is not TaskState.REMOVE]),
        st.sampled_from([TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE]),
    ),
    max_size=20,
)


@given(RECORDS, st.sampled_from([-1, 0, 1, 2, 5]), st.sampled_from([0, 1, 3]))
def test_the_reaper_deletes_nothing_that_may_run_and_keeps_what_is_promised(
    records: list[tuple[int, str, TaskState, TaskState]], limit: int, attempts: int
) -> None:
    world = World("up down gone", all=[Reaper()], settings=ClusterSettings(task_history_limit=limit))
    world.set_node("down", state=NodeState.DOWN)
    policy = RestartPolicy(max_attempts=attempts, window_s=10 if attempts else 0)
    service = world.create(spec(replicas=3, restart=policy))
    for number, (slot, node, state, desired) in enumerate(records):
        if not node and TaskState.ASSIGNED <= state <= TaskState.RUNNING:
            continue
        record = Task(
            TaskId(f"t{number:02d}"),
            service,
            RevisionNumber(1),
            Slot(slot),
            node_id=NodeId(node),
            desired=desired,
            status=TaskStatus(state),
            created_at=Instant(world.now + number),
        )
        world.commit(Create(record))
    world.remove_node("gone")
    before = defaultdict(list)
    for task in world.tasks():
        before[task.slot].append(task)
    world.settle()
    left = {task.id for task in world.tasks()}
    for tasks in before.values():
        staying = [task for task in tasks if task.desired is not TaskState.REMOVE]
        kept = [task for task in staying if task.id in left]
        promised = len(staying) if limit < 0 else max(limit, attempts + 1 if attempts else 1, 1)
        assert len(kept) >= min(len(staying), promised)
        assert kept[-1:] == staying[-1:], "the newest says how its slot stands"
        needed = [t for t in kept[:-1] if t.is_live or TaskState.ASSIGNED <= t.status.state <= TaskState.RUNNING]
        assert len(kept) <= promised or len(kept) == len(needed) + 1
        for task in tasks:
            if task.desired is TaskState.REMOVE and task.id in left:
                assert TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING and task.node_id == "up"
    assert not nothing_to_do(world, [Reaper()])


# --- restart -----------------------------------------------------------------------------------------------------------
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([0.0, 20.0, 50.0]),
    st.sampled_from([0.0, 3.0]),
    st.lists(st.tuples(st.integers(4, 40), st.booleans()), max_size=10),
)
def test_a_slot_is_restarted_as_often_as_its_policy_allows_whoever_leads(
    attempts: int, window_s: float, delay_s: float, ends: list[tuple[int, bool]]
) -> None:
    """The twin counts for itself; the records and the reaper are all that the planners have."""
    policy = RestartPolicy(delay_s=delay_s, max_attempts=attempts, window_s=window_s)
    world = World("a b", settings=ClusterSettings(task_history_limit=1))
    world.create(spec(restart=policy))
    world.run()
    restarts: list[float] = []
    for after_s, another_leader in ends:
        world.pass_time(after_s)
        if another_leader:
            world.new_leader()
        (task,) = world.running()
        world.report(task.id, TaskState.FAILED)
        world.run()
        recent = [at for at in restarts if not window_s or world.now - window_s < at < world.now]
        if len(recent) >= attempts:
            world.pass_time(1000)
            assert not world.live()
            return
        restarts.append(world.now)
        assert len(world.live()) == 1


# --- update ------------------------------------------------------------------------------------------------------------
@settings(max_examples=EXAMPLES, deadline=None)
@given(actions(*CALM, "start_first", size=30), st.sets(st.integers(2, 9)), st.sampled_from(FailureAction))
def test_a_failing_start_first_update_never_takes_a_running_replica_away(
    script: list[Action], broken: set[int], action: FailureAction
) -> None:
    """Whatever fails, is paused, rolled back or interrupted by the next update: all that ran goes on running."""
    replicas = 3
    config = UpdateConfig(parallelism=2, failure_action=action, monitor_s=2, order=UpdateOrder.START_FIRST)
    player = Player(Replicated(replicas), order=UpdateOrder.START_FIRST)
    world = player.world
    world.broken = {str(version) for version in broken}

    def look(world: World, event: Event) -> None:
        assert len(world.running()) >= replicas
        assert max(Counter(task.slot for task in world.live()).values()) <= 2

    world.checks.append(look)
    for name, number in script:
        if name == "start_first":
            player.version += 1
            changed = declared(Replicated(replicas), str(player.version))
            rollback = evolve(config, failure_action=FailureAction.PAUSE)
            world.declare(evolve(changed, update=config, rollback=rollback))
        else:
            player.play((name, number))
    world.pass_time(300)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    actions("run", "settle", "step", "time", "leader", "touch", "plan", size=40),
    st.sampled_from(UpdateOrder),
    st.integers(1, 3),
)
def test_a_global_update_keeps_its_promises_step_by_step(
    script: list[Action], order: UpdateOrder, parallelism: int
) -> None:
    player = Player(Global())
    world = player.world
    nodes = len(world.running())

    def look(world: World, event: Event) -> None:
        running, live = len(world.running()), len(world.live())
        if order is UpdateOrder.START_FIRST:
            assert running >= nodes and live <= nodes + parallelism
        else:
            assert running >= nodes - parallelism and live <= nodes

    world.declare(declared(Global(), "2", order=order, parallelism=parallelism))
    world.checks.append(look)
    for action in script:
        player.play(action)
    world.pass_time(100)
    assert world.programs() == ["2"] * nodes


# --- jobs --------------------------------------------------------------------------------------------------------------
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    actions(*CALM, "fail", "reject", "drain", "pause", "activate", "stubborn", "full", size=30),
    st.sampled_from([ReplicatedJob(2, 5), ReplicatedJob(5, 3), ReplicatedJob(0, 2), GlobalJob()]),
)
def test_a_job_runs_no_more_than_it_may_and_no_slot_twice(script: list[Action], mode: Mode) -> None:
    """As long as no node is lost, and a task that will not stop is waited for."""
    player = Player(mode)
    world = player.world
    most = mode.max_concurrent if isinstance(mode, ReplicatedJob) else 4
    completed: set[tuple[int, str]] = set()

    def slot_of(task: Task) -> tuple[int, str]:
        return task.slot, "" if isinstance(mode, ReplicatedJob) else task.node_id

    def look(world: World, event: Event) -> None:
        task = event.after
        if not isinstance(task, Task):
            return
        assert len([one for one in world.live() if one.status.state < TaskState.COMPLETE]) <= most
        if not isinstance(event.before, Task):
            assert slot_of(task) not in completed, "what is done is not done again"
        if task.status.state is TaskState.COMPLETE:
            completed.add(slot_of(task))
        if task.status.state is TaskState.RUNNING:
            same = [one for one in world.tasks() if slot_of(one) == slot_of(task)]
            assert [one.id for one in same if one.status.state is TaskState.RUNNING] == [task.id]

    world.checks.append(look)
    for name, number in script:
        if name != "time":  # a minute after which a task that does not stop is waited for no longer
            player.play((name, number))


# --- preview -----------------------------------------------------------------------------------------------------------
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.sampled_from([Replicated(0), Replicated(3), Replicated(5), Global()]),
    st.sampled_from([None, 0, 1, 4, 7]),
    st.booleans(),
    st.sampled_from([(), ("node.hostname != a",), ("node.hostname == b",), ("node.hostname == nowhere",)]),
    st.sampled_from(UpdateOrder),
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(Availability)), max_size=2),
)
def test_a_plan_is_what_then_happens_and_changes_nothing(
    mode: Mode,
    replicas: int | None,
    another: bool,
    constraints: tuple[str, ...],
    order: UpdateOrder,
    nodes: list[tuple[str, Availability]],
) -> None:
    world = World("a b c d", all=[*planners(), Scheduler()])
    config = UpdateConfig(monitor_s=1, order=order)
    world.create(spec(mode=mode, update=config))
    world.run()
    for name, availability in nodes:
        world.set_node(name, availability=availability)
    world.run()
    wanted = Replicated(replicas) if replicas is not None and isinstance(mode, Replicated) else mode
    placement = Placement(constraints)
    changed = spec(mode=wanted, version="2" if another else "1", update=config, placement=placement)
    before = dump_of(world.store)
    steps = preview(world.store, changed, world.now, CountingIds("p"))
    assert steps == preview(world.store, changed, world.now, CountingIds("p")), "any leader shows the same"
    assert dump_of(world.store) == before
    old = {task.id for task in world.live()}
    world.declare(changed)
    world.pass_time(200)
    there = Counter((task.slot, task.node_id) for task in world.live())
    assert Counter((step.slot, step.node_id) for step in steps if step.verb != "stop") == there
    kept = old & {task.id for task in world.live()}
    assert len([step for step in steps if step.verb == "keep"]) == len(kept)


# --- all of it ---------------------------------------------------------------------------------------------------------
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    actions(*CALM, *TROUBLE, *CHANGES, *MACHINES, size=40),
    st.sampled_from([Replicated(3), Global(), ReplicatedJob(2, 4), GlobalJob()]),
)
def test_24_5_what_always_holds_under_any_disturbance(script: list[Action], mode: Mode) -> None:
    """Every commit of every world is checked (`orch_invariants`); here all planners work, and machines go for good, too."""
    player = Player(mode, everybody=True)
    for action in script:
        player.play(action)
    player.world.remove()
    player.heal_nodes()
    player.world.pass_time(500)
    assert not list(player.world.store.tasks()), "nothing is left of a service that was removed"
