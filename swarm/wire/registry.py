"""Which messages may leave a node: each tag with its actor, where that actor lives, and the roles that may send it.

A message class that is not declared here cannot be encoded for a peer, and a declaration without roles fails at import.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from attrs import fields_dict, frozen, has

from swarm.ca.identity import PeerRole
from swarm.runtime.message import Message, Request, Subscribe

C = TypeVar("C", bound=type)


class At(StrEnum):
    """Where the addressed actor is found."""

    NODE = "node"
    """On the very node that gets the message."""
    MANAGER = "manager"
    """On any manager; the one that gets the message answers."""
    LEADER = "leader"
    """On the leader; another manager forwards, one hop at most, unless the message asks for a `stale` answer."""


class Lane(StrEnum):
    """Which connection of a link carries it, so that small urgent frames never wait behind bulk."""

    CONTROL = "control"
    CALLS = "calls"
    BULK = "bulk"


@frozen
class WireMessage:
    """One declared message; `reply` is the type of its answer or stream item, None for a one-way message."""

    tag: str
    cls: type
    to: str
    at: At
    roles: frozenset[PeerRole]
    lane: Lane
    reply: Any
    may_be_stale: bool = False
    """It has a field `stale`: when that is true, the manager that gets it answers."""
    prompt: bool = False
    """Its sender gathers what belongs together, so that an offer of it leaves in the turn that it was made in."""


_BY_TAG: dict[str, WireMessage] = {}
_BY_CLASS: dict[type, WireMessage] = {}


def wire_message(
    tag: str, *, to: str, at: At, roles: frozenset[PeerRole], lane: Lane = Lane.CALLS, prompt: bool = False
) -> Callable[[C], C]:
    """Declare the decorated message class: it may cross to actor `to`, sent by a peer of one of `roles`."""
    if not roles:
        raise TypeError(f"wire message {tag!r} names no role that may send it")

    def declare(cls: C) -> C:
        if tag in _BY_TAG:
            raise TypeError(f"wire tag {tag!r} is declared twice: {_BY_TAG[tag].cls.__name__}, {cls.__name__}")
        declared = WireMessage(
            tag, cls, to, at, roles, lane, _reply_type(cls), has(cls) and "stale" in fields_dict(cls), prompt
        )
        _BY_TAG[tag] = declared
        _BY_CLASS[cls] = declared
        return cls

    return declare


def _reply_type(cls: type) -> Any:
    for base in getattr(cls, "__orig_bases__", ()):
        if getattr(base, "__origin__", None) in (Request, Subscribe):
            return base.__args__[0]
    if issubclass(cls, Message):
        return None
    raise TypeError(f"{cls.__name__} is a wire message but neither Message, Request[R] nor Subscribe[T]")


def by_tag(tag: str) -> WireMessage | None:
    """The declaration of a tag that came from a peer, None when this version knows no such tag."""
    return _BY_TAG.get(tag)


def by_class(cls: type) -> WireMessage | None:
    """The declaration of a message class, None for one that must stay on its node."""
    return _BY_CLASS.get(cls)


def declared() -> list[WireMessage]:
    """All declarations, sorted by tag."""
    return [_BY_TAG[tag] for tag in sorted(_BY_TAG)]


ANYONE = frozenset(PeerRole)
NODES = frozenset({PeerRole.WORKER, PeerRole.MANAGER})
MANAGERS = frozenset({PeerRole.MANAGER})
OPERATORS = frozenset({PeerRole.MANAGER, PeerRole.LOCAL})
"""The local socket's users, also when their manager forwards them to the leader."""
LOCAL_ONLY = frozenset({PeerRole.LOCAL})
