"""What the reaper deletes, and what it never does."""

from __future__ import annotations

import pytest
from attrs import evolve
from orch_world import World, spec

from swarm.model.changes import Advance, Create, Update
from swarm.model.ids import NodeId, RevisionNumber, Slot, TaskId
from swarm.model.objects import Task, TaskStatus
from swarm.model.specs import ClusterSettings, Global, RestartPolicy
from swarm.model.states import NodeState, Origin, TaskState
from swarm.plan.reap import Reaper

STATUSES = [state for state in TaskState if state is not TaskState.REMOVE]


def world_of(limit: int = 5, **fields: object) -> World:
    world = World("a", settings=ClusterSettings(task_history_limit=limit, **fields), all=[Reaper()])  # type: ignore[arg-type]
    world.create(spec())
    return world


def put(world: World, id: str, desired: TaskState, state: TaskState, node: str = "a", **fields: object) -> None:
    service = world.service()
    task = Task(
        TaskId(id),
        service.id,
        RevisionNumber(1),
        Slot(1),
        NodeId(node),
        desired,
        TaskStatus(state),
        created_at=world.now,
        **fields,  # type: ignore[arg-type]
    )
    world.commit(Create(task))


def left(world: World) -> list[str]:
    return [task.id for task in world.tasks()]


@pytest.mark.parametrize("state", STATUSES)
def test_a_task_to_be_removed_goes_when_it_cannot_be_running(state: TaskState) -> None:
    world = world_of()
    put(world, "t", TaskState.RUNNING, state)
    world.commit(Advance(TaskId("t"), desired=TaskState.REMOVE))
    world.settle()
    assert (left(world) == []) == (state < TaskState.ASSIGNED or state.is_terminal)
    world.new_leader()
    world.settle()
    assert (left(world) == []) == (state < TaskState.ASSIGNED or state.is_terminal)


@pytest.mark.parametrize("state", STATUSES)
@pytest.mark.parametrize("desired", [TaskState.RUNNING, TaskState.SHUTDOWN])
def test_history_that_goes_with_limit_zero(desired: TaskState, state: TaskState) -> None:
    """Live tasks never go, even ended ones: the orchestrator has not dealt with their end yet."""
    world = world_of(limit=0)
    put(world, "old", desired, state)
    put(world, "new", TaskState.RUNNING, TaskState.RUNNING, origin=Origin.RESTART)
    world.settle()
    gone = desired is TaskState.SHUTDOWN and (state < TaskState.ASSIGNED or state.is_terminal)
    assert left(world) == (["new"] if gone else ["old", "new"])


def test_the_limit_counts_all_tasks_of_a_slot_oldest_first() -> None:
    world = world_of(limit=3)
    for number in range(5):
        put(world, f"t{number}", TaskState.SHUTDOWN, TaskState.FAILED)
    put(world, "new", TaskState.RUNNING, TaskState.RUNNING, origin=Origin.RESTART)
    world.settle()
    assert left(world) == ["t3", "t4", "new"]


def test_a_negative_limit_keeps_everything() -> None:
    world = world_of(limit=-1)
    for number in range(20):
        put(world, f"t{number}", TaskState.SHUTDOWN, TaskState.FAILED, origin=Origin.RESTART)
    world.new_leader()
    world.settle()
    assert len(left(world)) == 20


def test_the_newest_of_a_slot_stays_since_it_says_that_the_slot_is_finished() -> None:
    world = world_of(limit=0)
    put(world, "a", TaskState.SHUTDOWN, TaskState.FAILED)
    put(world, "b", TaskState.SHUTDOWN, TaskState.FAILED, origin=Origin.RESTART)
    world.new_leader()
    world.settle()
    assert left(world) == ["b"]


def test_a_failed_start_first_attempt_stays_beside_the_old_task_so_that_it_is_not_tried_again() -> None:
    world = world_of(limit=1)
    put(world, "old", TaskState.RUNNING, TaskState.RUNNING)
    put(world, "try", TaskState.SHUTDOWN, TaskState.FAILED, origin=Origin.UPDATE)
    world.new_leader()
    world.settle()
    assert left(world) == ["old", "try"]


def test_a_lower_limit_applies_at_once() -> None:
    world = world_of(limit=10)
    for number in range(5):
        put(world, f"t{number}", TaskState.SHUTDOWN, TaskState.FAILED)
    cluster = world.store.cluster
    assert cluster is not None
    world.commit(Update(evolve(cluster, settings=ClusterSettings(task_history_limit=2))))
    world.settle()
    assert left(world) == ["t3", "t4"]


def test_a_window_keeps_the_restarts_that_it_counts() -> None:
    world = World("a", settings=ClusterSettings(task_history_limit=1))
    world.create(spec(restart=RestartPolicy(delay_s=0, max_attempts=3, window_s=1000)))
    world.run()
    for _ in range(6):
        for task in world.running():
            world.report(task.id, TaskState.FAILED)
        world.pass_time(1)
    assert not world.running()
    assert len(world.tasks()) == 4


def test_a_removed_task_on_a_down_node_does_not_linger() -> None:
    """24.3: there, it stayed for 24 hours, begun anew by each leader."""
    world = World("a")
    world.create(spec())
    world.run()
    world.set_node("a", state=NodeState.DOWN)
    world.remove()
    world.run()
    assert not list(world.store.tasks())


def test_a_removed_task_waits_for_a_node_that_is_only_disconnected_and_then_down() -> None:
    world = World("a")
    world.create(spec())
    world.run()
    world.set_node("a", state=NodeState.DISCONNECTED)
    world.remove()
    world.run()
    assert len(list(world.store.tasks())) == 1
    world.set_node("a", state=NodeState.DOWN)
    world.run()
    assert not list(world.store.tasks())


def test_global_history_is_kept_by_node() -> None:
    world = World("a b", settings=ClusterSettings(task_history_limit=2))
    world.create(spec(mode=Global(), restart=RestartPolicy(delay_s=0)))
    world.run()
    for _ in range(4):
        for task in world.running():
            world.report(task.id, TaskState.FAILED)
        world.run()
    assert sorted(task.node_id for task in world.tasks()) == ["a", "a", "b", "b"]


def test_old_revisions_go_unless_a_task_or_a_rollback_needs_them() -> None:
    world = World("a", settings=ClusterSettings(revision_history_limit=3))
    world.create(spec())
    world.run()
    world.set_node("a", state=NodeState.DISCONNECTED)
    for version in "2345678":
        world.declare(evolve(spec(), labels={"v": version}))
        world.run()
    numbers = [revision.number for revision in world.store.revisions_of(world.service().id)]
    assert numbers == [1, 7, 8]  # 1 is named by the task, 7 is what a rollback returns to
    world.set_node("a", state=NodeState.READY)
    world.declare(spec(version="9"))
    world.pass_time(100)
    for _ in range(3):
        world.declare(evolve(world.service().spec, labels={"v": str(world.service().revision)}))
        world.run()
    assert len(list(world.store.revisions_of(world.service().id))) <= 4


def test_the_history_of_thousands_is_deleted_in_slices() -> None:
    world = world_of(limit=1)
    for number in range(3000):
        put(world, f"t{number}", TaskState.SHUTDOWN, TaskState.FAILED)
    world.new_leader()
    world.settle()
    assert left(world) == ["t2999"]
