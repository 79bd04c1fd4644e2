"""A look at every slot of a service that takes several calls when the service is large, so that no turn is long.

Slots are sorted into a census, a bounded number a call. What changes meanwhile is noted by the slot (`touched`) and sorted anew
before the look ends, so that the end knows as much as a look in one go would. A survey is changed in place and may be lost with
the memory that holds it: then it begins again.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from swarm.model.ids import Instant, Version
from swarm.model.ids import Slot as Number
from swarm.model.objects import NEVER, Task
from swarm.plan.context import Draft, ServiceContext
from swarm.plan.keys import part_key
from swarm.plan.rollout import Need, need_of_slot
from swarm.plan.slots import Candidate, Slot, candidate, serves, slot_of
from swarm.plan.update import is_under_way, ran_at


@define(eq=False)
class Census:
    """A service's slots, sorted by what they may need."""

    quiet: dict[int, Candidate | None] = field(factory=dict)
    """They plainly need nothing. Whether each would be given up is worked out at once only if some have to be."""
    waiting: dict[int, Candidate | None] = field(factory=dict)
    """They need nothing but their turn in an update."""
    serving: dict[int, Slot] = field(factory=dict)
    vacant: dict[int, Slot] = field(factory=dict)
    ran_at_max: Instant = NEVER

    @property
    def count(self) -> int:
        """Slots that count towards the number of replicas."""
        return len(self.quiet) + len(self.waiting) + len(self.serving)

    def candidates(self, ctx: ServiceContext) -> Iterator[Candidate]:
        """The slots that count, for the choice of those that go."""
        for steady in (self.quiet, self.waiting):
            for number, known in steady.items():
                yield known or candidate(ctx, number, tasks_of(ctx, number))
        for number, slot in self.serving.items():
            yield candidate(ctx, number, slot.tasks)


@define(eq=False)
class Survey:
    """One look under way, at one version of the service."""

    version: Version
    ahead: list[int]
    """Slots that are still to be looked at, the next one last."""
    shrinking: bool
    """Whether slots may have to be given up."""
    census: Census = field(factory=Census)
    touched: set[int] = field(factory=set)
    """Slots that changed since the look began."""
    _tasks: dict[int, int] = field(factory=dict)
    """Slot to the number of its tasks when it was looked at, those of a single one left out."""

    def go_on(self, draft: Draft, ctx: ServiceContext) -> bool:
        """Look at as many slots as the call still may; True when every one was looked at, and none has changed since."""
        under_way = is_under_way(ctx)
        while (self.ahead or self.touched) and draft.looks > 0:
            draft.looks -= 1
            if self.ahead:
                self._sort(ctx, self.ahead.pop(), under_way)
            else:
                number = self.touched.pop()
                self._forget(number)
                self._sort(ctx, number, under_way)
        return not self.ahead and not self.touched

    def is_complete(self, ctx: ServiceContext) -> bool:
        """Whether the look shows as many tasks as there are: else the view is ahead of the events that were heard of."""
        census = self.census
        slots = census.count + len(census.vacant)
        seen = slots - len(self._tasks) + sum(self._tasks.values())
        return seen == ctx.view.count_tasks_of_service(ctx.service.id)

    def _forget(self, number: int) -> None:
        census = self.census
        for slots in (census.quiet, census.waiting, census.serving, census.vacant):
            slots.pop(number, None)
        self._tasks.pop(number, None)

    def _sort(self, ctx: ServiceContext, number: int, under_way: bool) -> None:
        tasks = tasks_of(ctx, number)
        if not tasks:
            return
        census = self.census
        if len(tasks) > 1:
            self._tasks[number] = len(tasks)
        if under_way:
            census.ran_at_max = max(census.ran_at_max, ran_at(tasks))
        need = need_of_slot(ctx, tasks)
        if need is not Need.A_LOOK:
            steady = census.quiet if need is Need.NOTHING else census.waiting
            steady[number] = candidate(ctx, number, tasks) if self.shrinking else None
        elif serves(ctx, slot := slot_with(ctx, number, tasks)):
            census.serving[number] = slot
        else:
            census.vacant[number] = slot


def begin(ctx: ServiceContext, wanted: int) -> Survey:
    """A look at all slots that the service has now, of which `wanted` are to serve."""
    ahead = list(ctx.view.slots_of_service(ctx.service.id))
    ahead.reverse()
    return Survey(ctx.service.version, list(map(int, ahead)), len(ahead) > wanted)


def tasks_of(ctx: ServiceContext, number: int) -> tuple[Task, ...]:
    """A slot's tasks, oldest first."""
    return tuple(ctx.view.slots_of_service(ctx.service.id).get(Number(number), ()))


def slot_with(ctx: ServiceContext, number: int, tasks: tuple[Task, ...]) -> Slot:
    """The slot that these tasks make."""
    return slot_of(number, part_key(ctx.service.id, number), tasks)
