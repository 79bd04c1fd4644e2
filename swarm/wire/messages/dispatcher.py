"""Agent to dispatcher: one session stream downwards, heartbeats and status reports upwards. The leader answers.

The session's stream opens with `SessionOpened` and a full `Assignments`, then carries changes. Its end means that the
agent must open a new one; what runs goes on running. Node identity always comes from the certificate.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

from swarm.model.ids import NodeId, RevisionNumber, ServiceId, TaskId
from swarm.model.objects import Node, Task, TaskStatus
from swarm.model.specs import NodeDescription, ServiceSpec
from swarm.runtime.message import Request, Subscribe
from swarm.wire.registry import NODES, At, Lane, wire_message


@frozen
class ManagerAddress:
    """Where a manager answers."""

    node_id: NodeId
    address: str


@frozen
class SessionOpened:
    """First item of a session: its id, and how long to wait before the first heartbeat."""

    session_id: str
    heartbeat_period_s: float


@frozen
class SessionChanged:
    """The agent's own node, the managers and the trust roots, whenever one of them changes (and at the start)."""

    node: Node
    managers: tuple[ManagerAddress, ...]
    root_certificate: bytes


@frozen
class AssignedTask:
    """One task for this node; its spec is the `AssignedSpec` of its (service, revision)."""

    task: Task


@frozen
class AssignedSpec:
    """A revision that tasks of this node were made from; sent once per session."""

    service_id: ServiceId
    revision: RevisionNumber
    spec: ServiceSpec


@frozen
class Assignments:
    """What this node is to run: all of it (`full`), or what changed since `sequence` - 1.

    A full set means that a task that is not in it is to be removed. `specs` come before the tasks that name them.
    """

    sequence: int
    full: bool
    specs: tuple[AssignedSpec, ...] = ()
    tasks: tuple[AssignedTask, ...] = ()
    removed: tuple[TaskId, ...] = ()


SessionItem: TypeAlias = SessionOpened | SessionChanged | Assignments


@wire_message("dispatcher.open_session", to="dispatcher", at=At.LEADER, roles=NODES, lane=Lane.CONTROL)
@frozen
class OpenSession(Subscribe[SessionItem]):
    """Register the calling node, marking it READY; ends any earlier session of it.

    Refused: NOT_FOUND when the node is not (any more) of this cluster, NOT_LEADER with the leader's address,
    UNAVAILABLE when it registers too often.
    """

    description: NodeDescription


@frozen
class HeartbeatReply:
    """How long to wait before the next heartbeat."""

    period_s: float


@wire_message("dispatcher.heartbeat", to="dispatcher", at=At.LEADER, roles=NODES, lane=Lane.CONTROL)
@frozen
class Heartbeat(Request[HeartbeatReply]):
    """The calling node lives. NOT_FOUND: no such session, open a new one."""

    session_id: str


@frozen
class TaskReport:
    """A task's newest status."""

    task_id: TaskId
    status: TaskStatus


@frozen
class ReportAccepted:
    """The statuses are committed (or older than what was known)."""


@wire_message("dispatcher.report", to="dispatcher", at=At.LEADER, roles=NODES)
@frozen
class ReportStatus(Request[ReportAccepted]):
    """Statuses of the calling node's own tasks; answered when committed. DENIED if one is another node's task."""

    session_id: str
    reports: tuple[TaskReport, ...]


@wire_message("dispatcher.describe", to="dispatcher", at=At.LEADER, roles=NODES)
@frozen
class DescribeNode(Request[ReportAccepted]):
    """The calling node's description changed."""

    session_id: str
    description: NodeDescription


@wire_message("dispatcher.leave", to="dispatcher", at=At.LEADER, roles=NODES)
@frozen
class LeaveNode(Request[None]):
    """The calling node leaves for good: its record goes, its certificate is refused from now on, its tasks are replaced.

    PRECONDITION: it is a manager still.
    """

    session_id: str
