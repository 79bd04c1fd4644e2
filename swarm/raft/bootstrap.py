"""How a log begins: a new cluster, and a cluster that goes on with one survivor. Pure; the caller writes the result."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from swarm.raft.codec import decode_membership, encode_membership
from swarm.raft.config import REMOVED_MAX
from swarm.raft.messages import Entry, EntryKind, HardState, Member, Membership, SnapshotMeta


def found_cluster(members: Sequence[Member]) -> tuple[HardState, list[Entry]]:
    """The log of every member of a new cluster: one committed entry that names them."""
    membership = Membership(tuple(sorted(members, key=lambda member: member.raft_id)))
    first = Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(membership))
    return HardState(term=1, commit=1), [first]


@frozen
class Forced:
    """What makes a survivor the only member."""

    hard_state: HardState
    entry: Entry
    """To be appended after the last one; it is committed."""
    lost: tuple[Member, ...]
    """The members that are given up, whose logs could not be asked: what only they hold is lost."""


def force_new_cluster(
    hard_state: HardState, snapshot: SnapshotMeta, entries: Sequence[Entry], survivor: Member
) -> Forced:
    """Go on with `survivor` alone after the quorum is lost for good; the others may never come back.

    Every entry that the survivor holds is kept and becomes committed, the uncommitted tail too: it may have been
    acknowledged by a majority that is gone, while the survivor had not heard of it yet.
    """
    membership = snapshot.membership
    for entry in entries:
        if entry.kind == EntryKind.MEMBERSHIP and entry.index > snapshot.index:
            membership = decode_membership(entry.data)
    lost = tuple(member for member in membership.members if member.raft_id != survivor.raft_id)
    removed = (*membership.removed, *(member.raft_id for member in lost))[-REMOVED_MAX:]
    alone = Membership((evolve(survivor, learner=False),), removed)
    last_index = max(snapshot.index, entries[-1].index if entries else 0)
    term = max(hard_state.term, entries[-1].term if entries else 0, snapshot.term) + 1
    entry = Entry(last_index + 1, term, EntryKind.MEMBERSHIP, encode_membership(alone))
    return Forced(HardState(term, survivor.raft_id, entry.index), entry, lost)
