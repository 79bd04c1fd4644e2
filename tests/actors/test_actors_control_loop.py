"""The shell of every planner, against a store that is scripted by the test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field, frozen

from swarm.actors.control_loop import RESUBSCRIBE_PAUSE_S, ControlLoop
from swarm.actors.store_messages import Committed, ProposeChanges, WatchStore
from swarm.model.changes import Advance, GroupResult, Kind, Refusal, RefusalCode
from swarm.model.events import Event
from swarm.model.ids import Ids, Instant, NodeId, TaskId, Version
from swarm.model.objects import Node
from swarm.model.snapshot import Snapshot
from swarm.model.states import TaskState
from swarm.plan.base import Plan
from swarm.runtime import (
    Actor,
    ErrorCode,
    Message,
    Request,
    Restart,
    Scope,
    Sink,
    StreamTurn,
    SwarmError,
    Turn,
    on,
    open_scope,
)

VIEW: Any = object()


class TrioClock:
    """Wall time that follows the virtual clock."""

    skew = 0.0

    def now(self) -> Instant:
        return Instant(1000.0 + trio.current_time() + self.skew)

    def monotonic(self) -> float:
        return trio.current_time()


class NoIds:
    def new(self) -> str:
        return "x" * 25


@frozen
class Touch(Message):
    """The store commits one batch that touches these keys."""

    keys: tuple[str, ...]


@frozen
class Overrun(Message):
    pass


def event(key: str) -> Event:
    return Event(Kind.NODE, None, Node(NodeId(key)))


def group(key: str) -> tuple[Advance, ...]:
    return (Advance(TaskId(key), desired=TaskState.SHUTDOWN),)


class FakeStore(Actor):
    """Answers proposals after `latency_s` with what `answer` says."""

    def __init__(self) -> None:
        self.sinks: list[Sink[Committed]] = []
        self.proposals: list[tuple[float, tuple[str, ...], int | None]] = []
        self.answer: Callable[[ProposeChanges], tuple[GroupResult, ...]] = lambda request: (None,) * len(request.groups)
        self.latency_s = 0.1
        self.subscriptions = 0

    @on(WatchStore)
    def watch(self, request: WatchStore, turn: StreamTurn[Committed]) -> None:
        self.subscriptions += 1
        self.sinks = [turn.sink]
        turn.sink.offer(Committed(VIEW, (), Version(1)))

    @on(Touch)
    def touch(self, message: Touch, turn: Turn[None]) -> None:
        for sink in self.sinks:
            sink.offer(Committed(VIEW, tuple(event(key) for key in message.keys), Version(2)))

    @on(Overrun)
    def overrun(self, message: Overrun, turn: Turn[None]) -> None:
        for sink in self.sinks:
            sink.fail(SwarmError(ErrorCode.OVERRUN, "too slow"))

    @on(ProposeChanges)
    def propose(self, request: ProposeChanges, turn: Turn[tuple[GroupResult, ...]]) -> None:
        keys = tuple(change.task_id for group in request.groups for change in group if isinstance(change, Advance))
        self.proposals.append((trio.current_time(), keys, request.term))
        self.answer_in_job(turn, self.later, request)

    async def later(self, request: ProposeChanges) -> tuple[GroupResult, ...]:
        await trio.sleep(self.latency_s)
        return self.answer(request)


@define
class Recorder:
    """A planner that changes one thing for every key, and remembers how often it planned."""

    name: str = "recorder"
    slice_keys: int = 3
    first: tuple[str, ...] = ()
    calls: list[tuple[float, tuple[str, ...], int]] = field(factory=list)
    wake: dict[str, float] = field(factory=dict)
    again: dict[str, tuple[str, ...]] = field(factory=dict)
    changes: bool = True

    def start(self, view: Snapshot) -> tuple[int, Iterable[str]]:
        return 0, self.first

    def dirty(self, event: Event, memory: int) -> Iterable[str]:
        return (str(event.object.id),)

    def plan(self, view: Snapshot, keys: Collection[str], memory: int, now: Instant, ids: Ids) -> Plan[int]:
        assert view is VIEW
        self.calls.append((trio.current_time(), tuple(keys), memory))
        return Plan(
            memory + 1,
            tuple(group(key) for key in keys) if self.changes else (),
            {key: Instant(now + self.wake.pop(key)) for key in keys if key in self.wake},
            tuple(again for key in keys for again in self.again.pop(key, ())),
        )

    @property
    def planned(self) -> list[tuple[str, ...]]:
        return [keys for _, keys, _ in self.calls]


async def start(scope: Scope, planner: Recorder, term: int = 7) -> tuple[FakeStore, Any]:
    store = FakeStore()
    store_ref = await scope.start("store", lambda: store)
    await scope.start(
        "loop", lambda: ControlLoop(planner, store_ref, TrioClock(), NoIds(), term), restart=Restart.NEVER
    )
    return store, store_ref


async def test_a_new_leader_plans_every_key_in_slices(autojump_clock: Any) -> None:
    planner = Recorder(first=("a", "b", "c", "d", "e"))
    async with open_scope("s") as scope:
        store, _ = await start(scope, planner)
        await trio.sleep(1)
        assert planner.planned == [("a", "b", "c"), ("d", "e")]
        assert [memory for _, _, memory in planner.calls] == [0, 1]
        # one proposal holds all groups of a plan, carries the term, and the next slice waits for its answer
        assert store.proposals == [(0.0, ("a", "b", "c"), 7), (pytest.approx(0.1), ("d", "e"), 7)]


async def test_slices_without_changes_follow_at_once(autojump_clock: Any) -> None:
    planner = Recorder(first=tuple("abcdefgh"), changes=False)
    async with open_scope("s") as scope:
        await start(scope, planner)
        await trio.testing.wait_all_tasks_blocked()
        assert planner.planned == [("a", "b", "c"), ("d", "e", "f"), ("g", "h")]
        assert trio.current_time() == 0


async def test_a_single_change_is_planned_at_once_and_a_burst_is_gathered(autojump_clock: Any) -> None:
    planner = Recorder(slice_keys=10)
    async with open_scope("s") as scope:
        _, ref = await start(scope, planner)
        await trio.sleep(1)
        await ref.tell(Touch(("a",)))
        await trio.sleep(0.01)
        for keys in [("b",), ("a", "c"), ("b", "d")]:
            await ref.tell(Touch(keys))
        await trio.sleep(1)
        assert planner.planned == [("a",), ("b", "a", "c", "d")]  # in order, each once
        assert [at for at, _, _ in planner.calls] == [1, pytest.approx(1.1)]


async def test_refused_groups_make_the_slice_dirty_again(autojump_clock: Any) -> None:
    planner = Recorder(first=("a", "b"))
    refused = Refusal(RefusalCode.OUT_OF_DATE, Kind.TASK, "a", "out of date")
    async with open_scope("s") as scope:
        store, _ = await start(scope, planner)
        answers = iter([(refused, None), (None, None)])
        store.answer = lambda request: next(answers)
        await trio.sleep(10)
        assert planner.planned == [("a", "b"), ("a", "b")]


async def test_a_planner_that_is_always_refused_does_not_fill_the_log(autojump_clock: Any) -> None:
    planner = Recorder(first=("a",))
    refused = Refusal(RefusalCode.EXISTS, Kind.TASK, "a", "exists")
    async with open_scope("s") as scope:
        store, _ = await start(scope, planner)
        store.latency_s = 0.001
        store.answer = lambda request: (refused,)
        await trio.sleep(60)
        assert 10 < len(store.proposals) < 30
        store.answer = lambda request: (None,)
        await trio.sleep(10)
        count = len(store.proposals)
        await trio.sleep(60)
        assert len(store.proposals) == count


async def test_an_unknown_outcome_is_planned_again(autojump_clock: Any) -> None:
    planner = Recorder(first=("a",))
    async with open_scope("s") as scope:
        store, _ = await start(scope, planner)

        def unavailable(request: ProposeChanges) -> tuple[GroupResult, ...]:
            store.answer = lambda request: (None,)
            raise SwarmError(ErrorCode.UNAVAILABLE, "too much in flight")

        store.answer = unavailable
        await trio.sleep(10)
        assert planner.planned == [("a",), ("a",)]
        assert [memory for _, _, memory in planner.calls] == [0, 0]  # what it remembered may never have happened


async def test_a_manager_that_does_not_lead_stops_planning_quietly(autojump_clock: Any) -> None:
    planner = Recorder(first=("a", "b", "c", "d"))

    def refuse(request: ProposeChanges) -> tuple[GroupResult, ...]:
        raise SwarmError(ErrorCode.NOT_LEADER, "not in this term")

    async with open_scope("s") as scope:
        store, ref = await start(scope, planner)
        store.answer = refuse
        await trio.sleep(5)
        await ref.tell(Touch(("z",)))
        await trio.sleep(5)
        assert planner.planned == [("a", "b", "c")]


async def test_wakes_come_when_due_and_the_newest_replaces_the_earlier(autojump_clock: Any) -> None:
    planner = Recorder(first=("a", "b"), changes=False, wake={"a": 5.0, "b": 50.0})
    async with open_scope("s") as scope:
        _, ref = await start(scope, planner)
        await trio.sleep(1)
        planner.wake["b"] = 2.0
        await ref.tell(Touch(("b",)))
        await trio.sleep(1)
        await ref.tell(Touch(("a",)))  # planned without a wake: the old one is void
        await trio.sleep(100)
        assert [(round(at), keys) for at, keys, _ in planner.calls] == [
            (0, ("a", "b")),
            (1, ("b",)),
            (2, ("a",)),
            (3, ("b",)),
        ]


async def test_a_wake_is_found_after_the_wall_clock_jumped(autojump_clock: Any) -> None:
    planner = Recorder(first=("a",), changes=False, wake={"a": 3600.0})
    async with open_scope("s") as scope:
        await start(scope, planner)
        await trio.sleep(100)
        TrioClock.skew = 3600.0
        try:
            await trio.sleep(11)
        finally:
            TrioClock.skew = 0.0
        assert len(planner.calls) == 2


async def test_keys_whose_planning_was_cut_short_follow_at_once(autojump_clock: Any) -> None:
    planner = Recorder(first=("a", "b", "c", "d"), changes=False, again={"a": ("a",)})
    async with open_scope("s") as scope:
        await start(scope, planner)
        await trio.testing.wait_all_tasks_blocked()
        assert planner.planned == [("a", "b", "c"), ("a", "d")]


async def test_an_overrun_starts_anew(autojump_clock: Any) -> None:
    planner = Recorder(first=("a",), changes=False, wake={"a": 3.0})
    async with open_scope("s") as scope:
        store, ref = await start(scope, planner)
        await trio.sleep(1)
        await ref.tell(Overrun())
        await trio.sleep(1)
        assert store.subscriptions == 2
        assert [(at, memory) for at, _, memory in planner.calls] == [
            (0, 0),
            (pytest.approx(1 + RESUBSCRIBE_PAUSE_S), 0),
        ]
        await trio.sleep(10)
        assert len(planner.calls) == 2  # the wake of before is forgotten with the memory


@frozen
class Crash(Request[None]):
    pass


async def test_a_store_that_restarts_is_followed_again(autojump_clock: Any) -> None:
    planner = Recorder(first=("a",))

    class Crashing(FakeStore):
        @on(Crash)
        def crash(self, request: Crash, turn: Turn[None]) -> None:
            raise RuntimeError("a bug")

    async with open_scope("s") as scope:
        ref = await scope.start("store", Crashing)
        await scope.start("loop", lambda: ControlLoop(planner, ref, TrioClock(), NoIds(), 1), restart=Restart.NEVER)
        await trio.sleep(0.05)  # a proposal is under way
        with pytest.raises(SwarmError):
            await ref.ask(Crash(), timeout_s=1)
        await trio.sleep(5)
        assert set(planner.planned) == {("a",)} and len(planner.calls) >= 2
