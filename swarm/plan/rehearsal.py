"""Planners run against a store of their own, as `actors/control_loop.py` runs them, but without waiting for anything.

What is planned is committed at once, the events dirty the keys of every planner, due wakes are planned again. The preview of
a change is a rehearsal on a copy of the state; the tests of the planners tell their stories on one. Time is a number that
its owner moves. A rehearsal that finds no rest is a bug in a planner, and ends with `Restless`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import define, field

from swarm.model.changes import Group, GroupResult
from swarm.model.events import Event
from swarm.model.ids import Ids, Instant, Version
from swarm.model.store import Store
from swarm.plan.base import Planner

ROUNDS_MAX = 10_000
"""Calls of planners without rest: far more than any real state needs, since a call changes hundreds of tasks."""


class Restless(RuntimeError):
    """The planners go on for ever; the text names the last ones and their keys."""


@define
class _Seat:
    """One planner with what its control loop would hold."""

    planner: Planner[Any]
    memory: Any = None
    keys: dict[str, None] = field(factory=dict)
    wake: dict[str, Instant] = field(factory=dict)


class Rehearsal:
    """A store and the planners over it; see the module."""

    def __init__(self, store: Store, planners: Sequence[Planner[Any]], now: Instant, ids: Ids) -> None:
        self.store = store
        self.now = now
        self.listener: Callable[[Sequence[Event]], None] | None = None
        """Told the events of every commit, once it is applied."""
        self._ids = ids
        self._seats = [_Seat(planner) for planner in planners]
        self.new_leader()

    def new_leader(self) -> None:
        """Every planner forgets what it knew and looks at everything, as after a change of leadership."""
        for seat in self._seats:
            seat.memory, keys = seat.planner.start(self.store)
            seat.keys = dict.fromkeys(keys)
            seat.wake = {}

    def commit(self, groups: Sequence[Group]) -> tuple[list[GroupResult], list[Event]]:
        """Apply groups as the next entry and mark what they touch."""
        results, events = self.store.apply(groups, Version(self.store.version + 1))
        for seat in self._seats:
            for event in events:
                seat.keys.update(dict.fromkeys(seat.planner.dirty(event, seat.memory)))
        if self.listener is not None:
            self.listener(events)
        return results, events

    def plan_once(self) -> bool:
        """One call of the first planner that has something to do; False when none has."""
        for seat in self._seats:
            for key in [key for key, instant in seat.wake.items() if instant <= self.now]:
                seat.keys[key] = None
            if seat.keys:
                self._call(seat)
                return True
        return False

    def settle(self) -> None:
        """Plan and commit until nobody has anything to do at this instant."""
        for _ in self.settling():
            pass

    def settling(self) -> Iterator[None]:
        """The same, one planner's call at each step, for who must not compute for long without a pause."""
        for _ in range(ROUNDS_MAX):
            if not self.plan_once():
                return
            yield
        busy = "; ".join(f"{seat.planner.name}: {', '.join(list(seat.keys)[:5])}" for seat in self._seats if seat.keys)
        raise Restless(f"no rest after {ROUNDS_MAX} calls: {busy}")

    def next_wake(self) -> Instant | None:
        """The earliest instant at which a planner wants to look again."""
        return min((instant for seat in self._seats for instant in seat.wake.values()), default=None)

    def _call(self, seat: _Seat) -> None:
        keys = list(seat.keys)[: seat.planner.slice_keys]
        for key in keys:
            del seat.keys[key]
            seat.wake.pop(key, None)
        plan = seat.planner.plan(self.store, keys, seat.memory, self.now, self._ids)
        seat.memory = plan.memory
        seat.wake.update(plan.wake)
        if plan.groups:
            results, _ = self.commit(plan.groups)
            if any(results):
                seat.keys.update(dict.fromkeys(keys))
        seat.keys.update(dict.fromkeys(plan.again))
