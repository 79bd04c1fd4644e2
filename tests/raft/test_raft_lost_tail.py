"""A member whose disk lost the end of what it had acknowledged is fed again, by a leader that believed it had everything.

The paper assumes that disks keep what they flushed (section 5.2, "persistent state"); one that does not costs a member its
place in the quorum for a moment, and must not cost it its place in the cluster.
"""

from __future__ import annotations

import pytest
from attrs import evolve
from raft_net import Network


@pytest.mark.parametrize("lost", [1, 3])
def test_a_follower_that_lost_acknowledged_entries_gets_them_again_though_nothing_new_is_written(lost: int) -> None:
    net = Network(seed=1, size=3)
    while net.leader() is None:
        net.quiet_tick()
    for _ in range(6):
        net.propose()
        net.exchange()
    leader = net.leader()
    assert leader is not None
    follower = next(node for node in net.nodes.values() if node.id != leader.id)
    held = list(follower.disk.entries)
    assert held == leader.disk.entries
    follower.crash()
    follower.disk.entries = held[:-lost]
    hard_state = follower.disk.hard_state
    follower.disk.hard_state = evolve(hard_state, commit=min(hard_state.commit, held[-lost - 1].index))
    follower.start()
    for _ in range(40):
        net.quiet_tick()
    assert net.leader() is leader, "no new term was needed"
    assert follower.disk.entries == held
    assert follower.applied == leader.applied
