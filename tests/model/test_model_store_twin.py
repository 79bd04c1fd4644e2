"""The store against a slow obvious twin: plain dicts, groups undone by copying, every index worked out anew each time."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.model.changes import Advance, Assign, Change, Create, Delete, Group, Kind, Update
from swarm.model.objects import Cluster, Node, Revision, Service, Task, TaskStatus
from swarm.model.specs import GenericResource, Port, ProcessSpec, ResourceRequirements, Resources, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.model.store import Store, kind_of


class Twin:
    """What the documentation of the changes says, word by word."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Kind, str], Any] = {}

    def apply(self, group: Group, index: int) -> bool:
        saved = dict(self.rows)
        for change in group:
            if not self.change(change, index):
                self.rows = saved
                return False
        return True

    def of(self, kind: Kind) -> list[Any]:
        return [row for (table, _), row in self.rows.items() if table == kind]

    def change(self, change: Change, index: int) -> bool:
        match change:
            case Create(it):
                return self.create(it, index)
            case Update(it):
                return self.update(it, index)
            case Delete(kind, id, version):
                return self.delete(kind, id, version)
            case Advance(id, desired, status, reason):
                old = self.rows.get((Kind.TASK, id))
                if old is None:
                    return True
                new = evolve(old, desired=max(old.desired, desired or 0), reason=reason or old.reason)
                if status is not None and status.state >= old.status.state:
                    new = evolve(new, status=status)
                if new != old:
                    self.rows[Kind.TASK, id] = evolve(new, version=index)
            case Assign(id, version, node_id, status, generic, reason):
                old = self.rows.get((Kind.TASK, id))
                if old is None or old.version != version or (Kind.NODE, node_id) not in self.rows:
                    return False
                if old.node_id not in ("", node_id):
                    return False
                self.rows[Kind.TASK, id] = evolve(
                    old, node_id=node_id, status=status, generic=generic, reason=reason or old.reason, version=index
                )
        return True

    def name_taken(self, it: Service) -> bool:
        return any(row.spec.name.lower() == it.spec.name.lower() and row.id != it.id for row in self.of(Kind.SERVICE))

    def create(self, it: Any, index: int) -> bool:
        key = (kind_of(it), it.id)
        if key in self.rows or (isinstance(it, Cluster) and self.of(Kind.CLUSTER)):
            return False
        if isinstance(it, Service) and self.name_taken(it):
            return False
        if isinstance(it, Task):
            revision = (Kind.REVISION, f"{it.service_id}.{it.revision}")
            if (Kind.SERVICE, it.service_id) not in self.rows or revision not in self.rows:
                return False
        self.rows[key] = evolve(it, version=index)
        return True

    def update(self, it: Any, index: int) -> bool:
        key = (kind_of(it), it.id)
        old = self.rows.get(key)
        if old is None or old.version != it.version or isinstance(it, Revision):
            return False
        if isinstance(it, Service) and self.name_taken(it):
            return False
        if isinstance(it, Task) and (
            (old.service_id, old.revision, old.slot) != (it.service_id, it.revision, it.slot)
            or old.node_id not in ("", it.node_id)
        ):
            return False
        self.rows[key] = evolve(it, version=index)
        return True

    def users(self, revision: Revision) -> int:
        named = (revision.service_id, revision.number)
        return sum((task.service_id, task.revision) == named for task in self.of(Kind.TASK))

    def delete(self, kind: Kind, id: str, version: int | None) -> bool:
        old = self.rows.get((kind, id))
        if old is None:
            return True
        if version not in (None, old.version) or (kind == Kind.REVISION and self.users(old)):
            return False
        del self.rows[kind, id]
        if kind == Kind.SERVICE:
            for revision in self.of(Kind.REVISION):
                if revision.service_id == id and not self.users(revision):
                    del self.rows[Kind.REVISION, revision.id]
        return True


def check_same(store: Store, twin: Twin) -> None:
    """Every look-up of the store against the twin's rows."""
    tasks: list[Task] = twin.of(Kind.TASK)
    assert list(store.tasks()) == tasks
    assert list(store.nodes()) == twin.of(Kind.NODE)
    assert list(store.services()) == twin.of(Kind.SERVICE)
    assert [store.cluster] == (twin.of(Kind.CLUSTER) or [None])
    assert list(store.pending_tasks()) == [it for it in tasks if it.status.state <= TaskState.PENDING]
    for service_id in SERVICES:
        mine = [it for it in tasks if it.service_id == service_id]
        assert list(store.tasks_of_service(service_id)) == sorted(mine, key=lambda it: it.slot)
        assert len(store.tasks_of_service(service_id)) == len(mine)
        slots = {slot: tuple(it for it in mine if it.slot == slot) for slot in sorted({it.slot for it in mine})}
        assert list(store.slots_of_service(service_id).items()) == list(slots.items())
        revisions = [it for it in twin.of(Kind.REVISION) if it.service_id == service_id]
        assert list(store.revisions_of(service_id)) == sorted(revisions, key=lambda it: it.number)
    for name in NAMES:
        named = [it for it in twin.of(Kind.SERVICE) if it.spec.name.lower() == name.lower()]
        assert [store.service_named(name)] == (named or [None])
    for node_id in NODES:
        check_usage(store, [it for it in tasks if it.node_id == node_id], node_id)
    for kind in (Kind.NODE, Kind.SERVICE, Kind.TASK):
        for prefix in ("", "t", "ta", "taa", "n"):
            expected = sorted(it.id for it in twin.of(kind) if it.id.startswith(prefix))
            assert list(store.ids_with_prefix(kind.value, prefix)) == expected


def check_usage(store: Store, bound: list[Task], node_id: str) -> None:
    assert list(store.tasks_of_node(node_id)) == sorted(bound, key=lambda it: it.id)
    usage = store.usage(node_id)
    confirmed = [it for it in bound if it.status.state > TaskState.PENDING]
    active = Counter(it.service_id for it in confirmed if it.desired <= TaskState.COMPLETE)
    assert (usage.active_by_service, usage.active_tasks) == (active, active.total())
    holding = [it for it in confirmed if it.status.state <= TaskState.RUNNING]
    specs = [store.spec_of(it) for it in holding]
    assert usage.nano_cpus == sum(it.task.resources.reservations.nano_cpus for it in specs)
    assert usage.memory_bytes == sum(it.task.resources.reservations.memory_bytes for it in specs)
    ports = Counter((port.protocol.value, port.published) for it in specs for port in it.ports if port.published)
    assert usage.host_ports == ports
    claims = [claim for it in holding for claim in it.generic]
    amounts: Counter[str] = Counter()
    items: dict[str, Counter[str]] = {}
    for claim in claims:
        amounts[claim.kind] += len(claim.items) or claim.amount
        if claim.items:
            items.setdefault(claim.kind, Counter()).update(claim.items)
    assert usage.generic_amounts == {kind: amount for kind, amount in amounts.items() if amount}
    assert usage.generic_items == items


SERVICES = ("sa", "sb")
NODES = ("na", "nb", "nc")
NAMES = ("web", "Web", "api")
TASKS = ("taa", "tab", "tba", *(f"tz{number}" for number in range(10)))
VERSIONS = st.none() | st.integers(0, 12)
"""None: the stored version, so that most changes pass."""

specs = st.builds(
    lambda name, cpus, port: ServiceSpec(
        name,
        TaskSpec(ProcessSpec(("true",)), ResourceRequirements(reservations=Resources(cpus, 2 * cpus))),
        ports=(Port(80, port), Port(81)) if port else (),
    ),
    st.sampled_from(NAMES),
    st.integers(0, 3),
    st.sampled_from((0, 8080)),
)
states = st.sampled_from(
    [TaskState.NEW, TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING, TaskState.COMPLETE, TaskState.SHUTDOWN]
)
statuses = st.builds(TaskStatus, states, message=st.sampled_from(("", "note")))
claims = st.lists(
    st.builds(
        GenericResource, st.sampled_from(("gpu", "disk")), st.integers(0, 3), st.sampled_from(((), ("a",), ("a", "b")))
    ),
    max_size=2,
).map(tuple)
tasks = st.builds(
    Task,
    st.sampled_from(TASKS),
    st.sampled_from(SERVICES),
    st.integers(1, 2),
    st.integers(0, 2),
    st.sampled_from(("", "", *NODES)),
    status=statuses,
    generic=claims,
)
objects = st.one_of(
    st.builds(Cluster, st.sampled_from(("ca", "cb"))),
    st.builds(Node, st.sampled_from(NODES)),
    st.builds(Service, st.sampled_from(SERVICES), specs),
    st.builds(Revision, st.sampled_from(SERVICES), st.integers(1, 2), specs),
    tasks,
    tasks,
)
IDS = ("ca", *NODES, *SERVICES, "sa.1", "sa.2", "sb.1", *TASKS)
changes = st.one_of(
    st.builds(Create, objects),
    st.builds(Create, objects),
    st.tuples(objects, VERSIONS),
    st.builds(Delete, st.sampled_from(Kind), st.sampled_from(IDS), VERSIONS),
    st.builds(Advance, st.sampled_from(TASKS), st.none() | states, st.none() | statuses),
    st.tuples(st.sampled_from(TASKS), st.sampled_from(NODES), statuses, claims, VERSIONS),
)
entries = st.lists(st.lists(st.lists(changes, min_size=1, max_size=4), min_size=1, max_size=3), max_size=12)
START_SPEC = ServiceSpec("start", TaskSpec(ProcessSpec(("true",)), ResourceRequirements(reservations=Resources(1, 2))))
START: Group = (
    *(Create(Node(id)) for id in NODES),
    *(Create(Service(id, evolve(START_SPEC, name=id))) for id in SERVICES),
    *(Create(Revision(id, 1, START_SPEC)) for id in SERVICES),
    *(Create(Task(id, "sa", 1, 1)) for id in TASKS[3:]),
)


def with_version(change: Any, twin: Twin) -> Change:
    """A drawn change with the version that the twin stores, where none was drawn."""
    match change:
        case (str() as id, node_id, status, generic, version):
            stored = twin.rows.get((Kind.TASK, id))
            return Assign(
                id, (stored.version if stored else 0) if version is None else version, node_id, status, generic
            )
        case (it, version):
            stored = twin.rows.get((kind_of(it), it.id))
            return Update(evolve(it, version=(stored.version if stored else 0) if version is None else version))
    return change


@settings(max_examples=100, deadline=None)
@given(entries)
def test_the_store_and_its_slow_twin_agree(drawn: list[list[list[Any]]]) -> None:
    store, twin = Store(), Twin()
    store.apply([START], 1)
    twin.apply(START, 1)
    for index, entry in enumerate(drawn, start=2):
        groups = [tuple(with_version(change, twin) for change in group) for group in entry]
        expected = [twin.apply(group, index) for group in groups]
        before = {(kind_of(it), it.id): it for it in store.dump()}
        results, events = store.apply(groups, index)
        assert [result is None for result in results] == expected
        for event in events:
            assert before.pop((event.kind, event.object.id), None) == event.before
            if event.after is not None:
                before[event.kind, event.object.id] = event.after
        assert before == {(kind_of(it), it.id): it for it in store.dump()}, "the events tell all that changed"
    check_same(store, twin)
    restored = Store()
    restored.restore(store.dump(), store.version)
    check_same(restored, twin)
    assert restored.version == store.version
    assert store.restore(restored.dump(), restored.version) == []


lone = st.tuples(st.sampled_from(TASKS), st.sampled_from((*NODES, "gone")), statuses, claims, VERSIONS)
stops = st.builds(Advance, st.sampled_from(TASKS), states, st.none() | statuses)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.one_of(lone, lone, lone, stops), min_size=1, max_size=12), min_size=1, max_size=4))
def test_a_run_of_assignments_in_one_entry_is_one_after_the_other(drawn: list[list[Any]]) -> None:
    store, twin = Store(), Twin()
    store.apply([START], 1)
    twin.apply(START, 1)
    for index, run in enumerate(drawn, start=2):
        groups = [(with_version(change, twin),) for change in run]
        results, _ = store.apply(groups, index)
        assert [result is None for result in results] == [twin.apply(group, index) for group in groups]
    check_same(store, twin)
