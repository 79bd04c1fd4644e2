"""What the dispatcher wants written, gathered while one proposal is in flight and turned into the next one.

The one idea: wishes, not changes, are gathered. The newest status of a task and the newest wish for a node replace earlier
ones, and the changes are made from the store's view at the moment they are proposed; what is there already is not written.
Pure: it waits for nothing, and answers whoever waits only when it is told what became of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, evolve, field

from swarm.model.changes import Advance, Group, GroupResult, RefusalCode, Update
from swarm.model.ids import Instant, NodeId, TaskId
from swarm.model.objects import Node, NodeStatus, TaskStatus
from swarm.model.reasons import Reason
from swarm.model.snapshot import Snapshot
from swarm.model.specs import NodeDescription
from swarm.model.states import NodeState, TaskState
from swarm.runtime.errors import ErrorCode, SwarmError

STATUSES_MAX = 2000
"""Statuses in one proposal: some 400 KiB, and few milliseconds to apply."""
NODES_MAX = 1000
"""Node objects in one proposal: they carry descriptions, some 1 KiB each."""

Waiter = Callable[[SwarmError | None], None]
"""Called once: None when what it waits for is committed."""


@define
class NodeWish:
    """What a node's object is to say; None leaves a part as it is."""

    state: NodeState | None = None
    message: str = ""
    address: str = ""
    description: NodeDescription | None = None
    waiters: list[Waiter] = field(factory=list)

    def take_over(self, newer: NodeWish) -> None:
        """Let a newer wish replace the parts that it names; all who wait go on waiting."""
        if newer.state is not None:
            self.state, self.message = newer.state, newer.message
        self.address = newer.address or self.address
        self.description = newer.description if newer.description is not None else self.description
        self.waiters += newer.waiters


@define
class Batch:
    """One proposal: a group for each status, then one for each node; and who is to be told."""

    groups: tuple[Group, ...]
    status_waiters: list[Waiter]
    statuses: dict[TaskId, Advance]
    nodes: list[tuple[NodeId, NodeWish]]
    """In the order of their groups."""


@define
class Gathered:
    """All that waits for the next proposal."""

    statuses: dict[TaskId, Advance] = field(factory=dict)
    status_waiters: list[Waiter] = field(factory=list)
    nodes: dict[NodeId, NodeWish] = field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self.statuses or self.status_waiters or self.nodes)

    def add_status(self, task_id: TaskId, status: TaskStatus, reason: Reason | None = None) -> None:
        """A task's status; an earlier one that waits here is replaced unless it is further on."""
        waiting = self.statuses.get(task_id)
        if waiting is None or _state_of(waiting) <= status.state:
            self.statuses[task_id] = Advance(task_id, status=status, reason=reason)

    def add_node(self, node_id: NodeId, wish: NodeWish) -> None:
        """A wish for a node; merged into one that waits here."""
        waiting = self.nodes.get(node_id)
        if waiting is None:
            self.nodes[node_id] = wish
        else:
            waiting.take_over(wish)

    def take(self, view: Snapshot, now: Instant) -> Batch:
        """The next proposal's content, out of what has gathered; the rest, if it is too much, stays.

        Wishes that the view fulfils already are answered here and not proposed.
        """
        chosen = list(self.statuses)[:STATUSES_MAX]
        statuses = {task_id: self.statuses.pop(task_id) for task_id in chosen}
        status_waiters: list[Waiter] = []
        if not self.statuses:
            status_waiters, self.status_waiters = self.status_waiters, status_waiters
        groups: list[Group] = [(status,) for status in statuses.values()]
        nodes: list[tuple[NodeId, NodeWish]] = []
        for node_id in list(self.nodes)[:NODES_MAX]:
            wish = self.nodes.pop(node_id)
            node = view.node(node_id)
            if node is None:
                tell(wish.waiters, SwarmError(ErrorCode.NOT_FOUND, removed_text(node_id)))
                continue
            changed = fulfil(node, wish, now)
            if changed is node:
                tell(wish.waiters, None)
                continue
            groups.append((Update(changed),))
            nodes.append((node_id, wish))
        if not statuses:
            tell(status_waiters, None)
            status_waiters = []
        return Batch(tuple(groups), status_waiters, statuses, nodes)

    def settle(self, batch: Batch, results: Sequence[GroupResult]) -> None:
        """The batch was applied: tell who waits; node objects that had changed meanwhile are to be written again."""
        tell(batch.status_waiters, None)
        for (node_id, wish), result in zip(batch.nodes, results[len(results) - len(batch.nodes) :], strict=True):
            if result is None:
                tell(wish.waiters, None)
            elif result.code is RefusalCode.NOT_FOUND:
                tell(wish.waiters, SwarmError(ErrorCode.NOT_FOUND, removed_text(node_id)))
            else:
                self._again(node_id, wish)

    def fail(self, batch: Batch, error: SwarmError) -> None:
        """The batch was not applied, as far as is known: who waits is told and tries again, and so does this."""
        tell(batch.status_waiters, error)
        for task_id, lost in batch.statuses.items():
            waiting = self.statuses.get(task_id)
            if waiting is None or _state_of(waiting) < _state_of(lost):
                self.statuses[task_id] = lost
        for node_id, wish in batch.nodes:
            waited_for = bool(wish.waiters)
            tell(wish.waiters, error)
            if not waited_for:
                self._again(node_id, wish)

    def _again(self, node_id: NodeId, wish: NodeWish) -> None:
        newer = self.nodes.pop(node_id, None)
        if newer is not None:
            wish.take_over(newer)
        self.nodes[node_id] = wish


def _state_of(advance: Advance) -> TaskState:
    assert advance.status is not None, "only statuses are gathered"
    return advance.status.state


def fulfil(node: Node, wish: NodeWish, now: Instant) -> Node:
    """The node as the wish wants it; the node itself when it is so already. `since` moves only with the state."""
    status = node.status
    if wish.state is not None:
        since = status.since if status.state is wish.state else now
        status = NodeStatus(wish.state, wish.message, wish.address or status.address, since)
    description = node.description if wish.description is None else wish.description
    if status == node.status and description == node.description:
        return node
    return evolve(node, status=status, description=description)


def tell(waiters: Iterable[Waiter], error: SwarmError | None) -> None:
    """Tell all who wait."""
    for waiter in waiters:
        waiter(error)


def removed_text(node_id: NodeId) -> str:
    """Why a node that is not in the store is refused."""
    return (
        f"node {node_id} is not, or no longer, of this cluster; to bring the machine back, erase its state directory and "
        "join it again with a token"
    )
