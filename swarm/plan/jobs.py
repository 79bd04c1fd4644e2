"""Jobs: tasks that run to completion, a number of them in numbered slots, or one on every suitable node.

A job's run is its `job_iteration`: each change of the service begins a new one, and what belongs to an older one is removed.
Within a run a slot is free, active, done (a task of it completed) or failed (its last task ended and may not be restarted); a
failed slot is not given out again, so that a job whose tasks may not be restarted runs each of them once. Tasks on nodes
that are lost or drained are run again elsewhere, and a node that joins later gets its share of a global job. Never two tasks
of one slot at a time, unless the node of the first is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from attrs import define

from swarm.model.changes import Advance, Change
from swarm.model.ids import NodeId, ServiceId
from swarm.model.objects import NEVER, Node, Service, Task
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.specs import GlobalJob, ReplicatedJob
from swarm.model.states import Origin, RestartCondition, TaskState
from swarm.plan.context import Draft, Place, ServiceContext, because, short
from swarm.plan.eligible import Standing, concerns, eviction, standing_of
from swarm.plan.orchestrator import Look, Memory, Orchestrator, Request
from swarm.plan.repair import (
    Repair,
    best_of,
    hold_back,
    kept_restarts,
    new_id,
    promote,
    promote_later,
    restart,
    restart_condition,
)
from swarm.plan.rollout import wake_when_overdue
from swarm.plan.schedule.need import need_of
from swarm.plan.slots import Slot, holds_when_stopped, slot_of, stop


class Progress(Enum):
    """How far one slot of a job's current run is."""

    FREE = "free"
    ACTIVE = "active"
    DONE = "done"
    FAILED = "failed"


@define
class Tally:
    """How far a job's current run is, in slots."""

    active: int = 0
    done: int = 0
    failed: int = 0


class JobsPlanner(Orchestrator):
    """The planner `jobs`, for both kinds."""

    name = "jobs"
    on_every_node = True
    watched_from = TaskState.COMPLETE

    def owns(self, service: Service) -> bool:
        """Both kinds of jobs."""
        return isinstance(service.spec.mode, ReplicatedJob | GlobalJob)

    def owns_task(self, task: Task) -> bool:
        """What carries an iteration."""
        return task.job_iteration is not None

    def part_of(self, task: Task) -> str:
        """The whole job: the end of one task lets the next one start."""
        return ""

    def node_concerns(self, before: Node | None, after: Node | None) -> bool:
        """Whatever a constraint can ask about."""
        return concerns(before, after)

    def parts_on_node(self, draft: Draft, node_id: NodeId, memory: Memory) -> Iterator[tuple[ServiceId, str]]:
        """Global jobs, and replicated ones that have tasks there."""
        for service_id in sorted(memory.owned):
            service = draft.view.service(service_id)
            if service is not None and isinstance(service.spec.mode, GlobalJob):
                yield service_id, ""
        for task in draft.view.tasks_of_node(node_id):
            if self.owns_task(task) and task.is_live:
                yield task.service_id, ""

    def plan_part(self, draft: Draft, ctx: ServiceContext, part: str) -> Look:
        """There are no parts."""
        return Look.ALL

    def plan_service(self, draft: Draft, ctx: ServiceContext, memory: Memory, request: Request) -> Memory:
        """Clear older runs, look after what runs, start what may start."""
        draft.looks -= ctx.view.count_tasks_of_service(ctx.service.id)
        _clear_older_runs(draft, ctx)
        if isinstance(ctx.spec.mode, ReplicatedJob):
            _plan_replicated(draft, ctx, ctx.spec.mode)
        else:
            _plan_global(draft, ctx)
        return memory


def current_tasks(ctx: ServiceContext) -> list[Task]:
    """The tasks of the job's current run."""
    iteration = ctx.service.job_iteration
    return [task for task in ctx.view.tasks_of_service(ctx.service.id) if task.job_iteration == iteration]


def progress_of(slot: Slot) -> Progress:
    """How far a slot is."""
    if any(task.status.state is TaskState.COMPLETE for task in slot.tasks):
        return Progress.DONE
    if any(task.is_live for task in slot.tasks):
        return Progress.ACTIVE
    newest = slot.newest
    given_up = newest is not None and newest.reason is not None and newest.reason.code is ReasonCode.NOT_RESTARTED
    return Progress.FAILED if given_up else Progress.FREE


# --- the two kinds -------------------------------------------------------------------------------------------------
def _plan_replicated(draft: Draft, ctx: ServiceContext, mode: ReplicatedJob) -> None:
    by_number: dict[int, list[Task]] = {}
    for task in current_tasks(ctx):
        by_number.setdefault(task.slot, []).append(task)
    slots = {number: slot_of(number, ctx.service.id, tasks) for number, tasks in by_number.items()}
    tally = Tally()
    for slot in slots.values():
        _count(tally, _look_after(draft, ctx, slot, may_move=True))
    room = mode.max_concurrent - tally.active
    reason = because(ReasonCode.JOB, f"one of {mode.total_completions} completions, {mode.max_concurrent} at a time")
    for number in range(mode.total_completions):
        if room <= 0:
            return
        taken = slots.get(number)
        if taken is not None and progress_of(taken) is not Progress.FREE:
            continue
        if not _start(draft, ctx, taken or slot_of(number, ctx.service.id, ()), reason):
            return
        room -= 1


def _plan_global(draft: Draft, ctx: ServiceContext) -> None:
    need = need_of(ctx.spec.task)
    on_nodes: dict[NodeId, list[Task]] = {node.id: [] for node in ctx.view.nodes()}
    for task in current_tasks(ctx):
        on_nodes.setdefault(task.node_id, []).append(task)
    for node_id, tasks in on_nodes.items():
        standing = standing_of(ctx, need, ctx.view.node(node_id))
        if not tasks and standing is not Standing.OPEN:
            continue
        slot = slot_of(0, ctx.service.id, tasks, node_id)
        if standing in (Standing.GONE, Standing.DRAINED):
            _evict(draft, ctx, slot, standing)
        elif standing in (Standing.OPEN, Standing.CLOSED):
            progress = _look_after(draft, ctx, slot, may_move=False)
            if progress is Progress.FREE and standing is Standing.OPEN:
                reason = because(ReasonCode.JOB, f"one run on every node: node {ctx.name_of(node_id)} had none")
                if not _start(draft, ctx, slot, reason):
                    return


def _evict(draft: Draft, ctx: ServiceContext, slot: Slot, standing: Standing) -> None:
    """What a drained node did not complete stops; of a node that is gone the records go too."""
    reason = eviction(ctx, standing, slot.node)
    assert reason is not None, "gone and drained nodes evict"
    if standing is Standing.GONE:
        draft.add(*(stop(task, reason, TaskState.REMOVE) for task in slot.tasks))
        return
    draft.add(*(stop(task, reason) for task in slot.live if task.status.state is not TaskState.COMPLETE))


def _clear_older_runs(draft: Draft, ctx: ServiceContext) -> None:
    reason = because(ReasonCode.JOB, "a new run of its job began")
    for task in ctx.view.tasks_of_service(ctx.service.id):
        if task.job_iteration == ctx.service.job_iteration or task.desired is TaskState.REMOVE:
            continue
        if draft.budget <= 0:
            draft.again[ctx.service.id] = None
            return
        draft.budget -= 1
        draft.add(stop(task, reason, TaskState.REMOVE))


def _start(draft: Draft, ctx: ServiceContext, slot: Slot, reason: Reason) -> bool:
    """A task for a free slot; False when this call has done enough."""
    if draft.budget <= 0:
        draft.again[ctx.service.id] = None
        return False
    draft.budget -= 1
    desired = hold_back(ctx, slot, NEVER)
    draft.add(ctx.create(slot.number, reason, node=slot.node, desired=desired))
    if desired is TaskState.READY:
        wake_when_overdue(draft, ctx, slot)
    return True


def _count(tally: Tally, progress: Progress) -> None:
    match progress:
        case Progress.ACTIVE:
            tally.active += 1
        case Progress.DONE:
            tally.done += 1
        case Progress.FAILED:
            tally.failed += 1


# --- one slot ------------------------------------------------------------------------------------------------------
def _look_after(draft: Draft, ctx: ServiceContext, slot: Slot, *, may_move: bool) -> Progress:
    """Restart, move and promote what the slot has; its progress after that."""
    progress = progress_of(slot)
    if progress is not Progress.ACTIVE:
        return progress
    if draft.budget <= 0:
        draft.again[ctx.service.id] = None
        return progress
    work = Repair()
    progress = _repair(ctx, slot, work, may_move=may_move)
    if work.changes:
        draft.budget -= 1
        draft.add(*work.changes)
    if work.wake is not None:
        draft.wake_at(ctx.service.id, work.wake)
    return progress


def _repair(ctx: ServiceContext, slot: Slot, work: Repair, *, may_move: bool) -> Progress:
    standing = [task for task in slot.live if not task.status.state.is_terminal]
    over = [task for task in slot.live if task.status.state.is_terminal]
    keeper = best_of(standing)
    for task in standing:
        if task is not keeper:
            text = f"its slot has another task, {short(keeper.id)}, which is kept" if keeper else ""
            work.changes.append(stop(task, because(ReasonCode.SURPLUS, text)))
    if keeper is None:
        return _after_end(ctx, slot, over, work)
    for task in over:
        work.changes.append(stop(task, because(ReasonCode.SURPLUS, "another task serves its slot")))
    place = ctx.place(keeper.node_id) if may_move else Place.FINE
    if place is not Place.FINE:
        return _move(ctx, slot, keeper, place, work)
    if keeper.desired is TaskState.READY:
        promote(ctx, slot, keeper, work)
    if may_move and (loss := ctx.next_loss(keeper.node_id)) is not None:
        work.wake_at(loss)
    return Progress.ACTIVE


def _after_end(ctx: ServiceContext, slot: Slot, over: list[Task], work: Repair) -> Progress:
    *others, newest = over
    for task in others:
        work.changes.append(stop(task, because(ReasonCode.SURPLUS, "another task of its slot ended after it")))
    if newest.desired is TaskState.READY and newest.start_after > ctx.now:
        work.wake_at(newest.start_after)
        return Progress.ACTIVE
    return Progress.ACTIVE if restart(ctx, slot, newest, work) else Progress.FAILED


def _move(ctx: ServiceContext, slot: Slot, task: Task, place: Place, work: Repair) -> Progress:
    """A job's task on a lost or drained node is run again elsewhere, after it has stopped if it can be reached."""
    drained = place is Place.DRAINED
    code = ReasonCode.NODE_DRAINED if drained else ReasonCode.NODE_DOWN
    where = f"node {ctx.name_of(task.node_id)} is {'being drained' if drained else 'lost'}"
    if restart_condition(ctx, task) is RestartCondition.NONE:
        return _not_moved(task, where, drained, work)
    waiting = task.desired is TaskState.READY
    start_after = task.start_after if waiting else NEVER
    desired = hold_back(ctx, slot, start_after, stopping=holds_when_stopped(ctx, task))
    new = ctx.create(
        slot.number,
        because(code, f"replaces {short(task.id)}: {where}", task),
        origin=Origin.DRAIN if drained else Origin.LOSS,
        restarts=kept_restarts(ctx, task),
        desired=desired,
        start_after=start_after,
    )
    work.changes += [stop(task, because(code, f"{where}; {short(new_id(new))} takes its place")), new]
    if desired is TaskState.READY:
        promote_later(ctx, start_after, work)
    return Progress.ACTIVE


def _not_moved(task: Task, where: str, drained: bool, work: Repair) -> Progress:
    text = f"{where}; not run again: its restart condition is none"
    change: Change
    if drained:
        change = stop(task, because(ReasonCode.NOT_RESTARTED, text))
    else:
        change = Advance(task.id, reason=because(ReasonCode.WAITING, f"{text}; waits for its node"))
        if task.reason == change.reason:
            return Progress.ACTIVE
    work.changes.append(change)
    return Progress.FAILED if drained else Progress.ACTIVE
