"""One core under the microscope: messages in, messages out, with the disk done at once or held back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from raft_net import member

from swarm.raft.bootstrap import found_cluster
from swarm.raft.config import Config
from swarm.raft.core import Raft
from swarm.raft.messages import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    HeartbeatReply,
    PreVoteReply,
    RaftMessage,
    Vote,
    VoteReply,
)
from swarm.raft.ready import Ready, Role

CONFIG = Config(election_ticks=10, heartbeat_ticks=2, retry_ticks=3, hint_jitter_ticks=2)
M = TypeVar("M", bound=RaftMessage)


class Lab:
    """Member 1 of `size`, a follower of nobody in term 1. Draws the lowest number whenever it draws one."""

    def __init__(
        self,
        size: int = 3,
        *,
        entries: Sequence[Entry] = (),
        term: int = 1,
        vote: int = 0,
        commit: int = 1,
        config: Config = CONFIG,
        raft_id: int = 1,
    ) -> None:
        _, first = found_cluster([member(raft_id) for raft_id in range(1, size + 1)])
        self.draws: list[tuple[int, int]] = []
        self.raft = Raft(
            raft_id,
            random=self._draw,
            config=config,
            hard_state=HardState(term, vote, commit),
            entries=[*first, *entries],
        )
        self.readies: list[Ready] = []
        self.disk_works = True
        self.committed: list[Entry] = []
        self.taken: list[Ready] = []
        """Every Ready there ever was."""

    def _draw(self, low: int, high: int) -> int:
        self.draws.append((low, high))
        return low

    def step(self, *messages: RaftMessage) -> list[RaftMessage]:
        """Deliver, then everything that leaves."""
        for message in messages:
            self.raft.step(message)
        return self.out()

    def out(self) -> list[RaftMessage]:
        """Everything that leaves now; what waits for the disk too, as long as it works."""
        sent: list[RaftMessage] = []
        while (ready := self.raft.ready()) is not None:
            self.taken.append(ready)
            sent += ready.messages
            self.committed += ready.committed
            if ready.committed:
                self.raft.applied(ready.committed[-1].index)
            self.readies.append(ready)
            if self.disk_works:
                sent += self.flush()
        return sent

    def flush(self, count: int = 99) -> list[RaftMessage]:
        """The oldest writes are durable: what leaves after them."""
        sent: list[RaftMessage] = []
        for ready in self.readies[:count]:
            self.raft.persisted(ready)
            sent += ready.messages_after
        del self.readies[:count]
        return sent

    def tick(self, count: int = 1) -> list[RaftMessage]:
        sent: list[RaftMessage] = []
        for _ in range(count):
            self.raft.tick()
            sent += self.out()
        return sent

    @property
    def role(self) -> Role:
        return self.raft.status.role

    @property
    def term(self) -> int:
        return self.raft.term

    def become_candidate(self) -> list[RaftMessage]:
        """Time out, win the pre-vote: what leaves at the campaign."""
        self.tick(10)
        assert self.role is Role.PRE_CANDIDATE
        sent: list[RaftMessage] = []
        for voter in sorted(self.raft.membership.voters - {1}):
            if self.role is Role.PRE_CANDIDATE:
                sent += self.step(PreVoteReply(1, voter, self.term + 1, True))
        assert self.role is Role.CANDIDATE
        return sent

    def become_leader(self) -> list[RaftMessage]:
        """Win an election: what leaves first."""
        sent = self.become_candidate() if self.role is not Role.LEADER else []
        for voter in sorted(self.raft.membership.voters - {1}):
            if self.role is Role.CANDIDATE:
                sent += self.step(VoteReply(1, voter, self.term, True))
        assert self.role is Role.LEADER
        return only(sent, Append)

    def acknowledge(self, *members: int, index: int | None = None) -> list[RaftMessage]:
        """These hold everything."""
        index = self.raft.last_index if index is None else index
        return self.step(*[AppendReply(1, raft_id, self.term, index) for raft_id in members])

    def beat_back(self, *members: int, round_: int = 0) -> list[RaftMessage]:
        """These answer a heartbeat."""
        return self.step(*[HeartbeatReply(1, raft_id, self.term, round_) for raft_id in members])

    def settle(self) -> None:
        """As leader, have everything committed."""
        self.acknowledge(*sorted(self.raft.membership.voters - {1}))
        assert self.raft.status.commit == self.raft.last_index


def only(messages: Sequence[RaftMessage], cls: type[M]) -> list[M]:
    return [message for message in messages if isinstance(message, cls)]


def entry(index: int, term: int, data: bytes = b"x") -> Entry:
    return Entry(index, term, EntryKind.NORMAL, data)


def vote(sender: int, term: int, last_index: int = 1, last_term: int = 1, *, transfer: bool = False) -> Vote:
    return Vote(1, sender, term, last_index, last_term, transfer)


def append(sender: int, term: int, prev: int, prev_term: int, *entries: Entry, commit: int = 0) -> Append:
    return Append(1, sender, term, prev, prev_term, commit, entries)
