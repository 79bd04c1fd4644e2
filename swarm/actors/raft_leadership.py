"""Who leads, published to whoever watches: leading counts only once everything that earlier terms committed was applied."""

from __future__ import annotations

import logging

from swarm.actors.raft_feed import StoreFeed
from swarm.actors.raft_messages import Leadership
from swarm.model.ids import NodeId, RaftId
from swarm.raft.core import Raft
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.ref import Sink

log = logging.getLogger(__name__)


class LeadershipNews:
    """Touched in the member's turns only."""

    def __init__(self, raft: Raft, raft_id: RaftId, feed: StoreFeed) -> None:
        self._raft = raft
        self._id = raft_id
        self._feed = feed
        self._watchers: list[Sink[Leadership]] = []
        self._now = Leadership(0, None, False)
        self._made_of: tuple[object, ...] = ()
        """What `_now` was made of: compared first, since most looks find nothing new."""

    def watch(self, sink: Sink[Leadership]) -> None:
        """Give it the present state, and every change from now on."""
        sink.offer(self._now)
        self._watchers.append(sink)
        sink.on_close(lambda: self._watchers.remove(sink) if sink in self._watchers else None)

    def publish(self) -> bool:
        """Tell the watchers what has changed; whether this member has ceased to lead."""
        raft = self._raft
        leads = raft.is_leader and self._feed.given >= raft.first_own_index
        made_of = (raft.term, raft.leader, leads, raft.is_removed, raft.membership)
        if made_of == self._made_of:
            return False
        self._made_of = made_of
        leader = raft.membership.find(raft.leader) if raft.leader else None
        before, self._now = (
            self._now,
            Leadership(
                term=raft.term,
                leader=RaftId(raft.leader) if raft.leader else None,
                is_leader=leads,
                leader_node=NodeId(leader.node_id) if leader else NodeId(""),
                leader_address=leader.address if leader else "",
                removed=raft.is_removed,
            ),
        )
        if self._now != before:
            self._tell()
        return before.leader == self._id != self._now.leader

    def _tell(self) -> None:
        now = self._now
        what = "this member leads" if now.is_leader else f"leader {now.leader_node or 'unknown'}"
        log.info("term %d: %s", now.term, what)
        for sink in list(self._watchers):
            if not sink.offer(now):
                sink.fail(SwarmError(ErrorCode.OVERRUN, "leadership changed faster than it was read; subscribe again"))
                self._watchers.remove(sink)
