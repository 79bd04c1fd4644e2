"""Handlers, turns, asks, tells, deferred replies, jobs."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel
from attrs import frozen

from swarm.runtime import (
    Actor,
    ActorDied,
    ActorFailed,
    AskTimeout,
    Caller,
    ErrorCode,
    Later,
    LocalRef,
    Message,
    Request,
    Restart,
    SwarmError,
    Turn,
    WouldDeadlock,
    on,
    open_scope,
)


@frozen
class Note(Message):
    text: str


@frozen
class Notes(Request[list[str]]):
    pass


@frozen
class Echo(Request[str]):
    text: str


@frozen
class Refuse(Request[str]):
    pass


@frozen
class Crash(Request[str]):
    pass


@frozen
class CrashQuietly(Message):
    pass


@frozen
class Slow(Request[str]):
    seconds: float


@frozen
class Owe(Request[str]):
    pass


@frozen
class Pay(Message):
    text: str


@frozen
class WhoAmI(Request[Caller]):
    pass


class Desk(Actor):
    mailbox_capacity = 4

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.owed: list[Later[str]] = []
        self.busy = False
        self.overlapped = False

    @on(Note)
    def note(self, message: Note, turn: Turn[None]) -> None:
        self.notes.append(message.text)

    @on(Notes)
    def list_notes(self, request: Notes, turn: Turn[list[str]]) -> list[str]:
        return list(self.notes)

    @on(Echo)
    def echo(self, request: Echo, turn: Turn[str]) -> str:
        return request.text

    @on(Refuse)
    def refuse(self, request: Refuse, turn: Turn[str]) -> str:
        raise SwarmError(ErrorCode.PRECONDITION, "not today", {"day": "monday"})

    @on(Crash)
    def crash(self, request: Crash, turn: Turn[str]) -> str:
        raise RuntimeError("a bug")

    @on(CrashQuietly)
    def crash_quietly(self, request: CrashQuietly, turn: Turn[None]) -> None:
        raise RuntimeError("a quiet bug")

    @on(Slow)
    async def slow(self, request: Slow, turn: Turn[str]) -> str:
        self.overlapped |= self.busy
        self.busy = True
        await trio.sleep(request.seconds)
        self.busy = False
        return "overlapped" if self.overlapped else "alone"

    @on(Owe)
    def owe(self, request: Owe, turn: Turn[str]) -> None:
        self.owed.append(turn.defer())

    @on(Pay)
    def pay(self, message: Pay, turn: Turn[None]) -> None:
        for later in self.owed:
            later.answer(message.text)
        self.owed.clear()

    @on(WhoAmI)
    def who(self, request: WhoAmI, turn: Turn[Caller]) -> Caller:
        return turn.caller


# --- the table -----------------------------------------------------------------------------------------------------
def test_a_message_handled_twice_fails_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="handles Note twice: first and second"):

        class Twice(Actor):
            @on(Note)
            def first(self, message: Note, turn: Turn[None]) -> None: ...

            @on(Note)
            def second(self, message: Note, turn: Turn[None]) -> None: ...


def test_a_subclass_that_handles_its_parents_message_elsewhere_fails() -> None:
    with pytest.raises(TypeError, match="twice"):

        class Worse(Desk):
            @on(Note)
            def other(self, message: Note, turn: Turn[None]) -> None: ...


def test_what_is_not_a_message_cannot_be_handled() -> None:
    with pytest.raises(TypeError, match="neither"):
        on(str)

    class Bare(Message):
        pass

    with pytest.raises(TypeError, match="not a frozen attrs class"):
        on(Bare)


def test_a_handler_takes_message_and_turn() -> None:
    with pytest.raises(TypeError, match="must take"):

        class Short(Actor):
            @on(Note)
            def note(self, message: Note) -> None: ...


async def test_handlers_are_inherited_and_overridden_by_name() -> None:
    class Loud(Desk):
        def echo(self, request: Echo, turn: Turn[str]) -> str:
            return request.text.upper()

    async with open_scope("test") as scope:
        ref = await scope.start("loud", Loud)
        assert await ref.ask(Echo("a"), timeout_s=1) == "A"
        await ref.tell(Note("kept"))
        assert await ref.ask(Notes(), timeout_s=1) == ["kept"]


async def test_a_message_without_a_handler_is_refused_at_the_sender() -> None:
    @frozen
    class Unknown(Message):
        pass

    async with open_scope("test") as scope:
        ref = await scope.start("desk", Desk)
        assert ref.takes(Note) and not ref.takes(Unknown)
        with pytest.raises(SwarmError, match="test/desk takes no Unknown"):
            ref.offer(Unknown())
        with pytest.raises(SwarmError, match="takes no Unknown"):
            await ref.tell(Unknown())
        with pytest.raises(SwarmError, match="takes no Note"):
            await ref.ask(Note("not a request"), timeout_s=1)  # type: ignore[arg-type,misc]


# --- the four calls ------------------------------------------------------------------------------------------------
async def test_messages_of_one_sender_are_handled_in_order(autojump_clock: Any) -> None:
    async with open_scope("test") as scope:
        ref = await scope.start("desk", Desk)
        for number in range(50):
            await ref.tell(Note(str(number)))
        assert await ref.ask(Notes(), timeout_s=1) == [str(number) for number in range(50)]


async def test_offer_never_waits_and_says_when_there_is_no_room(autojump_clock: Any) -> None:
    async with open_scope("test") as scope:
        ref = await scope.start("desk", Desk)
        assert [ref.offer(Note("x")) for _ in range(6)] == [True] * 4 + [False] * 2
        assert await ref.ask(Notes(), timeout_s=1) == ["x"] * 4


async def test_tell_waits_for_room_and_an_offer_does_not_overtake_it(autojump_clock: Any) -> None:
    async with open_scope("test") as scope, trio.open_nursery() as nursery:
        ref = await scope.start("desk", Desk)
        nursery.start_soon(lambda: ref.ask(Slow(5), timeout_s=10))
        await trio.sleep(0.1)
        for number in range(4):
            assert ref.offer(Note(str(number)))
        nursery.start_soon(ref.tell, Note("waited"))
        await trio.sleep(0.1)
        assert not ref.offer(Note("late"))
        await trio.sleep(5)
        assert await ref.ask(Notes(), timeout_s=1) == ["0", "1", "2", "3", "waited"]


async def test_a_cancelled_tell_leaves_the_line(autojump_clock: Any) -> None:
    async with open_scope("test") as scope, trio.open_nursery() as nursery:
        ref = await scope.start("desk", Desk)
        nursery.start_soon(lambda: ref.ask(Slow(5), timeout_s=10))
        await trio.sleep(0.1)
        while ref.offer(Note("x")):
            pass
        with trio.move_on_after(1) as patience:
            await ref.tell(Note("given up"))
        assert patience.cancelled_caught
        assert "given up" not in await ref.ask(Notes(), timeout_s=10)


async def test_a_refusal_is_an_answer_and_the_actor_lives() -> None:
    async with open_scope("test") as scope:
        ref = await scope.start("desk", Desk, restart=Restart.NEVER)
        with pytest.raises(SwarmError) as refusal:
            await ref.ask(Refuse(), timeout_s=1)
        assert refusal.value.code is ErrorCode.PRECONDITION
        assert refusal.value.details == {"day": "monday"}
        assert await ref.ask(Echo("alive"), timeout_s=1) == "alive"


async def test_one_turn_at_a_time(autojump_clock: Any) -> None:
    async with open_scope("test") as scope, trio.open_nursery() as nursery:
        ref = await scope.start("desk", Desk)
        for _ in range(3):
            nursery.start_soon(lambda: ref.ask(Slow(1), timeout_s=10))
        await trio.sleep(0.5)
        assert await ref.ask(Slow(1), timeout_s=10) == "alone"
        assert trio.current_time() >= 4


async def test_local_callers_have_the_role_actor() -> None:
    async with open_scope("test") as scope:
        ref = await scope.start("desk", Desk)
        assert await ref.ask(WhoAmI(), timeout_s=1) == Caller.here()
        assert Caller.here().role == "actor" and Caller.here().is_local_actor
        worker = Caller("node1", "worker", "cluster1", "10.0.0.1:99")
        assert await ref.ask(WhoAmI(), timeout_s=1, caller=worker) == worker


# --- deadlines -----------------------------------------------------------------------------------------------------
async def test_an_ask_times_out(autojump_clock: Any) -> None:
    async with open_scope("test") as scope:
        ref = await scope.start("desk", Desk)
        with pytest.raises(AskTimeout, match="test/desk did not answer Slow"):
            await ref.ask(Slow(10), timeout_s=2)
        assert trio.current_time() == pytest.approx(2, abs=0.5)


@frozen
class Append(Request[None]):
    text: str


class Log(Desk):
    @on(Append)
    def append(self, request: Append, turn: Turn[None]) -> None:
        self.notes.append(request.text)


async def test_a_message_past_its_deadline_is_dropped_unhandled(autojump_clock: Any) -> None:
    async with open_scope("test") as scope, trio.open_nursery() as nursery:
        ref = await scope.start("log", Log)
        nursery.start_soon(lambda: ref.ask(Slow(5), timeout_s=10))
        await trio.sleep(0.1)
        with pytest.raises(AskTimeout):
            await ref.ask(Append("late"), timeout_s=1)
        failed: list[Any] = []
        ref.deliver(
            Append("delivered late"),
            caller=Caller.here(),
            deadline=trio.current_time() + 1,
            chain=(),
            on_done=lambda call: failed.append(call.error),
        )
        await trio.sleep(10)
        assert await ref.ask(Notes(), timeout_s=1) == []
        assert [type(error) for error in failed] == [AskTimeout]


@frozen
class Pass(Request[str]):
    """Ask the next one, patiently."""

    to: LocalRef
    timeout_s: float = 100.0
    request: Request[str] = Slow(50)


class Middle(Actor):
    @on(Pass)
    async def pass_on(self, request: Pass, turn: Turn[str]) -> str:
        return await request.to.ask(request.request, timeout_s=request.timeout_s)


async def test_the_deadline_travels(autojump_clock: Any) -> None:
    async with open_scope("test") as scope:
        desk = await scope.start("desk", Desk)
        middle = await scope.start("middle", Middle)
        with pytest.raises(AskTimeout):
            await middle.ask(Pass(desk), timeout_s=3)
        await trio.lowlevel.checkpoint()
        # the inner ask has ended with the outer one: the middle takes messages again, long before its own 100 s
        with pytest.raises(AskTimeout):
            await middle.ask(Pass(desk), timeout_s=1)
        assert trio.current_time() < 10
        scope.cancel("done")


# --- asks that come back -------------------------------------------------------------------------------------------
async def test_an_ask_that_would_come_back_is_refused(autojump_clock: Any) -> None:
    async with open_scope("test") as scope:
        one = await scope.start("one", Middle)
        two = await scope.start("two", Middle)
        with pytest.raises(WouldDeadlock, match="test/one > test/two"):
            await one.ask(Pass(two, request=Pass(one, request=Echo("never"))), timeout_s=10)
        with pytest.raises(WouldDeadlock):
            await one.ask(Pass(one), timeout_s=10)
        assert trio.current_time() == 0


async def test_an_explicit_chain_is_honoured() -> None:
    async with open_scope("test") as scope:
        desk = await scope.start("desk", Desk)
        with pytest.raises(WouldDeadlock):
            await desk.ask(Echo("x"), timeout_s=1, chain=("far@node2", "test/desk"))
        assert await desk.ask(Echo("x"), timeout_s=1, chain=("test/desk@node2",)) == "x"


@frozen
class AskBackFromJob(Request[str]):
    back: LocalRef


@frozen
class Relay(Request[str]):
    to: LocalRef


class Worker(Actor):
    @on(AskBackFromJob)
    def ask_back(self, request: AskBackFromJob, turn: Turn[str]) -> None:
        self.answer_in_job(turn, self.really_ask, request.back)

    async def really_ask(self, back: LocalRef) -> str:
        return await back.ask(Echo("from a job"), timeout_s=5)


class Blocked(Desk):
    @on(Relay)
    async def relay(self, request: Relay, turn: Turn[str]) -> str:
        return await request.to.ask(AskBackFromJob(self.ref), timeout_s=5)


class Free(Desk):
    @on(Relay)
    def relay(self, request: Relay, turn: Turn[str]) -> None:
        async def work() -> str:
            return await request.to.ask(AskBackFromJob(self.ref), timeout_s=5)

        self.answer_in_job(turn, work)


async def test_the_chain_goes_through_jobs(autojump_clock: Any) -> None:
    async with open_scope("test") as scope:
        worker = await scope.start("worker", Worker)
        blocked = await scope.start("blocked", Blocked)
        with pytest.raises(WouldDeadlock):
            await blocked.ask(Relay(worker), timeout_s=10)
        assert trio.current_time() == 0


async def test_an_actor_that_asks_from_a_job_can_be_asked_back() -> None:
    async with open_scope("test") as scope:
        worker = await scope.start("worker", Worker)
        free = await scope.start("free", Free)
        assert await free.ask(Relay(worker), timeout_s=10) == "from a job"


@frozen
class Fill(Request[None]):
    """Tell the other until its mailbox is full."""

    other: LocalRef
    back: bool = False


class Chatty(Desk):
    @on(Fill)
    async def fill(self, request: Fill, turn: Turn[None]) -> None:
        if request.back:
            await trio.sleep(1)
        for _ in range(self.mailbox_capacity + 1):
            await request.other.tell(Note("x"))


async def test_tells_that_wait_in_a_circle_are_refused(autojump_clock: Any) -> None:
    async with open_scope("test") as scope:
        one = await scope.start("one", Chatty)
        two = await scope.start("two", Chatty)
        with pytest.raises(WouldDeadlock, match="tell from a job, or offer"):
            await one.ask(Fill(one), timeout_s=10)
        results: list[str] = []

        async def fill(ref: LocalRef, request: Fill) -> None:
            try:
                await ref.ask(request, timeout_s=100)
                results.append("done")
            except WouldDeadlock:
                results.append("refused")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill, one, Fill(two, back=True))
            nursery.start_soon(fill, two, Fill(one, back=True))
        assert sorted(results) == ["done", "refused"]


# --- deferred replies ----------------------------------------------------------------------------------------------
async def test_a_deferred_reply_is_given_from_another_turn(autojump_clock: Any) -> None:
    async with open_scope("test") as scope, trio.open_nursery() as nursery:
        ref = await scope.start("desk", Desk)
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await ref.ask(Owe(), timeout_s=10))

        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.sleep(1)
        assert answers == []
        await ref.tell(Pay("paid"))
        await trio.sleep(1)
        assert answers == ["paid", "paid"]


async def test_a_one_way_message_has_no_reply_to_defer() -> None:
    class Wrong(Actor):
        @on(Note)
        def note(self, message: Note, turn: Turn[None]) -> None:
            turn.defer()

    with pytest.raises(ActorFailed) as failed:
        async with open_scope("test") as scope:
            ref = await scope.start("wrong", Wrong, restart=Restart.NEVER)
            await ref.tell(Note("x"))
            await trio.sleep_forever()
    assert isinstance(failed.value.__cause__, TypeError)


async def test_deferred_replies_of_an_actor_that_dies_fail_at_once(autojump_clock: Any) -> None:
    async with open_scope("test") as scope, trio.open_nursery() as nursery:
        ref = await scope.start("desk", Desk)

        async def ask() -> None:
            with pytest.raises(ActorDied, match="test/desk crashed"):
                await ref.ask(Owe(), timeout_s=1000)

        nursery.start_soon(ask)
        await trio.sleep(1)
        await ref.tell(CrashQuietly())
    assert trio.current_time() < 2


async def test_a_deferred_reply_hears_that_the_asker_gave_up(autojump_clock: Any) -> None:
    gone: list[str] = []

    class Patient(Actor):
        @on(Owe)
        def owe(self, request: Owe, turn: Turn[str]) -> None:
            later = turn.defer()
            later.on_cancel(lambda: gone.append("gone"))
            self.later = later

        @on(Echo)
        def late(self, request: Echo, turn: Turn[str]) -> str:
            assert self.later.done
            self.later.answer("nobody hears this")
            return "fine"

    async with open_scope("test") as scope:
        ref = await scope.start("patient", Patient)
        with pytest.raises(AskTimeout):
            await ref.ask(Owe(), timeout_s=1)
        assert gone == ["gone"]
        assert await ref.ask(Echo(""), timeout_s=1) == "fine"


async def test_answering_in_a_job_cancels_the_job_when_the_asker_gives_up(autojump_clock: Any) -> None:
    log: list[str] = []

    class Busy(Actor):
        @on(Slow)
        def slow(self, request: Slow, turn: Turn[str]) -> None:
            self.answer_in_job(turn, self.work, request.seconds)

        @on(Refuse)
        def refuse(self, request: Refuse, turn: Turn[str]) -> None:
            self.answer_in_job(turn, self.fail)

        async def work(self, seconds: float) -> str:
            try:
                await trio.sleep(seconds)
            finally:
                log.append("ended")
            return "worked"

        async def fail(self) -> str:
            raise SwarmError(ErrorCode.DENIED, "no")

    async with open_scope("test") as scope:
        ref = await scope.start("busy", Busy, restart=Restart.NEVER)
        assert await ref.ask(Slow(1), timeout_s=2) == "worked"
        with pytest.raises(SwarmError, match="no"):
            await ref.ask(Refuse(), timeout_s=2)
        with pytest.raises(AskTimeout):
            await ref.ask(Slow(100), timeout_s=1)
        await trio.sleep(0.01)
        assert log == ["ended", "ended"]
        assert trio.current_time() < 5


async def test_deliver_answers_by_callback_and_can_be_given_up(autojump_clock: Any) -> None:
    async with open_scope("test") as scope:
        ref = await scope.start("desk", Desk)
        done: list[Any] = []

        def deliver(request: Request[Any]) -> Any:
            return ref.deliver(
                request, caller=Caller("n1", "worker"), deadline=float("inf"), chain=(), on_done=done.append
            )

        deliver(Echo("x"))
        deliver(Refuse())
        owed = deliver(Owe())
        await trio.sleep(0.1)
        owed.give_up()
        assert [(call.value, call.error and call.error.code) for call in done] == [
            ("x", None),
            (None, ErrorCode.PRECONDITION),
        ]
        done.clear()
        waiting = [deliver(Echo(str(number))) for number in range(6)]  # two more than the mailbox holds: they wait
        waiting[5].give_up()
        await trio.sleep(0.1)
        assert [call.value for call in done] == ["0", "1", "2", "3", "4"]
