"""Identifiers: opaque 25-character base-36 strings, one NewType for every kind of thing.

This module only *formats* ids from random bytes that it is handed; the bytes come from `ports.entropy`.
"""

from __future__ import annotations

from typing import NewType, Protocol

ClusterId = NewType("ClusterId", str)
NodeId = NewType("NodeId", str)
ServiceId = NewType("ServiceId", str)
TaskId = NewType("TaskId", str)
RaftId = NewType("RaftId", int)
"""A Raft member's number: random, 63 bits, never 0, never reused, unrelated to the node id."""
Slot = NewType("Slot", int)
RevisionNumber = NewType("RevisionNumber", int)
"""1 for a service's first spec, then one more for every change of it."""
Version = NewType("Version", int)
"""The Raft index of an object's last change; 0 for an object that was never stored."""
Instant = NewType("Instant", float)
"""Seconds since 1970-01-01 UTC, from the clock port of the node that writes it."""

ID_LENGTH = 25
ID_RANDOM_BYTES = 17
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

NO_NODE = NodeId("")
"""The node of a task that was not placed yet."""


class Ids(Protocol):
    """A source of new identifiers, handed to whatever makes objects."""

    def new(self) -> str:
        """A fresh id, 25 base-36 characters."""
        ...


def id_from_bytes(random_bytes: bytes) -> str:
    """The id that `ID_RANDOM_BYTES` random bytes stand for: top bit forced on, base 36, first digit dropped."""
    if len(random_bytes) != ID_RANDOM_BYTES:
        raise ValueError(f"an id is made from {ID_RANDOM_BYTES} random bytes, not {len(random_bytes)}")
    number = int.from_bytes(random_bytes, "big") | 1 << (8 * ID_RANDOM_BYTES - 1)
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    digits.reverse()
    return "".join(digits)[1 : 1 + ID_LENGTH]


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return len(text) == ID_LENGTH and all(character in _DIGITS for character in text)
