"""What a change of a service would do, found out by doing it: the real planners on a copy of the real state.

The copy is a store of its own; nothing of the real one is touched. Tasks of the service do at once what they are told, and
time passes from wake to wake. Job tasks start and do not end: what is shown is the first batch. It tells nothing of failures:
those come from the programs, not from the plan. It comes in slices of a few milliseconds, because a preview of 200,000 tasks
takes many seconds and a leader that computed them in one go would lose its followers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from math import ceil
from typing import TypeAlias, TypeVar

from attrs import evolve, frozen

from swarm.model.changes import Advance, Create, Update
from swarm.model.ids import Ids, Instant, NodeId, RevisionNumber, ServiceId, Version
from swarm.model.objects import Revision, Service, StoreObject, Task, TaskStatus
from swarm.model.snapshot import Snapshot
from swarm.model.specs import ServiceSpec, UpdateConfig
from swarm.model.states import NodeState, TaskState, UpdateState
from swarm.model.store import Store
from swarm.model.tables import Tables
from swarm.plan.context import short
from swarm.plan.global_services import GlobalPlanner
from swarm.plan.jobs import JobsPlanner
from swarm.plan.rehearsal import Rehearsal
from swarm.plan.replicated import ReplicatedPlanner
from swarm.plan.schedule.planner import Scheduler

STEPS_MAX = 100
"""Steps that a rolling update is rehearsed in at the most; one of more slots is rehearsed with a higher parallelism."""
ROUNDS_MAX = 2_000
"""Rounds of placing, progress and passing time: some ten for each step of an update."""
SLICE = 500
"""Objects copied, tasks moved and slots compared in one slice: a few milliseconds."""

KEEP = "keep"
"""The verb of a step for a task that nothing happens to."""

T = TypeVar("T")
Slices: TypeAlias = Generator[None, None, T]
"""Work in slices: each `next` does one, and the last one's StopIteration carries the result."""


@frozen
class PlannedStep:
    """One thing that would happen: `start`, `stop`, `move` or `keep`."""

    verb: str
    slot: int
    node_id: NodeId
    """Where it would be then; empty when no node takes it."""
    node_name: str
    text: str


def preview(view: Snapshot, new_spec: ServiceSpec, now: Instant, ids: Ids) -> list[PlannedStep]:
    """What creating or updating the service of that name would do, in one go; see `preview_slices`."""
    slices = preview_slices(dump_of(view), view.version, new_spec, now, ids)
    while True:
        try:
            next(slices)
        except StopIteration as end:
            steps: list[PlannedStep] = end.value
            return steps


def preview_slices(
    objects: Iterable[StoreObject], version: Version, new_spec: ServiceSpec, now: Instant, ids: Ids
) -> Slices[list[PlannedStep]]:
    """The steps for a state that was dumped, by slot. Takes as long as planning the change does; owns nothing shared."""
    store = Store()
    yield from _restore(store, objects, version)
    existing = store.service_named(new_spec.name)
    before = [task for task in store.tasks_of_service(existing.id) if task.is_live] if existing else []
    rehearsal = Rehearsal(store, [ReplicatedPlanner(), GlobalPlanner(), JobsPlanner(), Scheduler()], now, ids)
    service_id = _declare(rehearsal, existing, _hastened(new_spec, len(before)), ids)
    yield from _play(rehearsal, service_id)
    after = [task for task in store.tasks_of_service(service_id) if task.is_live]
    return (yield from _compare(store, before, after))


def dump_of(view: Snapshot) -> list[StoreObject]:
    """Every object of a view, in the order that a store restores."""
    if isinstance(view, Store):
        return view.dump()
    rows: list[StoreObject] = [view.cluster] if view.cluster is not None else []
    rows += view.nodes()
    rows += view.services()
    owners = dict.fromkeys([service.id for service in view.services()] + [task.service_id for task in view.tasks()])
    for service_id in owners:
        rows += view.revisions_of(service_id)
    rows += view.tasks()
    return rows


# --- the rehearsal -------------------------------------------------------------------------------------------------
def _restore(store: Store, objects: Iterable[StoreObject], version: Version) -> Iterator[None]:
    tables, left = Tables(), iter(objects)
    while piece := list(islice(left, SLICE)):
        tables.load(piece)
        yield
    store.replace(tables, version)


def _hastened(spec: ServiceSpec, slots: int) -> ServiceSpec:
    """The spec with an update that takes at most `STEPS_MAX` steps; which slots it replaces does not depend on that."""
    update = spec.update or UpdateConfig()
    if update.parallelism == 0 or slots <= STEPS_MAX:
        return spec
    return evolve(spec, update=evolve(update, parallelism=max(update.parallelism, ceil(slots / STEPS_MAX))))


def _declare(rehearsal: Rehearsal, existing: Service | None, spec: ServiceSpec, ids: Ids) -> ServiceId:
    """Write the change as the control API does: a new revision, no update status, a new run of a job."""
    if existing is None:
        service_id, number = ServiceId(ids.new()), RevisionNumber(1)
        revision = Revision(service_id, number, spec, created_at=rehearsal.now)
        rehearsal.commit([(Create(Service(service_id, spec)), Create(revision))])
        return service_id
    newest = max(revision.number for revision in rehearsal.store.revisions_of(existing.id))
    number = RevisionNumber(newest + 1)
    after = evolve(
        existing,
        spec=spec,
        revision=number,
        previous=existing.revision,
        update_status=None,
        job_iteration=existing.job_iteration + 1,
    )
    rehearsal.commit([(Create(Revision(existing.id, number, spec, created_at=rehearsal.now)), Update(after))])
    return existing.id


def _play(rehearsal: Rehearsal, service_id: ServiceId) -> Iterator[None]:
    """Until the service is at rest: nothing moves, no update is under way, nothing waits for its time."""
    for _ in range(ROUNDS_MAX):
        yield from rehearsal.settling()
        if (yield from _progress(rehearsal, service_id)):
            continue
        wake = rehearsal.next_wake()
        if wake is None or _at_rest(rehearsal.store, service_id):
            return
        rehearsal.now = max(rehearsal.now, wake)


def _progress(rehearsal: Rehearsal, service_id: ServiceId) -> Slices[bool]:
    """Let every task of the service do what it was told, where its node is well."""
    store = rehearsal.store
    moves = []
    for task in store.tasks_of_service(service_id):
        goal = _goal(task)
        node = store.node(task.node_id) if task.node_id else None
        if goal is not None and node is not None and node.status.state is NodeState.READY:
            moves.append((Advance(task.id, status=TaskStatus(goal, at=rehearsal.now, applied_at=rehearsal.now)),))
    for start in range(0, len(moves), SLICE):
        rehearsal.commit(moves[start : start + SLICE])
        yield
    return bool(moves)


def _goal(task: Task) -> TaskState | None:
    state = task.status.state
    if state < TaskState.ASSIGNED or state.is_terminal:
        return None
    if not task.is_live:
        return TaskState.SHUTDOWN
    goal = TaskState.READY if task.desired is TaskState.READY else TaskState.RUNNING
    return goal if state < goal else None


def _at_rest(store: Store, service_id: ServiceId) -> bool:
    service = store.service(service_id)
    status = service.update_status if service else None
    if status is not None and status.state in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED):
        return False
    return not any(task.desired is TaskState.READY for task in store.tasks_of_service(service_id) if task.is_live)


# --- the answer ----------------------------------------------------------------------------------------------------
def _compare(store: Store, before: Sequence[Task], after: Sequence[Task]) -> Slices[list[PlannedStep]]:
    old, new = _by_place(before), _by_place(after)
    steps: list[PlannedStep] = []
    for number, key in enumerate(sorted(old.keys() | new.keys())):
        steps += _steps_of_slot(store, old.get(key, []), new.get(key, []))
        if number % SLICE == SLICE - 1:
            yield
    return steps


def _by_place(tasks: Sequence[Task]) -> dict[tuple[int, NodeId], list[Task]]:
    """By slot; the global kinds have one slot a node."""
    places: dict[tuple[int, NodeId], list[Task]] = {}
    for task in tasks:
        places.setdefault((task.slot, NodeId("") if task.slot else task.node_id), []).append(task)
    return places


def _steps_of_slot(store: Store, old: list[Task], new: list[Task]) -> list[PlannedStep]:
    kept = {task.id for task in old} & {task.id for task in new}
    steps = [_step(store, KEEP, task, "stays as it is") for task in new if task.id in kept]
    gone = [task for task in old if task.id not in kept]
    come = [task for task in new if task.id not in kept]
    if len(gone) == len(come) == 1 and come[0].node_id and gone[0].node_id not in ("", come[0].node_id):
        text = f"from node {_name(store, gone[0].node_id)}: {_why(store, come[0])}"
        return [*steps, _step(store, "move", come[0], text)]
    steps += [_step(store, "stop", task, _why_gone(store, task, come)) for task in gone]
    return steps + [_step(store, "start", task, _why(store, task)) for task in come]


def _why_gone(store: Store, task: Task, come: list[Task]) -> str:
    if not come:
        return _why(store, task)
    return f"task {short(task.id)} of revision {task.revision} is replaced by one of revision {come[0].revision}"


def _step(store: Store, verb: str, task: Task, text: str) -> PlannedStep:
    return PlannedStep(verb, task.slot, task.node_id, _name(store, task.node_id), text)


def _name(store: Store, node_id: NodeId) -> str:
    node = store.node(node_id) if node_id else None
    return (node.description.hostname if node else "") or short(node_id)


def _why(store: Store, task: Task) -> str:
    now = store.task(task.id) or task
    if now.status.state < TaskState.ASSIGNED and now.is_live:
        return f"would wait: {now.status.error or 'no node was found yet'}"
    return now.reason.text if now.reason is not None else ""
