"""What the planners of all service kinds share: which keys an event touches, and how keys become work on services.

A kind of service is a subclass that says which services and tasks are its own and plans a whole service or one part of it.
The memory holds only what may be forgotten: how far a large service was filled or updated, so that going on does not look at
all of it again, and which nodes are not well, so that a task that is bound to one of them is looked at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, TypeVar

from attrs import define, evolve, field, frozen

from swarm.model.changes import Advance, Kind
from swarm.model.events import Event
from swarm.model.ids import Ids, Instant, NodeId, ServiceId, TaskId, Version
from swarm.model.objects import Cluster, Node, Service, Task
from swarm.model.reasons import ReasonCode
from swarm.model.snapshot import Snapshot
from swarm.model.states import Availability, NodeState, TaskState
from swarm.plan.base import Plan
from swarm.plan.context import Draft, ServiceContext, because
from swarm.plan.keys import ALL, EVERYTHING, NEXT, node_key, parse_key, part_key

if TYPE_CHECKING:
    from swarm.plan.survey import Survey

V = TypeVar("V")

BUDGET = 250
"""Slots that one call changes at the most: about 3 ms of work, so that the event loop breathes in between."""
LOOKS = 1_000
"""Slots of services that are looked at as a whole, in one call: 3 to 6 ms, twice that when an update is under way."""


@frozen
class Scaling:
    """How far a service was filled or emptied, whose change takes several calls; valid for one version of the service."""

    version: Version
    next_number: int = 1
    """Slots below are filled."""
    missing: int = 0
    removing: tuple[int, ...] = ()
    """Slots that are still to be given up, in order."""


@frozen
class Rolling:
    """An update under way, so that a step looks at the slots that it concerns; valid for one version of the service."""

    version: Version
    waiting: tuple[str, ...]
    """Parts that were dirty and otherwise steady when the whole was looked at, in order."""
    position: int
    """How many of them were taken."""
    open: frozenset[str]
    """Parts that are not at rest: being replaced, in their delay, or in repair."""
    later: frozenset[str]
    """Those of them that wait for their turn and are not in `waiting`."""
    busy: frozenset[str]
    """Those of them that take a place within the parallelism."""
    ran_at_max: Instant
    """When the newest of the update's tasks began to run: the monitoring ends that much later."""


class Look(Enum):
    """What a look at one part of a service came to."""

    DONE = "done"
    JOIN = "join"
    """It is to be planned with what is under way in the service."""
    ALL = "all"
    """Only a look at the whole can tell."""


@define
class Request:
    """What is to be planned of a whole service."""

    parts: set[str] = field(factory=set)
    itself: bool = False
    """The service was named, not only parts of it: what waits for its time may be due."""
    full: bool = False


@frozen
class Memory:
    """What a planner remembers between calls; all of it is rebuilt after a leader change."""

    scaling: dict[ServiceId, Scaling] = field(factory=dict)
    rolling: dict[ServiceId, Rolling] = field(factory=dict)
    surveys: dict[ServiceId, Survey] = field(factory=dict)
    """Looks at the whole of large services that are under way."""
    retiring: dict[ServiceId, tuple[TaskId, ...]] = field(factory=dict)
    """Tasks of removed services that are still to be looked at, and told to stop."""
    unwell: frozenset[NodeId] = frozenset()
    """Nodes whose state may concern a task that arrives there."""
    owned: frozenset[ServiceId] = frozenset()
    """Services of a kind that has a share on every node; empty for the other kinds."""


class Orchestrator(ABC):
    """A planner of one kind of services; see `plan.base.Planner`."""

    name: str
    slice_keys: int = 128
    """Parts in one call: one that is repaired within an update costs 40 us, thrice what it costs otherwise."""
    watched_from: ClassVar[TaskState] = TaskState.RUNNING
    """Reaching this state or a later one concerns the planner."""
    on_every_node: ClassVar[bool] = False
    """Whether a service of this kind has a part on each node, so that a node concerns all of them."""

    # --- what a kind says --------------------------------------------------------------------------------------------
    @abstractmethod
    def owns(self, service: Service) -> bool:
        """Whether this planner runs the service."""

    @abstractmethod
    def owns_task(self, task: Task) -> bool:
        """Whether the task was made for such a service; its service may be gone."""

    @abstractmethod
    def part_of(self, task: Task) -> str:
        """The part of its service that the task belongs to, as in its key."""

    @abstractmethod
    def plan_service(self, draft: Draft, ctx: ServiceContext, memory: Memory, request: Request) -> Memory:
        """A service: all of it, unless what is remembered of it and the request allow less."""

    @abstractmethod
    def plan_part(self, draft: Draft, ctx: ServiceContext, part: str) -> Look:
        """One part of a service."""

    def node_concerns(self, before: Node | None, after: Node | None) -> bool:
        """Whether this change of a node can change a decision."""
        if before is None or after is None:
            return True
        return before.status.state is not after.status.state or before.spec.availability is not after.spec.availability

    def parts_on_node(self, draft: Draft, node_id: NodeId, memory: Memory) -> Iterator[tuple[ServiceId, str]]:
        """The parts that a change of the node touches."""
        for service_id in sorted(memory.owned):
            yield service_id, node_id
        for task in draft.view.tasks_of_node(node_id):
            if task.is_live and self.owns_task(task):
                yield task.service_id, self.part_of(task)

    # --- the planner's contract -----------------------------------------------------------------------------------
    def start(self, view: Snapshot) -> tuple[Memory, Iterable[str]]:
        """Every service, those included whose tasks are all that is left of them."""
        owned = [service.id for service in view.services() if self.owns(service)]
        keys: dict[ServiceId, None] = dict.fromkeys(owned)
        for id in view.services_with_tasks():
            if view.service(id) is None and any(map(self.owns_task, view.tasks_of_service(id))):
                keys[id] = None
        unwell = frozenset(node.id for node in view.nodes() if is_unwell(node))
        return Memory(unwell=unwell, owned=frozenset(owned if self.on_every_node else ())), list(keys)

    def dirty(self, event: Event, memory: Memory) -> Iterable[str]:
        """The keys that an event touches."""
        match event.object:
            case Task() as task if self.owns_task(task):
                if memory.surveys and (survey := memory.surveys.get(task.service_id)) is not None:
                    survey.touched.add(task.slot)
                return self._dirty_task(event.before, event.after, memory)
            case Service() as service if self.owns(service):
                return (service.id,)
            case Node() as node if self.node_concerns(_as_node(event.before), _as_node(event.after)):
                return (node_key(node.id),)
            case Cluster() if event.kind is Kind.CLUSTER and _replacement_changed(event):
                return (EVERYTHING,)
        return ()

    def _dirty_task(self, before: object, after: object, memory: Memory) -> Iterable[str]:
        if not isinstance(after, Task):
            assert isinstance(before, Task), "an event has at least one side"
            return (part_key(before.service_id, ALL if before.is_live else self.part_of(before)),)
        if not isinstance(before, Task):
            touched = bool(after.node_id) and after.node_id in memory.unwell
        else:
            state = after.status.state
            touched = (
                (state is not before.status.state and state >= self.watched_from)
                or (after.desired is not before.desired and TaskState.COMPLETE < after.desired < TaskState.REMOVE)
                or (after.node_id != before.node_id and after.node_id in memory.unwell)
                or (state <= TaskState.PENDING and after.status.error != before.status.error)
            )
        return (part_key(after.service_id, self.part_of(after)),) if touched else ()

    def plan(self, view: Snapshot, keys: Collection[str], memory: Memory, now: Instant, ids: Ids) -> Plan[Memory]:
        """What to change for these keys."""
        draft = Draft(view, now, ids, budget=BUDGET, looks=LOOKS)
        whole, parts, memory = self._expand(draft, keys, memory)
        changed = self._plan_parts(draft, memory, parts, whole)
        for service_id, request in whole.items():
            if draft.budget <= 0 or draft.looks <= 0 or service_id in changed:
                _again(draft, service_id, request)
                continue
            draft.budget -= 1
            ctx = self._context(draft, service_id)
            if ctx is not None:
                memory = self._owning(memory, service_id)
                memory = self.plan_service(draft, ctx, memory, request)
            elif view.service(service_id) is None:
                memory = self._retire(draft, service_id, memory)
        return Plan(memory, tuple(draft.groups), draft.wake, tuple(draft.again))

    def _plan_parts(
        self,
        draft: Draft,
        memory: Memory,
        parts: Iterable[tuple[ServiceId, str]],
        whole: dict[ServiceId, Request],
    ) -> set[ServiceId]:
        """Plan what one part alone can decide; the rest joins what is planned of the whole service.

        Returns the services with changes: their whole must not be planned from a view that does not show these yet.
        """
        changed: set[ServiceId] = set()
        contexts: dict[ServiceId, ServiceContext] = {}
        for service_id, part in parts:
            if service_id in whole and service_id not in memory.scaling:
                whole[service_id].parts.add(part)
                continue
            ctx = contexts.get(service_id) or self._context(draft, service_id)
            if ctx is None:
                continue  # it was removed, which its own key tells, or it is of another kind
            contexts[service_id] = ctx
            if draft.budget <= 0:
                draft.again[part_key(service_id, part)] = None
                continue
            draft.budget -= 1
            groups = len(draft.groups)
            look = self.plan_part(draft, ctx, part)
            if len(draft.groups) > groups:
                changed.add(service_id)
            if look is Look.JOIN:
                whole.setdefault(service_id, Request()).parts.add(part)
            elif look is Look.ALL:
                whole.setdefault(service_id, Request()).full = True
        return changed

    def _expand(
        self, draft: Draft, keys: Collection[str], memory: Memory
    ) -> tuple[dict[ServiceId, Request], dict[tuple[ServiceId, str], None], Memory]:
        whole: dict[ServiceId, Request] = {}
        parts: dict[tuple[ServiceId, str], None] = {}
        unwell = set(memory.unwell)
        for text in keys:
            key = parse_key(text)
            if key.everything:
                draft.again.update((part_key(s.id, ALL), None) for s in draft.view.services() if self.owns(s))
                memory = evolve(memory, surveys={})  # what they found so far was judged by the old settings
            elif key.node is not None:
                node = draft.view.node(key.node)
                (unwell.discard if node is not None and not is_unwell(node) else unwell.add)(key.node)
                parts.update((part, None) for part in self.parts_on_node(draft, key.node, memory))
            elif key.service is not None and key.part == ALL:
                whole.setdefault(key.service, Request()).full = True
            elif key.service is not None and key.part == NEXT:
                whole.setdefault(key.service, Request())
            elif key.service is not None and key.part:
                parts[key.service, key.part] = None
            elif key.service is not None:
                whole.setdefault(key.service, Request()).itself = True
        if unwell != memory.unwell:
            memory = evolve(memory, unwell=frozenset(unwell))
        return whole, parts, memory

    def _owning(self, memory: Memory, service_id: ServiceId) -> Memory:
        if not self.on_every_node or service_id in memory.owned:
            return memory
        return evolve(memory, owned=memory.owned | {service_id})

    def _context(self, draft: Draft, service_id: ServiceId) -> ServiceContext | None:
        service = draft.view.service(service_id)
        if service is None or not self.owns(service):
            return None
        return ServiceContext(draft.view, service, draft.now, draft.ids)

    def _retire(self, draft: Draft, service_id: ServiceId, memory: Memory) -> Memory:
        """Stop all that a removed service left; the reaper deletes the records once the tasks have stopped."""
        left = memory.retiring.get(service_id)
        if left is None:
            left = tuple([task.id for task in draft.view.tasks_of_service(service_id)])
        reason = because(ReasonCode.SERVICE_REMOVED, "its service was removed")
        now, left = left[: draft.budget], left[draft.budget :]
        draft.budget -= len(now)
        for task_id in now:
            task = draft.view.task(task_id)
            if task is not None and task.desired is not TaskState.REMOVE and self.owns_task(task):
                draft.add(Advance(task_id, desired=TaskState.REMOVE, reason=reason))
        retiring = without(memory.retiring, service_id)
        if left:
            draft.again[service_id] = None
            retiring[service_id] = left
        surveys = without(memory.surveys, service_id)
        owned = memory.owned - {service_id}
        return evolve(forget(memory, service_id), surveys=surveys, retiring=retiring, owned=owned)


def is_unwell(node: Node) -> bool:
    """Whether a task that is bound to the node now may have to leave it."""
    return (
        node.status.state in (NodeState.DOWN, NodeState.DISCONNECTED)
        or node.spec.availability is not Availability.ACTIVE
    )


def forget(memory: Memory, service_id: ServiceId) -> Memory:
    """The memory without what it holds of a service."""
    if service_id not in memory.scaling and service_id not in memory.rolling:
        return memory
    return evolve(memory, scaling=without(memory.scaling, service_id), rolling=without(memory.rolling, service_id))


def without(known: dict[ServiceId, V], service_id: ServiceId) -> dict[ServiceId, V]:
    """The mapping without a service."""
    return {key: value for key, value in known.items() if key != service_id}


def _again(draft: Draft, service_id: ServiceId, request: Request) -> None:
    """The same request, in the next call."""
    if request.full or request.itself:
        draft.again[part_key(service_id, ALL) if request.full else service_id] = None
    for part in request.parts or (() if request.full or request.itself else (NEXT,)):
        draft.again[part_key(service_id, part)] = None


def _as_node(value: object) -> Node | None:
    return value if isinstance(value, Node) else None


def _replacement_changed(event: Event) -> bool:
    """Whether the settings that say when a silent node's tasks are replaced changed."""
    before, after = event.before, event.after
    if not isinstance(before, Cluster) or not isinstance(after, Cluster):
        return True
    old, new = before.settings, after.settings
    return (old.replace_after_s, old.heartbeat_period_s) != (new.replace_after_s, new.heartbeat_period_s)
