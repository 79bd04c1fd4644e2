"""Global services: one task on every suitable node."""

from __future__ import annotations

import pytest
from attrs import evolve
from orch_world import World, nothing_to_do, spec

from swarm.model.changes import Create, Delete, Kind
from swarm.model.ids import NodeId, ServiceId, Slot, TaskId
from swarm.model.objects import Task
from swarm.model.specs import Global, Placement, RestartPolicy, UpdateConfig
from swarm.model.states import Availability, NodeState, RestartCondition, TaskState, UpdateOrder, UpdateState


def started(nodes: str = "a b c", **fields: object) -> World:
    world = World(nodes)
    world.create(spec(mode=Global(), **fields))  # type: ignore[arg-type]
    world.run()
    return world


def nodes_running(world: World) -> list[str]:
    return sorted(task.node_id for task in world.running())


def test_a_task_on_every_node_and_on_one_that_joins() -> None:
    world = started("a b")
    assert nodes_running(world) == ["a", "b"]
    world.add_node("c")
    world.run()
    assert nodes_running(world) == ["a", "b", "c"]
    assert not nothing_to_do(world)


def test_each_new_service_gets_its_own() -> None:
    world = started("a b")
    world.create(spec("other", mode=Global()))
    world.run()
    assert len(world.running("other")) == 2
    world.add_node("c")
    world.run()
    assert len(world.running("other")) == 3 and len(world.running()) == 3


def test_a_removed_node_takes_its_tasks_with_it() -> None:
    world = started("a b")
    world.remove_node("a")
    world.run()
    assert [task.node_id for task in world.tasks()] == ["b"]


def test_drain_stops_an_update_meanwhile_does_nothing_and_activation_starts_anew() -> None:
    world = started("a b")
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    assert nodes_running(world) == ["b"]
    world.declare(spec(mode=Global(), version="2"))
    world.pass_time(60)
    assert nodes_running(world) == ["b"]
    assert world.update_state() is UpdateState.COMPLETED
    world.set_node("a", availability=Availability.ACTIVE)
    world.run()
    assert nodes_running(world) == ["a", "b"]
    assert world.programs() == ["2", "2"]


@pytest.mark.parametrize("condition", list(RestartCondition))
def test_a_task_that_was_stopped_for_its_node_returns_whatever_the_condition(condition: RestartCondition) -> None:
    """Section 6: there, restart condition none left the node without a task for good."""
    world = started("a b", restart=RestartPolicy(condition))
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    world.set_node("a", availability=Availability.ACTIVE)
    world.pass_time(10)
    assert nodes_running(world) == ["a", "b"]


def test_a_node_that_was_down_is_found_with_its_task() -> None:
    world = started("a b")
    before = world.by_slot()
    world.set_node("a", state=NodeState.DOWN)
    world.pass_time(100)
    assert world.by_slot() == before
    world.set_node("a", state=NodeState.READY)
    world.run()
    assert world.by_slot() == before


def test_a_node_that_was_down_during_an_update_is_updated_when_it_returns() -> None:
    world = started("a b")
    world.set_node("a", state=NodeState.DOWN)
    world.declare(spec(mode=Global(), version="2"))
    world.pass_time(20)
    assert world.update_state() is UpdateState.COMPLETED
    world.set_node("a", state=NodeState.READY)
    world.pass_time(20)
    assert world.programs() == ["2", "2"]
    assert world.update_state() is UpdateState.COMPLETED


def test_pause_neither_adds_nor_replaces_until_it_ends() -> None:
    world = started("a b")
    world.set_node("a", availability=Availability.PAUSE)
    world.run()
    assert len(world.running()) == 2
    task = next(task for task in world.running() if task.node_id == "a")
    world.report(task.id, TaskState.FAILED)
    world.pass_time(10)
    assert nodes_running(world) == ["b"]
    world.declare(spec(mode=Global(), version="2"))
    world.pass_time(20)
    assert nodes_running(world) == ["b"]
    world.set_node("a", availability=Availability.ACTIVE)
    world.pass_time(10)
    assert world.programs() == ["2", "2"]


def test_constraints_choose_the_nodes_and_follow_labels() -> None:
    world = World("a b")
    world.label_node("a", disk="ssd")
    world.create(spec(mode=Global(), placement=Placement(constraints=("node.labels.disk == ssd",))))
    world.run()
    assert nodes_running(world) == ["a"]
    world.label_node("b", disk="ssd")
    world.label_node("a", disk="old")
    world.run()
    assert nodes_running(world) == ["b"]
    assert not nothing_to_do(world)


def test_a_node_without_the_executor_gets_none() -> None:
    world = World("a b")
    node = world.store.node(NodeId("b"))
    assert node is not None
    from swarm.model.changes import Update

    world.commit(Update(evolve(node, description=evolve(node.description, executors=("docker",)))))
    world.create(spec(mode=Global()))
    world.run()
    assert nodes_running(world) == ["a"]


def test_a_failed_task_is_replaced_on_its_node_after_the_delay() -> None:
    world = started("a b")
    task = next(task for task in world.running() if task.node_id == "a")
    world.report(task.id, TaskState.FAILED)
    world.pass_time(4.9)
    assert nodes_running(world) == ["b"]
    world.pass_time(0.2)
    assert nodes_running(world) == ["a", "b"]


def test_restart_none_stays_down_until_the_spec_changes() -> None:
    none = RestartPolicy(RestartCondition.NONE)
    world = started("a b", restart=none)
    task = next(task for task in world.running() if task.node_id == "a")
    world.report(task.id, TaskState.FAILED)
    world.pass_time(10)
    world.touch()
    world.new_leader()
    world.pass_time(10)
    assert nodes_running(world) == ["b"]
    world.declare(spec(mode=Global(), version="2", restart=none))
    world.pass_time(30)
    assert world.programs() == ["2", "2"]


def test_max_attempts_are_counted_by_node() -> None:
    world = started("a b", restart=RestartPolicy(delay_s=0, max_attempts=2))
    for _ in range(4):
        for task in world.running():
            if task.node_id == "a":
                world.report(task.id, TaskState.FAILED)
        world.new_leader()
        world.run()
    assert nodes_running(world) == ["b"]
    assert len([task for task in world.tasks() if task.node_id == "a"]) == 3


@pytest.mark.parametrize("order", list(UpdateOrder))
def test_a_rolling_update_goes_node_by_node(order: UpdateOrder) -> None:
    world = started()
    world.declare(spec(mode=Global(), version="2", update=UpdateConfig(delay_s=10, monitor_s=1, order=order)))
    world.run()
    assert sorted(world.programs()) == ["1", "1", "2"]
    world.pass_time(60)
    assert world.programs() == ["2"] * 3
    assert nodes_running(world) == ["a", "b", "c"]
    assert world.update_state() is UpdateState.COMPLETED
    assert not nothing_to_do(world)


def test_a_deleted_record_is_made_anew() -> None:
    """There, deleting a global task's record did not recreate it."""
    world = started("a b")
    world.commit(Delete(Kind.TASK, world.running()[0].id))
    world.run()
    assert nodes_running(world) == ["a", "b"]


def test_two_tasks_on_one_node_one_goes() -> None:
    world = started("a")
    extra = Task(TaskId("x"), ServiceId("s1"), world.service().revision, Slot(0), node_id=NodeId("a"))
    world.commit(Create(extra))
    world.new_leader()
    world.run()
    assert len(world.running()) == 1


def test_a_removed_service_leaves_nothing() -> None:
    world = started()
    world.remove()
    world.settle()
    assert {task.desired for task in world.store.tasks()} == {TaskState.REMOVE}
    world.run()
    assert not list(world.store.tasks())


def test_a_new_leader_changes_nothing() -> None:
    world = started()
    before = world.store.version
    world.new_leader()
    world.run()
    assert world.store.version == before


@pytest.mark.parametrize("gone", ["removed", "drained"])
def test_an_update_goes_on_when_the_node_of_its_step_goes(gone: str) -> None:
    world = World("a b c")
    world.create(spec(mode=Global()))
    world.run()
    world.declare(spec(mode=Global(), version="2"))
    world.settle()
    (step,) = (task for task in world.live() if task.status.state is TaskState.NEW)
    if gone == "removed":
        world.remove_node(step.node_id)
    else:
        world.set_node(step.node_id, availability=Availability.DRAIN)
    world.pass_time(60)
    assert world.programs() == ["2", "2"]
    assert world.update_state() is UpdateState.COMPLETED
