"""The one shell around every planner: watch the store, gather dirty keys, plan a slice, propose, wait, plan again.

It is level-triggered: it starts with every key that the planner names, and so it does again whenever it lost track of the
store. It never decides anything itself, and it never plans while its last proposal is under way: what comes meanwhile
is gathered, so that a single change is planned at once and a burst in slices.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Generic, TypeVar

import trio
from attrs import frozen

from swarm.actors.store_messages import Committed, ProposeChanges, WatchStore
from swarm.model.changes import Group, GroupResult
from swarm.model.ids import Ids, Instant
from swarm.model.snapshot import Snapshot
from swarm.plan.base import Planner
from swarm.ports.clock import Clock
from swarm.runtime import Actor, ErrorCode, Message, Ref, SwarmError, Turn, on

M = TypeVar("M")

LOG = logging.getLogger("swarm.control_loop")

WATCH_WINDOW = 256
"""Batches that the store may be ahead; beyond it everything is planned anew, which costs about as much."""
RESUBSCRIBE_PAUSE_S = 0.1
"""Between two subscriptions, so that a store that is restarting is not asked in a tight loop."""
PROPOSE_TIMEOUT_S = 30.0
"""No answer after this: the outcome is unknown and the keys are planned again from what is then seen."""
SLEEP_S_MAX = 10.0
"""The wall clock may jump: a wake is looked at again at least this often."""
REFUSALS_FREE = 3
"""Refusals in a row that are planned again at once; they only mean that somebody else was faster."""
REFUSAL_PAUSE_S = 0.05
"""First pause after more of them; doubled each time, so that a planner that is always refused does not fill the log."""
REFUSAL_PAUSE_S_MAX = 5.0

HEAP_SLACK = 64
"""Void heap entries beyond the living ones before the heap is made anew."""


@frozen
class _Arrived(Message):
    """A batch from the store; `fresh` when it opens a subscription."""

    committed: Committed
    fresh: bool


@frozen
class _Answered(Message):
    """What became of the proposal for these keys; no results: nobody knows."""

    keys: tuple[str, ...]
    results: tuple[GroupResult, ...] | None


@frozen
class _Halted(Message):
    """This member does not lead any more."""

    why: str


@frozen
class _Woke(Message):
    """The earliest wake is due, or may be."""


@frozen
class _Next(Message):
    """Plan the next slice, after the loop has taken a breath."""


class ControlLoop(Actor, Generic[M]):
    """Runs one planner for as long as this manager leads in `term`."""

    def __init__(self, planner: Planner[M], store: Ref, clock: Clock, ids: Ids, term: int) -> None:
        self._planner = planner
        self._store = store
        self._clock = clock
        self._ids = ids
        self._term = term
        self._view: Snapshot | None = None
        self._memory: M
        self._memory_before: M
        """What the memory was before the last plan: an unknown outcome goes back to it."""
        self._dirty: dict[str, None] = {}
        """An ordered set: first touched, first planned."""
        self._proposing = False
        self._continuing = False
        """A `_Next` is in the mailbox."""
        self._halted = False
        self._refusals = 0
        self._wakes: dict[str, Instant] = {}
        """Key to its wake; entries of `_heap` that differ are void."""
        self._heap: list[tuple[Instant, str]] = []
        self._armed: tuple[Instant, trio.CancelScope] | None = None
        """What the timer job sleeps for."""

    async def started(self) -> None:
        """Begin to follow the store."""
        self.job(self._follow)

    # --- turns -----------------------------------------------------------------------------------------------------
    @on(_Arrived)
    def arrived(self, message: _Arrived, turn: Turn[None]) -> None:
        """Gather what the batch touches, and plan."""
        self._view = message.committed.snapshot
        if message.fresh:
            self._dirty.clear()
            self._wakes.clear()
            self._heap.clear()
            self._memory, keys = self._planner.start(self._view)
            self._mark(keys)
        else:
            dirty, memory, marked = self._planner.dirty, self._memory, self._dirty
            for event in message.committed.events:
                for key in dirty(event, memory):
                    marked[key] = None
        self._plan_slice()

    @on(_Next)
    def next(self, message: _Next, turn: Turn[None]) -> None:
        """Plan on."""
        self._continuing = False
        self._plan_slice()

    @on(_Woke)
    def woke(self, message: _Woke, turn: Turn[None]) -> None:
        """Gather the keys whose wake has come, and plan."""
        self._armed = None
        now = self._clock.now()
        while self._heap and (self._heap[0][0] <= now or self._is_void(self._heap[0])):
            entry = heappop(self._heap)
            if not self._is_void(entry):
                del self._wakes[entry[1]]
                self._dirty[entry[1]] = None
        self._arm()
        self._plan_slice()

    @on(_Answered)
    def answered(self, message: _Answered, turn: Turn[None]) -> None:
        """Plan refused groups' keys again: at once, or later when that did not help."""
        self._proposing = False
        if message.results is None:
            # What the planner remembers since may rest on changes that were never made.
            self._memory = self._memory_before
        refused = message.results is None or any(result is not None for result in message.results)
        if not refused:
            self._refusals = 0
        elif self._refusals < REFUSALS_FREE:
            self._refusals += 1
            self._mark(message.keys)
        else:
            pause = min(REFUSAL_PAUSE_S * 2 ** (self._refusals - REFUSALS_FREE), REFUSAL_PAUSE_S_MAX)
            self._refusals += 1
            LOG.warning("%s: refused %d times in a row, again in %g s", self._planner.name, self._refusals, pause)
            at = Instant(self._clock.now() + pause)
            for key in message.keys:
                self._wake(key, min(at, self._wakes.get(key, at)))
            self._arm()
        self._plan_slice()

    @on(_Halted)
    def halt(self, message: _Halted, turn: Turn[None]) -> None:
        """Plan no more; whoever opened the leader scope is about to end it."""
        if not self._halted:
            self._halted = True
            LOG.info("%s: stops planning in term %d: %s", self._planner.name, self._term, message.why)

    # --- planning --------------------------------------------------------------------------------------------------
    def _plan_slice(self) -> None:
        """One bounded slice, if there is something to plan and nothing under way."""
        if self._proposing or self._continuing or self._halted or not self._dirty or self._view is None:
            return
        keys = self._take(self._planner.slice_keys)
        plan = self._planner.plan(self._view, keys, self._memory, self._clock.now(), self._ids)
        self._memory_before, self._memory = self._memory, plan.memory
        for key in keys:
            self._wakes.pop(key, None)
        for key, at in plan.wake.items():
            self._wake(key, at)
        self._arm()
        if plan.again:
            self._dirty = dict.fromkeys([*plan.again, *self._dirty])
        if plan.groups:
            self._proposing = True
            self.job(self._propose, plan.groups, keys)
        elif self._dirty:
            self._continuing = self.ref.offer(_Next())  # no room: whatever fills the mailbox plans on

    def _take(self, count: int) -> tuple[str, ...]:
        if len(self._dirty) <= count:
            keys = tuple(self._dirty)
            self._dirty = {}
            return keys
        keys = tuple(key for key, _ in zip(self._dirty, range(count), strict=False))
        for key in keys:
            del self._dirty[key]
        return keys

    def _mark(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._dirty[key] = None

    # --- wakes -----------------------------------------------------------------------------------------------------
    def _wake(self, key: str, at: Instant) -> None:
        self._wakes[key] = at
        heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._wakes) + HEAP_SLACK:
            self._heap = sorted((at, key) for key, at in self._wakes.items())

    def _is_void(self, entry: tuple[Instant, str]) -> bool:
        return self._wakes.get(entry[1]) != entry[0]

    def _arm(self) -> None:
        """Have the timer job sleep for the earliest wake."""
        while self._heap and self._is_void(self._heap[0]):
            heappop(self._heap)
        if not self._heap:
            return
        at = self._heap[0][0]
        if self._armed is not None:
            if self._armed[0] <= at:
                return
            self._armed[1].cancel()
        self._armed = (at, self.job(self._sleep_until, at))

    # --- jobs ------------------------------------------------------------------------------------------------------
    async def _sleep_until(self, at: Instant) -> None:
        await trio.sleep(min(max(at - self._clock.now(), 0.0), SLEEP_S_MAX))
        await self.ref.tell(_Woke())

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_once()
            except SwarmError as error:
                if error.code is not ErrorCode.OVERRUN:
                    LOG.info("%s: lost the store's changes: %s", self._planner.name, error)
            await trio.sleep(RESUBSCRIBE_PAUSE_S)

    async def _follow_once(self) -> None:
        fresh = True
        async with self._store.stream(WatchStore(), window=WATCH_WINDOW) as inlet:
            async for committed in inlet:
                await self.ref.tell(_Arrived(committed, fresh))
                fresh = False

    async def _propose(self, groups: tuple[Group, ...], keys: tuple[str, ...]) -> None:
        results: tuple[GroupResult, ...] | None = None
        try:
            results = await self._store.ask(ProposeChanges(groups, self._term), timeout_s=PROPOSE_TIMEOUT_S)
        except SwarmError as error:
            if error.code is ErrorCode.NOT_LEADER:
                await self.ref.tell(_Halted(error.text))
                return
            # the term fences a repetition, so that trying again is safe even if the leadership is lost
            LOG.info("%s: the outcome of a proposal is unknown: %r", self._planner.name, error)
        await self.ref.tell(_Answered(keys, results))
