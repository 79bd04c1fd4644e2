"""What a node is to a service that wants one task on every suitable node: both global kinds ask this first."""

from __future__ import annotations

from enum import Enum

from swarm.model.ids import NodeId
from swarm.model.objects import Node
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.states import Availability, NodeState
from swarm.plan.context import ServiceContext, because, satisfies
from swarm.plan.schedule.filters import Filter, fixed_failure
from swarm.plan.schedule.need import Need


class Standing(Enum):
    """How a node stands to such a service."""

    GONE = "gone"
    """Its record was deleted."""
    DRAINED = "drained"
    UNSUITABLE = "unsuitable"
    """It does not meet the constraints."""
    SILENT = "silent"
    """Not READY: what runs there is left alone, so that it is found again when the node comes back."""
    PAUSED = "paused"
    CLOSED = "closed"
    """It could never take the task (no executor for it, another platform), but nobody evicts one that is there."""
    OPEN = "open"


def standing_of(ctx: ServiceContext, need: Need, node: Node | None) -> Standing:
    """How the node stands to the service whose need this is."""
    if node is None:
        return Standing.GONE
    if node.spec.availability is Availability.DRAIN:
        return Standing.DRAINED
    if not satisfies(node, ctx.spec.task.placement.constraints):
        return Standing.UNSUITABLE
    if node.status.state is not NodeState.READY:
        return Standing.SILENT
    if node.spec.availability is Availability.PAUSE:
        return Standing.PAUSED
    return Standing.CLOSED if fixed_failure(need, node) in (Filter.PLATFORM, Filter.RUNTIME) else Standing.OPEN


def eviction(ctx: ServiceContext, standing: Standing, node_id: NodeId) -> Reason | None:
    """Why a node's tasks have to stop; None when they may stay."""
    name = ctx.name_of(node_id)
    match standing:
        case Standing.GONE:
            return because(ReasonCode.NODE_REMOVED, f"node {name} was removed")
        case Standing.DRAINED:
            return because(ReasonCode.NODE_DRAINED, f"node {name} is being drained")
        case Standing.UNSUITABLE:
            return because(ReasonCode.CONSTRAINT, f"node {name} does not meet the service's constraints")
    return None


def concerns(before: Node | None, after: Node | None) -> bool:
    """Whether a change of a node can change how it stands to a service."""
    if before is None or after is None:
        return True
    return (
        before.spec != after.spec
        or before.role is not after.role
        or before.status.state is not after.status.state
        or before.status.address != after.status.address
        or before.description != after.description
    )
