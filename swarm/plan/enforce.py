"""The constraint enforcer: rejects tasks that their node no longer suits, so that the orchestrators replace them.

A task is judged by its service's present constraints and by its own reservations. Room on a node belongs to its tasks in
order of age: when it shrank, the newest give way, the same ones whoever leads. Only ACTIVE nodes are looked at (a paused
node keeps what it has, a drained one is emptied by the orchestrators), and the desired state is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from attrs import evolve

from swarm.model import generic
from swarm.model.changes import Advance, Group, Kind
from swarm.model.constraints import ConstraintError, matcher
from swarm.model.events import Event
from swarm.model.ids import Ids, Instant, NodeId
from swarm.model.objects import Node, Task
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.snapshot import Snapshot
from swarm.model.specs import NodeDescription, ServiceSpec
from swarm.model.states import Availability, TaskState
from swarm.plan.base import Plan
from swarm.plan.schedule.words import cores, size

MESSAGE = "rejected by the constraint enforcer"


class ConstraintEnforcer:
    """The `enforce` planner; keys are node ids, it remembers nothing."""

    name = "enforce"
    slice_keys = 50
    """Nodes a plan: with 100 tasks each about 5 ms."""

    def start(self, view: Snapshot) -> tuple[None, Iterable[str]]:
        """A new leader looks at every node once."""
        return None, [node.id for node in view.nodes()]

    def dirty(self, event: Event, memory: None) -> Iterable[str]:
        """A node that changed in a way that constraints or reservations can see."""
        if event.kind is not Kind.NODE:
            return ()
        before, after = event.before, event.after
        assert before is None or isinstance(before, Node)
        assert after is None or isinstance(after, Node)
        return (after.id,) if after is not None and (before is None or _matters(before, after)) else ()

    def plan(self, view: Snapshot, keys: Collection[str], memory: None, now: Instant, ids: Ids) -> Plan[None]:
        """Reject what no longer fits on these nodes, each task in a group of its own."""
        groups: list[Group] = []
        for key in keys:
            node = view.node(NodeId(key))
            if node is not None and node.spec.availability is Availability.ACTIVE:
                groups += [(_rejection(task, error, now),) for task, error in misfits(node, view)]
        return Plan(memory=None, groups=tuple(groups))


def misfits(node: Node, view: Snapshot) -> list[tuple[Task, str]]:
    """The node's tasks that it no longer suits, oldest first, each with what is wrong in words."""
    # Equal times are told apart by the id, which every leader sees alike.
    tasks = sorted((task for task in view.tasks_of_node(node.id) if _is_judged(task)), key=_age)
    room = _Room(node)
    found: list[tuple[Task, str]] = []
    for task in tasks:
        spec = view.spec_of(task)
        if spec is None:
            continue
        error = _unmet_constraints(task, spec, node, view)
        if not error and task.status.state >= TaskState.ASSIGNED:
            error = room.take(task, spec)
        if error:
            found.append((task, error))
    return found


def _is_judged(task: Task) -> bool:
    return TaskState.ASSIGNED <= task.desired <= TaskState.COMPLETE and task.status.state < TaskState.COMPLETE


def _age(task: Task) -> tuple[float, str]:
    return task.created_at, task.id


def _unmet_constraints(task: Task, spec: ServiceSpec, node: Node, view: Snapshot) -> str:
    service = view.service(task.service_id)
    placement = (service.spec if service is not None else spec).task.placement
    if not placement.constraints:
        return ""
    try:
        failing = matcher(placement.constraints).failing(node)
    except ConstraintError:
        # What cannot be read decides nothing about a task that runs; the scheduler says so where it waits.
        return ""
    if not failing:
        return ""
    return "the node no longer meets " + ", ".join(constraint.text for constraint in failing)


class _Room:
    """What the node has, taken out task by task."""

    def __init__(self, node: Node) -> None:
        present = node.description.resources
        self._is_known = node.description != NodeDescription()
        self._nano_cpus = present.nano_cpus
        self._memory_bytes = present.memory_bytes
        self._generic = generic.free(present.generic, {}, {})

    def take(self, task: Task, spec: ServiceSpec) -> str:
        """Take a task's share out; what is missing, in words, when it does not fit any more (then nothing is taken)."""
        if not self._is_known:
            return ""
        wanted = spec.task.resources.reservations
        if wanted.memory_bytes > max(0, self._memory_bytes):
            left = size(max(0, self._memory_bytes))
            return f"the node no longer has the {size(wanted.memory_bytes)} of memory it reserves, {left} are left"
        if wanted.nano_cpus > max(0, self._nano_cpus):
            left = cores(max(0, self._nano_cpus))
            return f"the node no longer has the {cores(wanted.nano_cpus)} CPU it reserves, {left} are left"
        missing = generic.lost(task.generic, self._generic)
        if missing is not None:
            return f"the node no longer has the {generic.to_text((missing,))} that was claimed for it"
        self._memory_bytes -= wanted.memory_bytes
        self._nano_cpus -= wanted.nano_cpus
        return ""


def _rejection(task: Task, error: str, now: Instant) -> Advance:
    status = evolve(task.status, state=TaskState.REJECTED, at=now, applied_at=now, message=MESSAGE, error=error)
    return Advance(task.id, status=status, reason=Reason(ReasonCode.CONSTRAINT, error))


def _matters(before: Node, after: Node) -> bool:
    return (
        before.spec != after.spec
        or before.description != after.description
        or before.role is not after.role
        or before.status.address != after.status.address
    )
