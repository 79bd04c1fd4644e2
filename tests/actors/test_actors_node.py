"""What a node says of itself while its role changes."""

from __future__ import annotations

from typing import Any, cast

from swarm.actors.manager_life import ManagerLife
from swarm.actors.node import Facts, Node
from swarm.actors.session_messages import AgentStatus
from swarm.ca.identity import PeerRole


def front(role: PeerRole) -> Node:
    """The front of a node that is no more than its facts."""
    return Node(cast("Any", None), Facts(role=role), lambda text: None)


def test_a_demoted_node_is_no_ready_worker_before_its_manager_scope_has_ended() -> None:
    node, agent = front(PeerRole.WORKER), AgentStatus(registered=True)
    node.manager = ManagerLife()  # its certificate says worker already, its log is not erased yet
    assert node._state(agent) == "leaving the managers"
    node.manager = None
    assert node._state(agent) == "ready"


def test_a_former_manager_without_a_workers_certificate_is_not_ready() -> None:
    assert front(PeerRole.MANAGER)._state(AgentStatus(registered=True)) == "leaving the managers"
