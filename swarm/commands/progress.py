"""Waiting with a display: what converges, what it waits for, and for how long. Everything goes to stderr.

On a terminal one line is rewritten in place; elsewhere a line is printed whenever something changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

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
_AGAIN = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.NOT_LEADER, ErrorCode.OVERRUN, ErrorCode.ACTOR_DIED})


@frozen
class Wait:
    """How a command waits: not at all, or until convergence or the time-out (None: for ever)."""

    detach: bool = False
    timeout_s: float | None = None
    quiet: bool = False


class Display:
    """The changing line."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def show(self, text: str) -> None:
        """Replace the line, or print a new one when it differs."""
        if self._quiet or text == self._last:
            return
        self._last = text
        output.tell(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")

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
        for last in _items(context, WatchService(service.id, hold_s=0.0 if removal else HOLD_S), wait):
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
        stop("stopped waiting; the service goes on converging", Exit.NOT_CONVERGED, f"swarm svc ps {name}")
    display.end()
    if last is not None and last.removed and not removal:
        stop(f"{name} was removed meanwhile", Exit.FAILED)


def _service_line(name: str, progress: ServiceProgress, removal: bool) -> str:
    if removal:
        return ", ".join([f"{name}: {progress.text}", *progress.blocked[:2]])
    counts = f"{progress.running}/{progress.desired}"
    if progress.converged:
        return f"{name}: {counts} converged"
    told = progress.text.startswith(f"{progress.running} of {progress.desired} ")
    parts = ["" if told else counts, progress.text, *progress.blocked[:2], progress.last_error]
    return f"{name}: " + ", ".join(part for part in parts if part)


def wait_for_drain(context: Context, node: Node, wait: Wait) -> None:
    """Until no task runs on the node any more."""
    name = node.description.hostname or node.id
    display = Display(wait.quiet)
    last: DrainProgress | None = None
    try:
        for last in _items(context, WatchDrain(node.id), wait):
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
        stop("stopped waiting; the node goes on draining", Exit.NOT_CONVERGED)
    display.end()


def _items(context: Context, request: Subscribe[T], wait: Wait) -> Iterator[T]:
    """The stream's items, opened again after a leader change."""
    deadline = _deadline(wait.timeout_s)
    for attempt in range(RESUBSCRIBE_MAX):
        try:
            yield from context.stream(request, timeout_s=deadline())
            return
        except SwarmError as error:
            if error.code is ErrorCode.TIMEOUT:
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
