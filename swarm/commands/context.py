"""What every command needs: where the daemon's socket is, how to print, and which exit code tells what.

Exit codes: 0 done and converged, 1 refused or failed, 2 usage, 3 not converged within --timeout or no longer waited for, 4 no
daemon or no leader reachable, 130 ended with Ctrl-C. `--socket`, else `SWARM_SOCKET`, else the default state directory's socket.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from attrs import frozen

from swarm.commands import output
from swarm.ports.paths import SOCKET_NAME, default_state_dir
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.message import Request, Subscribe

R = TypeVar("R")
T = TypeVar("T")

ASK_TIMEOUT_S = 30.0
"""A call waits this long for a leader: longer than any election, short enough for a person."""


class Exit(IntEnum):
    """The command's exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_CONVERGED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130
    """As shells have it: 128 and the number of SIGINT."""


_UNREACHABLE = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.NOT_LEADER, ErrorCode.TIMEOUT, ErrorCode.ACTOR_DIED})


@frozen
class Context:
    """The global options."""

    socket: str
    format: str = "table"
    quiet: bool = False

    @property
    def json(self) -> bool:
        """Whether objects are printed as JSON."""
        return self.format == "json"

    def show(self, objects: Any, ids: Iterable[str], as_text: Callable[[], None]) -> None:
        """What was asked for: ids only with `-q`, JSON with `--format json` (both: the ids as JSON), else text."""
        if self.quiet and self.json:
            output.print_json(list(ids))
        elif self.quiet:
            output.print_lines(ids)
        elif self.json:
            output.print_json(objects)
        else:
            as_text()

    def ask(self, request: Request[R], timeout_s: float = ASK_TIMEOUT_S) -> R:
        """The daemon's answer; a refusal ends the command with its text and exit code."""
        from swarm.wire.client import LocalClient

        try:
            with LocalClient(self.socket) as client:
                return client.ask(request, timeout_s=timeout_s)
        except SwarmError as error:
            fail(error)

    def stream(
        self, request: Subscribe[T], timeout_s: float | None = None, idle: Callable[[], None] | None = None
    ) -> Iterator[T]:
        """The daemon's items until it ends the stream; `AskTimeout` when `timeout_s` have passed in all.

        `idle` is called about once a second while none comes.
        """
        from swarm.wire.client import LocalClient

        with LocalClient(self.socket) as client:
            yield from client.stream(request, timeout_s=timeout_s, idle=idle)


def socket_path(given: str | None) -> str:
    """Where the local daemon answers."""
    return given or os.environ.get("SWARM_SOCKET") or str(default_state_dir() / SOCKET_NAME)


def fail(error: SwarmError) -> NoReturn:
    """End the command with a refusal's text, its hint and its exit code."""
    stop(error.text, exit_of(error), error.details.get("hint", ""))


def exit_of(error: SwarmError) -> Exit:
    """The exit code of a refusal."""
    return Exit.UNREACHABLE if error.code in _UNREACHABLE else Exit.FAILED


def stop(text: str, code: Exit = Exit.FAILED, hint: str = "") -> NoReturn:
    """End the command with an error."""
    output.note(f"error: {text}")
    if hint:
        output.note(f"hint: {hint}")
    raise SystemExit(int(code))


def usage(error: Exception | str) -> NoReturn:
    """End the command because of what was typed."""
    stop(str(error), Exit.USAGE)


def read_secret(text: str | None, environment: str, flag: str) -> str | None:
    """A secret from the environment, `-` (standard input), `@FILE`, or as text, which gets a warning.

    As text it was hidden from the process list as early as can be (`hiding`), which is not the same as never shown.
    """
    if text is None:
        return os.environ.get(environment)
    if not text:
        usage(f"{flag} is empty; give it as {flag} -, @FILE or {environment}")
    if text == "-":
        found = sys.stdin.readline().strip()
    elif text.startswith("@"):
        try:
            found = Path(text[1:]).read_text().strip()
        except OSError as error:
            usage(f"{flag} {text}: {error.strerror}")
    else:
        output.note(
            f"warning: {flag} as text was in this machine's process list for a moment and stays in the shell's history; "
            f"next time: {flag} - (standard input), {flag} @FILE or {environment}"
        )
        return text
    if not found:
        usage(f"{flag} {text}: nothing to read there")
    return found


def typed(values: dict[str, Any]) -> dict[str, Any]:
    """Only the options that were given."""
    return {key: value for key, value in values.items() if value is not None}
