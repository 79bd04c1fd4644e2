"""What a committed batch did, in order: the input of every planner and of every watcher."""

from __future__ import annotations

from attrs import frozen

from swarm.model.changes import Kind
from swarm.model.objects import StoreObject


@frozen(weakref_slot=False)
class Event:
    """One object before and after: `before` is None for a creation, `after` for a deletion."""

    kind: Kind
    before: StoreObject | None
    after: StoreObject | None

    @property
    def object(self) -> StoreObject:
        """The newest known form of the object."""
        found = self.after if self.after is not None else self.before
        assert found is not None, "an event has at least one side"
        return found
