"""What one slot needs to serve again: the decisions that depend on nothing but the slot.

Level-triggered and the same from any leader, since all that it reads is in the task records. In order: tasks that ended
are restarted or given up; tasks on drained and lost nodes are replaced first and stopped once the replacement runs;
of several tasks that could serve one is kept; a task that was created READY is promoted when its delay has passed and what
it replaces has stopped. It never starts a second task beside one that it told to stop, unless that one is overdue or lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from swarm.model.changes import Advance, Change, Create
from swarm.model.ids import Instant
from swarm.model.objects import NEVER, Task
from swarm.model.reasons import ReasonCode
from swarm.model.states import Origin, RestartCondition, TaskState
from swarm.plan.context import Place, ServiceContext, because, short
from swarm.plan.restart import Verdict, end_text, judge, old_task_timeout_s, restarts_after
from swarm.plan.slots import Slot, holds_when_stopped, is_held, stop


@define
class Repair:
    """What is to be done for one slot; `ended` are the tasks whose end was dealt with here."""

    changes: list[Change] = field(factory=list)
    wake: Instant | None = None
    ended: list[Task] = field(factory=list)

    def wake_at(self, instant: Instant) -> None:
        """Look at the slot again then, or earlier."""
        self.wake = instant if self.wake is None else min(self.wake, instant)


def steady_task(ctx: ServiceContext, tasks: Iterable[Task]) -> Task | None:
    """The only live task of a slot that plainly needs no repair, else None: the cheap test that nearly every slot passes."""
    only: Task | None = None
    for task in tasks:
        if task.desired <= TaskState.COMPLETE:
            if only is not None:
                return None
            only = task
    if only is None or only.desired is not TaskState.RUNNING or only.status.state > TaskState.RUNNING:
        return None
    if only.reason is not None and only.reason.code is ReasonCode.WAITING:
        return None
    return only if ctx.is_well(only.node_id) else None


def is_quiet(ctx: ServiceContext, tasks: Iterable[Task]) -> bool:
    """Whether a slot's tasks plainly need nothing, no update either."""
    task = steady_task(ctx, tasks)
    return task is not None and ctx.is_clean(task)


def repair(ctx: ServiceContext, slot: Slot, *, may_move: bool = True) -> Repair:
    """What the slot needs now. `may_move` False (global kinds): no task is replaced because of its node."""
    work = Repair()
    live = slot.live
    if not live:
        return work
    over = [task for task in live if task.status.state.is_terminal]
    standing = [task for task in live if not task.status.state.is_terminal]
    moving = [task for task in standing if may_move and ctx.place(task.node_id) is not Place.FINE]
    good = [task for task in standing if task not in moving]
    replaced = _replace_ended(ctx, slot, over, good, work)
    if moving:
        _replace_moving(ctx, slot, moving, good, replaced, work)
    for keeper in _drop_surplus(ctx, good, work):
        if keeper.desired is TaskState.READY:
            promote(ctx, slot, keeper, work)
        if may_move and (loss := ctx.next_loss(keeper.node_id)) is not None:
            work.wake_at(loss)
        if keeper.reason is not None and keeper.reason.code is ReasonCode.WAITING:
            work.changes.append(
                Advance(keeper.id, reason=because(ReasonCode.PLACED, "its node is back and it still runs"))
            )
    return work


def hold_back(ctx: ServiceContext, slot: Slot, start_after: Instant, stopping: bool = False) -> TaskState:
    """Desired state of a task that is created in the slot now: READY while it has to wait for time or for another."""
    held = stopping or any(is_held(ctx, task) for task in (*slot.tasks, *slot.leaving))
    return TaskState.READY if held or start_after > ctx.now else ctx.goal


# --- tasks that ended ----------------------------------------------------------------------------------------------
def _replace_ended(ctx: ServiceContext, slot: Slot, over: list[Task], good: list[Task], work: Repair) -> bool:
    """Deal with ended tasks; True when the slot gets, or already waits for, a replacement."""
    fresh = any(ctx.is_clean(task) for task in good)
    replaced = False
    for task in reversed(over):
        if fresh or replaced or (good and not ctx.is_clean(task)):
            work.changes.append(
                stop(task, because(ReasonCode.SURPLUS, f"{end_text(task)}; another task serves its slot"))
            )
            work.ended.append(task)
            continue
        if task.desired is TaskState.READY and task.start_after > ctx.now:
            work.wake_at(task.start_after)  # it failed before it was even to start: no fast loop
            replaced = True
            continue
        replaced = restart(ctx, slot, task, work)
        work.ended.append(task)
    return replaced


def restart(ctx: ServiceContext, slot: Slot, task: Task, work: Repair) -> bool:
    """Replace a task that ended, or give its slot up; True when it is replaced."""
    spec = ctx.view.spec_of(task) or ctx.spec
    lost = task.status.state is TaskState.ORPHANED
    verdict = judge_end(ctx, slot, task)
    how = end_text(task)
    if not verdict.restart:
        text = f"{how} and is not restarted: {verdict.text}"
        work.changes.append(stop(task, because(ReasonCode.NOT_RESTARTED, text)))
        return False
    delay_s = 0.0 if lost or ctx.place(task.node_id) is Place.DRAINED else max(0.0, spec.task.restart.delay_s)
    start_after = Instant(ctx.now + delay_s) if delay_s else NEVER
    code = ReasonCode.NODE_DOWN if lost else ReasonCode.RESTARTED
    text = f"replaces {short(task.id)}, which {how}"
    text += f"; starts after {delay_s:g} s" if delay_s else ""
    text += f"; {verdict.text}" if verdict.text else ""
    desired = hold_back(ctx, slot, start_after)
    new = ctx.create(
        slot.number,
        because(code, text, task),
        node=slot.node,
        origin=Origin.LOSS if lost else Origin.RESTART,
        restarts=kept_restarts(ctx, task) if lost else restarts_after(task, ctx.service.revision),
        desired=desired,
        start_after=start_after,
    )
    work.changes += [stop(task, because(ReasonCode.RESTARTED, f"{how}; {short(new_id(new))} replaces it")), new]
    if desired is TaskState.READY:
        promote_later(ctx, start_after, work)
    return True


def judge_end(ctx: ServiceContext, slot: Slot, task: Task) -> Verdict:
    """The verdict on an ended task; one lost with its node is replaced unless its condition is none, and never counts."""
    spec = ctx.view.spec_of(task) or ctx.spec
    if task.status.state is TaskState.ORPHANED and spec.task.restart.condition is not RestartCondition.NONE:
        return Verdict(True)
    return judge(task, spec.task.restart, slot.tasks, ctx.service.revision, job=ctx.is_job)


def restart_condition(ctx: ServiceContext, task: Task) -> RestartCondition:
    """Under which the task runs: its own spec's."""
    return (ctx.view.spec_of(task) or ctx.spec).task.restart.condition


def new_id(create: Create) -> str:
    """The id of the task that a creation makes."""
    return create.object.id


def kept_restarts(ctx: ServiceContext, task: Task) -> int:
    """The restart count that a moved task's successor goes on with."""
    return task.restarts if task.revision == ctx.service.revision else 0


# --- tasks on nodes that are drained or lost -----------------------------------------------------------------------
def _replace_moving(
    ctx: ServiceContext, slot: Slot, moving: list[Task], good: list[Task], replaced: bool, work: Repair
) -> None:
    """Replace first, stop once the replacement runs; a node that comes back before that keeps its task.

    A task of an older spec that runs elsewhere is no replacement for one of this spec, as with tasks that ended: an update tries
    a slot once, so that dropping its step here would leave the slot behind for good.
    """
    fresh = [task for task in good if ctx.is_clean(task)]
    for task in reversed(moving):
        able = fresh if ctx.is_clean(task) else good
        running = any(one.status.state is TaskState.RUNNING for one in able)
        drained = ctx.place(task.node_id) is Place.DRAINED
        where = f"node {ctx.name_of(task.node_id)} is {'being drained' if drained else 'lost'}"
        code = ReasonCode.NODE_DRAINED if drained else ReasonCode.NODE_DOWN
        if running or (able and task.status.state < TaskState.RUNNING):
            work.changes.append(stop(task, because(code, f"{where}; {short(able[-1].id)} serves its slot")))
        elif able or replaced:
            _tell_waiting(task, where, able[-1] if able else None, work)
        elif restart_condition(ctx, task) is RestartCondition.NONE:
            _give_up_moving(task, where, drained, work)
        else:
            _move(ctx, slot, task, where, drained, work)
            replaced = True


def _move(ctx: ServiceContext, slot: Slot, task: Task, where: str, drained: bool, work: Repair) -> None:
    """One that runs goes on until its replacement does; one that does not run yet is stopped at once."""
    code = ReasonCode.NODE_DRAINED if drained else ReasonCode.NODE_DOWN
    unstarted = task.status.state < TaskState.RUNNING
    start_after = task.start_after if task.desired is TaskState.READY else NEVER
    desired = hold_back(ctx, slot, start_after, stopping=unstarted and holds_when_stopped(ctx, task))
    new = ctx.create(
        slot.number,
        because(code, f"replaces {short(task.id)}: {where}", task),
        node=slot.node,
        origin=Origin.DRAIN if drained else Origin.LOSS,
        restarts=kept_restarts(ctx, task),
        desired=desired,
        start_after=start_after,
    )
    work.changes.append(new)
    if unstarted:
        work.changes.append(stop(task, because(code, f"{where}; {short(new_id(new))} takes its place")))
    if desired is TaskState.READY:
        promote_later(ctx, start_after, work)


def _give_up_moving(task: Task, where: str, drained: bool, work: Repair) -> None:
    """Restart condition none: a drained task stops unreplaced; a lost one is left, its node may come back with it."""
    if drained:
        text = f"{where}; not replaced: its restart condition is none"
        work.changes.append(stop(task, because(ReasonCode.NOT_RESTARTED, text)))
        return
    reason = because(ReasonCode.WAITING, f"{where}; not replaced: its restart condition is none; waits for its node")
    if task.reason != reason:
        work.changes.append(Advance(task.id, reason=reason))


def _tell_waiting(task: Task, where: str, replacement: Task | None, work: Repair) -> None:
    """Say on the old task why it still runs when its replacement cannot be placed."""
    if replacement is None or replacement.status.state >= TaskState.ASSIGNED or not replacement.status.error:
        return
    text = f"{where}; keeps running: {short(replacement.id)} cannot be placed: {replacement.status.error}"
    reason = because(ReasonCode.WAITING, text)
    if task.reason != reason:
        work.changes.append(Advance(task.id, reason=reason))


# --- several tasks that could serve --------------------------------------------------------------------------------
def _drop_surplus(ctx: ServiceContext, good: list[Task], work: Repair) -> list[Task]:
    """Keep one clean task, and one dirty one as long as the clean one does not run; the kept ones are returned."""
    if len(good) < 2:
        return good
    fresh = [task for task in good if ctx.is_clean(task)]
    stale = [task for task in good if task not in fresh]
    keepers: list[Task] = []
    best = best_of(fresh)
    if best is not None:
        keepers.append(best)
        work.changes += [_surplus(task, best) for task in fresh if task is not best]
    if best is not None and best.status.state is TaskState.RUNNING:
        code, word = (ReasonCode.ROLLED_BACK, "rolled back") if ctx.rolling_back else (ReasonCode.UPDATED, "updated")
        work.changes += [stop(task, because(code, f"{word}: {short(best.id)} runs in its slot")) for task in stale]
    elif (old := best_of(stale)) is not None:
        keepers.append(old)
        work.changes += [_surplus(task, old) for task in stale if task is not old]
    return keepers


def _surplus(task: Task, kept: Task) -> Advance:
    return stop(task, because(ReasonCode.SURPLUS, f"its slot has another task, {short(kept.id)}, which is kept"))


def best_of(tasks: list[Task]) -> Task | None:
    """Which of several equals is kept: the newest that runs; if none runs, the one that came furthest."""
    if not tasks:
        return None
    ranked = [
        (task.status.state is TaskState.RUNNING, task.desired >= TaskState.RUNNING, _progress(task), position)
        for position, task in enumerate(tasks)
    ]
    return tasks[max(ranked)[-1]]


def _progress(task: Task) -> int:
    return 0 if task.status.state is TaskState.RUNNING else task.status.state


# --- promotion -----------------------------------------------------------------------------------------------------
def promote(ctx: ServiceContext, slot: Slot, task: Task, work: Repair) -> None:
    """Let a READY task start when its delay has passed and its predecessors have stopped, else say when to look again."""
    if task.start_after > ctx.now:
        work.wake_at(task.start_after)
        return
    overdue_at = NEVER
    for other in (*slot.tasks, *slot.leaving):
        if is_held(ctx, other):
            limit = Instant(task.created_at + old_task_timeout_s(ctx.view.spec_of(other)))
            overdue_at = max(overdue_at, limit)
            if (loss := ctx.next_loss(other.node_id)) is not None:
                work.wake_at(loss)
    if overdue_at > ctx.now:
        work.wake_at(overdue_at)
        return
    work.changes.append(Advance(task.id, desired=ctx.goal))


def promote_later(ctx: ServiceContext, start_after: Instant, work: Repair) -> None:
    """The wake of a task that this very plan creates READY: its own commit is nobody's event."""
    work.wake_at(start_after if start_after > ctx.now else Instant(ctx.now + old_task_timeout_s(ctx.spec)))
