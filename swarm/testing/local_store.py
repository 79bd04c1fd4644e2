"""A store actor without Raft: commits what it is asked to at once. For tests of whatever proposes and watches."""

from __future__ import annotations

from attrs import frozen

from swarm.actors.store_messages import Committed, ProposeChanges, ReadBarrier, WatchStore
from swarm.model.changes import Change, Group, GroupResult
from swarm.model.events import Event
from swarm.model.ids import Version
from swarm.model.snapshot import Snapshot
from swarm.model.store import Store
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.message import Request
from swarm.runtime.ref import Sink
from swarm.runtime.turn import Later, StreamTurn, Turn


@frozen
class HoldProposals(Request[None]):
    """From now on proposals wait (`held`), or those that wait are committed and later ones are not held."""

    held: bool


@frozen
class RefuseProposals(Request[None]):
    """From now on every proposal fails with this error; None: no longer."""

    error: SwarmError | None


@frozen
class Replay(Request[GroupResult]):
    """Commit one group as if another author had proposed it: neither held nor recorded."""

    changes: tuple[Change, ...]


class LocalStoreActor(Actor):
    """Answers `actors/store_messages.py` over one `Store`. `proposals` records what was committed, for tests to look at."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.proposals: list[tuple[Group, ...]] = []
        self._watchers: list[Sink[Committed]] = []
        self._held: list[tuple[ProposeChanges, Later[tuple[GroupResult, ...]]]] | None = None
        self._error: SwarmError | None = None

    @on(ProposeChanges)
    def propose(self, request: ProposeChanges, turn: Turn[tuple[GroupResult, ...]]) -> tuple[GroupResult, ...] | None:
        """Apply, or keep while proposals are held."""
        if self._error is not None:
            raise SwarmError(self._error.code, self._error.text)
        if self._held is None:
            return self._commit(request.groups)
        self._held.append((request, turn.defer()))
        return None

    @on(HoldProposals)
    def hold(self, request: HoldProposals, _turn: Turn[None]) -> None:
        """Begin or end to hold."""
        held, self._held = self._held or [], [] if request.held else None
        for proposal, later in held:
            later.answer(self._commit(proposal.groups))

    @on(RefuseProposals)
    def refuse(self, request: RefuseProposals, _turn: Turn[None]) -> None:
        """Begin or end to refuse."""
        self._error = request.error

    @on(Replay)
    def replay(self, request: Replay, _turn: Turn[GroupResult]) -> GroupResult:
        """Apply and tell the watchers."""
        (result,) = self._apply((request.changes,))
        return result

    def fail_watchers(self, error: SwarmError) -> None:
        """End every watch that is open now."""
        for sink in self._watchers:
            sink.fail(error)

    @on(WatchStore)
    def watch(self, _request: WatchStore, turn: StreamTurn[Committed]) -> None:
        """Now, then each batch."""
        turn.sink.offer(Committed(self.store, (), self.store.version))
        self._watchers.append(turn.sink)

    @on(ReadBarrier)
    def read(self, _request: ReadBarrier, _turn: Turn[Snapshot]) -> Snapshot:
        """The store itself."""
        return self.store

    def _commit(self, groups: tuple[Group, ...]) -> tuple[GroupResult, ...]:
        self.proposals.append(groups)
        return self._apply(groups)

    def _apply(self, groups: tuple[Group, ...]) -> tuple[GroupResult, ...]:
        index = Version(self.store.version + 1)
        results, events = self.store.apply(groups, index)
        self._tell(tuple(events), index)
        return tuple(results)

    def _tell(self, events: tuple[Event, ...], index: Version) -> None:
        self._watchers = [sink for sink in self._watchers if not sink.closed]
        for sink in self._watchers:
            if not sink.offer(Committed(self.store, events, index)):
                sink.fail(SwarmError(ErrorCode.OVERRUN, "the watcher was too slow; watch anew"))
