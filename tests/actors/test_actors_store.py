"""The store actor over a Raft member that commits when it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import evolve, frozen

from swarm.actors.raft_messages import (
    AppliedEntry,
    ApplyEntries,
    AttachStore,
    InstallSnapshot,
    Propose,
    ReadIndex,
    SetCompaction,
    TakeSnapshot,
)
from swarm.actors.store import StoreActor
from swarm.actors.store_messages import Committed, ProposeChanges, ReadBarrier, WatchStore
from swarm.actors.store_proposals import ENTRY_BYTES_MAX
from swarm.model.changes import Create, Group, RefusalCode, Update
from swarm.model.ids import ClusterId, NodeId
from swarm.model.objects import Cluster, Node
from swarm.model.specs import ClusterSettings, NodeSpec, RaftSettings
from swarm.ports.entropy import SystemEntropy
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.message import Message
from swarm.runtime.ref import Ref
from swarm.runtime.scope import Scope, open_scope
from swarm.runtime.turn import Later, Turn


@frozen
class Commit(Message):
    """Commit what waits, the first `count` of it."""

    count: int = 1000


@frozen
class LoseLeadership(Message):
    """Everything that waits has an unknown outcome."""


class FakeRaft(Actor):
    """Keeps proposals until `Commit`; hands the log to every store that attaches."""

    def __init__(self) -> None:
        self.log: list[AppliedEntry] = []
        self.waiting: list[tuple[bytes, Later[int]]] = []
        self.stores: list[Ref] = []
        self.compaction: list[SetCompaction] = []
        self.read_indexes = 0
        self.refuse: SwarmError | None = None
        self.auto = True

    @on(AttachStore)
    def attach(self, message: AttachStore, turn: Turn[None]) -> None:
        self.stores.append(message.store)
        if self.log:
            message.store.offer(ApplyEntries(tuple(self.log)))

    @on(Propose)
    def propose(self, request: Propose, turn: Turn[int]) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.waiting.append((request.data, turn.defer()))
        if self.auto:
            self.commit(Commit(), turn)

    @on(Commit)
    def commit(self, message: Commit, turn: Turn[None]) -> None:
        now, self.waiting = self.waiting[: message.count], self.waiting[message.count :]
        entries = [AppliedEntry(len(self.log) + 1 + at, 1, data) for at, (data, _) in enumerate(now)]
        self.log += entries
        for store in self.stores:
            store.offer(ApplyEntries(tuple(entries)))
        for entry, (_, later) in zip(entries, now, strict=True):
            later.answer(entry.index)

    @on(LoseLeadership)
    def lose(self, message: LoseLeadership, turn: Turn[None]) -> None:
        for _, later in self.waiting:
            later.fail(SwarmError(ErrorCode.UNAVAILABLE, "leadership was lost; the outcome is not known"))

    @on(ReadIndex)
    def read_index(self, request: ReadIndex, turn: Turn[int]) -> int:
        self.read_indexes += 1
        return len(self.log)

    @on(SetCompaction)
    def set_compaction(self, message: SetCompaction, turn: Turn[None]) -> None:
        self.compaction.append(message)


@asynccontextmanager
async def started(raft: FakeRaft) -> AsyncIterator[tuple[Ref, Ref, Scope]]:
    async with open_scope("test") as scope:
        raft_ref = await scope.start("raft", lambda: raft)
        store = await scope.start("store", lambda: StoreActor(raft_ref, SystemEntropy()))
        yield store, raft_ref, scope


def node(name: str, **fields: object) -> Node:
    return evolve(Node(NodeId(name)), **fields)


async def propose(store: Ref, *groups: Group) -> tuple[object, ...]:
    return await store.ask(ProposeChanges(groups), timeout_s=5)


async def test_a_proposal_is_answered_when_it_is_applied(autojump_clock: object) -> None:
    async with started(FakeRaft()) as (store, _, _):
        assert await propose(store, (Create(node("a")),), (Create(node("a")),)) == (None, _refusal(RefusalCode.EXISTS))
        view = await store.ask(ReadBarrier(), timeout_s=5)
        found = view.node(NodeId("a"))
        assert found is not None and found.version == 1


class _refusal:
    """Equal to any refusal of this code."""

    def __init__(self, code: RefusalCode) -> None:
        self.code = code

    def __eq__(self, other: object) -> bool:
        return getattr(other, "code", None) is self.code

    __hash__ = None  # type: ignore[assignment]  # only compared


async def test_many_proposals_are_in_flight_and_each_gets_its_own_answer(autojump_clock: object) -> None:
    raft = FakeRaft()
    raft.auto = False
    answers: dict[int, tuple[object, ...]] = {}
    async with started(raft) as (store, raft_ref, _), trio.open_nursery() as nursery:

        async def one(number: int) -> None:
            answers[number] = await propose(store, (Create(node(f"n{number // 2}")),))

        for number in range(10):
            nursery.start_soon(one, number)
        await trio.testing.wait_all_tasks_blocked()
        assert len(raft.waiting) == 10 and not answers
        await raft_ref.tell(Commit(3))
        await trio.testing.wait_all_tasks_blocked()
        assert len(answers) == 3
        await raft_ref.tell(Commit())
    assert sum(answer == (None,) for answer in answers.values()) == 5
    assert sum(answer == (_refusal(RefusalCode.EXISTS),) for answer in answers.values()) == 5


async def test_entries_of_others_are_decoded_and_give_the_same_state(autojump_clock: object) -> None:
    raft = FakeRaft()
    async with started(raft) as (store, raft_ref, scope):
        await propose(store, (Create(node("a")), Create(node("b"))))
        await propose(store, (Update(node("a", version=1, spec=NodeSpec(labels={"x": "1"}))),))
        follower = await scope.start("follower", lambda: StoreActor(raft_ref, SystemEntropy()))
        ours = await store.ask(ReadBarrier(), timeout_s=5)
        theirs = await follower.ask(ReadBarrier(), timeout_s=5)
        assert list(ours.nodes()) == list(theirs.nodes())


async def test_a_refused_proposal_and_a_lost_leadership_reach_the_author_and_leave_nothing(
    autojump_clock: object,
) -> None:
    raft = FakeRaft()
    raft.refuse = SwarmError(ErrorCode.NOT_LEADER, "another leads")
    async with started(raft) as (store, raft_ref, _):
        with pytest.raises(SwarmError) as error:
            await propose(store, (Create(node("a")),))
        assert error.value.code is ErrorCode.NOT_LEADER
        raft.refuse, raft.auto = None, False
        async with trio.open_nursery() as nursery:

            async def lost() -> None:
                with pytest.raises(SwarmError) as unknown:
                    await propose(store, (Create(node("b")),))
                assert unknown.value.code is ErrorCode.UNAVAILABLE

            nursery.start_soon(lost)
            await trio.testing.wait_all_tasks_blocked()
            await raft_ref.tell(LoseLeadership())
        await raft_ref.tell(Commit())
        view = await store.ask(ReadBarrier(), timeout_s=5)
        assert [found.id for found in view.nodes()] == ["b"], "an entry of unknown outcome may still be committed"


async def test_a_change_that_no_entry_can_hold_is_refused(autojump_clock: object) -> None:
    async with started(FakeRaft()) as (store, _, _):
        huge = node("a", spec=NodeSpec(labels={"x": "y" * ENTRY_BYTES_MAX}))
        with pytest.raises(SwarmError) as error:
            await propose(store, (Create(huge),))
        assert error.value.code is ErrorCode.INVALID


async def test_a_watcher_sees_every_batch_once_and_a_slow_one_is_told_to_begin_anew(autojump_clock: object) -> None:
    async with started(FakeRaft()) as (store, _, _), store.stream(WatchStore(), window=2) as inlet:
        first: Committed = await inlet.receive()
        assert first.events == ()
        await propose(store, (Create(node("a")),), (Create(node("b")),))
        batch = await inlet.receive()
        assert [event.object for event in batch.events] == list(batch.snapshot.nodes())
        for number in range(4):
            await propose(store, (Create(node(f"c{number}")),))
        with pytest.raises(SwarmError) as error:
            for _ in range(4):
                await inlet.receive()
        assert error.value.code is ErrorCode.OVERRUN


async def test_a_read_waits_until_its_index_is_applied_and_reads_share_one_round(autojump_clock: object) -> None:
    raft = FakeRaft()
    async with started(raft) as (store, _, _), trio.open_nursery() as nursery:
        views: list[object] = []

        async def read() -> None:
            views.append(await store.ask(ReadBarrier(), timeout_s=5))

        for _ in range(20):
            nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert len(views) == 20
        assert raft.read_indexes <= 3


async def test_a_snapshot_gives_another_store_the_same_objects_and_ends_its_watches(autojump_clock: object) -> None:
    raft = FakeRaft()
    async with started(raft) as (store, _, scope):
        for number in range(1200):
            await propose(store, (Create(node(f"n{number:04d}")),))
        taken = await store.ask(TakeSnapshot(), timeout_s=5)
        assert taken.index == 1200 and all(len(chunk) <= 65_536 for chunk in taken.chunks)
        other_raft = await scope.start("raft2", FakeRaft)
        other = await scope.start("store2", lambda: StoreActor(other_raft, SystemEntropy()))
        async with other.stream(WatchStore()) as inlet:
            await inlet.receive()
            await other.tell(InstallSnapshot(taken.index, 1, taken.chunks))
            with pytest.raises(SwarmError) as error:
                await inlet.receive()
            assert error.value.code is ErrorCode.OVERRUN
        async with other.stream(WatchStore()) as inlet:
            theirs = (await inlet.receive()).snapshot
        ours = await store.ask(ReadBarrier(), timeout_s=5)
        assert list(theirs.nodes()) == list(ours.nodes())
        assert theirs.version == 1200


async def test_the_log_settings_of_the_cluster_reach_the_raft_member(autojump_clock: object) -> None:
    raft = FakeRaft()
    async with started(raft) as (store, _, _):
        settings = ClusterSettings(raft=RaftSettings(snapshot_interval=7, kept_entries=3))
        await propose(store, (Create(Cluster(ClusterId("c"), settings=settings)),))
        await trio.testing.wait_all_tasks_blocked()
        assert raft.compaction[-1] == SetCompaction(7, 3)
