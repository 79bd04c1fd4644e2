"""The scheduler as a planner: pending tasks in, assignments and reasons out.

Tasks of one revision of a service are placed as one group, so that the filters run once a group, and mostly not even
that: pools are shared by every group with the same need. Tasks that were made for a node are confirmed there first. A
plan places a bounded number of tasks and asks to go on, its pools staying as they are, so that one call stays short
however much waits.

It decides where a task goes and nothing else: it never moves a task, never stops one, never creates one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

from attrs import evolve

from swarm.model.changes import Advance, Assign, Group, Kind
from swarm.model.construct import constructor_of
from swarm.model.events import Event
from swarm.model.ids import Ids, Instant, NodeId, TaskId
from swarm.model.objects import Cluster, Node, Task, TaskStatus
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.snapshot import Snapshot
from swarm.model.specs import GenericResource, TaskSpec
from swarm.model.states import TaskState
from swarm.plan.base import Plan
from swarm.plan.schedule import report
from swarm.plan.schedule.filters import failure, no_node_text, obstacle
from swarm.plan.schedule.memory import GO_ON, RETRY, SchedulerMemory
from swarm.plan.schedule.memory import Group as Waiting
from swarm.plan.schedule.need import Demand, Need
from swarm.plan.schedule.place import Pour, take_lone
from swarm.plan.schedule.pools import GroupStanding, Pool

PLACEMENTS_A_PLAN = 1000
"""Changes that one plan makes at the most: about 5 ms of deciding, and as much again to apply them."""
NODES_A_PLAN = 4000
"""Nodes that one plan reads or filters at the most: about 8 ms."""
TASKS_A_PLAN = 5_000
"""Pending tasks that a plan of a new leader takes in at the most: about 4 ms."""
TELL_AGAIN_S = 1.0
"""How often the explanation of a group that stays blocked is written anew at the most."""
SHARED_TASKS_MAX = 4096
"""A service with more tasks gets a pool of its own as soon as it places any; see `_uses_shared_pool`."""
SHARED_TASKS_MIN = 16

ASSIGNED_MESSAGE = "assigned to a node"
CONFIRMED_MESSAGE = "confirmed on its node"
STOPPED_MESSAGE = "stopped before it was placed"

_new_assign = constructor_of(Assign)
# Looking up an enum member takes longer than using it, and these run for every task and every event.
_PENDING = int(TaskState.PENDING)
_TASK = Kind.TASK


class Scheduler:
    """The `scheduler` planner; keys are groups (`service.revision`), ids of preassigned tasks, `RETRY` and `GO_ON`."""

    name = "scheduler"
    slice_keys = PLACEMENTS_A_PLAN

    def start(self, view: Snapshot) -> tuple[SchedulerMemory, Iterable[str]]:
        """A new leader knows nothing and plans all that waits."""
        memory = SchedulerMemory()
        memory.start(view)
        return memory, (GO_ON,)

    def dirty(self, event: Event, memory: SchedulerMemory) -> Iterable[str]:
        """What could be placed because of this event."""
        before, after = event.before, event.after
        kind = event.kind
        if kind is _TASK:
            assert after is None or isinstance(after, Task)
            # A pending task that was made for its node has it already: it changed while its confirmation was under way.
            if after is not None and memory.in_flight.get(after.id) == after.node_id and after.status.state > _PENDING:
                del memory.in_flight[after.id]  # what this scheduler decided itself: most events, so it is asked first
                return ()
            assert before is None or isinstance(before, Task)
            return memory.task_changed(before, after)
        if kind is Kind.NODE:
            assert before is None or isinstance(before, Node)
            assert after is None or isinstance(after, Node)
            return memory.node_changed(before, after)
        if kind is Kind.SERVICE and after is None:
            memory.service_removed(event.object.id)  # type: ignore[arg-type]  # the kind says that it is a service
        elif kind is Kind.CLUSTER and memory.blocked and _settings(before) != _settings(after):
            return (RETRY,)
        return ()

    def plan(
        self, view: Snapshot, keys: Collection[str], memory: SchedulerMemory, now: Instant, ids: Ids
    ) -> Plan[SchedulerMemory]:
        """Place what waits, a bounded number of tasks at a time."""
        memory.settle(view)
        memory.expire(now)
        for key in keys:
            if key in memory.groups:
                memory.queue[key] = None
            elif key == RETRY:
                memory.queue.update(memory.blocked)
        turn = _Turn(view, memory, now)
        if memory.fleet.refresh(view, NODES_A_PLAN) and memory.load(view, TASKS_A_PLAN):
            turn.run()
        memory.trim_pools()
        return Plan(
            memory=memory,
            groups=tuple(turn.groups),
            wake=turn.wake,
            again=(GO_ON,) if memory.has_work else (),
        )


class _Turn:
    """One call of `plan`: what it may still do, and what it has decided so far."""

    def __init__(self, view: Snapshot, memory: SchedulerMemory, now: Instant) -> None:
        self.view = view
        self.memory = memory
        self.now = now
        self.groups: list[Group] = []
        self.wake: dict[str, Instant] = {}
        self.nodes_left = NODES_A_PLAN
        self.assigned = TaskStatus(TaskState.ASSIGNED, at=now, message=ASSIGNED_MESSAGE, applied_at=now)
        self.confirmed = TaskStatus(TaskState.ASSIGNED, at=now, message=CONFIRMED_MESSAGE, applied_at=now)
        self.on_its_node = Reason(ReasonCode.PLACED, "made for this node, which has what it asks for")

    @property
    def changes_left(self) -> int:
        """How many more changes this plan may make."""
        return PLACEMENTS_A_PLAN - len(self.groups)

    def run(self) -> None:
        """Everything that waits, in the order in which it matters, until the turn is used up."""
        memory = self.memory
        for id in list(islice(memory.stopped, self.changes_left)):
            del memory.stopped[id]
            self._stop(id)
        for id in list(islice(memory.preassigned, self.changes_left)):
            del memory.preassigned[id]
            self._confirm(id)
        if memory.preassigned:
            return
        services: set[str] = set()
        for key in self._place_lone(list(islice(memory.queue, self.changes_left))):
            if self.changes_left <= 0:
                return
            group = self._as_group(key)
            if group is None:
                memory.queue.pop(key, None)
            elif group.service_id not in services:
                # A second group of the same service has to see what this plan did for the first one.
                services.add(group.service_id)
                if not self._place(key, group):
                    return

    # --- single tasks ----------------------------------------------------------------------------------------------
    def _stop(self, id: TaskId) -> None:
        task = self.view.task(id)
        if task is not None and task.status.state <= TaskState.PENDING and task.desired == TaskState.SHUTDOWN:
            status = TaskStatus(TaskState.SHUTDOWN, at=self.now, message=STOPPED_MESSAGE, applied_at=self.now)
            self.groups.append((Advance(id, status=status),))

    def _confirm(self, id: TaskId) -> None:
        """A task that was made for its node: all filters, on that node alone."""
        memory, task = self.memory, self.view.task(id)
        if task is None or task.status.state > TaskState.PENDING or task.desired > TaskState.COMPLETE:
            return
        spec, room = self.view.spec_of(task), memory.fleet.get(task.node_id)
        if spec is None:
            return
        if room is None:
            memory.waiting.setdefault(task.node_id, {})[id] = None
            return
        demand = memory.demand(spec)
        replicas = self.view.usage(task.node_id).active_by_service.get(task.service_id, 0)
        failed = failure(demand, room, replicas)
        if failed is None:
            self._assign(task, task.node_id, self.confirmed, room.claim(demand.need, demand.ports), self.on_its_node)
            return
        memory.waiting.setdefault(task.node_id, {})[id] = None
        text = f"the node {obstacle(failed, demand, room, replicas)}"
        self._tell(task, text, Reason(ReasonCode.NO_NODE, text))

    def _assign(
        self, task: Task, node_id: NodeId, status: TaskStatus, claimed: tuple[GenericResource, ...], reason: Reason
    ) -> None:
        id = task.id
        if task.reason is not None and task.reason.previous_task:
            reason = _with_predecessor(reason, task.reason)
        self.groups.append((_new_assign(id, task.version, node_id, status, claimed, reason),))
        self.memory.in_flight[id] = node_id

    def _tell(self, task: Task, error: str, reason: Reason) -> None:
        """Write why the task waits, unless that is what it says already."""
        if task.reason is not None and task.reason.previous_task:
            reason = evolve(reason, previous_task=task.reason.previous_task, made=_made(task.reason))
        if task.status.error == error and task.status.state is TaskState.PENDING and task.reason == reason:
            return
        status = TaskStatus(TaskState.PENDING, at=self.now, error=error, applied_at=self.now)
        self.groups.append((Advance(task.id, status=status, reason=reason),))

    # --- a service's only task -----------------------------------------------------------------------------------
    def _place_lone(self, keys: Iterable[str]) -> list[str]:
        """Place the tasks that are the only one of their service; gives the keys that need the long way.

        Most groups of a busy cluster are such: they spare everything that a larger group needs. Those that ask for the same,
        one after the other, are placed together.
        """
        task_of, lone_spec = self.view.task, self.view.lone_spec
        waiting, failures = self.memory.groups, self.memory.failures.by_group
        asked: TaskSpec | None = None
        need: Need | None = None
        alike: list[tuple[str, Task]] = []
        left: list[str] = []
        for key in keys:
            id = waiting.get(key)
            task = None if id is None or isinstance(id, Waiting) else task_of(id)
            spec = None if task is None or task.status.state > _PENDING else lone_spec(task)
            if task is None or spec is None or spec.ports or key in failures:
                left.append(key)
                continue
            if spec.task is not asked:  # the store lets equal specs be one object
                asked, before, need = spec.task, need, self.memory.need(spec.task)
                if before is not None and before is not need:
                    left += self._place_alike(before, alike)
                    alike = []
            alike.append((key, task))
        return left if need is None else left + self._place_alike(need, alike)

    def _place_alike(self, need: Need, alike: list[tuple[str, Task]]) -> list[str]:
        """Place single tasks with the same need; gives the keys of those that need the long way."""
        pool = self._pool_for_lone(need)
        if pool is None:
            return [key for key, _ in alike]
        waiting, queue, in_flight = self.memory.groups, self.memory.queue, self.memory.in_flight
        placed, assigned, groups = report.Words(pool).placed, self.assigned, self.groups
        choices = take_lone(pool, len(alike))
        for (key, task), (room, _, active, claimed) in zip(alike, choices, strict=False):
            id, node_id = task.id, room.node.id
            groups.append((_new_assign(id, task.version, node_id, assigned, claimed, placed(room, 0, active)),))
            in_flight[id] = node_id
            del waiting[key]
            queue.pop(key, None)
        return [key for key, _ in alike[len(choices) :]]

    def _pool_for_lone(self, need: Need) -> Pool | None:
        if need.preferences:
            return None
        pool = self.memory.shared_pool(need)
        self.nodes_left -= pool.catch_up(self.view, self.nodes_left)
        return pool if pool.is_current else None

    def _as_group(self, key: str) -> Waiting | None:
        """The group behind a key; None, and forgotten, when its only task is gone."""
        found = self.memory.groups.get(key)
        if found is None or isinstance(found, Waiting):
            return found
        task = self.view.task(found)
        if task is None or task.status.state > _PENDING:
            self.memory.forget(key)
            return None
        return self.memory.group(key, task.service_id, task.revision)

    # --- groups ----------------------------------------------------------------------------------------------------
    def _place(self, key: str, group: Waiting) -> bool:
        """Pour the group over its candidates; False when the turn is used up before the group is done."""
        view, memory = self.view, self.memory
        revision = view.revision(group.service_id, group.revision)
        if revision is None or view.service(group.service_id) is None:
            memory.forget(key)
            return True
        demand = memory.demand(revision.spec)
        found = self._candidates(key, group, demand)
        if found is None:
            return False
        pool, standing = found
        pour = Pour(pool, demand, standing)
        everything = self._pour(group, pour)
        pour.close()
        if not everything:
            memory.blocked.pop(key, None)
            return False
        if not group.tasks:
            memory.forget(key)
            return True
        return self._blocked(key, group, pour)

    def _candidates(self, key: str, group: Waiting, demand: Demand) -> tuple[Pool, GroupStanding] | None:
        """The pool to pour over, up to date, and how the group sees its nodes; None when that takes another turn."""
        view, memory = self.view, self.memory
        faults = memory.faulty(key, group, view)
        pool = memory.group_pool(key)
        if pool is None and self._uses_shared_pool(group):
            pool, standing = memory.shared_pool(demand.need), self._standing(group)
        else:
            if pool is None:
                pool = memory.new_group_pool(key, demand, GroupStanding(group.service_id))
            assert pool.group is not None, "a group's own pool knows its group"
            standing = pool.group
        self.nodes_left -= pool.catch_up(view, self.nodes_left)
        if self.nodes_left <= 0:
            return None
        standing.set_faults(faults, memory.fleet)
        return pool, standing

    def _uses_shared_pool(self, group: Waiting) -> bool:
        """Whether looking at the service's own tasks is cheaper than a pool of its own, which looks at every node."""
        tasks = self.view.count_tasks_of_service(group.service_id)
        return tasks <= max(SHARED_TASKS_MIN, min(SHARED_TASKS_MAX, len(self.memory.fleet) // 4))

    def _standing(self, group: Waiting) -> GroupStanding:
        """How a small service sees the nodes: those that have tasks of it."""
        standing = GroupStanding(group.service_id)
        if self.view.count_tasks_of_service(group.service_id) > len(group.tasks):
            tasks = self.view.tasks_of_service(group.service_id)
            fleet = self.memory.fleet
            for node_id in dict.fromkeys(task.node_id for task in tasks if task.node_id):
                room = fleet.get(node_id)
                if room is not None:
                    standing.read(room, self.view)
        return standing

    def _pour(self, group: Waiting, pour: Pour) -> bool:
        """Place tasks until none is left, none fits (both True), or the turn is used up (False)."""
        waiting, task_of = group.tasks, self.view.task
        tasks: list[Task] = []
        for id in list(islice(waiting, self.changes_left)):
            task = task_of(id)
            if task is None or task.status.state > _PENDING:
                del waiting[id]
            else:
                tasks.append(task)
        placed, assigned = report.Words(pour.pool).placed, self.assigned
        groups, in_flight = self.groups, self.memory.in_flight
        for task, (room, replicas, active, claimed) in zip(tasks, pour.take(len(tasks)), strict=False):
            # As `_assign` does; written out, since this runs for every task of a large service.
            id, node_id, reason, made = task.id, room.node.id, placed(room, replicas, active), task.reason
            if made is not None and made.previous_task:
                reason = _with_predecessor(reason, made)
            groups.append((_new_assign(id, task.version, node_id, assigned, claimed, reason),))
            in_flight[id] = node_id
            del waiting[id]
        return not waiting or pour.is_full

    def _blocked(self, key: str, group: Waiting, pour: Pour) -> bool:
        """No node takes the rest of the group: keep it for a retry and say why, not more often than is useful."""
        memory = self.memory
        memory.blocked[key] = None
        blocked = report.blocked(pour)
        error = no_node_text(blocked)
        reason = Reason(ReasonCode.NO_NODE, error, blocked)
        if group.reason != reason:
            may_tell_at = Instant(group.told_at + TELL_AGAIN_S)
            if group.reason is not None and self.now < may_tell_at:
                self.wake[key] = may_tell_at
                memory.queue.pop(key, None)
                return True
            group.error, group.reason, group.told = error, reason, False
        if not group.told:
            for id in group.tasks:
                task = self.view.task(id)
                if task is not None:
                    if self.changes_left <= 0:
                        return False
                    self._tell(task, group.error, reason)
            group.told, group.told_at = True, self.now
        memory.queue.pop(key, None)
        return True


def _with_predecessor(placed: Reason, told: Reason) -> Reason:
    """Why a replacement is where it is: what it replaces and why, then why this node."""
    return evolve(placed, text="; ".join(filter(None, (_made(told), placed.text))), previous_task=told.previous_task)


def _made(told: Reason) -> str:
    """What a task's reason tells of why it was made, though it may have waited since."""
    return told.made or ("" if told.code in (ReasonCode.NO_NODE, ReasonCode.PLACED) else told.text)


def _settings(cluster: object) -> object:
    return cluster.settings if isinstance(cluster, Cluster) else None
