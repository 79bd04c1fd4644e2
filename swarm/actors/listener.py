"""The wire port of a manager: takes connections through `ports.net` and makes links of them; their calls go to the router.

It also ends the links of nodes that were removed or whose role has changed: a certificate that says too much is good until
it expires, a link is not.
"""

from __future__ import annotations

from typing import Final

import trio
from attrs import frozen

from swarm.ports.net import DialError, Net, Transport
from swarm.runtime.actor import Actor, on
from swarm.runtime.message import Message, Request
from swarm.runtime.turn import Turn
from swarm.wire.links import Links

PENDING_MAX: Final = 256
"""Connections that have not said Hello; more wait in the network's own queue."""


@frozen
class GetBoundAddress(Request[str]):
    """host:port where the listener answers, port 0 resolved."""


@frozen
class EndLinks(Message):
    """End the links of these nodes that do not have `keep_role` (a `PeerRole` value; empty: all), telling them why."""

    node_ids: tuple[str, ...]
    reason: str
    keep_role: str = ""


class Listener(Actor):
    """Listens on `address` while it lives. A failed start raises `DialError`: port taken, not permitted, no such address."""

    def __init__(self, net: Net, address: str, links: Links) -> None:
        self._net = net
        self._wanted = address
        self._links = links
        self._bound = trio.Event()
        self._failure: DialError | None = None
        self._address = ""
        self._listening: trio.CancelScope
        self._unbound = trio.Event()

    async def started(self) -> None:
        """The port is bound once this returns."""
        self._listening = self.job(self._listen)
        await self._bound.wait()
        if self._failure is not None:
            raise self._failure

    async def stopping(self) -> None:
        """No new links; those that are open are their users' to end."""
        self._listening.cancel()
        await self._unbound.wait()

    @on(GetBoundAddress)
    def bound_address(self, request: GetBoundAddress, turn: Turn[str]) -> str:
        """For port 0, and for what to advertise."""
        return self._address

    @on(EndLinks)
    def end_links(self, message: EndLinks, turn: Turn[None]) -> None:
        """Accepted and dialled ones alike."""
        nodes = frozenset(message.node_ids)
        self._links.close_where(
            lambda link: link.peer.node_id in nodes and link.peer.role.value != message.keep_role, message.reason
        )

    async def _listen(self) -> None:
        try:
            async with self._net.listen(self._wanted) as listener:
                self._address = listener.address
                self._bound.set()
                slots = trio.Semaphore(PENDING_MAX)
                while True:
                    await slots.acquire()
                    self.job(self._accept, await listener.accept(), slots)
        except DialError as error:
            self._failure = error
        finally:
            self._bound.set()
            self._unbound.set()

    async def _accept(self, transport: Transport, slots: trio.Semaphore) -> None:
        try:
            await self._links.accept(transport)
        finally:
            slots.release()
