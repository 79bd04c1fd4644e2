"""What the leader knows of one member: how far it has got, and how much may be sent to it.

PROBE: its log's end is not known; one append at a time. REPLICATE: appends are pipelined, `next` runs ahead of `match`.
SNAPSHOT: it needs entries that are compacted; chunks are sent instead.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from attrs import define, field

from swarm.raft.messages import Index, SnapshotMeta


class ProgressState(Enum):
    """How a member is fed."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@define
class Transfer:
    """A snapshot on its way to a member."""

    meta: SnapshotMeta
    """Which one: pinned, a newer one does not restart the transfer."""
    total: int | None = None
    """Chunks in all; known once the first was supplied."""
    next: int = 0
    """The chunk to send next."""
    acked: int = 0
    """All before it have arrived. `acked <= next`."""
    rewound_at: int | None = None
    """The gap that was already answered by sending again."""
    idle_ticks: int = 0
    """Since `acked` last grew."""


@define
class Progress:
    """One member as its leader sees it. Invariant: `match < next`."""

    next: Index
    """The entry to send next."""
    match: Index = 0
    """Durable there and equal to the leader's log through here; only grows within a term, unless the member's disk lost it."""
    state: ProgressState = ProgressState.PROBE
    inflight: deque[tuple[Index, int]] = field(factory=deque)
    """Appends under way: (last index, bytes), oldest first."""
    inflight_bytes: int = 0
    probing: bool = False
    """PROBE: an append is under way."""
    active: bool = False
    """Heard of since the last quorum check."""
    commit_told: Index = 0
    """The commit index that it was last told."""
    acked_round: int = 0
    """The newest read round that it answered."""
    match_at_heartbeat: Index = 0
    """`match` when it answered the last heartbeat: without growth since, what was sent may be lost."""
    transfer: Transfer | None = None
    """SNAPSHOT: the one that is being sent."""
    round_target: Index = 0
    """Learner: the leader's last index when its present round of catching up began (thesis 4.2.1)."""
    round_started: int = 0
    """Learner: the leader's tick count then."""

    @property
    def is_unknown(self) -> bool:
        """PROBE: whether its log's end has still to be found, even if there is nothing new to send."""
        return self.state is ProgressState.PROBE and self.match < self.next - 1

    def sent(self, last: Index, size_bytes: int) -> None:
        """An append that ends at `last` is under way."""
        if self.state is ProgressState.PROBE:
            self.probing = True
            return
        self.next = last + 1
        self.inflight.append((last, size_bytes))
        self.inflight_bytes += size_bytes

    def acknowledged(self, index: Index) -> bool:
        """It holds everything through `index`; False when that was known."""
        while self.inflight and self.inflight[0][0] <= index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        if self.state is ProgressState.PROBE:
            self.probing = False
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        return True

    def rejected(self, prev_index: Index, retry_at: Index) -> bool:
        """It refused an append after `prev_index`; go on at `retry_at`. False when the refusal is old news."""
        if self.state is ProgressState.SNAPSHOT or prev_index <= self.match:
            return False
        if self.state is ProgressState.PROBE and self.next - 1 != prev_index:
            return False
        self.become_probe()
        self.next = max(min(prev_index, retry_at), self.match + 1)
        return True

    def lost(self, last_index: Index) -> None:
        """Its log ends before what it had acknowledged: it is fed again from there. Old news costs a probe and no more."""
        self.match = last_index
        if self.state is not ProgressState.SNAPSHOT:
            self.become_probe()

    def become_probe(self) -> None:
        """Find out anew where its log ends, from the last place that is certain."""
        self.state = ProgressState.PROBE
        self.transfer = None
        self.probing = False
        self._clear_window()
        self.next = self.match + 1

    def become_replicate(self) -> None:
        """Its log is known to agree through `match`: send without waiting."""
        self.state = ProgressState.REPLICATE
        self.transfer = None
        self._clear_window()
        self.next = self.match + 1

    def become_snapshot(self, meta: SnapshotMeta) -> None:
        """Send it this snapshot."""
        self.state = ProgressState.SNAPSHOT
        self.transfer = Transfer(meta)
        self._clear_window()

    def _clear_window(self) -> None:
        self.inflight.clear()
        self.inflight_bytes = 0
