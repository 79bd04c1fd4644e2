"""A small world for the orchestrators: a real store, the real planners, and nodes whose agents do what they are told.

The agents are simulated in steps: `agents()` lets every reachable node move each of its tasks one step, `run()` alternates
planning, placing and agents until all is at rest at this instant, `pass_time()` moves the clock from wake to wake. Ids are short
and count up, so that stories can be read. Every commit is checked against what must always hold (`orch_invariants`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import evolve
from orch_invariants import Author, Signed, check

from swarm.actors.control.writes import rollback_service
from swarm.model.changes import Advance, Assign, Change, Create, Delete, Group, Kind, Update
from swarm.model.events import Event
from swarm.model.ids import ClusterId, Instant, NodeId, RevisionNumber, ServiceId, TaskId
from swarm.model.objects import Cluster, Node, NodeStatus, Revision, Service, Task, TaskStatus, UpdateStatus
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.specs import (
    ClusterSettings,
    Mode,
    NodeDescription,
    NodeSpec,
    ProcessSpec,
    Replicated,
    RestartPolicy,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarm.model.states import Availability, NodeState, TaskState, UpdateState
from swarm.model.store import Store
from swarm.plan.base import Planner
from swarm.plan.global_services import GlobalPlanner
from swarm.plan.jobs import JobsPlanner
from swarm.plan.reap import Reaper
from swarm.plan.rehearsal import Rehearsal
from swarm.plan.replicated import ReplicatedPlanner
from swarm.plan.schedule.planner import Scheduler

NOON = Instant(1_000_000.0)
FAST = RestartPolicy(delay_s=5.0)


class CountingIds:
    """t1, t2, ..."""

    def __init__(self, prefix: str = "t") -> None:
        self._numbers = itertools.count(1)
        self._prefix = prefix

    def new(self) -> str:
        return f"{self._prefix}{next(self._numbers)}"


def planners() -> list[Planner[Any]]:
    return [ReplicatedPlanner(), GlobalPlanner(), JobsPlanner(), Reaper()]


def spec(
    name: str = "web",
    replicas: int = 1,
    *,
    version: str = "1",
    mode: Mode | None = None,
    restart: RestartPolicy = FAST,
    update: UpdateConfig | None = None,
    rollback: UpdateConfig | None = None,
    **task: Any,
) -> ServiceSpec:
    """A process service; another `version` makes its tasks dirty."""
    return ServiceSpec(
        name,
        TaskSpec(ProcessSpec(("server", version)), restart=restart, **task),
        mode=mode if mode is not None else Replicated(replicas),
        update=update,
        rollback=rollback,
    )


class World:
    """See the module."""

    def __init__(
        self, nodes: str = "", *, settings: ClusterSettings | None = None, all: Sequence[Planner[Any]] = ()
    ) -> None:
        self.broken: set[str] = set()
        """Programs (the `version` of a spec) whose tasks fail when they start."""
        self.stubborn: set[TaskId] = set()
        """Tasks that do not stop."""
        self.silent: set[NodeId] = set()
        """Nodes that neither hear nor tell."""
        self.lasting = False
        """Tasks of jobs run until they are reported as ended."""
        self.full: set[NodeId] = set()
        """Nodes that take no further task."""
        self.scheduled = any(planner.name == "scheduler" for planner in all)
        """The real scheduler places, so that nobody else does."""
        self.checks: list[Callable[[World, Event], None]] = []
        self._service_ids = CountingIds("s")
        self._late_ids = CountingIds("late")
        self._author = Author()
        signed: list[Planner[Any]] = [Signed(planner, self._author) for planner in list(all) or planners()]
        self.rehearsal = Rehearsal(Store(), signed, NOON, CountingIds())
        self.rehearsal.listener = self._seen
        self.commit(Create(Cluster(ClusterId("c"), settings or ClusterSettings())))
        for name in nodes.split():
            self.add_node(name)

    # --- reading ---------------------------------------------------------------------------------------------------
    @property
    def store(self) -> Store:
        return self.rehearsal.store

    @property
    def now(self) -> Instant:
        return self.rehearsal.now

    def service(self, name: str = "web") -> Service:
        found = self.store.service_named(name)
        assert found is not None, f"no service {name}"
        return found

    def task(self, id: str) -> Task:
        found = self.store.task(TaskId(id))
        assert found is not None, f"no task {id}"
        return found

    def tasks(self, name: str = "web") -> list[Task]:
        return list(self.store.tasks_of_service(self.service(name).id))

    def live(self, name: str = "web") -> list[Task]:
        return [task for task in self.tasks(name) if task.is_live]

    def running(self, name: str = "web") -> list[Task]:
        return [task for task in self.live(name) if task.status.state is TaskState.RUNNING]

    def by_slot(self, name: str = "web") -> dict[int, list[str]]:
        """Slot to the ids of its live tasks."""
        slots: dict[int, list[str]] = {}
        for task in self.live(name):
            slots.setdefault(task.slot, []).append(task.id)
        return slots

    def program(self, task: Task) -> str:
        found = self.store.spec_of(task)
        assert found is not None and isinstance(found.task.runtime, ProcessSpec)
        return found.task.runtime.command[1]

    def programs(self, name: str = "web") -> list[str]:
        """The versions that run, by slot."""
        return [self.program(task) for task in sorted(self.running(name), key=lambda task: (task.slot, task.node_id))]

    def update_state(self, name: str = "web") -> UpdateState | None:
        status = self.service(name).update_status
        return status.state if status else None

    # --- changing --------------------------------------------------------------------------------------------------
    def commit(self, *changes: Change) -> None:
        self._author.name = ""
        results, _ = self.rehearsal.commit([tuple(changes)])
        assert results == [None], results

    def add_node(self, name: str, state: NodeState = NodeState.READY, **description: Any) -> None:
        labels = description.pop("labels", {})
        node = Node(
            NodeId(name),
            NodeSpec(labels=labels),
            description=NodeDescription(hostname=name, executors=("process",), **description),
            status=NodeStatus(state, since=self.now),
        )
        self.commit(Create(node))

    def set_node(self, name: str, *, state: NodeState | None = None, availability: Availability | None = None) -> None:
        node = self.store.node(NodeId(name))
        assert node is not None
        if state is not None:
            node = evolve(node, status=NodeStatus(state, since=self.now))
            (self.silent.discard if state is NodeState.READY else self.silent.add)(node.id)
        if availability is not None:
            node = evolve(node, spec=evolve(node.spec, availability=availability))
        self.commit(Update(node))

    def label_node(self, name: str, **labels: str) -> None:
        node = self.store.node(NodeId(name))
        assert node is not None
        self.commit(Update(evolve(node, spec=evolve(node.spec, labels=labels))))

    def remove_node(self, name: str) -> None:
        """As the control API does it: the record goes, its tasks are lost with it."""
        lost = TaskStatus(TaskState.ORPHANED, at=self.now, error="its node was removed", applied_at=self.now)
        orphans = [Advance(task.id, status=lost) for task in self.store.tasks_of_node(NodeId(name))]
        self.silent.add(NodeId(name))
        self.commit(Delete(Kind.NODE, name), *orphans)

    def create(self, declared: ServiceSpec) -> ServiceId:
        id = ServiceId(self._service_ids.new())
        self.commit(
            Create(Service(id, declared, created_at=self.now)),
            Create(Revision(id, RevisionNumber(1), declared, created_at=self.now)),
        )
        return id

    def declare(self, declared: ServiceSpec, *, status: UpdateStatus | None = None) -> None:
        """Any user update: a new revision, the update status cleared, a job's iteration begun anew."""
        service = self.service(declared.name)
        number = RevisionNumber(max(revision.number for revision in self.store.revisions_of(service.id)) + 1)
        after = evolve(
            service,
            spec=declared,
            revision=number,
            previous=service.revision,
            update_status=status,
            job_iteration=service.job_iteration + 1,
        )
        self.commit(Create(Revision(service.id, number, declared, created_at=self.now)), Update(after))

    def scale(self, replicas: int, name: str = "web") -> None:
        self.declare(evolve(self.service(name).spec, mode=Replicated(replicas)))

    def roll_back(self, name: str = "web") -> None:
        """As a user asks for it."""
        _, group = rollback_service(self.store, name, None, NodeId("m"), self.now)
        self.commit(*group)

    def remove(self, name: str = "web") -> None:
        self.commit(Delete(Kind.SERVICE, self.service(name).id))

    def touch(self, name: str = "web") -> None:
        """Write the service without changing what it asks for."""
        self.commit(Update(evolve(self.service(name), updated_at=self.now)))

    def report(self, id: str, state: TaskState, **status: Any) -> None:
        """A status as the dispatcher commits it."""
        self.commit(Advance(TaskId(id), status=TaskStatus(state, at=self.now, applied_at=self.now, **status)))

    def new_leader(self) -> None:
        self.rehearsal.new_leader()

    # --- going on --------------------------------------------------------------------------------------------------
    def settle(self) -> None:
        """Plan until at rest; nobody places, no agent moves."""
        self.rehearsal.settle()

    def place(self) -> bool:
        """Give each waiting task the usable node with the fewest tasks; True when something changed."""
        placed = False
        if self.scheduled:
            return False
        for task in list(self.store.pending_tasks()):
            if not task.is_live:
                self.report(task.id, TaskState.SHUTDOWN)
                placed = True
                continue
            nodes = [node for node in self.store.nodes() if self._takes(node, task)]
            if not nodes:
                error = "no suitable node"
                if task.status.error != error:
                    self.report(task.id, TaskState.PENDING, error=error)
                    placed = True
                continue
            node = min(nodes, key=lambda node: (self.store.usage(node.id).active_tasks, node.id))
            status = TaskStatus(TaskState.ASSIGNED, at=self.now, applied_at=self.now)
            reason = Reason(ReasonCode.PLACED, f"placed on {node.id}")
            self.commit(Assign(task.id, task.version, node.id, status, reason=reason))
            placed = True
        return placed

    def _takes(self, node: Node, task: Task) -> bool:
        ready = node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE
        return ready and node.id not in self.full and task.node_id in ("", node.id)

    def agents(self) -> bool:
        """Each reachable node moves each of its tasks one step; True when one moved."""
        moved = False
        for task in list(self.store.tasks()):
            if not task.node_id or task.node_id in self.silent or task.status.state.is_terminal:
                continue
            state = self._step(task)
            if state is not None and state is not task.status.state:
                error = "exit code 1" if state is TaskState.FAILED else ""
                self.report(task.id, state, error=error)
                moved = True
        return moved

    def _step(self, task: Task) -> TaskState | None:
        if task.desired > TaskState.COMPLETE:
            return None if task.id in self.stubborn else TaskState.SHUTDOWN
        if task.status.state < TaskState.READY:
            return TaskState.READY
        if task.desired is TaskState.READY:
            return None
        if self.program(task) in self.broken and task.status.state is not TaskState.RUNNING:
            return TaskState.FAILED
        if task.desired is TaskState.COMPLETE and task.status.state is TaskState.RUNNING:
            return None if self.lasting else TaskState.COMPLETE
        return TaskState.RUNNING

    def run(self) -> None:
        """Everybody goes on until all is at rest at this instant."""
        for _ in range(200):
            self.settle()
            if not (self.place() | self.agents()):
                return
        raise AssertionError("the world finds no rest")

    def pass_time(self, seconds: float, *, until: Callable[[], bool] | None = None) -> None:
        """Move the clock, from one wake to the next, and let everybody go on at each."""
        end = Instant(self.now + seconds)
        while True:
            self.run()
            if until is not None and until():
                return
            wake = self.rehearsal.next_wake()
            if wake is None or wake > end:
                self.rehearsal.now = end
                self.run()
                return
            self.rehearsal.now = max(self.now, wake)

    def plan_late(self, steps: int) -> None:
        """Plan now, and commit it after the scheduler and the agents went on: no plan knows what is under way beside it."""
        groups = self._planned_anew()
        self.place()
        for _ in range(steps):
            self.agents()
        for group in groups:
            self._author.name = ""
            self.rehearsal.commit([group])

    def _planned_anew(self) -> list[Group]:
        groups: list[Group] = []
        for planner in planners():
            memory, keys = planner.start(self.store)
            groups += planner.plan(self.store, list(keys), memory, self.now, self._late_ids).groups
        return groups

    def _seen(self, events: Iterable[Event]) -> None:
        for event in events:
            check(self.store, event, self._author.name)
            for look in self.checks:
                look(self, event)


def nothing_to_do(world: World, all: Sequence[Planner[Any]] = ()) -> list[Group]:
    """What fresh planners would still change: nothing, after their own results."""
    groups: list[Group] = []
    for planner in list(all) or [*planners(), *([Scheduler()] if world.scheduled else [])]:
        memory, keys = planner.start(world.store)
        groups += planner.plan(world.store, list(keys), memory, world.now, CountingIds("x")).groups
    return groups
