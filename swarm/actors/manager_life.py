"""What a node's front and its manager scope know of each other, apart from the code of either: a worker loads only this."""

from __future__ import annotations

from collections.abc import Callable

import trio
from attrs import define, field

from swarm.actors.context import ManagerContext
from swarm.actors.raft_messages import Leadership


@define
class ManagerLife:
    """One stay in the manager scope: how others end it, and what it tells while it lasts."""

    waiting: Callable[[str], None] = field(default=lambda text: None)
    """Told what the manager waits for."""
    say: Callable[[str], None] = field(default=lambda text: None)
    """Told what an operator must read."""
    end: trio.Event = field(factory=trio.Event)
    """Set to leave the scope in order."""
    removed: Callable[[], None] = field(default=lambda: None)
    """Told once when the other members have taken this one out."""
    note: str = ""
    """What an operator should know of this stay, in words."""
    context: ManagerContext | None = None
    leadership: Leadership | None = None
    ready: trio.Event = field(factory=trio.Event)
    """Set when this manager knows a leader."""
