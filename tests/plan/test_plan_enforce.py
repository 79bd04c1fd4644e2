"""The constraint enforcer: who is rejected when a node changes under its tasks."""

from __future__ import annotations

import pytest
from attrs import evolve
from schedule_world import CORE, GIB, START, NoIds, World

from swarm.model.changes import Advance, Delete, Kind, Update
from swarm.model.ids import NodeId, TaskId
from swarm.model.reasons import ReasonCode
from swarm.model.specs import GenericResource, NodeDescription, ReplicatedJob
from swarm.model.states import Availability, NodeState, Role, TaskState
from swarm.plan.enforce import ConstraintEnforcer


def enforce(world: World, *nodes: str) -> set[TaskId]:
    """Plan these nodes (all when none is named), commit, and give the tasks that were rejected."""
    planner = ConstraintEnforcer()
    keys = nodes or tuple(planner.start(world.store)[1])
    plan = planner.plan(world.store, keys, None, world.now, NoIds())
    assert all(result is None for result in world.commit(list(plan.groups)))
    assert planner.plan(world.store, keys, None, world.now, NoIds()).groups == (), "idempotent on its own result"
    return {change.task_id for (change,) in plan.groups if isinstance(change, Advance)}


def dirty(world: World) -> list[str]:
    return [key for event in world.events for key in ConstraintEnforcer().dirty(event, None)]


def running(world: World, service: str, slot: int, node: str = "n1", **more: object) -> TaskId:
    return world.task(service, slot, node=node, state=TaskState.RUNNING, **more)  # type: ignore[arg-type]


def test_a_task_whose_role_is_wrong_is_rejected_at_the_start_and_the_others_are_left_alone() -> None:
    world = World()
    world.node("n1", role=Role.WORKER)
    world.service("bound", constraints=("node.role == manager",))
    world.service("free")
    world.service("fits", constraints=("node.role != manager",))
    bound, free, fits = (running(world, name, 1) for name in ("bound", "free", "fits"))
    assert enforce(world) == {bound}
    task = world.get(bound)
    assert task.status.state is TaskState.REJECTED
    assert task.status.message == "rejected by the constraint enforcer"
    assert task.status.error == "the node no longer meets node.role == manager"
    assert task.status.at == task.status.applied_at == START
    assert task.desired is TaskState.RUNNING, "the orchestrator replaces it"
    assert task.reason is not None and task.reason.code is ReasonCode.CONSTRAINT
    assert world.get(free).status.state is world.get(fits).status.state is TaskState.RUNNING


def test_a_role_that_changes_later_makes_the_node_dirty() -> None:
    world = World()
    world.node("n1", role=Role.MANAGER)
    world.service("bound", constraints=("node.role == manager",))
    id = running(world, "bound", 1)
    assert enforce(world) == set()
    world.events.clear()
    world.node("n1", role=Role.WORKER)
    assert dirty(world) == ["n1"]
    assert enforce(world, "n1") == {id}


def test_changes_that_nobody_can_see_do_not_make_a_node_dirty() -> None:
    world = World()
    world.node("n1")
    world.events.clear()
    node = world.store.node(NodeId("n1"))
    assert node is not None
    world.apply(Update(evolve(node, certificate_serial="7")))
    world.set_state("n1", NodeState.DISCONNECTED)
    world.apply(Delete(Kind.NODE, "n1"))
    assert dirty(world) == []


def test_the_services_present_constraints_count_although_the_task_was_made_without() -> None:
    world = World()
    world.node("n1", labels={"zone": "a"})
    world.service("web")
    id = running(world, "web", 1)
    world.service("web", constraints=("node.labels.zone == a",))
    assert enforce(world) == set()
    world.node("n1")
    assert enforce(world) == {id}


def test_a_task_whose_service_is_gone_is_judged_by_its_own_constraints() -> None:
    world = World()
    world.node("n1", labels={"zone": "a"})
    world.service("web", constraints=("node.labels.zone == a",))
    id = running(world, "web", 1)
    world.apply(Delete(Kind.SERVICE, "web"))
    assert enforce(world) == set()
    world.node("n1")
    assert enforce(world) == {id}


def test_when_memory_shrinks_the_newest_tasks_give_way() -> None:
    """The reference's victims depend on the order of its store."""
    world = World()
    world.node("n1", memory=4 * GIB)
    world.service("web", memory=1 * GIB)
    ids = [running(world, "web", slot) for slot in range(1, 5)]
    assert enforce(world) == set()
    world.node("n1", memory=3 * GIB)
    assert enforce(world) == {ids[3]}
    assert world.get(ids[3]).status.error == ("the node no longer has the 1 GiB of memory it reserves, 0 B are left")
    world.node("n1", memory=GIB + GIB // 2)
    assert enforce(world) == {ids[1], ids[2]}


def test_a_smaller_newer_task_may_stay_where_a_larger_one_had_to_go() -> None:
    world = World()
    world.node("n1", cpus=8)
    world.service("large", cpus=4)
    world.service("small", cpus=1)
    first, second = running(world, "large", 1), running(world, "large", 2)
    world.now = type(world.now)(world.now + 100)
    third = running(world, "small", 1)
    world.node("n1", cpus=5)
    assert enforce(world) == {second}
    assert "4 CPU" in world.get(second).status.error
    assert {world.get(first).status.state, world.get(third).status.state} == {TaskState.RUNNING}


def test_finished_and_stopping_tasks_take_no_room() -> None:
    world = World()
    world.node("n1", memory=1 * GIB)
    world.service("job", mode=ReplicatedJob(), memory=1 * GIB)  # type: ignore[arg-type]
    world.task("job", 0, node="n1", state=TaskState.COMPLETE, desired=TaskState.COMPLETE)
    running(world, "job", 1, desired=TaskState.SHUTDOWN)
    running(world, "job", 2, desired=TaskState.COMPLETE)
    assert enforce(world) == set()


@pytest.mark.parametrize(
    ("before", "claimed", "after"),
    [
        (GenericResource("gpu", 1, ("a",)), GenericResource("gpu", 1, ("a",)), GenericResource("gpu", 1, ("b",))),
        (GenericResource("gpu", 2), GenericResource("gpu", 2), GenericResource("gpu", 1)),
        (GenericResource("gpu", 1), GenericResource("gpu", 1), GenericResource("gpu", 1, ("a",))),
        (GenericResource("gpu", 1, ("a",)), GenericResource("gpu", 1, ("a",)), GenericResource("gpu", 5)),
        (GenericResource("gpu", 1), GenericResource("gpu", 1), None),
    ],
)
def test_a_claim_that_the_node_no_longer_covers(
    before: GenericResource, claimed: GenericResource, after: GenericResource | None
) -> None:
    world = World()
    world.node("n1", generic=(before,))
    world.service("web", generic=(GenericResource("gpu", claimed.amount),))
    id = running(world, "web", 1, generic=(claimed,))
    assert enforce(world) == set()
    world.node("n1", generic=(after,) if after else ())
    assert enforce(world) == {id}
    assert "that was claimed for it" in world.get(id).status.error


def test_a_lost_claim_does_not_hide_what_else_is_wrong_on_the_node() -> None:
    """In the reference it ends the pass over the node."""
    world = World()
    world.node("n1")
    world.service("claims", generic=(GenericResource("gpu", 1),))
    world.service("bound", constraints=("node.labels.zone == a",))
    lost = running(world, "claims", 1, generic=(GenericResource("gpu", 1),))
    world.now = type(world.now)(world.now + 100)
    bound = running(world, "bound", 1)
    assert enforce(world) == {lost, bound}


def test_of_two_tasks_with_the_same_item_the_newer_gives_way() -> None:
    world = World()
    world.node("n1", generic=(GenericResource("gpu", 2, ("a", "b")),))
    world.service("web", generic=(GenericResource("gpu", 1),))
    item = (GenericResource("gpu", 1, ("a",)),)
    running(world, "web", 1, generic=item)
    assert enforce(world) == set()
    newer = running(world, "web", 2, generic=item)
    assert enforce(world) == {newer}


@pytest.mark.parametrize("availability", [Availability.PAUSE, Availability.DRAIN])
def test_only_active_nodes_are_looked_at(availability: Availability) -> None:
    world = World()
    world.node("n1", availability=availability)
    world.service("bound", constraints=("node.labels.zone == a",))
    running(world, "bound", 1)
    assert enforce(world) == set()


def test_a_node_that_has_not_told_of_itself_yet_rejects_nobody_for_want_of_room() -> None:
    world = World()
    world.node("n1")
    world.service("web", cpus=1, memory=1 * GIB)
    running(world, "web", 1)
    node = world.store.node(NodeId("n1"))
    assert node is not None
    world.apply(Update(evolve(node, description=NodeDescription())))
    assert enforce(world) == set()


def test_tasks_that_wait_to_be_confirmed_are_judged_by_constraints_and_take_no_room() -> None:
    world = World()
    world.node("n1", cpus=1)
    world.service("bound", constraints=("node.labels.zone == a",))
    world.service("web", cpus=1)
    waiting = world.task("bound", 0, node="n1")
    world.task("web", 1, node="n1")
    running(world, "web", 2)
    assert enforce(world) == {waiting}
    assert world.store.usage(NodeId("n1")).nano_cpus == CORE


def test_a_rejected_task_keeps_what_is_known_of_its_workload() -> None:
    world = World()
    world.node("n1")
    world.service("bound", constraints=("node.labels.zone == a",))
    id = running(world, "bound", 1)
    world.apply(Advance(id, status=evolve(world.get(id).status, pid=42, handle="abc")))
    assert enforce(world) == {id}
    assert (world.get(id).status.pid, world.get(id).status.handle) == (42, "abc")
