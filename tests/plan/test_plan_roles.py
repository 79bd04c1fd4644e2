"""From desired to observed roles: every case of the table, and the order that keeps voters' certificates safe."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.changes import Update
from swarm.model.ids import NodeId, RaftId
from swarm.model.objects import ManagerStatus, Node
from swarm.model.specs import NodeSpec
from swarm.model.states import Role
from swarm.plan.roles import RaftMember, RemoveMember, role_steps

MEMBER = RaftMember(RaftId(7), NodeId("n"), "10.0.0.1:4242")
STATUS = ManagerStatus(RaftId(7), "10.0.0.1:4242")


def node(desired: Role, observed: Role, manager: ManagerStatus | None = None) -> Node:
    return Node(NodeId("n"), NodeSpec(desired_role=desired), role=observed, manager=manager)


def test_a_promoted_worker_becomes_a_manager_at_once() -> None:
    (step,) = role_steps([node(Role.MANAGER, Role.WORKER)], [])
    assert step == Update(node(Role.MANAGER, Role.MANAGER))


def test_a_manager_that_joined_gets_its_raft_side_recorded() -> None:
    (step,) = role_steps([node(Role.MANAGER, Role.MANAGER)], [MEMBER])
    assert step == Update(node(Role.MANAGER, Role.MANAGER, STATUS))


def test_a_manager_with_a_new_address_is_updated() -> None:
    moved = evolve(MEMBER, address="10.0.0.9:4242")
    (step,) = role_steps([node(Role.MANAGER, Role.MANAGER, STATUS)], [moved])
    assert step == Update(node(Role.MANAGER, Role.MANAGER, ManagerStatus(RaftId(7), "10.0.0.9:4242")))


def test_a_demoted_manager_leaves_raft_before_it_is_a_worker() -> None:
    demoted = node(Role.WORKER, Role.MANAGER, STATUS)
    (first,) = role_steps([demoted], [MEMBER])
    assert isinstance(first, RemoveMember) and first.member == MEMBER
    (second,) = role_steps([demoted], [])
    assert second == Update(node(Role.WORKER, Role.WORKER))


def test_a_member_without_a_node_is_evicted() -> None:
    (step,) = role_steps([], [MEMBER])
    assert isinstance(step, RemoveMember) and step.member == MEMBER


def test_nothing_is_done_when_all_is_as_it_should_be() -> None:
    assert not list(role_steps([node(Role.MANAGER, Role.MANAGER, STATUS)], [MEMBER]))
    assert not list(role_steps([node(Role.WORKER, Role.WORKER)], []))


roles = st.sampled_from(Role)


@given(roles, roles, st.booleans(), st.booleans())
def test_steps_end_with_the_wanted_role_and_never_a_worker_that_votes(
    desired: Role, observed: Role, member: bool, recorded: bool
) -> None:
    present = node(desired, observed, STATUS if recorded else None)
    members = [MEMBER] if member else []
    for _ in range(4):
        steps = list(role_steps([present], members))
        if not steps:
            break
        (step,) = steps
        if isinstance(step, RemoveMember):
            members.remove(step.member)
        else:
            assert isinstance(step.object, Node)
            assert step.object.role is Role.MANAGER or not members
            present = step.object
    assert not list(role_steps([present], members))
    assert present.role is desired
