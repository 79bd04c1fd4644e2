"""A manager that is cut off: it answers no read that could be old, and what it would have answered is recognised as old."""

from __future__ import annotations

import time

import pytest
from attrs import evolve
from chaos_cluster import ChaosCluster

from swarm.model.ids import NodeId
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.testing.daemons import wait_until
from swarm.testing.linearizable import Kind, Operation, check
from swarm.wire.messages.control import GetNode, UpdateNode

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

SETTLE_S = 20.0


def label(three: ChaosCluster, through: str, stale: bool = False) -> str | None:
    """The register, as this manager tells it."""
    return three.ask(through, GetNode(NodeId(three.ids["m1"]), stale=stale)).node.spec.labels.get("cut")


def set_label(three: ChaosCluster, through: str, value: str) -> None:
    """By the version that a read just saw."""
    node = three.ask(through, GetNode(NodeId(three.ids["m1"]))).node
    new = evolve(node.spec, labels={**node.spec.labels, "cut": value})
    three.ask(through, UpdateNode(node.id, node.version, new))


def try_to_set(three: ChaosCluster, through: str, value: str) -> bool:
    """Whether it was acknowledged."""
    try:
        set_label(three, through, value)
    except SwarmError:
        return False
    return True


@pytest.mark.parametrize("who", ["the leader", "a follower"])
def test_a_manager_that_is_cut_off_answers_no_read_from_the_past(three: ChaosCluster, who: str) -> None:
    if three.net is None:
        pytest.skip(f"no network namespaces here: {three.why}")
    wait_until(lambda: try_to_set(three, "m1", f"before {who}"), "a leader leads", SETTLE_S)
    leader = three.leader()
    assert leader is not None
    cut = leader if who == "the leader" else next(name for name in three.managers if name != leader)
    other = next(name for name in three.managers if name != cut)
    wait_until(lambda: label(three, cut, stale=True) == f"before {who}", f"{cut} knows it")
    at = time.monotonic()
    history = [Operation("c", "cut", Kind.WRITE, f"before {who}", at - 2, at - 1)]
    three.net.split([cut], [name for name in three.managers if name != cut])
    try:
        wait_until(lambda: try_to_set(three, other, f"after {who}"), "the others carry on", SETTLE_S)
        done = time.monotonic()
        history.append(Operation("c", "cut", Kind.WRITE, f"after {who}", at, done))
        assert check(history) is None
        old = label(three, cut, stale=True)
        assert old == f"before {who}", "it cannot know better"
        assert check([*history, Operation("c", "cut", Kind.READ, old, done + 1, done + 2)]) is not None
        with pytest.raises(SwarmError) as refused:
            label(three, cut)
        assert refused.value.code in (ErrorCode.UNAVAILABLE, ErrorCode.NOT_LEADER, ErrorCode.TIMEOUT)
    finally:
        three.net.heal()
    wait_until(lambda: try_read(three, cut) == f"after {who}", f"{cut} is back", SETTLE_S)


def try_read(three: ChaosCluster, through: str) -> str | None:
    """None when there is no answer."""
    try:
        return label(three, through)
    except SwarmError:
        return None
