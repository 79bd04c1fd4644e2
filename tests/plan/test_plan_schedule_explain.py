"""`svc why`: what each node says, and the smallest change that would place the task."""

from __future__ import annotations

import pytest
from schedule_world import GIB, World

from swarm.model.ids import TaskId
from swarm.model.specs import GenericResource, Global, Mount, Platform, Port
from swarm.model.states import Availability, MountType, NodeState, Role, TaskState
from swarm.plan.schedule.explain import Explanation, explain, explain_spec
from swarm.plan.schedule.words import cores, counted, nodes_in_words, size


def why(world: World, id: TaskId) -> Explanation:
    found = explain(world.store, world.get(id))
    assert found is not None
    return found


def waiting(world: World) -> TaskId:
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.where(id) == ""
    return id


def test_every_node_has_its_say_and_the_nearest_one_is_named() -> None:
    world = World()
    world.node("far", labels={"zone": "b"}, memory=1 * GIB)
    world.node("near", labels={"zone": "b"})
    world.node("down", state=NodeState.DOWN)
    world.service("web", constraints=("node.labels.zone == a",), memory=2 * GIB)
    found = why(world, waiting(world))
    assert [(node.hostname, [each.filter for each in node.obstacles]) for node in found.nodes] == [
        ("near", ["constraints"]),
        ("down", ["ready", "constraints"]),
        ("far", ["constraints", "resources"]),
    ]
    assert found.change == ("node near needs node.labels.zone == a: run `swarm node update near --label-add zone=a`")
    world.node("near", labels={"zone": "a"})
    assert why(world, TaskId("web/1/0")).nodes[0].fits
    assert why(world, TaskId("web/1/0")).change == ""


def test_too_little_memory_names_what_would_fit() -> None:
    world = World()
    world.node("n1", memory=1 * GIB)
    world.service("other", memory=256 << 20)
    world.task("other", 1, node="n1", state=TaskState.RUNNING)
    world.service("web", memory=1 * GIB)
    assert why(world, waiting(world)).change == (
        "node n1 needs 1 GiB of memory, 768 MiB free: lower --reserve-memory to 768 MiB (`swarm svc update web`)"
    )


def test_the_node_that_lacks_least_is_the_nearest() -> None:
    world = World()
    world.node("a", cpus=1)
    world.node("b", cpus=3.5)
    world.service("web", cpus=4)
    assert why(world, waiting(world)).change == (
        "node b needs 4 CPU, 3.5 free: lower --reserve-cpu to 3.5 (`swarm svc update web`)"
    )


@pytest.mark.parametrize("availability", [Availability.PAUSE, Availability.DRAIN])
def test_a_node_that_takes_no_tasks_is_to_be_activated(availability: Availability) -> None:
    world = World()
    world.node("n1", availability=availability)
    world.node("n2", availability=availability)
    world.service("web")
    word = "paused" if availability is Availability.PAUSE else "drained"
    assert why(world, waiting(world)).change == (
        f"node n1 is {word}: run `swarm node activate n1` (the same holds for 1 node more)"
    )


def test_without_nodes_the_machine_is_described() -> None:
    world = World()
    world.service(
        "web",
        cpus=2,
        memory=1 * GIB,
        generic=(GenericResource("gpu", 1),),
        platforms=(Platform("arm64", "linux"),),
        constraints=("node.labels.zone == a",),
    )
    assert why(world, waiting(world)).change == (
        "add a node with platform linux/arm64, a process executor, 2 CPU free, 1 GiB of memory free, gpu=1, "
        "node.labels.zone == a"
    )


def test_a_platform_that_no_node_has_needs_a_machine() -> None:
    world = World()
    world.nodes(2)
    world.service("web", platforms=(Platform("arm64", ""),))
    found = why(world, waiting(world))
    assert found.change == "add a node with platform any/arm64, a process executor"
    assert found.nodes[0].obstacles[0].text == "needs platform any/arm64, is linux/x86_64"


def test_other_obstacles_in_words() -> None:
    world = World()
    world.node("n1", executors=("process",), generic=(GenericResource("gpu", 1),), engine="20", plugins=(("Log", "x"),))
    world.service("busy", ports=(Port(80, 8080),))
    world.task("busy", 1, node="n1", state=TaskState.RUNNING)
    world.service(
        "web",
        ports=(Port(80, 8080),),
        generic=(GenericResource("gpu", 2), GenericResource("tpu", 1)),
        mounts=(Mount("/data", "data", MountType.VOLUME, driver="nfs"),),
        constraints=("node.role == manager", "node.labels.old != ", "node.id != n1")[:1],
        max_replicas=1,
    )
    world.task("web", 1, node="n1", state=TaskState.RUNNING)
    (id,) = world.tasks("web", 1)
    world.run()
    (node,) = why(world, id).nodes
    assert {each.filter: (each.text, each.remedy) for each in node.obstacles} == {
        "constraints": (
            "needs node.role == manager",
            "take the constraint node.role == manager off the service, or change the node's role",
        ),
        "runtime": ("has no docker executor (has process)", "start node n1 with a docker executor"),
        "plugins": ("lacks volume plugin nfs", "install the volume plugin nfs on node n1"),
        "resources": (
            "needs 2 gpu, 1 free; needs 1 tpu, 0 free",
            "ask for 1 gpu and free tpu there or add a node with tpu=1 (`swarm svc update web`)",
        ),
        "host-ports": ("host port 8080/tcp is taken", "publish another port, or free it on the node"),
        "max-replicas": (
            "has 1 of at most 1 replicas per node",
            "raise --replicas-max-per-node to 2 with `swarm svc update web`, or add a node",
        ),
    }


def test_a_label_that_must_not_be_there_is_to_be_removed() -> None:
    world = World()
    world.node("n1", labels={"old": "yes"})
    world.service("web", constraints=("node.labels.old != yes", "node.platform.os == linux"))
    assert why(world, waiting(world)).change == (
        "node n1 needs node.labels.old != yes: run `swarm node update n1 --label-rm old`"
    )


def test_a_task_made_for_a_node_is_explained_by_that_node_alone() -> None:
    world = World()
    world.node("n1", role=Role.WORKER)
    world.node("n2")
    world.service("web", mode=Global(), cpus=20)
    id = world.task("web", 0, node="n1")
    world.run()
    found = why(world, id)
    assert [node.node_id for node in found.nodes] == ["n1"]
    assert found.change.startswith("node n1 needs 20 CPU, 16 free: lower --reserve-cpu to 16")
    world.remove_node("n1")
    assert why(world, id).change == "the node n1, which the task was made for, is gone"


def test_constraints_that_cannot_be_read_are_shown() -> None:
    world = World()
    world.nodes(1)
    world.service("web", constraints=("zone a",))
    assert "has neither '==' nor '!='" in why(world, waiting(world)).change


def test_a_spec_that_no_task_has_yet_can_be_asked_about() -> None:
    world = World()
    world.nodes(1)
    world.service("web", cpus=99)
    spec = world.store.service(world.store.services().__iter__().__next__().id)
    assert spec is not None
    assert explain_spec(world.store, spec.spec).change.startswith("node n00 needs 99 CPU")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1024, "1 KiB"),
        (1536, "1536 B"),
        (768 << 20, "768 MiB"),
        (GIB, "1 GiB"),
        (GIB + (GIB >> 1), "1536 MiB"),
        (GIB + 1, "1 GiB"),
        (12_345_678, "11.77 MiB"),
        (3 << 50, "3 PiB"),
        (5 << 60, "5120 PiB"),
    ],
)
def test_sizes_in_words(value: int, text: str) -> None:
    assert size(value) == text


def test_amounts_in_words() -> None:
    assert [cores(n) for n in (0, 10**9, 1_500_000_000, 1_999_999, 123_456_789)] == ["0", "1", "1.5", "0.001", "0.123"]
    assert [nodes_in_words(n) for n in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
    assert [counted(n, "task") for n in (0, 1, 2)] == ["no task", "1 task", "2 tasks"]
