"""Stories in text: `tests/testdata/raft_*.txt`, each a cluster of cores, what is done to it, and all that follows.

Nothing is random here: member 1 draws the shortest timeout, member 2 one tick more, and so on. Messages wait on the wire
until they are delivered, writes are durable at once unless a disk is held. `--rewrite` writes the outcome anew.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from raft_net import Network, Node, member

from swarm.raft.codec import decode
from swarm.raft.config import Config
from swarm.raft.errors import RaftError
from swarm.raft.messages import (
    AddLearner,
    Append,
    EntryKind,
    HardState,
    MembershipChange,
    Promote,
    RaftMessage,
    Remove,
    SnapshotChunk,
    UpdateAddress,
)
from swarm.raft.ready import Ready, Role

CONFIG = Config(election_ticks=10, heartbeat_ticks=2, retry_ticks=3, hint_jitter_ticks=3, snapshot_window=2)


class Story(Network):
    """A network that tells what happens."""

    def __init__(self, size: int) -> None:
        self.lines: list[str] = []
        self.held: set[int] = set()
        self.states: dict[int, str] = {}
        super().__init__(0, size, CONFIG)
        self.pump()

    def chance(self, raft_id: int) -> Callable[[int, int], int]:
        return lambda low, high: min(low + raft_id - 1, high)

    # --- telling ---------------------------------------------------------------------------------------------------
    def note_committed(self, node: Node, ready: Ready) -> None:
        super().note_committed(node, ready)
        for entry in ready.committed:
            what = entry.data.decode() if entry.kind is EntryKind.NORMAL else entry.kind.name.lower()
            self.lines.append(f"{node.id}: applies {entry.index}/{entry.term} {what}")
        if ready.removed:
            self.lines.append(f"{node.id}: was removed")

    def note_reads(self, node: Node, ready: Ready) -> None:
        self.lines += [f"{node.id}: may read {state.context} at {state.index}" for state in ready.reads]
        self.lines += [f"{node.id}: read {context} lost its leader" for context in ready.reads_failed]

    def pump(self) -> None:
        for _ in range(100):
            before = len(self.wire), len(self.lines)
            for node in self.up():
                node.pump()
                if node.id not in self.held:
                    node.flush(99)
                node.pump()
            if before == (len(self.wire), len(self.lines)):
                break
        for node in self.up():
            status = node.raft.status
            led = "" if status.role is Role.LEADER else f" of {status.leader}" if status.leader else " of nobody"
            state = f"{node.id}: {status.role.value}{led} in term {status.term}"
            if self.states.get(node.id) != state:
                self.states[node.id] = state
                self.lines.append(state)

    # --- doing -----------------------------------------------------------------------------------------------------
    def run(self, text: str) -> str:
        self.lines = []
        for line in text.splitlines():
            verb, *words = line.split()
            try:
                getattr(self, f"do_{verb}")(*words)
            except RaftError as error:
                self.lines.append(f"{type(error).__name__}: {error}")
            self.pump()
        self.check()
        return "\n".join(self.lines)

    def do_tick(self, who: str, count: str = "1") -> None:
        for _ in range(int(count)):
            for raft_id in self._ids(who):
                self.nodes[raft_id].raft.tick()
            self.pump()

    def do_campaign(self, who: str) -> None:
        self.nodes[int(who)].raft.campaign()

    def do_propose(self, who: str, *datas: str) -> None:
        self.nodes[int(who)].raft.propose_many([data.encode() for data in datas])

    def do_read(self, who: str, context: str) -> None:
        self.read_floor[int(context)] = self.highest
        self.nodes[int(who)].raft.read_index(int(context))

    def do_transfer(self, who: str, to: str) -> None:
        self.nodes[int(who)].raft.transfer(int(to))

    def do_hint(self, who: str, leader: str) -> None:
        for raft_id in self._ids(who):
            self.nodes[raft_id].raft.hint_leader_lost(int(leader))

    def do_change(self, who: str, verb: str, target: str) -> None:
        raft_id = int(target)
        change: dict[str, MembershipChange] = {
            "add": AddLearner(member(raft_id)),
            "promote": Promote(raft_id),
            "remove": Remove(raft_id),
            "move": UpdateAddress(raft_id, "elsewhere:1"),
        }
        if verb == "add" and raft_id not in self.nodes:
            self.nodes[raft_id] = Node(self, raft_id, HardState(), [])
        self.nodes[int(who)].raft.change_membership(change[verb])

    def do_deliver(self, route: str = "") -> None:
        """One round: what is on the wire now, or what goes one way (`1>2`, `1>`, `>2`)."""
        source, _, target = route.partition(">")
        for raw in list(self.wire):
            message = decode(raw)
            if source in ("", str(message.sender)) and target in ("", str(message.to)):
                self.lines.append(told(message))
                self.deliver(self.wire.index(raw))
                self.pump()

    def do_settle(self) -> None:
        """Deliver until nothing moves, without telling the messages."""
        while self.wire:
            self.deliver(0)
            self.pump()

    def do_lose(self, route: str = "") -> None:
        source, _, target = route.partition(">")
        for raw in list(self.wire):
            message = decode(raw)
            if source in ("", str(message.sender)) and target in ("", str(message.to)):
                self.lines.append(f"lost: {told(message)}")
                self.wire.remove(raw)

    def do_cut(self, who: str) -> None:
        others = [raft_id for raft_id in self.nodes if raft_id != int(who)]
        self.cut |= {(int(who), other) for other in others} | {(other, int(who)) for other in others}

    def do_heal(self) -> None:
        self.cut.clear()

    def do_hold(self, who: str) -> None:
        self.held.add(int(who))

    def do_flush(self, who: str, count: str = "1") -> None:
        self.nodes[int(who)].flush(int(count))

    def do_release(self, who: str) -> None:
        self.held.discard(int(who))

    def do_crash(self, who: str) -> None:
        self.nodes[int(who)].crash()
        self.states.pop(int(who), None)

    def do_restart(self, who: str) -> None:
        self.nodes[int(who)].start()

    def do_snapshot(self, who: str, kept: str) -> None:
        self.nodes[int(who)].compact(int(kept))

    def do_status(self, who: str = "all") -> None:
        for raft_id in self._ids(who):
            status = self.nodes[raft_id].raft.status
            log = f"log {status.first_index}..{status.last_index}"
            marks = f"commit {status.commit} applied {status.applied} durable {status.persisted}"
            members = " ".join(f"{one.raft_id}{'?' if one.learner else ''}" for one in status.membership.members)
            self.lines.append(f"{raft_id}: {log} {marks} members {members}")
            for other, found in status.progress.items():
                if other != raft_id:
                    self.lines.append(f"   {other}: {found.state.value} match {found.match} next {found.next}")

    def _ids(self, who: str) -> list[int]:
        return [node.id for node in self.up()] if who == "all" else [int(part) for part in who.split(",")]


def told(message: RaftMessage) -> str:
    """A message on one line."""
    head = f"{message.sender}>{message.to} {type(message).__name__} term={message.term}"
    if isinstance(message, Append):
        places = " ".join(f"{entry.index}/{entry.term}" for entry in message.entries)
        return f"{head} after={message.prev_index}/{message.prev_term} commit={message.commit} [{places}]"
    if isinstance(message, SnapshotChunk):
        return f"{head} index={message.meta.index} chunk={message.number}/{message.total}"
    names = [attribute.name for attribute in type(message).__attrs_attrs__][3:]
    return " ".join(
        [head, *[f"{name}={getattr(message, name)}" for name in names if getattr(message, name) is not False]]
    )


@pytest.mark.parametrize(
    "name", ["election", "replication", "disk", "partition", "failover", "transfer", "reads", "membership", "snapshot"]
)
def test_story(name: str, scenario: Callable[[str, Callable[[str], str]], None]) -> None:
    story: list[Story] = []

    def run(text: str) -> str:
        if not story:
            verb, size = text.split()
            assert verb == "cluster", "a story begins with its cluster"
            story.append(Story(int(size)))
            return "\n".join(story[0].lines)
        return story[0].run(text)

    scenario(f"raft_{name}.txt", run)
