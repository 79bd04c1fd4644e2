"""Handing leadership over (thesis 3.10): stop taking proposals, bring the target up to date, tell it to campaign now.

Given up after an election timeout, so that a target that fails costs no more than that.
"""

from __future__ import annotations

from swarm.raft.errors import NotLeader, NoTransferTarget
from swarm.raft.messages import NOBODY, RaftId, TimeoutNow
from swarm.raft.progress import ProgressState
from swarm.raft.ready import Role
from swarm.raft.state import State


def start(state: State, target: RaftId | None) -> RaftId:
    """Begin; who takes over. None picks the live voter that is furthest. Raises `NotLeader`, `NoTransferTarget`.

    Asked again for another target, the newer wish counts; for the same one, nothing happens.
    """
    if state.role is not Role.LEADER:
        raise NotLeader(state.leader)
    chosen = _choose(state, target)
    if chosen == state.transfer_target:
        return chosen
    state.transfer_target = chosen
    state.transfer_elapsed = 0
    hand_over_when_ready(state, chosen)
    return chosen


def _choose(state: State, target: RaftId | None) -> RaftId:
    if target is not None:
        if target not in state.others:
            raise NoTransferTarget(f"{target:x} is no other voter of this cluster")
        return target
    live = [raft_id for raft_id in state.others if state.progress[raft_id].active]
    if not live:
        raise NoTransferTarget("no other voter answers")
    usable = [raft_id for raft_id in live if state.progress[raft_id].state is ProgressState.REPLICATE] or live
    return max(usable, key=lambda raft_id: (state.progress[raft_id].match, -raft_id))


def hand_over_when_ready(state: State, raft_id: RaftId) -> None:
    """The target has everything: it may win now."""
    if raft_id == state.transfer_target and state.progress[raft_id].match == state.log.last_index:
        state.send(TimeoutNow(raft_id, state.id, state.term))


def tick(state: State) -> None:
    """Give up after an election timeout and take proposals again."""
    if state.transfer_target == NOBODY:
        return
    state.transfer_elapsed += 1
    if state.transfer_elapsed >= state.config.election_ticks or state.transfer_target not in state.progress:
        state.transfer_target = NOBODY
