"""Why a task waits, node by node, and the smallest change that would place it: what `svc why` shows.

Computed afresh from a snapshot and a spec, with the scheduler's own filters, so that it can never differ from what the
scheduler does. Every remedy has a cost: an operator's one word on a node is cheaper than a change of the service, which is
cheaper than a machine. The node with the least total cost is the nearest one, and its remedies are the smallest change.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from swarm.model import generic
from swarm.model.constraints import Constraint
from swarm.model.ids import NO_NODE, NodeId, ServiceId
from swarm.model.objects import Node, Task
from swarm.model.snapshot import Snapshot
from swarm.model.specs import Platform, ServiceSpec
from swarm.model.states import NodeState, Role
from swarm.plan.schedule.filters import Filter, failures, missing_plugins, obstacle
from swarm.plan.schedule.need import Demand, demand_of
from swarm.plan.schedule.room import Room
from swarm.plan.schedule.words import cores, nodes_in_words, size

COST_OF_A_MACHINE = 1000
"""More than any change of what is there: a new machine is the last thing to ask for."""


@frozen
class Obstacle:
    """One filter that a node fails: in words, and what would remove it."""

    filter: str
    text: str
    remedy: str
    cost: int


@frozen
class NodeVerdict:
    """What one node says to a task; without obstacles it would take it."""

    node_id: NodeId
    hostname: str
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the task could run here now."""
        return not self.obstacles


@frozen
class Explanation:
    """Why a task waits: each node's verdict, and the smallest change that would place it, in words."""

    nodes: tuple[NodeVerdict, ...]
    """Of all nodes, nearest to fitting first (of the task's own node alone when it was made for one)."""
    change: str
    """One sentence; empty when a node would take it now."""


def explain(view: Snapshot, task: Task) -> Explanation | None:
    """Why this task waits; None when its spec is gone. It looks at every node: for a user who asks."""
    spec = view.spec_of(task)
    return None if spec is None else explain_spec(view, spec, task.service_id, task.node_id)


def explain_spec(
    view: Snapshot, spec: ServiceSpec, service_id: ServiceId | None = None, node_id: NodeId = NO_NODE
) -> Explanation:
    """Where one more task of such a service could go, on `node_id` alone when that is given.

    `service_id` names the service whose tasks count as its replicas; None for one that does not exist yet.
    """
    demand = demand_of(spec)
    nodes: Iterable[Node] = view.nodes()
    if node_id:
        only = view.node(node_id)
        nodes = () if only is None else (only,)
    verdicts: list[tuple[int, int, NodeVerdict]] = []
    for order, node in enumerate(nodes):
        usage = view.usage(node.id)
        room = Room(order, node, usage)
        replicas = 0 if service_id is None else usage.active_by_service.get(service_id, 0)
        obstacles = tuple(_obstacle(name, demand, spec, room, replicas) for name in failures(demand, room, replicas))
        cost = sum(each.cost for each in obstacles)
        verdicts.append((cost, order, NodeVerdict(node.id, node.description.hostname or node.id, obstacles)))
    verdicts.sort(key=lambda verdict: verdict[:2])
    found = tuple(verdict for _, _, verdict in verdicts)
    return Explanation(found, _change(verdicts[0][0] if verdicts else COST_OF_A_MACHINE, found, demand, node_id))


def _change(cost: int, verdicts: tuple[NodeVerdict, ...], demand: Demand, node_id: NodeId) -> str:
    if not verdicts:
        return f"the node {node_id}, which the task was made for, is gone" if node_id else _machine(demand)
    nearest = verdicts[0]
    if nearest.fits:
        return ""
    if cost >= COST_OF_A_MACHINE and not node_id:
        return _machine(demand)
    remedies = " and ".join(each.remedy for each in nearest.obstacles)
    equal = sum(1 for each in verdicts if [o.text for o in each.obstacles] == [o.text for o in nearest.obstacles])
    others = f" (the same holds for {nodes_in_words(equal - 1)} more)" if equal > 1 else ""
    return f"node {nearest.hostname} {'; '.join(each.text for each in nearest.obstacles)}: {remedies}{others}"


def _machine(demand: Demand) -> str:
    """The machine to add, in words."""
    need, wants = demand.need, []
    platforms = [_platform(each) for each in need.platforms]
    if platforms:
        wants.append("platform " + " or ".join(platforms))
    wants.append(f"a {need.runtime} executor")
    if need.nano_cpus:
        wants.append(f"{cores(need.nano_cpus)} CPU free")
    if need.memory_bytes:
        wants.append(f"{size(need.memory_bytes)} of memory free")
    if need.generic:
        wants.append(generic.to_text(need.generic))
    wants += [constraint.text for constraint in need.matcher.constraints]
    return f"add a node with {', '.join(wants)}"


def _platform(platform: Platform) -> str:
    return f"{platform.os or 'any'}/{platform.architecture or 'any'}"


# --- remedies ------------------------------------------------------------------------------------------------------
def _obstacle(name: Filter, demand: Demand, spec: ServiceSpec, room: Room, replicas: int) -> Obstacle:
    remedy, cost = _remedy(name, demand, spec, room)
    return Obstacle(name.label, obstacle(name, demand, room, replicas), remedy, cost)


def _remedy(name: Filter, demand: Demand, spec: ServiceSpec, room: Room) -> tuple[str, int]:
    """What would remove the obstacle, and its cost: 1 a word, 2 to 4 a change of node or service, 5 a machine's set-up."""
    node = room.node
    host = node.description.hostname or node.id
    match name:
        case Filter.READY:
            if node.status.state is not NodeState.READY:
                return f"bring node {host} back", 5
            return f"run `swarm node activate {host}`", 1
        case Filter.CONSTRAINTS:
            if demand.need.unreadable:
                return "correct the constraint", 4
            fixes = [_constraint_remedy(each, host) for each in demand.need.matcher.failing(node)]
            return " and ".join(text for text, _ in fixes), sum(cost for _, cost in fixes)
        case Filter.PLATFORM:
            return f"add a node with platform {' or '.join(map(_platform, demand.need.platforms))}", COST_OF_A_MACHINE
        case Filter.RUNTIME:
            return f"start node {host} with a {demand.need.runtime} executor", 10
        case Filter.PLUGINS:
            missing = missing_plugins(demand.need, node.description)
            return f"install {', '.join(f'the {kind} plugin {plugin}' for kind, plugin in missing)} on node {host}", 10
        case Filter.RESOURCES:
            return _resource_remedy(demand, spec, room)
        case Filter.HOST_PORTS:
            return "publish another port, or free it on the node", 4
        case Filter.MAX_REPLICAS:
            limit = spec.task.placement.max_replicas
            return f"raise --replicas-max-per-node to {limit + 1} with `swarm svc update {spec.name}`, or add a node", 3


def _constraint_remedy(constraint: Constraint, host: str) -> tuple[str, int]:
    label = constraint.node_label
    if label is not None and not constraint.negated:
        return f"run `swarm node update {host} --label-add {label}={constraint.value}`", 2
    if label is not None:
        return f"run `swarm node update {host} --label-rm {label}`", 2
    if constraint.key.lower() == "node.role" and constraint.value.lower() in (role.name.lower() for role in Role):
        return f"take the constraint {constraint.text} off the service, or change the node's role", 6
    return f"take the constraint {constraint.text} off the service", 6


def _resource_remedy(demand: Demand, spec: ServiceSpec, room: Room) -> tuple[str, int]:
    need, fixes, cost = demand.need, list[str](), 0
    if need.nano_cpus > room.nano_cpus:
        if room.nano_cpus > 0:
            fixes.append(f"lower --reserve-cpu to {cores(room.nano_cpus)}")
            cost += 2 + _share(need.nano_cpus - room.nano_cpus, need.nano_cpus)
        else:
            fixes.append("free some CPU there or add a node")
            cost += 100
    if need.memory_bytes > room.memory_bytes:
        if room.memory_bytes > 0:
            fixes.append(f"lower --reserve-memory to {size(room.memory_bytes)}")
            cost += 2 + _share(need.memory_bytes - room.memory_bytes, need.memory_bytes)
        else:
            fixes.append("free some memory there or add a node")
            cost += 100
    for request in need.generic:
        if not generic.enough(room.generic, (request,)):
            left = generic.amount_left(room.generic, request.kind)
            if request.items or left == 0:
                fixes.append(f"free {request.kind} there or add a node with {request.kind}={request.amount}")
                cost += 100
            else:
                fixes.append(f"ask for {left} {request.kind}")
                cost += 3
    return f"{' and '.join(fixes)} (`swarm svc update {spec.name}`)", cost


def _share(short: int, wanted: int) -> int:
    """How much would have to be given up, in tenths: the node that lacks least is the nearest."""
    return short * 10 // wanted
