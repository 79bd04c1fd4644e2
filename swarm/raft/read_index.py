"""Linearizable reads without writing to the log (thesis 6.4).

The leader notes its commit index, makes sure by one round of heartbeats that it still led when the read came, and answers
with that index. Reads that come while a Ready is prepared share one round; an answer to a round answers all before it.
"""

from __future__ import annotations

from swarm.raft import quorum
from swarm.raft.errors import NotLeader, Overloaded
from swarm.raft.messages import NOBODY, Commit, Heartbeat, HeartbeatReply, RaftId, ReadReply, ReadRequest
from swarm.raft.progress import Progress, ProgressState
from swarm.raft.ready import ReadState, Role
from swarm.raft.state import ReadRound, State


def request(state: State, context: int) -> None:
    """Ask for a read index; the answer comes as a `ReadState`. Raises `NotLeader` when nobody leads, `Overloaded`."""
    if state.leader == NOBODY:
        raise NotLeader(NOBODY)
    if _waiting(state) >= state.config.reads_max:
        raise Overloaded(f"{state.config.reads_max} reads wait for the leader already")
    if state.role is Role.LEADER:
        state.reads_queued.append((state.id, context))
        return
    state.reads_forwarded.add(context)
    state.send(ReadRequest(state.leader, state.id, state.term, context))


def _waiting(state: State) -> int:
    return (
        len(state.reads_forwarded) + len(state.reads_queued) + sum(len(waiting.reads) for waiting in state.read_rounds)
    )


def on_request(state: State, message: ReadRequest) -> None:
    """Leader: a follower asks; when too many wait it gets no answer and will ask again."""
    if _waiting(state) < state.config.reads_max:
        state.reads_queued.append((message.sender, message.context))


def on_reply(state: State, message: ReadReply) -> None:
    """Follower: the leader's answer."""
    if message.sender == state.leader and message.context in state.reads_forwarded:
        state.reads_forwarded.remove(message.context)
        state.reads.append(ReadState(message.context, message.index))


def flush(state: State) -> None:
    """Leader: open one round for the reads that wait, once the commit index is known to be the cluster's."""
    if not state.reads_queued or not state.is_settled:
        return
    state.read_round += 1
    state.read_rounds.append(ReadRound(state.read_round, state.log.commit, tuple(state.reads_queued)))
    state.reads_queued.clear()
    for raft_id in state.others:
        beat(state, raft_id)
    _release(state)


def beat(state: State, raft_id: RaftId) -> None:
    """Leader: one heartbeat, which also carries the newest round and what the member may take as committed."""
    progress = state.progress[raft_id]
    commit = min(progress.match, state.log.commit)
    progress.commit_told = max(progress.commit_told, commit)
    state.send(Heartbeat(raft_id, state.id, state.term, commit, state.read_round))


def tell_commit(state: State, raft_id: RaftId, progress: Progress) -> None:
    """Leader: say how far is committed to a member that was not told."""
    commit = min(progress.match, state.log.commit)
    if commit > progress.commit_told and progress.state is ProgressState.REPLICATE:
        progress.commit_told = commit
        state.send(Commit(raft_id, state.id, state.term, commit))


def on_acknowledged(state: State, message: HeartbeatReply) -> None:
    """Leader: a member confirms that it knew no newer leader when round `message.round` reached it."""
    progress = state.progress[message.sender]
    progress.acked_round = max(progress.acked_round, message.round)
    _release(state)


def _release(state: State) -> None:
    """Answer every round that a majority has confirmed."""
    if not state.read_rounds:
        return
    confirmed = quorum.acknowledged(
        [state.read_round if voter == state.id else state.progress[voter].acked_round for voter in state.voters]
    )
    while state.read_rounds and state.read_rounds[0].number <= confirmed:
        answered = state.read_rounds.popleft()
        for who, context in answered.reads:
            if who == state.id:
                state.reads.append(ReadState(context, answered.commit))
            else:
                asker = state.progress.get(who)
                if asker is not None:  # it cannot apply through there before it knows that it may
                    tell_commit(state, who, asker)
                state.send(ReadReply(who, state.id, state.term, context, answered.commit))
