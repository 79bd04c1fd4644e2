"""What a node answers for itself: the local socket's own calls, and how managers reach its agent."""

from __future__ import annotations

from attrs import frozen

from swarm.executors.base import LogOptions, Stream
from swarm.model.ids import Instant, NodeId, TaskId
from swarm.runtime.message import Request, Subscribe
from swarm.wire.registry import ANYONE, LOCAL_ONLY, MANAGERS, At, Lane, wire_message


@frozen
class MemberView:
    """One Raft member in `swarm status`."""

    raft_id: int
    node_id: NodeId
    address: str
    leader: bool
    reachable: bool
    match_index: int = 0
    learner: bool = False
    problem: str = ""
    """Why the manager that tells this does not reach it; empty when it does."""


@frozen
class NodeStatusView:
    """What `swarm status` shows."""

    version: str
    node_id: NodeId
    cluster_id: str
    hostname: str
    role: str
    state: str
    """`ready`, or what the node waits for, in words."""
    pid: int
    state_dir: str
    listen_address: str
    advertise_address: str
    managers: tuple[str, ...]
    executors: tuple[str, ...]
    certificate_expires_at: Instant
    tasks_running: int
    leader: NodeId = NodeId("")
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    members: tuple[MemberView, ...] = ()
    notes: tuple[str, ...] = ()
    """What an operator should know: the disk takes nothing, other members' logs were given up."""


@wire_message("node.status", to="node", at=At.NODE, roles=ANYONE)
@frozen
class GetNodeStatus(Request[NodeStatusView]):
    """This node's own state; an anonymous caller gets it without names and addresses."""


@wire_message("node.stop", to="node", at=At.NODE, roles=LOCAL_ONLY)
@frozen
class StopNode(Request[None]):
    """Stop the daemon in order; tasks go on. Answered before it stops."""


@frozen
class LeaveProgress:
    """One step of leaving, in words."""

    text: str
    done: bool = False


@wire_message("node.leave", to="node", at=At.NODE, roles=LOCAL_ONLY)
@frozen
class LeaveCluster(Subscribe[LeaveProgress]):
    """Stop this node's tasks, take it out of the cluster, erase its state. A manager needs `force` when it must."""

    force: bool = False


@frozen
class TaskLogLine:
    """A line of a task's output."""

    task_id: TaskId
    node_id: NodeId
    stream: Stream
    at: Instant
    data: bytes


@wire_message("agent.logs", to="agent", at=At.NODE, roles=MANAGERS, lane=Lane.BULK)
@frozen
class ReadLogs(Subscribe[TaskLogLine]):
    """The output of these tasks of this node; unknown ones are passed over."""

    task_ids: tuple[TaskId, ...]
    options: LogOptions
