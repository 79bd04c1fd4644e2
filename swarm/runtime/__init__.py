"""The actor kernel: messages, mailboxes, actors, refs, scopes. Knows nothing of clusters.

Names are looked up when they are first used: the command line needs the messages and errors, and not trio behind the rest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarm.runtime.actor import Actor, on
    from swarm.runtime.errors import ActorDied, ActorFailed, AskTimeout, ErrorCode, SwarmError, WouldDeadlock
    from swarm.runtime.local import LocalRef
    from swarm.runtime.message import Message, Request, Subscribe
    from swarm.runtime.ref import Caller, Inlet, Ref, Sink
    from swarm.runtime.scope import Scope, open_scope
    from swarm.runtime.supervise import Restart
    from swarm.runtime.trace import Trace
    from swarm.runtime.turn import Later, StreamTurn, Turn

_NAMES = {
    "actor": ("Actor", "on"),
    "errors": ("ActorDied", "ActorFailed", "AskTimeout", "ErrorCode", "SwarmError", "WouldDeadlock"),
    "local": ("LocalRef",),
    "message": ("Message", "Request", "Subscribe"),
    "ref": ("Caller", "Inlet", "Ref", "Sink"),
    "scope": ("Scope", "open_scope"),
    "supervise": ("Restart",),
    "trace": ("Trace",),
    "turn": ("Later", "StreamTurn", "Turn"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


__all__ = [
    "Actor",
    "ActorDied",
    "ActorFailed",
    "AskTimeout",
    "Caller",
    "ErrorCode",
    "Inlet",
    "Later",
    "LocalRef",
    "Message",
    "Ref",
    "Request",
    "Restart",
    "Scope",
    "Sink",
    "StreamTurn",
    "Subscribe",
    "SwarmError",
    "Trace",
    "Turn",
    "WouldDeadlock",
    "on",
    "open_scope",
]
