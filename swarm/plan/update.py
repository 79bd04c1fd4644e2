"""Rolling updates and rollbacks: which slots are replaced now, and how the update stands. Pure; the orchestrators call it.

Everything that an update is lives in the store: the service's `update_status` (state, slots to replace, failures so far), the
dirty slots, and the tasks that it created (`origin` UPDATE). A slot's *step* is its newest such task: it is under way
until that task runs or ends, then for `delay_s` more. So a new leader
continues an update, with its failures, instead of starting over.
A slot is tried once per revision: what became of its step afterwards is the restart policy's business.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, evolve, field, frozen

from swarm.model.changes import Change, Create, Group, Update
from swarm.model.ids import Instant, RevisionNumber
from swarm.model.objects import NEVER, Revision, Task, UpdateStatus
from swarm.model.reasons import ReasonCode
from swarm.model.specs import UpdateConfig
from swarm.model.states import FailureAction, Origin, TaskState, UpdateOrder, UpdateState
from swarm.plan.context import ServiceContext, because, short
from swarm.plan.repair import best_of, hold_back, new_id
from swarm.plan.restart import end_text, ended_at, old_task_timeout_s
from swarm.plan.slots import Slot, finished_task, holds_when_stopped, stop

DEFAULT_CONFIG = UpdateConfig()
UNDER_WAY = (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
HALTED = (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)
_FAILURES = (TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED, TaskState.SHUTDOWN)
"""Ends that count against an update; a task that was lost with its node does not."""


@define
class UpdateStep:
    """What an update wants now: slots to replace, in order, and changes of the service that commit with them."""

    start: list[Slot] = field(factory=list)
    later: list[Slot] = field(factory=list)
    """Slots whose turn has not come."""
    more: int = 0
    """How many of the waiting slots follow after `start`."""
    done: bool = False
    """Nothing is left to do: the caller looks at the whole service and asks again, with `complete`."""
    changes: list[Change] = field(factory=list)
    wake: Instant | None = None
    """The end of the monitoring."""
    delays: dict[str, Instant] = field(factory=dict)
    """Slot keys whose step's delay ends then."""


@frozen
class Elsewhere:
    """What is known of the slots that were not looked at."""

    waiting: int = 0
    """Dirty and otherwise steady."""
    busy: int = 0
    """Steps under way, or in their delay."""
    ran_at_max: Instant = NEVER
    """When the newest step began to run."""


NOWHERE_ELSE = Elsewhere()


@frozen
class _Census:
    """Where the slots stand."""

    pending: tuple[Slot, ...]
    """Dirty and not tried yet under this revision, of the slots that were looked at."""
    busy: int
    ran_at_max: Instant


def is_under_way(ctx: ServiceContext) -> bool:
    """Whether an update or rollback is running."""
    status = ctx.service.update_status
    return status is not None and status.state in UNDER_WAY


def is_halted(ctx: ServiceContext) -> bool:
    """Whether an update or rollback is paused: nothing is replaced until the user decides."""
    status = ctx.service.update_status
    return status is not None and status.state in HALTED


def config_of(ctx: ServiceContext) -> UpdateConfig:
    """The settings that apply now."""
    return (ctx.spec.rollback if ctx.rolling_back else ctx.spec.update) or DEFAULT_CONFIG


def is_busy_step(ctx: ServiceContext, task: Task) -> bool:
    """Whether the task is a step of the update that takes a place within its parallelism: under way, or in its delay."""
    if task.origin is not Origin.UPDATE:
        return False
    if task.is_live and task.status.state < TaskState.RUNNING:
        return True
    return ended_at(task) + config_of(ctx).delay_s > ctx.now and ctx.is_clean(task)


def ran_at(tasks: Iterable[Task]) -> Instant:
    """When the newest step of an update among these tasks began to run; NEVER when none runs."""
    return max(
        (ended_at(task) for task in tasks if task.origin is Origin.UPDATE and task.status.state is TaskState.RUNNING),
        default=NEVER,
    )


def is_dirty(ctx: ServiceContext, slot: Slot) -> bool:
    """Whether nothing in the slot is what the spec asks for."""
    standing = [task for task in slot.tasks if task.is_live]
    if standing:
        return not any(ctx.is_clean(task) for task in standing)
    finished = finished_task(ctx, slot)
    return finished is not None and not ctx.is_clean(finished)


def plan_update(
    ctx: ServiceContext,
    slots: list[Slot],
    ended: list[Task],
    touched: set[str],
    author: str,
    *,
    elsewhere: Elsewhere = NOWHERE_ELSE,
    complete: bool = True,
) -> UpdateStep:
    """The next step over the slots that may need something, given what is known of the others.

    `ended` are tasks whose end is being dealt with in this plan, `touched` the keys of slots that it changes already.
    Without `complete` an update is not declared complete: the slots may not be all.
    """
    step = UpdateStep()
    status = ctx.service.update_status or UpdateStatus()
    if status.state in HALTED:
        return step
    under_way = status.state in UNDER_WAY
    config = config_of(ctx)
    census = _take(ctx, slots, touched, config, under_way, step)
    busy = census.busy + elsewhere.busy
    dirty = len(census.pending) + elsewhere.waiting
    if not under_way and not dirty:
        return step
    after = status if under_way else _begun(ctx, dirty)
    if after.total == 0 and dirty:
        after = evolve(after, total=dirty)
    failures = _failures(ctx, ended, config) if under_way else []
    if failures:
        after = evolve(after, failed=after.failed + len(failures))
        if after.failed / max(after.total, 1) > config.max_failure_ratio:
            step.changes += _react(ctx, after, failures[0], config.failure_action, author)
            return step
    room = dirty if config.parallelism == 0 else max(0, config.parallelism - busy)
    step.start = list(census.pending[:room])
    step.later = list(census.pending[room:])
    step.more = min(elsewhere.waiting, room - len(step.start))
    if not dirty and not busy and not touched:
        monitored_s = 0.0 if config.failure_action is FailureAction.CONTINUE else config.monitor_s
        monitored_until = Instant(max(census.ran_at_max, elsewhere.ran_at_max) + monitored_s)
        if monitored_until > ctx.now:
            step.wake = monitored_until
        elif complete:
            after = _completed(ctx, after)
        else:
            step.done = True
    if after != status:
        step.changes.append(Update(evolve(ctx.service, update_status=after, updated_at=ctx.now)))
    return step


def replace_slot(ctx: ServiceContext, slot: Slot) -> tuple[list[Change], Instant | None]:
    """A new task for a dirty slot in the order that the spec asks for, and when to look at the slot again."""
    live = [task for task in slot.live if not task.status.state.is_terminal]
    best = best_of(live)
    kept = best if best is not None and best.status.state is TaskState.RUNNING else None
    if config_of(ctx).order is UpdateOrder.STOP_FIRST:
        kept = None
    leaving = [task for task in slot.live if task is not kept]
    stopping = any(holds_when_stopped(ctx, task) for task in leaving)
    code, word = (ReasonCode.ROLLED_BACK, "rollback") if ctx.rolling_back else (ReasonCode.UPDATED, "update")
    old = slot.newest
    text = f"{word} to revision {ctx.service.revision}" + (f": replaces {short(old.id)}" if old else "")
    new = ctx.create(
        slot.number,
        because(code, text, old),
        node=slot.node,
        origin=Origin.UPDATE,
        desired=hold_back(ctx, slot, NEVER, stopping=stopping),
    )
    why = because(code, f"{word} to revision {ctx.service.revision}: {short(new_id(new))} replaces it")
    changes: list[Change] = [stop(task, why) for task in leaving]
    changes.append(new)
    overdue = [ctx.now + old_task_timeout_s(ctx.view.spec_of(task)) for task in (*leaving, *slot.tasks, *slot.leaving)]
    waits = new.object.desired is TaskState.READY  # type: ignore[union-attr]  # a Create made by ctx.create holds a Task
    return changes, Instant(max(overdue)) if waits and overdue else None


# --- where it stands -----------------------------------------------------------------------------------------------
def _take(
    ctx: ServiceContext, slots: list[Slot], touched: set[str], config: UpdateConfig, under_way: bool, step: UpdateStep
) -> _Census:
    pending: list[Slot] = []
    busy = 0
    ran_at_max = NEVER
    for slot in slots:
        latest = _step_of(ctx, slot)
        if latest is not None:
            if latest.is_live and latest.status.state < TaskState.RUNNING:
                busy += 1
                continue
            since = ended_at(latest)
            if under_way and since + config.delay_s > ctx.now:
                busy += 1
                step.delays[slot.key] = Instant(since + config.delay_s)
            ran_at_max = max(ran_at_max, ran_at((latest,)))
        if slot.key not in touched and is_dirty(ctx, slot) and not is_tried(ctx, slot.tasks):
            pending.append(slot)
    return _Census(tuple(pending), busy, ran_at_max)


def _step_of(ctx: ServiceContext, slot: Slot) -> Task | None:
    """The slot's newest task that an update made and that is still what the spec asks for."""
    for task in reversed(slot.tasks):
        if task.origin is Origin.UPDATE and ctx.is_clean(task):
            return task
    return None


def is_tried(ctx: ServiceContext, tasks: Iterable[Task]) -> bool:
    """Whether an update to this very revision has replaced the slot's task before."""
    return any(task.origin is Origin.UPDATE and task.revision == ctx.service.revision for task in tasks)


def _failures(ctx: ServiceContext, ended: list[Task], config: UpdateConfig) -> list[Task]:
    """Steps that ended before they ran for `monitor_s`; each is dealt with, and so counted, once."""
    if config.failure_action is FailureAction.CONTINUE:
        return []
    return [
        task
        for task in ended
        if task.origin is Origin.UPDATE
        and ctx.is_clean(task)
        and task.status.state in _FAILURES
        and (not task.status.running_at or ended_at(task) - task.status.running_at <= config.monitor_s)
    ]


# --- transitions of the status -------------------------------------------------------------------------------------
def _begun(ctx: ServiceContext, total: int) -> UpdateStatus:
    return UpdateStatus(UpdateState.UPDATING, started_at=ctx.now, message="update in progress", total=total)


def _completed(ctx: ServiceContext, status: UpdateStatus) -> UpdateStatus:
    back = status.state is UpdateState.ROLLBACK_STARTED
    return evolve(
        status,
        state=UpdateState.ROLLBACK_COMPLETED if back else UpdateState.COMPLETED,
        completed_at=ctx.now,
        message=f"{'rollback' if back else 'update'} completed",
    )


def _react(ctx: ServiceContext, status: UpdateStatus, culprit: Task, action: FailureAction, author: str) -> Group:
    """Too many failures: pause, or go back. Never roll back a rollback."""
    back = status.state is UpdateState.ROLLBACK_STARTED
    what = f"task {short(culprit.id)} {end_text(culprit)}"
    if action is FailureAction.ROLLBACK and not back:
        previous = ctx.service.previous
        target = ctx.view.revision(ctx.service.id, previous) if previous is not None else None
        if target is not None:
            return _roll_back(ctx, target, what, author)
        what += "; there is no earlier revision to return to"
    paused = evolve(
        status,
        state=UpdateState.ROLLBACK_PAUSED if back else UpdateState.PAUSED,
        message=f"{'rollback' if back else 'update'} paused: {what}",
    )
    return (Update(evolve(ctx.service, update_status=paused, updated_at=ctx.now)),)


def _roll_back(ctx: ServiceContext, target: Revision, what: str, author: str) -> Group:
    """Go back to an earlier revision's spec, as a new revision; the failed one is not kept as the previous one."""
    newest = max((revision.number for revision in ctx.view.revisions_of(ctx.service.id)), default=ctx.service.revision)
    number = RevisionNumber(max(newest, ctx.service.revision) + 1)
    status = UpdateStatus(UpdateState.ROLLBACK_STARTED, started_at=ctx.now, message=f"rolled back: {what}")
    revision = Revision(
        ctx.service.id,
        number,
        target.spec,
        created_at=ctx.now,
        author=author,
        note=f"automatic rollback to revision {target.number}: {what}",
    )
    service = evolve(
        ctx.service, spec=target.spec, revision=number, previous=None, update_status=status, updated_at=ctx.now
    )
    return (Create(revision), Update(service))
