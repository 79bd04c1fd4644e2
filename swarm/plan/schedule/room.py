"""A node as the scheduler sees it: what is free on it and how loaded it is, kept in one small mutable object.

`load` reads it from the store; `claim` takes a task's share out at once, before that is committed, so that one plan
never promises the same room twice.
"""

from __future__ import annotations

from collections.abc import Collection

from swarm.model import generic
from swarm.model.objects import Node
from swarm.model.resources import HostPort, NodeUsage
from swarm.model.specs import GenericResource
from swarm.plan.schedule.need import Need
from swarm.plan.schedule.rank import ONE_ACTIVE, load_key, share_of

_NO_PORTS: frozenset[HostPort] = frozenset()
_NO_GENERIC: generic.Free = {}
"""Shared by all nodes without any: nothing is ever claimed from it."""


class Room:
    """What one node has left. `key` is its load as a rank."""

    __slots__ = ("active", "generic", "index", "key", "memory_bytes", "nano_cpus", "node", "ports")

    def __init__(self, index: int, node: Node, usage: NodeUsage) -> None:
        self.index = index
        self.load(node, usage)

    def load(self, node: Node, usage: NodeUsage) -> None:
        """Take the node's state as the store has it, dropping every claim."""
        present = node.description.resources
        cpus_used, memory_used, held = usage.nano_cpus, usage.memory_bytes, usage.host_ports
        self.node = node
        self.active = usage.active_tasks
        self.nano_cpus = present.nano_cpus - cpus_used
        self.memory_bytes = present.memory_bytes - memory_used
        self.generic: generic.Free = (
            generic.free(present.generic, usage.generic_amounts, usage.generic_items)
            if present.generic
            else _NO_GENERIC
        )
        self.ports: Collection[HostPort] = frozenset(held) if held else _NO_PORTS
        if cpus_used or memory_used:
            self.key = self._load_key()
        else:
            self.key = load_key(self.index, self.active, 0)

    def claim(self, need: Need, ports: tuple[HostPort, ...]) -> tuple[GenericResource, ...]:
        """Take a task's share out; gives the generic resources that it got."""
        self.active += 1
        if ports:
            self.ports = frozenset((*self.ports, *ports))
        if not need.reserves:
            self.key += ONE_ACTIVE
            return ()
        self.nano_cpus -= need.nano_cpus
        self.memory_bytes -= need.memory_bytes
        self.key = self._load_key()
        return generic.claim(self.generic, need.generic) if need.generic else ()

    def _load_key(self) -> int:
        present = self.node.description.resources
        share = max(
            share_of(present.nano_cpus - self.nano_cpus, present.nano_cpus),
            share_of(present.memory_bytes - self.memory_bytes, present.memory_bytes),
        )
        return load_key(self.index, self.active, share)
