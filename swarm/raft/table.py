"""What a message of the present term means to a member in each role: one complete table, so that nothing is skipped unseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarm.raft import election, membership, read_index, replication, snapshot
from swarm.raft.errors import InvariantBroken
from swarm.raft.messages import (
    Append,
    AppendReply,
    Commit,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    RaftMessage,
    ReadReply,
    ReadRequest,
    Removed,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from swarm.raft.ready import Role
from swarm.raft.state import State

Handler = Callable[[State, Any], None]


def _out_of_date(state: State, message: RaftMessage) -> None:
    """It was meant for a role that this member had, or is an answer that came too late."""


def _two_leaders(state: State, message: RaftMessage) -> None:
    raise InvariantBroken(f"{message.sender:x} and {state.id:x} both lead term {state.term}")


_ANY_ROLE: dict[type[RaftMessage], Handler] = {
    PreVote: election.on_pre_vote,
    Vote: election.on_vote,
    Removed: membership.on_removed,
}
_LED: dict[type[RaftMessage], Handler] = {
    Append: replication.on_append,
    Heartbeat: replication.on_heartbeat,
    Commit: replication.on_commit,
    SnapshotChunk: snapshot.on_chunk,
    TimeoutNow: election.on_timeout_now,
    ReadReply: read_index.on_reply,
}
TO_LEADER: dict[type[RaftMessage], Handler] = {
    AppendReply: replication.on_append_reply,
    HeartbeatReply: replication.on_heartbeat_reply,
    SnapshotReply: snapshot.on_reply,
    ReadRequest: read_index.on_request,
}
_NOT_TO_LEADER: dict[type[RaftMessage], Handler] = dict.fromkeys(TO_LEADER, _out_of_date)

TABLE: dict[Role, dict[type[RaftMessage], Handler]] = {
    Role.FOLLOWER: {
        **_ANY_ROLE,
        **_LED,
        **_NOT_TO_LEADER,
        PreVoteReply: _out_of_date,
        VoteReply: _out_of_date,
    },
    Role.PRE_CANDIDATE: {
        **_ANY_ROLE,
        **_LED,
        **_NOT_TO_LEADER,
        PreVoteReply: election.on_pre_vote_reply,
        VoteReply: _out_of_date,
    },
    Role.CANDIDATE: {
        **_ANY_ROLE,
        **_LED,
        **_NOT_TO_LEADER,
        PreVoteReply: _out_of_date,
        VoteReply: election.on_vote_reply,
    },
    Role.LEADER: {
        **_ANY_ROLE,
        **dict.fromkeys(_LED, _two_leaders),
        **TO_LEADER,
        ReadReply: _out_of_date,
        PreVoteReply: _out_of_date,
        VoteReply: _out_of_date,
    },
}
"""What a message of the present term means to a member in each role. Complete: every role has every message."""
