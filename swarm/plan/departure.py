"""What taking a node out of the cluster changes, all in one group. Pure; whether it may go is decided by whoever asks.

Its record goes, its certificate is refused from now on, and its tasks are given up in the same commit, so that nothing ever
names a node that is not there.
"""

from __future__ import annotations

from attrs import evolve

from swarm.model.changes import Advance, Change, Delete, Group, Kind, Update
from swarm.model.ids import Instant
from swarm.model.objects import Cluster, Node, TaskStatus
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.snapshot import Snapshot
from swarm.model.states import TaskState

REFUSED_AFTER_EXPIRY_S = 7 * 86400.0
"""How long after its certificate's end a removed node stays in the list of the refused: clocks differ, lists must end."""


def departure(view: Snapshot, cluster: Cluster, node: Node, now: Instant, why: str) -> Group:
    """The group that removes `node`; `why` is for the users of its tasks, as in `node web-3 was removed`."""
    refused = {id: end for id, end in cluster.removed_nodes.items() if not 0 < end < now - REFUSED_AFTER_EXPIRY_S}
    refused[node.id] = node.certificate_expires_at
    given_up: list[Change] = [
        Advance(
            task.id,
            status=TaskStatus(TaskState.ORPHANED, at=now, error=why, applied_at=now),
            reason=Reason(ReasonCode.NODE_REMOVED, why),
        )
        for task in view.tasks_of_node(node.id)
        if task.status.state < TaskState.COMPLETE
    ]
    return (*given_up, Update(evolve(cluster, removed_nodes=refused)), Delete(Kind.NODE, node.id))
