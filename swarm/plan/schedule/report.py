"""What the planner says of its decisions: why a node was chosen, and what stands in the way of a group."""

from __future__ import annotations

from collections import Counter

from swarm.model.reasons import Blocked, Reason, ReasonCode
from swarm.plan.schedule.filters import Filter, blocked_in_sum, is_ready, room_failure
from swarm.plan.schedule.place import Pour
from swarm.plan.schedule.pools import Pool
from swarm.plan.schedule.preferences import Path, path_of
from swarm.plan.schedule.room import Room
from swarm.plan.schedule.words import counted, nodes_in_words

_NO_PATH: Path = ()


class Words:
    """Reasons for placements from one pool; nodes that were chosen alike share one object."""

    def __init__(self, pool: Pool) -> None:
        self._preferences = pool.demand.need.preferences
        self._candidates = pool.candidates
        self._reasons: dict[tuple[int, int, Path], Reason] = {}
        self._latest: tuple[int, int, Reason] | None = None
        """The last answer without a path: nodes are filled evenly, so that the next one is mostly the same."""

    def placed(self, room: Room, replicas: int, active: int) -> Reason:
        """Why this node, which had so many tasks of the service and in all before."""
        latest = self._latest
        if latest is not None and latest[0] == replicas and latest[1] == active:
            return latest[2]
        path = path_of(self._preferences, room.node) if self._preferences else _NO_PATH
        key = (replicas, active, path)
        reason = self._reasons.get(key)
        if reason is None:
            reason = self._reasons[key] = Reason(ReasonCode.PLACED, self._text(key))
        if not self._preferences:
            self._latest = replicas, active, reason
        return reason

    def _text(self, key: tuple[int, int, Path]) -> str:
        replicas, active, path = key
        text = (
            f"the best of {nodes_in_words(self._candidates)} that fit: it had {counted(replicas, 'task')} of this "
            f"service and {counted(active, 'task')} in all"
        )
        if path:
            branch = ", ".join(f"{p}={v or 'none'}" for p, v in zip(self._preferences, path, strict=True))
            text += f"; its branch ({branch}) had the fewest"
        return text


def blocked(pour: Pour) -> tuple[Blocked, ...]:
    """Which filters the nodes fail, now that no candidate is left: every node counts once, under the first it fails."""
    pool, demand, fleet = pour.pool, pour.demand, pour.pool.fleet
    counts: Counter[Filter] = Counter()
    nodes: dict[Filter, list[str]] = {}
    known = 0
    known_ready = 0

    def add(room: Room, failed: Filter) -> None:
        counts[failed] += 1
        nodes.setdefault(failed, []).append(room.node.id)

    for index, failed in pool.rejected.items():
        room = fleet.rooms[index]
        if room is None:
            continue
        known += 1
        known_ready += is_ready(room.node)
        if failed >= Filter.RESOURCES:
            # Other tasks may have come and gone since the node was looked at.
            failed = room_failure(demand, room, pour.group.counts.get(index, 0)) or failed
        add(room, failed)
    for leaf in pool.leaves.values():
        for index in leaf.stored:
            room = fleet.rooms[index]
            failed_now = None if room is None else room_failure(demand, room, pour.group.counts.get(index, 0))
            if room is not None and failed_now is not None:
                known += 1
                known_ready += is_ready(room.node)
                add(room, failed_now)
    # A pool that was found through an index of labels never looked at the nodes that the constraints rule out.
    if known < len(fleet):
        ready = fleet.ready_count - known_ready
        counts[Filter.CONSTRAINTS] += ready
        counts[Filter.READY] += len(fleet) - known - ready
    return blocked_in_sum(demand.need, counts, nodes)
