"""The reference's defects (section 24 of its behaviour), each played to the end with the real planners: ours has none.

The planners of all kinds, the scheduler, the enforcer and the reaper work together here, as under a leader. What a defect needs
besides planners (streams, agents, logs) is tested where that is; `docs/design/orchestration-rules.md` has the whole list.
"""

from __future__ import annotations

import pytest
import schedule_world
from attrs import evolve
from orch_world import CountingIds, World, nothing_to_do, planners, spec

from swarm.model.changes import Delete, Kind, Update
from swarm.model.ids import NodeId
from swarm.model.specs import (
    GenericResource,
    Global,
    GlobalJob,
    Mode,
    Port,
    Replicated,
    ReplicatedJob,
    RestartPolicy,
    UpdateConfig,
)
from swarm.model.states import Availability, FailureAction, NodeState, RestartCondition, TaskState, UpdateState
from swarm.plan.departure import departure
from swarm.plan.enforce import ConstraintEnforcer
from swarm.plan.progress import service_facts
from swarm.plan.replicated import ReplicatedPlanner
from swarm.plan.schedule.planner import Scheduler

AT_ONCE = RestartPolicy(delay_s=0)
ROLL_BACK = UpdateConfig(failure_action=FailureAction.ROLLBACK, monitor_s=1)


def cluster(nodes: str = "a b c") -> World:
    return World(nodes, all=[*planners(), Scheduler(), ConstraintEnforcer()])


def serving(replicas: int, nodes: str = "a b c", **fields: object) -> World:
    world = cluster(nodes)
    world.create(spec(replicas=replicas, **fields))  # type: ignore[arg-type]
    world.run()
    assert len(world.running()) == replicas
    return world


# --- 24.1 --------------------------------------------------------------------------------------------------------------
def test_24_1_a_rollback_whose_action_is_rollback_pauses_and_stays() -> None:
    world = serving(3, rollback=ROLL_BACK)
    world.broken = {"1", "2"}
    world.declare(spec(replicas=3, version="2", update=ROLL_BACK, rollback=ROLL_BACK))
    seen: list[UpdateState | None] = []
    for _ in range(60):
        world.pass_time(5)
        if not seen or seen[-1] is not world.update_state():
            seen.append(world.update_state())
    assert seen[-1] is UpdateState.ROLLBACK_PAUSED and seen.count(UpdateState.ROLLBACK_PAUSED) == 1
    assert world.service().revision == 3, "one automatic rollback, and no update of it"


def test_24_1_a_scale_down_holds_although_a_report_came_in_between() -> None:
    world = serving(3)
    planner = ReplicatedPlanner()
    service = world.service()
    after = evolve(service, spec=evolve(service.spec, mode=Replicated(1)))
    world.rehearsal.commit([(Update(after),)])
    memory, keys = planner.start(world.store)
    plan = planner.plan(world.store, list(keys), memory, world.now, CountingIds("x"))
    for task in world.tasks():
        world.report(task.id, TaskState.RUNNING, message="still there")
    results, _ = world.rehearsal.commit(plan.groups)
    assert len(results) == 2 and results == [None, None]
    assert [task.slot for task in world.live()] == [1]


def test_24_1_giving_tasks_up_holds_although_a_report_came_in_between() -> None:
    world = serving(3, nodes="a")
    node, settings = world.store.node(NodeId("a")), world.store.cluster
    assert node is not None and settings is not None
    group = departure(world.store, settings, node, world.now, "node a was removed")
    for task in world.tasks():
        world.report(task.id, TaskState.RUNNING, message="still there")
    world.commit(*group)
    assert {task.status.state for task in world.tasks() if task.node_id} == {TaskState.ORPHANED}


def test_24_1_records_of_what_still_runs_outlast_any_write_of_the_service() -> None:
    world = serving(3)
    world.stubborn = {task.id for task in world.tasks()}
    world.scale(1)
    world.run()
    for _ in range(3):
        world.touch()
        world.new_leader()
        world.run()
        assert len(world.tasks()) == 3
    world.stubborn.clear()
    world.run()
    assert len(world.tasks()) == 1


@pytest.mark.parametrize("condition", list(RestartCondition))
def test_24_1_down_and_up_again_in_quick_succession_gives_all_of_them(condition: RestartCondition) -> None:
    world = serving(3, restart=RestartPolicy(condition, delay_s=0))
    for replicas in (1, 3):
        world.scale(replicas)
        world.settle()
    world.run()
    assert sorted(task.slot for task in world.running()) == [1, 2, 3]


def test_24_1_a_global_job_gives_up_after_its_attempts() -> None:
    world = cluster("a b")
    world.broken = {"1"}
    world.create(spec(mode=GlobalJob(), restart=RestartPolicy(delay_s=0, max_attempts=2)))
    world.pass_time(600)
    assert len(world.tasks()) == 2 * 3
    assert service_facts(world.store, world.service().id, world.now).failed


def test_24_1_a_global_job_runs_on_a_node_that_joins_later() -> None:
    world = cluster("a b")
    world.create(spec(mode=GlobalJob()))
    world.run()
    world.add_node("c")
    world.run()
    completed = [task.node_id for task in world.tasks() if task.status.state is TaskState.COMPLETE]
    assert sorted(completed) == ["a", "b", "c"]


def test_24_1_an_item_is_given_out_once_whoever_leads() -> None:
    world = schedule_world.World()
    world.node("a", generic=(GenericResource("gpu", 3, ("x", "y", "z")),))
    world.service("web", generic=(GenericResource("gpu", 1),))
    for _ in range(3):
        world.tasks("web", 1)
        world.lead()
        world.run()
    held = [task.generic[0].items for task in world.store.tasks()]
    assert sorted(held) == [("x",), ("y",), ("z",)]


# --- 24.2 --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("availability", [Availability.DRAIN, Availability.PAUSE])
def test_24_2_a_task_placed_on_a_node_that_was_drained_meanwhile_moves_on(availability: Availability) -> None:
    world = cluster("a b")
    world.set_node("b", availability=Availability.PAUSE)
    world.create(spec())
    while not any(task.status.state is TaskState.NEW for task in world.tasks()):
        world.rehearsal.plan_once()
    scheduler = Scheduler()
    memory, keys = scheduler.start(world.store)
    plan = scheduler.plan(world.store, list(keys), memory, world.now, CountingIds("x"))
    world.set_node("b", availability=Availability.ACTIVE)
    world.set_node("a", availability=availability)
    assert world.rehearsal.commit(plan.groups)[0] == [None], "the assignment is of the moment before"
    world.run()
    assert [task.node_id for task in world.running()] == (["b"] if availability is Availability.DRAIN else ["a"])


def test_24_2_a_deleted_task_is_waited_for_by_nobody() -> None:
    world = schedule_world.World()
    world.service("web")
    waiting = world.tasks("web", 2)
    world.run()
    world.apply(Delete(Kind.TASK, waiting[0]))
    world.node("a")
    world.run()
    assert world.spread("web") == {"a": 1}
    assert world.memory is not None and not world.memory.has_work and not world.memory.groups


def test_24_2_a_port_with_two_holders_is_free_after_the_second() -> None:
    world = schedule_world.World()
    world.nodes(1)
    world.service("web", ports=(Port(80, 80),))
    holders = [world.task("web", slot, node="n00", state=TaskState.RUNNING) for slot in (1, 2)]
    (waiting,) = world.tasks("web", 1)
    world.run()
    places = []
    for holder in holders:
        world.status(holder, TaskState.SHUTDOWN, TaskState.SHUTDOWN)
        world.wait(2.0)
        places.append(world.where(waiting))
    assert places == ["", "n00"]


def test_24_2_stop_first_waits_for_the_old_task_whoever_leads() -> None:
    world = serving(1)
    (old,) = world.running()
    world.stubborn = {old.id}
    world.declare(spec(version="2"))
    for _ in range(5):
        world.new_leader()
        world.pass_time(5)
        assert {task.status.state for task in world.live()} == {TaskState.READY}
    world.stubborn.clear()
    world.run()
    assert world.programs() == ["2"]


@pytest.mark.parametrize("mode", [Replicated(2), Global(), ReplicatedJob(2, 2), GlobalJob()])
def test_24_2_a_new_leader_stops_what_a_removed_service_left(mode: Mode) -> None:
    world = cluster("a b")
    world.create(spec(mode=mode))
    world.settle()
    tasks = {task.id for task in world.tasks()}
    world.stubborn = set(tasks)
    world.agents()
    world.remove()
    world.new_leader()
    world.settle()
    left = list(world.store.tasks())
    assert {task.id for task in left} == tasks and {task.desired for task in left} == {TaskState.REMOVE}
    world.stubborn.clear()
    world.run()
    assert not list(world.store.tasks())


@pytest.mark.parametrize("state", ["down", "drained"])
def test_24_2_a_job_leaves_nodes_that_are_lost_or_drained(state: str) -> None:
    world = cluster("a b")
    world.set_node("b", availability=Availability.PAUSE)
    world.create(spec(mode=ReplicatedJob(2, 2), restart=AT_ONCE))
    world.settle()
    world.agents()
    world.settle()
    assert {task.node_id for task in world.live()} == {"a"}
    world.set_node("b", availability=Availability.ACTIVE)
    if state == "down":
        world.set_node("a", state=NodeState.DOWN)
    else:
        world.set_node("a", availability=Availability.DRAIN)
    world.run()
    completed = [task for task in world.tasks() if task.status.state is TaskState.COMPLETE]
    assert sorted(task.slot for task in completed) == [0, 1] and {task.node_id for task in completed} == {"b"}


def test_24_2_a_removed_service_is_followed_until_its_last_task_has_stopped() -> None:
    world = serving(2)
    service = world.service().id
    world.stubborn = {task.id for task in world.tasks()}
    world.remove()
    world.run()
    facts = service_facts(world.store, service, world.now)
    assert (facts.removed, facts.stopping) == (False, 2)
    assert not nothing_to_do(world), "they were told already"
    world.stubborn.clear()
    world.run()
    assert service_facts(world.store, service, world.now).removed


@pytest.mark.parametrize("availability", [Availability.DRAIN, Availability.PAUSE])
@pytest.mark.parametrize("mode", [Global(), GlobalJob()])
def test_24_2_remove_is_never_lowered(mode: Mode, availability: Availability) -> None:
    world = cluster("a")
    world.create(spec(mode=mode))
    world.settle()
    world.stubborn = {task.id for task in world.tasks()}
    world.agents()
    world.remove()
    world.settle()
    world.set_node("a", availability=availability)
    world.settle()
    assert {task.desired for task in world.store.tasks()} == {TaskState.REMOVE}
