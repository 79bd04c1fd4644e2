"""What a task asks of a node, taken once from its spec and shared by all specs that ask the same.

A `Need` holds what decides between nodes for many services alike (its `shape` is the key under which candidate pools are
shared); a `Demand` adds what belongs to one service: its host ports and its limit of replicas on a node.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

from attrs import frozen

from swarm.model import generic
from swarm.model.constraints import ENGINE_LABEL_PREFIX, NODE_LABEL_PREFIX, ConstraintError, Matcher, matcher
from swarm.model.resources import HostPort
from swarm.model.specs import ContainerSpec, GenericResource, Platform, Port, ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import MountType, PublishMode

Shape: TypeAlias = Hashable

_NO_CONSTRAINTS = Matcher(())


@frozen(eq=False)
class Need:
    """One shape of requirement; compared by identity, the planner keeps one object a shape."""

    matcher: Matcher
    unreadable: str
    """Why the constraints could not be read: then no node will do. Empty when they could."""
    platforms: tuple[Platform, ...]
    preferences: tuple[str, ...]
    """Label descriptors to spread over, outermost first; those that are none are left out."""
    runtime: str
    nano_cpus: int
    memory_bytes: int
    generic: tuple[GenericResource, ...]
    volume_drivers: tuple[str, ...]
    log_driver: str
    reserves: bool
    """Whether it reserves anything at all."""


@frozen
class Demand:
    """What one revision of a service asks of a node."""

    need: Need
    ports: tuple[HostPort, ...] = ()
    max_replicas: int = 0

    @property
    def can_fill(self) -> bool:
        """Whether tasks of this service can make a node unfit for more of them."""
        return self.need.reserves or bool(self.ports) or self.max_replicas > 0


def shape_of(task: TaskSpec) -> Shape:
    """The key of a task's `Need`: equal shapes ask the same of a node."""
    # Worked out once for every group: a plain process, the most frequent runtime, takes no further calls.
    reserved, placement, is_process = task.resources.reservations, task.placement, type(task.runtime) is ProcessSpec
    return (
        "process" if is_process else task.runtime_kind,
        placement.constraints,
        placement.platforms,
        placement.preferences,
        reserved.nano_cpus,
        reserved.memory_bytes,
        reserved.generic,
        () if is_process else _volume_drivers(task),
        "" if task.log_driver is None else _log_driver(task),
    )


def need_of(task: TaskSpec) -> Need:
    """What a task's spec asks of a node."""
    reserved, placement = task.resources.reservations, task.placement
    unreadable, compiled = "", _NO_CONSTRAINTS
    if placement.constraints:
        try:
            compiled = matcher(placement.constraints)
        except ConstraintError as error:
            unreadable = str(error)
    return Need(
        matcher=compiled,
        unreadable=unreadable,
        platforms=placement.platforms,
        preferences=tuple(descriptor for descriptor in placement.preferences if _is_label(descriptor)),
        runtime=task.runtime_kind,
        nano_cpus=reserved.nano_cpus,
        memory_bytes=reserved.memory_bytes,
        generic=generic.merged(reserved.generic),
        volume_drivers=_volume_drivers(task),
        log_driver=_log_driver(task),
        reserves=bool(reserved.nano_cpus or reserved.memory_bytes or reserved.generic),
    )


def demand_of(spec: ServiceSpec) -> Demand:
    """What a service's spec asks of a node, with a `Need` of its own."""
    return Demand(need_of(spec.task), host_ports(spec.ports), spec.task.placement.max_replicas)


def host_ports(ports: tuple[Port, ...]) -> tuple[HostPort, ...]:
    """The ports that a task holds on its node: host mode with a number given."""
    return tuple(
        (port.protocol.value, port.published) for port in ports if port.published and port.mode is PublishMode.HOST
    )


def _is_label(descriptor: str) -> bool:
    lowered = descriptor.lower()
    return any(lowered.startswith(prefix) and lowered != prefix for prefix in (NODE_LABEL_PREFIX, ENGINE_LABEL_PREFIX))


def _volume_drivers(task: TaskSpec) -> tuple[str, ...]:
    if not isinstance(task.runtime, ContainerSpec) or not task.runtime.mounts:
        return ()
    drivers = {mount.driver for mount in task.runtime.mounts if mount.type is MountType.VOLUME}
    return tuple(sorted(drivers - {"", "local"}))


def _log_driver(task: TaskSpec) -> str:
    name = task.log_driver.name if task.log_driver is not None else ""
    return "" if name == "none" else name
