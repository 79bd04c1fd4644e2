"""A network of cores for the tests: disks that lose what was not flushed, links that lose, repeat and reorder.

Everything happens by one seed. After every step the invariants of the paper (figure 3) are checked against what all
members ever did.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from itertools import pairwise

from swarm.raft.bootstrap import found_cluster
from swarm.raft.codec import decode, encode
from swarm.raft.config import Config
from swarm.raft.core import Raft
from swarm.raft.errors import RaftError
from swarm.raft.messages import (
    AddLearner,
    Entry,
    EntryKind,
    HardState,
    Member,
    RaftMessage,
    Remove,
    Snapshot,
    SnapshotMeta,
    UpdateAddress,
    VoteReply,
)
from swarm.raft.ready import ChunkWanted, Ready, Role

SMALL = Config(
    election_ticks=10,
    heartbeat_ticks=2,
    retry_ticks=2,
    append_bytes_max=64,
    append_entries_max=4,
    inflight_appends_max=3,
    inflight_bytes_max=200,
    uncommitted_entries_max=40,
    uncommitted_bytes_max=1000,
    apply_bytes_max=48,
    applying_entries_max=20,
    snapshot_window=2,
    compaction_hold_entries=30,
    compaction_hold_bytes=4096,
    reads_max=8,
)
"""Limits so small that every one is met all the time."""


def member(raft_id: int, *, learner: bool = False) -> Member:
    return Member(raft_id, f"node{raft_id}", f"host{raft_id}:1", learner)


class Disk:
    """What one member has flushed. Losing power keeps exactly this."""

    def __init__(self, hard_state: HardState, entries: list[Entry]) -> None:
        self.hard_state = hard_state
        self.entries = entries
        self.snapshot = Snapshot(SnapshotMeta(), ())

    def write(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            self.snapshot = ready.snapshot
            self.entries = []
        if ready.entries:
            first = ready.entries[0].index
            self.entries = [entry for entry in self.entries if entry.index < first] + list(ready.entries)
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state

    def compact(self, through: int) -> None:
        # The entry at `through` stays: its term is the base of the log after a restart.
        self.entries = [entry for entry in self.entries if entry.index >= through]


class Node:
    """A core with its disk, its application (the list of applied data) and its writes under way."""

    def __init__(self, net: Network, raft_id: int, hard_state: HardState, entries: list[Entry]) -> None:
        self.net = net
        self.id = raft_id
        self.disk = Disk(hard_state, entries)
        self.start()

    def start(self) -> None:
        disk = self.disk
        self.up = True
        self.gone = False
        self.writing: deque[Ready] = deque()
        self.applied = [chunk for chunk in disk.snapshot.chunks if chunk]
        self.applied_index = disk.snapshot.meta.index
        self.term = disk.hard_state.term
        self.raft = Raft(
            self.id,
            random=self.net.chance(self.id),
            config=self.net.config,
            hard_state=disk.hard_state,
            stored=disk.snapshot.meta,
            entries=list(disk.entries),
        )

    def crash(self) -> None:
        self.up = False
        self.writing.clear()

    def pump(self) -> None:
        """Take all that is ready; writes stay under way until `flush`."""
        while (ready := self.raft.ready()) is not None:
            self.net.send(ready.messages)
            self.writing.append(ready)
            self.net.note_committed(self, ready)
            self._apply(ready.committed)
            self.net.note_reads(self, ready)
            for wanted in ready.chunks_wanted:
                self._supply(wanted)
            self.gone = self.gone or ready.removed

    def flush(self, count: int) -> None:
        """The oldest `count` writes reach the disk."""
        for _ in range(min(count, len(self.writing))):
            ready = self.writing.popleft()
            self.disk.write(ready)
            if ready.snapshot is not None:
                self.net.installs += 1
                self.applied = [chunk for chunk in ready.snapshot.chunks if chunk]
                self.applied_index = ready.snapshot.meta.index
                self.raft.applied(self.applied_index)
            self.raft.persisted(ready)
            self.net.send(ready.messages_after)

    def _apply(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            assert entry.index == self.applied_index + 1, "applied in order and without a gap"
            self.applied_index = entry.index
            if entry.kind is EntryKind.NORMAL:
                self.applied.append(entry.data)
        if entries:
            self.raft.applied(self.applied_index)

    def _supply(self, wanted: ChunkWanted) -> None:
        chunks = self.disk.snapshot.chunks or (b"",)
        if self.disk.snapshot.meta != wanted.meta:
            self.raft.report_snapshot(wanted.to, ok=False)
            return
        self.raft.supply_chunk(wanted, len(chunks), chunks[wanted.number])

    def compact(self, kept: int) -> None:
        meta = self.raft.describe_snapshot(self.applied_index)
        if meta is None or self.writing:
            return
        self.disk.snapshot = Snapshot(meta, tuple(self.applied) or (b"",))
        self.disk.compact(self.raft.snapshot_taken(meta, kept_entries=kept))


class Network:
    """Members, what is on the wire between them, and what must hold of it all."""

    def __init__(self, seed: int, size: int, config: Config = SMALL) -> None:
        self.random = random.Random(seed)
        self.config = config
        self.wire: list[bytes] = []
        self.cut: set[tuple[int, int]] = set()
        hard_state, entries = found_cluster([member(raft_id) for raft_id in range(1, size + 1)])
        self.leaders: dict[int, int] = {}
        self.truth: dict[int, tuple[int, bytes]] = {1: (1, entries[0].data)}
        """Index to what was committed there, on whichever member first."""
        self.highest = 1
        self.read_floor: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        """(voter, term) to whom it voted for."""
        self.proposed = 0
        self.contexts = self.answered = self.installs = 0
        self.next_id = size + 1
        self.nodes = {n: Node(self, n, hard_state, list(entries)) for n in range(1, size + 1)}

    def chance(self, raft_id: int) -> Callable[[int, int], int]:
        """What a member draws its numbers from."""
        return self.random.randint

    # --- the wire --------------------------------------------------------------------------------------------------
    def send(self, messages: tuple[RaftMessage, ...]) -> None:
        for message in messages:
            if isinstance(message, VoteReply) and message.granted:
                given = self.votes.setdefault((message.sender, message.term), message.to)
                assert given == message.to, f"{message.sender} votes twice in term {message.term}"
            self.wire.append(encode(message))

    def deliver(self, place: int) -> None:
        message = decode(self.wire.pop(place))
        node = self.nodes.get(message.to)
        if node is not None and node.up and (message.sender, message.to) not in self.cut:
            node.raft.step(message)

    # --- what must hold --------------------------------------------------------------------------------------------
    def note_committed(self, node: Node, ready: Ready) -> None:
        for entry in ready.committed:
            known = self.truth.setdefault(entry.index, (entry.term, entry.data))
            assert known == (entry.term, entry.data), f"State Machine Safety: {node.id} commits another {entry.index}"
            self.highest = max(self.highest, entry.index)

    def note_reads(self, node: Node, ready: Ready) -> None:
        self.answered += len(ready.reads)
        for state in ready.reads:
            assert state.index >= self.read_floor[state.context], "a read misses what was committed before it was asked"

    def check(self) -> None:
        for node in self.nodes.values():
            if not node.up:
                continue
            status = node.raft.status
            if status.role is Role.LEADER:
                assert self.leaders.setdefault(status.term, node.id) == node.id, "Election Safety"
            assert status.term >= node.term, "terms only grow"
            node.term = status.term
            log = node.raft._state.log
            assert log.persisted <= log.last_index
            assert status.applied <= status.commit <= status.last_index
        for node in self.up():
            if node.raft.is_leader and node.raft.term == max(self.leaders):
                self._check_complete(node)
        self._check_matching()

    def _check_complete(self, node: Node) -> None:
        log = node.raft._state.log
        for index in range(max(log.first_index, self.highest - 8), self.highest + 1):
            assert log.term_at(index) == self.truth[index][0], f"Leader Completeness: {node.id} lacks {index}"

    def _check_matching(self) -> None:
        logs = [node.raft._state.log for node in self.nodes.values() if node.up]
        for one, other in pairwise(logs):
            low = max(one.first_index, other.first_index)
            agree = False
            for index in range(min(one.last_index, other.last_index), low - 1, -1):
                same = one.term_at(index) == other.term_at(index)
                assert same or not agree, f"Log Matching: the logs differ at {index} and agree after it"
                if same and agree:
                    break  # Checked at an earlier step already.
                agree = agree or same
                if same:
                    left, right = one.slice(index, index, 1, 1), other.slice(index, index, 1, 1)
                    assert left == right, f"Log Matching: two entries {index} of one term"

    # --- what may happen -------------------------------------------------------------------------------------------
    def up(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.up]

    def leader(self) -> Node | None:
        leading = [node for node in self.up() if node.raft.status.role is Role.LEADER]
        return max(leading, key=lambda node: node.raft.status.term, default=None)

    def attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except RaftError:
            pass

    def propose(self) -> None:
        node = self.random.choice(list(self.nodes.values()))
        if node.up:
            self.proposed += 1
            data = b"%d" % self.proposed * self.random.randint(1, 6)
            self.attempt(lambda: node.raft.propose(data))

    def read(self) -> None:
        node = self.random.choice(list(self.nodes.values()))
        if node.up:
            self.contexts += 1
            self.read_floor[self.contexts] = self.highest
            self.attempt(lambda: node.raft.read_index(self.contexts))

    def change(self) -> None:
        leader = self.leader()
        if leader is None:
            return
        members = leader.raft.status.membership.members
        target = self.random.choice(members)
        pick = self.random.random()
        if pick < 0.4 and len(members) < 6:
            fresh = Node(self, self.next_id, HardState(), [])
            self.nodes[self.next_id] = fresh
            self.next_id += 1
            self.attempt(lambda: leader.raft.change_membership(AddLearner(member(fresh.id))))
        elif pick < 0.8 and len(members) > 3:
            self.attempt(lambda: leader.raft.change_membership(Remove(target.raft_id)))
        else:
            self.attempt(lambda: leader.raft.change_membership(UpdateAddress(target.raft_id, f"new{self.proposed}:1")))

    def crash(self) -> None:
        node = self.random.choice(list(self.nodes.values()))
        if node.up:
            node.crash()

    def restart(self) -> None:
        for node in self.nodes.values():
            if not node.up:
                node.start()

    def partition(self) -> None:
        ids = list(self.nodes)
        side = {raft_id for raft_id in ids if self.random.random() < 0.5}
        one_way = self.random.random() < 0.3
        self.cut = {
            (a, b) for a in ids for b in ids if a != b and (a in side) != (b in side) and (not one_way or a in side)
        }

    def move(self) -> None:
        """A message arrives, maybe late or twice, or is lost."""
        if not self.wire:
            return
        place = 0 if self.random.random() < 0.8 else self.random.randrange(len(self.wire))
        if self.random.random() < 0.03:
            self.wire.append(self.wire[place])
        if self.random.random() < 0.03:
            self.wire.pop(place)
        else:
            self.deliver(place)

    def step(self) -> None:
        """One random thing happens."""
        chance = self.random.random()
        pick = self.random.choice
        if self.wire and chance < 0.55:
            for _ in range(self.random.randint(1, 6)):
                self.move()
        elif chance < 0.75:
            for node in self.up():
                if self.random.random() < 0.3:
                    node.raft.tick()
        elif chance < 0.90:
            for node in self.up():
                node.flush(self.random.randint(0, len(node.writing)))
        elif chance < 0.96:
            self.propose()
        elif chance < 0.97:
            self.read()
        elif chance < 0.973:
            self.change()
        elif chance < 0.9735:
            self.crash()
        elif chance < 0.976:
            self.restart()
        elif chance < 0.977:
            self.partition()
        elif chance < 0.979:
            self.cut.clear()
        elif chance < 0.980:
            leader = self.leader()
            if leader:
                self.attempt(lambda: leader.raft.transfer(None))
        elif chance < 0.982:
            node, other = pick(list(self.nodes.values())), pick(list(self.nodes))
            if node.up:
                node.raft.hint_leader_lost(node.raft.status.leader)
                node.raft.report_unreachable(other)
        else:
            node = pick(list(self.nodes.values()))
            if node.up:
                node.compact(self.random.randint(0, 5))
        for node in self.up():
            if self.random.random() < 0.5:
                node.pump()
        self.check()

    # --- and then it ends ------------------------------------------------------------------------------------------
    def settle(self, ticks: int = 400) -> None:
        """The faults end; everybody who is still a member must come to agree."""
        self.cut.clear()
        self.restart()
        for _ in range(ticks):
            self.quiet_tick()
            self.check()
            if self.is_settled():
                return
        raise AssertionError(f"did not converge: {[node.raft.status for node in self.nodes.values()]}")

    def quiet_tick(self) -> None:
        """A tick on a network that works."""
        for node in self.up():
            node.raft.tick()
        self.exchange()

    def exchange(self) -> None:
        """Deliver and flush until nothing moves."""
        for _ in range(2000):
            for node in self.up():
                node.pump()
                node.flush(99)
                node.pump()
            if not self.wire:
                return
            while self.wire:
                self.deliver(0)

    def is_settled(self) -> bool:
        leader = self.leader()
        if leader is None:
            return False
        status = leader.raft.status
        members = [self.nodes[found.raft_id] for found in status.membership.members]
        return (
            not any(found.learner for found in status.membership.members)
            and status.applied == status.last_index
            and all(node.raft.status.applied == status.applied for node in members)
            and all(node.applied == leader.applied for node in members)
            and leader.raft.is_settled
        )
