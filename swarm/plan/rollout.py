"""Repair and update of a service's slots in one plan: how the slot decisions become groups of changes.

Ended tasks and the update's status commit together, so that a failure is counted exactly once; so do the status and the
steps that it starts, so that a plan made for a spec that was replaced meanwhile is refused as a whole. While an update is
under way the planner remembers which slots still wait and which are not at rest, so that each step looks at those alone: an
update of 100,000 slots looks at all of them when it begins and when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from attrs import define, evolve, field, frozen

from swarm.model.changes import Change
from swarm.model.ids import Instant
from swarm.model.objects import Task
from swarm.plan.context import Draft, ServiceContext
from swarm.plan.keys import ALL, part_key
from swarm.plan.orchestrator import Memory, Rolling
from swarm.plan.repair import Repair, is_quiet, repair, steady_task
from swarm.plan.restart import old_task_timeout_s
from swarm.plan.slots import Slot, is_held, serves
from swarm.plan.update import (
    UpdateStep,
    is_dirty,
    is_halted,
    is_recent_step,
    is_tried,
    is_under_way,
    plan_update,
    replace_slot,
)


@frozen
class Way:
    """How a kind of service is rolled forward."""

    author: str
    """The planner's name."""
    may_move: bool
    """Whether tasks are replaced because of their node."""
    slot_at: Callable[[ServiceContext, str], Slot | None]
    """The slot of a part, with all of its tasks; None for a part that is not to be repaired or updated."""


@define
class Work:
    """Slots that may need something, and parts that wait for an update and need nothing else, in order."""

    slots: list[Slot] = field(factory=list)
    waiting: Sequence[str] = ()


def is_settled(ctx: ServiceContext, tasks: Collection[Task]) -> bool:
    """Whether a slot needs nothing, and no update that is under way has to look at it."""
    if not is_quiet(ctx, tasks):
        return False
    return not is_under_way(ctx) or not any(is_recent_step(ctx, task) for task in tasks)


def only_waits(ctx: ServiceContext, tasks: Collection[Task]) -> bool:
    """Whether all that a slot needs is its turn in an update."""
    task = steady_task(ctx, tasks)
    return task is not None and not ctx.is_clean(task) and not is_tried(ctx, tasks) and not is_halted(ctx)


def may_be_updated(ctx: ServiceContext, slot: Slot) -> bool:
    """Whether an update has to replace the slot's task, now or once the slot is repaired."""
    return is_dirty(ctx, slot) and not is_tried(ctx, slot.tasks) and not is_halted(ctx)


def apply_repair(draft: Draft, slot: Slot, work: Repair) -> None:
    """Put one slot's repair into the draft as a group of its own."""
    draft.add(*work.changes)
    if work.wake is not None:
        draft.wake_at(slot.key, work.wake)


def continue_rolling(
    draft: Draft, ctx: ServiceContext, memory: Memory, way: Way, parts: Collection[str]
) -> Memory | None:
    """Go on with an update from what is remembered of it; None when the whole service has to be looked at."""
    rolling = memory.rolling.get(ctx.service.id)
    if rolling is None or rolling.version != ctx.service.version or not is_under_way(ctx):
        return None
    slots: list[Slot] = []
    for part in sorted(rolling.open.union(parts), key=lambda part: (len(part), part)):
        slot = way.slot_at(ctx, part)
        if slot is None:
            continue
        if not serves(ctx, slot):
            if slot.tasks:
                return None
            continue
        if not (is_settled(ctx, slot.tasks) or (only_waits(ctx, slot.tasks) and part not in rolling.open)):
            slots.append(slot)
    waiting = rolling.waiting[rolling.position :]
    started, done = roll_forward(draft, ctx, way, Work(slots, waiting), complete=False)
    if done:
        return None
    left = evolve(rolling, position=rolling.position + started, open=_open(slots, waiting[:started]))
    return evolve(memory, rolling={**memory.rolling, ctx.service.id: left})


def roll_whole(draft: Draft, ctx: ServiceContext, memory: Memory, way: Way, work: Work) -> Memory:
    """Roll forward a service of which everything was looked at, and remember what the next step needs."""
    started, _ = roll_forward(draft, ctx, way, work, complete=True)
    if not is_under_way(ctx):
        return memory
    rolling = Rolling(ctx.service.version, tuple(work.waiting), started, _open(work.slots, work.waiting[:started]))
    return evolve(memory, rolling={**memory.rolling, ctx.service.id: rolling})


def _open(slots: Collection[Slot], started: Sequence[str]) -> frozenset[str]:
    return frozenset([slot.part for slot in slots]).union(started)


def roll_forward(draft: Draft, ctx: ServiceContext, way: Way, work: Work, *, complete: bool) -> tuple[int, bool]:
    """Repair the slots, then go on with the update: how many waiting parts were started, and whether it seems done."""
    under_way = is_under_way(ctx)
    touched: set[str] = set()
    ended: list[Task] = []
    together: list[Change] = []
    for slot in work.slots:
        if draft.budget <= 0:
            draft.again[_rest(ctx, complete)] = None
            break
        mend = repair(ctx, slot, may_move=way.may_move)
        if mend.changes:
            draft.budget -= 1
            touched.add(slot.key)
        if under_way and mend.ended:
            ended += mend.ended
            together += mend.changes
            mend.changes = []
        apply_repair(draft, slot, mend)
    if (under_way and touched) or any(slot.key in touched and may_be_updated(ctx, slot) for slot in work.slots):
        draft.again[ctx.service.id] = None
    if draft.budget <= 0:
        draft.add(*together)
        return 0, False
    waiting = len(work.waiting)
    step = plan_update(ctx, work.slots, ended, touched, way.author, waiting=waiting, complete=complete)
    together += step.changes
    started = _start(draft, ctx, way, step, work.waiting, together)
    draft.add(*together)
    return started, step.done


def _rest(ctx: ServiceContext, complete: bool) -> str:
    """The key under which what the budget left over is planned."""
    return part_key(ctx.service.id, ALL) if complete else ctx.service.id


def _start(
    draft: Draft, ctx: ServiceContext, way: Way, step: UpdateStep, waiting: Sequence[str], changes: list[Change]
) -> int:
    """Replace the slots that the update starts now; returns how many of the waiting ones were dealt with."""
    if step.wake is not None:
        draft.wake_at(ctx.service.id, step.wake)
    for slot in step.start:
        _replace(draft, ctx, slot, changes)
    taken = started = 0
    while started < step.more and taken < len(waiting):
        if draft.budget <= 0:
            draft.again[ctx.service.id] = None
            break
        next_slot = way.slot_at(ctx, waiting[taken])
        taken += 1
        if next_slot is not None and only_waits(ctx, next_slot.tasks):
            _replace(draft, ctx, next_slot, changes)
            started += 1
    if taken > started:
        draft.again[ctx.service.id] = None  # somebody else dealt with those: there may be room for the next ones
    return taken


def _replace(draft: Draft, ctx: ServiceContext, slot: Slot, changes: list[Change]) -> None:
    draft.budget -= 1
    replaced, wake = replace_slot(ctx, slot)
    changes += replaced
    if wake is not None:
        draft.wake_at(slot.key, wake)


def wake_when_overdue(draft: Draft, ctx: ServiceContext, slot: Slot) -> None:
    """Look at a slot again when those that it waits for have had their time."""
    held = [task for task in (*slot.tasks, *slot.leaving) if is_held(ctx, task)]
    longest_s = max((old_task_timeout_s(ctx.view.spec_of(task)) for task in held), default=0.0)
    draft.wake_at(slot.key, Instant(ctx.now + longest_s))
