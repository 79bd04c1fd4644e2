"""The filters: what a node must have to take a task, in order, each with its explanation for one node and in sum.

What cannot change by waiting for other tasks comes first (`fixed_failure`), what comes and goes with the tasks of the
node last (`room_failure`, then the service's own limits): a node that can never take a task is not reported as full, and
the first part is worked out once for all services that ask the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from heapq import nsmallest

from swarm.model import generic
from swarm.model.objects import Node
from swarm.model.reasons import Blocked
from swarm.model.resources import HostPort
from swarm.model.specs import NodeDescription, Platform
from swarm.model.states import Availability, NodeState
from swarm.plan.schedule.need import Demand, Need
from swarm.plan.schedule.room import Room
from swarm.plan.schedule.words import cores, nodes_in_words, size

EXAMPLES_MAX = 5
"""Node ids kept with an explanation: enough to look at, few enough to store with every waiting task."""


class Filter(IntEnum):
    """The filters, in the order in which they are asked."""

    READY = 1
    CONSTRAINTS = 2
    PLATFORM = 3
    RUNTIME = 4
    PLUGINS = 5
    RESOURCES = 6
    HOST_PORTS = 7
    MAX_REPLICAS = 8

    @property
    def label(self) -> str:
        """Its name in stored reasons."""
        return self.name.lower().replace("_", "-")


# Looking up an enum member takes longer than the comparison, and these are asked of every node.
_READY = NodeState.READY
_ACTIVE = Availability.ACTIVE

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_SUMMARIES: Mapping[Filter, str] = {
    Filter.READY: "{nodes} not available for new tasks",
    Filter.CONSTRAINTS: "constraints not met on {nodes}",
    Filter.PLATFORM: "platform not supported on {nodes}",
    Filter.RUNTIME: "no executor for this kind of task on {nodes}",
    Filter.PLUGINS: "plugin missing on {nodes}",
    Filter.RESOURCES: "not enough {resources} on {nodes}",
    Filter.HOST_PORTS: "host port taken on {nodes}",
    Filter.MAX_REPLICAS: "limit of replicas per node reached on {nodes}",
}


# --- the questions -------------------------------------------------------------------------------------------------
def is_ready(node: Node) -> bool:
    """Whether the node takes new tasks at all."""
    return node.status.state is _READY and node.spec.availability is _ACTIVE


def fixed_failure(need: Need, node: Node) -> Filter | None:
    """The first filter that the node fails whatever its tasks hold; None when it fails none of these."""
    if node.status.state is not _READY or node.spec.availability is not _ACTIVE:
        return Filter.READY
    if need.unreadable or not need.matcher.matches(node):
        return Filter.CONSTRAINTS
    description = node.description
    if need.platforms and not any(_has_platform(wanted, description.platform) for wanted in need.platforms):
        return Filter.PLATFORM
    if need.runtime not in description.executors:
        return Filter.RUNTIME
    if (need.volume_drivers or need.log_driver) and missing_plugins(need, description):
        return Filter.PLUGINS
    return None


def has_resources(need: Need, room: Room) -> bool:
    """Whether the node has what the task reserves."""
    return (
        (not need.nano_cpus or need.nano_cpus <= room.nano_cpus)
        and (not need.memory_bytes or need.memory_bytes <= room.memory_bytes)
        and (not need.generic or generic.enough(room.generic, need.generic))
    )


def has_ports(ports: Sequence[HostPort], room: Room) -> bool:
    """Whether none of the host ports is taken on the node."""
    return all(port not in room.ports for port in ports)


def room_failure(demand: Demand, room: Room, replicas: int) -> Filter | None:
    """The first filter that the node fails because of the tasks on it (`replicas` of them of the same service)."""
    if not has_resources(demand.need, room):
        return Filter.RESOURCES
    if not has_ports(demand.ports, room):
        return Filter.HOST_PORTS
    if demand.max_replicas and replicas >= demand.max_replicas:
        return Filter.MAX_REPLICAS
    return None


def failure(demand: Demand, room: Room, replicas: int) -> Filter | None:
    """The first filter that the node fails, of all of them."""
    return fixed_failure(demand.need, room.node) or room_failure(demand, room, replicas)


def failures(demand: Demand, room: Room, replicas: int) -> tuple[Filter, ...]:
    """Every filter that the node fails, in order."""
    need, node, description = demand.need, room.node, room.node.description
    checks = {
        Filter.READY: is_ready(node),
        Filter.CONSTRAINTS: not need.unreadable and need.matcher.matches(node),
        Filter.PLATFORM: not need.platforms or any(_has_platform(p, description.platform) for p in need.platforms),
        Filter.RUNTIME: need.runtime in description.executors,
        Filter.PLUGINS: not missing_plugins(need, description),
        Filter.RESOURCES: has_resources(need, room),
        Filter.HOST_PORTS: has_ports(demand.ports, room),
        Filter.MAX_REPLICAS: not demand.max_replicas or replicas < demand.max_replicas,
    }
    return tuple(name for name, passed in checks.items() if not passed)


def _has_platform(wanted: Platform, present: Platform) -> bool:
    """Empty parts of `wanted` match anything; a node that does not tell its platform matches nothing."""
    if not present.architecture and not present.os:
        return False
    if wanted.os and wanted.os.lower() != present.os.lower():
        return False
    return not wanted.architecture or _folded(wanted.architecture) == _folded(present.architecture)


def _folded(architecture: str) -> str:
    lowered = architecture.lower()
    return _ARCHITECTURES.get(lowered, lowered)


def missing_plugins(need: Need, description: NodeDescription) -> tuple[tuple[str, str], ...]:
    """The (type, name) pairs of plugins that the node lacks.

    A node that tells nothing of its engine passes, and so does one that lists no log plugin at all for a log driver.
    """
    if not description.engine_version and not description.plugins:
        return ()
    have = {(kind.lower(), name) for kind, name in description.plugins}
    wanted = [("volume", driver) for driver in need.volume_drivers]
    if need.log_driver and any(kind == "log" for kind, _ in have):
        wanted.append(("log", need.log_driver))
    return tuple(pair for pair in wanted if pair not in have and (pair[0], f"{pair[1]}:latest") not in have)


# --- the words for many nodes --------------------------------------------------------------------------------------
def blocked_in_sum(
    need: Need, counts: Mapping[Filter, int], nodes: Mapping[Filter, Iterable[str]]
) -> tuple[Blocked, ...]:
    """What stands in the way, the most frequent first; `nodes` are ids that failed, of which a few are kept."""
    ordered = sorted((item for item in counts.items() if item[1]), key=lambda item: (-item[1], item[0]))
    return tuple(
        Blocked(
            filter=name.label,
            nodes=count,
            text=_SUMMARIES[name].format(nodes=nodes_in_words(count), resources=_reserved(need)),
            examples=tuple(nsmallest(EXAMPLES_MAX, nodes.get(name, ()))),
        )
        for name, count in ordered
    )


def _reserved(need: Need) -> str:
    """What the task reserves: one of these is short."""
    kinds = [*(["CPU"] if need.nano_cpus else []), *(["memory"] if need.memory_bytes else [])]
    return " or ".join([*kinds, *(request.kind for request in need.generic)])


def no_node_text(blocked: Sequence[Blocked]) -> str:
    """The error of a task that found no node."""
    return f"no suitable node ({'; '.join(part.text for part in blocked)})" if blocked else "no suitable node"


# --- the words for one node ----------------------------------------------------------------------------------------
def obstacle(name: Filter, demand: Demand, room: Room, replicas: int) -> str:
    """Why this node fails that filter, in a few words."""
    need, node = demand.need, room.node
    match name:
        case Filter.READY:
            return _not_ready(node)
        case Filter.CONSTRAINTS:
            return need.unreadable or "; ".join(f"needs {c.text}" for c in need.matcher.failing(node))
        case Filter.PLATFORM:
            wanted = " or ".join(f"{p.os or 'any'}/{p.architecture or 'any'}" for p in need.platforms)
            present = node.description.platform
            return f"needs platform {wanted}, is {present.os or 'unknown'}/{present.architecture or 'unknown'}"
        case Filter.RUNTIME:
            return f"has no {need.runtime} executor (has {', '.join(node.description.executors) or 'none'})"
        case Filter.PLUGINS:
            missing = missing_plugins(need, node.description)
            return "lacks " + ", ".join(f"{kind} plugin {plugin}" for kind, plugin in missing)
        case Filter.RESOURCES:
            return "; ".join(_shortages(need, room))
        case Filter.HOST_PORTS:
            taken = [f"{number}/{protocol}" for protocol, number in demand.ports if (protocol, number) in room.ports]
            return f"host port {', '.join(taken)} is taken"
        case Filter.MAX_REPLICAS:
            return f"has {replicas} of at most {demand.max_replicas} replicas per node"


def _not_ready(node: Node) -> str:
    if node.status.state is not NodeState.READY:
        return f"is {node.status.state.name.lower()}"
    return "is paused" if node.spec.availability is Availability.PAUSE else "is drained"


def _shortages(need: Need, room: Room) -> list[str]:
    found: list[str] = []
    if need.nano_cpus and need.nano_cpus > room.nano_cpus:
        found.append(f"needs {cores(need.nano_cpus)} CPU, {cores(max(0, room.nano_cpus))} free")
    if need.memory_bytes and need.memory_bytes > room.memory_bytes:
        found.append(f"needs {size(need.memory_bytes)} of memory, {size(max(0, room.memory_bytes))} free")
    for request in need.generic:
        left = generic.amount_left(room.generic, request.kind)
        if request.items:
            found.append(f"asks for named {request.kind} items, only amounts can be asked for")
        elif request.amount > left or request.kind not in room.generic:
            found.append(f"needs {request.amount} {request.kind}, {left} free")
    return found
