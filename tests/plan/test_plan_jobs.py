"""Jobs of both kinds."""

from __future__ import annotations

from collections import Counter

import pytest
from attrs import evolve
from orch_world import World, nothing_to_do, spec

from swarm.model.events import Event
from swarm.model.objects import Task
from swarm.model.specs import GlobalJob, Mode, Placement, ReplicatedJob, RestartPolicy
from swarm.model.states import Availability, NodeState, RestartCondition, TaskState

NOW = RestartPolicy(delay_s=0)


def world_with(mode: Mode, nodes: str = "a b c", restart: RestartPolicy = NOW, **fields: object) -> World:
    world = World(nodes)
    world.create(spec(mode=mode, restart=restart, **fields))  # type: ignore[arg-type]
    return world


def completed(world: World) -> list[Task]:
    return [task for task in world.tasks() if task.status.state is TaskState.COMPLETE]


# --- replicated ----------------------------------------------------------------------------------------------------
def test_a_fresh_job_starts_as_many_as_may_run_together() -> None:
    world = world_with(ReplicatedJob(3, 10))
    world.settle()
    assert sorted(task.slot for task in world.tasks()) == [0, 1, 2]
    assert {task.desired for task in world.tasks()} == {TaskState.COMPLETE}
    assert {task.job_iteration for task in world.tasks()} == {0}


def test_a_job_completes_each_slot_once_and_never_runs_more_than_allowed_together() -> None:
    world = world_with(ReplicatedJob(3, 10))
    most = 0

    def look(world: World, event: Event) -> None:
        nonlocal most
        going = [task for task in world.live() if task.status.state < TaskState.COMPLETE]
        most = max(most, len(going))

    world.checks.append(look)
    world.run()
    assert sorted(task.slot for task in completed(world)) == list(range(10))
    assert most == 3
    assert not nothing_to_do(world)


@pytest.mark.parametrize(("concurrent", "total"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_run_is_nothing(concurrent: int, total: int) -> None:
    world = world_with(ReplicatedJob(concurrent, total))
    world.run()
    assert not world.tasks()


def test_more_running_than_wanted_is_no_underflow() -> None:
    """7.2: there, unsigned arithmetic made this an error."""
    world = world_with(ReplicatedJob(3, 3))
    world.settle()
    service = world.service()
    from swarm.model.changes import Update

    world.commit(Update(evolve(service, spec=evolve(service.spec, mode=ReplicatedJob(1, 2)))))
    world.settle()
    assert len(world.tasks()) == 3
    world.run()
    assert len(completed(world)) == 3


def test_a_failed_task_is_run_again_in_its_slot() -> None:
    world = world_with(ReplicatedJob(1, 2), restart=RestartPolicy(delay_s=5))
    world.settle()
    world.report("t1", TaskState.FAILED)
    world.run()
    assert [(task.slot, task.desired) for task in world.live()] == [(0, TaskState.READY)]
    world.pass_time(5)
    assert sorted(task.slot for task in completed(world)) == [0, 1]


@pytest.mark.parametrize(
    ("policy", "runs"),
    [
        (RestartPolicy(RestartCondition.NONE), 1),
        (RestartPolicy(RestartCondition.ANY, delay_s=0, max_attempts=3), 4),
        (RestartPolicy(RestartCondition.ON_FAILURE, delay_s=0, max_attempts=3), 4),
    ],
)
@pytest.mark.parametrize("mode", [ReplicatedJob(1, 1), GlobalJob()])
def test_attempts_are_limited_for_both_kinds(mode: Mode, policy: RestartPolicy, runs: int) -> None:
    """24.1: there, global jobs ignored max_attempts."""
    world = world_with(mode, nodes="a", restart=policy)
    world.broken = {"1"}
    world.pass_time(10)
    assert len(world.tasks()) == runs
    world.touch()
    world.new_leader()
    world.pass_time(100)
    assert len(world.tasks()) == runs
    assert not nothing_to_do(world)


def test_a_completed_task_is_never_run_again_whatever_the_condition() -> None:
    world = world_with(ReplicatedJob(2, 2), restart=RestartPolicy(RestartCondition.ANY, delay_s=0))
    world.run()
    world.touch()
    world.new_leader()
    world.run()
    assert len(world.tasks()) == 2


def test_a_failed_slot_does_not_hold_up_the_others() -> None:
    world = world_with(ReplicatedJob(1, 3), restart=RestartPolicy(RestartCondition.NONE))
    world.settle()
    world.report("t1", TaskState.FAILED)
    world.run()
    assert sorted(task.slot for task in completed(world)) == [1, 2]
    assert Counter(task.slot for task in world.tasks()) == {0: 1, 1: 1, 2: 1}


def test_an_update_begins_a_new_run_and_removes_the_old_one() -> None:
    world = world_with(ReplicatedJob(2, 2))
    world.run()
    world.settle()
    world.declare(spec(mode=ReplicatedJob(2, 2), version="2", restart=NOW))
    world.settle()
    assert {task.job_iteration for task in world.live()} == {1}
    world.run()
    assert [(task.job_iteration, world.program(task)) for task in world.tasks()] == [(1, "2")] * 2


def test_a_removed_job_leaves_nothing() -> None:
    world = world_with(ReplicatedJob(2, 5))
    world.settle()
    world.place()
    world.remove()
    world.run()
    assert not list(world.store.tasks())


def test_a_drained_node_s_task_is_stopped_and_then_run_elsewhere() -> None:
    """24.2: there, jobs on DOWN and DRAIN nodes were not moved."""
    world = world_with(ReplicatedJob(1, 1), nodes="a b")
    world.settle()
    world.place()
    world.set_node("a", availability=Availability.DRAIN)
    world.settle()
    assert [(task.desired, task.is_live) for task in world.tasks()] == [
        (TaskState.SHUTDOWN, False),
        (TaskState.READY, True),
    ]
    world.run()
    assert [task.node_id for task in completed(world)] == ["b"]


def test_a_lost_node_s_task_is_run_elsewhere_at_once() -> None:
    world = world_with(ReplicatedJob(1, 1), nodes="a b")
    world.settle()
    world.place()
    world.set_node("a", state=NodeState.DOWN)
    world.run()
    assert [task.node_id for task in completed(world)] == ["b"]
    world.set_node("a", state=NodeState.READY)
    world.run()
    assert len(completed(world)) == 1
    assert not nothing_to_do(world)


# --- global --------------------------------------------------------------------------------------------------------
def test_a_global_job_runs_once_on_every_node_and_on_one_that_joins_later() -> None:
    """24.1: there, a node that joined later got none."""
    world = world_with(GlobalJob(), nodes="a b")
    world.run()
    assert sorted(task.node_id for task in completed(world)) == ["a", "b"]
    world.add_node("c")
    world.run()
    assert sorted(task.node_id for task in completed(world)) == ["a", "b", "c"]
    assert not nothing_to_do(world)


def test_only_suitable_ready_and_active_nodes_take_part() -> None:
    world = World("a b c d e")
    world.label_node("a", disk="ssd")
    for name in "bcd":
        world.label_node(name, disk="ssd")
    world.set_node("b", availability=Availability.PAUSE)
    world.set_node("c", availability=Availability.DRAIN)
    world.set_node("d", state=NodeState.DOWN)
    world.create(spec(mode=GlobalJob(), placement=Placement(constraints=("node.labels.disk == ssd",)), restart=NOW))
    world.run()
    assert [task.node_id for task in completed(world)] == ["a"]
    world.set_node("b", availability=Availability.ACTIVE)
    world.set_node("c", availability=Availability.ACTIVE)
    world.set_node("d", state=NodeState.READY)
    world.run()
    assert sorted(task.node_id for task in completed(world)) == ["a", "b", "c", "d"]


def test_a_drained_node_s_run_stops_and_begins_again_afterwards() -> None:
    world = world_with(GlobalJob(), nodes="a b")
    world.settle()
    world.place()
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    assert [task.node_id for task in completed(world)] == ["b"]
    world.set_node("a", availability=Availability.ACTIVE)
    world.run()
    assert sorted(task.node_id for task in completed(world)) == ["a", "b"]


def test_a_bad_node_never_lowers_remove_to_shutdown() -> None:
    """24.2: there, a global job's shutdown on a bad node could."""
    world = world_with(GlobalJob(), nodes="a")
    world.settle()
    world.place()
    world.remove()
    world.set_node("a", availability=Availability.DRAIN)
    world.settle()
    assert {task.desired for task in world.store.tasks()} == {TaskState.REMOVE}


def test_a_new_run_of_a_global_job_replaces_the_old_one() -> None:
    world = world_with(GlobalJob(), nodes="a b")
    world.run()
    world.declare(spec(mode=GlobalJob(), version="2", restart=NOW))
    world.run()
    assert [(task.job_iteration, world.program(task)) for task in world.tasks()] == [(1, "2")] * 2


def test_a_run_that_still_stops_is_waited_for_when_its_node_takes_tasks_again() -> None:
    world = World("a")
    world.lasting = True
    world.create(spec(mode=GlobalJob(), restart=NOW))
    world.run()
    (first,) = world.running()
    world.stubborn = {first.id}
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    world.set_node("a", availability=Availability.ACTIVE)
    world.run()
    (second,) = world.live()
    assert second.status.state is TaskState.READY, "never two runs of one slot"
    world.stubborn.clear()
    world.run()
    assert [task.id for task in world.running()] == [second.id]
