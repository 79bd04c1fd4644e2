"""Replicated services: creating, scaling, restarting, node trouble, removal."""

from __future__ import annotations

import pytest
from orch_world import World, nothing_to_do, spec

from swarm.model.specs import RestartPolicy
from swarm.model.states import Availability, NodeState, RestartCondition, TaskState
from swarm.plan.reap import Reaper
from swarm.plan.replicated import ReplicatedPlanner
from swarm.plan.schedule.planner import Scheduler


def started(replicas: int = 3, nodes: str = "a b c", **fields: object) -> World:
    world = World(nodes)
    world.create(spec(replicas=replicas, **fields))  # type: ignore[arg-type]
    world.run()
    assert len(world.running()) == replicas
    assert not nothing_to_do(world)
    return world


def test_a_new_service_gets_a_task_for_each_slot() -> None:
    world = started(3)
    assert world.by_slot() == {1: ["t1"], 2: ["t2"], 3: ["t3"]}
    assert {task.status.state for task in world.tasks()} == {TaskState.RUNNING}


def test_scale_up_takes_the_lowest_free_numbers() -> None:
    world = started(1)
    world.scale(3)
    world.run()
    assert sorted(world.by_slot()) == [1, 2, 3]
    assert len(world.tasks()) == 3


def test_scale_down_removes_and_reaps() -> None:
    world = started(3)
    world.scale(1)
    world.settle()
    removed = [task for task in world.tasks() if task.desired is TaskState.REMOVE]
    assert len(removed) == 2
    assert all(task.reason and "scaled down" in task.reason.text for task in removed)
    world.run()
    assert len(world.tasks()) == 1
    assert not nothing_to_do(world)


def test_records_of_a_scaled_down_slot_stay_until_its_task_has_stopped() -> None:
    """24.1: there, any write of the service deleted the records of tasks that still ran."""
    world = started(3)
    world.stubborn = {task.id for task in world.tasks()}
    world.scale(1)
    world.run()
    world.touch()
    world.run()
    assert len(world.tasks()) == 3
    world.stubborn.clear()
    world.run()
    assert len(world.tasks()) == 1


@pytest.mark.parametrize("condition", list(RestartCondition))
def test_down_and_up_again_quickly_gives_all_replicas(condition: RestartCondition) -> None:
    """24.1: there, 3 -> 1 -> 3 with restart condition none left one replica for good."""
    world = started(3, restart=RestartPolicy(condition, delay_s=0))
    world.scale(1)
    world.settle()
    world.scale(3)
    world.run()
    assert len(world.running()) == 3
    assert sorted(world.by_slot()) == [1, 2, 3]


def test_a_new_task_in_a_slot_waits_for_the_one_that_leaves_it() -> None:
    world = started(2)
    world.stubborn = {"t2"}  # type: ignore[arg-type]
    world.scale(1)
    world.run()
    world.scale(2)
    world.run()
    waiting = next(task for task in world.live() if task.slot == 2)
    assert waiting.desired is TaskState.READY
    world.stubborn.clear()
    world.run()
    assert world.task(waiting.id).status.state is TaskState.RUNNING


def test_a_task_that_does_not_stop_holds_its_slot_for_a_minute_at_the_most() -> None:
    world = started(2)
    world.stubborn = {"t2"}  # type: ignore[arg-type]
    world.scale(1)
    world.run()
    world.scale(2)
    world.pass_time(59)
    assert len(world.running()) == 1
    world.pass_time(2)
    assert len(world.running()) == 2


def test_a_deleted_record_of_a_live_task_is_made_anew() -> None:
    from swarm.model.changes import Delete, Kind

    world = started(2)
    world.commit(Delete(Kind.TASK, "t1"))
    world.run()
    assert sorted(world.by_slot()) == [1, 2]
    assert len(world.running()) == 2


def test_a_removed_service_leaves_nothing() -> None:
    world = started(3)
    service = world.service()
    world.remove()
    world.settle()
    assert {task.desired for task in world.store.tasks()} == {TaskState.REMOVE}
    world.run()
    assert not list(world.store.tasks())
    assert not list(world.store.revisions_of(service.id))


def test_a_new_leader_stops_tasks_of_a_removed_service_instead_of_deleting_them() -> None:
    """24.2: there, start-up deleted running tasks of deleted services."""
    world = started(2)
    world.remove()
    world.new_leader()
    world.settle()
    assert [(task.desired, task.status.state) for task in world.store.tasks()] == [
        (TaskState.REMOVE, TaskState.RUNNING)
    ] * 2
    world.run()
    assert not list(world.store.tasks())


# --- restarts ------------------------------------------------------------------------------------------------------
def test_a_failed_task_is_replaced_after_the_delay() -> None:
    world = started(1)
    world.report("t1", TaskState.FAILED, error="exit code 1")
    world.run()
    new = world.live()[0]
    assert new.desired is TaskState.READY and new.slot == 1
    assert new.reason is not None
    assert world.task("t1").desired is TaskState.SHUTDOWN
    world.pass_time(4.9)
    assert world.task(new.id).desired is TaskState.READY
    world.pass_time(0.1)
    assert world.task(new.id).status.state is TaskState.RUNNING
    assert not nothing_to_do(world)


def test_a_new_leader_continues_a_restart_delay() -> None:
    world = started(1)
    world.report("t1", TaskState.FAILED)
    world.run()
    world.pass_time(3)
    world.new_leader()
    world.pass_time(1.9)
    assert not world.running()
    world.pass_time(0.2)
    assert len(world.running()) == 1


@pytest.mark.parametrize(
    ("condition", "end", "replaced"),
    [
        (RestartCondition.ANY, TaskState.FAILED, True),
        (RestartCondition.ANY, TaskState.COMPLETE, True),
        (RestartCondition.ANY, TaskState.REJECTED, True),
        (RestartCondition.ON_FAILURE, TaskState.FAILED, True),
        (RestartCondition.ON_FAILURE, TaskState.COMPLETE, False),
        (RestartCondition.NONE, TaskState.FAILED, False),
        (RestartCondition.NONE, TaskState.COMPLETE, False),
    ],
)
def test_restart_conditions(condition: RestartCondition, end: TaskState, replaced: bool) -> None:
    world = started(2, restart=RestartPolicy(condition, delay_s=0))
    world.report("t1", end)
    world.run()
    assert len(world.running()) == (2 if replaced else 1)
    assert world.task("t1").desired is TaskState.SHUTDOWN
    world.touch()
    world.run()
    assert len(world.running()) == (2 if replaced else 1)
    assert not nothing_to_do(world)
    world.declare(spec(replicas=2, version="2", restart=RestartPolicy(condition, delay_s=0)))
    world.pass_time(10)
    assert world.programs() == ["2", "2"]


def test_max_attempts_counts_restarts_of_a_slot_and_a_new_revision_begins_anew() -> None:
    policy = RestartPolicy(delay_s=0, max_attempts=1)
    world = started(2, restart=policy)
    for _ in range(3):
        for task in world.running():
            world.report(task.id, TaskState.FAILED)
        world.run()
    assert not world.running()
    assert len(world.tasks()) == 4
    world.declare(spec(replicas=2, version="2", restart=policy))
    world.pass_time(10)
    assert world.programs() == ["2", "2"]
    world.report(world.running()[0].id, TaskState.FAILED)
    world.run()
    assert world.programs() == ["2", "2"]


def test_attempts_survive_leader_changes_and_the_reaper() -> None:
    from swarm.model.specs import ClusterSettings

    world = World("a b", settings=ClusterSettings(task_history_limit=1))
    world.create(spec(restart=RestartPolicy(delay_s=0, max_attempts=3)))
    world.run()
    runs = 1
    while world.running():
        world.report(world.running()[0].id, TaskState.FAILED)
        world.new_leader()
        world.run()
        runs += 1
        assert runs < 10
    assert runs == 5  # four runs, and the end of the fourth
    assert not nothing_to_do(world)


def test_a_window_forgets_old_restarts() -> None:
    world = started(1, restart=RestartPolicy(delay_s=0, max_attempts=2, window_s=60))
    for _ in range(3):
        world.report(world.running()[0].id, TaskState.FAILED)
        world.pass_time(40)
    assert world.running()
    for _ in range(2):
        world.report(world.running()[0].id, TaskState.FAILED)
        world.pass_time(1)
    assert not world.running()


def test_failing_before_the_start_makes_no_fast_loop() -> None:
    world = started(1)
    world.report("t1", TaskState.FAILED)
    world.run()
    waiting = world.live()[0]
    world.report(waiting.id, TaskState.REJECTED)
    world.run()
    assert world.live() == [world.task(waiting.id)]
    world.pass_time(5)
    assert [task.desired for task in world.live()] == [TaskState.READY]
    world.pass_time(5)
    assert len(world.running()) == 1


# --- nodes ---------------------------------------------------------------------------------------------------------
def on(world: World, node: str) -> list[str]:
    return [task.id for task in world.store.tasks_of_node(node) if task.is_live]  # type: ignore[arg-type]


def test_a_lost_node_s_tasks_are_replaced_at_once_when_it_is_declared_down() -> None:
    world = started(3)
    old = on(world, "a")
    world.set_node("a", state=NodeState.DISCONNECTED)
    world.run()
    assert on(world, "a") == old and len(world.live()) == 3
    world.set_node("a", state=NodeState.DOWN)
    world.run()
    assert not on(world, "a")
    assert len(world.running()) == 3
    assert not nothing_to_do(world)


def test_a_node_that_comes_back_before_its_replacements_run_keeps_its_tasks() -> None:
    world = started(2, nodes="a b")
    world.full = {"b"}  # type: ignore[arg-type]
    (old,) = on(world, "a")
    world.set_node("a", state=NodeState.DOWN)
    world.run()
    assert len(world.live()) == 3
    world.set_node("a", state=NodeState.READY)
    world.settle()
    assert on(world, "a") == [old]
    world.run()
    assert sorted(world.by_slot().values()) == [["t1"], ["t2"]]


def test_of_two_that_run_after_a_node_came_back_the_newer_stays() -> None:
    world = started(1, nodes="a b")
    world.set_node("a", state=NodeState.DOWN)
    world.settle()
    world.place()
    world.agents()
    world.agents()
    world.set_node("a", state=NodeState.READY)
    world.run()
    assert [task.id for task in world.running()] == ["t2"]


def test_replace_after_of_a_service_counts_from_the_silence() -> None:
    from attrs import evolve

    world = World("a b")
    world.create(evolve(spec(), replace_after_s=2.0))
    world.run()
    world.set_node("a", state=NodeState.DISCONNECTED)
    world.pass_time(1.9)
    assert on(world, "a")
    world.pass_time(0.1)
    assert not on(world, "a") and len(world.running()) == 1


def test_a_longer_replace_after_outlasts_down() -> None:
    from attrs import evolve

    world = World("a b")
    world.create(evolve(spec(), replace_after_s=60.0))
    world.run()
    world.set_node("a", state=NodeState.DISCONNECTED)
    world.pass_time(15)
    world.set_node("a", state=NodeState.DOWN)
    world.pass_time(44)
    assert on(world, "a")
    world.pass_time(1)
    assert not on(world, "a") and len(world.running()) == 1


def test_the_cluster_s_replace_after_is_the_default() -> None:
    from swarm.model.specs import ClusterSettings

    world = World("a b", settings=ClusterSettings(replace_after_s=1.0))
    world.create(spec())
    world.run()
    world.set_node("a", state=NodeState.DISCONNECTED)
    world.pass_time(1)
    assert not on(world, "a") and len(world.running()) == 1


def test_a_removed_node_s_tasks_are_replaced_without_delay() -> None:
    world = started(3)
    world.remove_node("a")
    world.run()
    assert len(world.running()) == 3


def test_drain_starts_the_replacement_first_for_a_single_replica_too() -> None:
    world = started(1, nodes="a b")
    world.set_node("a", availability=Availability.DRAIN)
    world.settle()
    assert world.task("t1").desired is TaskState.RUNNING
    world.place()
    world.agents()
    world.settle()
    assert world.task("t1").desired is TaskState.RUNNING
    world.agents()
    world.settle()
    assert world.task("t2").status.state is TaskState.RUNNING
    assert world.task("t1").desired is TaskState.SHUTDOWN
    assert "drained" in world.task("t1").reason.text  # type: ignore[union-attr]


def test_a_drained_task_that_fits_nowhere_else_keeps_running_and_says_why() -> None:
    world = started(1, nodes="a b")
    world.full = {"b"}  # type: ignore[arg-type]
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    assert world.task("t1").status.state is TaskState.RUNNING
    assert "keeps running" in world.task("t1").reason.text  # type: ignore[union-attr]
    world.full.clear()
    world.run()
    assert on(world, "b") and not on(world, "a")


def test_a_drain_that_is_taken_back_keeps_the_task() -> None:
    world = started(1, nodes="a b")
    world.full = {"b"}  # type: ignore[arg-type]
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    world.set_node("a", availability=Availability.ACTIVE)
    world.run()
    assert world.by_slot() == {1: ["t1"]}
    assert not nothing_to_do(world)


def test_pause_and_unknown_evict_nobody() -> None:
    world = started(3)
    world.set_node("a", availability=Availability.PAUSE)
    world.set_node("b", state=NodeState.UNKNOWN)
    world.run()
    assert len(world.tasks()) == 3


def test_a_task_that_is_bound_to_a_node_after_its_drain_moves_on() -> None:
    world = World("a b")
    world.create(spec())
    world.settle()
    world.place()
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    assert [task.node_id for task in world.running()] == ["b"]


def test_restart_none_a_lost_node_is_waited_for_and_a_drained_one_stops() -> None:
    world = started(2, nodes="a b", restart=RestartPolicy(RestartCondition.NONE))
    world.set_node("a", state=NodeState.DOWN)
    world.run()
    assert len(world.live()) == 2
    world.set_node("a", state=NodeState.READY)
    world.run()
    assert len(world.running()) == 2
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    assert len(world.running()) == 1
    assert not nothing_to_do(world)


def test_a_placed_replacement_still_says_what_it_replaces_and_why() -> None:
    world = World("a b", all=[ReplicatedPlanner(), Reaper(), Scheduler()])
    world.create(spec(replicas=2, restart=RestartPolicy(delay_s=0)))
    world.run()
    world.report("t1", TaskState.FAILED, error="exit code 7")
    world.run()
    reason = world.task("t3").reason
    assert reason is not None and reason.previous_task == "t1"
    assert "exit code 7" in reason.text and "the best of" in reason.text
    world.set_node("a", state=NodeState.DOWN)
    world.set_node("b", availability=Availability.PAUSE)
    world.run()
    waiting = next(task for task in world.live() if not task.node_id)
    assert waiting.reason is not None and waiting.reason.previous_task
    assert "no suitable node" in waiting.reason.text
    assert "is lost" in waiting.reason.made
    world.set_node("b", availability=Availability.ACTIVE)
    world.run()
    reason = world.task(waiting.id).reason
    assert reason is not None and "is lost; the best of" in reason.text, "what moved it outlasts the wait"
