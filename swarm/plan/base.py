"""The contract of every planner: a snapshot in, changes out, with nothing hidden.

`actors/control_loop.py` runs any planner: it gathers the dirty keys of each committed batch, calls `plan` with a bounded
slice of them, commits the groups, and calls again. A planner is level-triggered: a new leader marks every key dirty, and
planning one's own committed result gives no changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Generic, Protocol, TypeVar

from attrs import field, frozen

from swarm.model.changes import Group
from swarm.model.events import Event
from swarm.model.ids import Ids, Instant
from swarm.model.snapshot import Snapshot

M = TypeVar("M")


@frozen
class Plan(Generic[M]):
    """What a planner wants done.

    `groups` commit atomically each, in order; a refused group makes its keys dirty again. `memory` replaces the planner's
    memory (it is lost with the leadership: whatever must survive belongs in the store). `wake` maps a key to the instant
    at which it is to be planned again even if nothing changes; it replaces any earlier wake of that key. Keys that were
    planned and are not in `wake` have no wake. `again` names keys whose planning was cut short and must follow at once.
    """

    memory: M
    groups: tuple[Group, ...] = ()
    wake: dict[str, Instant] = field(factory=dict)
    again: tuple[str, ...] = ()


class Planner(Protocol[M]):
    """A subsystem's decisions."""

    name: str
    """Names the planner in traces and as the author of what it changes."""
    slice_keys: int
    """How many keys one call of `plan` gets at the most, so that a turn stays under 10 ms."""

    def start(self, view: Snapshot) -> tuple[M, Iterable[str]]:
        """Memory of a new leader and the keys that it must plan first (usually all of them)."""
        ...

    def dirty(self, event: Event, memory: M) -> Iterable[str]:
        """The keys that this event touches; cheap, no scan of the store."""
        ...

    def plan(self, view: Snapshot, keys: Collection[str], memory: M, now: Instant, ids: Ids) -> Plan[M]:
        """What to change for these keys. Deterministic in its arguments."""
        ...
