"""Placement preferences: spread a service over the values of a label, level by level.

Each preference is a level of a tree of branches; a node without the label is in the branch "". A task goes to the branch
with the fewest active tasks of its service, level by level, among those that still have a node that fits; among equals,
to the one whose best node is best. One task at a time, that fills the branches as evenly as what fits allows, which is
the reference's share per branch with its remainder, without its iterations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heapreplace
from typing import Protocol, TypeAlias

from swarm.model.constraints import label_of
from swarm.model.objects import Node
from swarm.plan.schedule.room import Room

Path: TypeAlias = tuple[str, ...]
"""A node's values for each preference, outermost first."""


def path_of(preferences: Iterable[str], node: Node) -> Path:
    """The branch of a node; a missing label is the value ""."""
    return tuple(label_of(descriptor, node) or "" for descriptor in preferences)


class Taker(Protocol):
    """Where tasks are taken to: a heap of nodes, or a tree of such heaps."""

    def best(self) -> tuple[int, Room] | None:
        """The best node with its rank, None when none fits any more. Takes nothing."""
        ...

    def placed(self, room: Room) -> None:
        """A task was just put on the node that `best` gave."""
        ...


class Branch:
    """An inner branch: its children in a heap by (tasks of the service below, rank of the best node, name)."""

    def __init__(self, children: Mapping[str, tuple[int, Taker]]) -> None:
        """`children` are the branches below by the label's value, each with its tasks of the service."""
        self._heap: list[tuple[int, int, str, Taker]] = []
        for value, (count, taker) in children.items():
            found = taker.best()
            if found is not None:
                self._heap.append((count, found[0], value, taker))
        heapify(self._heap)

    def best(self) -> tuple[int, Room] | None:
        """See `Taker`."""
        while self._heap:
            count, rank, value, taker = self._heap[0]
            found = taker.best()
            if found is None:
                heappop(self._heap)
            elif found[0] != rank:
                heapreplace(self._heap, (count, found[0], value, taker))
            else:
                return found
        return None

    def placed(self, room: Room) -> None:
        """See `Taker`."""
        count, rank, value, taker = self._heap[0]
        taker.placed(room)
        heapreplace(self._heap, (count + 1, rank, value, taker))


class _Full:
    """A branch none of whose nodes will do; it still counts the tasks that it has."""

    def best(self) -> tuple[int, Room] | None:
        return None

    def placed(self, room: Room) -> None:
        raise AssertionError("a full branch gave no node")


def tree(leaves: Mapping[Path, Taker], counts: Mapping[Path, int], depth: int) -> Taker:
    """The tree over the leaves, whose paths are `depth` long; `counts` are the service's tasks by path, of all nodes."""
    full = _Full()
    everywhere: dict[Path, Taker] = {**dict.fromkeys(counts, full), **leaves}
    return _subtree(list(everywhere.items()), counts, 0, depth)[1]


def _subtree(leaves: list[tuple[Path, Taker]], counts: Mapping[Path, int], level: int, depth: int) -> tuple[int, Taker]:
    if level == depth:
        path, taker = leaves[0]
        return counts.get(path, 0), taker
    by_value: dict[str, list[tuple[Path, Taker]]] = {}
    for path, taker in leaves:
        by_value.setdefault(path[level], []).append((path, taker))
    below = {value: _subtree(found, counts, level + 1, depth) for value, found in by_value.items()}
    return sum(count for count, _ in below.values()), Branch(below)
