"""A cluster for the scheduler's tests: a real store, the real planner, and the loop that a control loop would run."""

from __future__ import annotations

from collections import Counter

from attrs import evolve

from swarm.model.changes import Advance, Change, Create, Delete, Kind, Update
from swarm.model.events import Event
from swarm.model.ids import Instant, NodeId, RevisionNumber, ServiceId, Slot, TaskId, Version
from swarm.model.objects import NEW_STATUS, Node, NodeStatus, Revision, Service, Task, TaskStatus
from swarm.model.specs import (
    ContainerSpec,
    GenericResource,
    Global,
    LogDriver,
    Mount,
    NodeDescription,
    NodeSpec,
    Placement,
    Platform,
    Port,
    ProcessSpec,
    Replicated,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.states import Availability, NodeState, Role, TaskState
from swarm.model.store import Store
from swarm.plan.schedule.memory import SchedulerMemory
from swarm.plan.schedule.planner import Scheduler

GIB = 1 << 30
CORE = 10**9
START = Instant(1_000_000.0)
LINUX = Platform("x86_64", "linux")
ROUNDS_MAX = 500


class NoIds:
    """The scheduler makes nothing that needs an id."""

    def new(self) -> str:
        raise AssertionError("the scheduler creates no objects")


class World:
    """One store, and the planner of one leader after the other."""

    def __init__(self) -> None:
        self.store = Store()
        self.now = START
        self.scheduler = Scheduler()
        self.memory: SchedulerMemory | None = None
        self.keys: dict[str, None] = {}
        self.wake: dict[str, Instant] = {}
        self.events: list[Event] = []
        self.plans = 0
        self.refused: list[object] = []
        self.made: Counter[str] = Counter()

    # --- the store -------------------------------------------------------------------------------------------------
    def apply(self, *changes: Change) -> None:
        """Commit the changes as one group, which must be accepted."""
        results = self.commit([tuple(changes)])
        assert results == [None], results

    def commit(self, groups: list[tuple[Change, ...]]) -> list[object]:
        """Commit groups and give the events to the leader's planner."""
        results, events = self.store.apply(groups, Version(self.store.version + 1))
        self.events += events
        if self.memory is not None:
            for event in events:
                self.keys.update(dict.fromkeys(self.scheduler.dirty(event, self.memory)))
        return list(results)

    def node(
        self,
        id: str,
        *,
        cpus: float = 16,
        memory: int = 64 * GIB,
        labels: dict[str, str] | None = None,
        engine_labels: dict[str, str] | None = None,
        state: NodeState = NodeState.READY,
        availability: Availability = Availability.ACTIVE,
        role: Role = Role.WORKER,
        platform: Platform = LINUX,
        executors: tuple[str, ...] = ("docker", "process"),
        generic: tuple[GenericResource, ...] = (),
        engine: str = "",
        plugins: tuple[tuple[str, str], ...] = (),
    ) -> NodeId:
        """Add a node, or replace it."""
        node = Node(
            NodeId(id),
            NodeSpec(labels=labels or {}, availability=availability),
            role=role,
            description=NodeDescription(
                hostname=id,
                platform=platform,
                resources=Resources(int(cpus * CORE), memory, generic),
                executors=executors,
                engine_version=engine,
                engine_labels=engine_labels or {},
                plugins=plugins,
            ),
            status=NodeStatus(state, address="10.0.0.1"),
        )
        stored = self.store.node(node.id)
        self.apply(Create(node) if stored is None else Update(evolve(node, version=stored.version)))
        return node.id

    def nodes(self, count: int, prefix: str = "n") -> list[NodeId]:
        """Add so many like nodes, named n00, n01, ..."""
        return [self.node(f"{prefix}{number:02d}") for number in range(count)]

    def set_state(self, id: str, state: NodeState) -> None:
        """Change what the managers know of a node."""
        node = self.store.node(NodeId(id))
        assert node is not None
        self.apply(Update(evolve(node, status=evolve(node.status, state=state))))

    def remove_node(self, id: str) -> None:
        """Delete a node."""
        self.apply(Delete(Kind.NODE, id))

    def service(
        self,
        id: str,
        *,
        replicas: int = 1,
        mode: Replicated | Global | None = None,
        cpus: float = 0,
        memory: int = 0,
        generic: tuple[GenericResource, ...] = (),
        constraints: tuple[str, ...] = (),
        preferences: tuple[str, ...] = (),
        platforms: tuple[Platform, ...] = (),
        max_replicas: int = 0,
        ports: tuple[Port, ...] = (),
        mounts: tuple[Mount, ...] = (),
        log: str | None = None,
        image: str | None = None,
    ) -> ServiceId:
        """Add a service, or its next revision."""
        task = TaskSpec(
            ContainerSpec(image or "image", mounts=mounts) if mounts or image else ProcessSpec(("server",)),
            ResourceRequirements(reservations=Resources(int(cpus * CORE), memory, generic)),
            placement=Placement(constraints, preferences, platforms, max_replicas),
            log_driver=None if log is None else LogDriver(log),
        )
        spec = ServiceSpec(id, task, mode or Replicated(replicas), ports=ports)
        stored = self.store.service(ServiceId(id))
        if stored is None:
            self.apply(Create(Service(ServiceId(id), spec)), Create(Revision(ServiceId(id), RevisionNumber(1), spec)))
        else:
            number = RevisionNumber(stored.revision + 1)
            self.apply(
                Update(evolve(stored, spec=spec, revision=number, previous=stored.revision)),
                Create(Revision(ServiceId(id), number, spec)),
            )
        return ServiceId(id)

    def task(
        self,
        service: str,
        slot: int,
        *,
        node: str = "",
        state: TaskState = TaskState.PENDING,
        desired: TaskState = TaskState.RUNNING,
        generic: tuple[GenericResource, ...] = (),
        at: float | None = None,
    ) -> TaskId:
        """Add a task of the service's present revision, named `service/slot/number`."""
        stored = self.store.service(ServiceId(service))
        assert stored is not None
        number = self.made[service]
        self.made[service] += 1
        task = Task(
            TaskId(f"{service}/{slot}/{number}"),
            stored.id,
            stored.revision,
            Slot(slot),
            node_id=NodeId(node),
            desired=desired,
            status=TaskStatus(state, at=Instant(at if at is not None else self.now)) if state else NEW_STATUS,
            generic=generic,
            created_at=Instant(self.now + number),
        )
        self.apply(Create(task))
        return task.id

    def tasks(self, service: str, count: int) -> list[TaskId]:
        """Add so many pending tasks, in slots from 1 on."""
        present = len(self.store.tasks_of_service(ServiceId(service)))
        return [self.task(service, present + number + 1) for number in range(count)]

    def status(self, id: TaskId, state: TaskState, desired: TaskState | None = None) -> None:
        """Report a task's state."""
        self.apply(Advance(id, desired, TaskStatus(state, at=self.now, applied_at=self.now)))

    def desire(self, id: TaskId, desired: TaskState) -> None:
        """Change what is wanted of a task."""
        self.apply(Advance(id, desired))

    # --- the leader ------------------------------------------------------------------------------------------------
    def lead(self) -> None:
        """A new leader starts: nothing is known but the store."""
        self.memory, first = self.scheduler.start(self.store)
        self.keys = dict.fromkeys(first)
        self.wake = {}

    def step(self) -> int:
        """One plan of the dirty keys, committed; gives how many groups it had."""
        assert self.memory is not None
        keys = list(self.keys)
        self.keys.clear()
        plan = self.scheduler.plan(self.store, keys, self.memory, self.now, NoIds())
        self.plans += 1
        for key in keys:
            self.wake.pop(key, None)
        self.wake.update(plan.wake)
        self.keys.update(dict.fromkeys(plan.again))
        if plan.groups:
            for group, result in zip(plan.groups, self.commit(list(plan.groups)), strict=True):
                if result is not None:
                    self.keys.update(dict.fromkeys(keys))
                    self.refused.append((group, result))
        return len(plan.groups)

    def run(self) -> int:
        """Plan until nothing is dirty; gives how many groups were committed."""
        if self.memory is None:
            self.lead()
        total = 0
        for _ in range(ROUNDS_MAX):
            if not self.keys:
                return total
            total += self.step()
        raise AssertionError(f"the planner does not come to rest: {list(self.keys)[:5]}")

    def wait(self, seconds: float) -> int:
        """Let time pass, and plan what woke up."""
        self.now = Instant(self.now + seconds)
        due = [key for key, at in self.wake.items() if at <= self.now]
        self.keys.update(dict.fromkeys(due))
        return self.run()

    # --- what came of it -------------------------------------------------------------------------------------------
    def get(self, id: TaskId) -> Task:
        """The task as stored."""
        task = self.store.task(id)
        assert task is not None
        return task

    def where(self, id: TaskId) -> str:
        """The task's node once it was assigned, else ""."""
        task = self.get(id)
        return task.node_id if task.status.state >= TaskState.ASSIGNED else ""

    def spread(self, service: str) -> dict[str, int]:
        """Active placed tasks of the service by node, nodes without any left out."""
        found: dict[str, int] = {}
        for task in self.store.tasks_of_service(ServiceId(service)):
            if task.node_id and task.desired <= TaskState.COMPLETE and task.status.state >= TaskState.ASSIGNED:
                found[task.node_id] = found.get(task.node_id, 0) + 1
        return dict(sorted(found.items()))

    def error(self, id: TaskId) -> str:
        """Why the task waits."""
        assert self.get(id).status.state is TaskState.PENDING
        return self.get(id).status.error
