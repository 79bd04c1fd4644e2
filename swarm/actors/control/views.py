"""What the control API shows: stored objects joined with the names and counts that a reader wants beside them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from attrs import evolve

from swarm.actors.raft_messages import RaftStatusView
from swarm.model.ids import Instant, ServiceId
from swarm.model.objects import Cluster, Node, Service, Task
from swarm.model.snapshot import Snapshot
from swarm.model.specs import ContainerSpec, GenericSpec, Global, ProcessSpec, Replicated, ReplicatedJob, ServiceSpec
from swarm.model.states import Role, TaskState
from swarm.plan.preview import KEEP, PlannedStep
from swarm.plan.progress import drain_facts, service_facts
from swarm.wire.messages.control import (
    DrainProgress,
    NodeView,
    PlanLine,
    ServiceProgress,
    ServiceView,
    ServiceWritten,
    TaskView,
)
from swarm.wire.messages.node import MemberView

PLAN_LINES_MAX = 10_000
"""Lines of a plan that are sent, 1 MiB or so: what changes before what stays."""


def service_view(view: Snapshot, service: Service) -> ServiceView:
    """A service's counts: tasks RUNNING, tasks wanted, and for jobs those completed in the present iteration."""
    tasks = view.tasks_of_service(service.id)
    mode = service.spec.mode
    if isinstance(mode, Replicated):
        return ServiceView(service, running=_running(tasks), desired=mode.replicas)
    if isinstance(mode, Global):
        wanted = sum(1 for task in tasks if task.desired <= TaskState.RUNNING)
        return ServiceView(service, running=_running(tasks), desired=wanted)
    present = [task for task in tasks if task.job_iteration == service.job_iteration]
    completed = sum(1 for task in present if task.status.state is TaskState.COMPLETE)
    if isinstance(mode, ReplicatedJob):
        wanted = min(mode.max_concurrent, max(0, mode.total_completions - completed))
    else:
        wanted = sum(1 for task in present if task.is_live and task.status.state < TaskState.COMPLETE)
    return ServiceView(service, running=_running(present), desired=wanted, completed=completed)


def _running(tasks: Iterable[Task]) -> int:
    return sum(1 for task in tasks if task.status.state is TaskState.RUNNING and task.is_live)


def runs(spec: ServiceSpec | None) -> str:
    """The image of a container, the command of a process, the kind of anything else."""
    match spec.task.runtime if spec is not None else None:
        case ContainerSpec(image=image):
            return image
        case ProcessSpec(command=command):
            text = " ".join(command)
            return text if len(text) <= 40 else text[:37] + "..."
        case GenericSpec(kind=kind):
            return kind
    return ""


def node_name(view: Snapshot, task: Task) -> str:
    """Hostname of the task's node; its id when the node is gone or unnamed; empty for a task without one."""
    node = view.node(task.node_id) if task.node_id else None
    return (node.description.hostname if node is not None else "") or task.node_id


def task_view(view: Snapshot, task: Task) -> TaskView:
    """A task with the names that people use."""
    spec = view.spec_of(task)
    service, node = spec.name if spec is not None else task.service_id, node_name(view, task)
    numbered = isinstance(spec.mode, Replicated | ReplicatedJob) if spec is not None else task.slot > 0
    return TaskView(task, service, node, runs(spec), f"{service}.{task.slot if numbered else node}")


def task_views(view: Snapshot, tasks: Iterable[Task]) -> tuple[TaskView, ...]:
    """By service, slot (or node), live ones and newest first."""
    views = [task_view(view, task) for task in tasks]
    views.sort(key=lambda one: (-one.task.is_live, -one.task.created_at, -one.task.version, one.task.id))
    views.sort(key=lambda one: (one.service_name, one.task.slot, one.node_name if one.task.slot == 0 else ""))
    return tuple(views)


def node_view(view: Snapshot, node: Node, raft: RaftStatusView | None) -> NodeView:
    """A node with its tasks' number and, for a manager, what the answering manager's Raft member knows of it."""
    tasks = sum(
        1 for task in view.tasks_of_node(node.id) if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING
    )
    member = next((one for one in raft.members if one.node_id == node.id), None) if raft is not None else None
    if member is None or raft is None or node.role is not Role.MANAGER:
        return NodeView(node, tasks=tasks)
    return NodeView(node, leader=member.leader, reachable=member.reachable, tasks=tasks, **_progress(raft, member))


def _progress(raft: RaftStatusView, member: MemberView) -> dict[str, int]:
    """How far a member is: the leader knows it of all, any other manager of itself alone."""
    if raft.role == "leader":
        return {"applied_index": member.match_index, "lag": max(0, raft.last_index - member.match_index)}
    if member.raft_id == raft.raft_id:
        return {"applied_index": raft.applied_index, "lag": max(0, raft.last_index - raft.applied_index)}
    return {}


def planned(service: Service, warnings: tuple[str, ...], steps: Sequence[PlannedStep]) -> ServiceWritten:
    """The answer to a change that is only to be shown; of a very long plan the rest is counted."""
    shown: Sequence[PlannedStep] = steps
    if len(steps) > PLAN_LINES_MAX:
        changing = [step for step in steps if step.verb != KEEP]
        shown = changing[:PLAN_LINES_MAX]
    left_out = Counter(step.verb for step in steps) - Counter(step.verb for step in shown)
    lines = tuple(PlanLine(step.verb, step.slot, step.node_name, step.text) for step in shown)
    return ServiceWritten(service, warnings, lines, dict(left_out))


def service_progress(view: Snapshot, id: ServiceId, now: Instant) -> ServiceProgress:
    """How far a service is, as the wire says it."""
    facts = service_facts(view, id, now)
    return ServiceProgress(
        service_id=id,
        mode=facts.mode,
        desired=facts.desired,
        running=facts.running,
        converged=facts.converged,
        failed=facts.failed,
        removed=facts.removed,
        text=facts.text,
        blocked=facts.blocked,
        last_error=facts.last_error,
        stopping=facts.stopping,
    )


def drain_progress(view: Snapshot, node: Node) -> DrainProgress:
    """What still runs on a node that is being drained, and why it has not moved yet."""
    facts = drain_facts(view, node.id)
    return DrainProgress(node.id, remaining=facts.remaining, converged=facts.converged, blocked=facts.blocked)


def public_cluster(cluster: Cluster) -> Cluster:
    """The cluster object without its secrets."""
    return evolve(cluster, root_key=b"", tokens=evolve(cluster.tokens, worker="", manager=""))
