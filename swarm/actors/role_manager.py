"""The actor `roles`, on the leader: carries out what `plan/roles.py` finds, whenever nodes or members change.

A demotion of the leader itself hands the leadership over first; the next leader's role manager goes on from what is stored.
"""

from __future__ import annotations

import logging
import math

import trio

from swarm.actors.membership import CheckDemotion
from swarm.actors.raft_messages import GetRaftStatus, RaftStatusView, TransferLeadership
from swarm.actors.store_messages import Committed, ProposeChanges, WatchStore
from swarm.model.changes import Kind, Update
from swarm.model.ids import RaftId
from swarm.model.snapshot import Snapshot
from swarm.plan.roles import RaftMember, RemoveMember, role_steps
from swarm.runtime.actor import Actor
from swarm.runtime.errors import SwarmError
from swarm.runtime.ref import Inlet, Ref
from swarm.wire.messages.raft import LeaveRaft

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Between two tries of steps that could not be done, and between two looks at the members."""
ASK_TIMEOUT_S = 20.0
WATCH_WINDOW = 64


class RoleManager(Actor):
    """Brings observed roles to desired ones."""

    def __init__(self, store: Ref, raft: Ref, membership: Ref, term: int) -> None:
        self._store = store
        self._raft = raft
        self._membership = membership
        self._term = term
        self._members: tuple[RaftMember, ...] | None = None
        self._said = ""
        """The last problem that was logged: it is tried again every second, and told once."""

    async def started(self) -> None:
        """Begin to follow."""
        self.job(self._follow, name="follow")

    async def _follow(self) -> None:
        while True:
            try:
                async with self._store.stream(WatchStore(), window=WATCH_WINDOW) as inlet:
                    await self._follow_stream(inlet)
            except SwarmError as error:
                log.info("roles: watching anew: %s", error.text)
                await trio.sleep(RETRY_S)

    async def _follow_stream(self, inlet: Inlet[Committed]) -> None:
        view: Snapshot | None = None
        again = False
        while True:
            committed: Committed | None = None
            with trio.move_on_after(math.inf if view is None else RETRY_S):
                committed = await inlet.receive()
            if committed is not None:
                first, view = view is None, committed.snapshot
                if not first and not any(event.kind is Kind.NODE for event in committed.events):
                    continue
            assert view is not None, "the first item is waited for"
            status = await self._raft.ask(GetRaftStatus(), timeout_s=ASK_TIMEOUT_S)
            members = members_of(status)
            if committed is None and not again and members == self._members:
                continue
            self._members = members
            again = not await self._carry_out(view, members, status.raft_id)

    async def _carry_out(self, view: Snapshot, members: tuple[RaftMember, ...], self_id: RaftId) -> bool:
        """Do every step that is due; False when one could not be done and is to be tried again."""
        done = True
        for step in list(role_steps(view.nodes(), members)):
            try:
                if isinstance(step, RemoveMember):
                    await self._remove(step, self_id)
                else:
                    await self._update(step)
            except SwarmError as error:
                if error.text != self._said:
                    log.warning("roles: not done yet: %s", error.text)
                self._said = error.text
                done = False
        return done

    async def _update(self, step: Update) -> None:
        await self._store.ask(ProposeChanges(((step,),), term=self._term), timeout_s=ASK_TIMEOUT_S)

    async def _remove(self, step: RemoveMember, self_id: RaftId) -> None:
        member = step.member
        if member.raft_id == self_id:
            await self._membership.ask(CheckDemotion(member.node_id), timeout_s=ASK_TIMEOUT_S)
            await self._raft.ask(TransferLeadership(), timeout_s=ASK_TIMEOUT_S)
            return
        await self._membership.ask(LeaveRaft(member.raft_id), timeout_s=ASK_TIMEOUT_S)
        log.info("roles: member %x of node %s left Raft: %s", member.raft_id, member.node_id, step.why)


def members_of(status: RaftStatusView) -> tuple[RaftMember, ...]:
    """The members that the leader knows, learners included."""
    return tuple(RaftMember(RaftId(one.raft_id), one.node_id, one.address) for one in status.members)
