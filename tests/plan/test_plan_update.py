"""Rolling updates and rollbacks of replicated services."""

from __future__ import annotations

import pytest
from attrs import evolve
from orch_world import CountingIds, World, nothing_to_do, spec

from swarm.model.events import Event
from swarm.model.ids import NodeId
from swarm.model.objects import Task
from swarm.model.specs import ContainerSpec, Placement, RestartPolicy, TaskSpec, UpdateConfig
from swarm.model.states import (
    Availability,
    FailureAction,
    NodeState,
    RestartCondition,
    TaskState,
    UpdateOrder,
    UpdateState,
)
from swarm.plan.replicated import ReplicatedPlanner

NEVER_AGAIN = RestartPolicy(RestartCondition.NONE)


def started(replicas: int = 4, nodes: str = "a b", **fields: object) -> World:
    world = World(nodes)
    world.create(spec(replicas=replicas, **fields))  # type: ignore[arg-type]
    world.run()
    assert len(world.running()) == replicas
    return world


def watch_extremes(world: World) -> dict[str, int]:
    """The fewest running, the most live and the most running tasks since now."""
    seen = {"running_min": len(world.running()), "live_max": len(world.live()), "step_max": 0}

    def look(world: World, event: Event) -> None:
        if isinstance(event.object, Task):
            seen["running_min"] = min(seen["running_min"], len(world.running()))
            seen["live_max"] = max(seen["live_max"], len(world.live()))

    world.checks.append(look)
    return seen


@pytest.mark.parametrize("parallelism", [1, 2, 0])
@pytest.mark.parametrize("order", list(UpdateOrder))
def test_an_update_replaces_every_slot_within_its_limits(parallelism: int, order: UpdateOrder) -> None:
    world = started()
    seen = watch_extremes(world)
    config = UpdateConfig(parallelism=parallelism, order=order, monitor_s=1)
    world.declare(spec(replicas=4, version="2", update=config))
    world.pass_time(5)
    assert world.programs() == ["2"] * 4
    assert world.update_state() is UpdateState.COMPLETED
    width = parallelism or 4
    if order is UpdateOrder.STOP_FIRST:
        assert seen["running_min"] == 4 - width and seen["live_max"] == 4
    else:
        assert seen["running_min"] == 4 and seen["live_max"] == 4 + width
    assert not nothing_to_do(world)


def test_the_delay_separates_the_steps_and_the_monitor_ends_the_update() -> None:
    world = started(3)
    world.declare(spec(replicas=3, version="2", update=UpdateConfig(delay_s=10, monitor_s=5)))
    world.pass_time(0)
    assert sorted(world.programs()) == ["1", "1", "2"]
    world.pass_time(9)
    assert sorted(world.programs()) == ["1", "1", "2"]
    world.pass_time(1)
    assert sorted(world.programs()) == ["1", "2", "2"]
    world.pass_time(10)
    assert world.programs() == ["2"] * 3
    assert world.update_state() is UpdateState.UPDATING
    world.pass_time(10)
    assert world.update_state() is UpdateState.COMPLETED


def test_a_new_leader_continues_an_update_with_its_delays() -> None:
    world = started(3)
    world.declare(spec(replicas=3, version="2", update=UpdateConfig(delay_s=10)))
    world.pass_time(5)
    world.new_leader()
    world.pass_time(4)
    assert sorted(world.programs()) == ["1", "1", "2"]
    world.pass_time(1)
    assert sorted(world.programs()) == ["1", "2", "2"]


def test_stop_first_waits_for_the_old_task_after_a_leader_change_too() -> None:
    """24.2: there, the new leader promoted at once, so that both could run."""
    world = started(1)
    world.stubborn = {"t1"}  # type: ignore[arg-type]
    world.declare(spec(version="2"))
    world.run()
    assert world.task("t2").status.state is TaskState.READY
    world.new_leader()
    world.pass_time(30)
    assert world.task("t2").status.state is TaskState.READY
    world.new_leader()
    world.pass_time(31)
    assert world.task("t2").status.state is TaskState.RUNNING


def test_a_longer_grace_period_is_waited_for() -> None:
    world = World("a")
    slow = spec()
    world.create(evolve(slow, task=evolve(slow.task, runtime=evolve(slow.task.runtime, stop_grace_s=300.0))))
    world.run()
    world.stubborn = {"t1"}  # type: ignore[arg-type]
    world.declare(spec(version="2"))
    world.pass_time(329)
    assert not world.running()
    world.pass_time(1)
    assert world.programs() == ["2"]


# --- what is dirty -------------------------------------------------------------------------------------------------
def test_scaling_labels_and_update_settings_dirty_nothing() -> None:
    world = started(2)
    world.declare(evolve(spec(replicas=2, update=UpdateConfig(parallelism=7)), labels={"a": "b"}))
    world.run()
    assert world.by_slot() == {1: ["t1"], 2: ["t2"]}
    assert world.update_state() is None


def test_a_placement_that_the_node_satisfies_dirties_nothing() -> None:
    world = started(2, nodes="a")
    world.declare(spec(replicas=2, placement=Placement(constraints=("node.hostname == a",))))
    world.run()
    assert world.by_slot() == {1: ["t1"], 2: ["t2"]}
    world.declare(spec(replicas=2, placement=Placement(constraints=("node.hostname == b",))))
    world.run()
    assert world.update_state() is UpdateState.UPDATING
    assert {task.id for task in world.live()} != {"t1", "t2"}


def test_placement_and_program_changed_is_dirty_on_any_node() -> None:
    world = started(1, nodes="a")
    world.declare(spec(version="2", placement=Placement(constraints=("node.hostname == a",))))
    world.run()
    assert world.programs() == ["2"]


def test_pull_credentials_alone_dirty_only_what_is_not_pulled_yet() -> None:
    world = World("a")
    container = spec()
    container = evolve(container, task=TaskSpec(ContainerSpec("web:1", registry_auth="old")))
    world.create(container)
    world.settle()
    world.place()
    world.agents()
    world.report("t1", TaskState.RUNNING)
    world.declare(evolve(container, task=TaskSpec(ContainerSpec("web:1", registry_auth="new"))))
    world.settle()
    assert world.by_slot() == {1: ["t1"]}


def test_force_update_replaces_every_task() -> None:
    world = started(2)
    world.declare(spec(replicas=2, force_update=1))
    world.pass_time(10)
    assert {task.id for task in world.running()} == {"t3", "t4"}


# --- failures ------------------------------------------------------------------------------------------------------
def test_pause_stops_at_the_first_failure_and_a_new_update_goes_on() -> None:
    world = started(3)
    world.broken = {"2"}
    world.declare(spec(replicas=3, version="2"))
    world.pass_time(60)
    assert world.update_state() is UpdateState.PAUSED
    assert world.programs() == ["1", "1"]
    status = world.service().update_status
    assert status is not None and "exit code 1" in status.message
    world.touch()
    world.new_leader()
    world.pass_time(60)
    assert world.programs() == ["1", "1"]
    world.broken = {"3"}
    world.declare(spec(replicas=3, version="3", update=UpdateConfig(failure_action=FailureAction.CONTINUE)))
    world.pass_time(60)
    assert world.running() == []
    assert {world.program(task) for task in world.live()} == {"3"}


def test_rollback_returns_to_the_previous_spec_as_a_new_revision() -> None:
    world = started(3)
    world.broken = {"2"}
    update = UpdateConfig(failure_action=FailureAction.ROLLBACK, monitor_s=1)
    world.declare(spec(replicas=3, version="2", update=update))
    world.pass_time(60)
    service = world.service()
    assert world.update_state() is UpdateState.ROLLBACK_COMPLETED
    assert world.programs() == ["1"] * 3
    assert (service.revision, service.previous) == (3, None)
    revision = world.store.revision(service.id, service.revision)
    assert revision is not None and "automatic rollback to revision 1" in revision.note
    assert not nothing_to_do(world)


def test_the_failure_ratio_is_strict_and_counted_over_the_slots_at_the_start() -> None:
    """updater tests of the reference: fail, succeed, fail of four with ratio 0.4 begins the rollback at the third."""
    world = started(4)
    world.broken = {"2"}
    update = UpdateConfig(failure_action=FailureAction.ROLLBACK, monitor_s=1, max_failure_ratio=0.25)
    world.declare(spec(replicas=4, version="2", update=update, restart=RestartPolicy(delay_s=100)))
    world.run()
    assert world.update_state() is UpdateState.ROLLBACK_STARTED
    failed = [task for task in world.tasks() if task.status.state is TaskState.FAILED]
    assert len(failed) == 2


@pytest.mark.parametrize(
    ("action", "end"),
    [
        (FailureAction.PAUSE, UpdateState.ROLLBACK_PAUSED),
        (FailureAction.ROLLBACK, UpdateState.ROLLBACK_PAUSED),
        (FailureAction.CONTINUE, UpdateState.ROLLBACK_COMPLETED),
    ],
)
def test_a_rollback_that_fails_too_never_flip_flops(action: FailureAction, end: UpdateState) -> None:
    """24.1: there, a rollback with failure action rollback went on to COMPLETED and to a new update, and back."""
    rollback = UpdateConfig(failure_action=action, monitor_s=1)
    world = started(3, rollback=rollback)
    world.broken = {"1", "2"}
    update = UpdateConfig(failure_action=FailureAction.ROLLBACK, monitor_s=1)
    world.declare(spec(replicas=3, version="2", update=update, rollback=rollback))
    world.pass_time(30)
    assert world.update_state() is end
    revision = world.service().revision
    for _ in range(3):
        world.pass_time(60)
        world.new_leader()
        assert world.update_state() is end
        assert world.service().revision == revision == 3


def test_a_rollback_without_an_earlier_revision_pauses_and_says_so() -> None:
    world = started(2)
    world.broken = {"2"}
    update = UpdateConfig(failure_action=FailureAction.ROLLBACK)
    world.declare(spec(replicas=2, version="2", update=update))
    service = world.service()
    from swarm.model.changes import Update

    world.commit(Update(evolve(service, previous=None)))
    world.pass_time(1)
    assert world.update_state() is UpdateState.PAUSED
    status = world.service().update_status
    assert status is not None and "no earlier revision" in status.message


def test_a_manual_rollback_rolls_with_the_rollback_settings() -> None:
    world = started(2, rollback=UpdateConfig(parallelism=0, monitor_s=1))
    world.declare(spec(replicas=2, version="2", rollback=UpdateConfig(parallelism=0, monitor_s=1)))
    world.pass_time(20)
    world.roll_back()
    world.pass_time(5)
    assert world.programs() == ["1", "1"]
    assert world.update_state() is UpdateState.ROLLBACK_COMPLETED


def test_a_failure_after_the_monitoring_does_not_count() -> None:
    world = started(3)
    world.declare(spec(replicas=3, version="2", update=UpdateConfig(delay_s=20, monitor_s=5)))
    world.pass_time(6)
    first = next(task for task in world.running() if world.program(task) == "2")
    world.report(first.id, TaskState.FAILED)
    world.pass_time(1)
    assert world.update_state() is UpdateState.UPDATING
    world.pass_time(200)
    assert world.update_state() is UpdateState.COMPLETED


def test_a_failure_within_the_monitoring_counts_after_a_leader_change_too() -> None:
    world = started(3)
    world.declare(spec(replicas=3, version="2", update=UpdateConfig(delay_s=20, monitor_s=10, max_failure_ratio=0.5)))
    for seconds in (6, 22):
        world.pass_time(seconds)
        newest = max((t for t in world.running() if world.program(t) == "2"), key=lambda task: task.created_at)
        world.report(newest.id, TaskState.FAILED)
        world.new_leader()
        world.run()
        world.new_leader()
    assert world.update_state() is UpdateState.PAUSED


def test_a_task_lost_with_its_node_is_no_failure_of_the_update() -> None:
    world = started(2, nodes="a b c")
    world.declare(spec(replicas=2, version="2", update=UpdateConfig(delay_s=5)))
    world.run()
    new = next(task for task in world.running() if world.program(task) == "2")
    world.remove_node(new.node_id)
    world.pass_time(60)
    assert world.update_state() is UpdateState.COMPLETED
    assert world.programs() == ["2", "2"]


def test_start_first_keeps_the_old_task_when_the_new_one_dies() -> None:
    world = started(2)
    world.broken = {"2"}
    world.declare(spec(replicas=2, version="2", update=UpdateConfig(order=UpdateOrder.START_FIRST)))
    world.pass_time(100)
    assert world.update_state() is UpdateState.PAUSED
    assert world.programs() == ["1", "1"]


def test_start_first_given_up_is_not_tried_again_for_ever() -> None:
    world = started(2)
    world.broken = {"2"}
    update = UpdateConfig(order=UpdateOrder.START_FIRST, failure_action=FailureAction.CONTINUE)
    world.declare(spec(replicas=2, version="2", update=update, restart=RestartPolicy(delay_s=0, max_attempts=1)))
    world.pass_time(1000)
    assert world.programs() == ["1", "1"]
    assert world.update_state() is UpdateState.COMPLETED
    count = len(world.tasks())
    world.touch()
    world.new_leader()
    world.pass_time(1000)
    assert len(world.tasks()) == count
    world.broken.clear()
    world.declare(spec(replicas=2, version="3", update=update))
    world.pass_time(100)
    assert world.programs() == ["3", "3"]


@pytest.mark.parametrize("drained", [False, True])
def test_a_start_first_step_that_goes_with_its_node_before_it_runs_is_made_again(drained: bool) -> None:
    """Sim seed 20766: the old task was taken to serve the slot, and the update was complete with it running."""
    world = started(2, nodes="a b")
    world.full = {"a", "b"}  # type: ignore[arg-type]
    world.add_node("c")
    world.silent = {"c"}  # type: ignore[arg-type]
    world.declare(spec(replicas=2, version="2", update=UpdateConfig(parallelism=0, order=UpdateOrder.START_FIRST)))
    world.run()
    assert [task.node_id for task in world.live() if world.program(task) == "2"] == ["c", "c"]
    world.full.clear()
    if drained:
        world.set_node("c", availability=Availability.DRAIN)
    else:
        world.set_node("c", state=NodeState.DOWN)
    world.pass_time(1000)
    assert world.programs() == ["2", "2"]
    assert world.update_state() is UpdateState.COMPLETED
    assert not nothing_to_do(world)


# --- interruptions -------------------------------------------------------------------------------------------------
def test_a_later_update_takes_over_half_done_slots() -> None:
    world = started(3)
    world.full = {"a", "b"}  # type: ignore[arg-type]
    world.declare(spec(replicas=3, version="2"))
    world.pass_time(30)
    assert world.programs() == ["1", "1"]
    world.full.clear()
    world.declare(spec(replicas=3, version="3"))
    world.pass_time(60)
    assert world.programs() == ["3"] * 3
    assert not [task for task in world.live() if world.program(task) == "2"]


def test_scaling_during_an_update_goes_on_with_it() -> None:
    world = started(4)
    update = UpdateConfig(delay_s=5, monitor_s=1)
    world.declare(spec(replicas=4, version="2", update=update))
    world.pass_time(6)
    done = {task.id for task in world.running() if world.program(task) == "2"}
    assert len(done) == 2
    world.scale(6)
    world.pass_time(60)
    assert world.programs() == ["2"] * 6
    assert done <= {task.id for task in world.running()}
    assert world.update_state() is UpdateState.COMPLETED


def test_a_scale_up_is_made_from_the_new_spec_and_is_not_monitored() -> None:
    world = started(1)
    world.broken = {"2"}
    world.declare(spec(replicas=2, version="2", update=UpdateConfig(delay_s=1000)))
    world.run()
    assert world.update_state() is UpdateState.PAUSED  # by the replaced slot
    world = started(1)
    world.declare(spec(replicas=3, version="2", update=UpdateConfig(delay_s=1000)))
    world.run()
    assert world.programs() == ["2"] * 3


def test_an_unplaceable_step_stalls_the_update_and_a_scale_up_does_not() -> None:
    world = started(3)
    world.full = {"a", "b"}  # type: ignore[arg-type]
    world.declare(spec(replicas=3, version="2"))
    world.pass_time(500)
    assert world.programs() == ["1", "1"]
    assert world.update_state() is UpdateState.UPDATING


def test_an_update_of_finished_slots_runs_them_again() -> None:
    world = started(2, restart=NEVER_AGAIN)
    for task in world.running():
        world.report(task.id, TaskState.COMPLETE)
    world.run()
    assert not world.running()
    world.declare(spec(replicas=2, version="2", restart=NEVER_AGAIN))
    world.pass_time(20)
    assert world.programs() == ["2", "2"]


def test_a_step_waits_for_a_task_that_was_placed_while_the_step_was_planned() -> None:
    """Seed 50007: the scheduler places a task that the update, planned from an older view, replaces as never placed."""
    world = World("a b")
    world.full = {NodeId("a"), NodeId("b")}
    world.create(spec())
    world.run()
    world.declare(spec(version="2"))
    planner = ReplicatedPlanner()
    memory, keys = planner.start(world.store)
    plan = planner.plan(world.store, list(keys), memory, world.now, CountingIds("x"))
    world.full.clear()
    world.place()
    assert world.task("t1").status.state is TaskState.ASSIGNED
    for group in plan.groups:
        world.commit(*group)
    (new,) = world.live()
    assert new.desired is TaskState.READY, "t1 may be starting on its node"
    world.run()
    assert world.programs() == ["2"]
