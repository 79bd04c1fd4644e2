"""Replicated services: a number of slots, each with one task, wherever the scheduler puts them.

One planner owns a service's slots: scaling, repair, restarts, updates and rollbacks are decided here, in this order, so that
no two deciders race for a slot. A change of one task plans one slot; the whole service is looked at when its declaration
changed, when a record vanished, or while an update is under way. The planner never deletes a record and never lets a
new task start in a slot where another was told to stop and may still run: that is the task reaper's and the repair's rule.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, evolve, field

from swarm.model.changes import Change
from swarm.model.ids import Slot as Number
from swarm.model.objects import NEVER, Service, Task
from swarm.model.reasons import ReasonCode
from swarm.model.specs import Replicated
from swarm.model.states import TaskState
from swarm.plan.context import Draft, ServiceContext, because
from swarm.plan.keys import ALL, part_key
from swarm.plan.orchestrator import Filling, Look, Memory, Orchestrator, forget
from swarm.plan.repair import hold_back, is_quiet, repair
from swarm.plan.rollout import (
    Way,
    Work,
    apply_repair,
    continue_rolling,
    is_settled,
    may_be_updated,
    only_waits,
    roll_whole,
    wake_when_overdue,
)
from swarm.plan.slots import Slot, choose_survivors, serves, slot_of, stop
from swarm.plan.update import is_under_way


@define
class _Census:
    """A service's slots, sorted by what they may need."""

    quiet: dict[int, tuple[Task, ...]] = field(factory=dict)
    """They plainly need nothing."""
    waiting: dict[int, tuple[Task, ...]] = field(factory=dict)
    """They need nothing but their turn in an update."""
    serving: list[Slot] = field(factory=list)
    vacant: list[Slot] = field(factory=list)

    @property
    def count(self) -> int:
        """Slots that count towards the number of replicas."""
        return len(self.quiet) + len(self.waiting) + len(self.serving)


class ReplicatedPlanner(Orchestrator):
    """The planner `replicated`."""

    name = "replicated"

    def owns(self, service: Service) -> bool:
        """Replicated services."""
        return isinstance(service.spec.mode, Replicated)

    def owns_task(self, task: Task) -> bool:
        """Slots start at 1, and no job."""
        return task.slot >= 1 and task.job_iteration is None

    def part_of(self, task: Task) -> str:
        """Its slot."""
        return str(task.slot)

    def plan_part(self, draft: Draft, ctx: ServiceContext, part: str) -> Look:
        """One slot; an update looks at it together with its others."""
        if is_under_way(ctx):
            return Look.JOIN
        tasks = _tasks(ctx, part)
        if not tasks or is_quiet(ctx, tasks):
            return Look.DONE
        slot = _slot(ctx, int(part), tasks)
        if not slot.tasks:
            return Look.DONE
        if not serves(ctx, slot) or may_be_updated(ctx, slot):
            return Look.ALL
        apply_repair(draft, slot, repair(ctx, slot))
        return Look.DONE

    def plan_service(
        self, draft: Draft, ctx: ServiceContext, memory: Memory, parts: Collection[str], full: bool
    ) -> Memory:
        """Scale, then repair what stays, then update it."""
        filling = memory.filling.get(ctx.service.id)
        if filling is not None and filling.version == ctx.service.version:
            memory = self._fill(draft, ctx, memory, filling)
            draft.again[part_key(ctx.service.id, ALL)] = None
            return memory
        going_on = None if full else continue_rolling(draft, ctx, memory, _WAY, parts)
        return self._plan_whole(draft, ctx, forget(memory, ctx.service.id)) if going_on is None else going_on

    def _plan_whole(self, draft: Draft, ctx: ServiceContext, memory: Memory) -> Memory:
        assert isinstance(ctx.spec.mode, Replicated), "the planner was called for its own kind"
        wanted = max(0, ctx.spec.mode.replicas)
        census = _take_census(ctx)
        missing = max(0, wanted - census.count)
        if census.count > wanted:
            work = self._shrink(draft, ctx, census, wanted)
        else:
            work = Work(census.serving, [str(number) for number in sorted(census.waiting)])
        memory = roll_whole(draft, ctx, memory, _WAY, work)
        self._clear_vacant(draft, ctx, census, missing)
        if missing:
            memory = self._fill(draft, ctx, memory, Filling(ctx.service.version, 1, missing))
        return memory

    def _fill(self, draft: Draft, ctx: ServiceContext, memory: Memory, filling: Filling) -> Memory:
        """Create missing tasks in the lowest free slots; a number in which others still stop is taken READY."""
        slots = ctx.view.slots_of_service(ctx.service.id)
        number, missing = filling.next_number, filling.missing
        changes: list[Change] = []
        assert isinstance(ctx.spec.mode, Replicated), "the planner was called for its own kind"
        reason = because(ReasonCode.SCALED_UP, f"one of the {ctx.spec.mode.replicas} replicas that were asked for")
        while missing and draft.budget > 0:
            tasks = slots.get(Number(number))
            slot = _slot(ctx, number, tuple(tasks)) if tasks else None
            if slot is None or not serves(ctx, slot):
                desired = hold_back(ctx, slot, NEVER) if slot else ctx.goal
                changes.append(ctx.create(number, reason, desired=desired))
                missing -= 1
                draft.budget -= 1
                if slot and desired is TaskState.READY:
                    wake_when_overdue(draft, ctx, slot)
            number += 1
        draft.add(*changes)
        filled = {key: value for key, value in memory.filling.items() if key != ctx.service.id}
        if missing:
            draft.again[ctx.service.id] = None
            filled[ctx.service.id] = Filling(ctx.service.version, number, missing)
        return evolve(memory, filling=filled)

    def _shrink(self, draft: Draft, ctx: ServiceContext, census: _Census, wanted: int) -> Work:
        """Give up the surplus slots; those that stay and may need something are returned."""
        steady = {**census.quiet, **census.waiting}
        slots = [_slot(ctx, number, tasks) for number, tasks in steady.items()] + census.serving
        kept, removed = choose_survivors(ctx, slots, wanted)
        reason = because(ReasonCode.SCALED_DOWN, f"the service was scaled down to {wanted}")
        for slot in removed:
            if draft.budget <= 0:
                draft.again[part_key(ctx.service.id, ALL)] = None
                break
            draft.budget -= 1
            draft.add(*(stop(task, reason, TaskState.REMOVE) for task in slot.tasks))
        staying = sorted(kept, key=lambda slot: slot.number)
        return Work(
            [slot for slot in staying if slot.number not in steady],
            [slot.part for slot in staying if slot.number in census.waiting],
        )

    def _clear_vacant(self, draft: Draft, ctx: ServiceContext, census: _Census, missing: int) -> None:
        """History of slots that nothing will use again goes; the reaper deletes it when it has stopped."""
        if not any(slot.tasks for slot in census.vacant):
            return
        last = _last_filled(census, missing)
        reason = because(ReasonCode.SCALED_DOWN, "its slot is not used any more")
        for slot in census.vacant:
            if slot.number > last and slot.tasks and draft.budget > 0:
                draft.budget -= 1
                draft.add(*(stop(task, reason, TaskState.REMOVE) for task in slot.tasks))


def _last_filled(census: _Census, missing: int) -> int:
    """The highest slot number that filling the service takes."""
    taken = census.quiet.keys() | census.waiting.keys() | {slot.number for slot in census.serving}
    number = 0
    while missing:
        number += 1
        missing -= number not in taken
    return number


def _slot(ctx: ServiceContext, number: int, tasks: tuple[Task, ...]) -> Slot:
    return slot_of(number, part_key(ctx.service.id, number), tasks)


def _tasks(ctx: ServiceContext, part: str) -> tuple[Task, ...]:
    return tuple(ctx.view.slots_of_service(ctx.service.id).get(Number(int(part)), ()))


def _slot_at(ctx: ServiceContext, part: str) -> Slot | None:
    return _slot(ctx, int(part), _tasks(ctx, part))


_WAY = Way(ReplicatedPlanner.name, may_move=True, slot_at=_slot_at)


def _take_census(ctx: ServiceContext) -> _Census:
    census = _Census()
    for number, collection in ctx.view.slots_of_service(ctx.service.id).items():
        tasks = tuple(collection)
        if is_settled(ctx, tasks):
            census.quiet[number] = tasks
        elif only_waits(ctx, tasks):
            census.waiting[number] = tasks
        else:
            slot = _slot(ctx, number, tasks)
            (census.serving if serves(ctx, slot) else census.vacant).append(slot)
    return census
