"""What control requests change and show, decided on a real store without any actor."""

from __future__ import annotations

from itertools import count

import pytest
from attrs import evolve

from swarm.actors.control import views, writes
from swarm.actors.control.lookup import find_node, find_service, find_task
from swarm.actors.raft_messages import RaftStatusView
from swarm.model.changes import Advance, Change, Create, Group
from swarm.model.ids import ClusterId, Instant, NodeId, RaftId, RevisionNumber, ServiceId, Slot, TaskId, Version
from swarm.model.objects import Cluster, JoinTokens, ManagerStatus, Node, NodeStatus, Task, TaskStatus
from swarm.model.specs import (
    ClusterSettings,
    ContainerSpec,
    Global,
    NodeDescription,
    NodeSpec,
    ProcessSpec,
    RaftSettings,
    Replicated,
    ReplicatedJob,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.states import Availability, NodeState, Role, TaskState, UpdateState
from swarm.model.store import Store
from swarm.plan.preview import PlannedStep
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.messages.node import MemberView

NOW = Instant(1000.0)
ME = NodeId("manager")


class CountingIds:
    """Ids that a reader can follow."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def new(self) -> str:
        """`id000...1`, `id000...2`."""
        return f"id{next(self._numbers):023d}"


class World:
    """A store and the next index to apply at."""

    def __init__(self) -> None:
        self.store = Store()
        self.ids = CountingIds()
        self._index = count(1)
        self.apply(
            (
                Create(
                    Cluster(
                        ClusterId("c"),
                        root_certificate=b"root",
                        root_key=b"key",
                        tokens=JoinTokens("tw", "tm"),
                        removed_nodes={"long-gone": 1.0, "without-expiry": 0.0},
                    )
                ),
            )
        )

    def apply(self, group: Group) -> None:
        results, _ = self.store.apply([group], Version(next(self._index)))
        assert results == [None], results

    def service(self, spec: ServiceSpec) -> ServiceId:
        id, group = writes.create_service(self.store, spec, ME, NOW, self.ids)
        self.apply(group)
        return id

    def node(self, name: str, **fields: object) -> NodeId:
        id = NodeId(f"{name}-{'0' * (24 - len(name))}")
        description = NodeDescription(hostname=name, executors=("process",))
        changes: list[Change] = [Create(evolve(Node(id, description=description), **fields))]
        self.apply(tuple(changes))
        return id

    def task(self, service: ServiceId, slot: int, **fields: object) -> TaskId:
        id = TaskId(self.ids.new())
        revision = find_service(self.store, service).revision
        self.apply((Create(evolve(Task(id, service, revision, Slot(slot), created_at=NOW), **fields)),))
        return id

    def status(self, task: TaskId, state: TaskState) -> None:
        self.apply((Advance(task, status=TaskStatus(state, at=NOW)),))


@pytest.fixture
def world() -> World:
    return World()


def web(**fields: object) -> ServiceSpec:
    return evolve(ServiceSpec("web", TaskSpec(ProcessSpec(("sleep", "9")))), **fields)


def refusal(error: pytest.ExceptionInfo[SwarmError]) -> tuple[ErrorCode, str]:
    return error.value.code, error.value.text


# --- services ------------------------------------------------------------------------------------------------------
def test_a_service_is_created_with_its_first_revision(world: World) -> None:
    id = world.service(web())
    service = find_service(world.store, "WEB")
    assert (service.id, service.revision, service.previous) == (id, 1, None)
    (revision,) = world.store.revisions_of(id)
    assert (revision.number, revision.spec, revision.author, revision.note) == (1, web(), ME, "created")


def test_a_name_that_is_taken_is_refused_with_what_to_do(world: World) -> None:
    world.service(web())
    with pytest.raises(SwarmError) as error:
        writes.create_service(world.store, web(name="Web"), ME, NOW, world.ids)
    assert refusal(error)[0] is ErrorCode.EXISTS
    assert "svc update" in error.value.details["hint"]


def test_everything_wrong_with_a_spec_is_told_at_once(world: World) -> None:
    bad = web(name="-x-", mode=Replicated(-1), task=TaskSpec(ProcessSpec((), env=("=1",))))
    with pytest.raises(SwarmError) as error:
        writes.check_spec(world.store, bad)
    code, text = refusal(error)
    assert code is ErrorCode.INVALID
    for words in ("-x-", "replicas is -1", "needs a command", "NAME=VALUE"):
        assert words in text


def test_of_a_very_long_plan_what_changes_is_shown_and_the_rest_is_counted(world: World) -> None:
    service = find_service(world.store, world.service(web()))
    kept = [PlannedStep("keep", n, NodeId("a"), "a", "stays") for n in range(1, 6)]
    started = [PlannedStep("start", n, NodeId("a"), "a", "new") for n in range(6, views.PLAN_LINES_MAX + 9)]
    written = views.planned(service, (), kept)
    assert (len(written.plan), written.left_out) == (5, {})
    written = views.planned(service, (), kept + started)
    assert {line.verb for line in written.plan} == {"start"} and len(written.plan) == views.PLAN_LINES_MAX
    assert written.left_out == {"keep": 5, "start": len(started) - views.PLAN_LINES_MAX}


def test_an_unknown_placeholder_is_refused(world: World) -> None:
    with pytest.raises(SwarmError) as error:
        writes.check_spec(world.store, web(task=TaskSpec(ProcessSpec(("echo", "{{.Task.Colour}}")))))
    assert error.value.code is ErrorCode.INVALID and "Colour" in error.value.text


def test_a_runtime_that_no_node_has_is_a_warning_and_not_a_refusal(world: World) -> None:
    world.node("a")
    assert writes.check_spec(world.store, web()) == ()
    (warning,) = writes.check_spec(world.store, web(task=TaskSpec(ContainerSpec("nginx"))))
    assert "docker" in warning


def test_an_update_makes_the_next_revision_and_clears_the_update_status(world: World) -> None:
    id = world.service(web())
    before = find_service(world.store, id)
    spec = web(mode=Replicated(4), task=TaskSpec(ProcessSpec(("sleep", "10"))))
    world.apply(writes.update_service(world.store, id, before.version, spec, ME, NOW))
    after = find_service(world.store, id)
    assert (after.revision, after.previous, after.spec, after.update_status) == (2, 1, spec, None)
    newest = world.store.revision(id, RevisionNumber(2))
    assert newest is not None and newest.note == "replicas 1 to 4, command"


def test_of_two_updates_from_one_version_the_second_is_out_of_date(world: World) -> None:
    id = world.service(web())
    seen = find_service(world.store, id).version
    world.apply(writes.update_service(world.store, id, seen, web(mode=Replicated(2)), ME, NOW))
    with pytest.raises(SwarmError) as error:
        writes.update_service(world.store, id, seen, web(mode=Replicated(3)), ME, NOW)
    assert error.value.code is ErrorCode.OUT_OF_DATE


@pytest.mark.parametrize("spec", [web(name="other"), web(mode=Global()), web(task=TaskSpec(ContainerSpec("nginx")))])
def test_name_mode_and_runtime_never_change(world: World, spec: ServiceSpec) -> None:
    id = world.service(web())
    with pytest.raises(SwarmError) as error:
        writes.update_service(world.store, id, find_service(world.store, id).version, spec, ME, NOW)
    assert error.value.code is ErrorCode.INVALID


def test_a_rollback_returns_to_the_previous_spec_as_a_new_revision_and_twice_is_forward_again(world: World) -> None:
    id = world.service(web())
    world.apply(
        writes.update_service(world.store, id, find_service(world.store, id).version, web(mode=Replicated(2)), ME, NOW)
    )
    for expected in (1, 2):
        _, group = writes.rollback_service(world.store, "web", None, ME, NOW)
        world.apply(group)
        service = find_service(world.store, id)
        assert service.spec.mode == Replicated(expected)
        assert service.update_status is not None
        assert service.update_status.state is UpdateState.ROLLBACK_STARTED
    assert service.revision == 4


def test_a_rollback_without_an_earlier_revision_or_to_an_unknown_one_is_refused(world: World) -> None:
    world.service(web())
    with pytest.raises(SwarmError) as error:
        writes.rollback_service(world.store, "web", None, ME, NOW)
    assert error.value.code is ErrorCode.PRECONDITION
    with pytest.raises(SwarmError) as error:
        writes.rollback_service(world.store, "web", RevisionNumber(9), ME, NOW)
    assert error.value.code is ErrorCode.NOT_FOUND and "kept are 1" in error.value.text


def test_a_rollback_of_a_job_begins_its_next_run_and_leaves_no_rollback_under_way(world: World) -> None:
    id = world.service(web(mode=ReplicatedJob(1, 1)))
    changed = web(mode=ReplicatedJob(2, 2))
    world.apply(writes.update_service(world.store, id, find_service(world.store, id).version, changed, ME, NOW))
    _, group = writes.rollback_service(world.store, "web", None, ME, NOW)
    world.apply(group)
    service = find_service(world.store, id)
    assert (service.spec.mode, service.job_iteration, service.update_status) == (ReplicatedJob(1, 1), 2, None)


def test_what_changed_is_told_in_the_words_of_the_flags() -> None:
    before = web()
    after = evolve(before, task=evolve(before.task, force_update=1), replace_after_s=3.0)
    assert writes.changed_fields(before, after) == ["forced", "replace after"]


def test_any_update_of_a_job_runs_it_again(world: World) -> None:
    id = world.service(web(mode=ReplicatedJob(1, 1)))
    before = find_service(world.store, id)
    world.apply(writes.update_service(world.store, id, before.version, before.spec, ME, Instant(2000.0)))
    after = find_service(world.store, id)
    assert (after.job_iteration, after.last_execution) == (1, 2000.0)


# --- nodes ---------------------------------------------------------------------------------------------------------
def test_a_ready_node_is_removed_only_by_force_and_a_member_of_the_managers_only_when_it_is_lost(world: World) -> None:
    ready = world.node("r", status=NodeStatus(NodeState.READY))
    manager, spec = NodeSpec(desired_role=Role.MANAGER), NodeStatus(NodeState.DOWN)
    live = world.node("m", role=Role.MANAGER, spec=manager, status=NodeStatus(NodeState.READY))
    lost = world.node("l", role=Role.MANAGER, spec=manager, status=spec)
    for node, force, member, words in (
        (ready, False, False, "is ready"),
        (live, True, True, "is a manager"),
        (lost, False, True, "is a manager"),
    ):
        with pytest.raises(SwarmError) as error:
            writes.remove_node(world.store, node, force, NOW, member=member)
        assert error.value.code is ErrorCode.PRECONDITION and words in error.value.text
        assert ("lost just now" in str(error.value.details)) is (node == live), "how to go on when it was lost just now"
    for node, force, member in ((ready, True, False), (lost, True, True)):
        _, group = writes.remove_node(world.store, node, force, NOW, member=member)
        world.apply(group)
        assert world.store.node(node) is None


def test_the_last_one_that_is_to_be_a_manager_is_not_demoted(world: World) -> None:
    only = world.node("m", role=Role.MANAGER, spec=NodeSpec(desired_role=Role.MANAGER))
    world.node("w")
    version = world.store.node(only).version
    with pytest.raises(SwarmError, match="only manager"):
        writes.update_node(world.store, only, version, NodeSpec())
    other = world.node("n", spec=NodeSpec(desired_role=Role.MANAGER))
    assert writes.update_node(world.store, only, version, NodeSpec())
    assert writes.update_node(world.store, other, world.store.node(other).version, NodeSpec())


def test_a_removed_node_is_refused_from_then_on_and_its_tasks_are_orphaned(world: World) -> None:
    id = world.service(web())
    node = world.node("down", status=NodeStatus(NodeState.DOWN), certificate_expires_at=Instant(5000.0))
    task = world.task(id, 1, node_id=node)
    world.status(task, TaskState.RUNNING)
    _, group = writes.remove_node(world.store, "down", False, Instant(1_000_000.0), member=False)
    world.apply(group)
    orphan = find_task(world.store, task)
    assert orphan.status.state is TaskState.ORPHANED and "down" in orphan.status.error
    cluster = writes.the_cluster(world.store)
    assert cluster.removed_nodes == {node: 5000.0, "without-expiry": 0.0}


def test_a_nodes_spec_is_replaced_at_the_version_that_was_seen(world: World) -> None:
    id = world.node("a")
    node = find_node(world.store, "a")
    drained = evolve(node.spec, availability=Availability.DRAIN)
    world.apply(writes.update_node(world.store, id, node.version, drained))
    assert find_node(world.store, "a").spec.availability is Availability.DRAIN
    with pytest.raises(SwarmError) as error:
        writes.update_node(world.store, id, node.version, drained)
    assert error.value.code is ErrorCode.OUT_OF_DATE


def test_only_one_token_is_rotated(world: World) -> None:
    world.apply(writes.rotate_token(world.store, Role.WORKER, "fresh"))
    assert writes.the_cluster(world.store).tokens == JoinTokens("fresh", "tm")


def test_secrets_stay_out_of_the_public_cluster_object(world: World) -> None:
    shown = views.public_cluster(writes.the_cluster(world.store))
    assert (shown.root_key, shown.tokens) == (b"", JoinTokens("", ""))
    assert shown.root_certificate == b"root"


# --- lookup --------------------------------------------------------------------------------------------------------
def test_ids_names_and_unambiguous_prefixes_are_found_and_ambiguous_ones_list_their_candidates(world: World) -> None:
    first, second = world.service(web()), world.service(web(name="db"))
    assert find_service(world.store, first).spec.name == "web"
    assert find_service(world.store, "db").id == second
    with pytest.raises(SwarmError) as error:
        find_service(world.store, "id0")
    assert error.value.code is ErrorCode.INVALID and first in error.value.text and second in error.value.text
    for unknown in ("x", "", "webb"):
        with pytest.raises(SwarmError) as error:
            find_service(world.store, unknown)
        assert error.value.code is ErrorCode.NOT_FOUND


def test_two_nodes_of_one_hostname_are_told_apart_by_id(world: World) -> None:
    a, b = world.node("twin"), NodeId("other" + "0" * 20)
    world.apply((Create(Node(b, description=NodeDescription(hostname="twin"))),))
    with pytest.raises(SwarmError) as error:
        find_node(world.store, "twin")
    assert error.value.code is ErrorCode.INVALID
    assert find_node(world.store, a).id == a
    assert find_node(world.store, "oth").id == b


def test_a_task_is_found_by_service_and_slot_the_live_one_first(world: World) -> None:
    id = world.service(web())
    old = world.task(id, 1, desired=TaskState.SHUTDOWN)
    new = world.task(id, 1)
    assert find_task(world.store, "web.1").id == new
    assert find_task(world.store, f"web.1.{old}").id == old
    with pytest.raises(SwarmError):
        find_task(world.store, "web.2")


# --- views ---------------------------------------------------------------------------------------------------------
def test_counts_of_replicated_global_and_job_services(world: World) -> None:
    replicated = world.service(web(mode=Replicated(3)))
    for slot in (1, 2):
        world.status(world.task(replicated, slot), TaskState.RUNNING)
    view = views.service_view(world.store, find_service(world.store, replicated))
    assert (view.running, view.desired) == (2, 3)
    job = world.service(web(name="job", mode=ReplicatedJob(max_concurrent=2, total_completions=5)))
    for slot, state in ((0, TaskState.COMPLETE), (1, TaskState.RUNNING)):
        world.status(world.task(job, slot, desired=TaskState.COMPLETE, job_iteration=0), state)
    world.status(world.task(job, 2, desired=TaskState.REMOVE, job_iteration=7), TaskState.RUNNING)
    view = views.service_view(world.store, find_service(world.store, job))
    assert (view.running, view.desired, view.completed) == (1, 2, 1)


def test_a_manager_shows_how_far_it_lags(world: World) -> None:
    id = world.node("m", role=Role.MANAGER, manager=ManagerStatus(RaftId(5), "x:1"))
    member = MemberView(5, id, "x:1", leader=False, reachable=True, match_index=90)
    raft = RaftStatusView(1, "leader", 1, None, 100, 100, last_index=100, members=(member,))  # type: ignore[arg-type]
    view = views.node_view(world.store, find_node(world.store, id), raft)
    assert (view.reachable, view.leader, view.applied_index, view.lag) == (True, False, 90, 10)


def test_a_manager_that_does_not_lead_knows_no_lag_but_its_own(world: World) -> None:
    ids = [world.node(f"m{number}", role=Role.MANAGER) for number in (1, 2, 3)]
    members = tuple(
        MemberView(number, id, f"x:{number}", leader=number == 1, reachable=True)
        for number, id in enumerate(ids, start=1)
    )
    raft = RaftStatusView(RaftId(2), "follower", 1, RaftId(1), 100, 97, last_index=100, members=members)
    lags = [views.node_view(world.store, find_node(world.store, id), raft).lag for id in ids]
    assert lags == [0, 3, 0]


def test_a_drain_is_over_when_nothing_of_the_node_runs(world: World) -> None:
    id = world.service(web())
    node = world.node("a")
    task = world.task(id, 1, node_id=node)
    world.status(task, TaskState.RUNNING)
    assert views.drain_progress(world.store, find_node(world.store, node)).remaining == 1
    world.status(task, TaskState.SHUTDOWN)
    assert views.drain_progress(world.store, find_node(world.store, node)).converged


# --- the cluster's settings ------------------------------------------------------------------------------------------
def test_settings_are_replaced_and_nothing_else_of_the_cluster(world: World) -> None:
    before = writes.the_cluster(world.store)
    settings = ClusterSettings(task_history_limit=-1, replace_after_s=2.0, raft=RaftSettings(100, 0))
    world.apply(writes.update_settings(world.store, before.version, settings))
    after = writes.the_cluster(world.store)
    assert after == evolve(before, settings=settings, version=after.version)


def test_settings_changed_by_somebody_else_meanwhile_are_out_of_date(world: World) -> None:
    before = writes.the_cluster(world.store)
    world.apply(writes.update_settings(world.store, before.version, ClusterSettings(task_history_limit=1)))
    with pytest.raises(SwarmError) as refused:
        writes.update_settings(world.store, before.version, ClusterSettings())
    assert refused.value.code is ErrorCode.OUT_OF_DATE


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (ClusterSettings(task_history_limit=-2), "task history limit is -2"),
        (ClusterSettings(revision_history_limit=0), "revision history limit is 0"),
        (ClusterSettings(heartbeat_period_s=0.0), "heartbeat period is 0 s"),
        (ClusterSettings(heartbeat_period_s=float("nan")), "heartbeat period"),
        (ClusterSettings(replace_after_s=-1.0), "replace-after is -1 s"),
        (ClusterSettings(certificate_expiry_s=60.0), "certificate expiry is 60 s"),
        (ClusterSettings(raft=RaftSettings(snapshot_interval=-1)), "snapshot interval is -1"),
        (ClusterSettings(raft=RaftSettings(kept_entries=-1)), "kept entries is -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(world: World, settings: ClusterSettings, word: str) -> None:
    with pytest.raises(SwarmError) as refused:
        writes.update_settings(world.store, writes.the_cluster(world.store).version, settings)
    assert refused.value.code is ErrorCode.INVALID
    assert word in refused.value.text
