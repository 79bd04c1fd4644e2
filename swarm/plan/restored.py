"""What a backup's state becomes when one new manager starts from it. Pure.

Everything stays (cluster id, authority, tokens, services, workers with their tasks) but the managers of that time: what they
remember is of another course of events. They are removed as `swarm node rm` would, their certificates refused, so that none
of them can speak for the cluster again; their machines join anew with a token.
"""

from __future__ import annotations

from swarm.model.changes import Create
from swarm.model.ids import Instant, NodeId, RaftId, Version
from swarm.model.objects import ManagerStatus, Node
from swarm.model.specs import NodeSpec
from swarm.model.states import Role
from swarm.model.store import Store
from swarm.plan.departure import departure


def restore(store: Store, node_id: NodeId, raft_id: RaftId, address: str, now: Instant) -> list[str]:
    """Change `store` in place; the names of the managers that are forgotten."""
    assert store.cluster is not None, "a backup holds a cluster"
    forgotten = []
    for node in list(store.nodes()):
        if node.role is Role.MANAGER or node.spec.desired_role is Role.MANAGER:
            why = f"node {node.description.hostname or node.id} was a manager before the cluster was restored from a backup"
            forgotten.append(node.description.hostname or node.id)
            _apply(store, departure(store, store.cluster, node, now, why))
    status = ManagerStatus(raft_id, address)
    spec = NodeSpec(desired_role=Role.MANAGER)
    _apply(store, (Create(Node(node_id, spec, role=Role.MANAGER, manager=status, created_at=now)),))
    return forgotten


def _apply(store: Store, group: object) -> None:
    [result], _ = store.apply([group], Version(store.version + 1))  # type: ignore[list-item]
    assert result is None, f"nobody else changes this store: {result}"
