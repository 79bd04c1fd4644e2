"""What a command says while it waits, where no terminal is: changes, reminders, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from swarm.commands import progress
from swarm.commands.context import Context, Exit
from swarm.commands.progress import REMIND_S, Display, Wait, wait_for_drain, wait_for_service
from swarm.model.ids import NodeId, ServiceId
from swarm.model.objects import Node, Service
from swarm.model.specs import NodeSpec, ProcessSpec, ServiceSpec, TaskSpec
from swarm.runtime.errors import AskTimeout, ErrorCode, SwarmError
from swarm.wire.messages.control import DrainProgress, ServiceProgress


class Clock:
    """Seconds that the test moves on."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Daemon:
    """Answers each subscription with the next of `streams`: items, then an error if it ends with one."""

    def __init__(self, *streams: list[Any]) -> None:
        self._streams = iter(streams)

    def stream(self, request: Any, timeout_s: float | None, idle: Callable[[], None]) -> Iterator[Any]:
        for item in next(self._streams):
            if isinstance(item, BaseException):
                raise item
            yield item


SERVICE = Service(ServiceId("s"), ServiceSpec("web", TaskSpec(ProcessSpec(("sleep", "600")))))
NODE = Node(NodeId("n1"), NodeSpec())
DONE = ServiceProgress(SERVICE.id, "replicated", 2, 2, converged=True)


def waits(*blocked: str, running: int = 1) -> ServiceProgress:
    return ServiceProgress(SERVICE.id, "replicated", 2, running, False, text=f"{running} of 2 running", blocked=blocked)


def service_exit(*streams: list[Any], wait: Wait | None = None, removal: bool = False) -> int:
    """The exit code of a command that waits for the service."""
    try:
        wait_for_service(cast("Context", Daemon(*streams)), SERVICE, wait or Wait(), removal)
    except SystemExit as end:
        return int(cast("int", end.code))
    return Exit.DONE


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "pause", lambda seconds: None)


# --- lines -----------------------------------------------------------------------------------------------------------
def test_a_countdown_alone_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    counted = [waits(f"abc starts in {seconds} s, after its restart delay") for seconds in range(9, 0, -1)]
    assert service_exit([*counted, DONE]) == Exit.DONE
    assert capsys.readouterr().err.splitlines() == [
        "web: 1 of 2 running, abc starts in 9 s, after its restart delay",
        "web: 2/2 converged",
    ]


def test_what_is_waited_for_is_said_again_after_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    display = Display(quiet=False, clock=clock)
    display.remind()
    display.show("b: 2 tasks still here")
    for _ in range(int(3 * REMIND_S)):
        clock.now_s += 1
        display.remind()
    display.show("b: drained")
    assert capsys.readouterr().err.splitlines() == [
        "b: 2 tasks still here",
        "b: 2 tasks still here (for 10 s now)",
        "b: 2 tasks still here (for 20 s now)",
        "b: 2 tasks still here (for 30 s now)",
        "b: drained",
    ]


def test_a_countdown_that_moves_is_a_reminder_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    display = Display(quiet=False, clock=clock)
    for left in range(15, 0, -1):
        display.show(f"web: starts in {left} s")
        clock.now_s += 1
    assert capsys.readouterr().err.splitlines() == ["web: starts in 15 s", "web: starts in 5 s (for 10 s now)"]


def test_a_service_that_is_scaled_to_nothing_ends_with_what_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    stopping = ServiceProgress(SERVICE.id, "replicated", 0, 0, False, text="2 still to stop", stopping=2)
    stopped = ServiceProgress(SERVICE.id, "replicated", 0, 0, True, text="stopped, none runs")
    assert service_exit([stopping, stopped]) == Exit.DONE
    assert capsys.readouterr().err.splitlines() == ["web: 2 still to stop", "web: stopped, none runs"]


def test_a_quiet_wait_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert service_exit([waits(), DONE], wait=Wait(quiet=True)) == Exit.DONE
    assert capsys.readouterr().err == ""


# --- how it ends -------------------------------------------------------------------------------------------------------
def test_ctrl_c_is_no_error_and_says_how_to_go_on_watching(capsys: pytest.CaptureFixture[str]) -> None:
    assert service_exit([waits(), KeyboardInterrupt()]) == Exit.NOT_CONVERGED
    assert capsys.readouterr().err.splitlines()[1:] == [
        "no longer waiting: the change of web goes on; swarm svc ps web shows how far it is"
    ]
    assert service_exit([waits(), KeyboardInterrupt()], removal=True) == Exit.NOT_CONVERGED
    assert "the removal of web goes on" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        wait_for_drain(cast("Context", Daemon([DrainProgress(NODE.id, 2, False), KeyboardInterrupt()])), NODE, Wait())
    assert end.value.code == Exit.NOT_CONVERGED
    assert capsys.readouterr().err.splitlines() == [
        "n1: 2 tasks still here",
        "no longer waiting: the drain of n1 goes on; swarm node inspect n1 shows what still runs there",
    ]


def test_a_daemon_that_answers_late_is_asked_again_and_is_not_the_end_of_the_wait() -> None:
    late = AskTimeout("the store did not answer within 20 s")
    assert service_exit([late], [waits(), late], [DONE]) == Exit.DONE
    assert service_exit([waits(), late], wait=Wait(timeout_s=0.0)) == Exit.NOT_CONVERGED


def test_a_stream_that_always_breaks_is_given_up() -> None:
    gone = SwarmError(ErrorCode.UNAVAILABLE, "the leader changed")
    assert service_exit(*[[waits(), gone]] * progress.RESUBSCRIBE_MAX) == Exit.UNREACHABLE
