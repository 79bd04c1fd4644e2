"""Repair and update of a service's slots in one plan: how the slot decisions become groups of changes.

Ended tasks and the update's status commit together, so that a failure is counted exactly once; so do the status and the
steps that it starts, so that a plan made for a spec that was replaced meanwhile is refused as a whole.
"""

from __future__ import annotations

from swarm.model.changes import Change
from swarm.model.ids import Instant
from swarm.model.objects import Task
from swarm.plan.context import Draft, ServiceContext
from swarm.plan.repair import Repair, repair
from swarm.plan.restart import old_task_timeout_s
from swarm.plan.slots import Slot, is_held
from swarm.plan.update import is_under_way, plan_update, replace_slot


def apply_repair(draft: Draft, slot: Slot, work: Repair) -> None:
    """Put one slot's repair into the draft as a group of its own."""
    draft.add(*work.changes)
    if work.wake is not None:
        draft.wake_at(slot.key, work.wake)


def roll_forward(draft: Draft, ctx: ServiceContext, slots: list[Slot], author: str, *, may_move: bool = True) -> None:
    """Repair these slots, then go on with the update; `slots` are all serving ones that may need something."""
    under_way = is_under_way(ctx)
    touched: set[str] = set()
    ended: list[Task] = []
    together: list[Change] = []
    for slot in slots:
        if draft.budget <= 0:
            draft.again[ctx.service.id] = None
            break
        work = repair(ctx, slot, may_move=may_move)
        if work.changes:
            draft.budget -= 1
            touched.add(slot.key)
        if under_way and work.ended:
            ended += work.ended
            together += work.changes
            work.changes = []
        apply_repair(draft, slot, work)
    if touched and under_way:
        draft.again[ctx.service.id] = None
    if draft.budget > 0:
        together += _update(draft, ctx, slots, ended, touched, author)
    draft.add(*together)


def _update(
    draft: Draft, ctx: ServiceContext, slots: list[Slot], ended: list[Task], touched: set[str], author: str
) -> list[Change]:
    step = plan_update(ctx, slots, ended, touched, author)
    if step.wake is not None:
        draft.wake_at(ctx.service.id, step.wake)
    changes = step.changes
    for slot in step.start:
        if draft.budget <= 0:
            draft.again[ctx.service.id] = None
            break
        draft.budget -= 1
        replaced, wake = replace_slot(ctx, slot)
        changes += replaced
        if wake is not None:
            draft.wake_at(slot.key, wake)
    return changes


def wake_when_overdue(draft: Draft, ctx: ServiceContext, slot: Slot) -> None:
    """Look at a slot again when those that it waits for have had their time."""
    held = [task for task in (*slot.tasks, *slot.leaving) if is_held(ctx, task)]
    longest_s = max((old_task_timeout_s(ctx.view.spec_of(task)) for task in held), default=0.0)
    draft.wake_at(slot.key, Instant(ctx.now + longest_s))
