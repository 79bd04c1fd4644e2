"""The actor `raft`: one member of the cluster's consensus, on each manager.

One idea: the core (`swarm/raft`) is stepped in turns, which never wait, and what it hands out is carried away by the disk's
job, the peers' links and the store's mailbox. A turn only notes that there is something to carry; one `Pump` behind all
that is queued takes it together, so that proposals, messages and writes travel in batches by themselves. Nothing is
acknowledged before it is durable. It never looks into what it replicates.
"""

from __future__ import annotations

import logging

import trio
from attrs import frozen

from swarm.actors.raft_clients import RaftClients
from swarm.actors.raft_disk import RaftDisk
from swarm.actors.raft_feed import StoreFeed, StoreRefilled, StoreTook
from swarm.actors.raft_leadership import LeadershipNews
from swarm.actors.raft_messages import (
    AttachStore,
    ChangeMembership,
    GetRaftStatus,
    Leadership,
    MembershipVerb,
    Propose,
    RaftStatusView,
    ReadIndex,
    SetCompaction,
    TransferLeadership,
    WatchLeadership,
)
from swarm.actors.raft_peers import LinkLost, LinkUp, PeerLinks, RaftPeers
from swarm.actors.raft_snapshots import SnapshotEncoded, SnapshotEnded, SnapshotLoaded, Snapshots, SnapshotSaved
from swarm.actors.raft_start import MemberStart, begin, entry_of
from swarm.model.ids import NodeId, RaftId
from swarm.model.specs import RaftSettings
from swarm.ports.entropy import Entropy
from swarm.ports.log_store import LogStore
from swarm.raft.codec import BadMessage, decode
from swarm.raft.config import Config
from swarm.raft.core import Raft
from swarm.raft.errors import RaftError
from swarm.raft.messages import AddLearner, MembershipChange, Promote, RaftMessage, Remove, UpdateAddress
from swarm.raft.ready import Ready
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import SwarmError
from swarm.runtime.message import Message
from swarm.runtime.turn import StreamTurn, Turn
from swarm.wire.messages.node import MemberView
from swarm.wire.messages.raft import Member, RaftBulk, RaftMessages

log = logging.getLogger(__name__)

TICK_S = 0.05
"""With `raft.config`: a leader that falls silent is doubted after 1.2 to 2.35 s, a lost link is acted on within 0.1 s."""
ALONE_TICKS = 20
"""Ticks that pass at once where there is no other member: nothing but clean-up depends on them."""
STOP_WRITES_S = 2.0
"""At an orderly stop: for the writes under way."""


@frozen
class Tick(Message):
    """Time has passed: this many ticks."""

    count: int = 1


@frozen
class Pump(Message):
    """Carry away what the core has ready."""


@frozen
class Written(Message):
    """These are durable."""

    batch: tuple[Ready, ...]


@frozen
class WriteRefused(Message):
    """The disk takes nothing at the moment."""

    text: str


class RaftMember(Actor):
    """One member. `links` is dialled with, `store` is its disk alone."""

    mailbox_capacity = 8192

    def __init__(self, start: MemberStart, disk: LogStore, links: PeerLinks, entropy: Entropy, *,
                 config: Config | None = None, tick_s: float = TICK_S) -> None:  # fmt: skip
        self._start = start
        self._me = start.me
        self._log_store = disk
        self._links = links
        self._entropy = entropy
        self._config = config or Config()
        self._tick_s = tick_s
        self._pace = 1
        """How many ticks pass at once: one while something is under way, more while only heartbeats are due."""
        self._hurry = trio.Event()
        """Set when something came up that is not to wait for the pace."""
        self._pumping = False
        self._problem = ""
        self._given_up: tuple[str, ...] = ()

    # --- life ------------------------------------------------------------------------------------------------------
    async def started(self) -> None:
        """Read the disk, begin or go on. `LogDamaged`, or PRECONDITION when the log that should be there is not."""
        begun = await begin(self._start, self._log_store)
        self._given_up = begun.given_up
        recovered = begun.recovered
        self.raft = Raft(
            self._me.raft_id,
            random=self._entropy.integer,
            config=self._config,
            hard_state=recovered.hard_state,
            stored=recovered.snapshot,
            entries=recovered.entries,
        )
        self._peers = RaftPeers(self._me, self._links, self, self._entropy)
        for member in self._start.members:
            self._peers.meet(member)
        self._disk = RaftDisk(self._log_store, self._offer_written, self._tell_written, self._tell_refused)
        self._clients = RaftClients(self.raft, self._me.raft_id, self._schedule)
        self._feed = StoreFeed(self.raft, self._log_store, self, self._clients.proposals)
        self._news = LeadershipNews(self.raft, self._me.raft_id, self._feed)
        self._snapshots = Snapshots(self.raft, self._log_store, self, self._feed)
        self.job(self._disk.run, name="disk")
        self.job(self._ticks, name="ticks")
        self._schedule()

    async def stopping(self) -> None:
        """Hand leadership over if that can be done without an answer, finish the writes, let go of the disk.

        The manager asks for `TransferLeadership` before it stops; this is the last resort.
        """
        if self.raft.is_leader:
            try:
                self.raft.transfer(None)
            except RaftError:
                pass
            self._carry()
        with trio.move_on_after(STOP_WRITES_S):
            await self._disk.idle()
        await self._log_store.aclose()

    async def _ticks(self) -> None:
        """The job of time. A late tick is not made up for: a stall of this process is no silence of others.

        An idle member wakes as often as heartbeats need, not at every tick: each waking costs a third of a millisecond.
        """
        while True:
            pace = self._pace
            with trio.move_on_after(pace * self._tick_s):
                await self._hurry.wait()
                self._hurry = trio.Event()
                continue  # what begins now must not be charged with the time that passed before
            self.ref.offer(Tick(pace))

    def _set_pace(self) -> None:
        pace = 1
        if self.raft.is_quiet and not self._clients.wait:
            alone = self.raft.is_leader and len(self.raft.membership.members) == 1
            pace = ALONE_TICKS if alone else self._config.heartbeat_ticks
        if pace < self._pace:
            self._hurry.set()
        self._pace = pace

    def _offer_written(self, batch: tuple[Ready, ...]) -> bool:
        return self.ref.offer(Written(batch))

    async def _tell_written(self, batch: tuple[Ready, ...]) -> None:
        try:
            await self.ref.tell(Written(batch))
        except SwarmError:
            # This member is stopping and takes no note any more; its stop waits for the disk alone.
            self._disk.settled(len(batch))

    async def _tell_refused(self, text: str) -> None:
        await self.ref.tell(WriteRefused(text))

    # --- from the others -------------------------------------------------------------------------------------------
    @on(RaftMessages)
    def messages(self, message: RaftMessages, turn: Turn[None]) -> None:
        """Another member's messages."""
        self._step(message, turn)

    @on(RaftBulk)
    def bulk(self, message: RaftBulk, turn: Turn[None]) -> None:
        """Chunks of its snapshot."""
        self._step(message, turn)

    def _step(self, message: RaftMessages | RaftBulk, turn: Turn[None]) -> None:
        if message.to_member != self._me.raft_id:
            return
        if message.sender and not self._peers.is_reachable(message.sender):
            self._peers.meet(Member(message.sender, NodeId(turn.caller.node_id), message.address))
        step = self.raft.step
        for data in message.payload:
            try:
                step(decode(data))
            except BadMessage as error:
                log.warning("from node %s: %s", turn.caller.node_id, error)
        self._schedule()

    @on(LinkUp)
    def link_up(self, message: LinkUp, turn: Turn[None]) -> None:
        """A link stands."""
        self._peers.link_up(message)

    @on(LinkLost)
    def link_lost(self, message: LinkLost, turn: Turn[None]) -> None:
        """A link is gone: what was sent may be lost, and if it was the leader's, another one is needed soon."""
        if self._peers.link_lost(message):
            log.info("the link to member %x is gone: %s", message.raft_id, message.reason)
            self.raft.report_unreachable(message.raft_id)
            self.raft.hint_leader_lost(message.raft_id)
            self._schedule()

    # --- asked by this node's actors -------------------------------------------------------------------------------
    @on(Propose)
    def propose(self, request: Propose, turn: Turn[int]) -> int:
        """Into the log; answered when it was committed and handed to the store."""
        self._clients.propose(request, turn)
        return 0

    @on(ReadIndex)
    def read_index(self, request: ReadIndex, turn: Turn[int]) -> int:
        """The index that a linearizable read must see; asked again until its asker gives up or nobody leads for long."""
        self._clients.read(turn)
        return 0

    @on(TransferLeadership)
    def transfer(self, request: TransferLeadership, turn: Turn[None]) -> None:
        """Give the leadership away."""
        self._clients.transfer(request.target, turn)

    @on(ChangeMembership)
    def change_membership(self, request: ChangeMembership, turn: Turn[None]) -> None:
        """One change; answered when committed."""
        self._clients.change_membership(_change_of(request), turn)

    @on(WatchLeadership)
    def watch_leadership(self, request: WatchLeadership, turn: StreamTurn[Leadership]) -> None:
        """The present state and every change."""
        self._news.watch(turn.sink)

    @on(GetRaftStatus)
    def status(self, request: GetRaftStatus, turn: Turn[RaftStatusView]) -> RaftStatusView:
        """How this member stands."""
        status = self.raft.status
        members = tuple(
            MemberView(
                raft_id=member.raft_id,
                node_id=NodeId(member.node_id),
                address=member.address,
                leader=member.raft_id == status.leader,
                reachable=member.raft_id == self._me.raft_id or self._peers.is_reachable(RaftId(member.raft_id)),
                match_index=status.progress[member.raft_id].match if member.raft_id in status.progress else 0,
                learner=member.learner,
                problem="" if member.raft_id == self._me.raft_id else self._peers.problem(RaftId(member.raft_id)),
            )
            for member in status.membership.members
        )
        return RaftStatusView(
            raft_id=self._me.raft_id,
            role=status.role.value,
            term=status.term,
            leader=RaftId(status.leader) if status.leader else None,
            commit_index=status.commit,
            applied_index=self._feed.given,
            first_index=status.first_index,
            last_index=status.last_index,
            members=members,
            problem=self._problem,
            given_up=self._given_up,
            pending_change=status.is_changing or (self.raft.is_leader and not self.raft.is_settled),
        )

    @on(AttachStore)
    def attach_store(self, message: AttachStore, turn: Turn[None]) -> None:
        """A store that is empty: the newest snapshot first, then all entries after it."""
        self._feed.attach(message.store)

    @on(SetCompaction)
    def set_compaction(self, message: SetCompaction, turn: Turn[None]) -> None:
        """The cluster's settings changed."""
        self._snapshots.settings = RaftSettings(message.snapshot_interval, message.kept_entries)

    # --- news from own jobs ----------------------------------------------------------------------------------------
    @on(Tick)
    def tick(self, message: Tick, turn: Turn[None]) -> None:
        """Time has passed."""
        for _ in range(message.count):
            self.raft.tick()
        self._snapshots.tick()
        self._clients.tick()
        self._schedule()

    @on(Written)
    def written(self, message: Written, turn: Turn[None]) -> None:
        """These are on disk: now their votes and acknowledgements may leave."""
        if self._problem:
            log.warning("the disk takes writes again")
            self._problem = ""
        for ready in message.batch:
            self._persisted(ready)
        self._disk.settled(len(message.batch))
        self._schedule()

    @on(WriteRefused)
    def write_refused(self, message: WriteRefused, turn: Turn[None]) -> None:
        """Nothing is acknowledged; a leader lets another one lead, which needs no write of its own.

        Once another one leads, this member cannot learn what became of its proposals: its log does not grow.
        """
        if not self._problem:
            log.error("nothing can be written: %s; trying again every second", message.text)
        self._problem = message.text
        if not self.raft.is_leader:
            self._clients.proposals.give_up()
        if self.raft.is_leader and not self.raft.transfer_target:
            try:
                self.raft.transfer(None)
            except RaftError:
                pass
            self._schedule()

    @on(StoreTook)
    def store_took(self, message: StoreTook, turn: Turn[None]) -> None:
        """The store has room again."""
        self._feed.took(message)
        self._schedule()

    @on(StoreRefilled)
    def store_refilled(self, message: StoreRefilled, turn: Turn[None]) -> None:
        """A new store has the snapshot."""
        self._feed.refilled(message)
        self._schedule()

    @on(SnapshotEncoded)
    def snapshot_encoded(self, message: SnapshotEncoded, turn: Turn[None]) -> None:
        """The store gave its content."""
        self._snapshots.encoded(message)

    @on(SnapshotSaved)
    def snapshot_saved(self, message: SnapshotSaved, turn: Turn[None]) -> None:
        """It is durable."""
        self._snapshots.saved(message)

    @on(SnapshotEnded)
    def snapshot_ended(self, message: SnapshotEnded, turn: Turn[None]) -> None:
        """All of it is done, or it failed."""
        self._snapshots.ended(message)

    @on(SnapshotLoaded)
    def snapshot_loaded(self, message: SnapshotLoaded, turn: Turn[None]) -> None:
        """A saved snapshot is there to be sent."""
        self._snapshots.loaded(message)
        self._schedule()

    # --- the pump --------------------------------------------------------------------------------------------------
    def _schedule(self) -> None:
        """Pump after all that is queued already; at once when the mailbox has no room."""
        if not self._pumping:
            self._pumping = True
            if not self.ref.offer(Pump()):
                self._carry()

    @on(Pump)
    def pump(self, message: Pump, turn: Turn[None]) -> None:
        """Carry away what is ready."""
        self._carry()

    def _carry(self) -> None:
        self._pumping = False
        raft = self.raft
        self._set_pace()
        while (ready := raft.ready()) is not None:
            self._peers.follow(raft.membership)
            self._send(ready.messages)
            if ready.must_write or not self._disk.is_idle:
                self._disk.take(ready)
            else:
                self._persisted(ready)
            self._feed.give(ready.committed)
            self._clients.answer_reads(ready)
            self._snapshots.want(ready.chunks_wanted)
        self._snapshots.take_if_due()
        self._clients.settle_handovers()
        if self._news.publish():
            self._clients.leadership_lost()

    def _send(self, messages: tuple[RaftMessage, ...]) -> None:
        for raft_id in self._peers.send(messages) if messages else ():
            self.raft.report_unreachable(raft_id)

    def _persisted(self, ready: Ready) -> None:
        self.raft.persisted(ready)
        self._send(ready.messages_after)
        if ready.snapshot is not None:
            self._feed.install(ready.snapshot)
            self._snapshots.replaced_by(ready.snapshot)


def _change_of(request: ChangeMembership) -> MembershipChange:
    member = request.member
    match request.verb:
        case MembershipVerb.ADD_LEARNER:
            return AddLearner(entry_of(member))
        case MembershipVerb.PROMOTE:
            return Promote(member.raft_id)
        case MembershipVerb.REMOVE:
            return Remove(member.raft_id)
        case MembershipVerb.UPDATE:
            return UpdateAddress(member.raft_id, member.address)
