"""What the leader runs, in one table. Leader-only work starts from here and from nowhere else.

The leader scope lies inside the manager scope: it is opened when this member leads and has applied everything of earlier
terms, and left, with all in it ended, before this manager follows anybody else. Whatever it proposes carries its term, so that
a scope that is late to end changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from swarm.actors.context import ManagerContext
from swarm.actors.control_loop import ControlLoop
from swarm.actors.dispatcher import Dispatcher
from swarm.actors.log_broker import LogBroker
from swarm.actors.role_manager import RoleManager
from swarm.actors.store_messages import ProposeChanges, ReadBarrier
from swarm.ca.tokens import SECRET_RANDOM_BYTES, new_token
from swarm.model.changes import Change, Create
from swarm.model.ids import NodeId
from swarm.model.objects import Cluster, JoinTokens, ManagerStatus, Node
from swarm.model.snapshot import Snapshot
from swarm.model.specs import NodeSpec
from swarm.model.states import Role
from swarm.plan.base import Planner
from swarm.plan.enforce import ConstraintEnforcer
from swarm.plan.global_services import GlobalPlanner
from swarm.plan.jobs import JobsPlanner
from swarm.plan.reap import Reaper
from swarm.plan.replicated import ReplicatedPlanner
from swarm.plan.schedule.planner import Scheduler
from swarm.runtime.actor import Actor
from swarm.runtime.scope import Scope

ASK_TIMEOUT_S = 20.0

PLANNERS: tuple[Callable[[], Planner[Any]], ...] = (
    Scheduler,
    ReplicatedPlanner,
    GlobalPlanner,
    JobsPlanner,
    ConstraintEnforcer,
    Reaper,
)
"""Each runs in a `ControlLoop` of its own, named as the planner is."""


@frozen
class LeaderActor:
    """One entry of the table: the actor's name, how it is made for a term, whether peers may reach it by name."""

    name: str
    make: Callable[[ManagerContext, int], Actor]
    on_wire: bool = False


ACTORS: tuple[LeaderActor, ...] = (
    LeaderActor(
        "dispatcher",
        lambda manager, term: Dispatcher(manager.store, manager.clock, manager.entropy, term),
        on_wire=True,
    ),
    LeaderActor("logs", lambda manager, term: LogBroker(manager.store, manager.agent_of), on_wire=True),
    LeaderActor("roles", lambda manager, term: RoleManager(manager.store, manager.raft, manager.membership, term)),
)


async def run_leader(scope: Scope, manager: ManagerContext, term: int) -> None:
    """Start everything of the table in an opened leader scope; returns when all have started."""
    await found_cluster(manager, term)
    for entry in ACTORS:
        ref = await scope.start(entry.name, lambda entry=entry: entry.make(manager, term))  # type: ignore[misc]
        if entry.on_wire:
            manager.router.register(entry.name, ref)
    for planner in PLANNERS:
        made = planner()
        await scope.start(
            made.name,
            lambda made=made: ControlLoop(made, manager.store, manager.clock, manager.entropy, term),  # type: ignore[misc]
        )


def leave_leader(manager: ManagerContext) -> None:
    """Peers reach none of the leader's actors any more."""
    for entry in ACTORS:
        if entry.on_wire:
            manager.router.unregister(entry.name)


async def found_cluster(manager: ManagerContext, term: int) -> None:
    """The first leader of a new cluster writes the cluster object and its own node; every later one finds them."""
    view = await manager.store.ask(ReadBarrier(), timeout_s=ASK_TIMEOUT_S)
    group = tuple(_missing(view, manager))
    if group:
        await manager.store.ask(ProposeChanges((group,), term=term), timeout_s=ASK_TIMEOUT_S)
    manager.node.state.founded()


def _missing(view: Snapshot, manager: ManagerContext) -> list[Change]:
    changes: list[Change] = []
    founding = manager.node.state.founding()
    if view.cluster is None and founding is not None:
        root = founding.root_certificate
        tokens = JoinTokens(
            worker=new_token(root, manager.entropy.bytes(SECRET_RANDOM_BYTES)),
            manager=new_token(root, manager.entropy.bytes(SECRET_RANDOM_BYTES)),
        )
        cluster = Cluster(
            id=manager.cluster_id,
            root_certificate=root,
            root_key=founding.root_key,
            tokens=tokens,
            created_at=manager.clock.now(),
        )
        changes.append(Create(cluster))
    if view.node(NodeId(manager.node_id)) is None and founding is not None:
        status = ManagerStatus(manager.raft_id, manager.advertised())
        spec = NodeSpec(desired_role=Role.MANAGER, labels=founding.labels)
        changes.append(
            Create(Node(manager.node_id, spec, role=Role.MANAGER, manager=status, created_at=manager.clock.now()))
        )
    return changes
