"""The actor kernel: messages, mailboxes, actors, refs, scopes. Knows nothing of clusters."""

from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ActorDied, ActorFailed, AskTimeout, ErrorCode, SwarmError, WouldDeadlock
from swarm.runtime.local import LocalRef
from swarm.runtime.message import Message, Request, Subscribe
from swarm.runtime.ref import Caller, Inlet, Ref, Sink
from swarm.runtime.scope import Scope, open_scope
from swarm.runtime.supervise import Restart
from swarm.runtime.trace import Trace
from swarm.runtime.turn import Later, StreamTurn, Turn

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
