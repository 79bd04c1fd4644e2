"""What this node's actors asked of a Raft member: proposals, reads, handovers, membership changes, until they are answered.

One idea: a change of leader is no answer. Proposals wait to learn what became of them, reads are asked again, and what comes
during a handover waits for its end. Each has a bound. Touched in the member's turns only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from swarm.actors.raft_messages import Propose
from swarm.actors.raft_waiting import Proposals, Reads, no_leader, refusal
from swarm.model.ids import RaftId
from swarm.raft.core import Raft
from swarm.raft.errors import RaftError
from swarm.raft.messages import MembershipChange
from swarm.raft.ready import Ready
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.turn import Later, Turn

READ_RETRY_S = 0.5
"""A read that got no index is asked again: its message or its answer was lost."""
NO_LEADER_S = 5.0
"""Reads wait this long for a leader to appear; an election takes a fraction of it."""
FATE_S = 5.0
"""After leadership was lost: how long proposals wait to learn from the next leader what became of them."""
HELD_MAX = 4096
"""Proposals that wait for a leadership transfer to end."""


class RaftClients:
    """`schedule` is called when the core has something to carry away."""

    def __init__(self, raft: Raft, raft_id: RaftId, schedule: Callable[[], None]) -> None:
        self._raft = raft
        self._id = raft_id
        self._schedule = schedule
        self.proposals = Proposals()
        self._reads = Reads()
        self._held: deque[tuple[Propose, Later[int]]] = deque()
        self._transfers: list[tuple[RaftId, Later[None]]] = []
        self._lost_at: float | None = None
        """When leadership was lost, for as long as proposals may wait for their fate."""

    @property
    def wait(self) -> bool:
        """Whether somebody waits for what only a tick moves."""
        return len(self._reads) > 0 or self._lost_at is not None

    # --- asking ----------------------------------------------------------------------------------------------------
    def propose(self, request: Propose, turn: Turn[int]) -> None:
        """Into the log, or in line behind a handover."""
        raft = self._raft
        if raft.transfer_target and (request.term is None or request.term == raft.term):
            if len(self._held) >= HELD_MAX:
                raise SwarmError(ErrorCode.UNAVAILABLE, "leadership is being handed over; try again")
            self._held.append((request, turn.defer()))
            return
        try:
            index = raft.propose(request.data, term=request.term)
        except RaftError as error:
            raise self._refusal(error) from error
        self.proposals.add(index, raft.term, turn.defer())
        self._schedule()

    def read(self, turn: Turn[int]) -> None:
        """Ask for a read index until there is one, the asker gives up, or nobody leads for long."""
        now = trio.current_time()
        self._send_read(self._reads.add(turn.defer(), now), now)

    def _send_read(self, context: int, now: float) -> None:
        try:
            self._raft.read_index(context)
        except RaftError:
            return
        self._reads.sent(context, now)
        self._schedule()

    def transfer(self, target: RaftId | None, turn: Turn[None]) -> None:
        """Hand leadership over; done at once when the target has it."""
        if target == self._id and self._raft.is_leader:
            return
        try:
            chosen = self._raft.transfer(target)
        except RaftError as error:
            raise self._refusal(error) from error
        self._transfers.append((RaftId(chosen), turn.defer()))
        self._schedule()

    def change_membership(self, change: MembershipChange, turn: Turn[None]) -> None:
        """Into the log."""
        try:
            index = self._raft.change_membership(change)
        except RaftError as error:
            raise self._refusal(error) from error
        self.proposals.add_change(index, self._raft.term, turn.defer())
        self._schedule()

    def _refusal(self, error: RaftError) -> SwarmError:
        raft = self._raft
        leader = raft.membership.find(raft.leader) if raft.leader else None
        return refusal(error, leader.address if leader else "")

    # --- answering -------------------------------------------------------------------------------------------------
    def answer_reads(self, ready: Ready) -> None:
        """Indexes that came; reads that lost their leader are asked again at the next tick."""
        for state in ready.reads:
            self._reads.answer(state.context, state.index)
        for context in ready.reads_failed:
            self._reads.unsent(context)

    def leadership_lost(self) -> None:
        """This member leads no more: its proposals' fate is the next leader's to tell."""
        self._lost_at = trio.current_time()

    def tick(self) -> None:
        """Ask again what got no answer; give up what waited for too long."""
        now = trio.current_time()
        for context, read in self._reads.items():
            if now - read.asked_at >= NO_LEADER_S and not self._raft.leader:
                self._reads.fail(context, no_leader())
            elif read.sent_at is None or now - read.sent_at >= READ_RETRY_S:
                self._send_read(context, now)
        if self._lost_at is not None and now - self._lost_at >= FATE_S:
            self._lost_at = None
            self.proposals.give_up()

    def settle_handovers(self) -> None:
        """Answer who waits for a handover that is over, and let the proposals go on that waited meanwhile."""
        raft = self._raft
        if raft.transfer_target or (not raft.leader and not raft.is_leader):
            return
        done = not raft.is_leader
        waiting, self._transfers = self._transfers, []
        for target, asked in waiting:
            if done:
                asked.answer(None)
            else:
                text = f"member {target:x} did not take the leadership over in time; this member goes on leading"
                asked.fail(SwarmError(ErrorCode.TIMEOUT, text))
        while self._held:
            request, later = self._held.popleft()
            try:
                index = raft.propose(request.data, term=request.term)
            except RaftError as error:
                later.fail(self._refusal(error))
            else:
                self.proposals.add(index, raft.term, later)
                self._schedule()
