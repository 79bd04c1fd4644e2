"""The unix socket of a node: takes connections of this machine's operators and makes links of them, with the caller LOCAL.

What they ask goes through the router as everything else does. Nothing is decided here but who may connect, and that is the
file's mode.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from swarm.ca.identity import PeerRole
from swarm.ports.net import DialError, Transport
from swarm.runtime.actor import Actor
from swarm.wire.links import Links
from swarm.wire.local import LocalListener, open_socket

PENDING_MAX: Final = 64
"""Connections that have not said Hello; more wait in the kernel's backlog."""
ACCEPT_RETRY_S: Final = 0.1


class Gateway(Actor):
    """Serves the socket at `path`, as `listen` opens it, while it lives. A failed start raises `DialError`."""

    def __init__(
        self,
        path: str,
        links: Links,
        listen: Callable[[str], AbstractAsyncContextManager[LocalListener]] = open_socket,
    ) -> None:
        self.path = path
        self._links = links
        self._open = listen
        self._bound = trio.Event()
        self._failure: DialError | None = None
        self._listening: trio.CancelScope
        self._unbound = trio.Event()

    async def started(self) -> None:
        """The socket is there once this returns."""
        self._listening = self.job(self._listen)
        await self._bound.wait()
        if self._failure is not None:
            raise self._failure

    async def stopping(self) -> None:
        """No new connections; those that are open end, their last answers sent."""
        self._listening.cancel()
        await self._unbound.wait()
        ending = [link for link in self._links.all if link.peer.role is PeerRole.LOCAL]
        for link in ending:
            link.close("the daemon is stopping")
        for link in ending:
            await link.closed()

    async def _listen(self) -> None:
        try:
            async with self._open(self.path) as listener:
                self._bound.set()
                slots = trio.Semaphore(PENDING_MAX)
                while True:
                    await slots.acquire()
                    try:
                        transport = await listener.accept()
                    except OSError:  # out of descriptors: what is open must end first
                        slots.release()
                        await trio.sleep(ACCEPT_RETRY_S)
                        continue
                    self.job(self._accept, transport, slots)
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
