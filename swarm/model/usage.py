"""What one node's tasks hold, and what one revision's tasks ask for: the store's running sums.

A revision's demand is worked out once, when the revision is stored; binding or releasing a task is then a few additions. Host
ports and generic items are counted, so that a release frees only the task's own hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from swarm.model.ids import ServiceId
from swarm.model.idset import EMPTY, IdSet
from swarm.model.objects import Revision
from swarm.model.resources import HostPort
from swarm.model.specs import GenericResource
from swarm.model.states import PublishMode

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class RevisionUse:
    """A stored revision, what each of its tasks reserves, and how many task records name it."""

    __slots__ = ("host_ports", "memory_bytes", "nano_cpus", "number", "reserves", "revision", "tasks")

    def __init__(self, revision: Revision) -> None:
        reserved = revision.spec.task.resources.reservations
        self.revision = revision
        self.number = revision.number
        self.nano_cpus = reserved.nano_cpus
        self.memory_bytes = reserved.memory_bytes
        self.host_ports: tuple[HostPort, ...] = tuple(
            (port.protocol.value, port.published)
            for port in revision.spec.ports
            if port.mode is PublishMode.HOST and port.published
        )
        self.reserves = bool(self.nano_cpus or self.memory_bytes or self.host_ports)
        self.tasks = 0


class NodeTasks:
    """One node's task ids and sums: the store's implementation of `resources.NodeUsage`."""

    __slots__ = ("_by_service", "_generic", "_host_ports", "_items", "active_tasks", "ids", "memory_bytes", "nano_cpus")

    def __init__(self) -> None:
        self.ids: IdSet = EMPTY
        self.active_tasks = 0
        self.nano_cpus = 0
        self.memory_bytes = 0
        self._by_service: dict[ServiceId, int] | None = None
        self._host_ports: dict[HostPort, int] | None = None
        self._generic: dict[str, int] | None = None
        self._items: dict[str, dict[str, int]] | None = None

    @property
    def active_by_service(self) -> Mapping[ServiceId, int]:
        """Active tasks by service; a service without any is absent."""
        return _NOTHING if self._by_service is None else self._by_service

    @property
    def host_ports(self) -> Mapping[HostPort, int]:
        """Holders of each held host port."""
        return _NOTHING if self._host_ports is None else self._host_ports

    @property
    def generic_amounts(self) -> Mapping[str, int]:
        """Amount held of each generic kind, named items included."""
        return _NOTHING if self._generic is None else self._generic

    @property
    def generic_items(self) -> Mapping[str, Mapping[str, int]]:
        """Holders of each named item of each generic kind."""
        return _NOTHING if self._items is None else self._items

    def activate(self, service_id: ServiceId) -> None:
        """Count one more active task of the service."""
        self.active_tasks += 1
        counts = self._by_service
        if counts is None:
            self._by_service = {service_id: 1}
        else:
            counts[service_id] = counts.get(service_id, 0) + 1

    def deactivate(self, service_id: ServiceId) -> None:
        """Count one active task of the service less."""
        self.active_tasks -= 1
        counts = self._by_service
        assert counts is not None, "an active task was counted"
        _take(counts, service_id, 1)

    def hold(self, demand: RevisionUse, generic: tuple[GenericResource, ...]) -> None:
        """Add a task's reservations and host ports."""
        self.nano_cpus += demand.nano_cpus
        self.memory_bytes += demand.memory_bytes
        if demand.host_ports:
            if self._host_ports is None:
                self._host_ports = {}
            for port in demand.host_ports:
                self._host_ports[port] = self._host_ports.get(port, 0) + 1
        for claim in generic:
            self._hold_generic(claim)

    def release(self, demand: RevisionUse, generic: tuple[GenericResource, ...]) -> None:
        """Take back what `hold` added."""
        self.nano_cpus -= demand.nano_cpus
        self.memory_bytes -= demand.memory_bytes
        if demand.host_ports:
            assert self._host_ports is not None, "a held port was counted"
            for port in demand.host_ports:
                _take(self._host_ports, port, 1)
        for claim in generic:
            self._release_generic(claim)

    def _hold_generic(self, claim: GenericResource) -> None:
        amount = _amount(claim)
        if not amount:
            return
        if self._generic is None:
            self._generic = {}
        self._generic[claim.kind] = self._generic.get(claim.kind, 0) + amount
        if claim.items:
            if self._items is None:
                self._items = {}
            items = self._items.setdefault(claim.kind, {})
            for item in claim.items:
                items[item] = items.get(item, 0) + 1

    def _release_generic(self, claim: GenericResource) -> None:
        amount = _amount(claim)
        if not amount:
            return
        assert self._generic is not None, "a claim was counted"
        _take(self._generic, claim.kind, amount)
        if claim.items:
            assert self._items is not None, "a claimed item was counted"
            items = self._items[claim.kind]
            for item in claim.items:
                _take(items, item, 1)
            if not items:
                del self._items[claim.kind]


NO_USAGE = NodeTasks()
"""The usage of a node without tasks; never changed."""


def _amount(claim: GenericResource) -> int:
    return len(claim.items) if claim.items else claim.amount


def _take(counts: dict[Any, int], key: Any, number: int) -> None:
    left = counts[key] - number
    if left:
        counts[key] = left
    else:
        del counts[key]
