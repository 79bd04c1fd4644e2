"""The store: what each change does, what refuses it, and the indexes, one rule a test."""

from __future__ import annotations

import pytest
from attrs import evolve

from swarm.model.changes import Advance, Assign, Change, Create, Delete, Kind, Refusal, RefusalCode, Update
from swarm.model.events import Event
from swarm.model.objects import NEW_STATUS, Cluster, Node, Revision, Service, Task, TaskStatus
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.specs import (
    GenericResource,
    Port,
    ProcessSpec,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.states import TaskState
from swarm.model.store import Store

ASSIGNED = TaskStatus(TaskState.ASSIGNED)


def spec(name: str, *, cpus: int = 0, memory: int = 0, ports: tuple[Port, ...] = ()) -> ServiceSpec:
    reserved = ResourceRequirements(reservations=Resources(cpus, memory))
    return ServiceSpec(name, TaskSpec(ProcessSpec(("true",)), resources=reserved), ports=ports)


def apply(store: Store, *changes: Change) -> Refusal | None:
    (result,), _ = store.apply([changes], store.version + 1)
    return result


def service(store: Store, id: str, name: str = "", **options: object) -> Service:
    it = Service(id, spec(name or id, **options))
    assert apply(store, Create(it), Create(Revision(id, 1, it.spec))) is None
    return store.service(id)


def task(store: Store, id: str, service_id: str, slot: int = 1, **fields: object) -> Task:
    assert apply(store, Create(Task(id, service_id, 1, slot, **fields))) is None
    return store.task(id)


def node(store: Store, id: str) -> Node:
    assert apply(store, Create(Node(id))) is None
    return store.node(id)


@pytest.fixture
def store() -> Store:
    return Store()


def test_a_created_object_has_the_entrys_index_as_its_version(store: Store) -> None:
    results, events = store.apply([(Create(Node("n1", version=77)),)], 5)
    assert results == [None]
    assert store.node("n1").version == store.version == 5
    assert events == [Event(Kind.NODE, None, store.node("n1"))]


def test_an_entry_is_applied_once(store: Store) -> None:
    store.apply([], 5)
    with pytest.raises(ValueError, match="entry 5 is applied after entry 5"):
        store.apply([], 5)


def test_an_existing_id_is_refused(store: Store) -> None:
    node(store, "n1")
    assert apply(store, Create(Node("n1"))).code == RefusalCode.EXISTS


def test_service_names_are_unique_whatever_their_case(store: Store) -> None:
    service(store, "s1", "Web")
    assert store.service_named("wEB").id == "s1"
    refused = apply(store, Create(Service("s2", spec("WEB"))))
    assert refused.code == RefusalCode.NAME_TAKEN and "s1" in refused.text
    assert store.service("s2") is None


def test_a_name_is_free_again_after_a_rename_and_after_a_removal(store: Store) -> None:
    first = service(store, "s1", "web")
    assert apply(store, Update(evolve(first, spec=spec("Web")))) is None
    assert apply(store, Update(evolve(store.service("s1"), spec=spec("api")))) is None
    assert store.service_named("web") is None
    service(store, "s2", "web")
    assert apply(store, Update(evolve(store.service("s1"), spec=spec("web")))).code == RefusalCode.NAME_TAKEN
    assert apply(store, Delete(Kind.SERVICE, "s2")) is None
    assert apply(store, Update(evolve(store.service("s1"), spec=spec("web")))) is None


def test_one_group_may_remove_a_service_and_give_its_name_to_another(store: Store) -> None:
    service(store, "s1", "web")
    assert apply(store, Delete(Kind.SERVICE, "s1"), Create(Service("s2", spec("web")))) is None
    assert store.service_named("web").id == "s2"


def test_a_task_needs_its_service_and_its_revision(store: Store) -> None:
    refused = apply(store, Create(Task("t1", "s1", 1)))
    assert (refused.code, refused.kind, refused.id) == (RefusalCode.NOT_FOUND, Kind.SERVICE, "s1")
    service(store, "s1")
    refused = apply(store, Create(Task("t1", "s1", 2)))
    assert (refused.code, refused.kind, refused.id) == (RefusalCode.NOT_FOUND, Kind.REVISION, "s1.2")


def test_an_update_from_an_old_version_is_refused(store: Store) -> None:
    old = node(store, "n1")
    assert apply(store, Update(old)) is None
    assert apply(store, Update(old)).code == RefusalCode.OUT_OF_DATE
    assert apply(store, Update(Node("n2"))).code == RefusalCode.NOT_FOUND


def test_a_delete_of_what_is_gone_is_no_change_and_of_an_old_version_refused(store: Store) -> None:
    node(store, "n1")
    assert apply(store, Delete(Kind.NODE, "n1", 99)).code == RefusalCode.OUT_OF_DATE
    assert apply(store, Delete(Kind.NODE, "n1", store.node("n1").version)) is None
    assert store.apply([(Delete(Kind.NODE, "n1"),)], store.version + 1) == ([None], [])


def test_the_first_refusal_undoes_the_whole_group_and_no_other(store: Store) -> None:
    groups = [
        (Create(Node("n1")), Create(Node("n2")), Create(Node("n1"))),
        (Create(Node("n3")),),
    ]
    (refused, accepted), events = store.apply(groups, 1)
    assert refused.id == "n1" and accepted is None
    assert [it.id for it in store.nodes()] == ["n3"]
    assert [event.object.id for event in events] == ["n3"]


def test_there_is_one_cluster(store: Store) -> None:
    assert apply(store, Create(Cluster("c1"))) is None
    assert apply(store, Create(Cluster("c2"))).code == RefusalCode.EXISTS
    assert apply(store, Update(Cluster("c2", version=1))).code == RefusalCode.NOT_FOUND
    assert apply(store, Update(evolve(store.cluster, root_key=b"k"))) is None
    assert store.cluster.root_key == b"k"


def test_a_revision_never_changes(store: Store) -> None:
    service(store, "s1")
    assert apply(store, Update(store.revision("s1", 1))).code == RefusalCode.IMMUTABLE


def test_a_revision_that_a_task_names_stays(store: Store) -> None:
    service(store, "s1")
    task(store, "t1", "s1")
    refused = apply(store, Delete(Kind.REVISION, "s1.1"))
    assert refused.code == RefusalCode.IN_USE and "1 task;" in refused.text
    assert apply(store, Delete(Kind.TASK, "t1"), Delete(Kind.REVISION, "s1.1")) is None
    assert store.revisions_of("s1") == ()


def test_a_removed_service_takes_along_the_revisions_that_no_task_names(store: Store) -> None:
    it = service(store, "s1")
    assert apply(store, Create(Revision("s1", 2, it.spec)), Create(Revision("s1", 10, it.spec))) is None
    task(store, "t1", "s1")
    _, events = store.apply([(Delete(Kind.SERVICE, "s1"),)], store.version + 1)
    assert [(event.kind, event.object.id) for event in events] == [
        (Kind.SERVICE, "s1"),
        (Kind.REVISION, "s1.2"),
        (Kind.REVISION, "s1.10"),
    ]
    assert store.spec_of(store.task("t1")) == it.spec
    assert [it.number for it in store.revisions_of("s1")] == [1]


def test_a_task_keeps_its_identity(store: Store) -> None:
    service(store, "s1")
    service(store, "s2")
    node(store, "n1")
    it = task(store, "t1", "s1")
    for change in ({"service_id": "s2"}, {"slot": 9}, {"revision": 2}):
        assert apply(store, Update(evolve(it, **change))).code == RefusalCode.IMMUTABLE
    assert apply(store, Assign("t1", it.version, "n1", ASSIGNED)) is None
    assert apply(store, Update(evolve(store.task("t1"), node_id="n2"))).code == RefusalCode.IMMUTABLE


def test_an_assignment_binds_once_and_from_the_version_it_saw(store: Store) -> None:
    service(store, "s1")
    node(store, "n1")
    node(store, "n2")
    it = task(store, "t1", "s1")
    why = Reason(ReasonCode.PLACED, "least loaded")
    claims = (GenericResource("gpu", items=("a",)),)
    assert apply(store, Assign("t1", it.version - 1, "n1", ASSIGNED)).code == RefusalCode.OUT_OF_DATE
    assert apply(store, Assign("t1", it.version, "n9", ASSIGNED)).kind == Kind.NODE
    assert apply(store, Assign("t9", it.version, "n1", ASSIGNED)).kind == Kind.TASK
    assert apply(store, Assign("t1", it.version, "n1", ASSIGNED, claims, why)) is None
    bound = store.task("t1")
    assert (bound.node_id, bound.status, bound.generic, bound.reason) == ("n1", ASSIGNED, claims, why)
    assert apply(store, Assign("t1", bound.version, "n2", ASSIGNED)).code == RefusalCode.IMMUTABLE
    assert apply(store, Assign("t1", bound.version, "n1", ASSIGNED)) is None
    assert store.task("t1").reason == why


def test_a_tasks_desired_state_and_status_only_move_forward(store: Store) -> None:
    service(store, "s1")
    task(store, "t1", "s1")
    apply(store, Advance("t1", TaskState.SHUTDOWN, TaskStatus(TaskState.RUNNING, message="up")))
    apply(store, Advance("t1", TaskState.RUNNING, TaskStatus(TaskState.STARTING)))
    assert store.task("t1").desired == TaskState.SHUTDOWN
    assert store.task("t1").status.state == TaskState.RUNNING
    apply(store, Advance("t1", status=TaskStatus(TaskState.RUNNING, message="healthy")))
    assert store.task("t1").status.message == "healthy"


def test_a_status_after_running_says_since_when_the_task_ran(store: Store) -> None:
    service(store, "web")
    task(store, "t", "web")
    apply(store, Advance("t", status=TaskStatus(TaskState.RUNNING, at=4, applied_at=5)))
    ended = TaskStatus(TaskState.FAILED, at=9, applied_at=10)
    apply(store, Advance("t", status=ended))
    assert store.task("t").status == evolve(ended, running_at=5)
    before = store.task("t")
    apply(store, Advance("t", status=ended))
    assert store.task("t") is before


def test_a_status_tells_since_when_the_task_had_been_running(store: Store) -> None:
    service(store, "s1")
    for id in ("t1", "t2"):
        task(store, id, "s1")
    apply(store, Advance("t1", status=TaskStatus(TaskState.RUNNING, at=4.0, applied_at=5.0)))
    assert store.task("t1").status.running_at == 0.0
    apply(store, Advance("t1", status=TaskStatus(TaskState.RUNNING, applied_at=9.0, message="healthy")))
    assert store.task("t1").status.running_at == 5.0
    failed = TaskStatus(TaskState.FAILED, applied_at=11.0)
    apply(store, Advance("t1", status=failed))
    assert store.task("t1").status == evolve(failed, running_at=5.0)
    assert store.apply([(Advance("t1", status=failed),)], store.version + 1) == ([None], []), "the same report again"
    apply(store, Advance("t2", status=failed))
    assert store.task("t2").status.running_at == 0.0, "it never ran"


def test_an_advance_that_brings_nothing_new_is_no_change(store: Store) -> None:
    service(store, "s1")
    it = task(store, "t1", "s1")
    for nothing in (Advance("t1"), Advance("t1", TaskState.RUNNING, NEW_STATUS), Advance("t9", TaskState.REMOVE)):
        assert store.apply([(nothing,)], store.version + 1) == ([None], [])
    assert store.task("t1") is it
    why = Reason(ReasonCode.NO_NODE, "none fits")
    _, events = store.apply([(Advance("t1", reason=why),)], store.version + 1)
    assert [event.after.reason for event in events] == [why]


def test_changes_of_one_group_see_each_other(store: Store) -> None:
    node(store, "n1")
    it = Service("s1", spec("web"))
    results, events = store.apply(
        [
            (
                Create(it),
                Create(Revision("s1", 1, it.spec)),
                Create(Task("t1", "s1", 1)),
                Assign("t1", store.version + 1, "n1", ASSIGNED),
                Advance("t1", TaskState.SHUTDOWN),
            )
        ],
        store.version + 1,
    )
    assert results == [None]
    assert (store.task("t1").node_id, store.task("t1").desired) == ("n1", TaskState.SHUTDOWN)
    assert [event.kind for event in events[2:]] == [Kind.TASK] * 3
    assert events[3].before == events[2].after


def test_tasks_are_found_by_service_slot_and_node(store: Store) -> None:
    service(store, "s1")
    service(store, "s2")
    node(store, "n1")
    for id, service_id, slot in (("t1", "s1", 2), ("t2", "s1", 1), ("t3", "s1", 2), ("t4", "s2", 1)):
        task(store, id, service_id, slot)
    tasks = store.tasks_of_service("s1")
    assert [it.id for it in tasks] == ["t2", "t1", "t3"] and len(tasks) == 3
    assert store.task("t1") in tasks and store.task("t4") not in tasks
    slots = store.slots_of_service("s1")
    assert {slot: [it.id for it in held] for slot, held in slots.items()} == {1: ["t2"], 2: ["t1", "t3"]}
    assert list(slots) == [1, 2] and 3 not in slots
    for id in ("t3", "t1"):
        assert apply(store, Assign(id, store.task(id).version, "n1", ASSIGNED)) is None
    assert [it.id for it in store.tasks_of_node("n1")] == ["t1", "t3"]
    assert apply(store, Delete(Kind.TASK, "t1")) is None
    assert [it.id for it in store.tasks_of_node("n1")] == ["t3"]
    assert [it.id for it in slots[2]] == ["t3"]
    assert list(store.tasks_of_service("s9")) == list(store.tasks_of_node("n9")) == []
    assert store.slots_of_service("s9") == {}


def test_pending_tasks_come_in_order_of_creation(store: Store) -> None:
    service(store, "s1")
    for id in ("b", "a", "c"):
        task(store, id, "s1")
    pending = store.pending_tasks()
    assert [it.id for it in pending] == ["b", "a", "c"]
    apply(store, Advance("b", status=TaskStatus(TaskState.PENDING)))
    apply(store, Advance("a", status=TaskStatus(TaskState.ASSIGNED)))
    assert [it.id for it in pending] == ["b", "c"] and len(pending) == 2
    assert store.task("b") in pending and store.task("a") not in pending
    apply(store, Delete(Kind.TASK, "b"))
    assert apply(store, Update(evolve(store.task("a"), status=NEW_STATUS))) is None
    assert [it.id for it in store.pending_tasks()] == ["a", "c"]


def test_usage_follows_binding_stopping_and_ending(store: Store) -> None:
    web = Port(80, 8080)
    service(store, "s1", cpus=5, memory=7, ports=(web, Port(81)))
    node(store, "n1")
    for id in ("t1", "t2"):
        it = task(store, id, "s1")
        claims = (GenericResource("gpu", items=("a", "b")), GenericResource("disk", 3), GenericResource("none"))
        assert apply(store, Assign(id, it.version, "n1", ASSIGNED, claims)) is None
    usage = store.usage("n1")
    assert (usage.active_tasks, usage.nano_cpus, usage.memory_bytes) == (2, 10, 14)
    assert usage.active_by_service == {"s1": 2}
    assert usage.host_ports == {("tcp", 8080): 2}
    assert usage.generic_amounts == {"gpu": 4, "disk": 6}
    assert usage.generic_items == {"gpu": {"a": 2, "b": 2}}

    apply(store, Advance("t1", TaskState.SHUTDOWN))
    assert (usage.active_tasks, usage.nano_cpus) == (1, 10), "a task that is being stopped still holds its reservation"
    apply(store, Advance("t1", status=TaskStatus(TaskState.SHUTDOWN)))
    assert (usage.nano_cpus, usage.host_ports) == (5, {("tcp", 8080): 1})
    assert usage.generic_items == {"gpu": {"a": 1, "b": 1}}
    apply(store, Delete(Kind.TASK, "t1"))
    apply(store, Delete(Kind.TASK, "t2"))
    gone = store.usage("n1")
    assert (gone.active_tasks, gone.nano_cpus, gone.memory_bytes) == (0, 0, 0)
    assert gone.active_by_service == gone.host_ports == gone.generic_amounts == gone.generic_items == {}


def test_a_task_bound_at_creation_counts_on_its_node_once_it_is_confirmed(store: Store) -> None:
    service(store, "s1", cpus=5)
    task(store, "t1", "s1", node_id="n1")
    assert (store.usage("n1").nano_cpus, store.usage("n1").active_tasks) == (0, 0)
    assert [it.id for it in store.pending_tasks()] == ["t1"]
    assert [it.id for it in store.tasks_of_node("n1")] == ["t1"]
    apply(store, Advance("t1", status=TaskStatus(TaskState.ASSIGNED)))
    assert (store.usage("n1").nano_cpus, store.usage("n1").active_tasks) == (5, 1)


def test_ids_are_found_by_prefix(store: Store) -> None:
    for id in ("abc", "abd", "ad", "b"):
        node(store, id)
    apply(store, Delete(Kind.NODE, "abd"))
    assert list(store.ids_with_prefix("node", "a")) == ["abc", "ad"]
    assert list(store.ids_with_prefix("node", "ab")) == ["abc"]
    assert list(store.ids_with_prefix("node", "abcd")) == []
    assert list(store.ids_with_prefix("node", "")) == ["abc", "ad", "b"]
    assert list(store.ids_with_prefix("task", "a")) == []
    with pytest.raises(ValueError, match="revision"):
        store.ids_with_prefix("revision", "a")


def test_a_restore_says_what_differs(store: Store) -> None:
    service(store, "s1")
    kept, changed, gone = (task(store, id, "s1") for id in ("t1", "t2", "t3"))
    other = Store()
    other.restore(store.dump(), store.version)
    apply(other, Advance("t2", TaskState.SHUTDOWN))
    apply(other, Delete(Kind.TASK, "t3"))
    apply(other, Create(Task("t4", "s1", 1)))
    events = store.restore(other.dump(), other.version)
    assert events == [
        Event(Kind.TASK, gone, None),
        Event(Kind.TASK, changed, other.task("t2")),
        Event(Kind.TASK, None, other.task("t4")),
    ]
    assert store.version == other.version and store.task("t1") == kept


def test_a_dump_is_of_its_moment(store: Store) -> None:
    service(store, "s1")
    task(store, "t1", "s1")
    rows = store.dump()
    count = len(rows)
    apply(store, Delete(Kind.TASK, "t1"))
    assert len(rows) == count
