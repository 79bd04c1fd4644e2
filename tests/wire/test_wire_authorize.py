"""Every grant and every refusal of `authorize`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swarm.wire.messages.ca
import swarm.wire.messages.control
import swarm.wire.messages.dispatcher
import swarm.wire.messages.node
import swarm.wire.messages.raft  # noqa: F401
from swarm.ca.identity import ANONYMOUS, LOCAL, Peer, PeerRole
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.authorize import authorize
from swarm.wire.registry import At, Lane, WireMessage, by_tag, declared

HERE = "cluster-a"
WORKER = Peer(PeerRole.WORKER, "w1", HERE)
MANAGER = Peer(PeerRole.MANAGER, "m1", HERE)
FOREIGN = Peer(PeerRole.MANAGER, "m9", "cluster-b")


def message(tag: str) -> WireMessage:
    found = by_tag(tag)
    assert found is not None
    return found


def refusal(tag: str, direct: Peer, forwarded: Peer | None = None, removed: frozenset[str] = frozenset()) -> str:
    with pytest.raises(SwarmError) as caught:
        authorize(message(tag), direct, forwarded, HERE, removed)
    assert caught.value.code is ErrorCode.DENIED
    assert tag in caught.value.text
    return caught.value.text


@pytest.mark.parametrize(
    ("tag", "direct"),
    [
        ("dispatcher.heartbeat", WORKER),
        ("dispatcher.heartbeat", MANAGER),
        ("raft.messages", MANAGER),
        ("agent.logs", MANAGER),
        ("ca.root", ANONYMOUS),
        ("ca.join", ANONYMOUS),
        ("node.status", ANONYMOUS),
        ("node.stop", LOCAL),
        ("control.service.create", LOCAL),
        ("control.service.create", MANAGER),
    ],
)
def test_the_direct_peer_is_the_caller(tag: str, direct: Peer) -> None:
    assert authorize(message(tag), direct, None, HERE, frozenset()) == direct


@pytest.mark.parametrize(
    ("tag", "direct"),
    [
        ("raft.messages", WORKER),
        ("raft.messages", LOCAL),
        ("raft.messages", ANONYMOUS),
        ("control.service.create", WORKER),
        ("control.service.create", ANONYMOUS),
        ("node.stop", MANAGER),
        ("agent.logs", WORKER),
        ("dispatcher.heartbeat", ANONYMOUS),
        ("ca.renew", LOCAL),
    ],
)
def test_a_wrong_role_is_refused_with_the_right_ones(tag: str, direct: Peer) -> None:
    text = refusal(tag, direct)
    assert all(role.value in text for role in message(tag).roles)


def test_another_clusters_certificate_is_refused() -> None:
    assert "cluster-b" in refusal("raft.messages", FOREIGN)
    assert "cluster-b" in refusal("ca.root", FOREIGN)


def test_a_removed_node_is_refused_everything() -> None:
    for tag in ("dispatcher.heartbeat", "ca.root", "ca.renew"):
        assert "removed" in refusal(tag, WORKER, removed=frozenset({"w1"}))


def test_a_forwarded_caller_counts_from_a_manager() -> None:
    assert authorize(message("dispatcher.heartbeat"), MANAGER, WORKER, HERE, frozenset()) == WORKER
    assert authorize(message("ca.join"), MANAGER, ANONYMOUS, HERE, frozenset()) == ANONYMOUS
    local = Peer(PeerRole.LOCAL, "m1", HERE)
    assert authorize(message("control.service.create"), MANAGER, local, HERE, frozenset()) == local


def test_a_forwarded_caller_does_not_count_from_anybody_else() -> None:
    for direct in (WORKER, ANONYMOUS, LOCAL):
        assert "no manager" in refusal("dispatcher.heartbeat", direct, WORKER)
    assert "cluster-b" in refusal("dispatcher.heartbeat", FOREIGN, WORKER)
    assert "removed" in refusal("dispatcher.heartbeat", MANAGER, WORKER, removed=frozenset({"m1"}))


def test_a_manager_cannot_lend_its_role() -> None:
    assert "worker w1" in refusal("control.service.create", MANAGER, WORKER)


def test_only_what_the_leader_answers_is_forwarded() -> None:
    for tag in ("agent.logs", "raft.messages", "node.stop", "ca.root"):
        assert "leader" in refusal(tag, MANAGER, MANAGER)


def test_a_node_without_a_cluster_takes_no_certificate() -> None:
    with pytest.raises(SwarmError):
        authorize(message("ca.root"), Peer(PeerRole.MANAGER, "m1", ""), None, "", frozenset())


_peers = st.builds(Peer, st.sampled_from(PeerRole), st.sampled_from(["", "w1", "m1"]), st.sampled_from(["", HERE, "x"]))


@given(
    st.sampled_from(declared()),
    _peers,
    st.none() | _peers,
    st.frozensets(st.sampled_from(["w1", "m1"])),
)
def test_whatever_is_granted_is_granted_to_a_listed_role_of_this_cluster(
    what: WireMessage, direct: Peer, forwarded: Peer | None, removed: frozenset[str]
) -> None:
    try:
        caller = authorize(what, direct, forwarded, HERE, removed)
    except SwarmError as refused:
        assert refused.code is ErrorCode.DENIED
        return
    assert caller.role in what.roles
    for peer in {direct, caller}:
        if peer.role in (PeerRole.WORKER, PeerRole.MANAGER):
            assert peer.cluster_id == HERE
            assert peer.node_id
            assert peer.node_id not in removed
    if forwarded is not None:
        assert direct.role is PeerRole.MANAGER
        assert what.at is At.LEADER
    else:
        assert caller == direct


def test_a_declaration_for_a_lane_keeps_it() -> None:
    assert message("raft.bulk").lane is Lane.BULK
