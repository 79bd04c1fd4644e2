"""The log of one member in memory, what of it is durable, and the memberships that it holds.

Three marks move along it: `taken` (handed out to be written), `persisted` (known to be durable) and `commit`.
A suffix may be replaced while its write is under way: every write that is out remembers how much of it still stands, so
that its completion never marks a replaced entry as durable. Never touches a disk and never replaces a committed entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from swarm.raft.codec import decode_membership
from swarm.raft.errors import InvariantBroken
from swarm.raft.messages import Entry, EntryKind, Index, Membership, SnapshotMeta, Term


class Log:
    """Entries after `base_index`, in order and without a gap."""

    def __init__(self, snapshot: SnapshotMeta, entries: Sequence[Entry], commit: Index) -> None:
        self.snapshot = snapshot
        """The newest snapshot that is durable: what a follower is sent that needs compacted entries."""
        self.base_index, self.base_term = snapshot.index, snapshot.term
        """The last compacted entry. Never beyond `snapshot.index`, so that snapshot and log join without a gap."""
        self._entries: list[Entry] = []
        self.last_index: Index = self.base_index
        """The last entry, the base when there is none."""
        self._memberships: list[tuple[Index, Membership]] = [(snapshot.index, snapshot.membership)]
        self.voters = snapshot.membership.voters
        """The voters of the membership in force, kept because every acknowledgement asks for them."""
        self.size_bytes = 0
        """Data bytes of the entries in memory."""
        self._load(entries)
        self.commit = max(commit, snapshot.index)
        if self.commit > self.last_index:
            raise InvariantBroken(f"the log ends at {self.last_index} but was committed through {self.commit}")
        self.persisted = self.last_index
        """Everything through here is durable on this member."""
        self._taken = self.last_index
        self._writing: deque[Index] = deque()
        """One mark per write that is out, oldest first: the last index that is durable once it completes."""

    def _load(self, entries: Sequence[Entry]) -> None:
        kept = [entry for entry in entries if entry.index >= self.base_index]
        if not kept:
            return
        if kept[0].index > self.base_index + 1:
            raise InvariantBroken(f"the log begins at {kept[0].index}, the snapshot ends at {self.base_index}")
        if kept[0].index == self.base_index and kept[0].term != self.base_term:
            return  # The snapshot replaced another history; what is left of that one is void.
        if entries[0].index <= self.base_index:
            # The first entry on disk becomes the base: its own predecessor's term is not known any more.
            self.base_index, self.base_term = entries[0].index, entries[0].term
            kept = list(entries[1:])
        for place, entry in enumerate(kept):
            if entry.index != self.base_index + 1 + place:
                raise InvariantBroken(f"the log has {entry.index} where {self.base_index + 1 + place} belongs")
        self.last_index = self.base_index
        self._extend(kept)

    # --- looking ---------------------------------------------------------------------------------------------------
    @property
    def first_index(self) -> Index:
        """The first entry that is not compacted."""
        return self.base_index + 1

    @property
    def last_term(self) -> Term:
        """The term of the last entry."""
        return self._entries[-1].term if self._entries else self.base_term

    def term_at(self, index: Index) -> Term | None:
        """The term of the entry at `index`; None when it is compacted or not there yet."""
        place = index - self.base_index - 1
        if 0 <= place < len(self._entries):
            return self._entries[place].term
        return self.base_term if place == -1 else None

    def matches(self, index: Index, term: Term) -> bool:
        """Whether the entry at `index` is there and of `term` (paper 5.3, the consistency check)."""
        return self.term_at(index) == term

    def is_up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Whether a log that ends so is at least as new as this one (paper 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def slice(self, low: Index, high: Index, bytes_max: int, entries_max: int) -> tuple[Entry, ...]:
        """Entries low..high (both included) as far as the limits allow, at least one when there is one."""
        start = low - self.base_index - 1
        if start < 0:
            raise InvariantBroken(f"entry {low} is compacted, the log begins at {self.first_index}")
        found = self._entries[start : min(high - self.base_index, start + entries_max)]
        size = 0
        for count, entry in enumerate(found):
            size += len(entry.data)
            if size > bytes_max and count:
                return tuple(found[:count])
        return tuple(found)

    def last_agreeing(self, index: Index, term: Term) -> tuple[Index, Term]:
        """The largest place at or before `index` whose term is at most `term`: where two logs may still agree.

        Thesis 5.3 (paper): one round skips a whole term of conflicting entries, on either side.
        """
        index = min(index, self.last_index)
        while index > self.base_index and self._entries[index - self.base_index - 1].term > term:
            index -= 1
        return index, self.term_at(index) or 0

    # --- membership ------------------------------------------------------------------------------------------------
    @property
    def membership(self) -> Membership:
        """The membership in force: the last one in the log, committed or not (thesis 4.1)."""
        return self._memberships[-1][1]

    @property
    def membership_index(self) -> Index:
        """Where the membership in force stands."""
        return self._memberships[-1][0]

    def membership_at(self, index: Index) -> Membership:
        """The membership as of `index`, which must not lie before the snapshot."""
        for since, membership in reversed(self._memberships):
            if since <= index:
                return membership
        raise InvariantBroken(f"the membership as of {index} is forgotten, {self._memberships[0][0]} is the first")

    # --- growing ---------------------------------------------------------------------------------------------------
    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow the last one (a leader's own)."""
        self._extend(entries)

    def accept(self, prev_index: Index, entries: Sequence[Entry]) -> Index:
        """Take over a leader's entries that follow `prev_index`, which matches; the last index that now agrees.

        Entries that are there already stay; a conflict removes the old entry and all after it (paper 5.3).
        """
        for place, entry in enumerate(entries):
            if entry.index > self.last_index:
                self._extend(entries[place:])
                break
            if not self.matches(entry.index, entry.term):
                self._truncate(entry.index)
                self._extend(entries[place:])
                break
        return prev_index + len(entries)

    def _extend(self, entries: Sequence[Entry]) -> None:
        self._entries.extend(entries)
        self.last_index += len(entries)
        size = 0
        for entry in entries:
            size += len(entry.data)
            if entry.kind is EntryKind.MEMBERSHIP and entry.index > self._memberships[-1][0]:
                self._memberships.append((entry.index, decode_membership(entry.data)))
                self.voters = self.membership.voters
        self.size_bytes += size

    def _truncate(self, index: Index) -> None:
        if index <= self.commit:
            raise InvariantBroken(f"entry {index} was to be replaced but {self.commit} is committed")
        place = index - self.base_index - 1
        self.size_bytes -= sum(len(entry.data) for entry in self._entries[place:])
        del self._entries[place:]
        self.last_index = index - 1
        while self._memberships[-1][0] >= index:
            self._memberships.pop()
        self.voters = self.membership.voters
        self._taken = min(self._taken, index - 1)
        self.persisted = min(self.persisted, index - 1)
        self._writing = deque(min(mark, index - 1) for mark in self._writing)

    # --- writing ---------------------------------------------------------------------------------------------------
    @property
    def has_untaken(self) -> bool:
        """Whether there is something to write."""
        return self._taken < self.last_index

    def take(self) -> tuple[Entry, ...]:
        """What is to be written next: it replaces everything on disk from its first index on. Opens one write."""
        taken = tuple(self._entries[max(self._taken - self.base_index, 0) :])
        self._taken = self.last_index
        self._writing.append(self._taken)
        return taken

    def written(self) -> None:
        """The oldest open write is durable."""
        self.persisted = max(self.persisted, self._writing.popleft())

    # --- compaction ------------------------------------------------------------------------------------------------
    def restore(self, meta: SnapshotMeta) -> None:
        """Begin anew behind a snapshot that a leader sent; it is durable once the next write is."""
        if meta.index <= self.commit:
            raise InvariantBroken(f"a snapshot of {meta.index} was to replace a log committed through {self.commit}")
        self.snapshot = meta
        self.base_index, self.base_term = meta.index, meta.term
        self._entries.clear()
        self.last_index = meta.index
        self._memberships = [(meta.index, meta.membership)]
        self.voters = meta.membership.voters
        self.size_bytes = 0
        self.commit = self._taken = meta.index
        self.persisted = 0
        self._writing = deque(0 for _ in self._writing)

    def compact(self, through: Index) -> None:
        """Forget the entries through `through`, which must be in a durable snapshot."""
        through = min(through, self.snapshot.index)
        term = self.term_at(through)
        if term is None or through <= self.base_index:
            return
        gone = through - self.base_index
        self.size_bytes -= sum(len(entry.data) for entry in self._entries[:gone])
        del self._entries[:gone]
        self.base_index, self.base_term = through, term
        while len(self._memberships) > 1 and self._memberships[1][0] <= self.snapshot.index:
            self._memberships.pop(0)
