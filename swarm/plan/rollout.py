"""Repair and update of a service's slots in one plan: how the slot decisions become groups of changes.

Ended tasks and the update's status commit together, so that a failure is counted exactly once; so do the status and the
steps that it starts, so that a plan made for a spec that was replaced meanwhile is refused as a whole. While an update is
under way the planner remembers which slots still wait and which are not at rest, so that each step looks at those alone: an
update of 100,000 slots looks at all of them when it begins and when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import Enum

from attrs import define, evolve, field, frozen

from swarm.model.changes import Change
from swarm.model.ids import Instant
from swarm.model.objects import NEVER, Task
from swarm.plan.context import Draft, ServiceContext
from swarm.plan.keys import ALL, NEXT, part_key
from swarm.plan.orchestrator import Memory, Request, Rolling
from swarm.plan.repair import Repair, repair, steady_task
from swarm.plan.restart import old_task_timeout_s
from swarm.plan.slots import Slot, is_held, serves
from swarm.plan.update import (
    Elsewhere,
    UpdateStep,
    is_busy_step,
    is_dirty,
    is_halted,
    is_tried,
    is_under_way,
    plan_update,
    ran_at,
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
    busy: frozenset[str] = frozenset()
    """Other parts whose step is under way or in its delay."""
    ran_at_max: Instant = NEVER
    """When the newest step of an update began to run, of the slots that need nothing."""


class Need(Enum):
    """What a slot plainly needs, found out without building a `Slot`."""

    NOTHING = "nothing"
    ITS_TURN = "its turn"
    """To be replaced by an update, some time."""
    A_LOOK = "a look"


def need_of_slot(ctx: ServiceContext, tasks: Collection[Task]) -> Need:
    """The cheap test that nearly every slot passes as needing nothing, or nothing but its turn."""
    task = steady_task(ctx, tasks)
    if task is None:
        return Need.A_LOOK
    if ctx.is_clean(task):
        busy = is_under_way(ctx) and any(is_busy_step(ctx, step) for step in tasks)
        return Need.A_LOOK if busy else Need.NOTHING
    return Need.A_LOOK if is_halted(ctx) or is_tried(ctx, tasks) else Need.ITS_TURN


def may_be_updated(ctx: ServiceContext, slot: Slot) -> bool:
    """Whether an update has to replace the slot's task, now or once the slot is repaired."""
    return is_dirty(ctx, slot) and not is_tried(ctx, slot.tasks) and not is_halted(ctx)


def apply_repair(draft: Draft, slot: Slot, work: Repair) -> None:
    """Put one slot's repair into the draft as a group of its own."""
    draft.add(*work.changes)
    if work.wake is not None:
        draft.wake_at(slot.key, work.wake)


def continue_rolling(draft: Draft, ctx: ServiceContext, memory: Memory, way: Way, request: Request) -> Memory | None:
    """Go on with an update from what is remembered of it; None when the whole service has to be looked at."""
    rolling = memory.rolling.get(ctx.service.id)
    if request.full or rolling is None or rolling.version != ctx.service.version or not is_under_way(ctx):
        return None
    looked_at = (rolling.open if request.itself else rolling.later).union(request.parts)
    work = Work(waiting=rolling.waiting[rolling.position :], busy=rolling.busy - looked_at)
    work.ran_at_max = rolling.ran_at_max
    for part in sorted(looked_at, key=lambda part: (len(part), part)):
        slot = way.slot_at(ctx, part)
        if slot is None or (not slot.tasks and not serves(ctx, slot)):
            continue
        if not serves(ctx, slot):
            return None
        work.ran_at_max = max(work.ran_at_max, ran_at(slot.tasks))
        need = need_of_slot(ctx, slot.tasks)
        if need is Need.A_LOOK or (need is Need.ITS_TURN and part in rolling.open):
            work.slots.append(slot)
    step, taken = roll_forward(draft, ctx, way, work, complete=False)
    if step.done:
        return None
    return _remember(ctx, memory, work, step, taken, rolling.open - looked_at, rolling)


def roll_whole(draft: Draft, ctx: ServiceContext, memory: Memory, way: Way, work: Work) -> Memory:
    """Roll forward a service of which everything was looked at, and remember what the next step needs."""
    step, taken = roll_forward(draft, ctx, way, work, complete=True)
    return _remember(ctx, memory, work, step, taken, frozenset(), None) if is_under_way(ctx) else memory


def _remember(
    ctx: ServiceContext,
    memory: Memory,
    work: Work,
    step: UpdateStep,
    taken: int,
    others: frozenset[str],
    known: Rolling | None,
) -> Memory:
    begun = [*work.waiting[:taken], *(slot.part for slot in step.start)]
    rolling = Rolling(
        ctx.service.version,
        known.waiting if known else tuple(work.waiting),
        (known.position if known else 0) + taken,
        open=others.union([slot.part for slot in work.slots], begun),
        later=frozenset(slot.part for slot in step.later),
        busy=work.busy.union([slot.part for slot in work.slots if _is_busy(ctx, slot)], begun),
        ran_at_max=work.ran_at_max,
    )
    return evolve(memory, rolling={**memory.rolling, ctx.service.id: rolling})


def _is_busy(ctx: ServiceContext, slot: Slot) -> bool:
    return any(is_busy_step(ctx, task) for task in slot.tasks)


def roll_forward(draft: Draft, ctx: ServiceContext, way: Way, work: Work, *, complete: bool) -> tuple[UpdateStep, int]:
    """Repair the slots, then go on with the update: its step, and how many of the waiting parts were dealt with."""
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
            if under_way or may_be_updated(ctx, slot):
                draft.again[slot.key] = None
        if under_way and mend.ended:
            ended += mend.ended
            together += mend.changes
            mend.changes = []
        apply_repair(draft, slot, mend)
    if draft.budget <= 0:
        draft.add(*together)
        # What was repaired comes again by its key; the rest waits for its look.
        return UpdateStep(later=[slot for slot in work.slots if slot.key not in touched]), 0
    elsewhere = Elsewhere(len(work.waiting), len(work.busy), work.ran_at_max)
    step = plan_update(ctx, work.slots, ended, touched, way.author, elsewhere=elsewhere, complete=complete)
    together += step.changes
    started = _start(draft, ctx, way, step, work.waiting, together)
    draft.add(*together)
    return step, started


def _rest(ctx: ServiceContext, complete: bool) -> str:
    """The key under which what the budget left over is planned."""
    return part_key(ctx.service.id, ALL) if complete else ctx.service.id


def _start(
    draft: Draft, ctx: ServiceContext, way: Way, step: UpdateStep, waiting: Sequence[str], changes: list[Change]
) -> int:
    """Replace the slots that the update starts now; returns how many of the waiting ones were dealt with."""
    if step.wake is not None:
        draft.wake_at(ctx.service.id, step.wake)
    for key, instant in step.delays.items():
        draft.wake_at(key, instant)
    for slot in step.start:
        _replace(draft, ctx, slot, changes)
    taken = started = 0
    while started < step.more and taken < len(waiting):
        if draft.budget <= 0:
            draft.again[part_key(ctx.service.id, NEXT)] = None  # not the service: a look at all that is being replaced
            break
        part = waiting[taken]
        next_slot = way.slot_at(ctx, part)
        taken += 1
        if next_slot is not None and need_of_slot(ctx, next_slot.tasks) is Need.ITS_TURN:
            _replace(draft, ctx, next_slot, changes)
            started += 1
        else:
            # Somebody else dealt with it, and nothing may happen to it any more: it must not hold a place as begun.
            draft.budget -= 1
            draft.again[part_key(ctx.service.id, part)] = None
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
