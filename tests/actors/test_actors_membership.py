"""Joining, leaving and the quorum arithmetic, on an in-memory network under virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from raft_cluster import Dialler, Node, SeededEntropy, Switchboard

from swarm.actors.membership import CheckDemotion, MembershipActor
from swarm.actors.raft_messages import ChangeMembership, MembershipVerb
from swarm.actors.raft_start import MemberStart
from swarm.model.ids import NodeId, RaftId
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.ref import Caller
from swarm.runtime.scope import Scope
from swarm.wire.messages.raft import JoinRaft, LeaveRaft, Member, Membership


async def add_actor(node: Node, scope: Scope) -> None:
    dialler = Dialler(node.board, node)
    entropy = SeededEntropy(node.number)
    node.actors["membership"] = await scope.start(
        "membership", lambda: MembershipActor(node.raft, dialler, entropy, name_of=lambda id: f"m{id[4:]}")
    )


async def join(leader: Node, node: Node, address: str = "", raft_id: int = 0) -> Membership:
    request = JoinRaft(address or node.address, RaftId(raft_id))
    caller = Caller(node.name, "manager", "cluster", f"host{node.number}:55555")
    return await leader.actors["membership"].ask(request, timeout_s=30, caller=caller)


async def start_joined(board: Switchboard, number: int) -> Node:
    """A node that listens before it joins, as a manager does; its number is the one that it is given."""
    leader = await board.leader()
    node = board.add(number)
    node.up = True
    membership = await join(leader, node)
    node.up = False
    node.raft_id = membership.raft_id
    await node.start(MemberStart(node.me, members=membership.members))
    await voters(leader, number)
    return node


async def voters(leader: Node, count: int) -> None:
    with trio.fail_after(10):
        view = await leader.status()
        while view.pending_change or sum(not member.learner for member in view.members) != count:
            await trio.sleep(0.01)
            view = await leader.status()


async def cluster(nursery: trio.Nursery, size: int) -> Switchboard:
    board = Switchboard(nursery, seed=1)
    board.on_start = add_actor
    first = board.add(1)
    await first.start(MemberStart(first.me, found=True))
    for number in range(2, size + 1):
        await start_joined(board, number)
    return board


@pytest.fixture
async def board(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Switchboard:
    return await cluster(nursery, 3)


async def test_joining_makes_learners_and_then_voters(board: Switchboard) -> None:
    leader = await board.leader()
    await leader.propose(b"x")
    await board.agree()
    view = await leader.status()
    assert len(view.members) == 3 and not any(member.learner for member in view.members)
    assert len({member.raft_id for member in view.members}) == 3


async def test_joining_again_changes_nothing(board: Switchboard) -> None:
    leader = await board.leader()
    node = board.nodes[2]
    before = (await leader.status()).last_index
    assert (await join(leader, node, raft_id=node.raft_id)).raft_id == node.raft_id
    assert (await leader.status()).last_index == before


async def test_a_member_that_moved_is_followed_everywhere(board: Switchboard) -> None:
    leader = await board.leader()
    node = next(node for node in board.nodes.values() if node is not leader)
    await node.crash()
    node.address = "elsewhere:4242"
    await node.start()
    await join(leader, node, raft_id=node.raft_id)
    await board.agree()
    for other in board.nodes.values():
        found = [member.address for member in (await other.status()).members if member.node_id == node.name]
        assert found == ["elsewhere:4242"]


async def test_a_node_that_lost_its_log_gets_another_number(board: Switchboard) -> None:
    """A voter that forgot its votes and acknowledgements must not count under its old number."""
    leader = await board.leader()
    node = next(node for node in board.nodes.values() if node is not leader)
    old = node.raft_id
    await node.crash()
    await node.disk.erase()
    node.up = True
    membership = await join(leader, node)
    node.up = False
    assert membership.raft_id != old
    assert [member.raft_id for member in membership.members if member.node_id == node.name] == [membership.raft_id]
    node.raft_id = membership.raft_id
    await node.start(MemberStart(node.me, members=membership.members))
    await voters(leader, 3)
    await board.agree()


async def test_an_unspecified_host_is_where_the_caller_was_seen(board: Switchboard) -> None:
    leader = await board.leader()
    node = board.add(4)
    node.up = True
    membership = await join(leader, node, "0.0.0.0:4242")
    assert [member.address for member in membership.members if member.node_id == "node4"] == ["host4:4242"]


async def test_who_cannot_be_reached_is_not_let_in(board: Switchboard) -> None:
    leader = await board.leader()
    node = board.add(4)
    with pytest.raises(SwarmError, match="cannot reach the new manager at host4:4242") as caught:
        await join(leader, node)
    assert caught.value.code is ErrorCode.PRECONDITION
    with pytest.raises(SwarmError, match="node node2 answers at host2:4242, not node4"):
        await join(leader, node, "host2:4242")
    assert len((await leader.status()).members) == 3


@pytest.mark.parametrize("address", ["host4", "host4:0", "host4:http", "::1:4242"])
async def test_a_bad_address_is_refused_with_a_reason(board: Switchboard, address: str) -> None:
    leader = await board.leader()
    with pytest.raises(SwarmError) as caught:
        await join(leader, board.add(4), address)
    assert caught.value.code is ErrorCode.INVALID and address in caught.value.text


async def test_only_nodes_with_an_identity_join(board: Switchboard) -> None:
    leader = await board.leader()
    with pytest.raises(SwarmError) as caught:
        await leader.actors["membership"].ask(JoinRaft("host9:1"), timeout_s=5)
    assert caught.value.code is ErrorCode.DENIED


async def test_a_follower_names_the_leader(board: Switchboard) -> None:
    leader = await board.leader()
    follower = next(node for node in board.nodes.values() if node is not leader)
    with pytest.raises(SwarmError) as caught:
        await follower.actors["membership"].ask(LeaveRaft(RaftId(7)), timeout_s=5)
    assert caught.value.code is ErrorCode.NOT_LEADER and caught.value.details == {"leader": leader.address}


async def test_followers_leave_one_after_the_other(board: Switchboard) -> None:
    leader = await board.leader()
    for node in [node for node in board.nodes.values() if node is not leader]:
        await leader.actors["membership"].ask(LeaveRaft(node.raft_id), timeout_s=10)
        await leader.actors["membership"].ask(LeaveRaft(node.raft_id), timeout_s=10)
        await node.stop()
    await leader.propose(b"alone")
    with pytest.raises(SwarmError, match="m1 is the only manager"):
        await leader.actors["membership"].ask(LeaveRaft(leader.raft_id), timeout_s=10)


async def test_the_leader_hands_over_before_it_is_taken_out(board: Switchboard) -> None:
    leader = await board.leader()
    await leader.actors["membership"].ask(LeaveRaft(leader.raft_id), timeout_s=10)
    successor = await board.leader()
    assert successor is not leader
    view = await successor.status()
    assert leader.name not in [member.node_id for member in view.members]


async def test_the_quorum_is_protected_with_the_arithmetic_shown(board: Switchboard) -> None:
    """Behaviour 1.7: of three with one down, the dead one may go, a live one may not."""
    leader = await board.leader()
    dead, live = [node for node in board.nodes.values() if node is not leader]
    await dead.crash()
    await trio.sleep(0.1)
    membership = leader.actors["membership"]
    with pytest.raises(SwarmError) as caught:
        await membership.ask(LeaveRaft(live.raft_id), timeout_s=10)
    assert caught.value.code is ErrorCode.PRECONDITION
    arithmetic = f"3 managers, 2 reachable: removing m{live.number} would leave 1 of 2, and 2 are needed"
    assert caught.value.text.startswith(arithmetic)
    with pytest.raises(SwarmError, match="would leave 1 of 2"):
        await membership.ask(CheckDemotion(NodeId(live.name)), timeout_s=10)
    await membership.ask(CheckDemotion(NodeId(dead.name)), timeout_s=10)
    with pytest.raises(SwarmError) as caught:
        await membership.ask(CheckDemotion(NodeId("nobody")), timeout_s=10)
    assert caught.value.code is ErrorCode.NOT_FOUND
    await membership.ask(LeaveRaft(dead.raft_id), timeout_s=10)
    await leader.propose(b"two are left")


async def test_force_goes_against_the_arithmetic_and_is_done_when_one_is_back(board: Switchboard) -> None:
    leader = await board.leader()
    dead, live = [node for node in board.nodes.values() if node is not leader]
    await dead.crash()
    await trio.sleep(0.1)
    async with trio.open_nursery() as nursery:
        request = LeaveRaft(live.raft_id, force=True)
        nursery.start_soon(lambda: leader.actors["membership"].ask(request, timeout_s=10))
        await trio.sleep(0.2)
        await dead.start()
    assert {member.node_id for member in (await leader.status()).members} == {leader.name, dead.name}


async def test_a_learner_goes_without_arithmetic(board: Switchboard) -> None:
    leader = await board.leader()
    learner = Member(RaftId(99), NodeId("node99"), "host99:1")
    await leader.raft.ask(ChangeMembership(MembershipVerb.ADD_LEARNER, learner), timeout_s=5)
    await leader.actors["membership"].ask(LeaveRaft(RaftId(99)), timeout_s=5)
    assert len((await leader.status()).members) == 3


async def test_joins_at_the_same_time_wait_for_each_other(board: Switchboard) -> None:
    leader = await board.leader()
    fresh = [board.add(number) for number in (4, 5, 6)]
    joined: list[Membership] = []

    async def one(node: Node) -> None:
        node.up = True
        joined.append(await join(leader, node))

    async with trio.open_nursery() as nursery:
        for node in fresh:
            nursery.start_soon(one, node)
    assert len({membership.raft_id for membership in joined}) == 3
    assert len((await leader.status()).members) == 6
