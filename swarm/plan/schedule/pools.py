"""Pools: the nodes that pass the filters for one need, in heaps with the least loaded node on top.

Filtering is paid once per need and then only for the node that changed. The trick is that a heap entry may be too low,
never too high: a claim makes a node a worse choice, which every pool notices by itself when it next looks at its top;
only what makes a node a better choice has to be told, through the fleet's log. So a placement costs one heap step in one
pool, however many pools share the node.

A pool is either shared by all services with the same need (its ranks are loads), or belongs to one large group (its ranks
have the service's own count of tasks in front). A pool never decides between services; `place` does the choosing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import heapify, heappush
from typing import TypeAlias

from swarm.model.ids import NodeId, ServiceId
from swarm.model.snapshot import Snapshot
from swarm.plan.schedule.filters import Filter, fixed_failure, room_failure
from swarm.plan.schedule.fleet import Fleet
from swarm.plan.schedule.need import Demand
from swarm.plan.schedule.preferences import Path, path_of
from swarm.plan.schedule.rank import key_for, standing
from swarm.plan.schedule.room import Room

ENTRIES_MAX = 1_500_000
"""Nodes held by all pools together, about 120 MB at the most; the pools least recently used are dropped first."""

Standings: TypeAlias = "dict[int, int]"
"""Node index to `rank.standing`; nodes without tasks and without faults are left out."""


class Leaf:
    """Nodes of one branch of the placement preferences (all nodes when there are none).

    An entry of `heap` counts only when it is the one in `stored`; every other one is a leftover and is dropped on sight.
    """

    __slots__ = ("heap", "stored")

    def __init__(self) -> None:
        self.heap: list[int] = []
        self.stored: dict[int, int] = {}
        """Node index to its entry: a lower bound of its present rank. Its keys are the members."""


class Pool:
    """The candidates of one need; see the module's text."""

    def __init__(self, demand: Demand, fleet: Fleet, group: GroupStanding | None = None) -> None:
        self.demand = demand
        self.fleet = fleet
        self.group = group
        self.leaves: dict[Path, Leaf] = {}
        self.rejected: dict[int, Filter] = {}
        """Nodes that failed, with the first filter that they failed when they were last looked at."""
        self.changes = 0
        """Counts what was read from the log: whoever keeps something computed from the pool compares it."""
        self._leaf_of: dict[int, Leaf] = {}
        self._spreads = bool(demand.need.preferences)
        self._can_fill = demand.can_fill
        self._cursor = 0
        self._todo: Iterator[int] = iter(())
        self._building = False
        self._start()

    @property
    def candidates(self) -> int:
        """How many nodes are in it; some may turn out to be full when their turn comes."""
        return sum(len(leaf.stored) for leaf in self.leaves.values())

    @property
    def size(self) -> int:
        """How many nodes it keeps anything about."""
        return self.candidates + len(self.rejected)

    @property
    def is_current(self) -> bool:
        """Whether it has nothing left to read."""
        return self._cursor == self.fleet.log_end and not self._building

    # --- keeping up ------------------------------------------------------------------------------------------------
    def _start(self) -> None:
        self.leaves.clear()
        if not self._spreads:
            self.leaves[()] = Leaf()
        self.rejected.clear()
        self._leaf_of.clear()
        self._cursor = self.fleet.log_end
        # A group's own pool also counts the group's tasks by branch, wherever they are.
        domain = None if self.group is not None and self._spreads else self.fleet.domain(self.demand.need)
        self._todo = iter(range(len(self.fleet.rooms)) if domain is None else domain)
        self._building = True
        self.changes += 1

    def catch_up(self, view: Snapshot, nodes_max: int) -> int:
        """Look at nodes that are new to the pool or that changed, at most so many; gives how many it looked at.

        A result of `nodes_max` means that there may be more to do before the pool is complete.
        """
        if self._cursor < self.fleet.log_start:
            self._start()
        looked_at = 0
        if self._building:
            for index in self._todo:
                self._judge(index, view, building=True)
                looked_at += 1
                if looked_at >= nodes_max:
                    return looked_at
            self._building = False
            for leaf in self.leaves.values():
                heapify(leaf.heap)
        behind = self.fleet.log_end - self._cursor
        if behind:
            first = self._cursor - self.fleet.log_start
            changed = dict.fromkeys(self.fleet.log[first : first + nodes_max - looked_at])
            self._cursor += min(behind, nodes_max - looked_at)
            self.changes += 1
            for index in changed:
                self._judge(index, view)
            looked_at += min(behind, nodes_max - looked_at)
        return looked_at

    def _judge(self, index: int, view: Snapshot, building: bool = False) -> None:
        """Filter one node, and put it in, take it out, or lower its entry."""
        room, group = self.fleet.rooms[index], self.group
        if not building:
            self.rejected.pop(index, None)
        if room is None:
            self._take_out(index)
            return
        count = 0 if group is None else group.read(room, view)
        failed = fixed_failure(self.demand.need, room.node)
        if failed is None and self._can_fill:
            failed = room_failure(self.demand, room, count)
        if failed is not None:
            self.reject(index, failed)
            return
        leaf = self._leaf(index, room) if self._spreads else self.leaves[()]
        rank = room.key if group is None else key_for(group.standing(index), room.key)
        if building:
            leaf.stored[index] = rank
            leaf.heap.append(rank)
            return
        before = leaf.stored.get(index)
        if before is None or rank < before:
            leaf.stored[index] = rank
            heappush(leaf.heap, rank)

    def _leaf(self, index: int, room: Room) -> Leaf:
        path = path_of(self.demand.need.preferences, room.node)
        leaf = self.leaves.get(path)
        if leaf is None:
            leaf = self.leaves[path] = Leaf()
        before = self._leaf_of.get(index)
        if before is not leaf:
            if before is not None:
                before.stored.pop(index, None)
            self._leaf_of[index] = leaf
        return leaf

    def _take_out(self, index: int) -> None:
        leaf = self._leaf_of.get(index) if self._spreads else self.leaves[()]
        if leaf is not None:
            leaf.stored.pop(index, None)

    def reject(self, index: int, failed: Filter) -> None:
        """The node does not do; its entry in the heap is a leftover from now on."""
        self._take_out(index)
        self.rejected[index] = failed


class GroupStanding:
    """How one group sees the nodes: active tasks of its service, and where its tasks keep failing."""

    __slots__ = ("counts", "faults", "service_id")

    def __init__(self, service_id: ServiceId) -> None:
        self.service_id = service_id
        self.counts: dict[int, int] = {}
        """Node index to active tasks of the service, claims included; nodes without any are left out."""
        self.faults: dict[int, int] = {}
        """Node index to recent failures, of faulty nodes only."""

    def standing(self, index: int) -> int:
        """The part of a rank that comes first."""
        return standing(self.faults.get(index, 0), self.counts.get(index, 0))

    def read(self, room: Room, view: Snapshot) -> int:
        """Take the node's count as the store has it, and give it."""
        count = view.usage(room.node.id).active_by_service.get(self.service_id, 0)
        if count:
            self.counts[room.index] = count
        elif room.index in self.counts:
            del self.counts[room.index]
        return count

    def set_faults(self, faults: dict[NodeId, int], fleet: Fleet) -> None:
        """Take the faulty nodes of the group."""
        rooms = ((fleet.get(node_id), number) for node_id, number in faults.items())
        self.faults = {room.index: number for room, number in rooms if room is not None}

    @property
    def marked(self) -> Collection[int]:
        """The nodes that do not stand as well as an untouched one."""
        return {**self.counts, **self.faults} if self.faults else self.counts
