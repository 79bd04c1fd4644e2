"""Replicated services: a number of slots, each with one task, wherever the scheduler puts them.

One planner owns a service's slots: scaling, repair, restarts, updates and rollbacks are decided here, in this order, so that
no two deciders race for a slot. A change of one task plans one slot; the whole service is looked at when its declaration
changed, when a record vanished, or while an update is under way. The planner never deletes a record and never lets a
new task start in a slot where another was told to stop and may still run: that is the task reaper's and the repair's rule.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve

from swarm.model.changes import Change
from swarm.model.ids import Slot as Number
from swarm.model.objects import NEVER, Service, Task
from swarm.model.reasons import ReasonCode
from swarm.model.specs import Replicated
from swarm.model.states import TaskState
from swarm.plan.context import Draft, ServiceContext, because
from swarm.plan.keys import ALL, part_key
from swarm.plan.orchestrator import Look, Memory, Orchestrator, Request, Scaling, forget, without
from swarm.plan.repair import hold_back, is_quiet, repair
from swarm.plan.rollout import (
    Way,
    Work,
    apply_repair,
    continue_rolling,
    may_be_updated,
    roll_whole,
    wake_when_overdue,
)
from swarm.plan.slots import Slot, choose_removed, serves, stop
from swarm.plan.survey import Census, Survey, begin, slot_with, tasks_of
from swarm.plan.update import is_under_way


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
        tasks = tasks_of(ctx, int(part))
        if not tasks or is_quiet(ctx, tasks):
            return Look.DONE
        slot = slot_with(ctx, int(part), tasks)
        if not slot.tasks:
            return Look.DONE
        if not serves(ctx, slot) or may_be_updated(ctx, slot):
            return Look.ALL
        apply_repair(draft, slot, repair(ctx, slot))
        return Look.DONE

    def plan_service(self, draft: Draft, ctx: ServiceContext, memory: Memory, request: Request) -> Memory:
        """Scale, then repair what stays, then update it."""
        survey = memory.surveys.get(ctx.service.id)
        if survey is None:
            scaling = memory.scaling.get(ctx.service.id)
            if scaling is not None and scaling.version == ctx.service.version and not request.full:
                return self._scale(draft, ctx, memory, scaling)
            going_on = continue_rolling(draft, ctx, memory, _WAY, request)
            if going_on is not None:
                return going_on
        return self._survey(draft, ctx, forget(memory, ctx.service.id), survey, request)

    def _survey(
        self, draft: Draft, ctx: ServiceContext, memory: Memory, survey: Survey | None, request: Request
    ) -> Memory:
        """Look at every slot, in this call or in several, and plan when all of them were looked at."""
        service_id = ctx.service.id
        if survey is None or survey.version != ctx.service.version:
            survey = begin(ctx, _wanted(ctx))
        survey.touched.update(map(int, request.parts))
        if survey.go_on(draft, ctx):
            others = without(memory.surveys, service_id)
            if survey.is_complete(ctx):
                return self._plan_whole(draft, ctx, evolve(memory, surveys=others), survey.census)
            survey = begin(ctx, _wanted(ctx))
        draft.again[part_key(service_id, ALL)] = None
        return evolve(memory, surveys={**memory.surveys, service_id: survey})

    def _plan_whole(self, draft: Draft, ctx: ServiceContext, memory: Memory, census: Census) -> Memory:
        wanted = _wanted(ctx)
        missing = max(0, wanted - census.count)
        removed = choose_removed(census.candidates(ctx), wanted) if census.count > wanted else []
        memory = roll_whole(draft, ctx, memory, _WAY, _work(ctx, census, removed))
        self._clear_vacant(draft, ctx, census, missing)
        if missing or removed:
            scaling = Scaling(ctx.service.version, missing=missing, removing=tuple(removed))
            memory = self._scale(draft, ctx, memory, scaling)
        return memory

    def _scale(self, draft: Draft, ctx: ServiceContext, memory: Memory, scaling: Scaling) -> Memory:
        """Go on filling or emptying the service, and remember how far that came."""
        left = self._fill(draft, ctx, scaling) if scaling.missing else self._empty(draft, ctx, scaling)
        others = without(memory.scaling, ctx.service.id)
        if left.missing or left.removing:
            draft.again[ctx.service.id] = None
            others[ctx.service.id] = left
        return evolve(memory, scaling=others)

    def _fill(self, draft: Draft, ctx: ServiceContext, scaling: Scaling) -> Scaling:
        """Create missing tasks in the lowest free slots; a number in which others still stop is taken READY."""
        slots = ctx.view.slots_of_service(ctx.service.id)
        number, missing = scaling.next_number, scaling.missing
        changes: list[Change] = []
        assert isinstance(ctx.spec.mode, Replicated), "the planner was called for its own kind"
        reason = because(ReasonCode.SCALED_UP, f"one of the {ctx.spec.mode.replicas} replicas that were asked for")
        while missing and draft.budget > 0:
            tasks = slots.get(Number(number))
            slot = slot_with(ctx, number, tuple(tasks)) if tasks else None
            if slot is None or not serves(ctx, slot):
                desired = hold_back(ctx, slot, NEVER) if slot else ctx.goal
                changes.append(ctx.create(number, reason, desired=desired))
                missing -= 1
                draft.budget -= 1
                if slot and desired is TaskState.READY:
                    wake_when_overdue(draft, ctx, slot)
            number += 1
        draft.add(*changes)
        return evolve(scaling, next_number=number, missing=missing)

    def _empty(self, draft: Draft, ctx: ServiceContext, scaling: Scaling) -> Scaling:
        """Give up the surplus slots."""
        assert isinstance(ctx.spec.mode, Replicated), "the planner was called for its own kind"
        reason = because(ReasonCode.SCALED_DOWN, f"the service was scaled down to {ctx.spec.mode.replicas}")
        now = scaling.removing[: max(0, draft.budget)]
        draft.budget -= len(now)
        for number in now:
            staying = (task for task in tasks_of(ctx, number) if task.desired is not TaskState.REMOVE)
            draft.add(*(stop(task, reason, TaskState.REMOVE) for task in staying))
        return evolve(scaling, removing=scaling.removing[len(now) :])

    def _clear_vacant(self, draft: Draft, ctx: ServiceContext, census: Census, missing: int) -> None:
        """History of slots that nothing will use again goes; the reaper deletes it when it has stopped."""
        if not any(slot.tasks for slot in census.vacant.values()):
            return
        last = _last_filled(census, missing)
        reason = because(ReasonCode.SCALED_DOWN, "its slot is not used any more")
        for _, slot in sorted(census.vacant.items()):
            if slot.number > last and slot.tasks and draft.budget > 0:
                draft.budget -= 1
                draft.add(*(stop(task, reason, TaskState.REMOVE) for task in slot.tasks))


def _last_filled(census: Census, missing: int) -> int:
    """The highest slot number that filling the service takes."""
    taken = census.quiet.keys() | census.waiting.keys() | census.serving.keys()
    number = 0
    while missing:
        number += 1
        missing -= number not in taken
    return number


def _wanted(ctx: ServiceContext) -> int:
    assert isinstance(ctx.spec.mode, Replicated), "the planner was called for its own kind"
    return max(0, ctx.spec.mode.replicas)


def _work(ctx: ServiceContext, census: Census, removed: Collection[int]) -> Work:
    """What is to be repaired and updated: all but the slots that go. Those to be repaired are read as they are now."""
    gone = frozenset(removed)
    slots = [slot_with(ctx, number, tasks_of(ctx, number)) for number in sorted(census.serving.keys() - gone)]
    waiting = [str(number) for number in sorted(census.waiting.keys() - gone)]
    return Work(slots, waiting, ran_at_max=census.ran_at_max)


def _slot_at(ctx: ServiceContext, part: str) -> Slot | None:
    return slot_with(ctx, int(part), tasks_of(ctx, int(part)))


_WAY = Way(ReplicatedPlanner.name, may_move=True, slot_at=_slot_at)


def _number_of(task: Task) -> Number:
    return task.slot
