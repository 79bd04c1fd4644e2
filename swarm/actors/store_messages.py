"""What the other actors of a manager ask of its store actor. Data only; `actors/store.py` is the one that answers.

These never leave the node: they carry live views and whole objects.
"""

from __future__ import annotations

from attrs import frozen

from swarm.model.changes import Group, GroupResult
from swarm.model.events import Event
from swarm.model.ids import Version
from swarm.model.snapshot import Snapshot
from swarm.runtime.message import Request, Subscribe


@frozen
class ProposeChanges(Request[tuple[GroupResult, ...]]):
    """Commit these groups; answered, one result a group in order, when they are applied here.

    `term` fences the author: another term than the leader's present one refuses all (None: whatever the term is).
    NOT_LEADER: nothing was proposed. UNAVAILABLE: leadership was lost meanwhile, the outcome is not known.
    """

    groups: tuple[Group, ...]
    term: int | None = None


@frozen
class Committed:
    """One applied batch: the view after it, what it did in order, and the Raft index of its last entry.

    The view is live: after the next `await` it may have moved on (never back).
    """

    snapshot: Snapshot
    events: tuple[Event, ...]
    index: Version


@frozen
class WatchStore(Subscribe[Committed]):
    """The store as it is now (a `Committed` without events), then every applied batch, without a gap.

    Fails with OVERRUN when the watcher was slower than its window, or when the store was replaced by a snapshot;
    the watcher subscribes anew and starts from what it then sees.
    """


@frozen
class ReadBarrier(Request[Snapshot]):
    """A linearizable view: everything that was committed before this was asked is in it.

    UNAVAILABLE: no leader with a quorum answers.
    """
