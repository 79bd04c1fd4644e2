"""Getting entries to the followers and the commit index forward (paper 5.3, 5.4.2).

Nothing is sent when something is proposed: `flush`, called once for every Ready, sends each member all that has come up and
that its window allows, so that proposals, appends and acknowledgements travel in batches on both sides. How far is
committed travels with the next append; a tick tells it to those who got none, so that a single write costs its followers
one message and not two.
"""

from __future__ import annotations

from swarm.raft import membership, quorum, read_index, snapshot, transfer
from swarm.raft.messages import (
    NOBODY,
    Append,
    AppendReply,
    Commit,
    Heartbeat,
    HeartbeatReply,
    RaftId,
)
from swarm.raft.progress import Progress, ProgressState
from swarm.raft.ready import Role
from swarm.raft.state import State


# --- the leader's side ---------------------------------------------------------------------------------------------
def flush(state: State) -> None:
    """Send every member what it lacks, as far as its window allows."""
    last, own = state.log.last_index, state.id
    for raft_id, progress in state.progress.items():
        if raft_id == own or progress.state is ProgressState.SNAPSHOT:
            continue
        if progress.next <= last or progress.state is ProgressState.PROBE:
            _feed(state, raft_id, progress)


def _feed(state: State, raft_id: RaftId, progress: Progress) -> None:
    config = state.config
    while progress.next <= state.log.last_index or progress.is_unknown:
        if progress.probing or len(progress.inflight) >= config.inflight_appends_max:
            return
        if progress.inflight_bytes >= config.inflight_bytes_max:
            return
        if not _send_append(state, raft_id, progress):
            return


def _send_append(state: State, raft_id: RaftId, progress: Progress) -> bool:
    """One append from `progress.next`; False when that is compacted and a snapshot has to do."""
    log, config = state.log, state.config
    prev_index = progress.next - 1
    prev_term = log.term_at(prev_index)
    if prev_term is None:
        snapshot.begin(state, raft_id, progress)
        return False
    entries = log.slice(progress.next, log.last_index, config.append_bytes_max, config.append_entries_max)
    last = prev_index + len(entries)
    progress.sent(last, sum([len(entry.data) for entry in entries]))
    progress.commit_told = max(progress.commit_told, min(last, log.commit))
    state.send(Append(raft_id, state.id, state.term, prev_index, prev_term, log.commit, entries))
    return True


def tick(state: State) -> None:
    """Leader: heartbeats, and an end to leading without a majority (check-quorum, thesis 6.2)."""
    for raft_id, progress in state.progress.items():
        if raft_id != state.id:
            read_index.tell_commit(state, raft_id, progress)
    state.heartbeat_elapsed += 1
    if state.heartbeat_elapsed >= state.config.heartbeat_ticks:
        state.heartbeat_elapsed = 0
        for raft_id in state.progress:
            if raft_id != state.id:
                read_index.beat(state, raft_id)
    state.elapsed += 1
    if state.elapsed < state.config.election_ticks:
        return
    state.elapsed = 0
    if not quorum.is_active(state.voters, lambda voter: voter == state.id or state.progress[voter].active):
        state.step_back(state.term, NOBODY)
        return
    for raft_id, progress in state.progress.items():
        if not progress.active and raft_id != state.id and progress.state is not ProgressState.PROBE:
            progress.become_probe()
        progress.active = False


def on_append_reply(state: State, message: AppendReply) -> None:
    """A follower took entries, or says where its log may agree."""
    raft_id = message.sender
    progress = state.progress[raft_id]
    progress.active = True
    if message.rejected:
        agreeing, _ = state.log.last_agreeing(message.hint_index, message.hint_term)
        progress.rejected(message.index, agreeing + 1)
        return
    if message.index > state.log.last_index or not progress.acknowledged(message.index):
        return
    if progress.state is ProgressState.PROBE or _outgrew_snapshot(state, progress):
        progress.become_replicate()
    advance_commit(state)
    if state.role is not Role.LEADER:
        return
    if state.transfer_target == raft_id and raft_id in state.progress:
        transfer.hand_over_when_ready(state, raft_id)
    if raft_id in state.progress and raft_id not in state.log.voters:
        membership.promote_when_caught_up(state, raft_id, progress)


def _outgrew_snapshot(state: State, progress: Progress) -> bool:
    return progress.state is ProgressState.SNAPSHOT and progress.match >= state.log.base_index


def advance_commit(state: State) -> None:
    """Commit what a majority of the voters holds durably, if it is of this term (paper 5.4.2)."""
    log, progress = state.log, state.progress
    if log.commit == log.last_index:
        return
    reached = quorum.acknowledged([progress[voter].match for voter in log.voters])
    if reached > log.commit and log.term_at(reached) == state.term:
        membership.commit_to(state, reached)


def on_persisted(state: State) -> None:
    """Leader: its own log counts as far as it is durable, like anybody's."""
    own = state.progress.get(state.id)
    if own is not None and state.log.persisted > own.match:
        own.match = state.log.persisted
        own.next = own.match + 1
    advance_commit(state)


def on_heartbeat_reply(state: State, message: HeartbeatReply) -> None:
    """A follower is there; without progress since its last reply something was lost: ask where its log ends."""
    raft_id = message.sender
    progress = state.progress[raft_id]
    progress.active = True
    progress.probing = False
    if 0 <= message.last_index < progress.match:
        progress.lost(message.last_index)
    stuck = progress.match == progress.match_at_heartbeat and progress.match < progress.next - 1
    progress.match_at_heartbeat = progress.match
    if stuck and progress.state is ProgressState.REPLICATE:
        progress.become_probe()
    membership.promote_when_caught_up(state, raft_id, progress)
    read_index.on_acknowledged(state, message)


# --- the follower's side -------------------------------------------------------------------------------------------
def on_append(state: State, message: Append) -> None:
    """Entries from the leader: taken when they join the log, acknowledged once durable."""
    state.follow(message.sender)
    log = state.log
    if message.prev_index < log.commit:
        _acknowledge(state, log.commit)
    elif log.matches(message.prev_index, message.prev_term):
        last = log.accept(message.prev_index, message.entries)
        membership.commit_to(state, min(message.commit, last))
        _acknowledge(state, last)
    else:
        hint_index, hint_term = log.last_agreeing(message.prev_index, message.prev_term)
        state.send_after(
            AppendReply(message.sender, state.id, state.term, message.prev_index, True, hint_index, hint_term)
        )


def _acknowledge(state: State, index: int) -> None:
    state.ack = max(index, state.ack or 0)


def on_heartbeat(state: State, message: Heartbeat) -> None:
    """The leader is there."""
    state.follow(message.sender)
    membership.commit_to(state, min(message.commit, state.log.last_index))
    state.send(HeartbeatReply(message.sender, state.id, state.term, message.round, state.log.last_index))


def on_commit(state: State, message: Commit) -> None:
    """The leader says how far is committed."""
    state.follow(message.sender)
    membership.commit_to(state, min(message.commit, state.log.last_index))
