"""Becoming leader: pre-vote, vote, and who gets one (paper 5.2, 5.4.1; thesis 4.2.3, 9.6).

A member asks first whether it would win, without touching its term; only then it campaigns. A member that hears its leader
neither grants nor heeds votes, unless the leader itself asked for the election.
"""

from __future__ import annotations

from swarm.raft import quorum
from swarm.raft.messages import NOBODY, EntryKind, HardState, PreVote, PreVoteReply, RaftId, TimeoutNow, Vote, VoteReply
from swarm.raft.ready import Role
from swarm.raft.state import State


def tick(state: State) -> None:
    """Follower or candidate: campaign when it has been quiet for too long."""
    state.elapsed += 1
    if state.elapsed >= state.timeout:
        pre_campaign(state)


def hint_leader_lost(state: State, leader: RaftId) -> None:
    """The link to the leader is gone: do not wait out the timeout. Pre-vote makes a wrong hint harmless."""
    if state.role is not Role.FOLLOWER or leader == NOBODY or state.leader != leader:
        return
    state.forget_leader()
    state.attempts = max(state.attempts, 1)
    state.elapsed = 0
    state.timeout = state.random(0, state.config.hint_jitter_ticks)
    if state.timeout == 0:
        pre_campaign(state)


def pre_campaign(state: State) -> None:
    """Ask whether a campaign would be won."""
    state.elapsed = 0
    if not state.may_campaign:
        state.reset_timeout()
        return
    state.attempts += 1
    state.reset_timeout()
    state.role = Role.PRE_CANDIDATE
    state.forget_leader()
    state.votes = {state.id: True}
    log = state.log
    for raft_id in state.others:
        state.send(PreVote(raft_id, state.id, state.term + 1, log.last_index, log.last_term))
    if quorum.tally(state.voters, state.votes) is quorum.VoteResult.WON:
        campaign(state)


def campaign(state: State, *, transfer: bool = False) -> None:
    """Open the next term and ask for votes; this member's own counts once it is durable."""
    state.role = Role.CANDIDATE
    state.forget_leader()
    state.term += 1
    state.vote = state.id
    state.ack = None
    state.votes = {}
    state.elapsed = 0
    state.reset_timeout()
    log = state.log
    for raft_id in state.others:
        # After persistence: a candidate that forgot its log or its term must not collect votes for what it had.
        state.send_after(Vote(raft_id, state.id, state.term, log.last_index, log.last_term, transfer))


def on_persisted(state: State, durable: HardState | None) -> None:
    """The own vote counts from here on."""
    if state.role is not Role.CANDIDATE or durable is None:
        return
    if durable.term == state.term and durable.vote == state.id:
        _count(state, state.id, granted=True)


def _count(state: State, voter: RaftId, *, granted: bool) -> None:
    state.votes.setdefault(voter, granted)
    result = quorum.tally(state.voters, state.votes)
    if result is quorum.VoteResult.LOST:
        state.step_back(state.term, NOBODY)
    elif result is quorum.VoteResult.WON and state.role is Role.PRE_CANDIDATE:
        campaign(state)
    elif result is quorum.VoteResult.WON:
        _win(state)


def _win(state: State) -> None:
    """Lead, beginning with an empty entry: it commits what earlier terms left (paper 5.4.2, thesis 6.4)."""
    granted = {voter for voter, yes in state.votes.items() if yes}
    state.lead()
    state.membership_changed()
    for raft_id, progress in state.progress.items():
        progress.active = raft_id in granted
    state.append(EntryKind.EMPTY, [b""])


def is_protected(state: State) -> bool:
    """Whether this member hears its leader, so that nobody else's campaign concerns it (thesis 4.2.3)."""
    return state.leader != NOBODY and state.elapsed < state.config.election_ticks


def on_pre_vote(state: State, message: PreVote) -> None:
    """Would it get this member's vote? Silence protects a living leader."""
    if is_protected(state):
        return
    free = message.term > state.term or state.vote == message.sender or state.vote == NOBODY
    granted = free and state.log.is_up_to_date(message.last_index, message.last_term)
    term = message.term if granted else state.term
    state.send(PreVoteReply(message.sender, state.id, term, granted))


def on_pre_vote_reply(state: State, message: PreVoteReply) -> None:
    """One answer to the question."""
    if message.granted and message.term != state.term + 1:
        return
    _count(state, message.sender, granted=message.granted)


def on_vote(state: State, message: Vote) -> None:
    """At most one vote a term, for a log that is at least as new (paper 5.2, 5.4.1); sent once it is durable."""
    free = state.vote == message.sender or (state.vote == NOBODY and state.leader == NOBODY)
    granted = free and state.log.is_up_to_date(message.last_index, message.last_term)
    if granted:
        state.vote = message.sender
        state.elapsed = 0
    state.send_after(VoteReply(message.sender, state.id, state.term, granted))


def on_vote_reply(state: State, message: VoteReply) -> None:
    """One vote."""
    _count(state, message.sender, granted=message.granted)


def on_timeout_now(state: State, message: TimeoutNow) -> None:
    """The leader hands over: campaign at once, without asking first (thesis 3.10)."""
    if message.sender == state.leader and state.may_campaign:
        campaign(state, transfer=True)
