"""Snapshots: chunks that are lost, repeated or of another sender; installation; compaction and who it waits for.

Paper 7 and figure 13, thesis 5.1 (what a snapshot stands for, when it is installed, what is kept behind it) and 5.3 (one is made
while the log goes on). Numbered chunks with a window of their own are this implementation's.
"""

from __future__ import annotations

import pytest
from raft_lab import CONFIG, Lab, append, entry, only
from raft_net import member

from swarm.raft.errors import InvariantBroken
from swarm.raft.messages import (
    Append,
    AppendReply,
    Membership,
    Removed,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
)
from swarm.raft.progress import ProgressState

THREE = Membership((member(1), member(2), member(3)))
META = SnapshotMeta(10, 2, THREE)
CHUNKS = [b"a", b"b", b"c", b"d"]


def chunk(number: int, meta: SnapshotMeta = META, sender: int = 2, total: int = 4) -> SnapshotChunk:
    return SnapshotChunk(1, sender, 2, meta, number, total, CHUNKS[number])


def reply(next_number: int, **more: bool) -> SnapshotReply:
    return SnapshotReply(2, 1, 2, 10, next_number, **more)


def compacted_leader(config: object = CONFIG) -> Lab:
    """A leader whose log begins at 8, with a follower 3 that has nothing of it."""
    lab = Lab(entries=[entry(index, 1) for index in range(2, 8)], config=config)  # type: ignore[arg-type]
    lab.become_leader()
    lab.acknowledge(2)
    meta = lab.raft.describe_snapshot(7)
    assert meta is not None and meta.membership == THREE
    lab.raft._state.progress[3].active = False
    assert lab.raft.snapshot_taken(meta, kept_entries=0) == 7
    lab.beat_back(3)
    lab.step(AppendReply(1, 3, 2, 7, True, 1, 1))
    return lab


def supply(lab: Lab, total: int = 4) -> list[SnapshotChunk]:
    """Hand over what was asked for; the chunks that leave."""
    wanted = [one for ready in lab.taken for one in ready.chunks_wanted]
    for ready in lab.taken:
        object.__setattr__(ready, "chunks_wanted", ())
    for one in wanted:
        lab.raft.supply_chunk(one, total, CHUNKS[one.number])
    return only(lab.out(), SnapshotChunk)


# --- receiving -------------------------------------------------------------------------------------------------------
def test_chunks_in_order_make_a_snapshot_that_is_acknowledged_once_durable() -> None:
    lab = Lab()
    for number in range(3):
        assert lab.step(chunk(number)) == [reply(number + 1)]
    lab.disk_works = False
    assert lab.step(chunk(3)) == []
    ready = lab.readies[-1]
    assert ready.snapshot is not None and ready.snapshot.chunks == (b"a", b"b", b"c", b"d")
    assert ready.must_write and ready.hard_state is not None and ready.hard_state.commit == 10
    assert lab.flush() == [reply(4, installed=True)]
    assert (lab.raft.first_index, lab.raft.last_index, lab.raft.handed) == (11, 10, 10)
    assert lab.raft.membership == THREE


def test_a_lost_chunk_is_asked_for_and_a_repeated_one_is_counted_once() -> None:
    lab = Lab()
    lab.step(chunk(0))
    assert lab.step(chunk(2)) == [reply(1, gap=True)]
    assert lab.step(chunk(0)) == [reply(1)]
    lab.step(chunk(1), chunk(2), chunk(3))
    assert lab.raft.last_index == 10


def test_a_piece_from_the_middle_of_an_unknown_snapshot_is_no_beginning() -> None:
    lab = Lab()
    assert lab.step(chunk(2)) == [reply(0, gap=True)]
    assert lab.step(chunk(0, total=0)) == [reply(0, gap=True)]
    assert lab.step(chunk(0, total=100_000_000)) == [reply(0, gap=True)]


def test_chunks_of_two_senders_are_never_mixed() -> None:
    lab = Lab()
    lab.step(chunk(0), chunk(1))
    again = SnapshotChunk(1, 3, 3, META, 2, 4, b"other")
    assert lab.step(again) == [SnapshotReply(3, 1, 3, 10, 0, gap=True)]


def test_a_snapshot_of_what_is_committed_already_is_not_installed() -> None:
    lab = Lab(entries=[entry(index, 2) for index in range(2, 12)], term=2, commit=10)
    assert lab.step(chunk(0)) == [reply(4, installed=True)]
    assert lab.raft.last_index == 11
    assert not any(ready.snapshot for ready in lab.taken)


def test_7_a_log_that_holds_the_snapshots_last_entry_keeps_what_follows() -> None:
    """Paper section 7: entries covered are committed, entries after it are retained."""
    lab = Lab(entries=[entry(index, 2) for index in range(2, 13)], term=2)
    lab.step(*[chunk(number) for number in range(4)])
    assert (lab.raft.last_index, lab.raft.status.commit) == (12, 10)
    assert not any(ready.snapshot for ready in lab.taken)


def test_7_a_log_that_conflicts_with_the_snapshot_is_dropped_whole() -> None:
    lab = Lab(entries=[entry(index, 1) for index in range(2, 13)], term=2)
    lab.disk_works = False
    lab.step(append(2, 2, 12, 1, entry(13, 2)))
    lab.step(*[chunk(number) for number in range(4)])
    assert lab.raft.last_index == 10
    lab.flush(1)
    assert lab.raft.status.persisted == 0, "what the earlier write made durable is void"
    lab.flush()
    assert lab.raft.status.persisted == 10
    assert lab.step(append(2, 2, 10, 2, entry(11, 2))) == []
    assert lab.flush() == [AppendReply(2, 1, 2, 11)]


def test_a_half_arrived_snapshot_is_dropped_when_the_entries_came_instead() -> None:
    lab = Lab()
    lab.step(chunk(0))
    entries = [entry(index, 2) for index in range(2, 12)]
    lab.step(append(2, 2, 1, 1, *entries, commit=11))
    assert lab.raft._state.incoming is None


def test_a_snapshot_tells_a_removed_member_so() -> None:
    lab = Lab()
    meta = SnapshotMeta(10, 2, Membership((member(2), member(3)), (1,)))
    lab.step(chunk(0, meta, total=1))
    assert lab.raft.is_removed


# --- sending ---------------------------------------------------------------------------------------------------------
def test_a_follower_that_needs_compacted_entries_gets_the_snapshot_in_a_window() -> None:
    config = CONFIG.__class__(election_ticks=10, heartbeat_ticks=2, snapshot_window=2)
    lab = compacted_leader(config)
    assert lab.raft.status.progress[3].state is ProgressState.SNAPSHOT
    assert lab.raft.sending == {7}
    assert [sent.number for sent in supply(lab)] == [0], "how many there are is not known yet"
    assert [sent.number for sent in supply(lab)] == [1]
    lab.step(SnapshotReply(1, 3, 2, 7, 1))
    assert [sent.number for sent in supply(lab)] == [2]
    lab.step(SnapshotReply(1, 3, 2, 7, 3))
    assert [sent.number for sent in supply(lab)] == [3]
    sent = lab.step(SnapshotReply(1, 3, 2, 7, 4, installed=True))
    assert lab.raft.status.progress[3].state is ProgressState.REPLICATE
    assert [message.prev_index for message in only(sent, Append) if message.to == 3] == [7]
    assert lab.raft.sending == frozenset()


def test_a_gap_rewinds_once() -> None:
    lab = compacted_leader()
    supply(lab)
    assert [sent.number for sent in supply(lab)] == [1, 2, 3]
    lab.step(SnapshotReply(1, 3, 2, 7, 1))
    lab.step(SnapshotReply(1, 3, 2, 7, 1, gap=True))
    assert [sent.number for sent in supply(lab)] == [1, 2, 3]
    lab.step(SnapshotReply(1, 3, 2, 7, 1, gap=True), SnapshotReply(1, 3, 2, 7, 1))
    assert supply(lab) == []


def test_a_transfer_that_stands_still_goes_on_where_it_stopped() -> None:
    lab = compacted_leader()
    supply(lab)
    supply(lab)
    lab.step(SnapshotReply(1, 3, 2, 7, 2))
    for _ in range(10):
        lab.beat_back(2, 3)
        lab.tick()
    assert [sent.number for sent in supply(lab)] == [2, 3]


def test_a_silent_follower_is_not_sent_a_snapshot_until_it_answers() -> None:
    lab = compacted_leader()
    lab.tick(10)
    for _ in range(10):
        lab.beat_back(2)
        lab.tick()
    assert lab.raft.status.progress[3].state is ProgressState.PROBE
    lab.taken.clear()
    lab.beat_back(3)
    assert [one.to for ready in lab.taken for one in ready.chunks_wanted] == [3]


def test_a_chunk_that_cannot_be_had_starts_over_with_the_newest_snapshot() -> None:
    lab = compacted_leader()
    wanted = lab.taken[-1].chunks_wanted[0]
    lab.raft.report_snapshot(3, ok=True)
    lab.raft.report_snapshot(9, ok=False)
    assert lab.raft.sending == {7}
    lab.raft.propose(b"x")
    lab.out()
    lab.acknowledge(2)
    newer = lab.raft.describe_snapshot(9)
    assert newer is not None
    lab.raft.snapshot_taken(newer, kept_entries=0)
    assert lab.raft.sending == {7}, "a newer snapshot does not restart a transfer"
    lab.raft.report_snapshot(3, ok=False)
    lab.out()
    assert lab.raft.sending == {9}
    lab.raft.supply_chunk(wanted, 4, b"a")
    assert only(lab.out(), SnapshotChunk) == [], "the old one is not wanted any more"


def test_answers_to_another_snapshot_are_dropped() -> None:
    lab = compacted_leader()
    supply(lab)
    before = lab.raft._state.progress[3].transfer
    lab.step(SnapshotReply(1, 3, 2, 5, 4, installed=True), SnapshotReply(1, 2, 2, 7, 1))
    assert lab.raft._state.progress[3].transfer is before
    assert lab.raft.status.progress[3].match == 0


def test_entries_that_arrive_after_all_end_the_transfer() -> None:
    lab = compacted_leader()
    lab.acknowledge(3)
    assert lab.raft.status.progress[3].state is ProgressState.REPLICATE


# --- compaction ------------------------------------------------------------------------------------------------------
def test_compaction_keeps_entries_for_slow_followers() -> None:
    lab = Lab(entries=[entry(index, 1) for index in range(2, 101)])
    lab.become_leader()
    lab.settle()
    lab.out()
    meta = lab.raft.describe_snapshot(101)
    assert meta is not None
    assert lab.raft.snapshot_taken(meta, kept_entries=20) == 81
    assert lab.raft.first_index == 82
    assert lab.raft.snapshot_index == 101
    assert lab.raft.describe_snapshot(101) is None
    assert lab.raft.snapshot_taken(meta, kept_entries=50) == 81, "never back"


@pytest.mark.parametrize(("hold", "first"), [(1000, 11), (30, 72)])
def test_compaction_waits_for_live_followers_but_not_for_ever(hold: int, first: int) -> None:
    config = CONFIG.__class__(election_ticks=10, heartbeat_ticks=2, compaction_hold_entries=hold)
    lab = Lab(entries=[entry(index, 1) for index in range(2, 101)], config=config)
    lab.become_leader()
    lab.acknowledge(2)
    lab.acknowledge(3, index=10)
    meta = lab.raft.describe_snapshot(101)
    assert meta is not None
    lab.raft.snapshot_taken(meta, kept_entries=0)
    assert lab.raft.first_index == first


def test_compaction_waits_for_nobody_when_the_log_is_too_large_for_memory() -> None:
    config = CONFIG.__class__(election_ticks=10, heartbeat_ticks=2, compaction_hold_bytes=50)
    lab = Lab(entries=[entry(index, 1) for index in range(2, 101)], config=config)
    lab.become_leader()
    lab.acknowledge(2)
    lab.acknowledge(3, index=10)
    meta = lab.raft.describe_snapshot(101)
    assert meta is not None
    lab.raft.snapshot_taken(meta, kept_entries=0)
    assert lab.raft.first_index == 102
    assert lab.raft.log_bytes == 0


def test_a_newer_snapshot_from_the_leader_makes_an_own_one_needless() -> None:
    lab = Lab(entries=[entry(2, 1)], commit=2)
    lab.out()
    lab.step(*[chunk(number) for number in range(4)])
    assert lab.raft.describe_snapshot(2) is None
    lab.raft.snapshot_taken(SnapshotMeta(2, 1, THREE), kept_entries=0)
    assert lab.raft.snapshot_index == 10


def test_a_removed_member_that_is_far_behind_is_told() -> None:
    lab = compacted_leader()
    lab.raft._state.log.snapshot = SnapshotMeta(7, 1, Membership((member(1), member(2)), (3,)))
    lab.raft._state.log._memberships = [(7, Membership((member(1), member(2)), (3,)))]
    assert only(lab.beat_back(3), Removed)


def test_entries_that_are_gone_cannot_be_handed_over_again() -> None:
    lab = compacted_leader()
    with pytest.raises(InvariantBroken, match="compacted"):
        lab.raft.handed_over(2, 7)
    assert [found.index for found in lab.raft.handed_over(8, 8)] == [8]
