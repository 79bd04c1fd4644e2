"""Order of start and stop, cancels, restarts, escalation."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

import swarm
from swarm.runtime import (
    Actor,
    ActorDied,
    ActorFailed,
    ErrorCode,
    LocalRef,
    Message,
    Request,
    Restart,
    Scope,
    SwarmError,
    Trace,
    Turn,
    WouldDeadlock,
    on,
    open_scope,
)
from swarm.runtime.ref import Caller


@frozen
class Crash(Message):
    pass


@frozen
class CrashInJob(Message):
    pass


@frozen
class Lives(Request[int]):
    pass


@frozen
class Hang(Request[None]):
    pass


@frozen
class Finish(Message):
    pass


@frozen
class StopScope(Request[None]):
    pass


class Probe(Actor):
    shutdown_s = 2.0
    lives = 0

    def __init__(self, log: list[str], slow_stop_s: float = 0.0) -> None:
        self.log = log
        self.slow_stop_s = slow_stop_s

    async def started(self) -> None:
        self.log.append(f"+{self.name}")

    async def stopping(self) -> None:
        await trio.sleep(self.slow_stop_s)
        self.log.append(f"-{self.name}")

    @on(Crash)
    def crash(self, message: Crash, turn: Turn[None]) -> None:
        raise RuntimeError("a bug")

    @on(CrashInJob)
    def crash_in_job(self, message: CrashInJob, turn: Turn[None]) -> None:
        async def job() -> None:
            raise RuntimeError("a bug in a job")

        self.job(job)

    @on(Lives)
    def count(self, request: Lives, turn: Turn[int]) -> int:
        return self.log.count(f"+{self.name}")

    @on(Hang)
    async def hang(self, request: Hang, turn: Turn[None]) -> None:
        await trio.sleep_forever()

    @on(Finish)
    def finish_now(self, message: Finish, turn: Turn[None]) -> None:
        self.finish("it is done")

    @on(StopScope)
    async def stop_scope(self, request: StopScope, turn: Turn[None]) -> None:
        await self.scope.stop("from within")


async def test_children_start_left_to_right_and_stop_right_to_left() -> None:
    log: list[str] = []
    async with open_scope("outer") as outer:
        await outer.start("a", lambda: Probe(log))
        async with outer.open("inner") as inner:
            assert inner.path == "outer/inner"
            await inner.start("b", lambda: Probe(log))
            await inner.start("c", lambda: Probe(log))
            assert outer.children == ("a", "inner")
        log.append("left inner")
        await outer.start("d", lambda: Probe(log))
    assert log == ["+a", "+b", "+c", "-c", "-b", "left inner", "+d", "-d", "-a"]


async def test_an_outer_stop_takes_inner_scopes_in_their_turn(autojump_clock: Any) -> None:
    log: list[str] = []

    class Host(Probe):
        async def started(self) -> None:
            await super().started()
            self.job(self.run_inner)

        async def run_inner(self) -> None:
            async with self.scope.open("inner") as inner:
                await inner.start("x", lambda: Probe(log, slow_stop_s=1))
                await inner.start("y", lambda: Probe(log))
                await trio.sleep_forever()
            log.append(f"inner left: {inner.reason}")

    async with open_scope("outer") as outer:
        await outer.start("host", lambda: Host(log))
        await trio.sleep(1)
        await outer.stop("over")
        assert outer.children == ()
        log.append("stopped")
    assert log == ["+host", "+x", "+y", "-y", "-x", "inner left: over", "-host", "stopped"]


async def test_stop_from_elsewhere_leaves_the_context() -> None:
    log: list[str] = []
    scopes: list[Scope] = []

    async def owner() -> None:
        async with open_scope("s") as scope:
            scopes.append(scope)
            await scope.start("a", lambda: Probe(log))
            await trio.sleep_forever()
        log.append("left")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner)
        await trio.testing.wait_all_tasks_blocked()
        await scopes[0].stop("enough")
        log.append("stop returned")
    assert log == ["+a", "-a", "stop returned", "left"] or log == ["+a", "-a", "left", "stop returned"]
    with pytest.raises(SwarmError, match="starts nothing any more: enough"):
        await scopes[0].start("b", lambda: Probe(log))


class Host(Actor):
    """Starts an actor in another scope at each message."""

    def __init__(self, other: Scope) -> None:
        self._other = other

    @on(Finish)
    async def begin(self, message: Finish, turn: Turn[None]) -> None:
        await self._other.start("x", lambda: Probe([]))

    @on(Crash)
    def refuse(self, message: Crash, turn: Turn[None]) -> None:
        raise SwarmError(ErrorCode.INVALID, "not so")


async def test_a_message_that_comes_when_its_scope_ends_is_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with open_scope("ended") as ended:
        pass
    async with open_scope("s") as scope:
        host = await scope.start("host", lambda: Host(ended))
        await host.tell(Finish())
        await trio.testing.wait_all_tasks_blocked()
        assert caplog.messages == []
        await host.tell(Crash())
        await trio.testing.wait_all_tasks_blocked()
        assert caplog.messages == ["actor s/host refused Crash: SwarmError(invalid: not so)"]


async def test_a_stop_that_takes_too_long_is_cancelled(autojump_clock: Any) -> None:
    log: list[str] = []
    async with open_scope("s") as scope:
        await scope.start("quick", lambda: Probe(log, slow_stop_s=1))
        await scope.start("slow", lambda: Probe(log, slow_stop_s=100))
    assert log == ["+quick", "+slow", "-quick"]
    assert trio.current_time() == pytest.approx(3)


async def test_a_turn_in_hand_is_finished_at_a_stop_and_a_hanging_one_cancelled(autojump_clock: Any) -> None:
    log: list[str] = []
    async with open_scope("s") as scope, trio.open_nursery() as nursery:
        ref = await scope.start("a", lambda: Probe(log))

        async def ask(request: Request[Any]) -> None:
            with pytest.raises(ActorDied):
                await ref.ask(request, timeout_s=100)
            log.append(f"{type(request).__name__} failed at {trio.current_time():g}")

        nursery.start_soon(ask, Hang())
        await trio.sleep(0.5)
        nursery.start_soon(ask, Lives())  # queued behind it: fails as the mailbox closes
        await trio.sleep(0.5)
        await scope.stop("over")
    assert log == ["+a", "Lives failed at 1", "Hang failed at 3"]


async def test_a_cancel_has_no_grace(autojump_clock: Any) -> None:
    log: list[str] = []
    async with open_scope("s") as scope:
        await scope.start("a", lambda: Probe(log))
        async with scope.open("inner") as inner:
            await inner.start("b", lambda: Probe(log))
            scope.cancel("pulled the plug")
            await trio.sleep_forever()
    assert log == ["+a", "+b"]
    assert scope.reason == inner.reason == "pulled the plug"
    assert trio.current_time() == 0


async def test_a_cancel_reaches_inner_scopes_of_other_tasks(autojump_clock: Any) -> None:
    log: list[str] = []

    async with trio.open_nursery() as nursery:
        async with open_scope("outer") as outer:

            async def foreign() -> None:
                async with outer.open("inner") as inner:
                    await inner.start("b", lambda: Probe(log))
                    await trio.sleep_forever()
                log.append("inner left")

            nursery.start_soon(foreign)
            await trio.testing.wait_all_tasks_blocked()
            outer.cancel("now")
        log.append("outer left")
    assert log[0] == "+b" and sorted(log[1:]) == ["inner left", "outer left"]


async def test_leaving_a_scope_means_that_all_in_it_has_ended() -> None:
    running = 0

    class Jobs(Actor):
        async def started(self) -> None:
            for _ in range(3):
                self.job(self.work)

        async def work(self) -> None:
            nonlocal running
            running += 1
            try:
                await trio.sleep_forever()
            finally:
                running -= 1

    async with open_scope("s") as scope:
        await scope.start("jobs", Jobs)
        await trio.testing.wait_all_tasks_blocked()
        assert running == 3
    assert running == 0


async def test_jobs_run_while_stopping_runs_and_end_after_it() -> None:
    log: list[str] = []

    class Flush(Actor):
        async def started(self) -> None:
            self.wish, self.done = trio.Event(), trio.Event()
            self.job(self.work)

        async def work(self) -> None:
            await self.wish.wait()
            log.append("flushed")
            self.done.set()
            await trio.sleep_forever()

        async def stopping(self) -> None:
            self.wish.set()
            await self.done.wait()
            log.append("stopping")

    async with open_scope("s") as scope:
        ref = await scope.start("flush", Flush)
    assert log == ["flushed", "stopping"]
    assert ref.ended


async def test_a_job_that_tells_its_stopping_actor_just_ends(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    class Late(Probe):
        async def started(self) -> None:
            self.job(self.work)

        async def work(self) -> None:
            await trio.sleep(1.5)
            await self.ref.tell(Finish())

    async with open_scope("s") as scope:
        await scope.start("late", lambda: Late(log, slow_stop_s=1))
        await trio.sleep(1)
    assert log == ["-late"] and not caplog.records


# --- starting ------------------------------------------------------------------------------------------------------
async def test_a_failed_start_is_the_starters() -> None:
    class Bad(Actor):
        async def started(self) -> None:
            raise OSError("no disk")

    def bad_factory() -> Actor:
        raise ValueError("no such thing")

    async with open_scope("s") as scope:
        with pytest.raises(OSError, match="no disk"):
            await scope.start("bad", Bad)
        with pytest.raises(ValueError, match="no such thing"):
            await scope.start("bad", bad_factory)
        assert scope.children == ()
        await scope.start("bad", lambda: Probe([]))
        with pytest.raises(ValueError, match="has a 'bad' already"):
            await scope.start("bad", lambda: Probe([]))


async def test_a_cancelled_start_leaves_nothing(autojump_clock: Any) -> None:
    class Slow(Actor):
        async def started(self) -> None:
            await trio.sleep(100)

    async with open_scope("s") as scope:
        with trio.move_on_after(1):
            await scope.start("slow", Slow)
        await trio.sleep(0.1)
        assert scope.children == ()


# --- ending one actor ----------------------------------------------------------------------------------------------
async def test_one_actor_can_be_ended() -> None:
    log: list[str] = []
    async with open_scope("s") as scope:
        a = await scope.start("a", lambda: Probe(log))
        await scope.start("b", lambda: Probe(log))
        await scope.end(a, "not needed")
        await scope.end(a, "not needed")
        assert scope.children == ("b",)
        assert not a.offer(Crash())
        with pytest.raises(ActorDied, match="not needed"):
            await a.tell(Crash())
        with pytest.raises(ActorDied, match="not needed"):
            await a.ask(Lives(), timeout_s=1)
        await scope.start("a", lambda: Probe(log))
    assert log == ["+a", "+b", "-a", "+a", "-a", "-b"]


async def test_an_actor_can_finish_itself() -> None:
    log: list[str] = []
    async with open_scope("s") as scope:
        ref = await scope.start("a", lambda: Probe(log))
        await ref.tell(Finish())
        await trio.testing.wait_all_tasks_blocked()
        assert ref.ended and log == ["+a", "-a"]


async def test_an_actor_cannot_wait_for_its_own_end() -> None:
    async with open_scope("s") as scope:
        ref = await scope.start("a", lambda: Probe([]))
        with pytest.raises(WouldDeadlock, match="its own end"):
            await ref.ask(StopScope(), timeout_s=1)


# --- crashes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("crash", [Crash(), CrashInJob()])
async def test_a_crashed_actor_is_restarted_behind_the_same_ref(crash: Message, autojump_clock: Any) -> None:
    async with open_scope("s") as scope:
        log: list[str] = []
        ref = await scope.start("a", lambda: Probe(log))
        await ref.tell(crash)
        await trio.sleep(1)
        assert await ref.ask(Lives(), timeout_s=1) == 2


async def test_what_is_queued_survives_a_crash_and_the_call_in_hand_fails(autojump_clock: Any) -> None:
    async with open_scope("s") as scope:
        log: list[str] = []
        ref = await scope.start("a", lambda: Probe(log))
        ref.offer(Crash())
        assert await ref.ask(Lives(), timeout_s=1) == 2  # was queued behind the crash

        class CrashOnAsk(Actor):
            @on(Hang)
            def hang(self, request: Hang, turn: Turn[None]) -> None:
                raise RuntimeError("a bug")

        other = await scope.start("b", CrashOnAsk)
        with pytest.raises(ActorDied, match="s/b crashed"):
            await other.ask(Hang(), timeout_s=100)
        assert trio.current_time() < 1


async def test_too_many_crashes_within_the_period_end_the_scope(autojump_clock: Any) -> None:
    log: list[str] = []
    with pytest.raises(ActorFailed, match="s/a crashed 3 times in 10 s and is given up: RuntimeError: a bug") as failed:
        async with open_scope("s") as scope:
            await scope.start("left", lambda: Probe(log))
            ref = await scope.start("a", lambda: Probe(log), restart=Restart(intensity=2, period_s=10))
            for _ in range(3):
                await ref.tell(Crash())
                await trio.sleep(1)
    assert isinstance(failed.value.__cause__, RuntimeError)
    assert log == ["+left", "+a", "+a", "+a", "-left"]  # the others stop in order


async def test_crashes_further_apart_are_forgiven(autojump_clock: Any) -> None:
    async with open_scope("s") as scope:
        log: list[str] = []
        ref = await scope.start("a", lambda: Probe(log), restart=Restart(intensity=1, period_s=10))
        for _ in range(5):
            await ref.tell(Crash())
            await trio.sleep(11)
        assert await ref.ask(Lives(), timeout_s=1) == 6


async def test_a_restart_whose_start_fails_counts_as_a_crash(autojump_clock: Any) -> None:
    starts = 0

    class Flaky(Probe):
        async def started(self) -> None:
            nonlocal starts
            starts += 1
            if starts > 1:
                raise OSError("gone")

    with pytest.raises(ActorFailed, match="OSError: gone"):
        async with open_scope("s") as scope:
            ref = await scope.start("a", lambda: Flaky([]), restart=Restart(intensity=2))
            await ref.tell(Crash())
            await trio.sleep(1000)
    assert starts == 3


async def test_a_failure_escalates_to_the_next_scope(autojump_clock: Any) -> None:
    """The actor that opened the inner scope crashes with it, and is restarted by the outer one."""
    log: list[str] = []
    inner_refs: list[LocalRef] = []

    class Host(Probe):
        async def started(self) -> None:
            await super().started()
            self.job(self.run_inner)

        async def run_inner(self) -> None:
            async with self.scope.open("inner") as inner:
                inner_refs.append(await inner.start("x", lambda: Probe(log), restart=Restart.NEVER))
                await trio.sleep_forever()

    with pytest.raises(ActorFailed, match="outer/host crashed 2 times"):
        async with open_scope("outer") as outer:
            await outer.start("host", lambda: Host(log), restart=Restart(intensity=1))
            await trio.sleep(1)
            await inner_refs[-1].tell(Crash())
            await trio.sleep(1)
            assert log == ["+host", "+x", "+host", "+x"]
            await inner_refs[-1].tell(Crash())
            await trio.sleep(1000)


async def test_an_error_in_the_body_stops_in_order_and_is_raised_as_it_was() -> None:
    log: list[str] = []
    with pytest.raises(KeyError):
        async with open_scope("s") as scope:
            await scope.start("a", lambda: Probe(log))
            raise KeyError("mine")
    assert log == ["+a", "-a"]
    with pytest.RaisesGroup(KeyError):
        async with open_scope("s") as scope, trio.open_nursery():
            await scope.start("a", lambda: Probe(log))
            raise KeyError("mine")


async def test_the_trace_sees_turns_and_lives(autojump_clock: Any) -> None:
    seen: list[str] = []

    class Recorder(Trace):
        def turn(self, actor: str, message: Any, caller: Caller, duration_s: float) -> None:
            seen.append(f"{actor} {type(message).__name__} {caller.role} {duration_s:g}")

        def started(self, actor: str, restarts: int) -> None:
            seen.append(f"{actor} started {restarts}")

        def crashed(self, actor: str, error: Exception) -> None:
            seen.append(f"{actor} crashed {error}")

        def ended(self, actor: str, reason: str) -> None:
            seen.append(f"{actor} ended {reason}")

    async with open_scope("s", trace=Recorder()) as scope, scope.open("t") as inner:
        ref = await inner.start("a", lambda: Probe([]))
        await ref.ask(Lives(), timeout_s=1)
        await ref.tell(Crash())
        await trio.sleep(1)
        await inner.stop("done")
    assert seen == [
        "s/t/a started 0",
        "s/t/a Lives actor 0",
        "s/t/a crashed a bug",
        "s/t/a started 1",
        "s/t/a ended done",
    ]


def catches_of(tree: ast.AST) -> list[str]:
    """What the handlers in async functions catch; bare ones catch everything."""
    found = []
    for function in ast.walk(tree):
        if isinstance(function, ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler):
                    found.append("BaseException" if node.type is None else ast.unparse(node.type))
    return found


def test_only_the_scope_shields_and_nobody_catches_cancelled() -> None:
    root = Path(swarm.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text()
        if path.name != "scope.py" and "testing" not in path.parts:
            assert "shield=" not in text and ".shield" not in text, f"{path} shields"
        for caught in catches_of(ast.parse(text)):
            assert "BaseException" not in caught and "Cancelled" not in caught, f"{path} catches {caught}"
