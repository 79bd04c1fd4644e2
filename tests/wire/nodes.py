"""Nodes of a test: router, links and actors on a network in memory, under virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

from swarm.ca.identity import Peer, PeerRole
from swarm.model.ids import Instant
from swarm.ports.entropy import SystemEntropy
from swarm.runtime.actor import Actor
from swarm.runtime.local import LocalRef
from swarm.runtime.scope import Scope, open_scope
from swarm.testing.net import MemoryNet, MemoryNetwork
from swarm.wire.links import Links, open_links
from swarm.wire.router import Router, open_router

CLUSTER = "cluster-a"
EPOCH = 1_000_000.0


class VirtualClock:
    """Wall time that follows trio's clock and can be moved."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def now(self) -> Instant:
        return Instant(EPOCH + trio.current_time() + self.offset_s)

    def monotonic(self) -> float:
        return trio.current_time()


@define
class Node:
    """One node. `address` is where it listens, for managers."""

    peer: Peer
    net: MemoryNet
    router: Router
    links: Links
    scope: Scope
    clock: VirtualClock
    address: str = ""
    actors: dict[str, Actor] = field(factory=dict)

    async def start(self, name: str, actor: Actor) -> LocalRef:
        """Start an actor and let peers reach it under `name`."""
        ref = await self.scope.start(name, lambda: actor)
        self.router.register(name, ref)
        self.actors[name] = actor
        return ref

    async def link_to(self, other: Node, **options: Any) -> Any:
        return await self.links.dial(other.address, timeout_s=5, **options)


@asynccontextmanager
async def open_node(network: MemoryNetwork, node_id: str, role: PeerRole, **peer: Any) -> AsyncIterator[Node]:
    """A node of `CLUSTER`; a manager listens on `<node id>:1`."""
    me = Peer(role, node_id, CLUSTER, **peer)
    net = network.net(me, node_id)
    clock, entropy = VirtualClock(), SystemEntropy()
    async with open_scope(node_id) as scope, open_router(entropy) as router:
        router.me = me
        async with open_links(net, router, clock=clock, entropy=entropy, node_id=lambda: node_id) as links:
            node = Node(me, net, router, links, scope, clock)
            if role is not PeerRole.MANAGER:
                yield node
                return
            async with net.listen(f"{node_id}:1") as listener, trio.open_nursery() as nursery:
                node.address = listener.address

                async def accept() -> None:
                    while True:
                        nursery.start_soon(links.accept, await listener.accept())

                nursery.start_soon(accept)
                yield node
                nursery.cancel_scope.cancel()
