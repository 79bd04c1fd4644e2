"""Scopes: actors that start together, stop together, and are all gone when the scope is left.

A scope is a nursery with an order. Children (actors and inner scopes) start left to right and stop right to left, each within
its own time; a cancel has a reason and no grace. An actor that crashes for good ends its scope, and leaving raises that.
No other module may shield anything from cancellation.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import trio

from swarm.runtime.actor import Actor
from swarm.runtime.context import InJob, InTurn, asker
from swarm.runtime.errors import ActorDied, ActorFailed, ScopeEnded, WouldDeadlock
from swarm.runtime.local import Cell, LocalRef
from swarm.runtime.supervise import Restart, Supervisor
from swarm.runtime.trace import Trace

DEFAULT_RESTART = Restart()
LOG = logging.getLogger("swarm.runtime")


def open_scope(
    name: str, *, log: logging.Logger = LOG, trace: Trace | None = None
) -> AbstractAsyncContextManager[Scope]:
    """An outermost scope for as long as the context lasts.

    Leaving the context stops all in it in order first. Raises `ActorFailed` when an actor was given up.
    """
    return _run(Scope(name, None, log, trace))


class Scope:
    """Children in the order of their start. Made by `open_scope` and `Scope.open` only."""

    def __init__(self, name: str, parent: Scope | None, log: logging.Logger, trace: Trace | None) -> None:
        self.name = name
        self.path: str = name if parent is None else f"{parent.path}/{name}"
        self.reason = ""
        """Why it stops or was cancelled; empty while it lives."""
        self._parent = parent
        self._log = log
        self._trace = trace
        self._children: dict[str, Child] = {}
        self._body = trio.CancelScope()
        self._owner = trio.lowlevel.current_task()
        self._nursery: trio.Nursery
        self._ended = trio.Event()
        self._failure: ActorFailed | None = None

    def __repr__(self) -> str:
        return f"<Scope {self.path}>"

    @property
    def children(self) -> tuple[str, ...]:
        """Names of the living children in the order of their start."""
        return tuple(self._children)

    def open(self, name: str) -> AbstractAsyncContextManager[Scope]:
        """An inner scope for as long as the context lasts; it is stopped before everything that started earlier here."""
        self._check_free(name)
        return _run(Scope(name, self, self._log, self._trace))

    async def start(self, name: str, factory: Callable[[], Actor], *, restart: Restart = DEFAULT_RESTART) -> LocalRef:
        """Start an actor and return once its `started` has; what the factory or `started` raises is raised here."""
        self._check_free(name)
        actor = factory()
        cell = Cell(f"{self.path}/{name}", name, actor.mailbox_capacity, actor.shutdown_s, actor.handlers)
        supervisor = Supervisor(cell, self, factory, restart, self._log, self._trace)
        self._children[name] = cell
        self._nursery.start_soon(supervisor.run, actor, name=cell.path)
        try:
            await cell.start_settled.wait()
        finally:
            if not cell.start_settled.is_set():
                cell.cancel_scope.cancel()
        if supervisor.start_error is not None:
            raise supervisor.start_error
        if not cell.alive:
            raise ActorDied(f"actor {cell.path} was ended while it started: {cell.stop_reason or self.reason}")
        return cell.ref

    async def end(self, ref: LocalRef, reason: str) -> None:
        """Stop one actor of this scope in order; returns when it is gone. Gone already is success."""
        cell = ref._cell
        self._check_outside(cell)
        cell.request_stop(reason)
        await cell.ended.wait()

    async def stop(self, reason: str) -> None:
        """Stop all in order; returns when all have ended. The scope's context is left as well, unless this is its task."""
        if trio.lowlevel.current_task() is self._owner:
            self._begin_stop(reason)
            await self._stop_children()
            return
        self._check_outside(None)
        self.request_stop(reason)
        await self._ended.wait()

    def request_stop(self, reason: str) -> None:
        """Have all of it stopped in order, without waiting: for callers that live in the scope themselves."""
        self._begin_stop(reason)
        self._body.cancel(reason)

    def cancel(self, reason: str) -> None:
        """End all of it now; nothing in it gets to run `stopping`."""
        self._begin_stop(reason)
        for child in self._children.values():
            if isinstance(child, Scope):
                child.cancel(reason)
        self._nursery.cancel_scope.cancel(reason)

    def fail(self, failure: ActorFailed) -> None:
        """An actor of the scope was given up: stop the others in order, then raise `failure` out of the context."""
        if self._failure is None:
            self._failure = failure
        self.request_stop(str(failure))

    def forget(self, child: Child) -> None:
        """A child has ended."""
        if self._children.get(child.name) is child:
            del self._children[child.name]

    def _begin_stop(self, reason: str) -> None:
        self.reason = self.reason or reason

    def _check_free(self, name: str) -> None:
        if self.reason:
            raise ScopeEnded(self.path, self.reason)
        if name in self._children:
            raise ValueError(f"scope {self.path} has a {name!r} already")

    def _check_outside(self, cell: Cell | None) -> None:
        """Refuse to let an actor wait for its own end."""
        context = asker.get()
        if not isinstance(context, InTurn | InJob):
            return
        own = context.cell
        if cell is own or (cell is None and f"{own.path}/".startswith(f"{self.path}/") and not own.ended.is_set()):
            raise WouldDeadlock(f"{own.path} would wait for its own end; use request_stop or finish")

    async def _stop_children(self) -> None:
        """Right to left, one after the other. Cancelled midway, it can be called again."""
        while self._children:
            child = next(reversed(self._children.values()))
            if isinstance(child, Scope):
                child.request_stop(self.reason)
                await child._ended.wait()
            else:
                child.request_stop(self.reason)
                await child.ended.wait()

    async def _gone(self) -> None:
        """All tasks have ended. Inner scopes that were opened by tasks of other nurseries are waited for, come what may."""
        self._begin_stop("its surroundings were cancelled")
        inner = [child for child in self._children.values() if isinstance(child, Scope)]
        for scope in inner:
            scope.cancel(self.reason)
        with trio.CancelScope(shield=True):
            for scope in inner:
                await scope._ended.wait()
        if self._parent is not None:
            self._parent.forget(self)
        self._ended.set()


Child: TypeAlias = Cell | Scope


@asynccontextmanager
async def _run(scope: Scope) -> AsyncIterator[Scope]:
    scope._owner = trio.lowlevel.current_task()
    body_error: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            scope._nursery = nursery
            if scope._parent is not None:
                scope._parent._children[scope.name] = scope
            with scope._body:
                # the scope is its body's supervisor: it stops in order, then raises what the body raised
                try:
                    try:
                        yield scope
                    except Exception as error:
                        body_error = error
                except* Exception as group:
                    body_error = group
            scope._begin_stop(
                "its work is done" if body_error is None else f"{type(body_error).__name__}: {body_error}"
            )
            await scope._stop_children()
    finally:
        await scope._gone()
    if scope._failure is not None:
        raise scope._failure from scope._failure.__cause__
    if body_error is not None:
        raise body_error
