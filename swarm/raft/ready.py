"""What the core asks of the world in one go, and what it shows of itself. Data only; the contract stands in `core.py`."""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from swarm.raft.messages import (
    Entry,
    HardState,
    Index,
    Membership,
    RaftId,
    RaftMessage,
    Snapshot,
    SnapshotMeta,
    Term,
)
from swarm.raft.progress import ProgressState


class Role(Enum):
    """What a member is at the moment (paper 5.1; PRE_CANDIDATE from thesis 9.6)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@frozen
class Leadership:
    """Who leads, as this member sees it."""

    term: Term
    leader: RaftId
    """0 when nobody is known."""
    role: Role
    """This member's own."""


@frozen
class ReadState:
    """An answer to `read_index`: the read is linearizable once everything through `index` is applied here."""

    context: int
    index: Index


@frozen
class ChunkWanted:
    """A chunk of a saved snapshot is to be fetched for `to` and handed to `supply_chunk`."""

    to: RaftId
    meta: SnapshotMeta
    number: int


@frozen
class Ready:
    """Everything that has come up since the last one."""

    number: int
    """Counts up by one."""
    hard_state: HardState | None
    """To be written."""
    snapshot: Snapshot | None
    """To be saved first, replacing log and application state whole; then to be handed to the application."""
    entries: tuple[Entry, ...]
    """To be written; they replace everything in the stored log from `entries[0].index` on."""
    messages: tuple[RaftMessage, ...]
    """May leave at once."""
    messages_after: tuple[RaftMessage, ...]
    """May leave only when this and every earlier Ready is durable."""
    committed: tuple[Entry, ...]
    """To be applied, in order. Durable here already: they need not wait for this Ready's own write."""
    reads: tuple[ReadState, ...]
    reads_failed: tuple[int, ...]
    """Contexts of reads that lost their leader; they may be asked again."""
    chunks_wanted: tuple[ChunkWanted, ...]
    leadership: Leadership | None
    """When it changed."""
    removed: bool
    """This member was taken out: stop, and erase its state."""

    @property
    def must_write(self) -> bool:
        """Whether there is anything to make durable."""
        return self.hard_state is not None or self.snapshot is not None or bool(self.entries)


@frozen
class ProgressView:
    """A member as the leader sees it."""

    match: Index
    next: Index
    state: ProgressState
    active: bool


@frozen
class RaftStatus:
    """A member's state at a glance."""

    raft_id: RaftId
    role: Role
    term: Term
    leader: RaftId
    commit: Index
    applied: Index
    persisted: Index
    first_index: Index
    last_index: Index
    log_bytes: int
    membership: Membership
    progress: dict[RaftId, ProgressView]
    """By raft id, itself included; empty unless it leads."""
    transfer_target: RaftId
    """Whom it hands over to, 0 for nobody."""
    is_changing: bool
    """Whether the membership in force is not committed yet."""
