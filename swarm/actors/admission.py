"""The actor `admission`, on each manager: who was removed or demoted is turned away, and its links end at once.

One idea: authorization reads a certificate, which outlives a decision of the operators by months; the store knows better. It
follows the store of its own manager, keeps the router's list of the removed, and ends the links that the news concerns.
"""

from __future__ import annotations

import logging

import trio

from swarm.actors.listener import EndLinks
from swarm.actors.store_messages import Committed, WatchStore
from swarm.ca.identity import PeerRole
from swarm.model.objects import Node
from swarm.model.states import Role
from swarm.runtime.actor import Actor
from swarm.runtime.errors import SwarmError
from swarm.runtime.ref import Ref
from swarm.wire.router import Router

log = logging.getLogger(__name__)

WATCH_WINDOW = 64
RETRY_S = 0.1
FAREWELL_S = 1.0
"""Before links end: answers that are under way, and Raft's word that it is out, still get there."""


class Admission(Actor):
    """`listener` ends links, `router` refuses what the removed send."""

    def __init__(self, store: Ref, listener: Ref, router: Router) -> None:
        self._store = store
        self._listener = listener
        self._router = router

    async def started(self) -> None:
        """Begin to follow."""
        self.job(self._follow, name="follow")

    async def _follow(self) -> None:
        while True:
            try:
                async with self._store.stream(WatchStore(), window=WATCH_WINDOW) as inlet:
                    async for committed in inlet:
                        self._heed(committed)
            except SwarmError as error:
                log.debug("admission: watching anew: %s", error.text)
            await trio.sleep(RETRY_S)

    def _heed(self, committed: Committed) -> None:
        view = committed.snapshot
        if view.cluster is not None:
            self._router.removed = view.cluster.removed_nodes
        gone: list[str] = []
        demoted: list[str] = []
        for event in committed.events:
            before = event.before
            if not isinstance(before, Node):
                continue
            now = view.node(before.id)
            if now is None:
                gone.append(before.id)
            elif before.role is Role.MANAGER and now.role is Role.WORKER:
                demoted.append(before.id)
        if gone:
            self.job(self._end, EndLinks(tuple(gone), "this node was removed from the cluster"))
        if demoted:
            self.job(self._end, EndLinks(tuple(demoted), "this node is a worker now", PeerRole.WORKER.value))

    async def _end(self, links: EndLinks) -> None:
        await trio.sleep(FAREWELL_S)
        await self._listener.tell(links)
