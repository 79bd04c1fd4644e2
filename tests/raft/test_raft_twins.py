"""Slow obvious twins: quorum arithmetic by counting, the log as a dictionary, the codec by round trip."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft_net import member

from swarm.raft import codec, quorum
from swarm.raft.bootstrap import force_new_cluster, found_cluster
from swarm.raft.codec import BadMessage
from swarm.raft.config import Config
from swarm.raft.errors import InvariantBroken
from swarm.raft.log import Log
from swarm.raft.messages import (
    Append,
    AppendReply,
    Commit,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatReply,
    Member,
    Membership,
    PreVote,
    PreVoteReply,
    RaftMessage,
    ReadReply,
    ReadRequest,
    Removed,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
    TimeoutNow,
    Vote,
    VoteReply,
)

ids = st.sets(st.integers(1, 7), max_size=7)


# --- quorum ----------------------------------------------------------------------------------------------------------
@given(ids, st.dictionaries(st.integers(1, 9), st.integers(0, 6)))
def test_what_a_majority_has_reached_found_by_counting(voters: set[int], acked: dict[int, int]) -> None:
    best = 0
    for number in range(7):
        if voters and 2 * sum(acked.get(voter, 0) >= number for voter in voters) > len(voters):
            best = number
    assert quorum.acknowledged([acked.get(voter, 0) for voter in voters]) == best


@given(ids, st.dictionaries(st.integers(1, 9), st.booleans()))
def test_a_vote_found_by_trying_every_way_the_rest_may_vote(voters: set[int], votes: dict[int, bool]) -> None:
    def wins(all_votes: dict[int, bool]) -> bool:
        return 2 * sum(all_votes[voter] for voter in voters) > len(voters)

    best = {voter: votes.get(voter, True) for voter in voters}
    worst = {voter: votes.get(voter, False) for voter in voters}
    wanted = (
        quorum.VoteResult.WON if wins(worst) else quorum.VoteResult.PENDING if wins(best) else quorum.VoteResult.LOST
    )
    assert quorum.tally(voters, votes) is wanted


@given(ids, ids, st.integers(1, 7))
def test_what_is_left_after_a_removal(voters: set[int], reachable: set[int], target: int) -> None:
    after = quorum.removal(voters, reachable, target)
    rest = {voter for voter in voters if voter != target}
    assert after.keeps_quorum == (2 * len(rest & reachable) > len(rest))
    assert (after.voters, after.reachable) == (len(voters), len(voters & reachable))


@given(ids, ids)
def test_a_majority_is_active(voters: set[int], active: set[int]) -> None:
    assert quorum.is_active(voters, active.__contains__) == (2 * len(voters & active) > len(voters))


# --- the log ---------------------------------------------------------------------------------------------------------
class SlowLog:
    """What a log is: places with terms. Knows nothing of lists, offsets or marks on writes."""

    def __init__(self) -> None:
        self.terms = {0: 0}
        self.disk = {0: 0}
        self.writes: list[dict[int, int]] = []
        self.commit = 0

    @property
    def last(self) -> int:
        return max(self.terms)

    def accept(self, prev: int, terms: list[int]) -> None:
        for place, term in enumerate(terms, prev + 1):
            if self.terms.get(place) != term:
                self.terms = {index: known for index, known in self.terms.items() if index < place}
                self.terms[place] = term

    def take(self) -> None:
        self.writes.append(dict(self.terms))

    def written(self) -> None:
        self.disk = self.writes.pop(0)

    def persisted(self) -> int:
        """Through where disk, every write still under way, and memory agree."""
        index = 0
        while all(index + 1 in one for one in (self.disk, self.terms, *self.writes)) and all(
            one[index + 1] == self.terms[index + 1] for one in (self.disk, *self.writes)
        ):
            index += 1
        return index


steps = st.lists(
    st.tuples(st.sampled_from(["append", "accept", "take", "written", "commit"]), st.integers(0, 6), st.integers(0, 3)),
    max_size=40,
)


@settings(max_examples=300)
@given(steps)
def test_the_log_against_its_twin(script: list[tuple[str, int, int]]) -> None:
    log, twin, term = Log(SnapshotMeta(), [], 0), SlowLog(), 1
    for verb, place, count in script:
        if verb == "append":
            term += place % 2
            entries = [Entry(log.last_index + n, term, EntryKind.NORMAL, b"") for n in range(1, count + 1)]
            twin.accept(twin.last, [term] * count)
            log.append(entries)
        elif verb == "accept":
            term += 1
            prev = max(twin.commit, twin.last - place)
            assert log.matches(prev, twin.terms[prev])
            entries = [Entry(prev + n, term, EntryKind.NORMAL, b"") for n in range(1, count + 1)]
            twin.accept(prev, [term] * count)
            assert log.accept(prev, entries) == prev + count
        elif verb == "take":
            twin.take()
            log.take()
        elif verb == "written" and twin.writes:
            twin.written()
            log.written()
        elif verb == "commit":
            twin.commit = max(twin.commit, min(twin.last, twin.commit + count))
            log.commit = twin.commit
        assert log.last_index == twin.last
        assert [log.term_at(index) for index in range(twin.last + 2)] == [
            *[twin.terms[index] for index in range(twin.last + 1)],
            None,
        ]
        assert log.persisted <= twin.persisted(), "never claims more than is durable and stands"
        if not twin.writes:
            untaken = min((index for index in twin.terms if twin.disk.get(index) != twin.terms[index]), default=None)
            assert log.persisted == (twin.last if untaken is None else untaken - 1)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 14), st.integers(0, 8))
def test_the_last_place_that_may_agree_found_by_looking_at_all(rises: list[int], index: int, term: int) -> None:
    terms, entries = 1, []
    for place, rise in enumerate(rises, 1):
        terms += rise
        entries.append(Entry(place, terms, EntryKind.NORMAL, b""))
    log = Log(SnapshotMeta(), entries, 0)
    wanted = max(
        place for place in range(len(entries) + 1) if place <= index and (place == 0 or entries[place - 1].term <= term)
    )
    assert log.last_agreeing(index, term) == (wanted, log.term_at(wanted))


@given(st.lists(st.integers(0, 30), max_size=10), st.integers(1, 10), st.integers(0, 60), st.integers(1, 10))
def test_slices_are_as_long_as_the_limits_allow_and_never_empty(
    sizes: list[int], low: int, limit: int, count: int
) -> None:
    entries = [Entry(place, 1, EntryKind.NORMAL, b"x" * size) for place, size in enumerate(sizes, 1)]
    log = Log(SnapshotMeta(), entries, 0)
    found = log.slice(low, len(sizes), limit, count)
    wanted = [entry for entry in entries if entry.index >= low][:count]
    while len(wanted) > 1 and sum(len(entry.data) for entry in wanted) > limit:
        wanted.pop()
    assert list(found) == wanted


def membership_entry(index: int, term: int, *raft_ids: int) -> Entry:
    membership = Membership(tuple(member(raft_id) for raft_id in raft_ids))
    return Entry(index, term, EntryKind.MEMBERSHIP, codec.encode_membership(membership))


def test_memberships_go_with_their_entries() -> None:
    entries = [membership_entry(1, 1, 1), Entry(2, 1, EntryKind.NORMAL, b""), membership_entry(3, 1, 1, 2)]
    log = Log(SnapshotMeta(), entries, 1)
    assert (log.voters, log.membership_index) == ({1, 2}, 3)
    assert log.membership_at(2).voters == {1}
    log.accept(2, [Entry(3, 2, EntryKind.NORMAL, b"")])
    assert (log.voters, log.membership_index) == ({1}, 1)
    log.commit = 3
    log.snapshot = SnapshotMeta(3, 2, log.membership)
    log.append([membership_entry(4, 2, 1, 2, 3)])
    log.compact(2)
    assert log.first_index == 3 and log.membership_at(3).voters == {1}
    with pytest.raises(InvariantBroken, match="forgotten"):
        Log(SnapshotMeta(5, 1, Membership()), [], 5).membership_at(2)
    with pytest.raises(InvariantBroken, match="compacted"):
        log.slice(1, 2, 1, 1)


# --- what a disk holds -----------------------------------------------------------------------------------------------
def at(*places: tuple[int, int]) -> list[Entry]:
    return [Entry(index, term, EntryKind.NORMAL, b"") for index, term in places]


def test_a_log_and_a_snapshot_join_without_a_gap() -> None:
    meta = SnapshotMeta(5, 2, Membership())
    log = Log(meta, at((3, 1), (4, 2), (5, 2), (6, 2)), 6)
    assert (log.first_index, log.last_index, log.term_at(3)) == (4, 6, 1), "the first entry is kept for its term"
    assert Log(meta, at((6, 2), (7, 2)), 5).first_index == 6
    assert Log(meta, at((1, 1), (2, 1)), 2).last_index == 5, "a log that ends before the snapshot is void"
    assert Log(meta, at((4, 1), (5, 1), (6, 1)), 5).last_index == 5, "so is one of another history"
    assert Log(meta, [], 0).commit == 5


@pytest.mark.parametrize(
    ("entries", "commit", "text"),
    [
        (at((7, 2)), 5, "begins at 7"),
        (at((6, 2), (8, 2)), 5, "has 8 where 7 belongs"),
        (at((6, 2)), 9, "was committed through 9"),
    ],
)
def test_a_disk_that_cannot_be_right_is_refused(entries: list[Entry], commit: int, text: str) -> None:
    with pytest.raises(InvariantBroken, match=text):
        Log(SnapshotMeta(5, 2, Membership()), entries, commit)


def test_what_must_never_happen_is_refused() -> None:
    log = Log(SnapshotMeta(), at((1, 1), (2, 1)), 2)
    with pytest.raises(InvariantBroken, match="to be replaced but 2 is committed"):
        log.accept(0, at((1, 2)))
    with pytest.raises(InvariantBroken, match="snapshot of 2"):
        log.restore(SnapshotMeta(2, 1, Membership()))


def test_a_survivor_keeps_everything_and_becomes_the_only_member() -> None:
    hard_state, entries = found_cluster([member(3), member(1), member(2)])
    entries += at((2, 1), (3, 4))
    forced = force_new_cluster(hard_state, SnapshotMeta(), entries, member(2))
    assert forced.hard_state == HardState(5, 2, 4)
    assert (forced.entry.index, forced.entry.term) == (4, 5)
    alone = codec.decode_membership(forced.entry.data)
    assert alone == Membership((member(2),), (1, 3))
    assert [one.raft_id for one in forced.lost] == [1, 3]
    later = force_new_cluster(HardState(9, 1, 7), SnapshotMeta(7, 6, Membership((member(2), member(5)))), [], member(2))
    assert (later.entry.index, later.entry.term, [one.raft_id for one in later.lost]) == (8, 10, [5])


# --- the codec -------------------------------------------------------------------------------------------------------
numbers = st.integers(0, (1 << 63) - 1)
members = st.builds(Member, numbers, st.text(max_size=5), st.text(max_size=5), st.booleans())
memberships = st.builds(Membership, st.lists(members, max_size=3).map(tuple), st.lists(numbers, max_size=3).map(tuple))
metas = st.builds(SnapshotMeta, numbers, numbers, memberships)
head = (numbers, numbers, numbers)


@st.composite
def appends(draw: st.DrawFn) -> Append:
    prev = draw(st.integers(0, 1 << 40))
    kinds = draw(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(EntryKind), st.binary(max_size=8)), max_size=5))
    entries = tuple(Entry(prev + place, term, kind, data) for place, (term, kind, data) in enumerate(kinds, 1))
    return Append(draw(numbers), draw(numbers), draw(numbers), prev, draw(numbers), draw(numbers), entries)


messages: st.SearchStrategy[RaftMessage] = st.one_of(
    appends(),
    st.builds(PreVote, *head, numbers, numbers),
    st.builds(PreVoteReply, *head, st.booleans()),
    st.builds(Vote, *head, numbers, numbers, st.booleans()),
    st.builds(VoteReply, *head, st.booleans()),
    st.builds(AppendReply, *head, numbers, st.booleans(), numbers, numbers),
    st.builds(Heartbeat, *head, numbers, numbers),
    st.builds(HeartbeatReply, *head, numbers),
    st.builds(Commit, *head, numbers),
    st.builds(SnapshotChunk, *head, metas, numbers, numbers, st.binary(max_size=9)),
    st.builds(SnapshotReply, *head, numbers, numbers, st.booleans(), st.booleans()),
    st.builds(ReadRequest, *head, numbers),
    st.builds(ReadReply, *head, numbers, numbers),
    st.builds(TimeoutNow, *head),
    st.builds(Removed, *head),
)


@settings(max_examples=300)
@given(messages)
def test_every_message_comes_back_as_it_was(message: RaftMessage) -> None:
    decoded = codec.decode(codec.encode(message))
    assert decoded == message and type(decoded) is type(message)


@given(memberships, metas)
def test_memberships_and_descriptions_come_back_as_they_were(membership: Membership, meta: SnapshotMeta) -> None:
    assert codec.decode_membership(codec.encode_membership(membership)) == membership
    assert codec.decode_meta(codec.encode_meta(meta)) == meta


@given(messages, st.data())
def test_cut_or_flipped_bytes_are_an_error_or_another_message_but_never_a_crash(
    message: RaftMessage, data: st.DataObject
) -> None:
    raw = bytearray(codec.encode(message))
    place = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(BadMessage):
        codec.decode(bytes(raw[:place]))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        codec.decode(bytes(raw))
    except BadMessage:
        pass


@pytest.mark.parametrize("bad", [b"", b"\xc0", b"\x91\x63", b"\x95\x07\x01\x01\x01\xa1x"])
def test_what_is_no_message_is_named(bad: bytes) -> None:
    with pytest.raises(BadMessage, match="no Raft message"):
        codec.decode(bad)


def test_terms_and_kinds_must_be_as_many_as_entries() -> None:
    import msgpack

    with pytest.raises(BadMessage):
        codec.decode(msgpack.packb((5, 1, 2, 3, 0, 0, 0, [1, 2], 0, [b"a"])))


def test_periods_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="must be below"):
        Config(election_ticks=5, heartbeat_ticks=5)
