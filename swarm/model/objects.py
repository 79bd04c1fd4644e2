"""The stored nouns: frozen objects that only committed Raft entries create, change and delete.

`version` is the Raft index of the object's last change; the store sets it, callers never do.
A task names its service's revision instead of carrying a copy of the spec, so that 100,000 tasks stay small.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen

from swarm.model.ids import (
    NO_NODE,
    ClusterId,
    Instant,
    NodeId,
    RaftId,
    RevisionNumber,
    ServiceId,
    Slot,
    TaskId,
    Version,
)
from swarm.model.reasons import Reason
from swarm.model.specs import ClusterSettings, GenericResource, NodeDescription, NodeSpec, ServiceSpec
from swarm.model.states import NodeState, Origin, Role, TaskState, UpdateState

NEVER = Instant(0.0)


@frozen(weakref_slot=False)
class PortStatus:
    """A port that a running task holds on its node."""

    target: int
    published: int
    protocol: str = "tcp"


@frozen(weakref_slot=False)
class TaskStatus:
    """What was observed of a task, by whom and when."""

    state: TaskState = TaskState.NEW
    at: Instant = NEVER
    """Clock of whoever produced the status."""
    message: str = ""
    """A routine note."""
    error: str = ""
    """For users: why it failed, was refused, or cannot progress."""
    exit_code: int | None = None
    pid: int = 0
    handle: str = ""
    """The executor's own name for it: a container id."""
    ports: tuple[PortStatus, ...] = ()
    applied_at: Instant = NEVER
    """Leader's clock when the status was committed."""
    running_at: Instant = NEVER
    """In a status after the first RUNNING one: when that had been committed; NEVER for a task that never ran. The store fills
    it in."""


NEW_STATUS = TaskStatus()


@frozen(weakref_slot=False)
class Task:
    """One run of a slot: never re-run, never moved. Identity (service, revision, slot) never changes."""

    id: TaskId
    service_id: ServiceId
    revision: RevisionNumber
    slot: Slot = Slot(0)
    """1 and up for replicated services, 0 and up for replicated jobs, 0 for the global kinds."""
    node_id: NodeId = NO_NODE
    """Set at creation (global kinds) or by the scheduler; never changes once set."""
    desired: TaskState = TaskState.RUNNING
    status: TaskStatus = NEW_STATUS
    created_at: Instant = NEVER
    job_iteration: int | None = None
    generic: tuple[GenericResource, ...] = ()
    """User-defined resources that were claimed for it."""
    reason: Reason | None = None
    """Why it is where it is, or why it waits: the newest decision on it."""
    version: Version = Version(0)
    origin: Origin = Origin.CREATED
    restarts: int = 0
    """How often the slot's task was restarted under this revision so far; a move or an update step does not count."""
    start_after: Instant = NEVER
    """Not to be promoted from READY before this instant: the restart delay, which a new leader continues."""

    @property
    def is_live(self) -> bool:
        """Whether the managers still want it to run (or to run to completion)."""
        return self.desired <= TaskState.COMPLETE


@frozen
class UpdateStatus:
    """How a rolling update of a service goes."""

    state: UpdateState = UpdateState.UNKNOWN
    started_at: Instant = NEVER
    completed_at: Instant = NEVER
    message: str = ""
    total: int = 0
    """Slots that were to be replaced when it began; 0: not counted yet."""
    failed: int = 0
    """New tasks that failed within their monitoring so far."""


@frozen(weakref_slot=False)
class Service:
    """A declared service; its spec is the revision numbered `revision`."""

    id: ServiceId
    spec: ServiceSpec
    revision: RevisionNumber = RevisionNumber(1)
    """Number of `spec`; another one means that tasks may be dirty."""
    previous: RevisionNumber | None = None
    """What a rollback returns to."""
    update_status: UpdateStatus | None = None
    job_iteration: int = 0
    last_execution: Instant = NEVER
    created_at: Instant = NEVER
    updated_at: Instant = NEVER
    version: Version = Version(0)


@frozen(weakref_slot=False)
class Revision:
    """An immutable past or present spec of a service. Its store key is `revision_key(service_id, number)`."""

    service_id: ServiceId
    number: RevisionNumber
    spec: ServiceSpec
    created_at: Instant = NEVER
    author: str = ""
    """Node id through which the change came, or the planner's name."""
    note: str = ""
    """What changed, in words."""
    version: Version = Version(0)

    @property
    def id(self) -> str:
        """The store key."""
        return revision_key(self.service_id, self.number)


def revision_key(service_id: ServiceId, number: RevisionNumber) -> str:
    """The store key of a service's revision."""
    return f"{service_id}.{number}"


@frozen
class NodeStatus:
    """What the managers know of a node's agent."""

    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    address: str = ""
    """IP address that the manager sees."""
    since: Instant = NEVER
    """Leader's clock at the last change of `state`."""


@frozen
class ManagerStatus:
    """The Raft side of a manager node."""

    raft_id: RaftId
    address: str
    """host:port where its wire listener answers."""


@frozen
class Node:
    """A machine of the cluster."""

    id: NodeId
    spec: NodeSpec = NodeSpec()
    role: Role = Role.WORKER
    """Observed role: constraints and certificates use this one, not the desired one."""
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    manager: ManagerStatus | None = None
    certificate_serial: str = ""
    certificate_expires_at: Instant = NEVER
    created_at: Instant = NEVER
    version: Version = Version(0)


@frozen
class JoinTokens:
    """The secrets that let a machine in; each decides a role."""

    worker: str
    manager: str


@frozen
class Cluster:
    """The one cluster object: settings, trust roots, join tokens, removed nodes. Its store key is its id."""

    id: ClusterId
    settings: ClusterSettings = ClusterSettings()
    root_certificate: bytes = b""
    """PEM bundle that every node trusts."""
    root_key: bytes = b""
    """PEM of the signing key; never leaves the managers."""
    tokens: JoinTokens = JoinTokens("", "")
    removed_nodes: dict[str, float] = field(factory=dict)
    """Node id to the expiry of its last certificate (seconds since 1970): refused until then plus a grace."""
    created_at: Instant = NEVER
    version: Version = Version(0)


StoreObject: TypeAlias = Cluster | Node | Service | Revision | Task
