"""The dispatcher's sessions: what each agent was told, what it is to be told next.

The one idea: a session keeps marks, not messages. What changed is marked, and a message is made from the store's present
state when the reader has room; a slow reader costs one message and a set of marks, however much happens meanwhile.
"""

from __future__ import annotations

from typing import Final

from attrs import define, evolve, field

from swarm.model.ids import NodeId, TaskId
from swarm.model.objects import Node
from swarm.model.snapshot import Snapshot
from swarm.plan.assignments import NodeShare, ShareChange
from swarm.runtime.errors import SwarmError
from swarm.runtime.ref import Sink
from swarm.wire.messages.dispatcher import (
    AssignedSpec,
    AssignedTask,
    Assignments,
    ManagerAddress,
    SessionChanged,
    SessionItem,
    SessionOpened,
)

PUSHES_A_TURN: Final = 100
"""Sessions that are told something in one turn, so that it stays short."""
TASKS_A_TURN: Final = 400
"""After so many tasks the other sessions wait for the next turn: about 4 ms."""


@define(eq=False)
class Session:
    """One agent's present session."""

    id: str
    node_id: NodeId
    role: str
    """Of the certificate that it was opened with."""
    sink: Sink[SessionItem]
    share: NodeShare
    period_s: float
    is_open: bool = False
    """The node is READY in the store: there is something to tell."""
    news: bool = True
    """Its node, the managers or the roots changed since it was told."""
    full: bool = True
    """It is to be told its whole share."""
    changed: dict[TaskId, None] = field(factory=dict)
    """Tasks that changed since it was told, in order."""
    unsent: list[SessionItem] = field(factory=list)
    """Made, and waiting for room: at most one round of messages."""


@define(eq=False)
class Surroundings:
    """What every agent is told of the cluster."""

    managers: dict[NodeId, str] = field(factory=dict)
    """host:port of each."""
    root_certificate: bytes = b""

    def addresses(self) -> tuple[ManagerAddress, ...]:
        """Sorted by node id."""
        return tuple(ManagerAddress(node_id, self.managers[node_id]) for node_id in sorted(self.managers))


class Sessions:
    """All sessions of a leader, at most one a node."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._by_node: dict[NodeId, Session] = {}
        self._due: dict[NodeId, None] = {}
        """Those with a mark, oldest first."""
        self._slow: dict[NodeId, None] = {}
        """Those whose reader had no room."""

    def __len__(self) -> int:
        return len(self._by_node)

    def of(self, node_id: NodeId) -> Session | None:
        """The node's session."""
        return self._by_node.get(node_id)

    def all(self) -> list[Session]:
        """Every session, as of now."""
        return list(self._by_node.values())

    def add(self, session: Session) -> None:
        """A session begins; the node must have none."""
        assert session.node_id not in self._by_node, "an earlier session was not ended"
        self._by_node[session.node_id] = session

    def opened(self, session: Session) -> None:
        """The session is told everything from now on, `SessionOpened` first."""
        session.is_open = True
        session.unsent.append(SessionOpened(session.id, session.period_s))
        self._due[session.node_id] = None

    def drop(self, node_id: NodeId) -> Session | None:
        """Forget the node's session, without a word to its reader."""
        self._due.pop(node_id, None)
        self._slow.pop(node_id, None)
        return self._by_node.pop(node_id, None)

    def end(self, node_id: NodeId, error: SwarmError) -> None:
        """End the node's session, if it has one; its reader is told why."""
        session = self.drop(node_id)
        if session is not None:
            session.sink.fail(error)

    # --- marks ------------------------------------------------------------------------------------------------------
    def task_changed(self, node_id: NodeId, task_id: TaskId) -> None:
        """A task of the node changed."""
        session = self._by_node.get(node_id)
        if session is not None:
            session.changed[task_id] = None
            self._due[node_id] = None

    def node_changed(self, before: Node | None, after: Node) -> None:
        """The node's own record changed; what the agent said itself is not sent back to it."""
        session = self._by_node.get(after.id)
        if session is not None and (before is None or _concerns_agent(before, after)):
            session.news = True
            self._due[after.id] = None

    def surroundings_changed(self) -> None:
        """Everybody is to be told of the managers and roots."""
        for session in self._by_node.values():
            session.news = True
            self._due[session.node_id] = None

    def start_over(self, session: Session) -> None:
        """Events were missed: the session is told all of it again."""
        session.full = session.news = True
        self._due[session.node_id] = None

    def try_slow_again(self) -> None:
        """Readers that had no room may have some now."""
        self._due.update(self._slow)
        self._slow.clear()

    # --- telling ----------------------------------------------------------------------------------------------------
    def push(self, view: Snapshot) -> bool:
        """Tell a slice of the sessions that have a mark; whether more are left."""
        tasks = 0
        for _ in range(PUSHES_A_TURN):
            if not self._due or tasks >= TASKS_A_TURN:
                break
            node_id = next(iter(self._due))
            del self._due[node_id]
            session = self._by_node.get(node_id)
            if session is not None:
                tasks += len(session.changed)
            if session is not None and session.is_open and not self._tell(session, view):
                self._slow[node_id] = None
        return bool(self._due)

    def _tell(self, session: Session, view: Snapshot) -> bool:
        """False when the reader has no room; what is left is kept."""
        while True:
            while session.unsent:
                if not session.sink.offer(session.unsent[0]):
                    return False
                session.unsent.pop(0)
            session.unsent = self._items(session, view)
            if not session.unsent:
                return True

    def _items(self, session: Session, view: Snapshot) -> list[SessionItem]:
        items: list[SessionItem] = []
        node = view.node(session.node_id) if session.news else None
        if node is not None:
            items.append(SessionChanged(node, self._surroundings.addresses(), self._surroundings.root_certificate))
        if session.full:
            items.append(_assignments(session.share.full(view)))
        elif session.changed:
            change = session.share.change(view, session.changed)
            if change is not None:
                items.append(_assignments(change))
        session.news = session.full = False
        session.changed.clear()
        return items


def _concerns_agent(before: Node, after: Node) -> bool:
    return evolve(before, status=after.status, description=after.description, version=after.version) != after


def _assignments(change: ShareChange) -> Assignments:
    return Assignments(
        sequence=change.sequence,
        full=change.full,
        specs=tuple(AssignedSpec(key[0], key[1], spec) for key, spec in change.specs),
        tasks=tuple(AssignedTask(task) for task in change.tasks),
        removed=change.removed,
    )
