"""The store actor with large proposals, bursts and snapshots, over a scripted Raft member and over three real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import evolve, frozen
from raft_cluster import Node as Member
from raft_cluster import SeededEntropy, Switchboard, grow

from swarm.actors import store as store_module
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
from swarm.actors.store_messages import ProposeChanges, ReadBarrier, WatchStore
from swarm.actors.store_proposals import ENTRY_BYTES_MAX, ENTRY_CHANGES
from swarm.actors.store_snapshots import CHUNK_BYTES, chunks_of, tables_of
from swarm.model.change_codec import encode_groups
from swarm.model.changes import Advance, Assign, Create, Group, GroupResult, RefusalCode, Update
from swarm.model.objects import Cluster, Node, Revision, Service, Task, TaskStatus
from swarm.model.plain import PlainError
from swarm.model.specs import ClusterSettings, NodeSpec, ProcessSpec, RaftSettings, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.model.store import Store
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.local import LocalRef
from swarm.runtime.message import Request
from swarm.runtime.ref import Ref
from swarm.runtime.scope import Scope, open_scope
from swarm.runtime.turn import Later, Turn

SPEC = ServiceSpec("web", TaskSpec(ProcessSpec(("true",))))
ASSIGNED = TaskStatus(TaskState.ASSIGNED)


@frozen
class Commit(Request[None]):
    """Commit the oldest proposals, all or some of them, in one message to the store."""

    count: int = 1_000_000


@frozen
class FailOldest(Request[None]):
    """Refuse the oldest proposal."""

    error: SwarmError


@frozen
class CommitForeign(Request[None]):
    """Commit an entry that another member proposed."""

    groups: tuple[Group, ...]


class ScriptedRaft(Actor):
    """Commits when it is told to."""

    def __init__(self) -> None:
        self.index = 0
        self.store: Ref | None = None
        self.waiting: list[tuple[Propose, Later[int]]] = []
        self.compaction: list[SetCompaction] = []
        self.attached = 0
        self.reads = 0
        self.read_error: SwarmError | None = None
        self.read_ahead = 0

    @on(AttachStore)
    def attach(self, message: AttachStore, turn: Turn[None]) -> None:
        self.store = message.store
        self.attached += 1

    @on(Propose)
    def propose(self, request: Propose, turn: Turn[int]) -> int:
        self.waiting.append((request, turn.defer()))
        return 0

    @on(Commit)
    async def commit(self, request: Commit, turn: Turn[None]) -> None:
        chosen, self.waiting = self.waiting[: request.count], self.waiting[request.count :]
        entries = []
        for proposal, _ in chosen:
            self.index += 1
            entries.append(AppliedEntry(self.index, 1, proposal.data))
        assert self.store is not None
        self.store.offer(ApplyEntries(tuple(entries), self.index))
        for (_, later), entry in zip(chosen, entries, strict=True):
            later.answer(entry.index)

    @on(FailOldest)
    def fail(self, request: FailOldest, turn: Turn[None]) -> None:
        self.waiting.pop(0)[1].fail(request.error)

    @on(CommitForeign)
    def foreign(self, request: CommitForeign, turn: Turn[None]) -> None:
        self.index += 1
        assert self.store is not None
        self.store.offer(
            ApplyEntries((AppliedEntry(self.index, 1, bytes(16) + encode_groups(request.groups)),), self.index)
        )

    @on(ReadIndex)
    def read(self, request: ReadIndex, turn: Turn[int]) -> int:
        self.reads += 1
        if self.read_error is not None:
            raise self.read_error
        return self.index + self.read_ahead

    @on(SetCompaction)
    def compact(self, message: SetCompaction, turn: Turn[None]) -> None:
        self.compaction.append(message)


def members_entry(index: int, data: bytes) -> ApplyEntries:
    return ApplyEntries((AppliedEntry(index, 1, data),), index)


class Pair:
    """The two actors, and shortcuts."""

    def __init__(self, raft: ScriptedRaft, raft_ref: LocalRef, actor: StoreActor, ref: LocalRef) -> None:
        self.raft, self.raft_ref, self.actor, self.ref = raft, raft_ref, actor, ref

    async def propose(self, *groups: Group, term: int | None = None) -> tuple[GroupResult, ...]:
        return await self.ref.ask(ProposeChanges(groups, term), timeout_s=5)

    async def commit(self, *groups: Group) -> tuple[GroupResult, ...]:
        """Propose and commit at once."""
        results: list[tuple[GroupResult, ...]] = []

        async def ask() -> None:
            results.append(await self.propose(*groups))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not results:
                await trio.testing.wait_all_tasks_blocked()
                await self.raft_ref.ask(Commit(), timeout_s=5)
                await trio.testing.wait_all_tasks_blocked()
        return results[0]


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    raft = ScriptedRaft()
    async with open_scope("manager") as scope:
        raft_ref = await scope.start("raft", lambda: raft)
        actor = StoreActor(raft_ref, SeededEntropy(1))
        ref = await scope.start("store", lambda: actor)
        await trio.testing.wait_all_tasks_blocked()
        yield Pair(raft, raft_ref, actor, ref)
        await scope.stop("the test is over")


def nodes(count: int) -> list[Group]:
    return [(Create(Node(f"n{number}")),) for number in range(count)]


async def gathered(*calls: Callable[[], Awaitable[object]]) -> list[object]:
    """What the calls answered, or the SwarmError that they raised."""
    answers: list[object] = [None] * len(calls)

    async def run(place: int, call: Callable[[], Awaitable[object]]) -> None:
        try:
            answers[place] = await call()
        except SwarmError as error:
            answers[place] = error

    async with trio.open_nursery() as nursery:
        for place, call in enumerate(calls):
            nursery.start_soon(run, place, call)
    return answers


async def test_a_proposal_is_answered_when_it_is_applied_and_not_before(autojump_clock: object) -> None:
    async with pair() as it, trio.open_nursery() as nursery:
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await it.propose(*nodes(2), (Create(Node("n0")),)))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [] and len(it.actor.view().nodes()) == 0
        await it.raft_ref.ask(Commit(), timeout_s=5)
        await trio.testing.wait_all_tasks_blocked()
        ((first, second, refused),) = answers
        assert first is second is None and refused.code == RefusalCode.EXISTS
        assert [node.id for node in it.actor.view().nodes()] == ["n0", "n1"]


async def test_nothing_to_commit_is_answered_at_once(autojump_clock: object) -> None:
    async with pair() as it:
        assert await it.propose() == ()
        assert it.raft.waiting == []


async def test_what_was_proposed_here_is_applied_without_decoding(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode = store_module.decode_groups
    monkeypatch.setattr(store_module, "decode_groups", lambda data: decoded.append(data) or decode(data))
    async with pair() as it:
        await it.commit(*nodes(3))
        assert decoded == []
        await it.raft_ref.ask(CommitForeign(((Create(Node("other")),),)), timeout_s=5)
        await trio.testing.wait_all_tasks_blocked()
        assert len(decoded) == 1
        assert it.actor.view().node("other").version == 2


async def test_the_term_goes_along(autojump_clock: object) -> None:
    async with pair() as it, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: it.propose(*nodes(1), term=7))
        await trio.testing.wait_all_tasks_blocked()
        assert it.raft.waiting[0][0].term == 7
        await it.raft_ref.ask(Commit(), timeout_s=5)


async def test_a_refused_proposal_fails_with_the_members_error(autojump_clock: object) -> None:
    async with pair() as it, trio.open_nursery() as nursery:
        error = SwarmError(ErrorCode.NOT_LEADER, "another leads", {"leader": "a:1"})
        answers: list[object] = []

        async def ask() -> None:
            answers.extend(await gathered(lambda: it.propose(*nodes(1))))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        proposed = it.raft.waiting[0][0]
        await it.raft_ref.ask(FailOldest(error), timeout_s=5)
        await trio.testing.wait_all_tasks_blocked()
        assert answers[0].code == ErrorCode.NOT_LEADER and answers[0].details == {"leader": "a:1"}
        # committed after all, by the next leader: applied like anybody else's
        it.ref.offer(members_entry(1, proposed.data))
        await trio.testing.wait_all_tasks_blocked()
        assert it.actor.view().node("n0") is not None


async def test_a_large_proposal_becomes_entries_of_bounded_size(autojump_clock: object) -> None:
    async with pair() as it, trio.open_nursery() as nursery:
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await it.propose(*nodes(3 * ENTRY_CHANGES + 5), (Create(Node("n0")),)))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert len(it.raft.waiting) == 4
        await it.raft_ref.ask(Commit(3), timeout_s=5)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [] and len(it.actor.view().nodes()) == 3 * ENTRY_CHANGES
        await it.raft_ref.ask(Commit(), timeout_s=5)
        await trio.testing.wait_all_tasks_blocked()
        (results,) = answers
        assert len(results) == 3 * ENTRY_CHANGES + 6
        assert [place for place, result in enumerate(results) if result is not None] == [3 * ENTRY_CHANGES + 5]


class RefusedAs:
    """Equal to a refusal of this code."""

    def __init__(self, code: RefusalCode) -> None:
        self.code = code

    def __eq__(self, other: object) -> bool:
        return getattr(other, "code", None) == self.code


async def test_a_group_is_never_cut(autojump_clock: object) -> None:
    async with pair() as it:
        group = tuple(Create(Node(f"n{number}")) for number in range(ENTRY_CHANGES + 10))
        assert await it.commit(group, *nodes(1)) == (None, RefusedAs(RefusalCode.EXISTS))


def labelled(id: str, size_bytes: int) -> Group:
    return (Create(Node(id, NodeSpec(labels={"a": "x" * size_bytes}))),)


async def test_many_bytes_are_cut_too(autojump_clock: object) -> None:
    async with pair() as it:
        groups = [labelled(f"n{number}", ENTRY_BYTES_MAX // 3) for number in range(7)]
        assert await it.commit(*groups) == (None,) * 7
        assert it.raft.index >= 3


async def test_a_group_that_no_entry_holds_is_refused_with_its_size(autojump_clock: object) -> None:
    async with pair() as it:
        with pytest.raises(SwarmError, match=r"a change of 15\d{5} bytes is too large.*1572864") as refused:
            await it.propose(labelled("n1", ENTRY_BYTES_MAX))
        assert refused.value.code == ErrorCode.INVALID and it.raft.waiting == []


async def test_a_large_proposal_whose_later_entry_fails_is_of_unknown_outcome(autojump_clock: object) -> None:
    async with pair() as it, trio.open_nursery() as nursery:
        answers: list[object] = []

        async def ask() -> None:
            answers.extend(await gathered(lambda: it.propose(*nodes(2 * ENTRY_CHANGES))))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await it.raft_ref.ask(Commit(1), timeout_s=5)
        await it.raft_ref.ask(FailOldest(SwarmError(ErrorCode.NOT_LEADER, "lost")), timeout_s=5)
        await trio.testing.wait_all_tasks_blocked()
        assert answers[0].code == ErrorCode.UNAVAILABLE and "only a part" in answers[0].text


async def test_watchers_see_every_batch_once_and_the_view_that_goes_with_it(autojump_clock: object) -> None:
    async with pair() as it:
        await it.commit(*nodes(1))
        async with it.ref.stream(WatchStore(), window=8) as inlet:
            first = await inlet.receive()
            assert (first.events, first.index) == ((), 1)
            await it.commit((Create(Node("a")),), (Create(Node("a")),))
            await it.commit((Create(Node("b")),))
            seen = [await inlet.receive() for _ in range(2)]
            assert [[event.object.id for event in one.events] for one in seen] == [["a"], ["b"]]
            assert [one.index for one in seen] == [2, 3]
            with trio.move_on_after(1) as nothing_more:
                await inlet.receive()
            assert nothing_more.cancelled_caught


async def test_a_burst_is_shown_slice_by_slice(autojump_clock: object) -> None:
    """The view that a watcher gets never runs ahead of the events by more than one slice, and the loop breathes."""
    async with pair() as it, it.ref.stream(WatchStore(), window=64) as inlet:
        await inlet.receive()
        turns = 0

        async def breathe() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            results: list[object] = []

            async def ask() -> None:
                results.append(await it.propose(*nodes(5 * ENTRY_CHANGES)))

            nursery.start_soon(ask)
            while len(it.raft.waiting) < 5:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(breathe)
            await it.raft_ref.ask(Commit(), timeout_s=5)
            counts = []
            while sum(counts) < 5 * ENTRY_CHANGES:
                counts.append(len((await inlet.receive()).events))
            assert counts == [ENTRY_CHANGES] * 5 and turns >= 4
            while not results:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def test_a_slow_watcher_is_told_and_the_others_go_on(autojump_clock: object) -> None:
    async with (
        pair() as it,
        it.ref.stream(WatchStore(), window=1) as slow,
        it.ref.stream(WatchStore(), window=9) as fast,
    ):
        for name in "abc":
            await it.commit((Create(Node(name)),))
        assert (await slow.receive()).events == ()
        with pytest.raises(SwarmError) as overrun:
            while True:
                await slow.receive()
        assert overrun.value.code == ErrorCode.OVERRUN
        assert [len((await fast.receive()).events) for _ in range(4)] == [0, 1, 1, 1]


async def test_a_watcher_that_leaves_is_forgotten(autojump_clock: object) -> None:
    async with pair() as it:
        async with it.ref.stream(WatchStore()) as inlet:
            await inlet.receive()
            assert len(it.actor._watchers) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert it.actor._watchers == []


async def test_a_read_waits_for_what_was_committed_before_it(autojump_clock: object) -> None:
    async with pair() as it, trio.open_nursery() as nursery:
        it.raft.read_ahead = 1
        views: list[object] = []

        async def read() -> None:
            views.append(await it.ref.ask(ReadBarrier(), timeout_s=5))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert views == []
        await it.commit(*nodes(1))
        await trio.testing.wait_all_tasks_blocked()
        assert views == [it.actor.view()] and views[0].node("n0") is not None


async def test_reads_share_an_index_but_never_one_that_was_asked_for_before_them(autojump_clock: object) -> None:
    async with pair() as it:
        answers = await gathered(*[lambda: it.ref.ask(ReadBarrier(), timeout_s=5)] * 50)
        assert answers == [it.actor.view()] * 50
        assert it.raft.reads == 2


async def test_a_read_without_a_quorum_fails(autojump_clock: object) -> None:
    async with pair() as it:
        it.raft.read_error = SwarmError(ErrorCode.UNAVAILABLE, "no leader is known")
        with pytest.raises(SwarmError, match="no leader is known"):
            await it.ref.ask(ReadBarrier(), timeout_s=5)
        it.raft.read_error = None
        assert await it.ref.ask(ReadBarrier(), timeout_s=5) is it.actor.view()


async def test_an_entry_of_another_version_ends_the_store_with_the_way_out() -> None:
    actor = StoreActor(None, SeededEntropy(1))  # type: ignore[arg-type]  # no member is asked
    with pytest.raises(store_module.EntryUnreadable, match=r"entry 9 .* format 77 .* has to be upgraded"):
        await actor.apply(members_entry(9, bytes(16) + b"\x4d"), None)  # type: ignore[arg-type]


async def test_raft_learns_its_settings_live(autojump_clock: object) -> None:
    async with pair() as it:
        await it.commit((Create(Cluster("c1")),))
        cluster = it.actor.view().cluster
        await it.commit((Update(evolve(cluster, root_key=b"k")),))
        settings = ClusterSettings(raft=RaftSettings(77, 5))
        await it.commit((Update(evolve(it.actor.view().cluster, settings=settings)),))
        await trio.testing.wait_all_tasks_blocked()
        assert it.raft.compaction == [SetCompaction(10_000, 500), SetCompaction(77, 5)]


# --- snapshots -----------------------------------------------------------------------------------------------------
def filled(tasks: int) -> Store:
    store = Store()
    store.apply([(Create(Cluster("c1", settings=ClusterSettings(raft=RaftSettings(9, 9)))),), *nodes(7)], 1)
    store.apply([(Create(Service("s1", SPEC)), Create(Revision("s1", 1, SPEC)))], 2)
    store.apply([(Create(Task(f"t{number}", "s1", 1, number)),) for number in range(tasks)], 3)
    store.apply([(Assign(f"t{number}", 3, f"n{number % 7}", ASSIGNED),) for number in range(tasks // 2)], 4)
    return store


async def test_a_snapshot_gives_the_same_store_elsewhere(autojump_clock: object) -> None:
    store = filled(2000)
    chunks = await chunks_of(store.dump())
    assert all(len(chunk) == CHUNK_BYTES for chunk in chunks[:-1]) and 0 < len(chunks[-1]) <= CHUNK_BYTES
    tables = await tables_of(chunks)
    assert tables._rows() == store.dump()
    assert list(tables.pending_tasks()) == list(store.pending_tasks())
    assert len({id(task.node_id) for task in tables.tasks() if task.node_id}) == 7, "tasks share their node's id"


@pytest.mark.parametrize("cut", [(), (b"",), (b"\x02",), (b"\x01\x00\x00\x00\x09abc",)])
async def test_a_snapshot_that_is_none_is_refused(cut: tuple[bytes, ...]) -> None:
    with pytest.raises(PlainError):
        await tables_of(cut)


async def test_a_snapshot_is_of_the_moment_that_it_was_asked_for(autojump_clock: object) -> None:
    async with pair() as it:
        await it.commit(*nodes(5))
        taken = await it.ref.ask(TakeSnapshot(), timeout_s=5)
        await it.commit((Create(Node("later")),))
        assert taken.index == 1
        assert [node.id for node in (await tables_of(taken.chunks)).nodes()] == ["n0", "n1", "n2", "n3", "n4"]


async def test_an_installed_snapshot_replaces_everything(autojump_clock: object) -> None:
    async with pair() as it, trio.open_nursery() as nursery:
        await it.commit((Create(Node("gone")),))
        outcome: list[object] = []

        async def ask() -> None:
            outcome.extend(await gathered(lambda: it.propose(*nodes(1))))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        async with it.ref.stream(WatchStore(), window=9) as inlet:
            await inlet.receive()
            it.ref.offer(InstallSnapshot(50, 2, await chunks_of(filled(10).dump())))
            with pytest.raises(SwarmError) as overrun:
                await inlet.receive()
        assert overrun.value.code == ErrorCode.OVERRUN
        await trio.testing.wait_all_tasks_blocked()
        view = it.actor.view()
        assert view.version == 50 and view.node("gone") is None and len(view.tasks()) == 10
        assert outcome[0].code == ErrorCode.UNAVAILABLE
        assert it.raft.compaction == [SetCompaction(9, 9)]
        it.raft.index = 50
        assert await it.commit((Advance("t9", TaskState.SHUTDOWN),)) == (None,)
        assert view.task("t9").version >= 51


async def test_a_restarted_store_starts_empty_and_asks_for_everything(autojump_clock: object) -> None:
    async with pair() as it:
        await it.commit(*nodes(3))
        it.ref.offer(InstallSnapshot(9, 1, (b"nonsense",)))
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(5)
        assert it.raft.attached == 2
        assert len(it.actor.view().nodes()) == 0
        it.raft.index = 0
        assert await it.commit(*nodes(1)) == (None,)


# --- with real members ---------------------------------------------------------------------------------------------
async def test_three_members_apply_the_same_and_a_killed_leader_loses_nothing(autojump_clock: object) -> None:
    """Real Raft members over an in-memory network; snapshots every few entries, so that the restarted one needs one."""
    stores: dict[int, StoreActor] = {}

    async def start(node: Member, scope: Scope) -> None:
        stores[node.number] = StoreActor(node.raft, SeededEntropy(node.number))
        node.actors["store"] = await scope.start("states", lambda: stores[node.number])

    async with trio.open_nursery() as nursery:
        board = Switchboard(nursery, seed=3)
        board.on_start = start
        await grow(board, 3)
        leader = await board.leader()
        settings = ClusterSettings(raft=RaftSettings(20, 2))
        await leader.actors["store"].ask(ProposeChanges(((Create(Cluster("c1", settings=settings)),),)), timeout_s=5)
        acknowledged = []
        for number in range(30):
            await leader.actors["store"].ask(ProposeChanges(((Create(Node(f"n{number}")),),)), timeout_s=5)
            acknowledged.append(f"n{number}")
        await leader.crash()
        other = await board.leader()
        for number in range(30, 60):
            await other.actors["store"].ask(ProposeChanges(((Create(Node(f"n{number}")),),)), timeout_s=5)
            acknowledged.append(f"n{number}")
        await leader.start()
        view = await other.actors["store"].ask(ReadBarrier(), timeout_s=5)
        assert [node.id for node in view.nodes()] == acknowledged
        await trio.sleep(5)
        dumps = [actor._store.dump() for actor in stores.values()]
        assert dumps[0] == dumps[1] == dumps[2]
        assert leader.disk.snapshot is not None
        nursery.cancel_scope.cancel()
