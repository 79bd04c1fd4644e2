"""Slots: what stands for one unit of work of a service, seen from its tasks; and which go first when a service shrinks.

A slot is no stored object. It is the tasks with one slot number (replicated kinds) or on one node (global kinds), in order
of their creation, which is the order that the store's indexes keep. A slot *serves* when it has live tasks, or when its
newest task ended and may not be restarted; otherwise it is vacant. Tasks whose desired state is REMOVE are leaving: they
make no slot serve, and a new task in their slot waits until they have stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from attrs import frozen

from swarm.model.changes import Advance
from swarm.model.ids import NO_NODE, NodeId
from swarm.model.objects import Task
from swarm.model.reasons import Reason
from swarm.model.states import TaskState
from swarm.plan.context import Place, ServiceContext
from swarm.plan.restart import judge

_number_of = attrgetter("number")


@frozen
class Slot:
    """One slot's tasks, oldest first."""

    number: int
    node: NodeId
    """The node of a global service's slot; empty for the replicated kinds."""
    key: str
    """The planner key of this slot."""
    tasks: tuple[Task, ...]
    """Those that are not leaving."""
    leaving: tuple[Task, ...]

    @property
    def part(self) -> str:
        """The part of the service that it is, as in its key."""
        return self.node or str(self.number)

    @property
    def live(self) -> list[Task]:
        """Those that are wanted to run."""
        return [task for task in self.tasks if task.is_live]

    @property
    def newest(self) -> Task | None:
        """The youngest that is not leaving."""
        return self.tasks[-1] if self.tasks else None


def slot_of(number: int, key: str, tasks: Iterable[Task], node: NodeId = NO_NODE) -> Slot:
    """The slot that these tasks make."""
    staying: list[Task] = []
    leaving: list[Task] = []
    for task in tasks:
        (leaving if task.desired is TaskState.REMOVE else staying).append(task)
    return Slot(number, node, key, tuple(staying), tuple(leaving))


def finished_task(ctx: ServiceContext, slot: Slot) -> Task | None:
    """The task that ended for good and still stands for its slot; None for a live or a vacant slot.

    During a rollback nothing counts as finished: what the failed update left behind is made anew.
    """
    newest = slot.newest
    if newest is None or ctx.rolling_back or any(task.is_live for task in slot.tasks):
        return None
    spec = ctx.view.spec_of(newest) or ctx.spec
    verdict = judge(newest, spec.task.restart, slot.tasks, newest.revision)
    return None if verdict.restart else newest


def serves(ctx: ServiceContext, slot: Slot) -> bool:
    """Whether the slot counts towards the number of replicas."""
    return any(task.is_live for task in slot.tasks) or finished_task(ctx, slot) is not None


def is_held(ctx: ServiceContext, task: Task) -> bool:
    """Whether a task that was told to stop may still be running where somebody could meet it."""
    # One that had no place then gets none any more.
    return not task.is_live and task.status.state >= TaskState.ASSIGNED and holds_when_stopped(ctx, task)


def holds_when_stopped(ctx: ServiceContext, task: Task) -> bool:
    """Whether a task that is told to stop now has to be waited for: it is not over, nor on a node that is lost.

    One without a place has to be as well: the scheduler may be giving it one while this is decided.
    """
    return task.status.state <= TaskState.RUNNING and ctx.place(task.node_id) is not Place.LOST


def stop(task: Task, reason: Reason, desired: TaskState = TaskState.SHUTDOWN) -> Advance:
    """Tell a task to stop."""
    return Advance(task.id, desired=desired, reason=reason)


@frozen
class Candidate:
    """What decides whether a slot is kept when its service shrinks."""

    number: int
    node: NodeId
    runs: bool
    steady: bool
    """It has one task, on a node that is well."""


def candidate(ctx: ServiceContext, number: int, tasks: Sequence[Task]) -> Candidate:
    """A slot as a candidate: its live tasks, or the one that finished."""
    standing = [task for task in tasks if task.is_live] or list(tasks[-1:])
    node = standing[0].node_id
    steady = len(standing) == 1 and bool(node) and ctx.place(node) is Place.FINE
    runs = any(task.is_live and task.status.state is TaskState.RUNNING for task in standing)
    return Candidate(number, node, runs, steady)


def choose_removed(candidates: Iterable[Candidate], wanted: int) -> list[int]:
    """The slots that go when only `wanted` may stay, in the order in which they are given up.

    First those without a node, on a lost or draining one, or with more than one task; then the ordinals that are highest on
    the most crowded nodes; then those that do not run; then the highest numbers. The order is total, so that the answer
    does not depend on the order of the input, and giving some up does not change which go next.
    """
    running: list[Candidate] = []
    others: list[Candidate] = []
    for it in candidates:
        (running if it.runs else others).append(it)
    running.sort(key=_number_of)
    others.sort(key=_number_of)
    ordinals: dict[NodeId, int] = {}
    by_ordinal: list[list[int]] = []
    unsteady: list[int] = []
    for it in (*running, *others):
        if not it.steady:
            unsteady.append(it.number)
            continue
        ordinal = ordinals.get(it.node, 0)
        ordinals[it.node] = ordinal + 1
        if ordinal == len(by_ordinal):
            by_ordinal.append([])
        by_ordinal[ordinal].append(it.number)
    kept_first = [number for numbers in (*by_ordinal, unsteady) for number in numbers]
    surplus = kept_first[wanted:]
    surplus.reverse()
    return surplus
