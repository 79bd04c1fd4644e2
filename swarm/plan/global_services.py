"""Global services: one task on every suitable node; a slot is a node.

A node that falls silent keeps its tasks on record as they are: they can run nowhere else, and when it comes back they are
found running. A node that is drained, removed or no longer suitable loses them; one that joins, returns or becomes
suitable gets one at once, from the current spec. Restarts and rolling updates are those of all services. A task that was
stopped because of its node is made anew when the node takes tasks again, whatever the restart condition: only one that
ended by itself for good is not.
"""

from __future__ import annotations

from swarm.model.changes import Change
from swarm.model.ids import NodeId
from swarm.model.objects import NEVER, Node, Service, Task
from swarm.model.reasons import ReasonCode
from swarm.model.specs import Global
from swarm.model.states import TaskState
from swarm.plan.context import Draft, ServiceContext, because
from swarm.plan.eligible import Standing, concerns, eviction, standing_of
from swarm.plan.keys import ALL, part_key
from swarm.plan.orchestrator import Look, Memory, Orchestrator, Request, forget
from swarm.plan.repair import hold_back, repair
from swarm.plan.restart import end_text
from swarm.plan.rollout import Need as SlotNeed
from swarm.plan.rollout import (
    Way,
    Work,
    apply_repair,
    continue_rolling,
    may_be_updated,
    need_of_slot,
    roll_whole,
    wake_when_overdue,
)
from swarm.plan.schedule.need import Need, need_of
from swarm.plan.slots import Slot, finished_task, slot_of, stop
from swarm.plan.update import is_under_way, ran_at


class GlobalPlanner(Orchestrator):
    """The planner `global`."""

    name = "global"
    on_every_node = True

    def owns(self, service: Service) -> bool:
        """Global services."""
        return isinstance(service.spec.mode, Global)

    def owns_task(self, task: Task) -> bool:
        """All in slot 0, and no job."""
        return task.slot == 0 and task.job_iteration is None

    def part_of(self, task: Task) -> str:
        """Its node."""
        return task.node_id

    def node_concerns(self, before: Node | None, after: Node | None) -> bool:
        """Whatever a constraint can ask about."""
        return concerns(before, after)

    def plan_part(self, draft: Draft, ctx: ServiceContext, part: str) -> Look:
        """One node; an update looks at it together with its others."""
        node_id = NodeId(part)
        tasks = tasks_on_node(ctx, node_id)
        slot = _settle(draft, ctx, need_of(ctx.spec.task), node_id, tasks)
        if is_under_way(ctx):
            return Look.JOIN  # also without a slot: a step that went with its node leaves its place to the next one
        if slot is None:
            return Look.DONE
        if may_be_updated(ctx, slot):
            return Look.ALL
        apply_repair(draft, slot, repair(ctx, slot, may_move=False))
        return Look.DONE

    def plan_service(self, draft: Draft, ctx: ServiceContext, memory: Memory, request: Request) -> Memory:
        """Every node, and every node that is gone but still has tasks."""
        going_on = continue_rolling(draft, ctx, memory, _WAY, request)
        if going_on is not None:
            return going_on
        memory = forget(memory, ctx.service.id)
        need = need_of(ctx.spec.task)
        on_nodes: dict[NodeId, list[Task]] = {node.id: [] for node in ctx.view.nodes()}
        for task in ctx.view.tasks_of_service(ctx.service.id):
            on_nodes.setdefault(task.node_id, []).append(task)
        draft.looks -= len(on_nodes)
        work = Work(waiting=(waiting := []))
        for node_id, tasks in on_nodes.items():
            if draft.budget <= 0:
                draft.again[part_key(ctx.service.id, ALL)] = None
                return memory
            slot = _settle(draft, ctx, need, node_id, tasks)
            if slot is None:
                continue
            work.ran_at_max = max(work.ran_at_max, ran_at(slot.tasks))
            slot_need = need_of_slot(ctx, slot.tasks)
            if slot_need is SlotNeed.ITS_TURN:
                waiting.append(slot.part)
            elif slot_need is SlotNeed.A_LOOK:
                work.slots.append(slot)
        return roll_whole(draft, ctx, memory, _WAY, work)


def tasks_on_node(ctx: ServiceContext, node_id: NodeId) -> list[Task]:
    """The service's tasks on a node, oldest first."""
    tasks = [task for task in ctx.view.tasks_of_node(node_id) if task.service_id == ctx.service.id]
    return sorted(tasks, key=lambda task: (task.created_at, task.restarts))


def _slot_at(ctx: ServiceContext, part: str) -> Slot | None:
    node_id = NodeId(part)
    standing = standing_of(ctx, need_of(ctx.spec.task), ctx.view.node(node_id))
    if standing not in (Standing.OPEN, Standing.CLOSED):
        return None
    return slot_of(0, part_key(ctx.service.id, node_id), tasks_on_node(ctx, node_id), node_id)


_WAY = Way(GlobalPlanner.name, may_move=False, slot_at=_slot_at)


def _settle(draft: Draft, ctx: ServiceContext, need: Need, node_id: NodeId, tasks: list[Task]) -> Slot | None:
    """Evict from, or create on, one node; the slot when it serves and is to be repaired and updated as usual."""
    standing = standing_of(ctx, need, ctx.view.node(node_id))
    if not tasks and standing is not Standing.OPEN:
        return None
    slot = slot_of(0, part_key(ctx.service.id, node_id), tasks, node_id)
    reason = eviction(ctx, standing, node_id)
    if reason is not None:
        to = TaskState.REMOVE if standing is Standing.GONE else TaskState.SHUTDOWN
        leaving = slot.tasks if standing is Standing.GONE else slot.live
        _spend(draft, *(stop(task, reason, to) for task in leaving))
        return None
    if standing in (Standing.SILENT, Standing.PAUSED):
        give_up_ended(draft, ctx, slot, standing)
        return None
    if slot.live or _finished(ctx, slot):
        return slot
    if standing is Standing.OPEN:
        _create(draft, ctx, slot)
    return None


def give_up_ended(draft: Draft, ctx: ServiceContext, slot: Slot, standing: Standing) -> None:
    """Tasks that ended where none may be started now: the next one comes when the node takes tasks again."""
    word = "paused" if standing is Standing.PAUSED else "not ready"
    where = f"node {ctx.name_of(slot.node)} is {word}"
    _spend(
        draft,
        *(
            stop(task, because(ReasonCode.NODE_PAUSED, f"{end_text(task)}; not restarted while {where}"))
            for task in slot.live
            if task.status.state.is_terminal
        ),
    )


def _finished(ctx: ServiceContext, slot: Slot) -> bool:
    newest = slot.newest
    gave_up = newest is not None and newest.reason is not None and newest.reason.code is ReasonCode.NOT_RESTARTED
    return gave_up and finished_task(ctx, slot) is not None


def _create(draft: Draft, ctx: ServiceContext, slot: Slot) -> None:
    desired = hold_back(ctx, slot, NEVER)
    reason = because(ReasonCode.SCALED_UP, f"one on every node: node {ctx.name_of(slot.node)} had none")
    _spend(draft, ctx.create(0, reason, node=slot.node, desired=desired))
    if desired is TaskState.READY:
        wake_when_overdue(draft, ctx, slot)


def _spend(draft: Draft, *changes: Change) -> None:
    if changes:
        draft.budget -= 1
        draft.add(*changes)
