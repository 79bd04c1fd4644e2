"""Waiting with a display: what converges, what it waits for, and for how long. Everything goes to stderr.

On a terminal one line is rewritten in place; elsewhere a line is printed whenever something changed, and a reminder now and
then. Whoever is interrupted while it waits says that what was asked for goes on, and how to look.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

from attrs import frozen

from swarm.commands import output
from swarm.commands.context import Context, Exit, fail, stop
from swarm.model.objects import Node, Service
from swarm.ports.clock import monotonic_seconds, pause
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.message import Subscribe
from swarm.wire.messages.control import DrainProgress, ServiceProgress, WatchDrain, WatchService

T = TypeVar("T")

HOLD_S = 1.0
"""A service has converged when all that is wanted has run for this long: programs that cannot start end within it."""
RESUBSCRIBE_MAX = 10
"""How often a broken progress stream is opened again (a leader change ends it) before giving up."""
RESUBSCRIBE_PAUSE_S = 0.5
REMIND_S = 10.0
"""Without a terminal, what is still waited for is said again after this long: a log that stands still looks like a hang."""
_AGAIN = frozenset(
    {ErrorCode.UNAVAILABLE, ErrorCode.NOT_LEADER, ErrorCode.OVERRUN, ErrorCode.ACTOR_DIED, ErrorCode.TIMEOUT}
)
_COUNTDOWN = re.compile(r"\b\d+ s\b")


@frozen
class Wait:
    """How a command waits: not at all, or until convergence or the time-out (None: for ever)."""

    detach: bool = False
    timeout_s: float | None = None
    quiet: bool = False


class Display:
    """The changing line; `clock` gives seconds that only move forward."""

    def __init__(self, quiet: bool, clock: Callable[[], float] = monotonic_seconds) -> None:
        self._quiet = quiet
        self._clock = clock
        self._terminal = sys.stderr.isatty()
        self._last = ""
        self._began_s = self._told_s = clock()

    def show(self, text: str) -> None:
        """Replace the line, or print a new one when more than a countdown differs."""
        if self._quiet or text == self._last:
            return
        is_news = _COUNTDOWN.sub("", text) != _COUNTDOWN.sub("", self._last)
        self._last = text
        if self._terminal:
            output.tell(f"\r\x1b[K{text}")
        elif is_news:
            self._tell(text)
        else:
            self.remind()

    def remind(self) -> None:
        """Without a terminal, say again what is waited for once nothing was said for `REMIND_S`."""
        now_s = self._clock()
        if self._last and not self._terminal and now_s - self._told_s >= REMIND_S:
            self._tell(f"{self._last} (for {now_s - self._began_s:.0f} s now)")

    def _tell(self, line: str) -> None:
        self._told_s = self._clock()
        output.tell(f"{line}\n")

    def end(self) -> None:
        """Leave the last line standing."""
        if self._terminal and self._last:
            output.tell("\n")


def wait_for_service(context: Context, service: Service, wait: Wait, removal: bool = False) -> None:
    """Until the service has converged (or is gone); ends the command with its exit code otherwise."""
    name = service.spec.name
    display = Display(wait.quiet)
    last: ServiceProgress | None = None
    try:
        request = WatchService(service.id, hold_s=0.0 if removal else HOLD_S)
        for last in _items(context, request, wait, display):
            display.show(_service_line(name, last, removal))
            if last.removed:
                break
            if last.failed and not removal:
                display.end()
                stop(f"{name} failed: {last.text}", Exit.FAILED, last.last_error)
            if last.converged and not removal:
                break
    except TimeoutError:
        display.end()
        waited = _service_line(name, last, removal) if last is not None else f"{name}: nothing known yet"
        hint = f"swarm svc why {name} tells more; what was asked for stays declared"
        stop(f"not converged after {wait.timeout_s:g} s: {waited}", Exit.NOT_CONVERGED, hint)
    except KeyboardInterrupt:
        display.end()
        if removal:
            _interrupted(f"the removal of {name} goes on", "swarm svc ls shows it until its last task is gone")
        _interrupted(f"the change of {name} goes on", f"swarm svc ps {name} shows how far it is")
    display.end()
    if last is not None and last.removed and not removal:
        stop(f"{name} was removed meanwhile", Exit.FAILED)


def _service_line(name: str, progress: ServiceProgress, removal: bool) -> str:
    if removal:
        return ", ".join([f"{name}: {progress.text}", *progress.blocked[:2]])
    counts = f"{progress.running}/{progress.desired}" if progress.desired else ""
    if progress.converged and counts:
        return f"{name}: {counts} converged"
    told = not counts or progress.text.startswith(f"{progress.running} of {progress.desired} ")
    parts = ["" if told else counts, progress.text, *progress.blocked[:2], progress.last_error]
    return f"{name}: " + ", ".join(part for part in parts if part)


def wait_for_drain(context: Context, node: Node, wait: Wait) -> None:
    """Until no task runs on the node any more."""
    name = node.description.hostname or node.id
    display = Display(wait.quiet)
    last: DrainProgress | None = None
    try:
        for last in _items(context, WatchDrain(node.id), wait, display):
            blocked = "".join(f", {text}" for text in last.blocked[:2])
            display.show(
                f"{name}: drained" if last.converged else f"{name}: {output.tasks(last.remaining)} still here{blocked}"
            )
            if last.converged:
                break
    except TimeoutError:
        display.end()
        remaining = output.tasks(last.remaining) if last is not None else "all tasks"
        stop(f"{name} not drained after {wait.timeout_s:g} s: {remaining} still there", Exit.NOT_CONVERGED)
    except KeyboardInterrupt:
        display.end()
        _interrupted(f"the drain of {name} goes on", f"swarm node inspect {name} shows what still runs there")
    display.end()


def _interrupted(what_goes_on: str, how_to_look: str) -> NoReturn:
    """End the command after Ctrl-C: that is no error, and nothing is taken back by it."""
    output.note(f"no longer waiting: {what_goes_on}; {how_to_look}")
    raise SystemExit(int(Exit.NOT_CONVERGED))


def _items(context: Context, request: Subscribe[T], wait: Wait, display: Display) -> Iterator[T]:
    """The stream's items, opened again after a leader change; `TimeoutError` when the wait is over."""
    deadline = _deadline(wait.timeout_s)
    for attempt in range(RESUBSCRIBE_MAX):
        try:
            yield from context.stream(request, timeout_s=deadline(), idle=display.remind)
            return
        except SwarmError as error:
            if error.code is ErrorCode.TIMEOUT and deadline() == 0.0:
                raise TimeoutError from None
            if error.code not in _AGAIN or attempt == RESUBSCRIBE_MAX - 1:
                fail(error)
            output.note(f"note: {error.text}; asking again")
            pause(RESUBSCRIBE_PAUSE_S)


def _deadline(timeout_s: float | None) -> Callable[[], float | None]:
    if timeout_s is None:
        return lambda: None
    end = monotonic_seconds() + timeout_s
    return lambda: max(0.0, end - monotonic_seconds())
