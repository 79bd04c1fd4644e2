"""The Raft member as an actor: group commit, failover, handover, joining, full disks, snapshots; under virtual time."""

from __future__ import annotations

import statistics

import pytest
import trio
import trio.testing
from raft_cluster import Dialler, ListStore, SeededEntropy, Switchboard, grow, open_cluster

from swarm.actors.raft_member import RaftMember
from swarm.actors.raft_messages import (
    ChangeMembership,
    Leadership,
    MembershipVerb,
    Propose,
    ReadIndex,
    SetCompaction,
    TransferLeadership,
    WatchLeadership,
)
from swarm.actors.raft_start import MemberStart
from swarm.model.ids import RaftId
from swarm.ports.log_store import LogDamaged
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.scope import open_scope


async def test_a_single_member_leads_at_once_and_commits(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(1) as board:
        assert trio.current_time() < 0.1, "nobody else to wait for"
        node = board.nodes[1]
        assert await node.propose(b"one") > 0
        assert node.data == [b"one"]


async def test_three_members_replicate(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        for number in range(50):
            await leader.propose(b"%d" % number)
        await board.agree()
        assert board.nodes[3].data == [b"%d" % number for number in range(50)]


async def propose_until_done(board: Switchboard, data: bytes, within_s: float = 10.0) -> None:
    """As a client that asks every manager until one takes it."""
    with trio.fail_after(within_s):
        while True:
            for node in list(board.nodes.values()):
                if not node.up or node.number in board.mute:
                    continue
                try:
                    await node.propose(data, timeout_s=0.5)
                except SwarmError:
                    continue
                return
            await trio.sleep(0.005)


async def test_a_crashed_leader_is_replaced_long_before_an_election_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    took = []
    for seed in range(10):
        async with open_cluster(3, seed) as board:
            leader = await board.leader()
            await leader.propose(b"before")
            await leader.crash()
            began = trio.current_time()
            await propose_until_done(board, b"after")
            took.append(trio.current_time() - began)
            await board.agree()
            assert next(node for node in board.nodes.values() if node.up).data == [b"before", b"after"]
    assert statistics.median(took) < 0.3 and max(took) < 1.2, took


async def test_a_leader_that_falls_silent_is_replaced_within_three_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for seed in range(5):
        async with open_cluster(3, seed) as board:
            leader = await board.leader()
            board.mute.add(leader.number)
            began = trio.current_time()
            await propose_until_done(board, b"after")
            assert trio.current_time() - began < 3.0
            board.heal()
            await board.agree()


async def test_an_isolated_follower_disturbs_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """Thesis 9.6: its pre-votes fail, its term stays, and the leader goes on when it comes back."""
    async with open_cluster(3) as board:
        leader = await board.leader()
        term = (await leader.status()).term
        follower = next(node for node in board.nodes.values() if node is not leader)
        board.isolate(follower.number)
        await trio.sleep(30)
        await leader.propose(b"while it was away")
        board.heal()
        await board.agree()
        assert (await leader.status()).term == term and (await leader.status()).role == "leader"


async def test_a_leader_without_a_quorum_steps_down_and_refuses(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        others = [node for node in board.nodes.values() if node is not leader]
        for node in others:
            await node.crash()
        with pytest.raises(SwarmError) as caught:
            await leader.propose(b"lost", timeout_s=30)
        assert caught.value.code is ErrorCode.UNAVAILABLE and "not known" in caught.value.text
        with pytest.raises(SwarmError) as caught:
            await leader.raft.ask(ReadIndex(), timeout_s=30)
        assert caught.value.code is ErrorCode.UNAVAILABLE and "no leader" in caught.value.text
        with pytest.raises(SwarmError) as caught:
            await leader.propose(b"lost")
        assert caught.value.code is ErrorCode.NOT_LEADER
        for node in others:
            await node.start()
        await board.leader()
        await board.agree()


async def test_a_handover_loses_no_proposal(autojump_clock: trio.testing.MockClock) -> None:
    """Behind issue 3: an orderly stop of the leader costs clients no failed call."""
    async with open_cluster(3) as board:
        leader = await board.leader()
        outcomes: list[int] = []

        async def client(number: int) -> None:
            outcomes.append(await leader.propose(b"%d" % number))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(client, number)
            await trio.sleep(0.0005)
            began = trio.current_time()
            await leader.raft.ask(TransferLeadership(), timeout_s=5)
            assert trio.current_time() - began < 0.1
        assert len(outcomes) == 100
        successor = await board.leader()
        assert successor is not leader
        with pytest.raises(SwarmError) as caught:
            await leader.propose(b"late")
        assert caught.value.code is ErrorCode.NOT_LEADER
        assert caught.value.details == {"leader": successor.address}


async def test_proposals_during_a_handover_wait_for_its_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        target = next(node for node in board.nodes.values() if node is not leader)
        board.mute.add(target.number)
        failed: list[SwarmError] = []

        async def hand_over() -> None:
            try:
                await leader.raft.ask(TransferLeadership(RaftId(target.number)), timeout_s=10)
            except SwarmError as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand_over)
            await trio.sleep(0.01)
            began = trio.current_time()
            await leader.propose(b"held")
            assert trio.current_time() - began > 0.5
        assert failed[0].code is ErrorCode.TIMEOUT


async def test_an_orderly_stop_hands_leadership_over(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        await leader.propose(b"x")
        began = trio.current_time()
        await leader.stop()
        await board.leader()
        assert trio.current_time() - began < 0.1


async def test_a_proposal_of_another_term_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(1) as board:
        node = board.nodes[1]
        term = (await node.status()).term
        await node.raft.ask(Propose(b"x", term), timeout_s=1)
        with pytest.raises(SwarmError) as caught:
            await node.raft.ask(Propose(b"x", term - 1), timeout_s=1)
        assert caught.value.code is ErrorCode.NOT_LEADER and "term" in caught.value.text
        with pytest.raises(SwarmError) as caught:
            await node.propose(b"x" * 5_000_000)
        assert caught.value.code is ErrorCode.INVALID


async def test_many_proposals_share_a_write(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        before = leader.disk.writes
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(leader.propose, b"%d" % number)
        assert leader.disk.writes - before <= 4


async def test_reads_are_answered_on_every_member(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        index = await leader.propose(b"x")
        for node in board.nodes.values():
            assert await node.raft.ask(ReadIndex(), timeout_s=1) >= index


async def test_a_read_survives_a_change_of_leader(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        index = await leader.propose(b"x")
        follower = next(node for node in board.nodes.values() if node is not leader)
        await leader.crash()
        assert await follower.raft.ask(ReadIndex(), timeout_s=5) >= index


async def test_a_restarted_member_goes_on_from_its_disk(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        for round_ in range(3):
            for node in board.nodes.values():
                await propose_until_done(board, b"%d.%d" % (round_, node.number))
                await node.crash()
                await propose_until_done(board, b"%d.%d without" % (round_, node.number))
                await node.start()
        await board.agree()
        assert len(board.nodes[1].data) >= 18


async def test_all_members_restart_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        for number in range(10):
            await propose_until_done(board, b"%d" % number)
        for node in board.nodes.values():
            await node.crash()
        for node in board.nodes.values():
            await node.start()
        await board.leader()
        await board.agree()
        assert board.nodes[2].data == [b"%d" % number for number in range(10)]


async def test_a_full_disk_acknowledges_nothing_and_leadership_moves(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        await leader.propose(b"before")
        leader.disk.refuses = "no space left on device"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(propose_until_done, board, b"after")
        await trio.sleep(2)
        view = await leader.status()
        assert view.problem == "no space left on device" and view.role == "follower"
        leader.disk.refuses = ""
        await board.agree()
        assert (await leader.status()).problem == ""
        assert leader.data[0] == b"before" and b"after" in leader.data


async def test_a_proposal_to_a_leader_whose_disk_is_full_is_answered_as_unknown_soon_after_another_leads(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        await leader.propose(b"before")
        leader.disk.refuses = "no space left on device"
        asked_at = trio.current_time()
        with pytest.raises(SwarmError, match="not known"):
            await leader.propose(b"lost to sight", timeout_s=20)
        assert trio.current_time() - asked_at < 3, "it need not wait for what it cannot learn"
        leader.disk.refuses = ""
        await board.agree()


async def test_a_full_disk_of_a_single_member_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(1) as board:
        node = board.nodes[1]
        node.disk.refuses = "no space left on device"
        with pytest.raises(SwarmError):
            await node.propose(b"x", timeout_s=3)
        node.disk.refuses = ""
        await node.propose(b"y", timeout_s=3)
        assert node.data == [b"x", b"y"]


async def test_a_member_far_behind_catches_up_by_snapshot(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        behind = next(node for node in board.nodes.values() if node is not leader)
        await behind.crash()
        for node in board.nodes.values():
            if node.up:
                await node.raft.tell(SetCompaction(snapshot_interval=50, kept_entries=5))
        for number in range(400):
            await leader.propose(b"%d" % number)
        await trio.sleep(1)
        view = await leader.status()
        assert view.first_index > 200
        await behind.start()
        await board.agree()
        assert behind.data == [b"%d" % number for number in range(400)]
        assert behind.disk.snapshot is not None
        await behind.crash()
        await behind.start()
        await board.agree()


async def test_no_snapshot_is_taken_while_one_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        behind = next(node for node in board.nodes.values() if node is not leader)
        await behind.crash()
        await leader.raft.tell(SetCompaction(snapshot_interval=50, kept_entries=5))
        for number in range(600):
            await leader.propose(b"%d" % number)
        await trio.sleep(1)
        await behind.start()
        while not leader.member.raft.sending:
            await trio.sleep(0.001)
        sent, more = leader.disk.snapshot, 0
        while leader.member.raft.sending:
            assert leader.disk.snapshot is sent
            await leader.propose(b"more")
            more += 1
        assert more > 100
        await board.agree()
        await leader.propose(b"last")
        await trio.sleep(1)
        assert leader.disk.snapshot is not sent


async def test_a_restarted_store_is_filled_again(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(1) as board:
        node = board.nodes[1]
        await node.raft.tell(SetCompaction(snapshot_interval=30, kept_entries=5))
        for number in range(100):
            await node.propose(b"%d" % number)
        await trio.sleep(1)
        again: list[bytes] = []
        assert node.scope is not None
        await node.scope.start("second", lambda: ListStore(node.raft, again))
        await node.propose(b"last")
        await trio.sleep(0.1)
        assert again == [b"%d" % number for number in range(100)] + [b"last"]


async def test_a_removed_member_is_told_and_takes_no_part(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        gone = next(node for node in board.nodes.values() if node is not leader)
        seen: list[Leadership] = []

        async def watch() -> None:
            async with gone.raft.stream(WatchLeadership()) as inlet:
                async for item in inlet:
                    seen.append(item)

        board.nursery.start_soon(watch)
        await leader.raft.ask(ChangeMembership(MembershipVerb.REMOVE, gone.me), timeout_s=5)
        await trio.sleep(0.5)
        assert seen[-1].removed
        await trio.sleep(20)
        assert (await leader.status()).role == "leader"
        assert len((await leader.status()).members) == 2


async def test_a_member_removed_while_away_learns_it_when_it_returns(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        gone = next(node for node in board.nodes.values() if node is not leader)
        await gone.crash()
        await leader.raft.ask(ChangeMembership(MembershipVerb.REMOVE, gone.me), timeout_s=5)
        await gone.start()
        with trio.fail_after(10):
            async with gone.raft.stream(WatchLeadership()) as inlet:
                async for item in inlet:
                    if item.removed:
                        return


async def test_an_address_that_changes_is_followed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        mover = next(node for node in board.nodes.values() if node is not leader)
        await mover.crash()
        mover.address = "elsewhere:4242"
        await mover.start()
        await leader.raft.ask(ChangeMembership(MembershipVerb.UPDATE, mover.me), timeout_s=5)
        await board.agree()
        view = await leader.status()
        assert [m.address for m in view.members if m.raft_id == mover.number] == ["elsewhere:4242"]
        await trio.sleep(3)
        assert all(member.reachable for member in (await leader.status()).members)


async def test_a_forced_new_cluster_keeps_everything_and_names_who_was_not_seen(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(3) as board:
        for number in range(10):
            await propose_until_done(board, b"%d" % number)
        await board.agree()
        for node in board.nodes.values():
            await node.crash()
        survivor = board.nodes[2]
        await survivor.start(MemberStart(survivor.me, force_new_cluster=True))
        await board.leader()
        view = await survivor.status()
        assert sorted(view.given_up) == ["node1", "node3"] and len(view.members) == 1
        await survivor.propose(b"alone")
        assert survivor.data == [b"%d" % number for number in range(10)] + [b"alone"]
        await grow(board, 5)
        await trio.sleep(1)
        assert board.nodes[5].data == survivor.data


async def test_a_lost_log_is_no_new_cluster(autojump_clock: trio.testing.MockClock) -> None:
    """Behaviour 18.1: the reference silently founds a new cluster."""
    async with open_cluster(1) as board:
        node = board.nodes[1]
        await node.crash()
        await node.disk.erase()
        with pytest.raises(SwarmError, match="log of this manager is gone"):
            async with open_scope("again") as scope:
                await scope.start(
                    "raft", lambda: RaftMember(MemberStart(node.me), node.disk, Dialler(board, node), SeededEntropy(1))
                )


async def test_damage_is_an_error_with_a_name(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(1) as board:
        node = board.nodes[1]
        await node.crash()
        node.disk.damaged = "raft/log.db: record 7 fails its check"
        with pytest.raises(LogDamaged, match="record 7"):
            async with open_scope("again") as scope:
                await scope.start(
                    "raft", lambda: RaftMember(MemberStart(node.me), node.disk, Dialler(board, node), SeededEntropy(1))
                )


async def test_an_idle_cluster_elects_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(5) as board:
        leader = await board.leader()
        term = (await leader.status()).term
        await trio.sleep(120)
        assert {(await node.status()).term for node in board.nodes.values()} == {term}


async def test_leadership_is_published_once_it_may_be_used(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(3) as board:
        leader = await board.leader()
        async with leader.raft.stream(WatchLeadership()) as inlet:
            first = await inlet.receive()
            assert first.is_leader and first.leader_address == leader.address and first.leader_node == leader.name
            await leader.raft.ask(TransferLeadership(), timeout_s=5)
            later = await inlet.receive()
            assert not later.is_leader
            while later.leader is None:
                later = await inlet.receive()
            assert later.term > first.term and later.leader != leader.number


async def test_a_large_state_is_not_written_anew_for_few_changes(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(1) as board:
        node = board.nodes[1]
        await node.raft.tell(SetCompaction(snapshot_interval=20, kept_entries=0))
        for _ in range(18):
            await node.propose(b"x" * 100_000)
        await trio.sleep(1)
        first = node.disk.snapshot
        assert first is not None
        for number in range(60):
            await node.propose(b"%d" % number)
        await trio.sleep(1)
        assert node.disk.snapshot is first
        for _ in range(10):
            await node.propose(b"x" * 100_000)
        await trio.sleep(1)
        assert node.disk.snapshot is not first
