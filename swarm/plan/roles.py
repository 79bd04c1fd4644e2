"""From the role that operators want of a node to the role that it has, one safe step at a time. Pure.

A worker becomes a manager by its observed role alone: its certificate follows, and with that it joins Raft by itself. A
manager becomes a worker only after it has left Raft, so that no worker's certificate is ever held by a voter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeAlias

from attrs import evolve, frozen

from swarm.model.changes import Update
from swarm.model.ids import NodeId, RaftId
from swarm.model.objects import ManagerStatus, Node
from swarm.model.states import Role


@frozen
class RaftMember:
    """A Raft member, as far as roles care."""

    raft_id: RaftId
    node_id: NodeId
    address: str


@frozen
class RemoveMember:
    """Take this member out of Raft; it is a no-op for one that is out already."""

    member: RaftMember
    why: str


RoleStep: TypeAlias = Update | RemoveMember


def role_steps(nodes: Collection[Node], members: Collection[RaftMember]) -> Iterator[RoleStep]:
    """The next step for every node or member that is not as it should be; nothing when all are."""
    by_node = {member.node_id: member for member in members}
    for node in nodes:
        step = _node_step(node, by_node.get(node.id))
        if step is not None:
            yield step
    known = {node.id for node in nodes}
    for member in members:
        if member.node_id not in known:
            yield RemoveMember(member, "its node is no longer of the cluster")


def _node_step(node: Node, member: RaftMember | None) -> RoleStep | None:
    if node.spec.desired_role is Role.MANAGER:
        status = None if member is None else ManagerStatus(member.raft_id, member.address)
        if node.role is not Role.MANAGER or node.manager != status:
            return Update(evolve(node, role=Role.MANAGER, manager=status))
        return None
    if member is not None:
        return RemoveMember(member, "it is demoted")
    if node.role is not Role.WORKER or node.manager is not None:
        return Update(evolve(node, role=Role.WORKER, manager=None))
    return None
