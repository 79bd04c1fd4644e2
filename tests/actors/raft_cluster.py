"""Members as actors on an in-memory network, with stores that keep a list: for the tests of `raft` and `membership`."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from swarm.actors.raft_member import RaftMember
from swarm.actors.raft_messages import (
    ApplyEntries,
    AttachStore,
    ChangeMembership,
    GetRaftStatus,
    InstallSnapshot,
    MembershipVerb,
    Propose,
    RaftStatusView,
    SnapshotTaken,
    TakeSnapshot,
)
from swarm.actors.raft_start import MemberStart
from swarm.ca.identity import Peer, PeerRole
from swarm.model.ids import NodeId, RaftId
from swarm.ports.net import DialError
from swarm.runtime.actor import Actor, on
from swarm.runtime.local import LocalRef
from swarm.runtime.message import Message, Request
from swarm.runtime.ref import Caller
from swarm.runtime.scope import Scope, open_scope
from swarm.runtime.supervise import Restart
from swarm.runtime.turn import Turn
from swarm.testing.memory_log import MemoryLogStore
from swarm.wire.messages.raft import Member

R = TypeVar("R")
LATENCY_S = 0.001


class SeededEntropy:
    """Chance by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def bytes(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def new(self) -> str:
        return f"{self._random.getrandbits(64):025d}"


class ListStore(Actor):
    """The application: a list of what was committed."""

    def __init__(self, raft: LocalRef, data: list[bytes]) -> None:
        self.data = data
        self.index = 0
        self.raft = raft
        self.installs = 0

    async def started(self) -> None:
        self.data.clear()
        await self.raft.tell(AttachStore(self.ref))

    @on(ApplyEntries)
    def apply(self, message: ApplyEntries, turn: Turn[None]) -> None:
        assert message.through > self.index
        for entry in message.entries:
            assert entry.index > self.index
            self.index = entry.index
            self.data.append(entry.data)
        self.index = message.through

    @on(InstallSnapshot)
    def install(self, message: InstallSnapshot, turn: Turn[None]) -> None:
        self.data[:] = [chunk for chunk in message.chunks if chunk]
        self.index = message.index
        self.installs += 1

    @on(TakeSnapshot)
    def take(self, request: TakeSnapshot, turn: Turn[SnapshotTaken]) -> SnapshotTaken:
        return SnapshotTaken(self.index, tuple(self.data))


class FakeLink:
    def __init__(self, board: Switchboard, source: Node, target: Node) -> None:
        self.board, self.source, self.target = board, source, target
        self.peer = Peer(PeerRole.MANAGER, target.name, "cluster")
        self.over = trio.Event()
        self.reason = ""
        self.send, self.receive = trio.open_memory_channel[tuple[str, Message]](10_000)
        board.nursery.start_soon(self._carry)

    def ref(self, to: str) -> FakeRef:
        return FakeRef(self, to)

    def connection(self, lane: object) -> None:
        """One connection is enough here."""

    async def closed(self) -> str:
        await self.over.wait()
        return self.reason

    def close(self, reason: str) -> None:
        self.reason = reason
        self.over.set()
        self.send.close()

    async def _carry(self) -> None:
        async for to, message in self.receive:
            await trio.sleep(self.board.latency_s)
            actor = self.target.actors.get(to)
            if self.over.is_set() or actor is None or self.board.silent(self.source, self.target):
                continue
            actor.offer(message, caller=Caller(self.source.name, "manager", "cluster", self.source.address))


class FakeRef:
    def __init__(self, link: FakeLink, name: str) -> None:
        self.link, self.name = link, name

    def offer(self, message: Message) -> bool:
        if self.link.over.is_set():
            return False
        try:
            self.link.send.send_nowait((self.name, message))
        except trio.WouldBlock:
            return False
        return True

    async def ask(self, request: Request[R], *, timeout_s: float) -> R:
        source, actor = self.link.source, self.link.target.actors[self.name]
        return await actor.ask(
            request, timeout_s=timeout_s, caller=Caller(source.name, "manager", "cluster", source.address)
        )


class Dialler:
    def __init__(self, board: Switchboard, source: Node) -> None:
        self.board, self.source = board, source

    async def to(self, address: str, *, timeout_s: float) -> FakeLink:
        await trio.sleep(self.board.latency_s)
        target = next((node for node in self.board.nodes.values() if node.address == address and node.up), None)
        if target is None or self.board.cut(self.source, target):
            raise DialError(f"cannot connect to {address}: refused")
        link = FakeLink(self.board, self.source, target)
        self.board.links.append(link)
        return link


class Node:
    """One manager: a disk that stays, actors that come and go."""

    def __init__(self, board: Switchboard, number: int) -> None:
        self.board = board
        self.number = number
        self.raft_id = RaftId(number)
        self.name = f"node{number}"
        self.address = f"host{number}:4242"
        self.disk = MemoryLogStore()
        self.data: list[bytes] = []
        self.actors: dict[str, LocalRef] = {}
        self.up = False
        self.scope: Scope | None = None
        self.member: RaftMember
        self.failure: BaseException | None = None
        self.stopped = trio.Event()

    @property
    def me(self) -> Member:
        return Member(self.raft_id, NodeId(self.name), self.address)

    @property
    def raft(self) -> LocalRef:
        return self.actors["raft"]

    async def start(self, start: MemberStart | None = None) -> None:
        self.stopped = trio.Event()
        await self.board.nursery.start(self._run, start or MemberStart(self.me))

    async def _run(self, start: MemberStart, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        entropy = SeededEntropy(self.board.random.randrange(1 << 30))

        def make() -> RaftMember:
            self.member = RaftMember(start, self.disk, Dialler(self.board, self), entropy)
            return self.member

        try:
            async with open_scope(self.name) as scope:
                self.scope = scope
                raft = await scope.start("raft", make, restart=Restart.NEVER)
                self.actors["raft"] = raft
                self.actors["store"] = await scope.start("store", lambda: ListStore(raft, self.data))
                if self.board.on_start is not None:
                    await self.board.on_start(self, scope)
                self.up = True
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.up = False
            self.actors.clear()
            self.board.drop_links(self)
            self.stopped.set()

    async def stop(self) -> None:
        """In order."""
        assert self.scope is not None
        await self.scope.stop("stopped by the test")
        await self.stopped.wait()

    async def crash(self) -> None:
        """As SIGKILL: nothing unflushed survives, the others see the connections close."""
        self.disk.crash()
        assert self.scope is not None
        self.up = False
        self.actors.clear()
        self.scope.cancel("crash")
        await self.stopped.wait()

    async def status(self) -> RaftStatusView:
        return await self.raft.ask(GetRaftStatus(), timeout_s=1)

    async def propose(self, data: bytes, timeout_s: float = 5.0) -> int:
        """Answered when the entry is in the store's mailbox; here also applied."""
        index = await self.raft.ask(Propose(data), timeout_s=timeout_s)
        await self.actors["store"].ask(TakeSnapshot(), timeout_s=1)
        return index


class Switchboard:
    """The network."""

    def __init__(self, nursery: trio.Nursery, seed: int) -> None:
        self.nursery = nursery
        self.random = random.Random(seed)
        self.latency_s = LATENCY_S
        self.nodes: dict[int, Node] = {}
        self.links: list[FakeLink] = []
        self.isolated: set[int] = set()
        """Cut off: their connections close and cannot be made."""
        self.mute: set[int] = set()
        """Their connections stay, nothing gets through (SIGSTOP, a silent partition)."""
        self.on_start: Callable[[Node, Scope], Awaitable[None]] | None = None

    def add(self, number: int) -> Node:
        node = self.nodes[number] = Node(self, number)
        return node

    def cut(self, source: Node, target: Node) -> bool:
        return source is not target and bool({source.number, target.number} & self.isolated)

    def silent(self, source: Node, target: Node) -> bool:
        return bool({source.number, target.number} & self.mute)

    def isolate(self, *numbers: int) -> None:
        self.isolated |= set(numbers)
        for link in self.links:
            if self.cut(link.source, link.target):
                link.close("cut")

    def heal(self) -> None:
        self.isolated.clear()
        self.mute.clear()

    def drop_links(self, node: Node) -> None:
        for link in self.links:
            if node in (link.source, link.target):
                link.close("the other side is gone")
        self.links = [link for link in self.links if not link.over.is_set()]

    async def leader(self, within_s: float = 10.0) -> Node:
        """The one node that leads and is believed to by a majority."""
        with trio.fail_after(within_s):
            while True:
                views = {node: await node.status() for node in self.nodes.values() if node.up}
                for node, view in views.items():
                    followers = [other for other in views.values() if other.leader == node.raft_id]
                    voters = [member for member in view.members if not member.learner]
                    if view.role == "leader" and len(followers) > len(voters) // 2:
                        return node
                await trio.sleep(0.01)

    async def agree(self, within_s: float = 10.0) -> None:
        """Wait until all members that are up hold the same data."""
        with trio.fail_after(within_s):
            while True:
                nodes = [node for node in self.nodes.values() if node.up]
                views = [await node.status() for node in nodes]
                if len({view.applied_index for view in views}) == 1 and all(n.data == nodes[0].data for n in nodes):
                    return
                await trio.sleep(0.01)


@asynccontextmanager
async def open_cluster(size: int, seed: int = 1) -> AsyncIterator[Switchboard]:
    """`size` members that have a leader; the first founded the cluster, the others joined."""
    async with trio.open_nursery() as nursery:
        board = Switchboard(nursery, seed)
        await grow(board, size)
        yield board
        nursery.cancel_scope.cancel()


async def grow(board: Switchboard, size: int) -> None:
    """Found a cluster, or let further members join, up to `size`."""
    for number in range(len(board.nodes) + 1, size + 1):
        node = board.add(number)
        if number == 1:
            await node.start(MemberStart(node.me, found=True))
            await board.leader()
            continue
        leader = await board.leader()
        await node.start(MemberStart(node.me, members=(leader.me,)))
        change = ChangeMembership(MembershipVerb.ADD_LEARNER, node.me)
        await leader.raft.ask(change, timeout_s=5)
        with trio.fail_after(10):
            view = await leader.status()
            while any(member.learner for member in view.members) or view.pending_change:
                await trio.sleep(0.01)
                view = await leader.status()
