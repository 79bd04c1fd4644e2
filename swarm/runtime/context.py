"""On whose behalf the running task asks: the chain of actors that wait for its answer, and until when they do.

One context variable, set once per task and not per turn. The chain holds the paths of actors whose turn is blocked; an ask
to one of them could never be answered. Between nodes the chain travels with paths qualified by the node's id.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from attrs import frozen

if TYPE_CHECKING:
    from swarm.runtime.local import Cell
    from swarm.runtime.turn import Call

Chain: TypeAlias = tuple[str, ...]
"""Paths of the actors whose turns wait for this call, first asker first."""

NO_CHAIN: Chain = ()
INFINITY = float("inf")


@frozen
class InTurn:
    """The task of an actor's turns."""

    cell: Cell
    task: trio.lowlevel.Task


@frozen
class InJob:
    """A job, with the call in whose turn it was started (None: no call)."""

    cell: Cell
    call: Call[Any] | None


asker: ContextVar[InTurn | InJob | None] = ContextVar("swarm_asker", default=None)


@frozen
class Asking:
    """What a call made now carries with it."""

    chain: Chain
    deadline: float
    """Nobody waits for the outcome after this `trio.current_time()`."""
    blocked: Cell | None
    """The actor whose turn waits for this call."""


NOBODY = Asking(NO_CHAIN, INFINITY, None)


def asking() -> Asking:
    """The context of a call made by the running task."""
    context = asker.get()
    if context is None:
        return NOBODY
    call: Call[Any] | None
    if isinstance(context, InTurn):
        if context.task is not trio.lowlevel.current_task():
            return NOBODY  # started by a turn, outlives it: nobody is known to wait
        cell = context.cell
        call = cell.call
        if call is None:
            return Asking((cell.path,), INFINITY, cell)
        return Asking((*call.chain, cell.path), call.deadline, cell)
    call = context.call
    if call is None or call.done:
        return NOBODY
    return Asking(call.chain, call.deadline, None)


_AT = "@"


def qualify(chain: Sequence[str], node_id: str) -> Chain:
    """The chain as it leaves node `node_id`: this node's own paths get its id."""
    return tuple(path if _AT in path else f"{path}{_AT}{node_id}" for path in chain)


def localize(chain: Sequence[str], node_id: str) -> Chain:
    """The chain as node `node_id` sees it: its own paths lose its id."""
    own = f"{_AT}{node_id}"
    return tuple(path.removesuffix(own) for path in chain)
