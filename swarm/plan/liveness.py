"""Which nodes live: deadlines and what follows when one passes. Pure state; the time and chance are arguments.

    UNKNOWN, READY, DISCONNECTED --registered--> READY            (anything registers its way back to READY)
    READY --link lost--> DISCONNECTED                             (at once: the operator sees it, the deadline stands)
    READY --a new leader is not found in time--> DISCONNECTED     (its machine may have been lost with the old leader)
    UNKNOWN, READY, DISCONNECTED --deadline passed--> DOWN
    DOWN --24 hours--> its tasks are ORPHANED                     (counted from the stored instant, across leaders)

A new leader changes nothing by itself: READY nodes stay READY and schedulable while they have time to find it, so a
failover writes nothing for those that do. One that does not is shown as DISCONNECTED, as if its link had been lost under
this leader, and is DOWN after twice the grace. A heartbeat costs one dictionary look-up: each node has one entry in the queue of
deadlines, which is moved only when it comes up, not at every beat.

`now` is the monotonic clock everywhere, in seconds; `wall` is only used to read stored instants.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from attrs import define, frozen

from swarm.model.ids import Instant, NodeId
from swarm.model.objects import Node
from swarm.model.states import NodeState

GRACE_PERIODS = 3
"""Heartbeat periods without a sign of life after which a node is DOWN."""
GRACE_PERIODS_UNKNOWN = 6
"""The same for nodes that have not yet found this leader, or have never registered."""
FINDING_PERIODS = 2
"""Heartbeat periods in which a READY node is to find a new leader: 10 s, longer than the longest pause between its tries."""
JITTER_S_MAX = 0.5
JITTER_SHARE_MAX = 0.1
"""A handed-out period varies by this share of it at most, and never by more than `JITTER_S_MAX`."""
HEARTBEAT_COST_S = 250e-6
"""Of the leader's thread, for one small request and its answer over a TLS websocket (measured, see ARCHITECTURE 10)."""
HEARTBEAT_LOAD_MAX = 0.02
"""Share of a core that all heartbeats together may take; beyond it the period grows with the cluster."""
ORPHAN_AFTER_S = 24 * 3600.0
REGISTRATIONS_MAX = 3
REGISTRATIONS_FORGOTTEN_S = 8.0
"""A node may register `REGISTRATIONS_MAX` times in a row; the count starts anew after a pause of this length."""


@frozen
class BecomesDisconnected:
    """The node's link was lost; it may be back any moment."""

    node_id: NodeId


@frozen
class BecomesDown:
    """Nothing was heard from the node for `silent_s`."""

    node_id: NodeId
    silent_s: float


@frozen
class TasksOrphaned:
    """The node was down so long that its tasks are given up."""

    node_id: NodeId


Transition = BecomesDisconnected | BecomesDown | TasksOrphaned


@define
class _Watched:
    state: NodeState
    deadline: float
    queued: float
    """Where its earliest entry in the queue lies; never later than `deadline` unless that entry is about to come up."""
    heard: float
    """When it last gave a sign of life, or when this leader began to wait for one."""
    is_sought: bool = False
    """READY by the store's word alone: it has not found this leader yet."""
    registrations: int = 0
    registered: float = float("-inf")


class Liveness:
    """The deadlines of all nodes under one leader."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._nodes: dict[NodeId, _Watched] = {}
        self._queue: list[tuple[float, NodeId]] = []

    def set_period(self, period_s: float) -> None:
        """The cluster's setting changed; each node learns it with its next heartbeat."""
        self._period_s = period_s

    @property
    def period_s(self) -> float:
        """The period that is handed out now, before jitter."""
        return period_for(self._period_s, len(self._nodes))

    def state_of(self, node_id: NodeId) -> NodeState | None:
        """What the node is in, None for one that is not known."""
        found = self._nodes.get(node_id)
        return None if found is None else found.state

    def watch(self, nodes: Iterable[Node], now: float, wall: Instant) -> None:
        """Begin to wait for nodes that are in the store: all of them for a new leader, each new one after that."""
        fresh = [node for node in nodes if node.id not in self._nodes]
        for node in fresh:
            is_sought = node.status.state is NodeState.READY
            self._nodes[node.id] = _Watched(node.status.state, 0.0, float("inf"), heard=now, is_sought=is_sought)
        for node in fresh:
            self._set_deadline(node.id, now + self._first_grace_s(node, wall))

    def forget(self, node_id: NodeId) -> None:
        """The node was removed."""
        self._nodes.pop(node_id, None)

    def may_register(self, node_id: NodeId, now: float) -> bool:
        """Whether the node has not registered too often of late; counts this attempt if so."""
        watched = self._nodes[node_id]
        if now - watched.registered >= REGISTRATIONS_FORGOTTEN_S:
            watched.registrations = 0
        if watched.registrations >= REGISTRATIONS_MAX:
            return False
        watched.registrations += 1
        watched.registered = now
        return True

    def registered(self, node_id: NodeId, now: float, chance: float) -> float:
        """The node is READY; gives the period until its first heartbeat. `chance` in [0, 1] is the jitter."""
        watched = self._nodes[node_id]
        watched.state, watched.is_sought = NodeState.READY, False
        return self.beat(node_id, now, chance)

    def beat(self, node_id: NodeId, now: float, chance: float) -> float:
        """The node lives; gives the period until its next heartbeat, which its deadline follows."""
        watched = self._nodes[node_id]
        period = self.period_s
        handed = period + (2 * chance - 1) * min(JITTER_S_MAX, JITTER_SHARE_MAX * period)
        watched.heard = now
        self._set_deadline(node_id, now + GRACE_PERIODS * handed)
        return handed

    def link_lost(self, node_id: NodeId) -> BecomesDisconnected | None:
        """The node's session ended from its side; its deadline stands. None when it was not READY."""
        watched = self._nodes.get(node_id)
        if watched is None or watched.state is not NodeState.READY:
            return None
        watched.state = NodeState.DISCONNECTED
        return BecomesDisconnected(node_id)

    def next_deadline(self) -> float | None:
        """When `due` may next have something, None when nothing is waited for."""
        return self._queue[0][0] if self._queue else None

    def due(self, now: float) -> list[Transition]:
        """What follows from the deadlines that have passed, in their order."""
        found: list[Transition] = []
        while self._queue and self._queue[0][0] <= now:
            queued, node_id = heapq.heappop(self._queue)
            watched = self._nodes.get(node_id)
            if watched is None or watched.queued != queued:
                continue
            watched.queued = float("inf")
            if watched.deadline > now:
                self._set_deadline(node_id, watched.deadline)
            elif watched.state is NodeState.DOWN:
                watched.deadline = float("inf")
                found.append(TasksOrphaned(node_id))
            elif watched.is_sought:
                watched.state, watched.is_sought = NodeState.DISCONNECTED, False
                self._set_deadline(node_id, watched.heard + GRACE_PERIODS_UNKNOWN * self.period_s)
                found.append(BecomesDisconnected(node_id))
            else:
                watched.state = NodeState.DOWN
                self._set_deadline(node_id, now + ORPHAN_AFTER_S)
                found.append(BecomesDown(node_id, now - watched.heard))
        return found

    def _first_grace_s(self, node: Node, wall: Instant) -> float:
        if node.status.state is NodeState.DOWN:
            return max(0.0, ORPHAN_AFTER_S - max(0.0, wall - node.status.since))
        periods = FINDING_PERIODS if node.status.state is NodeState.READY else GRACE_PERIODS_UNKNOWN
        return periods * self.period_s

    def _set_deadline(self, node_id: NodeId, deadline: float) -> None:
        watched = self._nodes[node_id]
        watched.deadline = deadline
        if deadline < watched.queued:
            watched.queued = deadline
            heapq.heappush(self._queue, (deadline, node_id))


def period_for(setting_s: float, nodes: int) -> float:
    """The heartbeat period of a cluster of that size: the setting, or more, so that heartbeats stay within their load."""
    return max(setting_s, nodes * HEARTBEAT_COST_S / HEARTBEAT_LOAD_MAX)
