"""What the scheduler remembers between two plans, and how events change it.

All of it can be rebuilt from the store (recent failures as far as the history reaches); it is kept so that an event costs
what it touches. The memory is changed in place, by `SchedulerMemory` methods alone: events come in through `task_changed`
and `node_changed`, placements through `planner`.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarm.model.ids import Instant, NodeId, RevisionNumber, ServiceId, TaskId
from swarm.model.objects import NEVER, Node, Task, revision_key
from swarm.model.reasons import Reason
from swarm.model.snapshot import Snapshot
from swarm.model.specs import ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.plan.schedule.failures import Failures
from swarm.plan.schedule.fleet import Fleet
from swarm.plan.schedule.need import Demand, Need, Shape, host_ports, need_of, shape_of
from swarm.plan.schedule.pools import ENTRIES_MAX, GroupStanding, Pool

RETRY = "*"
"""The key of all groups that found no node."""
GO_ON = "+"
"""The key of the work that is left over from a plan that was cut short."""
NEEDS_MAX = 4096
"""Shapes of requirement kept; a cluster has far fewer, each is under 1 KiB."""

# Plain ints: looking up an enum member takes longer than the comparison, and these run for every event of the cluster.
_PENDING = int(TaskState.PENDING)
_RUNNING = int(TaskState.RUNNING)
_COMPLETE = int(TaskState.COMPLETE)
_FAILED = int(TaskState.FAILED)
_REJECTED = int(TaskState.REJECTED)


class Group:
    """The pending tasks of one revision of a service, which are placed as one."""

    __slots__ = ("error", "reason", "revision", "service_id", "tasks", "told", "told_at")

    def __init__(self, service_id: ServiceId, revision: RevisionNumber) -> None:
        self.service_id = service_id
        self.revision = revision
        self.tasks: dict[TaskId, None] = {}
        self.error = ""
        """Why no node took the rest of it; empty while it is not blocked."""
        self.reason: Reason | None = None
        self.told = False
        """Whether every task of it was given `error`."""
        self.told_at = NEVER


class SchedulerMemory:
    """See the module's text."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.to_load: list[Task] = []
        """Tasks that a new leader found pending and has not looked at yet, the oldest last."""
        self.failures = Failures()
        self.groups: dict[str, Group | TaskId] = {}
        """Pending tasks without a node, by `service.revision`; a single one that nothing is known of is kept bare."""
        self.queue: dict[str, None] = {}
        """Groups to be planned, in order."""
        self.blocked: dict[str, None] = {}
        """Groups that found no node for some of their tasks."""
        self.preassigned: dict[TaskId, None] = {}
        """Tasks with a node that were not looked at yet, in order; they go before all groups."""
        self.waiting: dict[NodeId, dict[TaskId, None]] = {}
        """Tasks with a node that did not fit there, or whose node is not known."""
        self.stopped: dict[TaskId, None] = {}
        """Tasks that are to be stopped and never had a place."""
        self.in_flight: dict[TaskId, NodeId] = {}
        """Assignments of the last plan whose outcome was not looked at yet."""
        self.settled: set[TaskId] = set()
        """Assignments that are known to be committed, their events still to come."""
        self.needs: dict[Shape, Need] = {}
        """What was asked for so far, by shape; see `need`."""
        self._pools: dict[str | Need, Pool] = {}
        self._pool_entries = 0
        self._histories_read: set[ServiceId] = set()

    # --- a new leader ----------------------------------------------------------------------------------------------
    def start(self, view: Snapshot) -> None:
        """Note every node and every pending task; `load` reads them, piece by piece."""
        self.fleet.touch_all(view.nodes())
        self.to_load = list(view.pending_tasks())
        self.to_load.reverse()

    def load(self, view: Snapshot, tasks_max: int) -> bool:
        """Take in pending tasks that were noted at the start, at most so many; whether none is left."""
        to_load, task_of, groups, queue = self.to_load, view.task, self.groups, self.queue
        group: Group | None = None
        for _ in range(min(tasks_max, len(to_load))):
            task = task_of(to_load.pop().id)
            if task is None or task.status.state > _PENDING:
                continue
            if (
                group is not None
                and task.service_id == group.service_id
                and task.revision == group.revision
                and not task.node_id
                and task.desired <= _COMPLETE
            ):
                # Another one of the group that was just added to and queued.
                group.tasks[task.id] = None
                continue
            key = self.add(task)
            found = groups.get(key)
            if found is not None:
                queue[key] = None
            group = found if isinstance(found, Group) else None
        return not to_load

    @property
    def has_work(self) -> bool:
        """Whether something is left to be done that needs no further event."""
        return bool(self.queue or self.preassigned or self.stopped or self.to_load or self.fleet.is_behind)

    # --- tasks that wait -------------------------------------------------------------------------------------------
    def add(self, task: Task) -> str:
        """A task without a place, or one that is to be confirmed on its node; gives the key that is to be planned."""
        if task.desired > _COMPLETE:
            if task.desired == TaskState.SHUTDOWN:
                self.stopped[task.id] = None
                return task.id
            return ""
        if task.node_id:
            self.preassigned[task.id] = None
            return task.id
        key = revision_key(task.service_id, task.revision)
        found = self.groups.get(key)
        if found is None:
            self.groups[key] = task.id
        else:
            group = found if isinstance(found, Group) else self.group(key, task.service_id, task.revision)
            group.tasks[task.id] = None
            group.told = False
        return key

    def group(self, key: str, service_id: ServiceId, revision: RevisionNumber) -> Group:
        """The group of that key, as a group even when it has a single task."""
        found = self.groups[key]
        if isinstance(found, Group):
            return found
        group = self.groups[key] = Group(service_id, revision)
        group.tasks[found] = None
        return group

    def enqueue(self, key: str) -> None:
        """Plan the group, if it is one that waits."""
        if key in self.groups:
            self.queue[key] = None

    def drop(self, task: Task) -> None:
        """The task does not wait any more."""
        if task.node_id:
            self.preassigned.pop(task.id, None)
            waiting = self.waiting.get(task.node_id)
            if waiting is not None and waiting.pop(task.id, task) is None and not waiting:
                del self.waiting[task.node_id]
        else:
            key = revision_key(task.service_id, task.revision)
            group = self.groups.get(key)
            if isinstance(group, Group):
                group.tasks.pop(task.id, None)
                if not group.tasks:
                    self.forget(key)
            elif group == task.id:
                self.forget(key)

    def forget(self, key: str) -> None:
        """The group has no task left that waits."""
        self.groups.pop(key, None)
        self.blocked.pop(key, None)
        self.queue.pop(key, None)

    # --- events ----------------------------------------------------------------------------------------------------
    def task_changed(self, before: Task | None, after: Task | None) -> Iterable[str]:
        """Take in a change of a task; gives the keys to be planned."""
        if before is None:
            assert after is not None, "an event has at least one side"
            return self._task_created(after)
        if after is None:
            return self._task_deleted(before)
        state_before, state = before.status.state, after.status.state
        if state_before > _PENDING:
            return self._placed_task_changed(before, after)
        if state > _PENDING:
            return self._task_left(before, after)
        if before.desired <= _COMPLETE < after.desired:
            self.drop(before)
            return _keys(self.add(after))
        return ()

    def _task_created(self, task: Task) -> Iterable[str]:
        if task.status.state <= _PENDING:
            return _keys(self.add(task))
        if task.node_id:
            self.fleet.touch(task.node_id)
        return ()

    def _task_deleted(self, task: Task) -> Iterable[str]:
        if task.status.state <= _PENDING:
            self.stopped.pop(task.id, None)
            self.drop(task)
            return ()
        if task.node_id and (task.status.state <= _RUNNING or task.desired <= _COMPLETE):
            return self._freed(task.node_id)
        return ()

    def _task_left(self, before: Task, after: Task) -> Iterable[str]:
        """A pending task was placed (by this scheduler as a rule), or ended without a place."""
        id = after.id
        if self.in_flight.get(id) == after.node_id:
            del self.in_flight[id]
            return ()
        if id in self.settled:
            self.settled.remove(id)
            return ()
        self.stopped.pop(id, None)
        self.drop(before)
        if after.node_id:
            self.fleet.touch(after.node_id)
        return ()

    def _placed_task_changed(self, before: Task, after: Task) -> Iterable[str]:
        ended = before.status.state <= _RUNNING < after.status.state
        if ended and (after.status.state == _FAILED or after.status.state == _REJECTED):
            self.failures.record(revision_key(after.service_id, after.revision), after)
        if after.node_id and (ended or before.desired <= _COMPLETE < after.desired):
            return self._freed(after.node_id)
        return ()

    def _freed(self, node_id: NodeId) -> Iterable[str]:
        """Something was given back on the node: who waits may fit now."""
        self.fleet.touch(node_id)
        return self._who_waits_for(node_id)

    def _who_waits_for(self, node_id: NodeId) -> Iterable[str]:
        waiting = self.waiting.pop(node_id, None)
        keys: list[str] = []
        if waiting:
            self.preassigned.update(waiting)
            keys += waiting
        if self.blocked:
            keys.append(RETRY)
        return keys

    def node_changed(self, before: Node | None, after: Node | None) -> Iterable[str]:
        """Take in a change of a node; gives the keys to be planned."""
        if after is None:
            assert before is not None, "an event has at least one side"
            self.fleet.touch(before.id)
            return ()
        if before is not None and not _matters(before, after):
            return ()
        self.fleet.touch(after.id)
        return self._who_waits_for(after.id)

    def service_removed(self, id: ServiceId) -> None:
        """The service is gone; what it left waiting goes with its tasks."""
        self._histories_read.discard(id)

    # --- what was placed -------------------------------------------------------------------------------------------
    def settle(self, view: Snapshot) -> None:
        """Find out what became of the last plan's assignments; a refused task waits again, its node is read again."""
        for id, node_id in self.in_flight.items():
            task = view.task(id)
            if task is not None and task.node_id == node_id and task.status.state > _PENDING:
                self.settled.add(id)
                continue
            self.fleet.touch(node_id)
            if task is not None and task.status.state <= _PENDING:
                self.enqueue(self.add(task))
        self.in_flight.clear()

    # --- needs and pools -------------------------------------------------------------------------------------------
    def demand(self, spec: ServiceSpec) -> Demand:
        """What the spec asks of a node, with the `Need` object that all specs of its shape share."""
        return Demand(self.need(spec.task), host_ports(spec.ports), spec.task.placement.max_replicas)

    def need(self, task: TaskSpec) -> Need:
        """The `Need` that all specs of this one's shape share."""
        shape = shape_of(task)
        need = self.needs.get(shape)
        if need is None:
            if len(self.needs) >= NEEDS_MAX:
                self.needs.clear()
            need = self.needs[shape] = need_of(task)
        return need

    def shared_pool(self, need: Need) -> Pool:
        """The pool of all services with this need."""
        pool = self._pools.pop(need, None) or Pool(Demand(need), self.fleet)
        self._pools[need] = pool
        return pool

    def group_pool(self, key: str) -> Pool | None:
        """The group's own pool, if it has one."""
        pool = self._pools.pop(key, None)
        if pool is not None:
            self._pools[key] = pool
        return pool

    def new_group_pool(self, key: str, demand: Demand, standing: GroupStanding) -> Pool:
        """A pool of the group's own, to be filled by `Pool.catch_up`."""
        pool = self._pools[key] = Pool(demand, self.fleet, standing)
        return pool

    def trim_pools(self) -> None:
        """Drop the pools that were not used for longest while all of them hold more than `ENTRIES_MAX`."""
        if len(self._pools) * len(self.fleet.rooms) <= ENTRIES_MAX:
            return
        entries = sum(pool.size for pool in self._pools.values())
        for key in list(self._pools)[:-1]:
            if entries <= ENTRIES_MAX:
                return
            entries -= self._pools.pop(key).size

    # --- recent failures -------------------------------------------------------------------------------------------
    def faulty(self, key: str, group: Group, view: Snapshot) -> dict[NodeId, int]:
        """Where the group's tasks keep failing; the first time, what the store's history tells is taken in."""
        service_id = group.service_id
        if service_id not in self._histories_read:
            self._histories_read.add(service_id)
            # Whatever fails from now on arrives as an event; a service that only has tasks that wait has no history.
            if view.count_tasks_of_service(service_id) > len(group.tasks):
                for task in view.tasks_of_service(service_id):
                    if task.status.state > _RUNNING:
                        self.failures.record(revision_key(service_id, task.revision), task)
        return self.failures.faulty(key)

    def expire(self, now: Instant) -> None:
        """Forget failures that are too old to count."""
        for node_id in self.failures.expire(now):
            self.fleet.touch(node_id)


def _keys(key: str) -> Iterable[str]:
    return (key,) if key else ()


def _matters(before: Node, after: Node) -> bool:
    """Whether the change of a node can change where tasks go."""
    return (
        before.status.state is not after.status.state
        or before.spec != after.spec
        or before.description != after.description
        or before.role is not after.role
        or before.status.address != after.status.address
    )
