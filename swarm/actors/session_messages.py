"""What a node's front and its agent say to each other. Data only; these never leave the node.

`actors/agent.py` answers the requests and tells the news to the actor `node` (its constructor gets that ref).
"""

from __future__ import annotations

from attrs import frozen

from swarm.model.ids import NodeId
from swarm.model.objects import Node
from swarm.runtime.message import Message, Request
from swarm.wire.messages.dispatcher import ManagerAddress


@frozen
class SessionNews(Message):
    """What the dispatcher told of this node's own record, the managers and the trust roots (a `SessionChanged`)."""

    node: Node
    managers: tuple[ManagerAddress, ...]
    root_certificate: bytes


@frozen
class AgentStatus:
    """How the agent stands."""

    registered: bool
    """A session is open."""
    waiting: str = ""
    """What it waits for otherwise, in words: which managers were tried, and why they did not answer."""
    executors: tuple[str, ...] = ()
    """Runtime kinds, sorted."""
    running: int = 0
    """Tasks that run."""
    leader: NodeId = NodeId("")
    """The manager that holds the session."""
    refused: str = ""
    """Why managers refuse this node for good, in words: it was removed; empty when none did since it was registered last."""


@frozen
class GetAgentStatus(Request[AgentStatus]):
    """How the agent stands now."""


@frozen
class RemoveAllTasks(Request[None]):
    """This node leaves: take no assignments any more, stop every task in order, and remove what they left behind."""


@frozen
class LeaveSession(Request[None]):
    """Ask the dispatcher, over the open session, to forget this node (`LeaveNode`). UNAVAILABLE: no session is open."""
