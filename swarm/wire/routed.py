"""Refs for callers on this very node: an actor here, or the leader's for what only the leader answers.

So an agent on a manager, a planner or the local control code need not know where the leader is. Each call finds its way
anew, as leadership moves. The caller counts as this node and is authorized as over a link.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import trio

from swarm.runtime.errors import AskTimeout, SwarmError
from swarm.runtime.local import LocalRef
from swarm.runtime.message import Message, Request, Subscribe
from swarm.runtime.ref import DEFAULT_WINDOW, Caller, Inlet
from swarm.wire.authorize import authorize
from swarm.wire.codec import declaration
from swarm.wire.registry import At, WireMessage
from swarm.wire.remote import RemoteRef

if TYPE_CHECKING:
    from swarm.wire.router import Router

R = TypeVar("R")
T = TypeVar("T")


class RoutedRef:
    """An actor by name, wherever the router finds it."""

    __slots__ = ("_leader", "_router", "name")

    def __init__(self, router: Router, name: str) -> None:
        self.name = name
        self._router = router
        self._leader: RemoteRef | None = None
        """Where the last call went, for offers, which cannot wait for a link."""

    def __repr__(self) -> str:
        return f"<Ref {self.name} by the router>"

    def offer(self, message: Message) -> bool:
        """Never waits; False when it could not be queued, or the way to the leader is not known yet."""
        declared = self._declared(message)
        try:
            if self._is_here(declared):
                return self._router.actor(declared).offer(message, caller=self._caller(declared))
        except SwarmError:
            return False
        return self._leader is not None and self._leader.offer(message)

    async def tell(self, message: Message) -> None:
        """Waits for room in the mailbox, here or there."""
        declared = self._declared(message)
        target = await self._target(declared)
        if isinstance(target, LocalRef):
            await target.tell(message, caller=self._caller(declared))
        else:
            await target.tell(message)

    async def ask(self, request: Request[R], *, timeout_s: float) -> R:
        """The answer; see `Ref.ask`. NOT_LEADER or UNAVAILABLE when there is no way to the leader."""
        declared = self._declared(request)
        deadline = trio.current_time() + timeout_s
        if self._is_here(declared):
            actor = self._router.actor(declared)
            return await actor.ask(request, timeout_s=timeout_s, caller=self._caller(declared))
        with trio.CancelScope(deadline=deadline):
            leader = await self._to_leader(declared)
            return await leader.ask(request, timeout_s=deadline - trio.current_time())
        raise AskTimeout(f"no way to the leader was found in time ({timeout_s:g} s)")

    def stream(self, request: Subscribe[T], *, window: int = DEFAULT_WINDOW) -> AbstractAsyncContextManager[Inlet[T]]:
        """A stream for as long as the context lasts; it fails when leadership moves away."""
        return self._stream(self._declared(request), request, window)

    @asynccontextmanager
    async def _stream(self, declared: WireMessage, request: Subscribe[T], window: int) -> AsyncIterator[Inlet[T]]:
        target = await self._target(declared)
        if isinstance(target, LocalRef):
            async with target.stream(request, window=window, caller=self._caller(declared)) as inlet:
                yield inlet
        else:
            async with target.stream(request, window=window) as inlet:
                yield inlet

    async def _target(self, declared: WireMessage) -> LocalRef | RemoteRef:
        return self._router.actor(declared) if self._is_here(declared) else await self._to_leader(declared)

    async def _to_leader(self, declared: WireMessage) -> RemoteRef:
        link = await self._router.leader_link(declared)
        self._leader = link.ref(self.name)
        return self._leader

    def _is_here(self, declared: WireMessage) -> bool:
        return declared.at is not At.LEADER or self._router.leading

    def _caller(self, declared: WireMessage) -> Caller:
        me = self._router.me
        peer = authorize(declared, me, None, me.cluster_id, self._router.removed)
        return Caller(peer.node_id, peer.role.value, peer.cluster_id)

    def _declared(self, message: object) -> WireMessage:
        declared = declaration(message)
        if declared.to != self.name:
            raise TypeError(f"{declared.tag} is for the actor {declared.to!r}, not for {self.name!r}")
        return declared
