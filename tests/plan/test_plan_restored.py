"""What is left of a cluster when one new manager starts from a backup."""

from __future__ import annotations

from swarm.model.changes import Create
from swarm.model.ids import ClusterId, Instant, NodeId, RaftId, RevisionNumber, ServiceId, TaskId, Version
from swarm.model.objects import Cluster, JoinTokens, ManagerStatus, Node, Revision, Service, Task
from swarm.model.specs import NodeSpec, ProcessSpec, Replicated, ServiceSpec, TaskSpec
from swarm.model.states import Role, TaskState
from swarm.model.store import Store
from swarm.plan.restored import restore

SPEC = ServiceSpec("web", task=TaskSpec(ProcessSpec(("sleep", "1"))), mode=Replicated(2))
MANAGER = NodeSpec(desired_role=Role.MANAGER)


def test_all_stays_but_the_managers_of_that_time() -> None:
    store = Store()
    tokens = JoinTokens("worker", "manager")
    service, one = ServiceId("s"), RevisionNumber(1)
    group = (
        Create(Cluster(ClusterId("c"), root_key=b"key", tokens=tokens)),
        Create(Node(NodeId("m1"), MANAGER, role=Role.MANAGER, manager=ManagerStatus(RaftId(1), "m1:1"))),
        Create(Node(NodeId("m2"), MANAGER, role=Role.WORKER)),
        Create(Node(NodeId("w1"), NodeSpec())),
        Create(Service(service, SPEC)),
        Create(Revision(service, one, SPEC)),
        Create(Task(TaskId("t1"), service, one, 1, node_id=NodeId("m1"), desired=TaskState.RUNNING)),
        Create(Task(TaskId("t2"), service, one, 2, node_id=NodeId("w1"), desired=TaskState.RUNNING)),
    )
    [result], _ = store.apply([group], Version(7))
    assert result is None
    forgotten = restore(store, NodeId("new"), RaftId(9), "new:1", Instant(50.0))
    assert sorted(forgotten) == ["m1", "m2"]
    assert {node.id for node in store.nodes()} == {"w1", "new"}
    new = store.node(NodeId("new"))
    assert new is not None and (new.role, new.manager) == (Role.MANAGER, ManagerStatus(RaftId(9), "new:1"))
    assert store.cluster is not None
    assert (store.cluster.id, store.cluster.root_key, store.cluster.tokens) == ("c", b"key", tokens)
    assert set(store.cluster.removed_nodes) == {"m1", "m2"}, "their certificates are refused"
    states = {task.id: task.status.state for task in store.tasks()}
    assert states == {"t1": TaskState.ORPHANED, "t2": TaskState.NEW}
    assert store.service(service) is not None
    assert store.version > 7
