"""One test per sentence that matters, each naming where it stands.

"Paper" is Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (extended version); "thesis" is Ongaro's
Consensus: Bridging Theory and Practice.
"""

from __future__ import annotations

import pytest
from raft_lab import CONFIG, Lab, append, entry, only, vote
from raft_net import member

from swarm.raft.codec import encode_membership
from swarm.raft.core import Raft
from swarm.raft.errors import (
    ChangePending,
    ChangeRefused,
    EntryTooLarge,
    InvariantBroken,
    NotLeader,
    NoTransferTarget,
    Overloaded,
    StaleTerm,
    TransferInProgress,
)
from swarm.raft.messages import (
    AddLearner,
    Append,
    AppendReply,
    Commit,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    Membership,
    PreVote,
    PreVoteReply,
    Promote,
    ReadReply,
    ReadRequest,
    Remove,
    Removed,
    TimeoutNow,
    UpdateAddress,
    Vote,
    VoteReply,
)
from swarm.raft.progress import ProgressState
from swarm.raft.ready import Role


# --- paper 5.1: terms ------------------------------------------------------------------------------------------------
def test_5_1_a_member_with_a_smaller_term_takes_over_the_larger() -> None:
    lab = Lab()
    lab.step(append(2, 7, 1, 1))
    assert (lab.term, lab.role, lab.raft.leader) == (7, Role.FOLLOWER, 2)


@pytest.mark.parametrize("reach", ["candidate", "leader"])
def test_5_1_a_candidate_or_leader_that_finds_its_term_out_of_date_becomes_follower(reach: str) -> None:
    lab = Lab()
    lab.become_candidate() if reach == "candidate" else lab.become_leader()
    lab.step(append(3, 9, 1, 1))
    assert (lab.term, lab.role, lab.raft.leader) == (9, Role.FOLLOWER, 3)


def test_5_1_a_request_with_a_stale_term_is_rejected() -> None:
    lab = Lab(term=5)
    assert lab.step(vote(2, 4)) == [VoteReply(2, 1, 5, False)]
    assert lab.step(PreVote(1, 2, 4, 1, 1)) == [PreVoteReply(2, 1, 5, False)]
    reply = only(lab.step(append(2, 4, 1, 1, entry(2, 4))), AppendReply)[0]
    assert reply.term == 5 and reply.rejected
    assert lab.raft.last_index == 1


# --- paper 5.2: elections --------------------------------------------------------------------------------------------
def test_5_2_members_begin_as_followers() -> None:
    assert Lab().role is Role.FOLLOWER


def test_5_2_a_leader_sends_heartbeats_to_all_followers() -> None:
    lab = Lab()
    lab.become_leader()
    assert [beat.to for beat in only(lab.tick(2), Heartbeat)] == [2, 3]


def test_5_2_a_follower_that_hears_nothing_for_an_election_timeout_campaigns() -> None:
    lab = Lab()
    assert lab.tick(9) == []
    assert only(lab.tick(), PreVote)


def test_5_2_hearing_the_leader_puts_the_timeout_off() -> None:
    lab = Lab()
    for _ in range(20):
        lab.tick(5)
        lab.step(Heartbeat(1, 2, 1, 0, 0))
    assert lab.role is Role.FOLLOWER


def test_5_2_a_candidate_raises_its_term_votes_for_itself_and_asks_all() -> None:
    lab = Lab()
    sent = lab.become_candidate()
    assert lab.term == 2
    assert [message.to for message in only(sent, Vote)] == [2, 3]
    hard_state = lab.taken[-1].hard_state
    assert hard_state is not None and (hard_state.term, hard_state.vote) == (2, 1)


def test_5_2_a_candidate_wins_with_the_votes_of_a_majority() -> None:
    lab = Lab(5)
    lab.become_candidate()
    lab.step(VoteReply(1, 2, 2, True), VoteReply(1, 4, 2, False))
    assert lab.role is Role.CANDIDATE
    lab.step(VoteReply(1, 3, 2, True))
    assert lab.role is Role.LEADER


def test_5_2_a_vote_counts_once() -> None:
    lab = Lab(5)
    lab.become_candidate()
    lab.step(VoteReply(1, 2, 2, True), VoteReply(1, 2, 2, True))
    assert lab.role is Role.CANDIDATE


def test_5_2_each_member_votes_for_at_most_one_candidate_a_term_first_come_first_served() -> None:
    lab = Lab()
    assert lab.step(vote(2, 2)) == [VoteReply(2, 1, 2, True)]
    assert lab.step(vote(3, 2)) == [VoteReply(3, 1, 2, False)]
    assert lab.step(vote(2, 2)) == [VoteReply(2, 1, 2, True)], "asked again, the same answer"


def test_5_2_the_vote_survives_a_restart() -> None:
    lab = Lab(term=2, vote=3)
    assert lab.step(vote(2, 2)) == [VoteReply(2, 1, 2, False)]


def test_5_2_a_candidate_that_hears_a_leader_of_its_term_follows_it() -> None:
    lab = Lab()
    lab.become_candidate()
    lab.step(append(3, 2, 1, 1))
    assert (lab.role, lab.raft.leader) == (Role.FOLLOWER, 3)


def test_5_2_a_candidate_that_lost_steps_back_and_tries_again_soon() -> None:
    lab = Lab()
    lab.become_candidate()
    lab.step(VoteReply(1, 2, 2, False), VoteReply(1, 3, 2, False))
    assert lab.role is Role.FOLLOWER
    assert only(lab.tick(6), PreVote)


def test_5_2_a_split_vote_ends_by_a_new_election() -> None:
    lab = Lab()
    lab.become_candidate()
    assert only(lab.tick(10), PreVote)
    assert lab.role is Role.PRE_CANDIDATE


def test_5_2_election_timeouts_are_random_within_an_interval() -> None:
    assert Lab().draws == [(10, 19)]


def test_5_2_two_leaders_of_one_term_are_a_broken_invariant() -> None:
    lab = Lab()
    lab.become_leader()
    with pytest.raises(InvariantBroken, match="both lead term 2"):
        lab.step(append(2, 2, 1, 1))


# --- paper 5.3: replication ------------------------------------------------------------------------------------------
def test_5_3_a_leader_appends_and_sends_in_parallel() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.disk_works = False
    index = lab.raft.propose(b"x")
    sent = only(lab.out(), Append)
    assert [(message.to, message.entries[-1].index) for message in sent] == [(2, index), (3, index)]
    assert lab.raft.status.persisted < index, "sent while its own write is under way (thesis 10.2.1)"


def test_5_3_an_entry_is_committed_once_a_majority_holds_it() -> None:
    lab = Lab(5)
    lab.become_leader()
    lab.settle()
    index = lab.raft.propose(b"x")
    lab.out()
    lab.acknowledge(2)
    assert lab.raft.status.commit < index
    lab.acknowledge(3)
    assert lab.raft.status.commit == index
    assert lab.committed[-1].data == b"x"


def test_5_3_committing_an_entry_commits_all_before_it() -> None:
    lab = Lab()
    lab.become_leader()
    for number in range(3):
        lab.raft.propose(b"%d" % number)
    lab.out()
    lab.acknowledge(2)
    assert [entry.data for entry in lab.committed if entry.data] [-3:] == [b"0", b"1", b"2"]  # fmt: skip


def test_5_3_followers_learn_the_commit_index_from_the_leader() -> None:
    lab = Lab()
    lab.step(append(2, 1, 1, 1, entry(2, 1), entry(3, 1), commit=2))
    assert lab.raft.status.commit == 2
    lab.step(append(2, 1, 3, 1, commit=9))
    assert lab.raft.status.commit == 3, "never beyond what is known to agree"


def test_5_3_the_commit_index_travels_with_the_next_append_or_is_told_a_tick_later() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    index = lab.raft.propose(b"x")
    lab.out()
    assert only(lab.acknowledge(2), Commit) == []
    lab.raft.propose(b"y")
    assert {message.commit for message in only(lab.out(), Append)} == {index}
    lab.acknowledge(2)
    assert [(message.to, message.commit) for message in only(lab.tick(), Commit)] == [(2, index + 1)]
    assert only(lab.tick(), Commit) == []


def test_5_3_an_append_that_does_not_join_the_log_is_refused() -> None:
    lab = Lab(entries=[entry(2, 1)])
    assert lab.step(append(2, 2, 5, 1, entry(6, 2))) == [AppendReply(2, 1, 2, 5, True, 2, 1)]
    assert lab.step(append(2, 2, 2, 2, entry(3, 2))) == [AppendReply(2, 1, 2, 2, True, 2, 1)]
    assert lab.raft.last_index == 2


def test_5_3_a_conflicting_entry_and_all_after_it_are_replaced() -> None:
    lab = Lab(entries=[entry(2, 1, b"a"), entry(3, 1, b"b"), entry(4, 1, b"c")], term=2)
    assert lab.step(append(2, 3, 2, 1, entry(3, 3, b"new"))) == [AppendReply(2, 1, 3, 3)]
    assert lab.raft.last_index == 3
    assert [found.data for found in lab.taken[-1].entries] == [b"new"]


def test_5_3_entries_that_agree_stay_though_an_append_is_old_or_came_twice() -> None:
    lab = Lab()
    later = append(2, 1, 1, 1, entry(2, 1), entry(3, 1))
    lab.step(later)
    lab.step(append(2, 1, 1, 1, entry(2, 1)))
    assert lab.raft.last_index == 3
    lab.step(later)
    assert lab.raft.last_index == 3


def test_5_3_a_committed_entry_is_never_replaced() -> None:
    lab = Lab(entries=[entry(2, 1)], commit=2)
    assert lab.step(append(2, 2, 1, 1, entry(2, 2))) == [AppendReply(2, 1, 2, 2)], "answered with what is committed"
    assert lab.raft._state.log.term_at(2) == 1


def test_5_3_a_leader_never_changes_its_own_log() -> None:
    lab = Lab(entries=[entry(2, 1), entry(3, 1)])
    lab.become_leader()
    lab.step(AppendReply(1, 2, 2, 3, True, 1, 1), AppendReply(1, 3, 2, 3, True, 1, 1))
    assert [lab.raft._state.log.term_at(index) for index in (1, 2, 3, 4)] == [1, 1, 1, 2]


def test_5_3_a_refusal_makes_the_leader_go_back_by_whole_terms() -> None:
    """Paper 5.3: one refusal per conflicting term, not one per entry; the leader skips its own newer terms too."""
    lab = Lab(entries=[entry(index, 4) for index in range(2, 50)], term=4)
    lab.become_leader()
    sent = lab.step(AppendReply(1, 2, 5, 49, True, 30, 3))
    assert [message.prev_index for message in only(sent, Append) if message.to == 2] == [1]


def test_5_3_a_follower_names_the_last_place_that_may_agree() -> None:
    lab = Lab(entries=[entry(2, 1), *[entry(index, 3) for index in range(3, 9)]], term=3)
    assert lab.step(append(2, 4, 8, 2)) == [AppendReply(2, 1, 4, 8, True, 2, 1)]


def test_5_3_an_old_refusal_changes_nothing() -> None:
    lab = Lab()
    lab.become_leader()
    lab.acknowledge(2)
    before = lab.raft.status.progress[2]
    lab.step(AppendReply(1, 2, 2, 1, True, 0, 0))
    assert lab.raft.status.progress[2].match == before.match
    lab.step(AppendReply(1, 3, 2, 17, True, 0, 0))
    assert lab.raft.status.progress[3].next == 2, "a probe is answered by its own refusal only"


# --- paper 5.4: safety -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"), [(3, 2, True), (2, 3, True), (9, 1, False), (2, 2, False), (4, 2, True)]
)
def test_5_4_1_a_vote_goes_only_to_a_log_that_is_at_least_as_new(
    last_index: int, last_term: int, granted: bool
) -> None:
    lab = Lab(entries=[entry(2, 2), entry(3, 2)], term=3)
    assert only(lab.step(vote(2, 4, last_index, last_term)), VoteReply) == [VoteReply(2, 1, 4, granted)]


def test_5_4_2_entries_of_earlier_terms_are_committed_only_along_with_one_of_the_present() -> None:
    """Figure 8."""
    lab = Lab(entries=[entry(2, 1)], term=1)
    lab.become_leader()
    lab.acknowledge(2, 3, index=2)
    assert lab.raft.status.commit == 1, "entry 2 is on all members, but of an earlier term"
    lab.acknowledge(2, index=3)
    assert lab.raft.status.commit == 3


def test_6_4_a_new_leader_begins_with_an_empty_entry() -> None:
    lab = Lab()
    sent = lab.become_leader()
    assert [found.kind for found in only(sent, Append)[0].entries] == [EntryKind.EMPTY]


# --- persistence (figure 2: updated on stable storage before responding) ---------------------------------------------
def test_fig_2_a_vote_leaves_only_once_it_is_durable() -> None:
    lab = Lab()
    lab.disk_works = False
    assert lab.step(vote(2, 2)) == []
    assert lab.flush() == [VoteReply(2, 1, 2, True)]


def test_fig_2_an_acknowledgement_leaves_only_once_its_entries_are_durable() -> None:
    lab = Lab()
    lab.disk_works = False
    assert lab.step(append(2, 1, 1, 1, entry(2, 1))) == []
    assert lab.flush() == [AppendReply(2, 1, 1, 2)]


def test_fig_2_a_repeated_append_is_not_acknowledged_before_the_first_write_of_it() -> None:
    lab = Lab()
    lab.disk_works = False
    lab.step(append(2, 1, 1, 1, entry(2, 1)))
    lab.step(append(2, 1, 1, 1, entry(2, 1)))
    assert [bool(ready.entries) for ready in lab.readies] == [True, False]
    with pytest.raises(InvariantBroken, match="out of order"):
        lab.raft.persisted(lab.readies[1])
    assert lab.flush(1) == [AppendReply(2, 1, 1, 2)]


def test_fig_2_a_candidates_own_vote_counts_once_it_is_durable() -> None:
    lab = Lab()
    lab.tick(10)
    lab.disk_works = False
    lab.step(PreVoteReply(1, 2, 2, True))
    lab.step(VoteReply(1, 2, 2, True))
    assert lab.role is Role.CANDIDATE
    lab.flush()
    assert lab.role is Role.LEADER


def test_fig_2_a_candidate_asks_only_once_its_term_and_log_are_durable() -> None:
    lab = Lab()
    lab.tick(10)
    lab.disk_works = False
    assert only(lab.step(PreVoteReply(1, 2, 2, True)), Vote) == []
    assert len(only(lab.flush(), Vote)) == 2


def test_10_2_1_a_leader_counts_itself_only_once_its_write_is_durable() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.disk_works = False
    index = lab.raft.propose(b"x")
    lab.out()
    lab.acknowledge(2)
    assert lab.raft.status.commit < index
    lab.flush()
    assert lab.raft.status.commit == index


def test_10_2_1_a_leader_commits_without_its_own_disk_but_applies_only_what_is_durable_here() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.disk_works = False
    index = lab.raft.propose(b"x")
    lab.out()
    lab.acknowledge(2, 3)
    assert lab.raft.status.commit == index
    assert lab.committed[-1].index < index
    lab.flush()
    lab.out()
    assert lab.committed[-1].index == index


def test_a_suffix_that_is_replaced_while_its_write_is_under_way_is_not_durable() -> None:
    lab = Lab()
    lab.disk_works = False
    lab.step(append(2, 2, 1, 1, entry(2, 2), entry(3, 2)))
    lab.step(append(3, 3, 1, 1, entry(2, 3)))
    lab.flush(1)
    assert lab.raft.status.persisted == 1, "what the first write made durable was replaced meanwhile"
    assert lab.flush(1) == [AppendReply(3, 1, 3, 2)]
    assert lab.raft.status.persisted == 2


def test_the_same_entries_again_after_being_replaced_wait_for_their_own_write() -> None:
    lab = Lab()
    lab.disk_works = False
    old = (entry(2, 2), entry(3, 2))
    lab.step(append(2, 2, 1, 1, *old))
    lab.step(append(3, 3, 1, 1, entry(2, 3)))
    lab.step(append(2, 4, 1, 1, *old, entry(4, 4)))
    lab.flush(2)
    assert lab.raft.status.persisted == 1
    lab.flush(1)
    assert lab.raft.status.persisted == 4


# --- thesis 9.6: pre-vote --------------------------------------------------------------------------------------------
def test_9_6_a_pre_vote_does_not_raise_anybodys_term() -> None:
    lab = Lab()
    lab.tick(10)
    assert lab.term == 1
    other = Lab()
    assert other.step(PreVote(1, 2, 2, 1, 1)) == [PreVoteReply(2, 1, 2, True)]
    assert other.term == 1
    assert other.step(vote(3, 2)) == [VoteReply(3, 1, 2, True)], "a pre-vote binds to nothing"


def test_9_6_a_campaign_follows_only_a_pre_vote_that_was_won() -> None:
    lab = Lab()
    lab.tick(10)
    lab.step(PreVoteReply(1, 2, 1, False))
    assert lab.role is Role.PRE_CANDIDATE
    lab.step(PreVoteReply(1, 3, 1, False))
    assert (lab.role, lab.term) == (Role.FOLLOWER, 1)


def test_9_6_a_pre_vote_for_another_term_does_not_count() -> None:
    lab = Lab()
    lab.tick(10)
    lab.step(PreVoteReply(1, 2, 7, True))
    assert lab.role is Role.PRE_CANDIDATE


def test_9_6_a_refusal_from_a_newer_term_is_taken_over() -> None:
    lab = Lab()
    lab.tick(10)
    lab.step(PreVoteReply(1, 2, 6, False))
    assert (lab.role, lab.term) == (Role.FOLLOWER, 6)


def test_9_6_a_log_that_is_behind_gets_no_pre_vote() -> None:
    lab = Lab(entries=[entry(2, 1)])
    assert lab.step(PreVote(1, 2, 2, 1, 1)) == [PreVoteReply(2, 1, 1, False)]


# --- thesis 4.2.3: disruptive members --------------------------------------------------------------------------------
def test_4_2_3_who_hears_a_leader_neither_votes_nor_takes_over_the_term() -> None:
    lab = Lab()
    lab.step(Heartbeat(1, 2, 1, 0, 0))
    assert lab.step(vote(3, 9)) == []
    assert lab.step(PreVote(1, 3, 9, 9, 9)) == []
    assert lab.term == 1


def test_4_2_3_an_election_that_the_leader_asked_for_is_heeded() -> None:
    lab = Lab()
    lab.step(Heartbeat(1, 2, 1, 0, 0))
    assert lab.step(vote(3, 2, transfer=True)) == [VoteReply(3, 1, 2, True)]


def test_4_2_3_protection_ends_after_an_election_timeout_of_silence() -> None:
    config = CONFIG
    lab = Lab(config=config)
    lab.raft._state.timeout = 19
    lab.step(Heartbeat(1, 2, 1, 0, 0))
    lab.raft._state.timeout = 19
    lab.tick(10)
    assert only(lab.step(vote(3, 2)), VoteReply) == [VoteReply(3, 1, 2, True)]


def test_a_leader_that_was_left_behind_is_told_the_term_by_its_followers() -> None:
    """With pre-vote a member at a newer term could otherwise neither be led nor win."""
    lab = Lab(term=7)
    for message in (append(2, 3, 1, 1), Heartbeat(1, 2, 3, 0, 0), Commit(1, 2, 3, 0)):
        replies = only(lab.step(message), AppendReply)
        assert [(reply.to, reply.term) for reply in replies] == [(2, 7)]


def test_a_lost_link_to_the_leader_makes_a_pre_vote_at_once_and_a_wrong_hint_does_no_harm() -> None:
    lab = Lab()
    lab.step(Heartbeat(1, 2, 1, 0, 0))
    lab.raft.hint_leader_lost(3)
    assert lab.out() == [], "not the leader's"
    lab.raft.hint_leader_lost(2)
    assert lab.draws[-2] == (0, CONFIG.hint_jitter_ticks)
    assert [message.to for message in only(lab.out(), PreVote)] == [2, 3]
    lab.step(Heartbeat(1, 2, 1, 0, 0))
    assert (lab.role, lab.term, lab.raft.leader) == (Role.FOLLOWER, 1, 2)


def test_after_a_hint_members_grant_each_other_and_try_again_within_a_few_ticks() -> None:
    lab = Lab()
    lab.step(Heartbeat(1, 2, 1, 0, 0))
    lab.raft.hint_leader_lost(2)
    lab.out()
    assert lab.step(PreVote(1, 3, 2, 1, 1)) == [PreVoteReply(3, 1, 2, True)]
    lab.step(PreVoteReply(1, 2, 1, False), PreVoteReply(1, 3, 1, False))
    assert only(lab.tick(6), PreVote)


# --- thesis 6.2: check-quorum ----------------------------------------------------------------------------------------
def test_6_2_a_leader_that_hears_no_majority_for_an_election_timeout_steps_down() -> None:
    lab = Lab(5)
    lab.become_leader()
    lab.tick(10)
    assert lab.role is Role.LEADER, "those who voted were heard"
    for _ in range(10):
        lab.beat_back(2, 3)
        lab.tick(10)
    assert lab.role is Role.LEADER
    lab.beat_back(2)
    lab.tick(10)
    assert (lab.role, lab.raft.leader) == (Role.FOLLOWER, 0)


# --- thesis 6.4: reads -----------------------------------------------------------------------------------------------
def test_6_4_a_read_waits_until_the_leader_has_committed_in_its_term() -> None:
    lab = Lab()
    lab.become_leader()
    lab.raft.read_index(7)
    assert only(lab.out(), Heartbeat) == []
    assert len(only(lab.acknowledge(2), Heartbeat)) == 2


def test_6_4_a_read_is_answered_after_a_majority_confirmed_the_leader() -> None:
    lab = Lab(5)
    lab.become_leader()
    lab.settle()
    lab.raft.read_index(7)
    beats = only(lab.out(), Heartbeat)
    assert [beat.round for beat in beats] == [1, 1, 1, 1]
    lab.beat_back(2, round_=1)
    assert not lab.taken[-1].reads
    lab.beat_back(3, round_=0)
    lab.beat_back(4, round_=1)
    assert [(read.context, read.index) for read in lab.taken[-1].reads] == [(7, lab.raft.status.commit)]


def test_6_4_a_read_sees_the_commit_index_of_when_its_round_began() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    at = lab.raft.status.commit
    lab.raft.read_index(7)
    lab.out()
    lab.raft.propose(b"x")
    lab.out()
    lab.acknowledge(2)
    lab.raft.read_index(8)
    lab.out()
    lab.beat_back(2, round_=2)
    assert [(read.context, read.index) for read in lab.taken[-1].reads] == [(7, at), (8, at + 1)]


def test_6_4_reads_that_come_together_share_a_round() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    for context in range(5):
        lab.raft.read_index(context)
    assert len(only(lab.out(), Heartbeat)) == 2
    lab.beat_back(3, round_=1)
    assert [read.context for read in lab.taken[-1].reads] == [0, 1, 2, 3, 4]


def test_6_4_a_lost_round_is_confirmed_by_the_next_heartbeat() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.raft.read_index(1)
    lab.out()
    assert [beat.round for beat in only(lab.tick(2), Heartbeat)] == [1, 1]


def test_6_4_a_follower_asks_the_leader() -> None:
    lab = Lab()
    with pytest.raises(NotLeader):
        lab.raft.read_index(1)
    lab.step(Heartbeat(1, 2, 1, 0, 0))
    lab.raft.read_index(1)
    assert lab.out() == [ReadRequest(2, 1, 1, 1)]
    lab.step(ReadReply(1, 3, 1, 1, 5))
    assert not any(ready.reads for ready in lab.taken), "not from somebody else"
    lab.step(ReadReply(1, 2, 1, 1, 5))
    assert [(read.context, read.index) for read in lab.taken[-1].reads] == [(1, 5)]
    leader = Lab()
    leader.become_leader()
    leader.settle()
    leader.step(ReadRequest(1, 3, 2, 9))
    assert leader.beat_back(2, round_=1)[0] == ReadReply(3, 1, 2, 9, leader.raft.status.commit)


def test_6_4_reads_are_given_back_when_the_leader_is_lost() -> None:
    lab = Lab()
    lab.step(Heartbeat(1, 2, 1, 0, 0))
    lab.raft.read_index(4)
    lab.out()
    lab.step(append(3, 2, 1, 1))
    assert lab.taken[-1].reads_failed == (4,)
    lab = Lab()
    lab.become_leader()
    lab.raft.read_index(5)
    lab.settle()
    lab.raft.read_index(6)
    lab.step(append(3, 9, 1, 1))
    assert sorted(context for ready in lab.taken for context in ready.reads_failed) == [5, 6]


def test_6_4_waiting_reads_are_bounded() -> None:
    lab = Lab(config=CONFIG.__class__(election_ticks=10, heartbeat_ticks=2, reads_max=2))
    lab.become_leader()
    lab.raft.read_index(1)
    lab.raft.read_index(2)
    with pytest.raises(Overloaded):
        lab.raft.read_index(3)
    lab.step(ReadRequest(1, 2, 2, 9))
    lab.settle()
    lab.beat_back(2, round_=1)
    assert not only([message for ready in lab.taken for message in ready.messages], ReadReply)


def test_6_4_a_single_member_answers_at_once() -> None:
    lab = Lab(1)
    lab.out()
    lab.raft.read_index(1)
    lab.out()
    assert [read.context for read in lab.taken[-1].reads] == [1]


# --- thesis 3.10: leadership transfer --------------------------------------------------------------------------------
def test_3_10_the_leader_stops_taking_proposals_and_tells_a_target_that_is_up_to_date() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    assert lab.raft.transfer(2) == 2
    assert only(lab.out(), TimeoutNow) == [TimeoutNow(2, 1, 2)]
    with pytest.raises(TransferInProgress):
        lab.raft.propose(b"x")
    with pytest.raises(TransferInProgress):
        lab.raft.change_membership(Remove(3))
    assert lab.raft.transfer(2) == 2
    assert lab.out() == [], "asked again, it is under way"


def test_3_10_a_target_that_is_behind_is_brought_up_to_date_first() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    index = lab.raft.propose(b"x")
    lab.raft.transfer(3)
    assert only(lab.out(), TimeoutNow) == []
    assert only(lab.acknowledge(3, index=index), TimeoutNow) == [TimeoutNow(3, 1, 2)]


def test_3_10_the_target_campaigns_at_once_without_asking_first() -> None:
    lab = Lab()
    lab.step(Heartbeat(1, 2, 1, 0, 0))
    sent = lab.step(TimeoutNow(1, 2, 1))
    assert [(message.to, message.transfer) for message in only(sent, Vote)] == [(2, True), (3, True)]
    assert lab.term == 2
    stranger = Lab()
    stranger.step(Heartbeat(1, 2, 1, 0, 0))
    assert stranger.step(TimeoutNow(1, 3, 1)) == [], "only the leader may ask for it"


def test_3_10_a_transfer_that_takes_longer_than_an_election_timeout_is_given_up() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.raft.transfer(2)
    for _ in range(5):
        lab.beat_back(2, 3)
        lab.tick(2)
    assert lab.raft.transfer_target == 0
    lab.raft.propose(b"x")


def test_3_10_without_a_target_the_live_voter_that_is_furthest_is_taken() -> None:
    lab = Lab(5)
    lab.become_leader()
    lab.settle()
    lab.raft.propose(b"x")
    lab.out()
    lab.acknowledge(4)
    assert lab.raft.transfer() == 4
    assert lab.raft.transfer(3) == 3, "the newer wish counts"


def test_3_10_there_must_be_somebody_to_take_it() -> None:
    lab = Lab()
    with pytest.raises(NotLeader):
        lab.raft.transfer(2)
    lab.become_leader()
    for target in (1, 9):
        with pytest.raises(NoTransferTarget):
            lab.raft.transfer(target)
    single = Lab(1)
    single.out()
    with pytest.raises(NoTransferTarget, match="no other voter"):
        single.raft.transfer()


# --- thesis 4: membership --------------------------------------------------------------------------------------------
def grown(lab: Lab) -> Lab:
    """With member 4 as a learner, committed."""
    lab.become_leader()
    lab.settle()
    lab.raft.change_membership(AddLearner(member(4)))
    lab.out()
    lab.acknowledge(2, 3)
    return lab


def test_4_1_a_change_is_in_force_as_soon_as_it_is_in_the_log() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.raft.change_membership(AddLearner(member(4)))
    assert lab.raft.membership.ids == {1, 2, 3, 4}
    assert lab.raft.status.is_changing


def test_4_1_one_change_at_a_time() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    index = lab.raft.change_membership(AddLearner(member(4)))
    with pytest.raises(ChangePending) as caught:
        lab.raft.change_membership(Remove(3))
    assert caught.value.index == index
    lab.out()
    lab.acknowledge(2)
    lab.raft.change_membership(Remove(3))


def test_4_1_a_leader_first_commits_an_entry_of_its_own_term() -> None:
    """Ongaro, raft-dev 2015: bug in single-server membership changes."""
    lab = Lab()
    lab.become_leader()
    with pytest.raises(ChangePending, match="its own term"):
        lab.raft.change_membership(AddLearner(member(4)))


def test_4_1_a_change_that_was_replaced_in_the_log_is_taken_back() -> None:
    lab = Lab()
    changed = Membership((member(1), member(2)), (3,))
    lab.step(append(2, 2, 1, 1, Entry(2, 2, EntryKind.MEMBERSHIP, encode_membership(changed))))
    assert lab.raft.membership == changed
    lab.step(append(3, 3, 1, 1, entry(2, 3)))
    assert lab.raft.membership.ids == {1, 2, 3}


def test_4_2_1_a_learner_gets_entries_and_counts_in_no_majority() -> None:
    lab = grown(Lab())
    lab.acknowledge(4, index=2)
    index = lab.raft.propose(b"x")
    assert 4 in [message.to for message in only(lab.out(), Append)]
    lab.acknowledge(4, index=3)
    assert lab.raft.status.commit < index
    assert 4 not in [message.to for message in lab.tick(10) if isinstance(message, Vote)]


def test_4_2_1_a_learner_that_catches_up_within_an_election_timeout_becomes_a_voter() -> None:
    lab = grown(Lab())
    lab.acknowledge(4)
    assert 4 in lab.raft.membership.voters


def test_4_2_1_a_learner_that_took_longer_has_another_round_to_go() -> None:
    lab = grown(Lab())
    for _ in range(11):
        lab.tick()
        lab.beat_back(2, 3)
    lab.acknowledge(4)
    assert 4 not in lab.raft.membership.voters
    lab.acknowledge(4)
    lab.beat_back(4)
    assert 4 in lab.raft.membership.voters


def test_4_2_1_a_promotion_waits_for_the_change_before_it() -> None:
    lab = grown(Lab())
    lab.raft.change_membership(UpdateAddress(3, "elsewhere:1"))
    lab.out()
    lab.acknowledge(4)
    assert 4 not in lab.raft.membership.voters
    lab.acknowledge(2, 3)
    lab.beat_back(4)
    assert 4 in lab.raft.membership.voters


def test_4_2_2_a_leader_that_removes_itself_leads_until_that_is_committed_and_does_not_count_itself() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    index = lab.raft.change_membership(Remove(1))
    lab.out()
    lab.acknowledge(2)
    assert lab.role is Role.LEADER and lab.raft.status.commit < index
    sent = lab.acknowledge(3)
    assert lab.role is Role.FOLLOWER and lab.raft.is_removed
    assert lab.taken[-1].removed
    assert len(only(sent, Commit)) == 2 and len(only(sent, TimeoutNow)) == 1, "and names its successor"
    with pytest.raises(NotLeader):
        lab.raft.propose(b"x")
    assert lab.tick(50) == []


def test_4_2_2_a_member_whose_own_removal_is_not_committed_still_campaigns() -> None:
    removal = Entry(2, 2, EntryKind.MEMBERSHIP, encode_membership(Membership((member(2), member(3)), (1,))))
    lab = Lab(entries=[removal], term=2)
    assert {message.to for message in only(lab.tick(10), PreVote)} == {2, 3}
    lab.step(PreVoteReply(1, 2, 3, True))
    assert lab.role is Role.PRE_CANDIDATE, "its own vote does not count"
    lab.step(PreVoteReply(1, 3, 3, True))
    assert lab.role is Role.CANDIDATE


def test_4_1_requests_are_served_without_asking_whether_the_sender_is_known() -> None:
    lab = Lab()
    assert lab.step(vote(77, 2)) == [VoteReply(77, 1, 2, True)]
    lab.step(append(88, 3, 1, 1, entry(2, 3)))
    assert lab.raft.leader == 88


def test_a_member_that_is_no_member_yet_waits_to_be_fed() -> None:
    fresh = Raft(4, random=lambda low, high: low, config=CONFIG)
    for _ in range(100):
        fresh.tick()
    assert fresh.ready() is None


def test_a_removed_member_is_told_by_the_leader_and_by_whomever_it_bothers() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.raft.change_membership(Remove(3))
    lab.out()
    assert only(lab.acknowledge(2), Removed) == [Removed(3, 1, 2)]
    assert lab.step(PreVote(1, 3, 9, 9, 9)) == [Removed(3, 1, 2)]
    assert lab.step(AppendReply(1, 3, 2, 3)) == [Removed(3, 1, 2)]
    gone = Lab()
    gone.step(Removed(1, 2, 1))
    assert gone.raft.is_removed and gone.taken[-1].removed
    assert gone.step(vote(2, 9)) == [] and gone.tick(50) == []
    gone.raft.hint_leader_lost(2)
    assert gone.out() == []


def test_a_restarted_member_that_was_removed_knows_it() -> None:
    removal = Entry(2, 1, EntryKind.MEMBERSHIP, encode_membership(Membership((member(2),), (1,))))
    lab = Lab(entries=[removal], commit=2)
    lab.out()
    assert lab.raft.is_removed and lab.taken[0].removed


def test_changes_that_make_no_sense_are_refused_and_change_nothing() -> None:
    """Behaviour 1.8: the reference applies them all the same."""
    lab = grown(Lab())
    lab.acknowledge(2, 3)
    before = lab.raft.membership
    for change in (
        AddLearner(member(0)),
        AddLearner(member(2)),
        Promote(2),
        Promote(9),
        Remove(9),
        UpdateAddress(9, "x:1"),
    ):
        with pytest.raises(ChangeRefused):
            lab.raft.change_membership(change)
    assert lab.raft.membership == before
    lab.raft.change_membership(Remove(3))
    lab.out()
    lab.acknowledge(2)
    with pytest.raises(ChangeRefused, match="was removed"):
        lab.raft.change_membership(AddLearner(member(3)))
    single = Lab(1)
    single.out()
    with pytest.raises(ChangeRefused, match="only voter"):
        single.raft.change_membership(Remove(1))
    follower = Lab()
    with pytest.raises(NotLeader):
        follower.raft.change_membership(Remove(3))


# --- proposals -------------------------------------------------------------------------------------------------------
def test_proposals_are_fenced_by_term() -> None:
    lab = Lab()
    with pytest.raises(NotLeader):
        lab.raft.propose(b"x")
    lab.become_leader()
    with pytest.raises(StaleTerm) as caught:
        lab.raft.propose(b"x", term=1)
    assert (caught.value.asked, caught.value.current) == (1, 2)
    assert lab.raft.propose(b"x", term=2) == 3
    assert lab.raft.propose_many([b"y", b"z"], term=2) == range(4, 6)


def test_proposals_are_bounded_in_size_number_and_bytes() -> None:
    config = CONFIG.__class__(
        election_ticks=10, heartbeat_ticks=2, entry_bytes_max=100, uncommitted_entries_max=3, uncommitted_bytes_max=120
    )
    lab = Lab(config=config)
    lab.become_leader()
    with pytest.raises(EntryTooLarge) as caught:
        lab.raft.propose(b"x" * 101)
    assert caught.value.limit_bytes == 100
    lab.raft.propose(b"x" * 90)
    with pytest.raises(Overloaded, match="bytes"):
        lab.raft.propose(b"x" * 90)
    lab.raft.propose(b"")
    with pytest.raises(Overloaded, match="3 proposals"):
        lab.raft.propose(b"")
    lab.out()
    lab.acknowledge(2)
    lab.raft.propose_many([b"x" * 60, b"y" * 60])


# --- flow control ----------------------------------------------------------------------------------------------------
def test_a_follower_whose_log_is_not_known_gets_one_append_at_a_time() -> None:
    lab = Lab()
    lab.become_leader()
    lab.raft.propose(b"x")
    assert only(lab.out(), Append) == []
    assert lab.raft.status.progress[2].state is ProgressState.PROBE
    assert [message.to for message in only(lab.acknowledge(2, index=2), Append)] == [2]
    assert lab.raft.status.progress[2].state is ProgressState.REPLICATE


def test_a_follower_that_keeps_up_gets_appends_without_waiting_up_to_its_window() -> None:
    config = CONFIG.__class__(election_ticks=10, heartbeat_ticks=2, append_entries_max=1, inflight_appends_max=3)
    lab = Lab(config=config)
    lab.become_leader()
    lab.settle()
    for number in range(5):
        lab.raft.propose(b"%d" % number)
    sent = [message.entries[0].index for message in only(lab.out(), Append) if message.to == 2]
    assert sent == [3, 4, 5]
    sent = [message.entries[0].index for message in only(lab.acknowledge(2, index=4), Append) if message.to == 2]
    assert sent == [6, 7]


def test_the_window_is_bounded_in_bytes_too() -> None:
    config = CONFIG.__class__(election_ticks=10, heartbeat_ticks=2, append_bytes_max=10, inflight_bytes_max=15)
    lab = Lab(config=config)
    lab.become_leader()
    lab.settle()
    for _ in range(5):
        lab.raft.propose(b"x" * 8)
    assert [len(message.entries) for message in only(lab.out(), Append) if message.to == 2] == [1, 1]


def test_what_was_lost_without_a_trace_is_found_by_heartbeats() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.beat_back(2)
    lab.raft.propose(b"x")
    lab.out()
    sent = only(lab.beat_back(2), Append)
    assert [(message.to, message.prev_index) for message in sent] == [(2, 2)]


def test_an_unreachable_follower_is_probed_anew() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.raft.propose(b"x")
    lab.out()
    lab.raft.report_unreachable(2)
    lab.raft.report_unreachable(99)
    assert lab.raft.status.progress[2].state is ProgressState.PROBE
    assert [message.prev_index for message in only(lab.out(), Append)] == [2]


def test_a_silent_follower_is_probed_anew_after_an_election_timeout() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.tick(10)
    for _ in range(10):
        lab.beat_back(2)
        lab.tick()
    assert lab.raft.status.progress[3].state is ProgressState.PROBE
    assert not lab.raft.status.progress[3].active


def test_a_batch_of_appends_is_acknowledged_once() -> None:
    lab = Lab()
    lab.raft.step(append(2, 1, 1, 1, entry(2, 1)))
    lab.raft.step(append(2, 1, 2, 1, entry(3, 1)))
    lab.raft.step(append(2, 1, 3, 1, entry(4, 1)))
    assert lab.out() == [AppendReply(2, 1, 1, 4)]


# --- anything may come -----------------------------------------------------------------------------------------------
def test_answers_that_come_too_late_or_to_the_wrong_member_are_dropped() -> None:
    lab = Lab()
    for message in (
        AppendReply(1, 2, 1, 5),
        HeartbeatReply(1, 2, 1, 1),
        VoteReply(1, 2, 1, True),
        PreVoteReply(1, 2, 2, True),
        ReadRequest(1, 2, 1, 1),
        AppendReply(9, 2, 1, 5),
    ):
        assert lab.step(message) == []
    assert lab.role is Role.FOLLOWER
    lab.become_leader()
    assert lab.step(AppendReply(1, 9, 2, 2), HeartbeatReply(1, 9, 2, 1), AppendReply(1, 2, 2, 99)) == []
    assert lab.raft.status.progress[2].match == 0


def test_heartbeats_carry_no_commit_beyond_what_the_follower_is_known_to_hold() -> None:
    lab = Lab()
    lab.become_leader()
    lab.acknowledge(2)
    assert {beat.to: beat.commit for beat in only(lab.tick(2), Heartbeat)} == {2: 2, 3: 0}


def test_a_member_number_is_never_zero_and_persistence_is_checked() -> None:
    with pytest.raises(ValueError, match="0 is no member number"):
        Lab(raft_id=0)
    lab = Lab()
    with pytest.raises(InvariantBroken, match="was handed over"):
        lab.raft.applied(99)
    with pytest.raises(InvariantBroken, match="was handed over"):
        lab.raft.describe_snapshot(99)
    with pytest.raises(InvariantBroken, match="was handed over"):
        lab.raft.handed_over(1, 99)
    assert [found.index for found in lab.raft.handed_over(1, 0)] == []


def test_a_campaign_that_is_asked_for_does_not_wait() -> None:
    lab = Lab()
    lab.raft.campaign()
    assert len(only(lab.out(), PreVote)) == 2
    lab.become_leader() if lab.role is Role.LEADER else lab.step(PreVoteReply(1, 2, 2, True))
    lab.step(VoteReply(1, 2, 2, True))
    lab.raft.campaign()
    assert lab.role is Role.LEADER


def test_commits_reach_the_application_in_bounded_portions() -> None:
    config = CONFIG.__class__(election_ticks=10, heartbeat_ticks=2, apply_bytes_max=10, applying_entries_max=4)
    lab = Lab(config=config)
    entries = [entry(index, 1, b"12345678") for index in range(2, 10)]
    lab.raft.step(append(2, 1, 1, 1, *entries, commit=9))
    portions = []
    while (ready := lab.raft.ready()) is not None:
        lab.raft.persisted(ready)
        portions.append([found.index for found in ready.committed])
    assert portions == [[1], [2], [3], [4]], "one that is larger than the portion goes alone; four are out"
    lab.raft.applied(4)
    ready = lab.raft.ready()
    assert ready is not None and [found.index for found in ready.committed] == [5]


def test_5_3_a_follower_commits_nothing_of_its_tail_that_the_leader_has_not_confirmed() -> None:
    lab = Lab(entries=[entry(index, 1) for index in range(2, 6)], term=2)
    lab.step(append(2, 3, 1, 1, entry(2, 1), commit=5))
    assert lab.raft.status.commit == 2, "3 to 5 may be of another history"


def test_10_2_1_each_write_of_a_leader_counts_for_its_own_entries_only() -> None:
    lab = Lab()
    lab.become_leader()
    lab.settle()
    lab.disk_works = False
    first = lab.raft.propose(b"1")
    lab.out()
    second = lab.raft.propose(b"2")
    lab.out()
    lab.flush(1)
    lab.acknowledge(2)
    assert (lab.raft.status.commit, second) == (first, first + 1)
