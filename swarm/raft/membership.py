"""Changing who takes part: one member at a time, in force as soon as it is in the log (thesis 4.1).

A membership entry holds the whole membership, so that a restart, a snapshot or a replaced suffix needs no arithmetic.
Only a leader that has committed an entry of its own term may change it (Ongaro's correction of 2015), and only when the
change before is committed.
"""

from __future__ import annotations

from attrs import evolve

from swarm.raft.codec import encode_membership
from swarm.raft.config import REMOVED_MAX
from swarm.raft.errors import ChangePending, ChangeRefused, NotLeader, TransferInProgress
from swarm.raft.messages import (
    NOBODY,
    AddLearner,
    Commit,
    EntryKind,
    Index,
    Member,
    Membership,
    MembershipChange,
    Promote,
    RaftId,
    Removed,
    TimeoutNow,
    UpdateAddress,
)
from swarm.raft.progress import Progress
from swarm.raft.ready import Role
from swarm.raft.state import State


def change(state: State, wanted: MembershipChange) -> Index:
    """Append the changed membership; its index. Raises `NotLeader`, `TransferInProgress`, `ChangePending`, `ChangeRefused`."""
    if state.role is not Role.LEADER:
        raise NotLeader(state.leader)
    if state.transfer_target:
        raise TransferInProgress(state.transfer_target)
    log = state.log
    if not state.is_settled:
        raise ChangePending("the leader has not committed an entry of its own term yet", log.last_index)
    if log.membership_index > log.commit:
        raise ChangePending("another membership change is not committed yet", log.membership_index)
    changed = apply_change(log.membership, wanted)
    state.append(EntryKind.MEMBERSHIP, [encode_membership(changed)])
    return log.last_index


def apply_change(membership: Membership, wanted: MembershipChange) -> Membership:
    """The membership after one change; `ChangeRefused` when it does not make sense."""
    members = {member.raft_id: member for member in membership.members}
    if isinstance(wanted, AddLearner):
        _check_new(membership, wanted.member)
        members[wanted.member.raft_id] = evolve(wanted.member, learner=True)
        return _membership(members, membership.removed)
    present = members.get(wanted.raft_id)
    if present is None:
        raise ChangeRefused(f"{wanted.raft_id:x} is no member")
    if isinstance(wanted, Promote):
        if not present.learner:
            raise ChangeRefused(f"{wanted.raft_id:x} is a voter already")
        members[wanted.raft_id] = evolve(present, learner=False)
        return _membership(members, membership.removed)
    if isinstance(wanted, UpdateAddress):
        members[wanted.raft_id] = evolve(present, address=wanted.address)
        return _membership(members, membership.removed)
    if membership.voters == {wanted.raft_id}:
        raise ChangeRefused(f"{wanted.raft_id:x} is the only voter: without it there is no cluster")
    del members[wanted.raft_id]
    return _membership(members, (*membership.removed, wanted.raft_id)[-REMOVED_MAX:])


def _check_new(membership: Membership, member: Member) -> None:
    if member.raft_id == NOBODY:
        raise ChangeRefused("0 is no member number")
    if member.raft_id in membership.removed:
        raise ChangeRefused(f"{member.raft_id:x} was removed; a member that comes back needs a new number")
    if membership.find(member.raft_id) is not None:
        raise ChangeRefused(f"{member.raft_id:x} is a member already")


def _membership(members: dict[RaftId, Member], removed: tuple[RaftId, ...]) -> Membership:
    return Membership(tuple(members[raft_id] for raft_id in sorted(members)), removed)


def promote_when_caught_up(state: State, raft_id: RaftId, progress: Progress) -> None:
    """Leader: make a learner a voter that has caught up within one election timeout (thesis 4.2.1).

    Catching up goes in rounds: each replicates what the log held when it began. A round that is short enough means that
    the cluster would not wait long for the new voter. When another change is under way, a later acknowledgement tries again.
    """
    member = state.log.membership.find(raft_id)
    if member is None or not member.learner or progress.match < progress.round_target:
        return
    if state.ticks - progress.round_started > state.config.election_ticks:
        progress.round_target, progress.round_started = state.log.last_index, state.ticks
        return
    try:
        change(state, Promote(raft_id))
    except (ChangePending, TransferInProgress):
        progress.round_started = state.ticks


def commit_to(state: State, index: Index) -> None:
    """Everything through `index` is committed; a membership among it takes its last effects."""
    log = state.log
    before = log.commit
    if index <= before:
        return
    log.commit = index
    if state.incoming is not None and state.incoming.meta.index <= index:
        state.incoming = None
    if state.role is Role.LEADER:
        state.uncommitted_bytes -= sum([len(entry.data) for entry in log.slice(before + 1, index, 1 << 62, 1 << 62)])
    if log.membership_index <= before:
        return
    old, new = log.membership_at(before), log.membership_at(index)
    if new is old:
        return
    if state.role is Role.LEADER:
        _tell_removed(state, old, new)
    if state.id in new.removed:
        _leave(state)


def _tell_removed(state: State, old: Membership, new: Membership) -> None:
    """The removed learn it from the leader, which no longer sends them entries."""
    for raft_id in new.removed:
        if raft_id not in old.removed and raft_id != state.id:
            state.send(Removed(raft_id, state.id, state.term))


def _leave(state: State) -> None:
    """This member's own removal is committed. A leader leads until then (thesis 4.2.2) and names its successor."""
    if state.role is Role.LEADER:
        for raft_id, progress in sorted(state.progress.items()):
            state.send(Commit(raft_id, state.id, state.term, min(progress.match, state.log.commit)))
        heirs = [raft_id for raft_id in state.others if state.progress[raft_id].active]
        if heirs:
            heir = max(heirs, key=lambda raft_id: (state.progress[raft_id].match, -raft_id))
            state.send(TimeoutNow(heir, state.id, state.term))
    retire(state)


def retire(state: State) -> None:
    """This member was removed: it neither votes nor campaigns any more."""
    state.removed = True
    state.step_back(state.term, NOBODY)


def on_removed(state: State, message: Removed) -> None:
    """A member says that this one's removal is committed."""
    retire(state)
