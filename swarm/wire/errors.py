"""Errors as they come off the wire."""

from __future__ import annotations

from swarm.runtime.errors import ActorDied, AskTimeout, ErrorCode, SwarmError, WouldDeadlock


def error_of(code: str, text: str, details: dict[str, str]) -> SwarmError:
    """The error that a peer answered with, of the class that a local actor would have raised."""
    for known in (ActorDied, AskTimeout, WouldDeadlock):
        error = known(text)
        if error.code == code:
            error.details.update(details)
            return error
    try:
        return SwarmError(ErrorCode(code), text, details)
    except ValueError:  # of a newer version
        return SwarmError(ErrorCode.INTERNAL, f"{code}: {text}", details)
