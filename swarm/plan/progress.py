"""How far a service, or a node's drain, is from what was declared, and what it waits for: pure, from one view.

"Converged" is strict, since people act on it: exactly the wanted tasks run and are what the current spec asks for, nothing
surplus is live, nothing is still to stop, and no update is under way. "Failed" is final: nothing but a new decision of the
user will change it. Tasks on nodes that cannot be reached are never waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from attrs import define, field, frozen

from swarm.model.ids import Ids, Instant, NodeId, RevisionNumber, ServiceId
from swarm.model.objects import Node, Service, Task
from swarm.model.reasons import ReasonCode
from swarm.model.snapshot import Snapshot
from swarm.model.specs import Global, GlobalJob, Replicated, ReplicatedJob
from swarm.model.states import NodeState, TaskState, UpdateState
from swarm.plan.context import Place, ServiceContext, short
from swarm.plan.eligible import Standing, standing_of
from swarm.plan.jobs import Progress, current_tasks, progress_of
from swarm.plan.keys import part_key
from swarm.plan.restart import end_text, ended_at
from swarm.plan.schedule.need import need_of
from swarm.plan.slots import Slot, finished_task, is_held, slot_of
from swarm.plan.update import UNDER_WAY

_ROLLBACK = (UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_COMPLETED)
BLOCKED_MAX = 5
"""Distinct sentences about what is waited for: what fits on a screen."""
_UNPLACED = "cannot be placed elsewhere"


@frozen
class ServiceFacts:
    """How far a service is; the fields are those of the control API's `ServiceProgress`."""

    service_id: ServiceId
    mode: str
    desired: int
    running: int
    """Slots served by the right task; of a job: completions."""
    converged: bool
    failed: bool = False
    removed: bool = False
    text: str = ""
    blocked: tuple[str, ...] = ()
    last_error: str = ""
    stopping: int = 0


@frozen
class DrainFacts:
    """How far a node's drain is."""

    node_id: NodeId
    remaining: int
    converged: bool
    blocked: tuple[str, ...] = ()


class _NoIds(Ids):
    """Nothing is created here."""

    def new(self) -> str:
        raise AssertionError("looking at progress makes no objects")


@define
class _Count:
    desired: int = 0
    served: int = 0
    """Slots with the right task running, or ended for good and well."""
    lost: int = 0
    """Slots that ended for good and badly."""
    surplus: int = 0
    active: int = 0
    waits: dict[str, None] = field(factory=dict)


def service_facts(view: Snapshot, service_id: ServiceId, now: Instant) -> ServiceFacts:
    """How far the service is; a removed one is followed until its last record is gone."""
    service = view.service(service_id)
    tasks = view.tasks_of_service(service_id)
    if service is None:
        return _removal(view, service_id, tasks)
    ctx = ServiceContext(view, service, now, _NoIds())
    match service.spec.mode:
        case Replicated(replicas):
            mode, count = "replicated", _count_slots(ctx, replicas, _numbered(ctx, tasks))
        case Global():
            mode, count = "global", _count_global(ctx, tasks)
        case ReplicatedJob(_, total):
            mode, count = "replicated-job", _count_job(ctx, total)
        case GlobalJob():
            mode, count = "global-job", _count_global_job(ctx)
    stopping = sum(1 for task in tasks if is_held(ctx, task))
    verdict = _verdict(service, count)
    converged = (
        count.served == count.desired and not count.surplus and not stopping and not _updating(service) and not verdict
    )
    for task in tasks:
        _note_wait(ctx, task, count.waits)
    return ServiceFacts(
        service_id,
        mode,
        count.desired,
        count.served,
        converged,
        failed=bool(verdict),
        text=verdict or _sentence(service, ctx.is_job, count, stopping),
        blocked=tuple(count.waits)[:BLOCKED_MAX],
        last_error=_last_error(ctx, tasks),
        stopping=stopping,
    )


def drain_facts(view: Snapshot, node_id: NodeId) -> DrainFacts:
    """How far the node is from holding nothing; its tasks stop only once their replacements run."""
    held = [
        task for task in view.tasks_of_node(node_id) if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING
    ]
    waits = Counter(
        _unplaced(view, task) or task.reason.text
        for task in held
        if task.reason is not None and task.reason.code is ReasonCode.WAITING
    )
    told = [f"{count} {text}" if text.startswith(_UNPLACED) else text for text, count in waits.items()]
    return DrainFacts(node_id, len(held), not held, tuple(told)[:BLOCKED_MAX])


def _unplaced(view: Snapshot, task: Task) -> str:
    """Why its replacement is nowhere yet; empty when it has none, or one that is placed."""
    for other in view.slots_of_service(task.service_id).get(task.slot, ()):
        if not other.node_id and other.desired <= TaskState.RUNNING and other.status.error:
            return f"{_UNPLACED}: {other.status.error}"
    return ""


def _removal(view: Snapshot, service_id: ServiceId, tasks: Collection[Task]) -> ServiceFacts:
    left = len(tasks)
    text = f"{left} task{'s' if left != 1 else ''} still to stop" if left else "removed"
    silent = Counter(task.node_id for task in tasks if _is_silent(view.node(task.node_id)))
    waits = tuple(f"{count} on {_hostname(view, id)}, which does not answer" for id, count in sorted(silent.items()))
    return ServiceFacts(
        service_id, "", 0, 0, not left, removed=not left, text=text, blocked=waits[:BLOCKED_MAX], stopping=left
    )


def _is_silent(node: Node | None) -> bool:
    return node is not None and node.status.state in (NodeState.DISCONNECTED, NodeState.UNKNOWN)


def _hostname(view: Snapshot, id: NodeId) -> str:
    node = view.node(id)
    return (node.description.hostname if node is not None else "") or id


# --- counting ------------------------------------------------------------------------------------------------------
def _numbered(ctx: ServiceContext, tasks: Iterable[Task]) -> list[Slot]:
    by_slot: dict[int, list[Task]] = {}
    for task in tasks:
        by_slot.setdefault(task.slot, []).append(task)
    return [slot_of(number, part_key(ctx.service.id, number), found) for number, found in by_slot.items()]


def _count_slots(ctx: ServiceContext, desired: int, slots: Iterable[Slot]) -> _Count:
    count = _Count(desired)
    for slot in slots:
        _count_slot(ctx, slot, count)
    return count


def _count_slot(ctx: ServiceContext, slot: Slot, count: _Count) -> None:
    live = slot.live
    right = [task for task in live if _is_right(ctx, task)]
    if right:
        count.served += 1
        count.surplus += len(live) - 1
    elif live:
        count.active += 1
    elif (finished := finished_task(ctx, slot)) is not None:
        if finished.status.state is TaskState.COMPLETE:
            count.served += 1
        else:
            count.lost += 1


def _is_right(ctx: ServiceContext, task: Task) -> bool:
    return (
        task.status.state is TaskState.RUNNING
        and task.desired is TaskState.RUNNING
        and ctx.place(task.node_id) is Place.FINE
        and ctx.is_clean(task)
    )


def _by_node(tasks: Iterable[Task]) -> dict[NodeId, list[Task]]:
    on_nodes: dict[NodeId, list[Task]] = {}
    for task in tasks:
        on_nodes.setdefault(task.node_id, []).append(task)
    return on_nodes


def _count_global(ctx: ServiceContext, tasks: Iterable[Task]) -> _Count:
    need = need_of(ctx.spec.task)
    on_nodes = _by_node(tasks)
    count = _Count()
    for node in ctx.view.nodes():
        slot = slot_of(0, part_key(ctx.service.id, node.id), on_nodes.get(node.id, ()), node.id)
        match standing_of(ctx, need, node):
            case Standing.OPEN:
                count.desired += 1
                _count_slot(ctx, slot, count)
            case Standing.DRAINED | Standing.UNSUITABLE:
                count.surplus += len(slot.live)
    return count


def _count_job(ctx: ServiceContext, total: int) -> _Count:
    count = _Count(total)
    for slot in _numbered(ctx, current_tasks(ctx)):
        _count_run(slot, count)
    return count


def _count_global_job(ctx: ServiceContext) -> _Count:
    need = need_of(ctx.spec.task)
    on_nodes = _by_node(current_tasks(ctx))
    count = _Count()
    for node in ctx.view.nodes():
        slot = slot_of(0, ctx.service.id, on_nodes.get(node.id, ()), node.id)
        progress = progress_of(slot)
        if standing_of(ctx, need, node) is Standing.OPEN or progress in (Progress.DONE, Progress.FAILED):
            count.desired += 1
            _count_run(slot, count)
    return count


def _count_run(slot: Slot, count: _Count) -> None:
    match progress_of(slot):
        case Progress.DONE:
            count.served += 1
        case Progress.ACTIVE:
            count.active += 1
        case Progress.FAILED:
            count.lost += 1


# --- words ---------------------------------------------------------------------------------------------------------
def _updating(service: Service) -> bool:
    return service.update_status is not None and service.update_status.state in UNDER_WAY


def _verdict(service: Service, count: _Count) -> str:
    """Why it has failed for good; empty while it has not, or while slots are still to be decided.

    An automatic rollback keeps no previous revision, which tells it from one that a user asked for.
    """
    status = service.update_status
    if status is not None and status.state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED):
        return status.message
    if status is not None and status.state is UpdateState.ROLLBACK_COMPLETED and service.previous is None:
        return "the update failed and was rolled back"
    if count.lost and count.served + count.lost >= count.desired and not _updating(service):
        return f"{count.lost} of {count.desired} tasks ended and are not restarted"
    return ""


def _sentence(service: Service, job: bool, count: _Count, stopping: int) -> str:
    parts = [f"{count.served} of {count.desired} {'completed' if job else 'running'}"] if count.desired else []
    status = service.update_status
    if status is not None and status.state in UNDER_WAY:
        parts.append("rolling back" if status.state is UpdateState.ROLLBACK_STARTED else "updating")
        if count.served == count.desired and not stopping:
            parts.append("watching the new tasks")
    if count.surplus:
        parts.append(f"{count.surplus} surplus")
    if stopping:
        parts.append(f"{stopping} still to stop")
    return ", ".join(parts) or _none_wanted(service)


def _none_wanted(service: Service) -> str:
    """A service without a single slot, of which nothing is left."""
    return "stopped, none runs" if isinstance(service.spec.mode, Replicated) else "no node is to run it"


def _note_wait(ctx: ServiceContext, task: Task, waits: dict[str, None]) -> None:
    if not task.is_live:
        return
    if task.reason is not None and task.reason.code is ReasonCode.WAITING:
        waits[task.reason.text] = None
    elif task.status.state <= TaskState.PENDING and task.status.error:
        waits[task.status.error] = None
    elif task.desired is TaskState.READY and task.start_after > ctx.now:
        waits[f"{short(task.id)} starts in {task.start_after - ctx.now:.0f} s, after its restart delay"] = None


def _last_error(ctx: ServiceContext, tasks: Iterable[Task]) -> str:
    """The newest failure of the present revision; of a rollback, of the one that it turns away from as well."""
    since = ctx.service.revision
    status = ctx.service.update_status
    if ctx.service.previous is None and status is not None and status.state in _ROLLBACK:
        since = RevisionNumber(since - 1)
    ended = [
        task for task in tasks if task.revision >= since and task.status.state in (TaskState.FAILED, TaskState.REJECTED)
    ]
    return end_text(max(ended, key=ended_at)) if ended else ""
