"""The store's tables and the indexes over them: every look-up of `snapshot.Snapshot`, and the one way to change a row.

A row changes by `put_*(before, after)` alone, which moves every index by the difference, so that the cost follows the
change. Indexes hold ids, not objects: a status report replaces one entry of one table and touches nothing else. Nothing here
judges a change; that is `store.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from attrs import evolve

from swarm.model.changes import Kind
from swarm.model.construct import copier_of
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId, Version
from swarm.model.idset import PrefixIndex, each, with_id, without_id
from swarm.model.objects import Cluster, Node, Revision, Service, StoreObject, Task
from swarm.model.resources import NodeUsage
from swarm.model.sharing import SharedSpecs
from swarm.model.specs import ServiceSpec
from swarm.model.states import TaskState
from swarm.model.usage import NO_USAGE, NodeTasks, RevisionUse
from swarm.model.views import Lineage, PendingTasks, ServiceSlots, ServiceTasks

_with_ids = copier_of(Task, "service_id", "node_id")

# Plain ints: an enum member is looked up through its class each time (40 ns), and these comparisons run once a change.
PENDING = int(TaskState.PENDING)
RUNNING = int(TaskState.RUNNING)
COMPLETE = int(TaskState.COMPLETE)


class Tables:
    """All rows and indexes; implements `snapshot.Snapshot`."""

    __slots__ = (
        "_cluster", "_holders", "_lineages", "_names", "_node_ids", "_nodes", "_pending", "_service_ids", "_services",
        "_task_ids", "_tasks", "_version", "shared",
    )  # fmt: skip

    def __init__(self) -> None:
        self._version = Version(0)
        self.shared = SharedSpecs()
        self._cluster: Cluster | None = None
        self._nodes: dict[NodeId, Node] = {}
        self._services: dict[ServiceId, Service] = {}
        self._tasks: dict[TaskId, Task] = {}
        self._lineages: dict[ServiceId, Lineage] = {}
        self._names: dict[str, ServiceId] = {}
        self._holders: dict[NodeId, NodeTasks] = {}
        self._pending: dict[TaskId, None] = {}
        self._node_ids = PrefixIndex()
        self._service_ids = PrefixIndex()
        self._task_ids = PrefixIndex()

    # --- reading ---------------------------------------------------------------------------------------------------
    @property
    def version(self) -> Version:
        """Raft index of the last applied entry."""
        return self._version

    @property
    def cluster(self) -> Cluster | None:
        """The one cluster object, None before it was created."""
        return self._cluster

    def node(self, id: NodeId) -> Node | None:
        """The node, None when there is none."""
        return self._nodes.get(id)

    def service(self, id: ServiceId) -> Service | None:
        """The service, None when there is none."""
        return self._services.get(id)

    def task(self, id: TaskId) -> Task | None:
        """The task, None when there is none."""
        return self._tasks.get(id)

    def revision(self, service_id: ServiceId, number: RevisionNumber) -> Revision | None:
        """The revision, None when there is none."""
        use = self.use(service_id, number)
        return None if use is None else use.revision

    def spec_of(self, task: Task) -> ServiceSpec | None:
        """The spec that the task was made from; it is there as long as the task is."""
        lineage = self._lineages.get(task.service_id)
        use = None if lineage is None else lineage.use(task.revision)
        return None if use is None else use.revision.spec

    def lone_spec(self, task: Task) -> ServiceSpec | None:
        """The spec of a task that is the only one of a service that exists; None for every other task."""
        lineage = self._lineages.get(task.service_id)
        if lineage is None or lineage.tasks != 1 or lineage.id not in self._services:
            return None
        use = lineage.use(task.revision)
        return None if use is None else use.revision.spec

    def holder_of_name(self, folded_name: str) -> ServiceId | None:
        """Which service has this case-folded name."""
        return self._names.get(folded_name)

    def service_named(self, name: str) -> Service | None:
        """The service of that name in any case."""
        id = self._names.get(name.casefold())
        return None if id is None else self._services[id]

    def nodes(self) -> Collection[Node]:
        """All nodes in order of creation; a live view."""
        return self._nodes.values()

    def services(self) -> Collection[Service]:
        """All services in order of creation; a live view."""
        return self._services.values()

    def tasks(self) -> Collection[Task]:
        """All tasks in order of creation; a live view."""
        return self._tasks.values()

    def revisions_of(self, service_id: ServiceId) -> tuple[Revision, ...]:
        """The service's stored revisions, ascending; those that tasks still name outlive the service."""
        lineage = self._lineages.get(service_id)
        return () if lineage is None else tuple([use.revision for use in lineage.revisions])

    def tasks_of_service(self, id: ServiceId) -> Collection[Task]:
        """All of the service's tasks, by slot and then creation."""
        lineage = self._lineages.get(id)
        return () if lineage is None else ServiceTasks(lineage, self._tasks)

    def count_tasks_of_service(self, id: ServiceId) -> int:
        """How many tasks the service has, history too."""
        lineage = self._lineages.get(id)
        return 0 if lineage is None else lineage.tasks

    def services_with_tasks(self) -> list[ServiceId]:
        """The ids of services that have tasks, those that are gone too, in order of creation."""
        return [id for id, lineage in self._lineages.items() if lineage.tasks]

    def tasks_of_node(self, id: NodeId) -> Collection[Task]:
        """All tasks bound to the node, by id."""
        holder = self._holders.get(id)
        if holder is None:
            return ()
        tasks = self._tasks
        return tuple([tasks[TaskId(task_id)] for task_id in sorted(each(holder.ids))])

    def slots_of_service(self, id: ServiceId) -> Mapping[Slot, Collection[Task]]:
        """Slot number, ascending, to its tasks in order of creation."""
        lineage = self._lineages.get(id)
        return {} if lineage is None else ServiceSlots(lineage, self._tasks)

    def pending_tasks(self) -> Collection[Task]:
        """Tasks with status PENDING or below, in order of creation."""
        return PendingTasks(self._pending, self._tasks)

    def usage(self, id: NodeId) -> NodeUsage:
        """What the node's tasks hold; a live view."""
        return self._holders.get(id, NO_USAGE)

    def ids_with_prefix(self, kind: str, prefix: str) -> Iterator[str]:
        """The node, service or task ids that start with `prefix`, sorted. ValueError for another kind."""
        index = {Kind.NODE: self._node_ids, Kind.SERVICE: self._service_ids, Kind.TASK: self._task_ids}.get(Kind(kind))
        if index is None:
            raise ValueError(f"ids of kind {kind!r} are not looked up by prefix")
        return iter(index.find(prefix))

    def find(self, kind: Kind, id: str) -> StoreObject | None:
        """The object of any kind by its store key."""
        if kind is Kind.TASK:
            return self._tasks.get(TaskId(id))
        if kind is Kind.SERVICE:
            return self._services.get(ServiceId(id))
        if kind is Kind.NODE:
            return self._nodes.get(NodeId(id))
        if kind is Kind.CLUSTER:
            return self._cluster if self._cluster is not None and self._cluster.id == id else None
        service_id, _, number = id.rpartition(".")
        return self.revision(ServiceId(service_id), RevisionNumber(int(number))) if number.isdigit() else None

    def use(self, service_id: ServiceId, number: RevisionNumber) -> RevisionUse | None:
        """The revision's entry, None when there is none."""
        lineage = self._lineages.get(service_id)
        return None if lineage is None else lineage.use(number)

    # --- changing --------------------------------------------------------------------------------------------------
    def _put_cluster(self, after: Cluster | None) -> None:
        self._cluster = after

    def _put_node(self, before: Node | None, after: Node | None) -> None:
        if after is not None:
            self._nodes[after.id] = after
            if before is None:
                self._node_ids.add(after.id)
        elif before is not None:
            del self._nodes[before.id]
            self._node_ids.remove(before.id)

    def _put_service(self, before: Service | None, after: Service | None) -> None:
        if before is not None and (after is None or after.spec.name != before.spec.name):
            # Within one group another service may have taken the name already.
            name = before.spec.name.casefold()
            if self._names.get(name) == before.id:
                del self._names[name]
        if after is not None:
            self._services[after.id] = after
            self._names[after.spec.name.casefold()] = after.id
            if before is None:
                self._service_ids.add(after.id)
        elif before is not None:
            del self._services[before.id]
            self._service_ids.remove(before.id)

    def _put_revision(self, before: Revision | None, after: Revision | None) -> None:
        if after is not None:
            lineage = self._lineages.get(after.service_id)
            if lineage is None:
                lineage = self._lineages[after.service_id] = Lineage(after.service_id)
            lineage.revisions = tuple(sorted((*lineage.revisions, RevisionUse(after)), key=_number_of))
        elif before is not None:
            lineage = self._lineages[before.service_id]
            lineage.revisions = tuple([use for use in lineage.revisions if use.number != before.number])
            if not lineage.revisions:
                del self._lineages[before.service_id]

    def _put_task(self, before: Task | None, after: Task | None) -> None:
        """Store, replace or remove a task. Its service, revision and slot are the same before and after."""
        task = after if after is not None else before
        assert task is not None, "a change has at least one side"
        lineage = self._lineages[task.service_id]
        use = lineage.named(task.revision)
        if before is None:
            self._insert(task, lineage, use)
        elif after is None:
            self._remove(task, lineage, use)
        else:
            self._tasks[after.id] = after
            if before.status.state <= PENDING:
                if after.status.state > PENDING:
                    self._leave_pending(after.id)
            elif after.status.state <= PENDING:
                self._return_to_pending(after.id)
        if before is not None and before.node_id:
            self._rebind(before, after, use, lineage)
        elif after is not None and after.node_id:
            self._bind(after, use, lineage.id)

    def _insert(self, task: Task, lineage: Lineage, use: RevisionUse) -> None:
        self._tasks[task.id] = task
        self._task_ids.add(task.id)
        lineage.put(task.slot, with_id(lineage.ids(task.slot), task.id))
        lineage.tasks += 1
        use.tasks += 1
        if task.status.state <= PENDING:
            self._pending[task.id] = None

    def _remove(self, task: Task, lineage: Lineage, use: RevisionUse) -> None:
        del self._tasks[task.id]
        self._task_ids.remove(task.id)
        lineage.put(task.slot, without_id(lineage.ids(task.slot), task.id))
        lineage.tasks -= 1
        use.tasks -= 1
        if task.status.state <= PENDING:
            self._leave_pending(task.id)

    def _leave_pending(self, id: TaskId) -> None:
        pending = self._pending
        del pending[id]
        if not pending:
            # A dict keeps the places of what was deleted, and every walk passes over them; this frees them.
            pending.clear()

    def _return_to_pending(self, id: TaskId) -> None:
        """Only an `Update` that takes a status back does this; no planner does, so it may cost a walk over the tasks."""
        pending = {*self._pending, id}
        self._pending.clear()
        self._pending.update((other, None) for other in self._tasks if other in pending)

    def _bind(self, task: Task, use: RevisionUse, service_id: ServiceId) -> None:
        holder = self._holders.get(task.node_id)
        if holder is None:
            holder = self._holders[task.node_id] = NodeTasks()
        holder.ids = with_id(holder.ids, task.id)
        active, holding = _counts(task)
        if active:
            holder.activate(service_id)
        if holding:
            holder.hold(use, task.generic)

    def _rebind(self, before: Task, after: Task | None, use: RevisionUse, lineage: Lineage) -> None:
        """Move a bound task's holds by the difference; a bound task never changes its node."""
        holder = self._holders[before.node_id]
        was_active, was_holding = _counts(before)
        if after is None:
            active = holding = False
            holder.ids = without_id(holder.ids, before.id)
        else:
            active, holding = _counts(after)
        if was_active != active:
            if active:
                holder.activate(lineage.id)
            else:
                holder.deactivate(lineage.id)
        if was_holding != holding or (after is not None and before.generic != after.generic):
            if was_holding:
                holder.release(use, before.generic)
            if after is not None and holding:
                holder.hold(use, after.generic)
        if not holder.ids:
            del self._holders[before.node_id]

    def _rows(self) -> list[StoreObject]:
        """Every object, in an order in which each can be inserted: what it names comes before it."""
        rows: list[StoreObject] = [] if self._cluster is None else [self._cluster]
        rows += self._nodes.values()
        rows += self._services.values()
        rows += [use.revision for lineage in self._lineages.values() for use in lineage.revisions]
        rows += self._tasks.values()
        return rows

    def load(self, objects: Iterable[StoreObject]) -> None:
        """Insert objects in the order of a dump, their versions as they are; for tables that are being restored.

        Tasks share the strings of their service's and node's ids afterwards, wherever they were read from, and equal specs
        are one object.
        """
        for it in objects:
            match it:
                case Task():
                    node = self._nodes.get(it.node_id)
                    lineage = self._lineages[it.service_id]
                    self._put_task(None, _with_ids(it, lineage.id, it.node_id if node is None else node.id))
                case Revision():
                    service = self._services.get(it.service_id)
                    spec = self.shared.share(it.spec, None if service is None else service.spec)
                    self._put_revision(None, it if spec is it.spec else evolve(it, spec=spec))
                case Service():
                    spec = self.shared.share(it.spec, None)
                    self._put_service(None, it if spec is it.spec else evolve(it, spec=spec))
                case Node():
                    self._put_node(None, it)
                case Cluster():
                    self._put_cluster(it)


def _counts(task: Task) -> tuple[bool, bool]:
    """Whether a bound task is active on its node, and whether it holds what it reserves: both from ASSIGNED on."""
    state = task.status.state
    return state > PENDING and task.desired <= COMPLETE, PENDING < state <= RUNNING


def _number_of(use: RevisionUse) -> int:
    return use.number
