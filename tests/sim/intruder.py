"""A story of its own: a worker's identity, and none at all, are used to send what only others may, directly and in others' names.

Nothing but a refusal may come back, and nothing of it may reach an actor; what may be sent is answered all the while.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from swarm.actors.context import NodeNet
from swarm.ca.identity import Peer, PeerRole
from swarm.model.states import Role
from swarm.ports.entropy import SeededEntropy
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.message import Request
from swarm.testing.sim_machine import SimClock
from swarm.testing.world import World
from swarm.wire import router
from swarm.wire.codec import declaration, encode_message
from swarm.wire.connection import Incoming
from swarm.wire.frames import ASK, caller_of
from swarm.wire.link import Link
from swarm.wire.links import open_links
from swarm.wire.messages.ca import GetRootCertificate
from swarm.wire.messages.control import GetToken, ListNodes

TIMEOUT_S = 10.0
FORBIDDEN: tuple[Request[Any], ...] = (GetToken(Role.MANAGER), ListNodes(), ListNodes(stale=True))


class _Deaf:
    """An intruder answers nothing."""

    def handle(self, incoming: Incoming) -> None:
        """Refuse."""
        incoming.fail(SwarmError(ErrorCode.DENIED, "nothing is answered here"))


async def intruder(world: World) -> None:
    """All that is forbidden, sent by a worker and by nobody, to both managers, in their own names and in a manager's."""
    await world.boot(managers=2, workers=1)
    worker, leader = world.nodes["w1"], world.leader
    assert worker.ports is not None and leader is not None
    async with worker.ports.open_net() as net:
        credentials = worker.actor("node/node")._node.credentials
        net.set_credentials(credentials)
        await _try_all(world, net, leader.node_id)
    await world.converge(60)


async def _try_all(world: World, net: NodeNet, manager_id: str) -> None:
    entropy = SeededEntropy(f"intruder {world.seed}")
    cluster = world.checkers.store.cluster
    assert cluster is not None
    manager = Peer(PeerRole.MANAGER, manager_id, cluster.id)
    async with open_links(net, _Deaf(), clock=SimClock(), entropy=entropy) as links:
        for name in ("m1", "m2"):
            for anonymous in (False, True):
                address = world.nodes[name].machine.address
                link = await links.dial(address, anonymous=anonymous, timeout_s=TIMEOUT_S)
                await link.ref("ca").ask(GetRootCertificate(), timeout_s=TIMEOUT_S)
                for request in FORBIDDEN:
                    await _must_fail(world, f"{request} to {name}", _own(link, request))
                    await _must_fail(world, f"{request} to {name} in another's name", _for(link, request, manager))
                link.close("done")


def _own(link: Link, request: Request[Any]) -> Callable[[], Awaitable[object]]:
    async def ask() -> object:
        return await link.ref(declaration(request).to).ask(request, timeout_s=TIMEOUT_S)

    return ask


def _for(link: Link, request: Request[Any], other: Peer) -> Callable[[], Awaitable[object]]:
    async def ask() -> object:
        declared = declaration(request)
        connection = link.connection(declared.lane)
        body, caller = encode_message(declared, request), caller_of(other, "m1:1")
        return await connection.answer_to(ASK, declared.tag, body, time_left_s=TIMEOUT_S, caller=caller)

    return ask


async def _must_fail(world: World, what: str, ask: Callable[[], Awaitable[object]]) -> None:
    try:
        await ask()
    except SwarmError as refusal:
        if refusal.code is not ErrorCode.DENIED:
            world.checkers.fail(f"{what} was refused as {refusal.code.value}: {refusal.text}")
        world.checkers.probe("intruder refused")
        return
    world.checkers.fail(f"{what} was answered")


# --- plants -------------------------------------------------------------------------------------------------------------
def admits_anybody() -> list[tuple[Any, Any, Any]]:
    """Whoever sends a message may."""

    def open_door(declared: Any, direct: Peer, forwarded: Peer | None, *_: object) -> Peer:
        return direct if forwarded is None else forwarded

    return [(router, "authorize", open_door)]


def believes_whoever_forwards() -> list[tuple[Any, Any, Any]]:
    """The one in whose name a message is sent is asked for, whoever sends it."""
    original = router.authorize

    def gullible(declared: Any, direct: Peer, forwarded: Peer | None, cluster_id: str, removed: Any) -> Peer:
        return original(declared, direct if forwarded is None else forwarded, None, cluster_id, removed)

    return [(router, "authorize", gullible)]
