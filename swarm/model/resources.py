"""What a node's tasks hold, kept by the store as changes are applied, so that no planner has to add it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from swarm.model.ids import ServiceId

HostPort: TypeAlias = "tuple[str, int]"
"""(protocol, published port)."""


class NodeUsage(Protocol):
    """Counts and sums over one node's tasks.

    A task counts from ASSIGNED on: one that was made for a node and waits for the scheduler's word holds nothing yet, so
    that two of them cannot keep each other out. "Active" tasks are those whose desired state is COMPLETE or below;
    reservations and host ports are held by every task whose status is not terminal, tasks being shut down included.
    """

    @property
    def active_tasks(self) -> int: ...
    @property
    def active_by_service(self) -> Mapping[ServiceId, int]: ...
    @property
    def nano_cpus(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def generic_amounts(self) -> Mapping[str, int]:
        """Kind to the amount held."""
        ...

    @property
    def generic_items(self) -> Mapping[str, Mapping[str, int]]:
        """Kind to named items held, each with the number of holders."""
        ...

    @property
    def host_ports(self) -> Mapping[HostPort, int]:
        """Host ports held, each with the number of holders (counted, so that a release frees only its own)."""
        ...
