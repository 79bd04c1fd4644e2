"""When a caller may let several ticks pass at once: only while heartbeats alone keep things as they are."""

from __future__ import annotations

import pytest
from raft_net import SMALL, Network


def settled(seed: int = 1) -> Network:
    net = Network(seed, 3)
    net.settle()
    net.settle()
    return net


def test_a_cluster_with_nothing_under_way_is_quiet() -> None:
    assert all(node.raft.is_quiet for node in settled().nodes.values())


def test_an_entry_under_way_a_lost_leader_and_an_election_are_not_quiet() -> None:
    net = settled()
    leader = net.leader()
    assert leader is not None
    leader.raft.propose(b"x", term=None)
    assert not leader.raft.is_quiet
    net.settle()
    follower = next(node for node in net.nodes.values() if node is not leader)
    follower.raft.hint_leader_lost(leader.id)
    assert not follower.raft.is_quiet


@pytest.mark.parametrize("seed", range(5))
def test_ticks_that_pass_by_heartbeats_cause_no_election(seed: int) -> None:
    net = settled(seed)
    terms = {node.raft.status.term for node in net.nodes.values()}
    for _ in range(200):
        for node in net.up():
            for _ in range(SMALL.heartbeat_ticks if node.raft.is_quiet else 1):
                node.raft.tick()
        net.exchange()
        net.check()
    assert {node.raft.status.term for node in net.nodes.values()} == terms
