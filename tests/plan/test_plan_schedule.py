"""The scheduler on a real store: each filter, the spread, what unblocks, what is said."""

from __future__ import annotations

import pytest
from schedule_world import CORE, GIB, World

from swarm.model.changes import Advance, Delete, Kind
from swarm.model.ids import NodeId, ServiceId
from swarm.model.reasons import ReasonCode
from swarm.model.specs import GenericResource, Global, Mount, Platform, Port
from swarm.model.states import Availability, MountType, NodeState, Protocol, PublishMode, Role, TaskState


# --- choosing nodes ------------------------------------------------------------------------------------------------
def test_tasks_of_one_service_go_to_the_least_loaded_nodes_in_turn() -> None:
    world = World()
    world.nodes(3)
    world.service("web")
    ids = world.tasks("web", 7)
    assert world.run() == 7
    assert world.spread("web") == {"n00": 3, "n01": 2, "n02": 2}
    assert [world.where(id) for id in ids] == ["n00", "n01", "n02", "n00", "n01", "n02", "n00"]
    task = world.get(ids[0])
    assert task.status.state is TaskState.ASSIGNED
    assert task.status.message == "assigned to a node"
    assert task.status.at == task.status.applied_at == world.now
    assert task.reason is not None
    assert task.reason.code is ReasonCode.PLACED
    assert "no task of this service and no task in all" in task.reason.text


def test_planning_its_own_result_gives_nothing() -> None:
    world = World()
    world.nodes(2)
    world.service("web", max_replicas=1)
    world.tasks("web", 3)
    world.run()
    assert world.run() == 0
    world.lead()
    assert world.run() == 0


def test_new_tasks_are_placed_without_another_stage_and_waiting_ones_too() -> None:
    world = World()
    world.nodes(1)
    world.service("web")
    new = world.task("web", 1, state=TaskState.NEW)
    waiting = world.task("web", 2, desired=TaskState.READY)
    world.run()
    assert world.where(new) == world.where(waiting) == "n00"
    assert world.get(waiting).desired is TaskState.READY


def test_existing_assignments_count_and_an_emptied_node_gets_the_next_task() -> None:
    world = World()
    world.nodes(3)
    world.service("web")
    there = [world.task("web", n + 1, node=f"n0{n}", state=TaskState.RUNNING) for n in range(2)]
    first = world.task("web", 3)
    world.run()
    assert world.where(first) == "n02"
    world.apply(Delete(Kind.TASK, there[0]))
    second = world.task("web", 4)
    world.run()
    assert world.where(second) == "n00"


def test_the_services_own_count_comes_before_the_count_of_all_tasks() -> None:
    world = World()
    world.nodes(5)
    world.service("one")
    world.service("two")
    world.tasks("one", 2)
    world.run()
    assert world.spread("one") == {"n00": 1, "n01": 1}
    world.tasks("two", 6)
    world.run()
    assert world.spread("two") == {"n00": 1, "n01": 1, "n02": 2, "n03": 1, "n04": 1}


def test_equal_counts_are_told_apart_by_the_reserved_share_then_by_age() -> None:
    world = World()
    world.node("small", cpus=4, memory=4 * GIB)
    world.node("large", cpus=32, memory=32 * GIB)
    world.node("third", cpus=32, memory=32 * GIB)
    world.service("heavy", memory=2 * GIB)
    world.task("heavy", 1, node="small", state=TaskState.RUNNING)
    world.task("heavy", 2, node="large", state=TaskState.RUNNING)
    world.task("heavy", 3, node="third", state=TaskState.RUNNING)
    world.service("web")
    assert world.tasks("web", 1) and world.run()
    assert world.spread("web") == {"large": 1}


def test_each_alone_in_its_service_spreads_over_all_nodes() -> None:
    world = World()
    world.nodes(10)
    for number in range(40):
        world.service(f"s{number}")
        world.tasks(f"s{number}", 1)
    world.run()
    assert {id: world.store.usage(NodeId(id)).active_tasks for id in (f"n{n:02d}" for n in range(10))} == {
        f"n{n:02d}": 4 for n in range(10)
    }


# --- the filters ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", [NodeState.UNKNOWN, NodeState.DOWN, NodeState.DISCONNECTED])
def test_a_node_that_is_not_ready_is_not_used_until_it_is(state: NodeState) -> None:
    world = World()
    world.node("n1", state=state)
    world.service("web")
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.error(id) == "no suitable node (1 node not available for new tasks)"
    world.set_state("n1", NodeState.READY)
    world.run()
    assert world.where(id) == "n1"


@pytest.mark.parametrize("availability", [Availability.PAUSE, Availability.DRAIN])
def test_a_node_that_takes_no_new_tasks_is_not_used(availability: Availability) -> None:
    world = World()
    world.node("n1", availability=availability)
    world.node("n2")
    world.service("web")
    world.tasks("web", 2)
    world.run()
    assert world.spread("web") == {"n2": 2}


def test_a_node_taken_down_or_deleted_before_the_task_comes_is_not_used() -> None:
    world = World()
    world.nodes(3)
    world.lead()
    world.run()
    world.set_state("n00", NodeState.DOWN)
    world.remove_node("n01")
    world.service("web")
    world.tasks("web", 2)
    world.run()
    assert world.spread("web") == {"n02": 2}


def test_no_node_at_all_is_said_without_a_list() -> None:
    world = World()
    world.service("web")
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.error(id) == "no suitable node"
    world.node("n1")
    world.run()
    assert world.where(id) == "n1"


def test_reservations_too_large_are_explained_and_a_larger_node_takes_the_task() -> None:
    world = World()
    world.node("down", state=NodeState.DOWN)
    world.node("small", memory=1 * GIB)
    world.service("web", memory=2 * GIB)
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.error(id) == "no suitable node (1 node not available for new tasks; not enough memory on 1 node)"
    reason = world.get(id).reason
    assert reason is not None and reason.code is ReasonCode.NO_NODE
    assert [(part.filter, part.nodes, part.examples) for part in reason.blocked] == [
        ("ready", 1, ("down",)),
        ("resources", 1, ("small",)),
    ]
    world.node("large", memory=4 * GIB)
    world.run()
    assert world.where(id) == "large"


def test_the_most_frequent_obstacle_comes_first_and_a_single_node_is_singular() -> None:
    world = World()
    world.nodes(3, "far")
    world.node("down", state=NodeState.DOWN)
    world.service("web", constraints=("node.labels.zone==a",))
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.error(id) == "no suitable node (constraints not met on 3 nodes; 1 node not available for new tasks)"


def test_cpus_memory_and_generic_resources_are_never_exceeded() -> None:
    world = World()
    world.node("cpu", cpus=2, memory=64 * GIB, generic=(GenericResource("gpu", 9),))
    world.node("mem", cpus=64, memory=1 * GIB, generic=(GenericResource("gpu", 9),))
    world.node("gpu", cpus=64, memory=64 * GIB, generic=(GenericResource("gpu", 2, ("a", "b")),))
    world.node("none", cpus=64, memory=64 * GIB)
    world.service("web", cpus=1, memory=1 * GIB, generic=(GenericResource("gpu", 1),))
    world.tasks("web", 9)
    world.run()
    assert world.spread("web") == {"cpu": 2, "gpu": 2, "mem": 1}
    held = [world.get(task.id).generic for task in world.store.tasks_of_node(NodeId("gpu"))]
    assert sorted(items.items for ((items),) in held) == [("a",), ("b",)]


def test_a_memory_limited_node_gets_only_what_fits_although_it_is_less_loaded() -> None:
    world = World()
    world.node("small", memory=1 * GIB)
    world.node("large", memory=64 * GIB)
    world.service("other")
    for slot in range(5):
        world.task("other", slot + 1, node="large", state=TaskState.RUNNING)
    world.service("web", memory=1 * GIB)
    world.tasks("web", 4)
    world.run()
    assert world.spread("web") == {"large": 3, "small": 1}


@pytest.mark.parametrize("state", [TaskState.COMPLETE, TaskState.FAILED, TaskState.SHUTDOWN])
def test_what_a_finished_task_held_is_free_again(state: TaskState) -> None:
    world = World()
    world.node("n1", memory=1 * GIB)
    world.service("web", memory=1 * GIB)
    first, second = world.tasks("web", 2)
    world.run()
    assert world.where(first) == "n1"
    assert world.error(second)
    world.status(first, TaskState.RUNNING)
    assert world.run() == 0
    world.desire(first, TaskState.SHUTDOWN)
    world.wait(2.0)
    assert world.where(second) == "", "a task that is being stopped still holds what it reserved"
    world.status(first, state)
    world.run()
    assert world.where(second) == "n1"


def test_a_deleted_task_frees_its_place_too() -> None:
    world = World()
    world.node("n1", memory=1 * GIB)
    world.service("web", memory=1 * GIB)
    first, second = world.tasks("web", 2)
    world.run()
    world.apply(Delete(Kind.TASK, first))
    world.run()
    assert world.where(second) == "n1"


def test_constraints_are_met_and_a_changed_label_unblocks() -> None:
    world = World()
    world.node("n1", labels={"zone": "b"})
    world.node("n2")
    world.service("web", constraints=("node.labels.zone == a", "node.role != manager"))
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.error(id) == "no suitable node (constraints not met on 2 nodes)"
    world.node("n2", labels={"zone": "A"}, role=Role.MANAGER)
    world.run()
    assert world.where(id) == ""
    world.node("n2", labels={"zone": "A"})
    world.run()
    assert world.where(id) == "n2"


def test_constraints_that_cannot_be_read_keep_the_task_waiting_and_say_so() -> None:
    """The reference would place such a task anywhere."""
    world = World()
    world.nodes(1)
    world.service("web", constraints=("zone a",))
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.error(id) == "no suitable node (constraints not met on 1 node)"


@pytest.mark.parametrize(
    ("platforms", "expected"),
    [
        ((), {"x86", "arm", "bare"}),
        ((Platform("amd64", "linux"),), {"x86"}),
        ((Platform("x86_64", "linux"),), {"x86"}),
        ((Platform("arm64", ""),), {"arm"}),
        ((Platform("aarch64", "Linux"),), {"arm"}),
        ((Platform("", "linux"),), {"x86", "arm"}),
        ((Platform("s390x", "linux"), Platform("amd64", "linux")), {"x86"}),
        ((Platform("", ""),), {"x86", "arm"}),
        ((Platform("amd64", "windows"),), set()),
    ],
)
def test_platforms(platforms: tuple[Platform, ...], expected: set[str]) -> None:
    world = World()
    world.node("x86", platform=Platform("x86_64", "linux"))
    world.node("arm", platform=Platform("arm64", "linux"))
    world.node("bare", platform=Platform())
    world.service("web", platforms=platforms, max_replicas=1)
    ids = world.tasks("web", 3)
    world.run()
    assert set(world.spread("web")) == expected
    if not expected:
        assert world.error(ids[0]) == "no suitable node (platform not supported on 3 nodes)"


def test_a_task_goes_only_where_its_runtime_is_and_never_to_a_node_that_tells_none() -> None:
    world = World()
    world.node("unknown", executors=())
    world.node("process", executors=("process",))
    world.service("web", image="nginx")
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.error(id) == "no suitable node (no executor for this kind of task on 2 nodes)"
    world.node("docker", executors=("docker", "process"))
    world.run()
    assert world.where(id) == "docker"


def volume(driver: str, type: MountType = MountType.VOLUME) -> Mount:
    return Mount("/data", "data", type, driver=driver)


@pytest.mark.parametrize(
    ("mounts", "log", "expected"),
    [
        ((volume("nfs"),), None, {"with", "silent"}),
        ((volume("nfs2"),), None, {"with", "silent"}),
        ((volume("ceph"),), None, {"silent"}),
        ((volume("local"),), None, {"with", "without", "silent"}),
        ((volume(""),), None, {"with", "without", "silent"}),
        ((volume("nfs", MountType.BIND),), None, {"with", "without", "silent"}),
        ((), "journald", {"with", "without", "silent"}),
        ((), "splunk", {"without", "silent"}),
        ((), "none", {"with", "without", "silent"}),
        ((), "", {"with", "without", "silent"}),
    ],
)
def test_plugins(mounts: tuple[Mount, ...], log: str | None, expected: set[str]) -> None:
    """A node that tells nothing of its engine passes; one that lists no log plugin is not asked for one."""
    world = World()
    world.node("with", engine="20.10", plugins=(("Log", "journald"), ("Volume", "nfs"), ("Volume", "nfs2:latest")))
    world.node("without", engine="20.10", plugins=(("Volume", "local"),))
    world.node("silent")
    world.service("web", mounts=mounts, log=log, image="image", max_replicas=1)
    world.tasks("web", 3)
    world.run()
    assert set(world.spread("web")) == expected


def test_a_missing_plugin_is_said_and_a_node_that_has_it_takes_the_task() -> None:
    world = World()
    world.node("n1", engine="20.10", plugins=(("Volume", "local"),))
    world.service("web", mounts=(volume("nfs"),))
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.error(id) == "no suitable node (plugin missing on 1 node)"
    world.node("n2", engine="20.10", plugins=(("Volume", "nfs"),))
    world.run()
    assert world.where(id) == "n2"


def host_port(number: int, protocol: Protocol = Protocol.TCP, mode: PublishMode = PublishMode.HOST) -> Port:
    return Port(80, number, protocol, mode)


def test_a_host_port_is_held_once_a_node_and_the_third_task_says_so() -> None:
    world = World()
    world.nodes(2)
    world.service("web", ports=(host_port(8080),))
    ids = world.tasks("web", 3)
    world.run()
    assert world.spread("web") == {"n00": 1, "n01": 1}
    assert world.error(ids[2]) == "no suitable node (host port taken on 2 nodes)"
    world.status(ids[0], TaskState.SHUTDOWN, TaskState.SHUTDOWN)
    world.run()
    assert world.where(ids[2]) == "n00"


def test_only_host_mode_ports_with_a_number_are_exclusive_and_protocols_differ() -> None:
    world = World()
    world.nodes(1)
    for name, port in {
        "tcp": host_port(80),
        "udp": host_port(80, Protocol.UDP),
        "other": host_port(81),
        "any": host_port(0),
        "shared": host_port(80, mode=PublishMode.INGRESS),
    }.items():
        world.service(name, ports=(port,))
        world.tasks(name, 1)
    world.service("late", ports=(host_port(82), host_port(80, Protocol.UDP)))
    (late,) = world.tasks("late", 1)
    world.run()
    assert len(world.store.tasks_of_node(NodeId("n00"))) == 5
    assert world.error(late)


def test_a_port_that_two_tasks_held_stays_taken_while_one_holds_it() -> None:
    """The reference keeps a set of ports: removing one of two holders frees the port."""
    world = World()
    world.nodes(1)
    world.service("web", ports=(host_port(80),))
    holders = [world.task("web", slot, node="n00", state=TaskState.RUNNING) for slot in (1, 2)]
    (id,) = world.tasks("web", 1)
    world.run()
    world.status(holders[0], TaskState.SHUTDOWN, TaskState.SHUTDOWN)
    world.wait(2.0)
    assert world.where(id) == ""
    world.status(holders[1], TaskState.SHUTDOWN, TaskState.SHUTDOWN)
    world.run()
    assert world.where(id) == "n00"


def test_no_more_replicas_on_a_node_than_the_limit() -> None:
    world = World()
    world.nodes(2)
    world.service("web", max_replicas=1)
    ids = world.tasks("web", 3)
    world.run()
    assert world.spread("web") == {"n00": 1, "n01": 1}
    assert world.error(ids[2]) == "no suitable node (limit of replicas per node reached on 2 nodes)"
    world.desire(ids[1], TaskState.SHUTDOWN)
    world.run()
    assert world.where(ids[2]) == "n01", "a task that is being stopped is no replica any more"


def test_the_limit_of_replicas_counts_over_revisions() -> None:
    world = World()
    world.nodes(2)
    world.service("web", max_replicas=1)
    world.tasks("web", 1)
    world.run()
    world.service("web", max_replicas=1)
    old_and_new = world.tasks("web", 2)
    world.run()
    assert world.spread("web") == {"n00": 1, "n01": 1}
    assert world.error(old_and_new[1])


# --- recent failures -----------------------------------------------------------------------------------------------
def fail(world: World, service: str, slot: int, times: int, state: TaskState = TaskState.FAILED) -> list[str]:
    """Let the slot's task fail so many times, each time replaced; gives where each ran."""
    where = []
    for _ in range(times):
        id = world.task(service, slot)
        world.run()
        where.append(world.where(id))
        world.status(id, state, TaskState.SHUTDOWN)
        world.run()
    return where


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.REJECTED])
def test_after_five_failures_the_other_node_is_chosen_although_it_is_fuller(state: TaskState) -> None:
    world = World()
    world.nodes(2)
    world.service("full")
    for slot in range(3):
        world.task("full", slot + 1, node="n01", state=TaskState.RUNNING)
    world.service("web")
    assert fail(world, "web", 1, 7, state) == ["n00"] * 5 + ["n01"] * 2
    world.service("other")
    (other,) = world.tasks("other", 1)
    world.run()
    assert world.where(other) == "n00", "failures count for their own service"


def test_failures_are_counted_by_revision() -> None:
    world = World()
    world.nodes(2)
    world.service("full")
    world.task("full", 1, node="n01", state=TaskState.RUNNING)
    world.service("web")
    assert fail(world, "web", 1, 6)[-1] == "n01"
    world.service("web", cpus=1)
    assert fail(world, "web", 1, 1) == ["n00"]


def test_failures_are_forgotten_after_five_minutes() -> None:
    world = World()
    world.nodes(2)
    world.service("full")
    world.task("full", 1, node="n01", state=TaskState.RUNNING)
    world.service("web")
    assert fail(world, "web", 1, 6)[-1] == "n01"
    world.wait(299.0)
    assert fail(world, "web", 2, 1) == ["n01"]
    world.wait(2.0)
    assert fail(world, "web", 3, 1) == ["n00"]


def test_tasks_that_were_stopped_or_completed_or_lost_do_not_count_as_failures() -> None:
    world = World()
    world.nodes(2)
    world.service("full")
    world.task("full", 1, node="n01", state=TaskState.RUNNING)
    world.service("web")
    for state in (TaskState.SHUTDOWN, TaskState.COMPLETE, TaskState.ORPHANED):
        assert fail(world, "web", 1, 4, state) == ["n00"] * 4


def test_a_new_leader_knows_the_failures_that_the_store_still_holds() -> None:
    """The reference forgets them."""
    world = World()
    world.nodes(2)
    world.service("full")
    world.task("full", 1, node="n01", state=TaskState.RUNNING)
    world.service("web")
    fail(world, "web", 1, 5)
    world.lead()
    assert fail(world, "web", 1, 1) == ["n01"]


# --- preassigned tasks ---------------------------------------------------------------------------------------------
def test_a_task_made_for_a_node_is_confirmed_there_before_others_are_placed() -> None:
    world = World()
    world.node("n1", memory=1 * GIB)
    world.service("web", memory=1 * GIB)
    world.service("everywhere", mode=Global(), memory=1 * GIB)
    (other,) = world.tasks("web", 1)
    made = world.task("everywhere", 0, node="n1")
    world.run()
    assert world.where(made) == "n1"
    task = world.get(made)
    assert task.status.message == "confirmed on its node"
    assert task.reason is not None and task.reason.code is ReasonCode.PLACED
    assert world.error(other)


def test_two_tasks_made_for_a_node_that_has_room_for_one_do_not_block_each_other() -> None:
    world = World()
    world.node("n1", memory=1 * GIB)
    for name in ("one", "two"):
        world.service(name, mode=Global(), memory=600 << 20)
    one, two = (world.task(name, 0, node="n1") for name in ("one", "two"))
    world.run()
    assert world.where(one) == "n1"
    assert world.error(two) == "the node needs 600 MiB of memory, 424 MiB free"
    world.status(one, TaskState.SHUTDOWN, TaskState.SHUTDOWN)
    world.run()
    assert world.where(two) == "n1"


def test_a_task_made_for_an_unknown_node_waits_for_it_in_silence() -> None:
    world = World()
    world.service("everywhere", mode=Global())
    made = world.task("everywhere", 0, node="n1")
    assert world.run() == 0
    world.node("n1")
    world.run()
    assert world.where(made) == "n1"


def test_a_task_made_for_a_node_waits_there_and_is_retried_when_the_node_changes() -> None:
    world = World()
    world.node("n1")
    world.node("n2", labels={"zone": "a"})
    world.service("everywhere", mode=Global(), constraints=("node.labels.zone==a",), max_replicas=1)
    made = world.task("everywhere", 0, node="n1")
    world.run()
    assert world.error(made) == "the node needs node.labels.zone == a"
    world.node("n1", labels={"zone": "a"})
    world.run()
    assert world.where(made) == "n1"


def test_a_waiting_preassigned_task_holds_nothing() -> None:
    world = World()
    world.node("n1", state=NodeState.DOWN, memory=1 * GIB)
    world.service("everywhere", mode=Global(), memory=1 * GIB, ports=(host_port(80),))
    made = world.task("everywhere", 0, node="n1")
    world.run()
    assert world.error(made) == "the node is down"
    usage = world.store.usage(NodeId("n1"))
    assert (usage.active_tasks, usage.memory_bytes, dict(usage.host_ports)) == (0, 0, {})


# --- no node found -------------------------------------------------------------------------------------------------
def test_a_task_of_a_deleted_service_leaves_the_queue() -> None:
    world = World()
    world.service("web")
    (id,) = world.tasks("web", 1)
    world.run()
    world.apply(Delete(Kind.SERVICE, "web"))
    world.node("n1")
    assert world.run() == 0
    assert world.get(id).node_id == ""


def test_a_deleted_task_leaves_the_queue() -> None:
    """In the reference it stays as long as its service exists."""
    world = World()
    world.service("web")
    (id,) = world.tasks("web", 1)
    world.run()
    world.apply(Delete(Kind.TASK, id))
    assert world.memory is not None
    assert not world.memory.groups and not world.memory.blocked


def test_a_task_that_is_to_stop_before_it_had_a_place_is_stopped_at_once() -> None:
    world = World()
    world.nodes(1)
    world.service("web", max_replicas=1)
    ids = world.tasks("web", 2)
    world.run()
    world.service("web", max_replicas=1)
    world.desire(ids[1], TaskState.SHUTDOWN)
    world.run()
    assert world.get(ids[1]).status.state is TaskState.SHUTDOWN
    assert world.get(ids[1]).status.message == "stopped before it was placed"
    assert world.get(ids[1]).node_id == ""


@pytest.mark.parametrize("node", ["", "n00"])
def test_tasks_to_be_stopped_or_removed_are_never_placed(node: str) -> None:
    world = World()
    world.nodes(1)
    world.service("web")
    stop = world.task("web", 1, node=node, desired=TaskState.SHUTDOWN)
    remove = world.task("web", 2, node=node, desired=TaskState.REMOVE)
    world.run()
    assert world.get(stop).status.state is TaskState.SHUTDOWN
    assert world.get(remove).status.state is TaskState.PENDING


def test_a_waiting_task_is_written_only_when_what_it_says_changes_and_not_more_than_once_a_second() -> None:
    world = World()
    world.node("n00", state=NodeState.DOWN)
    world.service("web")
    (id,) = world.tasks("web", 1)
    assert world.run() == 1
    world.node("n00", state=NodeState.UNKNOWN)
    assert world.run() == 0
    for number in range(1, 4):
        world.node(f"n0{number}", state=NodeState.DOWN)
        assert world.run() == 0
    assert world.wait(1.0) == 1
    assert world.error(id) == "no suitable node (4 nodes not available for new tasks)"
    assert not world.wake


def test_a_task_that_joins_a_blocked_group_is_told_at_once() -> None:
    world = World()
    world.node("n00", state=NodeState.DOWN)
    world.service("web")
    world.tasks("web", 1)
    world.run()
    (late,) = world.tasks("web", 1)
    assert world.run() == 1
    assert world.error(late) == "no suitable node (1 node not available for new tasks)"


def test_a_superseded_task_that_found_no_node_is_still_placed_when_one_comes() -> None:
    """An update may be paused: its old slots are as good as any."""
    world = World()
    world.service("web")
    (old,) = world.tasks("web", 1)
    world.run()
    world.service("web", cpus=1)
    (new,) = world.tasks("web", 1)
    world.nodes(1)
    world.run()
    assert world.where(old) == world.where(new) == "n00"


# --- commits -------------------------------------------------------------------------------------------------------
def test_a_refused_assignment_gives_its_room_back_and_the_task_waits_again() -> None:
    world = World()
    world.node("n1", memory=1 * GIB)
    world.service("web", memory=1 * GIB)
    (id,) = world.tasks("web", 1)
    world.lead()
    assert world.memory is not None
    plan = world.scheduler.plan(world.store, list(world.keys), world.memory, world.now, None)  # type: ignore[arg-type]
    world.desire(id, TaskState.COMPLETE)
    assert world.commit(list(plan.groups)) != [None]
    world.keys = {"web.1": None}
    world.run()
    assert world.where(id) == "n1"


def test_a_task_made_for_a_node_and_stopped_under_its_confirmation_gives_its_room_back() -> None:
    world = World()
    world.node("n1", memory=1 * GIB)
    world.service("everywhere", mode=Global(), memory=1 * GIB)
    world.service("web", memory=1 * GIB)
    made = world.task("everywhere", 0, node="n1")
    world.lead()
    assert world.memory is not None
    plan = world.scheduler.plan(world.store, list(world.keys), world.memory, world.now, None)  # type: ignore[arg-type]
    world.desire(made, TaskState.SHUTDOWN)
    assert world.commit(list(plan.groups)) != [None]
    other = world.task("web", 1)
    world.run()
    assert world.get(made).status.state is TaskState.SHUTDOWN
    assert world.where(other) == "n1"


def test_an_assignment_whose_task_was_deleted_meanwhile_gives_its_room_back() -> None:
    world = World()
    world.node("n1", memory=1 * GIB)
    world.service("web", memory=1 * GIB)
    first, second = world.task("web", 1), None
    world.lead()
    assert world.memory is not None
    plan = world.scheduler.plan(world.store, list(world.keys), world.memory, world.now, None)  # type: ignore[arg-type]
    world.apply(Delete(Kind.TASK, first))
    world.commit(list(plan.groups))
    second = world.task("web", 2)
    world.run()
    assert world.where(second) == "n1"


def test_a_node_deleted_under_an_assignment_is_not_used_again() -> None:
    world = World()
    world.nodes(2)
    world.service("web")
    (id,) = world.tasks("web", 1)
    world.lead()
    assert world.memory is not None
    plan = world.scheduler.plan(world.store, list(world.keys), world.memory, world.now, None)  # type: ignore[arg-type]
    world.remove_node("n00")
    world.commit(list(plan.groups))
    world.keys = {"web.1": None}
    world.run()
    assert world.where(id) == "n01"


def test_assignments_that_another_leader_made_count() -> None:
    world = World()
    world.nodes(2)
    world.service("web")
    first, second = world.tasks("web", 2)
    other = World()
    other.store = world.store
    other.lead()
    world.lead()
    assert world.memory is not None
    world.scheduler.plan(world.store, [], world.memory, world.now, None)  # type: ignore[arg-type]
    plan = other.scheduler.plan(world.store, ["+"], other.memory, world.now, None)  # type: ignore[arg-type]
    world.commit(list(plan.groups[:1]))
    world.run()
    assert {world.where(first), world.where(second)} == {"n00", "n01"}


def test_a_status_report_between_plan_and_commit_of_others_does_not_matter() -> None:
    world = World()
    world.nodes(1)
    world.service("web")
    first, second = world.tasks("web", 2)
    world.run()
    world.apply(Advance(first, status=world.get(first).status))
    assert world.run() == 0
    assert world.where(second) == "n00"


# --- bounded turns -------------------------------------------------------------------------------------------------
def test_a_large_group_is_poured_in_slices_over_the_same_pool() -> None:
    world = World()
    world.nodes(7)
    world.service("web", replicas=2500)
    world.lead()
    world.tasks("web", 2500)
    built: list[int] = []
    while world.keys:
        world.step()
        assert world.memory is not None
        pool = world.memory.group_pool("web.1")
        if pool is not None:
            built.append(pool.changes)
    assert set(built) == {1}
    assert world.plans == 3
    assert sorted(world.spread("web").values()) == [357] * 6 + [358]


def test_more_blocked_groups_than_a_plan_can_look_at_come_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on with what is left must not begin with the blocked groups again."""
    monkeypatch.setattr("swarm.plan.schedule.planner.PLACEMENTS_A_PLAN", 2)
    world = World()
    world.node("n1", state=NodeState.DOWN)
    for number in range(7):
        world.service(f"s{number}")
        world.tasks(f"s{number}", 1)
    world.run()
    world.node("n2", state=NodeState.DOWN)
    before = world.plans
    world.run()
    assert world.plans - before <= 7
    assert len(world.wake) == 7


def test_many_nodes_are_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.plan.schedule.planner.NODES_A_PLAN", 3)
    world = World()
    world.nodes(10)
    world.service("web", replicas=20)
    world.tasks("web", 20)
    world.run()
    assert world.plans > 6
    assert set(world.spread("web").values()) == {2}
    ids = world.tasks("web", 1)
    world.run()
    assert world.where(ids[0]) == "n00"


def test_reserved_amounts_are_exact() -> None:
    world = World()
    world.node("n1", cpus=1, memory=1 * GIB)
    world.service("web", cpus=0.1, memory=GIB // 10)
    world.tasks("web", 11)
    world.run()
    assert world.spread("web") == {"n1": 10}
    assert world.store.usage(NodeId("n1")).nano_cpus == CORE
    assert ServiceId("web") in world.store.usage(NodeId("n1")).active_by_service
