"""What the command line asks of the cluster. Any manager takes these; the leader answers after a read index.

`who` fields are names, ids or unambiguous id prefixes. NOT_FOUND names what was looked for; INVALID names the candidates of an
ambiguous prefix. Updates carry the version that the client read: OUT_OF_DATE means read again and repeat.
"""

from __future__ import annotations

from attrs import field, frozen

from swarm.model.ids import ClusterId, Instant, NodeId, RevisionNumber, ServiceId, TaskId, Version
from swarm.model.objects import Cluster, Node, Revision, Service, Task
from swarm.model.specs import ClusterSettings, NodeSpec, ServiceSpec
from swarm.model.states import Role
from swarm.runtime.message import Request, Subscribe
from swarm.wire.messages.node import TaskLogLine
from swarm.wire.registry import OPERATORS, At, Lane, wire_message


# --- services ------------------------------------------------------------------------------------------------------
@frozen
class ServiceView:
    """A service with its counts, as `svc ls` shows it."""

    service: Service
    running: int
    desired: int
    completed: int = 0


@frozen
class TaskView:
    """A task with the names that a reader wants beside it."""

    task: Task
    service_name: str
    node_name: str
    image: str = ""
    """Image, or the command of a process."""
    name: str = ""
    """`web.3`; `web.NODE` for a task of a service that has one on every node."""


@frozen
class SlotWhy:
    """Why one task is where it is, or is not where it should be."""

    task: TaskView
    placed: bool
    text: str
    advice: str = ""
    """The smallest change that would place it; empty for a placed task."""
    nodes: tuple[str, ...] = ()
    """Of a task that waits: every node with what stands in the way there, nearest to fitting first."""


@frozen
class ServiceWhy:
    """`svc why`: the service, then task by task."""

    view: ServiceView
    slots: tuple[SlotWhy, ...]
    notes: tuple[str, ...] = ()
    """About the service as a whole, and about nodes that have no task of a service that wants one on each."""


@frozen
class PlanLine:
    """One thing that a planned change would do: `start`, `stop`, `move` or `keep`."""

    verb: str
    slot: int
    node_name: str
    text: str


@frozen
class ServiceWritten:
    """The service as it is stored now, and warnings for its author; with `plan`, what would happen instead."""

    service: Service
    warnings: tuple[str, ...] = ()
    plan: tuple[PlanLine, ...] = ()
    """By slot."""
    left_out: dict[str, int] = field(factory=dict)
    """Verb to the number of further lines, of a plan that is longer than anybody reads."""


@wire_message("control.service.create", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class CreateService(Request[ServiceWritten]):
    """Declare a service. EXISTS: the name is taken; INVALID: what is wrong, field by field."""

    spec: ServiceSpec
    plan_only: bool = False


@wire_message("control.service.update", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class UpdateService(Request[ServiceWritten]):
    """Replace a service's spec by a new revision."""

    id: ServiceId
    version: Version
    spec: ServiceSpec
    plan_only: bool = False


@wire_message("control.service.rollback", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class RollbackService(Request[ServiceWritten]):
    """Return to the previous revision, or to `to_revision`. PRECONDITION: there is none."""

    who: str
    to_revision: RevisionNumber | None = None


@wire_message("control.service.remove", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class RemoveService(Request[Service]):
    """Remove a service; its tasks are stopped, then their records go."""

    who: str


@wire_message("control.service.list", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class ListServices(Request[tuple[ServiceView, ...]]):
    """All services in order of creation."""

    stale: bool = False


@wire_message("control.service.get", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class GetService(Request[ServiceView]):
    """One service."""

    who: str
    stale: bool = False


@wire_message("control.service.why", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class ExplainService(Request[ServiceWhy]):
    """Why each of its tasks is where it is."""

    who: str


@wire_message("control.service.history", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class ListRevisions(Request[tuple[Revision, ...]]):
    """A service's kept revisions, newest first."""

    who: str


@frozen
class ServiceProgress:
    """How far a service is from what was declared; `blocked` says in words what it waits for."""

    service_id: ServiceId
    mode: str
    desired: int
    running: int
    converged: bool
    failed: bool = False
    """Final failure: an update paused or rolled back, a job that cannot complete."""
    removed: bool = False
    """The service and all of its tasks are gone."""
    text: str = ""
    blocked: tuple[str, ...] = ()
    last_error: str = ""
    stopping: int = 0
    """Tasks that are still to stop."""


@wire_message("control.service.progress", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class WatchService(Subscribe[ServiceProgress]):
    """Progress at once, then at each change, until the caller ends it. Takes the id, so that removal can be watched.

    With `hold_s` a service counts as converged only when it has been so for that long: tasks that end right after their
    start are no success.
    """

    id: ServiceId
    hold_s: float = 0.0


# --- tasks ---------------------------------------------------------------------------------------------------------
@wire_message("control.task.list", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class ListTasks(Request[tuple[TaskView, ...]]):
    """Tasks of a service, of a node, or all; sorted by service, slot, newest first. Live ones only unless `all`."""

    service: str = ""
    node: str = ""
    all: bool = True
    stale: bool = False


@wire_message("control.task.get", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class GetTask(Request[TaskView]):
    """One task."""

    who: str


# --- nodes ---------------------------------------------------------------------------------------------------------
@frozen
class NodeView:
    """A node with what only the leader's Raft member knows of it."""

    node: Node
    leader: bool = False
    reachable: bool | None = None
    """Managers only."""
    applied_index: int = 0
    lag: int = 0
    tasks: int = 0


@wire_message("control.node.list", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class ListNodes(Request[tuple[NodeView, ...]]):
    """All nodes in order of joining."""

    stale: bool = False


@wire_message("control.node.get", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class GetNode(Request[NodeView]):
    """One node."""

    who: str
    stale: bool = False


@wire_message("control.node.update", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class UpdateNode(Request[NodeView]):
    """Replace a node's spec. PRECONDITION with the arithmetic when a demotion would break the quorum."""

    id: NodeId
    version: Version
    spec: NodeSpec


@wire_message("control.node.remove", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class RemoveNode(Request[Node]):
    """Forget a node and refuse its certificate from now on. PRECONDITION: it is READY (unless `force`) or a manager."""

    who: str
    force: bool = False


@frozen
class DrainProgress:
    """How many tasks a node still holds, and how many of those that left are running elsewhere."""

    node_id: NodeId
    remaining: int
    converged: bool
    blocked: tuple[str, ...] = ()


@wire_message("control.node.progress", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class WatchDrain(Subscribe[DrainProgress]):
    """A drain's progress, at once and at each change."""

    id: NodeId


# --- cluster -------------------------------------------------------------------------------------------------------
@frozen
class TokenView:
    """A join token, and the address to give with it."""

    token: str
    address: str


@wire_message("control.token", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class GetToken(Request[TokenView]):
    """A role's join token; with `rotate` a new one, the old refused from then on."""

    role: Role
    rotate: bool = False


@wire_message("control.cluster.get", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class GetCluster(Request[Cluster]):
    """The cluster object, without its key and tokens."""

    stale: bool = False


@wire_message("control.cluster.update", to="control", at=At.LEADER, roles=OPERATORS)
@frozen
class UpdateClusterSettings(Request[Cluster]):
    """Replace the settings of the whole cluster; answered with the cluster, without its secrets. INVALID: what is wrong."""

    version: Version
    settings: ClusterSettings


@frozen
class BackupPart:
    """A piece of the cluster's state, with what all of it is; `last` tells that nothing is missing."""

    data: bytes
    cluster_id: ClusterId
    index: int
    created_at: Instant
    last: bool


@wire_message("control.backup", to="control", at=At.LEADER, roles=OPERATORS, lane=Lane.BULK)
@frozen
class TakeBackup(Subscribe[BackupPart]):
    """The whole state, keys and tokens included, as of one moment that is not before the request."""


# --- logs ----------------------------------------------------------------------------------------------------------
@frozen
class LogNote:
    """A line about the stream itself: which node could not be asked and why."""

    text: str


@frozen
class LogItem:
    """A line of a task, or a note."""

    line: TaskLogLine | None = None
    task_name: str = ""
    node_name: str = ""
    note: str = ""


@wire_message("control.logs", to="logs", at=At.LEADER, roles=OPERATORS, lane=Lane.BULK)
@frozen
class FollowLogs(Subscribe[LogItem]):
    """Output of a service's or task's tasks; partial answers come with a note; following ends with the service."""

    who: str
    follow: bool = False
    tail: int | None = None
    since: Instant | None = None
    task_ids: tuple[TaskId, ...] = field(factory=tuple)
