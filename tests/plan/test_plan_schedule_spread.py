"""Placement preferences, and properties of placing against a slow and obvious twin."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from schedule_world import CORE, GIB, World

from swarm.model.changes import Delete, Kind
from swarm.model.constraints import label_of, matcher
from swarm.model.ids import NodeId, ServiceId, TaskId
from swarm.model.objects import Node, Task
from swarm.model.specs import GenericResource, Port, ServiceSpec
from swarm.model.states import Availability, NodeState, TaskState
from swarm.model.store import Store
from swarm.plan.schedule import planner

ZONE = "node.labels.zone"
RACK = "node.labels.rack"


def by_zone(world: World, service: str) -> dict[str, int]:
    """Placed tasks by zone."""
    counts: Counter[str] = Counter()
    for node_id, number in world.spread(service).items():
        node = world.store.node(NodeId(node_id))
        assert node is not None
        counts[node.spec.labels.get("zone", "")] += number
    return dict(counts)


# --- preferences ---------------------------------------------------------------------------------------------------
def test_tasks_are_spread_over_zones_before_nodes() -> None:
    world = World()
    world.node("a1", labels={"zone": "a"})
    for number in range(4):
        world.node(f"b{number}", labels={"zone": "b"})
    world.service("web", preferences=(ZONE,))
    world.tasks("web", 8)
    world.run()
    assert world.spread("web") == {"a1": 4, "b0": 1, "b1": 1, "b2": 1, "b3": 1}
    reason = world.get(TaskId("web/1/0")).reason
    assert reason is not None and "its branch (node.labels.zone=a) had the fewest" in reason.text


def test_a_missing_label_is_a_branch_of_its_own_and_unknown_descriptors_are_ignored() -> None:
    world = World()
    world.node("a1", labels={"zone": "a"})
    world.node("n1")
    world.node("n2")
    world.service("web", preferences=("node.id", ZONE, "nonsense"))
    world.tasks("web", 4)
    world.run()
    assert world.spread("web") == {"a1": 2, "n1": 1, "n2": 1}


def test_engine_labels_and_prefixes_in_any_case() -> None:
    world = World()
    world.node("x", engine_labels={"Kind/of": "x"})
    world.node("y1", engine_labels={"Kind/of": "y"})
    world.node("y2", engine_labels={"Kind/of": "y"})
    world.service("web", preferences=("Engine.Labels.Kind/of",))
    world.tasks("web", 4)
    world.run()
    assert world.spread("web") == {"x": 2, "y1": 1, "y2": 1}


def test_zones_and_racks_with_a_small_zone_and_an_unfit_node() -> None:
    """The reference's scenario: the small zone takes what it can, the rest goes evenly over the other racks."""
    world = World()
    world.node("small", labels={"zone": "z1", "rack": "r1"}, memory=5 * GIB)
    world.node("unfit", labels={"zone": "z1", "rack": "r2"}, memory=GIB // 2)
    world.node("b1", labels={"zone": "z2", "rack": "r1"})
    world.node("b2", labels={"zone": "z2", "rack": "r1"})
    world.node("b3", labels={"zone": "z2", "rack": "r2"})
    world.service("web", memory=1 * GIB, preferences=(ZONE, RACK))
    world.tasks("web", 12)
    world.run()
    spread = world.spread("web")
    assert spread["small"] == 5
    assert "unfit" not in spread
    assert sorted([spread["b1"] + spread["b2"], spread["b3"]]) == [3, 4]
    assert abs(spread["b1"] - spread["b2"]) <= 1


def test_a_two_level_scale_up_ends_and_evens_the_branches_out() -> None:
    world = World()
    for zone, rack, node in (("a", "1", "n1"), ("a", "2", "n2"), ("b", "1", "n3"), ("b", "2", "n4"), ("b", "2", "n5")):
        world.node(node, labels={"zone": zone, "rack": rack})
    world.service("web", preferences=(ZONE, RACK))
    for slot, node in enumerate(("n1", "n1", "n1", "n3")):
        world.task("web", slot + 1, node=node, state=TaskState.RUNNING)
    world.tasks("web", 4)
    world.run()
    assert by_zone(world, "web") == {"a": 4, "b": 4}
    assert world.spread("web") == {"n1": 3, "n2": 1, "n3": 2, "n4": 1, "n5": 1}


def test_tasks_on_nodes_that_cannot_be_used_count_for_their_branch() -> None:
    world = World()
    world.node("a1", labels={"zone": "a"}, availability=Availability.PAUSE)
    world.node("a2", labels={"zone": "a"})
    world.node("b1", labels={"zone": "b"})
    world.service("web", preferences=(ZONE,))
    for slot in range(3):
        world.task("web", slot + 1, node="a1", state=TaskState.RUNNING)
    world.tasks("web", 3)
    world.run()
    assert by_zone(world, "web") == {"a": 3, "b": 3}


def test_among_equal_branches_the_one_with_the_least_loaded_node_is_chosen() -> None:
    """So services of one task do not all land in the first zone."""
    world = World()
    for number in range(6):
        world.node(f"n{number}", labels={"zone": "abc"[number % 3]})
    for number in range(12):
        world.service(f"s{number}", preferences=(ZONE,))
        world.tasks(f"s{number}", 1)
    world.run()
    assert {world.store.usage(NodeId(f"n{number}")).active_tasks for number in range(6)} == {2}


def test_a_node_that_changes_its_zone_counts_for_the_new_one() -> None:
    world = World()
    world.node("n1", labels={"zone": "a"})
    world.node("n2", labels={"zone": "a"})
    world.node("n3", labels={"zone": "b"})
    for count in (2, 40):
        name = f"web{count}"
        world.service(name, preferences=(ZONE,))
        world.tasks(name, count)
        world.run()
        assert by_zone(world, name) == {"a": count // 2, "b": count // 2}
    world.node("n2", labels={"zone": "b"})
    world.tasks("web40", 40)
    world.run()
    assert by_zone(world, "web40") == {"a": 40, "b": 40}


# --- properties ----------------------------------------------------------------------------------------------------
def choose(store: Store, nodes: list[Node], spec: ServiceSpec, service: str, free: dict[str, dict[str, int]]) -> str:
    """The slow twin: every node is judged anew for every task, by the rules as they are written down."""
    wanted = spec.task.resources.reservations
    ports = [port.published for port in spec.ports]
    limit = spec.task.placement.max_replicas

    def fits(node: Node) -> bool:
        room = free[node.id]
        return (
            node.status.state is NodeState.READY
            and node.spec.availability is Availability.ACTIVE
            and matcher(spec.task.placement.constraints).matches(node)
            and "process" in node.description.executors
            and room["cpu"] >= wanted.nano_cpus
            and room["memory"] >= wanted.memory_bytes
            and all(room["gpu"] >= each.amount for each in wanted.generic)
            and not any(room.get(f"port {port}") for port in ports)
            and not (limit and room.get(f"of {service}", 0) >= limit)
        )

    def rank(node: Node) -> tuple[int, int, int, int]:
        room, present = free[node.id], node.description.resources
        used = (present.nano_cpus - room["cpu"], present.memory_bytes - room["memory"])
        totals = (present.nano_cpus, present.memory_bytes)
        share = max(0 if not u else 4095 if u >= t else u * 4095 // t for u, t in zip(used, totals, strict=True))
        return room.get(f"of {service}", 0), room["active"], share, nodes.index(node)

    branches = [node for node in nodes if fits(node)]
    for depth in range(len(spec.task.placement.preferences)):
        descriptors = spec.task.placement.preferences[: depth + 1]

        def path(node: Node, descriptors: tuple[str, ...] = descriptors) -> tuple[str | None, ...]:
            return tuple(label_of(descriptor, node) for descriptor in descriptors)

        counts: Counter[tuple[str | None, ...]] = Counter()
        for node in nodes:
            counts[path(node)] += free[node.id].get(f"of {service}", 0)
        best = min(
            ((counts[path(node)], rank(node), path(node)) for node in branches), default=(0, (0, 0, 0, 0), None)
        )[2]
        branches = [node for node in branches if path(node) == best]
    return min(branches, key=rank).id if branches else ""


def state_of(store: Store) -> dict[str, dict[str, int]]:
    """What is free, and what is there, added up from the tasks alone."""
    free: dict[str, dict[str, int]] = {}
    for node in store.nodes():
        present = node.description.resources
        gpus = sum(each.amount for each in present.generic if each.kind == "gpu")
        free[node.id] = {"cpu": present.nano_cpus, "memory": present.memory_bytes, "gpu": gpus, "active": 0}
    for task in store.tasks():
        if task.node_id in free and task.status.state >= TaskState.ASSIGNED:
            count(free[task.node_id], task, store)
    return free


def count(room: dict[str, int], task: Task, store: Store) -> None:
    spec = store.spec_of(task)
    assert spec is not None
    if task.desired <= TaskState.COMPLETE:
        room["active"] += 1
        room[f"of {task.service_id}"] = room.get(f"of {task.service_id}", 0) + 1
    if task.status.state <= TaskState.RUNNING:
        wanted = spec.task.resources.reservations
        room["cpu"] -= wanted.nano_cpus
        room["memory"] -= wanted.memory_bytes
        room["gpu"] -= sum(each.amount for each in wanted.generic)
        for port in spec.ports:
            room[f"port {port.published}"] = room.get(f"port {port.published}", 0) + 1


zones = st.sampled_from([{}, {"zone": "a"}, {"zone": "b"}, {"zone": "a", "rack": "1"}, {"zone": "b", "rack": "1"}])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A few nodes, a few services, some tasks that are placed already."""
    world = World()
    for number in range(draw(st.integers(1, 6))):
        world.node(
            f"n{number}",
            cpus=draw(st.integers(1, 4)),
            memory=draw(st.integers(1, 4)) * GIB,
            labels=draw(zones),
            state=draw(st.sampled_from([NodeState.READY] * 4 + [NodeState.DOWN])),
            availability=draw(st.sampled_from([Availability.ACTIVE] * 4 + [Availability.PAUSE])),
            executors=draw(st.sampled_from([("process",)] * 5 + [()])),
            generic=draw(st.sampled_from([(), (GenericResource("gpu", 2, ("x", "y")),), (GenericResource("gpu", 1),)])),
        )
    for number in range(draw(st.integers(1, 3))):
        world.service(
            f"s{number}",
            cpus=draw(st.sampled_from([0, 0, 0.5, 1])),
            memory=draw(st.sampled_from([0, 0, GIB // 2])),
            generic=draw(st.sampled_from([(), (), (GenericResource("gpu", 1),)])),
            constraints=draw(st.sampled_from([(), (), ("node.labels.zone == a",), ("node.labels.rack != 1",)])),
            preferences=draw(st.sampled_from([(), (), (ZONE,), (ZONE, RACK)])),
            max_replicas=draw(st.sampled_from([0, 0, 1, 3])),
            ports=draw(st.sampled_from([(), (), (Port(80, 80),)])),
        )
    return world


@settings(max_examples=100, deadline=None)
@given(worlds(), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=5), st.data())
def test_every_task_goes_where_the_slow_twin_sends_it(
    world: World, rounds: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Never over capacity, never against a filter, as evenly as the rules say, with every kind of pool and slice."""
    with (
        patch.object(planner, "SHARED_TASKS_MIN", data.draw(st.sampled_from([0, 16]))),
        patch.object(planner, "PLACEMENTS_A_PLAN", data.draw(st.sampled_from([2, 1000]))),
        patch.object(planner, "NODES_A_PLAN", data.draw(st.sampled_from([3, 1000]))),
    ):
        compare_with_the_twin(world, rounds, data)


def compare_with_the_twin(world: World, rounds: list[tuple[int, int]], data: st.DataObject) -> None:
    """Round by round: new tasks, each placed as the twin says, then perhaps something ends."""
    services = list(world.store.services())
    for number, tasks in rounds:
        service = services[number % len(services)]
        world.tasks(service.id, tasks)
        nodes, free = list(world.store.nodes()), state_of(world.store)
        waiting = [task for task in world.store.pending_tasks() if task.service_id == service.id]
        others = [task for task in world.store.pending_tasks() if task.service_id != service.id]
        expected: dict[TaskId, str] = {}
        for task in waiting:
            expected[task.id] = choose(world.store, nodes, service.spec, service.id, free)
            if expected[task.id]:
                count(free[expected[task.id]], assigned(task), world.store)
        world.run()
        assert {task.id: world.where(task.id) for task in waiting} == expected
        assert all(world.where(task.id) == "" for task in others), "nothing was freed for those that wait"
        check_capacity(world)
        placed = [task for task in world.store.tasks() if task.status.state >= TaskState.ASSIGNED]
        if placed and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from([task.id for task in placed]))
            for task in list(world.store.pending_tasks()):
                world.apply(Delete(Kind.TASK, task.id))
            if data.draw(st.booleans()):
                world.apply(Delete(Kind.TASK, gone))
            else:
                world.status(gone, TaskState.COMPLETE, TaskState.SHUTDOWN)
            world.run()


def assigned(task: Task) -> Task:
    return evolve(task, status=evolve(task.status, state=TaskState.ASSIGNED))


def check_capacity(world: World) -> None:
    for node in world.store.nodes():
        room = state_of(world.store)[node.id]
        assert min(room["cpu"], room["memory"], room["gpu"]) >= 0
        assert all(number <= 1 for key, number in room.items() if key.startswith("port "))
        items = [item for task in world.store.tasks_of_node(node.id) if task.status.state <= TaskState.RUNNING
                 for each in task.generic for item in each.items]  # fmt: skip
        assert len(items) == len(set(items))


@settings(max_examples=60, deadline=None)
@given(worlds(), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), min_size=1, max_size=3), st.integers(0, 5))
def test_a_leader_that_takes_over_at_any_moment_comes_to_the_same_place(
    world: World, rounds: list[tuple[int, int]], change_after: int
) -> None:
    """And planning its own result gives nothing, once what it says of waiting tasks is up to date."""
    twin = World()
    twin.store.restore(world.store.dump(), world.store.version)
    for each in (world, twin):
        each.lead()
        each.run()
    services = list(world.store.services())
    for step, (number, tasks) in enumerate(rounds):
        service = services[number % len(services)]
        for each in (world, twin):
            each.tasks(service.id, tasks)
        if step == change_after % len(rounds):
            twin.lead()
        for each in (world, twin):
            each.run()
            each.wait(2.0)
    assert placements(world) == placements(twin)
    twin.lead()
    twin.run()
    assert placements(world) == placements(twin)
    twin.lead()
    assert twin.run() == 0


def placements(world: World) -> dict[TaskId, tuple[NodeId, tuple[GenericResource, ...]]]:
    """Each task's node and claims."""
    return {task.id: (task.node_id, task.generic) for task in world.store.tasks()}


@pytest.mark.parametrize("tasks", [3, 30])
def test_small_and_large_groups_agree_on_where_tasks_go(tasks: int) -> None:
    """A small group pours over a shared pool, a large one over its own: the choice is the same, task by task."""
    one, other = World(), World()
    for world in (one, other):
        for number in range(40):
            world.node(f"n{number:02d}", cpus=1 + number % 3)
        world.service("web", cpus=0.5)
    one.tasks("web", tasks)
    one.run()
    for _ in range(tasks):
        other.tasks("web", 1)
        other.run()
    assert one.spread("web") == other.spread("web")
    assert max(one.store.usage(NodeId(node)).nano_cpus for node in one.spread("web")) <= 3 * CORE
    assert len(one.store.tasks_of_service(ServiceId("web"))) == tasks
