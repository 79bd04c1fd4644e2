"""What a node says of itself while its role changes."""

from __future__ import annotations

from typing import Any, cast

from swarm.actors.manager_life import ManagerLife
from swarm.actors.node import Facts, Node
from swarm.actors.raft_messages import RaftStatusView
from swarm.actors.session_messages import AgentStatus
from swarm.ca.identity import PeerRole
from swarm.model.ids import NodeId, RaftId
from swarm.wire.messages.node import MemberView


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


def test_a_node_that_managers_refuse_says_so_whatever_else_it_waits_for() -> None:
    node, text = front(PeerRole.MANAGER), "this node was removed from the cluster"
    node.manager = ManagerLife(context=cast("Any", object()))
    agent = AgentStatus(registered=False, waiting="no leader is known here", refused=text)
    assert node._state(agent) == f"refused by the managers: {text}"


def test_a_manager_without_a_leader_says_why_it_reaches_nobody() -> None:
    node = front(PeerRole.MANAGER)
    node.manager = ManagerLife(context=cast("Any", object()))
    problem = "its certificate is not valid now; compare the clocks of both machines"
    members = (
        MemberView(1, NodeId("a"), "a:1", False, True),
        MemberView(2, NodeId("b"), "b:1", False, False, problem=problem),
    )
    raft = RaftStatusView(RaftId(1), "follower", 1, None, 5, 5, members=members)
    assert node._state(AgentStatus(registered=False), raft).endswith(f"an election is under way; b:1: {problem}")
