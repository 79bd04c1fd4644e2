"""The wire port of a manager, on a network in memory."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from nodes import open_node

from swarm.actors.listener import EndLinks, GetBoundAddress, Listener
from swarm.ca.identity import Peer, PeerRole
from swarm.ports.net import DialError
from swarm.testing.net import MemoryNetwork


async def test_it_binds_accepts_and_ends_links(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    async with (
        open_node(network, "m1", PeerRole.MANAGER) as manager,
        open_node(network, "w1", PeerRole.WORKER) as worker,
        open_node(network, "m2", PeerRole.MANAGER) as promoted,
    ):
        ref = await manager.scope.start("listener", lambda: Listener(manager.net, "m1:0", manager.links))
        address = await ref.ask(GetBoundAddress(), timeout_s=1)
        assert address.startswith("m1:")
        assert address != "m1:0"
        gone = await worker.links.dial(address, timeout_s=1)
        kept = await promoted.links.dial(address, timeout_s=1)
        ref.offer(EndLinks(("m2",), "its role has changed", keep_role="manager"))
        ref.offer(EndLinks(("w1",), "node w1 was removed"))
        assert await gone.closed() == "node w1 was removed"
        assert kept.is_open
        with pytest.raises(DialError, match="already in use"):
            await manager.scope.start("second", lambda: Listener(manager.net, address, manager.links))
        await manager.scope.stop("test")
        with pytest.raises(DialError):
            await worker.links.dial(address, timeout_s=1)


async def test_a_connection_that_says_nothing_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    async with open_node(network, "m1", PeerRole.MANAGER) as manager:
        await manager.scope.start("listener", lambda: Listener(manager.net, "m1:7", manager.links))
        net: Any = network.net(Peer(PeerRole.WORKER, "w1", manager.peer.cluster_id), "w1")
        transport = await net.dial("m1:7", timeout_s=1)
        assert b"no Hello" in await transport.receive()
        assert manager.links.all == []
