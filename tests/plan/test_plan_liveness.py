"""Liveness: who is READY, DISCONNECTED, DOWN, and when tasks are given up; against a slow obvious twin."""

from __future__ import annotations

from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.ids import Instant, NodeId
from swarm.model.objects import Node, NodeStatus
from swarm.model.states import NodeState
from swarm.plan.liveness import (
    FINDING_PERIODS,
    GRACE_PERIODS,
    GRACE_PERIODS_UNKNOWN,
    HEARTBEAT_COST_S,
    HEARTBEAT_LOAD_MAX,
    ORPHAN_AFTER_S,
    BecomesDisconnected,
    BecomesDown,
    Liveness,
    TasksOrphaned,
    Transition,
    period_for,
)

A, B = NodeId("a"), NodeId("b")
WALL = Instant(1.8e9)
MIDDLE = 0.5
"""The chance that gives no jitter."""


def node(node_id: NodeId, state: NodeState = NodeState.READY, since: float = WALL) -> Node:
    return Node(node_id, status=NodeStatus(state=state, since=Instant(since)))


def watching(*nodes: Node, now: float = 0.0) -> Liveness:
    liveness = Liveness(5.0)
    liveness.watch(nodes, now, WALL)
    return liveness


def test_beats_keep_a_node_up_and_silence_takes_it_down() -> None:
    liveness = watching(node(A))
    liveness.registered(A, 0.0, MIDDLE)
    for second in range(5, 100, 5):
        assert liveness.due(second) == []
        assert liveness.beat(A, second, MIDDLE) == 5.0
    assert liveness.due(95 + 14.9) == []
    assert liveness.due(95 + 15.0) == [BecomesDown(A, 15.0)]
    assert liveness.state_of(A) is NodeState.DOWN
    assert liveness.due(1000.0) == []


def test_a_node_that_is_down_comes_back_by_registering() -> None:
    liveness = watching(node(A, NodeState.DOWN))
    liveness.registered(A, 10.0, MIDDLE)
    assert liveness.state_of(A) is NodeState.READY
    assert liveness.due(ORPHAN_AFTER_S + 1) == [BecomesDown(A, ORPHAN_AFTER_S + 1 - 10.0)], "and not ORPHANED"


def test_a_new_leader_gives_nodes_twice_the_grace_and_leaves_those_that_find_it_ready() -> None:
    liveness = watching(node(A), node(B, NodeState.DISCONNECTED))
    assert liveness.state_of(A) is NodeState.READY
    assert liveness.due(9.9) == []
    liveness.registered(A, 9.9, MIDDLE)
    assert liveness.due(24.8) == []
    assert liveness.due(30.0) == [BecomesDown(A, 20.1), BecomesDown(B, 30.0)]


def test_a_node_that_was_lost_with_the_old_leader_is_shown_before_it_is_down() -> None:
    liveness = watching(node(A))
    assert liveness.due(10.0) == [BecomesDisconnected(A)]
    assert liveness.state_of(A) is NodeState.DISCONNECTED
    assert liveness.due(29.9) == []
    assert liveness.due(30.0) == [BecomesDown(A, 30.0)]


def test_a_node_that_finds_the_new_leader_late_is_ready_again() -> None:
    liveness = watching(node(A))
    assert liveness.due(10.0) == [BecomesDisconnected(A)]
    liveness.registered(A, 11.0, MIDDLE)
    assert liveness.state_of(A) is NodeState.READY
    assert liveness.due(25.9) == []
    assert liveness.due(26.0) == [BecomesDown(A, 15.0)]


def test_a_lost_link_is_shown_at_once_and_the_deadline_stands() -> None:
    liveness = watching(node(A))
    liveness.registered(A, 0.0, MIDDLE)
    assert liveness.link_lost(A) == BecomesDisconnected(A)
    assert liveness.link_lost(A) is None
    assert liveness.link_lost(B) is None
    assert liveness.due(15.0) == [BecomesDown(A, 15.0)]


def test_tasks_are_given_up_a_day_after_the_stored_instant_whoever_leads() -> None:
    liveness = watching(node(A, NodeState.DOWN, since=WALL - 3600), node(B, NodeState.DOWN, since=WALL - 1e6))
    assert liveness.due(0.0) == [TasksOrphaned(B)]
    assert liveness.due(ORPHAN_AFTER_S - 3601) == []
    assert liveness.due(ORPHAN_AFTER_S - 3600) == [TasksOrphaned(A)]
    assert liveness.next_deadline() is None


def test_a_shorter_period_takes_effect_with_the_next_beat() -> None:
    liveness = watching(node(A))
    liveness.registered(A, 0.0, MIDDLE)
    liveness.set_period(1.0)
    assert liveness.beat(A, 1.0, MIDDLE) == 1.0
    assert liveness.due(4.0) == [BecomesDown(A, 3.0)]


def test_registering_too_often_is_refused_until_a_pause() -> None:
    liveness = watching(node(A))
    assert [liveness.may_register(A, at) for at in (0, 1, 2, 3, 9)] == [True, True, True, False, False]
    assert liveness.may_register(A, 10.0)


@given(st.integers(0, 1_000_000), st.floats(0.5, 60))
def test_heartbeats_never_cost_more_than_their_share_of_a_core(nodes: int, setting: float) -> None:
    period = period_for(setting, nodes)
    assert period >= setting
    assert nodes / period * HEARTBEAT_COST_S <= HEARTBEAT_LOAD_MAX * 1.000001
    assert period_for(5.0, 400) == 5.0


@given(st.floats(0, 1), st.floats(0.1, 60))
def test_jitter_is_half_a_second_at_most(chance: float, setting: float) -> None:
    liveness = Liveness(setting)
    liveness.watch([node(A)], 0.0, WALL)
    handed = liveness.registered(A, 0.0, chance)
    assert abs(handed - setting) <= min(0.5, setting * 0.1) + 1e-9


@define
class TwinNode:
    state: NodeState
    deadline: float
    heard: float
    sought: bool = False


class Twin:
    """The same rules by looking at every node every time."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, TwinNode] = {}

    def watch(self, fresh: Node, now: float) -> None:
        if fresh.id not in self.nodes:
            down, sought = fresh.status.state is NodeState.DOWN, fresh.status.state is NodeState.READY
            periods = FINDING_PERIODS if sought else GRACE_PERIODS_UNKNOWN
            grace = ORPHAN_AFTER_S - (WALL - fresh.status.since) if down else periods * self.period(1)
            self.nodes[fresh.id] = TwinNode(fresh.status.state, now + max(0.0, grace), now, sought)

    def period(self, extra: int = 0) -> float:
        return period_for(5.0, len(self.nodes) + extra)

    def beat(self, node_id: NodeId, now: float) -> None:
        self.nodes[node_id].heard = now
        self.nodes[node_id].deadline = now + GRACE_PERIODS * self.period()

    def due(self, now: float) -> list[Transition]:
        found: list[Transition] = []
        while True:
            passed = [(each.deadline, node_id) for node_id, each in self.nodes.items() if each.deadline <= now]
            if not passed:
                return found
            _, node_id = min(passed)
            each = self.nodes[node_id]
            if each.state is NodeState.DOWN:
                found.append(TasksOrphaned(node_id))
                each.deadline = float("inf")
            elif each.sought:
                found.append(BecomesDisconnected(node_id))
                each.state, each.sought = NodeState.DISCONNECTED, False
                each.deadline = each.heard + GRACE_PERIODS_UNKNOWN * self.period()
            else:
                found.append(BecomesDown(node_id, now - each.heard))
                each.state, each.deadline = NodeState.DOWN, now + ORPHAN_AFTER_S


IDS = st.sampled_from([NodeId(name) for name in "abcd"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["watch", "watch-down", "watch-ready", "register", "beat", "lost", "forget", "wait"]), IDS,
              st.floats(0, 12) | st.sampled_from([30.0, ORPHAN_AFTER_S])),
    max_size=60,
)  # fmt: skip


@given(STEPS)
def test_it_does_what_the_obvious_twin_does(steps: list[tuple[str, NodeId, float]]) -> None:
    liveness, twin, now = Liveness(5.0), Twin(), 0.0
    for verb, node_id, amount in steps:
        now += amount
        assert sorted(liveness.due(now), key=repr) == sorted(twin.due(now), key=repr)
        known = node_id in twin.nodes
        if verb.startswith("watch"):
            states = {"watch": NodeState.UNKNOWN, "watch-down": NodeState.DOWN, "watch-ready": NodeState.READY}
            fresh = node(node_id, states[verb], WALL - amount)
            liveness.watch([fresh], now, WALL)
            twin.watch(fresh, now)
        elif verb == "register" and known:
            liveness.registered(node_id, now, MIDDLE)
            twin.nodes[node_id].state, twin.nodes[node_id].sought = NodeState.READY, False
            twin.beat(node_id, now)
        elif verb == "beat" and known and twin.nodes[node_id].state is NodeState.READY:
            liveness.beat(node_id, now, MIDDLE)
            twin.beat(node_id, now)
        elif verb == "lost":
            lost = liveness.link_lost(node_id)
            assert (lost is not None) == (known and twin.nodes[node_id].state is NodeState.READY)
            if lost:
                twin.nodes[node_id].state = NodeState.DISCONNECTED
        elif verb == "forget":
            liveness.forget(node_id)
            twin.nodes.pop(node_id, None)
        assert {name: liveness.state_of(name) for name in twin.nodes} == {
            name: each.state for name, each in twin.nodes.items()
        }
        waiting = [each.deadline for each in twin.nodes.values() if each.deadline != float("inf")]
        if waiting:
            queued = liveness.next_deadline()
            assert queued is not None and queued <= min(waiting), "never wakes too late"
