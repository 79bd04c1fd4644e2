"""What the decisions on one service look at: its spec, its nodes' health, which tasks are clean, and the draft they fill.

One `ServiceContext` lives for one service in one call of a planner; what it computes is cached in it, because thousands of
tasks share a few nodes and a few revisions. It reads the view only; a `Draft` gathers what is to be changed.
"""

from __future__ import annotations

from enum import Enum

from attrs import define, evolve, field

from swarm.model.changes import Change, Create, Group
from swarm.model.constraints import ConstraintError, matcher
from swarm.model.ids import NO_NODE, Ids, Instant, NodeId, RevisionNumber, Slot, TaskId
from swarm.model.objects import NEVER, Node, NodeStatus, Service, Task
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.snapshot import Snapshot
from swarm.model.specs import ContainerSpec, GlobalJob, Placement, ReplicatedJob, ServiceSpec, TaskSpec
from swarm.model.states import Availability, NodeState, Origin, TaskState, UpdateState
from swarm.plan.liveness import GRACE_PERIODS

DEFAULT_HEARTBEAT_S = 5.0


class Place(Enum):
    """What a task's node means for the task."""

    FINE = "fine"
    """Also: not placed yet, paused, unknown, or unreachable for a moment only."""
    DRAINED = "drained"
    LOST = "lost"
    """Gone, down, or unreachable for as long as the service bears."""


@define
class Draft:
    """What one call of a planner gathers; it is emptied into a `Plan`."""

    view: Snapshot
    now: Instant
    ids: Ids
    groups: list[Group] = field(factory=list)
    wake: dict[str, Instant] = field(factory=dict)
    again: dict[str, None] = field(factory=dict)
    budget: int = 0
    """Slots that may still be planned or filled in this call."""
    looks: int = 0
    """Slots that may still be looked at in this call, for services that are looked at as a whole."""

    def add(self, *changes: Change) -> None:
        """Changes that commit together; none at all is nothing."""
        if changes:
            self.groups.append(changes)

    def wake_at(self, key: str, instant: Instant) -> None:
        """Plan the key again then, or earlier if something earlier was asked for."""
        known = self.wake.get(key)
        if known is None or instant < known:
            self.wake[key] = instant


@define
class ServiceContext:
    """One service in one call; see the module."""

    view: Snapshot
    service: Service
    now: Instant
    ids: Ids
    _seen: dict[NodeId, tuple[Place, Instant | None]] = field(factory=dict)
    _well: dict[NodeId, bool] = field(factory=dict)
    _same: dict[RevisionNumber, _Likeness] = field(factory=dict)

    @property
    def spec(self) -> ServiceSpec:
        """The declared spec."""
        return self.service.spec

    @property
    def is_job(self) -> bool:
        """Whether its tasks run to completion."""
        return isinstance(self.spec.mode, ReplicatedJob | GlobalJob)

    @property
    def goal(self) -> TaskState:
        """The desired state of a task that may start."""
        return TaskState.COMPLETE if self.is_job else TaskState.RUNNING

    @property
    def rolling_back(self) -> bool:
        """Whether a rollback is under way."""
        status = self.service.update_status
        return status is not None and status.state is UpdateState.ROLLBACK_STARTED

    # --- nodes -----------------------------------------------------------------------------------------------------
    def place(self, node_id: NodeId) -> Place:
        """What its node means for a task of this service, now."""
        return self._look(node_id)[0] if node_id else Place.FINE

    def next_loss(self, node_id: NodeId) -> Instant | None:
        """The future instant at which a node's tasks become lost if it stays as it is."""
        return self._look(node_id)[1] if node_id else None

    def is_well(self, node_id: NodeId) -> bool:
        """Whether a task on the node has nothing to fear, now or at a known instant; true for one that has no node yet."""
        known = self._well.get(node_id)
        if known is None:
            place, loss = self._look(node_id) if node_id else (Place.FINE, None)
            known = self._well[node_id] = place is Place.FINE and loss is None
        return known

    def name_of(self, node_id: NodeId) -> str:
        """What people call the node."""
        node = self.view.node(node_id)
        return (node.description.hostname if node else "") or short(node_id)

    def _look(self, node_id: NodeId) -> tuple[Place, Instant | None]:
        known = self._seen.get(node_id)
        if known is None:
            known = self._seen[node_id] = self._judge_node(self.view.node(node_id))
        return known

    def _judge_node(self, node: Node | None) -> tuple[Place, Instant | None]:
        if node is None:
            return Place.LOST, None
        lost_at = self.lost_at(node.status)
        if lost_at is not None and lost_at <= self.now:
            return Place.LOST, None
        return (Place.DRAINED if node.spec.availability is Availability.DRAIN else Place.FINE), lost_at

    def lost_at(self, status: NodeStatus) -> Instant | None:
        """When an unreachable node's tasks are to be replaced; None while it is not known to be unreachable.

        Without a `replace_after_s` that is when the node is declared DOWN. With one it counts from the moment at which the
        node fell silent; DOWN is declared three heartbeat periods after that, which a DOWN node's time therefore includes.
        """
        if status.state not in (NodeState.DOWN, NodeState.DISCONNECTED):
            return None
        cluster = self.view.cluster
        after_s = self.spec.replace_after_s
        if after_s is None and cluster is not None:
            after_s = cluster.settings.replace_after_s
        if status.state is NodeState.DOWN:
            heartbeat_s = cluster.settings.heartbeat_period_s if cluster else DEFAULT_HEARTBEAT_S
            silent_s = GRACE_PERIODS * heartbeat_s
            return Instant(status.since + max(0.0, (after_s or 0.0) - silent_s))
        return None if after_s is None else Instant(status.since + after_s)

    # --- what is clean ---------------------------------------------------------------------------------------------
    def is_clean(self, task: Task) -> bool:
        """Whether the task is what the service's current spec asks for (13.2 of the rules): same content, whatever number.

        A differing placement alone does not matter while the task's node satisfies the new constraints; differing pull
        credentials do not matter to a task that was pulled already and is not over.
        """
        if task.revision == self.service.revision:
            return True
        likeness = self._same.get(task.revision)
        if likeness is None:
            likeness = self._same[task.revision] = _liken(self.view.spec_of(task), self.spec)
        if likeness is _Likeness.SAME:
            return True
        if likeness is _Likeness.OTHER:
            return False
        if likeness is _Likeness.PULL:
            return task.is_live and TaskState.READY <= task.status.state <= TaskState.RUNNING
        node = self.view.node(task.node_id) if task.node_id else None
        return node is not None and satisfies(node, self.spec.task.placement.constraints)

    # --- new tasks -------------------------------------------------------------------------------------------------
    def create(
        self,
        slot: int,
        reason: Reason,
        *,
        node: NodeId = NO_NODE,
        origin: Origin = Origin.CREATED,
        restarts: int = 0,
        desired: TaskState | None = None,
        start_after: Instant = NEVER,
    ) -> Create:
        """A new task of the current revision, and of a job's current iteration; it may start at once unless `desired` says so."""
        return Create(
            Task(
                TaskId(self.ids.new()),
                self.service.id,
                self.service.revision,
                Slot(slot),
                node_id=node,
                desired=desired if desired is not None else self.goal,
                created_at=self.now,
                job_iteration=self.service.job_iteration if self.is_job else None,
                reason=reason,
                origin=origin,
                restarts=restarts,
                start_after=start_after,
            )
        )


class _Likeness(Enum):
    """How an older revision's spec compares with the current one."""

    SAME = "same"
    PLACEMENT = "placement"
    """Only the placement differs."""
    PULL = "pull"
    """Only the pull credentials differ."""
    OTHER = "other"


def _liken(old: ServiceSpec | None, new: ServiceSpec) -> _Likeness:
    if old is None or old.ports != new.ports:
        return _Likeness.OTHER
    if old.task == new.task:
        return _Likeness.SAME
    if evolve(old.task, placement=Placement()) == evolve(new.task, placement=Placement()):
        return _Likeness.PLACEMENT
    if _without_credentials(old.task) == _without_credentials(new.task):
        return _Likeness.PULL
    return _Likeness.OTHER


def _without_credentials(spec: TaskSpec) -> TaskSpec:
    runtime = spec.runtime
    return evolve(spec, runtime=evolve(runtime, registry_auth="")) if isinstance(runtime, ContainerSpec) else spec


def satisfies(node: Node, constraints: tuple[str, ...]) -> bool:
    """Whether the node meets the constraints; an expression that cannot be read does not count (the API refuses those)."""
    try:
        return matcher(constraints).matches(node)
    except ConstraintError:
        return True


def short(task_id: str) -> str:
    """A task's id as people quote it."""
    return task_id[:12]


def because(code: ReasonCode, text: str, replaced: Task | None = None) -> Reason:
    """A reason in words, with the task that the new one replaces."""
    return Reason(code, text, previous_task=replaced.id if replaced else "")
