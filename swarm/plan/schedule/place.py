"""Choosing nodes: a group is poured over its candidates one task at a time, the best node first, in one pass.

`SharedTaker` works on a pool that all services with the same need share: nodes on which the group's service has nothing
yet come from the pool's heap, the few others from a small heap of the group's own. `GroupTaker` works on a pool that
belongs to the group. Both give the same nodes; they differ in what they cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import TypeAlias

from swarm.model.specs import GenericResource
from swarm.plan.schedule.filters import Filter, has_ports, has_resources, room_failure
from swarm.plan.schedule.need import Demand
from swarm.plan.schedule.pools import GroupStanding, Leaf, Pool
from swarm.plan.schedule.preferences import Path, Taker, path_of, tree
from swarm.plan.schedule.rank import INDEX_MASK, LOAD_MASK, ONE_ACTIVE, ONE_REPLICA, STANDING_SHIFT, key_for
from swarm.plan.schedule.room import Room

Choice: TypeAlias = tuple[Room, int, int, tuple[GenericResource, ...]]
"""A node for one task: its room, the tasks of the service and all tasks that it had before, generic resources claimed."""


def take_lone(pool: Pool, count: int) -> list[Choice]:
    """Nodes for so many tasks that are each the only one of its service, from a shared pool without preferences.

    Each gets the pool's best node, and nothing else is looked at; fewer when no node takes any more.
    """
    leaf = pool.leaves[()]
    heap, stored, rooms, need = leaf.heap, leaf.stored, pool.fleet.rooms, pool.demand.need
    reserves = need.reserves
    claimed: tuple[GenericResource, ...] = ()
    chosen: list[Choice] = []
    while heap and len(chosen) < count:
        entry = heap[0]
        index = entry & INDEX_MASK
        if stored.get(index) != entry:
            heappop(heap)
            continue
        room = rooms[index]
        assert room is not None, "a pool keeps up with the fleet before it is used"
        if room.key != entry:
            heapreplace(heap, room.key)
            stored[index] = room.key
            continue
        active = room.active
        if not reserves:  # `Room.claim` for a task that holds nothing
            room.active, room.key = active + 1, entry + ONE_ACTIVE
        elif has_resources(need, room):
            claimed = room.claim(need, ())
        else:
            heappop(heap)
            pool.reject(index, Filter.RESOURCES)
            continue
        heapreplace(heap, room.key)
        stored[index] = room.key
        chosen.append((room, 0, active, claimed))
    return chosen


class SharedTaker:
    """Takes nodes of one leaf of a shared pool for one group. `close` puts back what was set aside."""

    def __init__(self, pool: Pool, leaf: Leaf, demand: Demand, group: GroupStanding) -> None:
        self._pool = pool
        self._leaf = leaf
        self._demand = demand
        self._group = group
        self._aside: dict[int, None] = {}
        self._marked = [
            key_for(group.standing(index), room.key)
            for index in group.marked
            if index in leaf.stored and (room := pool.fleet.rooms[index]) is not None
        ]
        heapify(self._marked)

    def best(self) -> tuple[int, Room] | None:
        """See `Taker`."""
        return self._best_unmarked() or self._best_marked()

    def _best_unmarked(self) -> tuple[int, Room] | None:
        heap, stored, rooms = self._leaf.heap, self._leaf.stored, self._pool.fleet.rooms
        counts, faults = self._group.counts, self._group.faults
        need, ports = self._demand.need, self._demand.ports
        while heap:
            entry = heap[0]
            index = entry & INDEX_MASK
            if stored.get(index) != entry:
                heappop(heap)
                continue
            room = rooms[index]
            assert room is not None, "a pool keeps up with the fleet before it is used"
            if room.key != entry:
                heapreplace(heap, room.key)
                stored[index] = room.key
            elif need.reserves and not has_resources(need, room):
                heappop(heap)
                self._pool.reject(index, Filter.RESOURCES)
            elif index in counts or index in faults or (ports and not has_ports(ports, room)):
                heappop(heap)
                self._aside[index] = None
            else:
                return entry, room
        return None

    def _best_marked(self) -> tuple[int, Room] | None:
        heap, rooms = self._marked, self._pool.fleet.rooms
        while heap:
            entry = heap[0]
            index = entry & INDEX_MASK
            room = rooms[index]
            assert room is not None, "a pool keeps up with the fleet before it is used"
            present = key_for(self._group.standing(index), room.key)
            if entry != present:
                heapreplace(heap, present)
            elif room_failure(self._demand, room, self._group.counts.get(index, 0)) is not None:
                heappop(heap)
            else:
                return entry, room
        return None

    def placed(self, room: Room) -> None:
        """See `Taker`."""
        index, heap = room.index, self._leaf.heap
        if heap and heap[0] & INDEX_MASK == index and self._leaf.stored.get(index) == heap[0]:
            heappop(heap)
            self._aside[index] = None
            heappush(self._marked, key_for(self._group.standing(index), room.key))

    def close(self) -> None:
        """Give the pool its nodes back, with their present ranks."""
        leaf, rooms = self._leaf, self._pool.fleet.rooms
        for index in self._aside:
            room = rooms[index]
            if room is not None and index in leaf.stored:
                leaf.stored[index] = room.key
                heappush(leaf.heap, room.key)
        self._aside.clear()


class GroupTaker:
    """Takes nodes of one leaf of a group's own pool."""

    def __init__(self, pool: Pool, leaf: Leaf, group: GroupStanding) -> None:
        self._pool = pool
        self._leaf = leaf
        self._group = group

    def best(self) -> tuple[int, Room] | None:
        """See `Taker`."""
        heap, stored, rooms, group = self._leaf.heap, self._leaf.stored, self._pool.fleet.rooms, self._group
        demand, checked = self._pool.demand, self._pool.demand.can_fill
        while heap:
            entry = heap[0]
            index = entry & INDEX_MASK
            if stored.get(index) != entry:
                heappop(heap)
                continue
            room = rooms[index]
            assert room is not None, "a pool keeps up with the fleet before it is used"
            present = key_for(group.standing(index), room.key)
            if present != entry:
                heapreplace(heap, present)
                stored[index] = present
                continue
            failed = room_failure(demand, room, group.counts.get(index, 0)) if checked else None
            if failed is None:
                return entry, room
            heappop(heap)
            self._pool.reject(index, failed)
        return None

    def placed(self, room: Room) -> None:
        """See `Taker`."""
        present = key_for(self._group.standing(room.index), room.key)
        heapreplace(self._leaf.heap, present)
        self._leaf.stored[room.index] = present

    def take(self, count: int) -> list[Choice]:
        """Choose and claim for so many tasks at the most; what `best` and `placed` do, in one loop."""
        heap, stored, rooms, counts = self._leaf.heap, self._leaf.stored, self._pool.fleet.rooms, self._group.counts
        need, ports = self._pool.demand.need, self._pool.demand.ports
        careful = self._pool.demand.can_fill or bool(self._group.faults)
        plain = not need.reserves and not ports
        chosen: list[Choice] = []
        claimed: tuple[GenericResource, ...]
        while heap and len(chosen) < count:
            entry = heap[0]
            index = entry & INDEX_MASK
            room = rooms[index]
            replicas = counts.get(index, 0)
            if (
                careful
                or room is None
                or entry & LOAD_MASK != room.key
                or entry >> STANDING_SHIFT != replicas
                or stored.get(index) != entry
            ):
                found = self.best()
                if found is None:
                    break
                entry, room = found
                index = room.index
                replicas = counts.get(index, 0)
            load, active = room.key, room.active
            counts[index] = replicas + 1
            # One task more of the service, and what the claim added to the node's load.
            if plain:  # `Room.claim` for a task that holds nothing
                room.active, room.key, claimed = active + 1, load + ONE_ACTIVE, ()
                entry += ONE_REPLICA + ONE_ACTIVE
            else:
                claimed = room.claim(need, ports)
                entry += ONE_REPLICA + room.key - load
            heapreplace(heap, entry)
            stored[index] = entry
            chosen.append((room, replicas, active, claimed))
        return chosen

    def close(self) -> None:
        """Nothing is set aside."""


class Pour:
    """One group's way over its candidates: `take` as often as needed, then `close`."""

    def __init__(self, pool: Pool, demand: Demand, group: GroupStanding) -> None:
        self.pool = pool
        self.demand = demand
        self.group = group
        takers: dict[Path, SharedTaker | GroupTaker] = {
            path: GroupTaker(pool, leaf, group) if pool.group is group else SharedTaker(pool, leaf, demand, group)
            for path, leaf in pool.leaves.items()
        }
        self._takers = tuple(takers.values())
        preferences = demand.need.preferences
        self._top: Taker = tree(takers, self._counts_by_path(), len(preferences)) if preferences else takers[()]

    def _counts_by_path(self) -> Mapping[Path, int]:
        counts: Counter[Path] = Counter()
        for index, count in self.group.counts.items():
            room = self.pool.fleet.rooms[index]
            if room is not None:
                counts[path_of(self.demand.need.preferences, room.node)] += count
        return counts

    def take(self, count: int) -> list[Choice]:
        """Choose and claim nodes for so many tasks at the most; fewer when no node takes any more."""
        top, counts = self._top, self.group.counts
        if isinstance(top, GroupTaker):
            return top.take(count)
        need, ports = self.demand.need, self.demand.ports
        chosen: list[Choice] = []
        while len(chosen) < count:
            found = top.best()
            if found is None:
                break
            room = found[1]
            replicas, active = counts.get(room.index, 0), room.active
            claimed = room.claim(need, ports)
            counts[room.index] = replicas + 1
            top.placed(room)
            chosen.append((room, replicas, active, claimed))
        return chosen

    @property
    def is_full(self) -> bool:
        """Whether no node takes another task."""
        return self._top.best() is None

    def close(self) -> None:
        """To be called when the pour is over for now."""
        for taker in self._takers:
            taker.close()
