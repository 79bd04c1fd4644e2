"""What every executor must do, as tests: subclass `ExecutorSuite`, give it a harness, and run it with pytest and trio.

    class TestMine(ExecutorSuite):
        @pytest.fixture
        def harness(self, tmp_path): return MyHarness(tmp_path)

Its one idea: the contract of `executors.base` is about second calls: after a cancel, after a crash of the agent, by an
executor object that never saw the first. So nearly everything here is done twice, or by two executors.

The suite imports no test runner; `harness` is a fixture of the subclass. Real executors take real time here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from attrs import frozen

from swarm.executors.base import Controller, Executor, ExecutorError, LogOptions, Stream, Workload
from swarm.model.ids import Instant, TaskId
from swarm.model.specs import GenericSpec, NodeDescription

CASE_TIMEOUT_S = 60.0
PROMPT_S = 8.0
"""More than a started task needs to end by itself; less than the grace of a task that ignores its stop signal."""
LONG_GRACE_S = 20.0
SHORT_GRACE_S = 0.3
CANCEL_AFTER_S = (0.0, 0.002, 0.02, 0.2)
"""Where a method is cut off: at its first wait, and at points that fall anywhere in it."""


@frozen
class Behaviour:
    """What a test asks of a workload: print, then run for a while (None: until stopped), then exit."""

    out: tuple[str, ...] = ()
    err: tuple[str, ...] = ()
    runs_s: float | None = 0.0
    exit_code: int = 0
    ignores_stop: bool = False
    grace_s: float = LONG_GRACE_S

    def shell_script(self) -> str:
        """The same as a script for `sh -c`, for runtimes that can run a shell."""
        lines = [f"echo '{line}'" for line in self.out] + [f"echo '{line}' >&2" for line in self.err]
        trap = ["trap '' TERM" if self.ignores_stop else "trap 'exit 143' TERM"]
        body = "while :; do sleep 0.05; done" if self.runs_s is None else f"sleep {self.runs_s:g}"
        return "; ".join([*trap, *lines, body, f"exit {self.exit_code}"])


class Harness(Protocol):
    """What the suite must be able to ask of the runtime under test."""

    def executor(self) -> Executor:
        """A new executor object of the same node: what a restarted agent would make."""
        ...

    def workload(self, behaviour: Behaviour) -> Workload:
        """A new task, with an id of its own, that behaves so."""
        ...

    def broken_workload(self) -> Workload:
        """A task that can never run: its program or image does not exist."""
        ...

    async def leftovers(self, task_id: TaskId) -> list[str]:
        """Whatever of this task can be found on the machine by other means than the executor: files, processes."""
        ...


class ExecutorSuite:
    """The tests. Each makes what it needs and removes it."""

    # --- endings ---------------------------------------------------------------------------------------------------
    async def test_exit_code_is_told(self, harness: Harness) -> None:
        for code in (0, 7):
            async with _task(harness, Behaviour(exit_code=code)) as case:
                await _start(case.controller)
                assert (await case.controller.wait()).code == code

    async def test_end_is_told_again_to_whoever_asks_later(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(exit_code=3)) as case:
            await _start(case.controller)
            for _ in range(2):
                assert (await case.controller.wait()).code == 3
            assert (await case.adopted().wait()).code == 3
            assert (await case.controller.shutdown()).code == 3

    async def test_two_wait_at_once(self, harness: Harness) -> None:
        codes: list[int | None] = []
        async with _task(harness, Behaviour(runs_s=0.3, exit_code=4)) as case:
            await _start(case.controller)

            async def wait() -> None:
                codes.append((await case.controller.wait()).code)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                nursery.start_soon(wait)
        assert codes == [4, 4]

    async def test_what_cannot_run_is_refused_in_words(self, harness: Harness) -> None:
        workload = harness.broken_workload()
        with trio.fail_after(CASE_TIMEOUT_S):
            try:
                await _start(harness.executor().controller(workload))
            except ExecutorError as error:
                assert len(str(error)) > 10
            else:
                raise AssertionError("a task that cannot run was started")
            finally:
                await harness.executor().discard(workload.task_id)

    async def test_foreign_runtime_is_refused(self, harness: Harness) -> None:
        import attrs

        workload = harness.workload(Behaviour())
        task = attrs.evolve(workload.spec.task, runtime=GenericSpec(kind="no-such-runtime"))
        foreign = attrs.evolve(workload, spec=attrs.evolve(workload.spec, task=task))
        try:
            harness.executor().controller(foreign)
        except ExecutorError:
            return
        raise AssertionError("a task of another runtime was accepted")

    # --- second calls ----------------------------------------------------------------------------------------------
    async def test_prepare_and_start_twice_are_once(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(runs_s=None)) as case:
            await case.controller.prepare()
            await case.controller.prepare()
            assert case.workload.task_id in await case.executor.known_tasks()
            first = await case.controller.start()
            assert await case.controller.start() == first
            await case.controller.prepare()
            assert await case.controller.start() == first

    async def test_stop_of_what_never_ran(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(runs_s=None)) as case:
            await case.controller.shutdown()
            await case.controller.terminate()
            await case.controller.prepare()
            await case.controller.terminate()
            await case.controller.shutdown()

    async def test_remove_in_every_state_and_twice(self, harness: Harness) -> None:
        async def nothing(_: Controller) -> None: ...
        async def prepared(controller: Controller) -> None:
            await controller.prepare()

        async def ended(controller: Controller) -> None:
            await _start(controller)
            await controller.shutdown()

        for reach in (nothing, prepared, _start, ended):
            async with _task(harness, Behaviour(out=("x",), runs_s=None)) as case:
                await reach(case.controller)
                await case.controller.remove()
                assert await harness.leftovers(case.workload.task_id) == []
                assert case.workload.task_id not in await case.executor.known_tasks()
                await case.controller.remove()

    async def test_discard_needs_only_the_id(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(runs_s=None)) as case:
            await _start(case.controller)
            fresh = case.restarted()
            assert case.workload.task_id in await fresh.known_tasks()
            await fresh.discard(case.workload.task_id)
            assert await harness.leftovers(case.workload.task_id) == []
            await fresh.discard(case.workload.task_id)

    # --- stopping --------------------------------------------------------------------------------------------------
    async def test_shutdown_gives_time_to_end(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(out=("up",), runs_s=None)) as case:
            await _start(case.controller)
            await _line(case.controller, b"up")
            with trio.fail_after(PROMPT_S):
                assert (await case.controller.shutdown()).code == 143
                assert (await case.controller.shutdown()).code == 143

    async def test_shutdown_kills_after_the_grace(self, harness: Harness) -> None:
        behaviour = Behaviour(out=("up",), runs_s=None, ignores_stop=True, grace_s=SHORT_GRACE_S)
        async with _task(harness, behaviour) as case:
            await _start(case.controller)
            await _line(case.controller, b"up")
            assert (await case.controller.shutdown()).code == 137
            assert (await case.adopted().wait()).code == 137

    async def test_terminate_does_not_ask(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(out=("up",), runs_s=None, ignores_stop=True)) as case:
            await _start(case.controller)
            await _line(case.controller, b"up")
            with trio.fail_after(PROMPT_S):
                await case.controller.terminate()
                await case.controller.terminate()
                assert (await case.controller.wait()).code == 137

    # --- adoption --------------------------------------------------------------------------------------------------
    async def test_running_task_is_adopted(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(runs_s=1.0, exit_code=5)) as case:
            await case.controller.prepare()
            first = await case.controller.start()
            fresh = case.restarted()
            assert case.workload.task_id in await fresh.known_tasks()
            adopted = fresh.controller(case.workload)
            await adopted.prepare()
            again = await adopted.start()
            assert (again.pid, again.handle, again.ports) == (first.pid, first.handle, first.ports)
            assert (await adopted.wait()).code == 5

    async def test_end_while_nobody_looked_is_known(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(out=("bye",), exit_code=9)) as case:
            await _start(case.controller)
            await trio.sleep(0.5)
            adopted = case.adopted()
            assert (await adopted.wait()).code == 9
            assert await _read(adopted, LogOptions()) == [b"bye"]

    # --- cancellation ----------------------------------------------------------------------------------------------
    async def test_a_cancelled_call_can_be_made_again(self, harness: Harness) -> None:
        for after_s in CANCEL_AFTER_S:
            async with _task(harness, Behaviour(out=("up",), runs_s=None, exit_code=0)) as case:

                async def cut(call: Callable[[], Awaitable[object]], after_s: float = after_s) -> None:
                    with trio.move_on_after(after_s):
                        await call()

                await cut(case.controller.prepare)
                await case.controller.prepare()
                await cut(case.controller.start)
                running = await case.controller.start()
                assert await case.controller.start() == running
                await cut(case.controller.wait)
                await _line(case.controller, b"up")
                await cut(case.controller.shutdown)
                assert (await case.controller.shutdown()).code in (143, 137)
                await cut(case.controller.terminate)
                await case.controller.terminate()
                await cut(case.controller.remove)
                await case.controller.remove()
                assert await harness.leftovers(case.workload.task_id) == []

    # --- output ----------------------------------------------------------------------------------------------------
    async def test_output_is_kept(self, harness: Harness) -> None:
        lines = tuple(f"line {number}" for number in range(20))
        async with _task(harness, Behaviour(out=lines, err=("oops",))) as case:
            await _start(case.controller)
            await case.controller.wait()
            expected = [line.encode() for line in lines]
            assert await _read(case.controller, LogOptions(streams=(Stream.STDOUT,))) == expected
            assert await _read(case.controller, LogOptions(streams=(Stream.STDERR,))) == [b"oops"]
            assert sorted(await _read(case.controller, LogOptions())) == sorted([*expected, b"oops"])

    async def test_tail(self, harness: Harness) -> None:
        lines = tuple(f"line {number}" for number in range(20))
        async with _task(harness, Behaviour(out=lines)) as case:
            await _start(case.controller)
            await case.controller.wait()
            for tail in (0, 1, 3, 100):
                expected = [line.encode() for line in lines][max(0, 20 - tail) :]
                assert await _read(case.controller, LogOptions(tail=tail)) == expected

    async def test_since(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(out=("early",))) as case:
            await _start(case.controller)
            await case.controller.wait()
            (stamp,) = [line.at async for line in case.controller.logs(LogOptions())]
            assert await _read(case.controller, LogOptions(since=Instant(stamp - 5))) == [b"early"]
            assert await _read(case.controller, LogOptions(since=Instant(stamp + 5))) == []

    async def test_follow_ends_with_the_task(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(out=("one", "two"), runs_s=0.6, exit_code=1)) as case:
            await _start(case.controller)
            assert await _read(case.controller, LogOptions(follow=True)) == [b"one", b"two"]
            assert (await case.controller.wait()).code == 1
            assert await _read(case.controller, LogOptions(follow=True)) == [b"one", b"two"]

    async def test_output_survives_the_stop(self, harness: Harness) -> None:
        async with _task(harness, Behaviour(out=("up",), runs_s=None)) as case:
            await _start(case.controller)
            await _line(case.controller, b"up")
            await case.controller.shutdown()
            assert await _read(case.controller, LogOptions(follow=True, streams=(Stream.STDOUT,))) == [b"up"]

    # --- the node --------------------------------------------------------------------------------------------------
    async def test_description_adds_to_what_is_known(self, harness: Harness) -> None:
        executor = harness.executor()
        base = NodeDescription(hostname="here", executors=("another",), engine_labels={"a": "b"})
        described = await executor.describe(base)
        assert described.hostname == "here"
        assert set(described.executors) == {"another", executor.kind}
        assert described.engine_labels["a"] == "b"
        assert described.resources.nano_cpus > 0
        assert described.resources.memory_bytes > 0
        assert described.platform.os

    async def test_unknown_tasks_are_not_known(self, harness: Harness) -> None:
        workload = harness.workload(Behaviour())
        assert workload.task_id not in await harness.executor().known_tasks()


@frozen
class Case:
    """One task of one node."""

    executor: Executor
    controller: Controller
    workload: Workload
    restarted: Callable[[], Executor]
    """Another executor object of the same node, as a restarted agent makes it; its background work runs as well."""

    def adopted(self) -> Controller:
        """The task's controller of a restarted agent."""
        return self.restarted().controller(self.workload)


@asynccontextmanager
async def _task(harness: Harness, behaviour: Behaviour) -> AsyncIterator[Case]:
    """A task of an executor whose background work runs; all of it is removed at the end."""
    with trio.fail_after(CASE_TIMEOUT_S):
        async with trio.open_nursery() as nursery:

            def run_executor() -> Executor:
                executor = harness.executor()
                nursery.start_soon(executor.run)
                return executor

            executor = run_executor()
            workload = harness.workload(behaviour)
            controller = executor.controller(workload)
            try:
                yield Case(executor, controller, workload, run_executor)
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(CASE_TIMEOUT_S):
                    await controller.remove()
            nursery.cancel_scope.cancel()


async def _start(controller: Controller) -> None:
    await controller.prepare()
    await controller.start()


async def _read(controller: Controller, options: LogOptions) -> list[bytes]:
    return [line.data async for line in controller.logs(options)]


async def _line(controller: Controller, wanted: bytes) -> None:
    """Waits until the task has printed this line: it has set its signal handling by then."""
    async for line in controller.logs(LogOptions(follow=True)):
        if line.data == wanted:
            return
    raise AssertionError(f"the task never printed {wanted!r}")
