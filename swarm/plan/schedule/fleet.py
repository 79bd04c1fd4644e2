"""Every node as the scheduler sees it, brought up to date node by node as events touch them.

Nodes have indexes in order of creation, which every leader counts alike. A claim only ever makes a node a worse choice,
and pools find that out when they look at it; everything else (a task that ended, a label that changed) goes into the
`log`, which each pool reads from where it last stopped. So no change costs more than the node that it happened to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from operator import attrgetter

from swarm.model.ids import NodeId
from swarm.model.objects import Node
from swarm.model.snapshot import Snapshot
from swarm.plan.schedule.filters import is_ready
from swarm.plan.schedule.need import Need
from swarm.plan.schedule.room import Room

LOG_MAX_PER_NODE = 4
"""Entries of the log, per node, beyond which its older half is dropped; a pool that is further behind starts anew."""
LOG_MIN = 10_000
INDEXED_KEYS_MAX = 64
"""Attributes by which nodes are looked up directly: a cluster pins services by a handful of labels."""

_id_of = attrgetter("id")


class Fleet:
    """The nodes, what changed about them, and a direct way to the few that a pinned service can use."""

    def __init__(self) -> None:
        self.rooms: list[Room | None] = []
        """By index; None for a node that is gone."""
        self.log: list[int] = []
        self.log_start = 0
        """How many entries were dropped from the front of the log."""
        self.ready_count = 0
        self._by_id: dict[NodeId, Room] = {}
        self._touched: dict[NodeId, None] = {}
        self._indexes: dict[str, _ValueIndex] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def log_end(self) -> int:
        """The position behind the newest entry of the log."""
        return self.log_start + len(self.log)

    @property
    def is_behind(self) -> bool:
        """Whether nodes were touched that `refresh` has not read yet."""
        return bool(self._touched)

    def get(self, id: NodeId) -> Room | None:
        """The node's room, None when there is no such node."""
        return self._by_id.get(id)

    def present(self) -> Iterable[Room]:
        """The rooms of all nodes, in order of their index."""
        return (room for room in self.rooms if room is not None)

    def touch(self, id: NodeId) -> None:
        """Something about the node changed: read it again before the next placement."""
        self._touched[id] = None

    def touch_all(self, nodes: Iterable[Node]) -> None:
        """Read all these nodes, in their order."""
        self._touched.update(dict.fromkeys(map(_id_of, nodes)))

    def refresh(self, view: Snapshot, nodes_max: int) -> bool:
        """Read touched nodes again, at most so many; False when some are left for another turn."""
        touched = self._touched
        if not touched:
            return True
        for id in list(islice(touched, nodes_max)):
            del touched[id]
            self._read(id, view)
        if len(self.log) > LOG_MIN + LOG_MAX_PER_NODE * len(self.rooms):
            half = len(self.log) // 2
            del self.log[:half]
            self.log_start += half
        return not touched

    def _read(self, id: NodeId, view: Snapshot) -> None:
        node, room = view.node(id), self._by_id.get(id)
        if room is not None:
            self._leave(room)
        if node is None:
            if room is not None:
                del self._by_id[id]
                self.rooms[room.index] = None
                self.log.append(room.index)
            return
        if room is None:
            room = self._by_id[id] = Room(len(self.rooms), node, view.usage(id))
            self.rooms.append(room)
        else:
            room.load(node, view.usage(id))
        if is_ready(node):
            self.ready_count += 1
        if self._indexes:
            for index in self._indexes.values():
                index.add(room)
        self.log.append(room.index)

    def _leave(self, room: Room) -> None:
        """Take back what was counted of the node as it was."""
        if is_ready(room.node):
            self.ready_count -= 1
        for index in self._indexes.values():
            index.remove(room)

    def domain(self, need: Need) -> list[int] | None:
        """The only nodes that can meet the constraints, by index in order, found without looking at the others.

        None when the constraints pin nothing down: then it may be any node.
        """
        for constraint in need.matcher.constraints:
            if constraint.negated:
                continue
            key = _index_key(constraint.key)
            if key is None:
                continue
            index = self._indexes.get(key)
            if index is None:
                if len(self._indexes) >= INDEXED_KEYS_MAX:
                    continue
                index = self._indexes[key] = _ValueIndex(_reader(key))
                for room in self.present():
                    index.add(room)
            return sorted(index.holders(constraint.value))
        return None


class _ValueIndex:
    """Nodes by what they have for one attribute, regardless of case."""

    def __init__(self, read: Callable[[Node], str]) -> None:
        self._read = read
        self._holders: dict[str, dict[int, None]] = {}

    def add(self, room: Room) -> None:
        self._holders.setdefault(self._read(room.node).casefold(), {})[room.index] = None

    def remove(self, room: Room) -> None:
        value = self._read(room.node).casefold()
        holders = self._holders[value]
        del holders[room.index]
        if not holders:
            del self._holders[value]

    def holders(self, value: str) -> Iterable[int]:
        return self._holders.get(value.casefold(), ())


_LABEL_PREFIX = "node.labels."


def _index_key(constraint_key: str) -> str | None:
    lowered = constraint_key.lower()
    if lowered in ("node.id", "node.hostname"):
        return lowered
    if lowered.startswith(_LABEL_PREFIX) and len(lowered) > len(_LABEL_PREFIX):
        return _LABEL_PREFIX + constraint_key[len(_LABEL_PREFIX) :]
    return None


def _reader(key: str) -> Callable[[Node], str]:
    if key == "node.id":
        return lambda node: node.id
    if key == "node.hostname":
        return lambda node: node.description.hostname
    name = key[len(_LABEL_PREFIX) :]
    return lambda node: node.spec.labels.get(name, "")
