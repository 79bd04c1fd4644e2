"""Errors that are answers. A `SwarmError` reaches the caller, on this node or another, and the actor that raised it lives."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class ErrorCode(StrEnum):
    """The kinds of refusal that callers can tell apart; stable on the wire."""

    INVALID = "invalid"
    """The request itself is wrong; trying again does not help."""
    NOT_FOUND = "not-found"
    EXISTS = "exists"
    OUT_OF_DATE = "out-of-date"
    """The object changed since the caller read it; read again and repeat."""
    DENIED = "denied"
    PRECONDITION = "precondition"
    """Not in the present state of the cluster; the text says what stands in the way."""
    NOT_LEADER = "not-leader"
    """This manager does not lead; details may hold `leader`, the address of the one that does."""
    UNAVAILABLE = "unavailable"
    """Nobody can answer now (no leader, no quorum, a peer that is gone); trying again later may help."""
    TIMEOUT = "timeout"
    OVERRUN = "overrun"
    """A subscriber was too slow; subscribe again."""
    ACTOR_DIED = "actor-died"
    WOULD_DEADLOCK = "would-deadlock"
    MAILBOX_FULL = "mailbox-full"
    INTERNAL = "internal"
    """A bug; details hold `incident`, the id under which the log has the traceback."""


class SwarmError(Exception):
    """A refusal with a code, a sentence that says what was refused, why and what to do, and details."""

    def __init__(self, code: ErrorCode, text: str, details: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.details: dict[str, str] = dict(details or {})

    def __repr__(self) -> str:
        return f"SwarmError({self.code.value}: {self.text})"


class ActorDied(SwarmError):
    """The actor that was asked is gone; whether it acted on the message is not known."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.ACTOR_DIED, text)


class AskTimeout(SwarmError):
    """No answer in time; whether the request was acted on is not known."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.TIMEOUT, text)


class WouldDeadlock(SwarmError):
    """The ask would come back to an actor that waits for it."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.WOULD_DEADLOCK, text)


class ScopeEnded(SwarmError):
    """The scope stops or was cancelled, and starts nothing any more."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, f"scope {path} starts nothing any more: {reason}")


class ActorFailed(Exception):
    """An actor crashed and is not restarted (any more); its scope ends with this, the crash is its cause."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path
