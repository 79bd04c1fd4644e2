"""The list of nodes: what it says of each, in 80 columns."""

from __future__ import annotations

from attrs import evolve

from swarm.commands.nodes import HEADER, row, status_text
from swarm.model.ids import NodeId
from swarm.model.objects import Node, NodeStatus
from swarm.model.specs import NodeDescription, NodeSpec
from swarm.model.states import Availability, NodeState, Role
from swarm.wire.messages.control import NodeView

MANAGER = Node(
    NodeId("0123456789abcdefghijklmno"),
    role=Role.MANAGER,
    description=NodeDescription(hostname="ip-10-0-12-7", executors=("docker", "process")),
    status=NodeStatus(NodeState.READY),
)
DRAINED = evolve(MANAGER, id=NodeId("w"), role=Role.WORKER, spec=NodeSpec(availability=Availability.DRAIN))


def test_two_executors_and_a_drained_node_fit_80_columns() -> None:
    follower = evolve(MANAGER, id=NodeId("m"))
    views = [NodeView(MANAGER, leader=True, tasks=12), NodeView(follower, reachable=True), NodeView(DRAINED)]
    table = [HEADER, *(row(view, MANAGER.id) for view in views)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    assert sum(widths) + 2 * (len(widths) - 1) <= 80
    assert table[1] == ("0123456789ab *", "ip-10-0-12-7", "Ready", "Leader", "12", "docker, process")
    assert table[3][2:4] == ("Ready, drain", "")


def test_that_a_node_takes_no_tasks_stands_beside_its_state() -> None:
    down = evolve(DRAINED, status=NodeStatus(NodeState.DOWN), spec=NodeSpec(availability=Availability.PAUSE))
    assert [status_text(node) for node in (MANAGER, DRAINED, down)] == ["Ready", "Ready, drain", "Down, pause"]
