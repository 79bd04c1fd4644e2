"""The manager scope: what a node runs while it is a manager, and the leader scope inside it while it leads.

Opened at the start of a manager and on promotion, left on demotion, removal and stop; leaving it means that all in it has
ended. The listener answers before this member joins Raft, since the leader dials it before it lets it in; it stops last, so
that leadership can be handed over while others still reach this manager.
"""

from __future__ import annotations

import logging

import trio
from attrs import evolve

from swarm.actors.admission import Admission
from swarm.actors.ca import CertificateAuthority
from swarm.actors.context import ManagerContext, NodeContext
from swarm.actors.control.api import ControlApi
from swarm.actors.leader import leave_leader, run_leader
from swarm.actors.listener import GetBoundAddress, Listener
from swarm.actors.manager_life import ManagerLife
from swarm.actors.membership import MembershipActor
from swarm.actors.raft_member import RaftMember
from swarm.actors.raft_messages import GetRaftStatus, Leadership, RaftStatusView, TransferLeadership, WatchLeadership
from swarm.actors.raft_start import MemberStart
from swarm.actors.store import StoreActor
from swarm.model.ids import NodeId, RaftId
from swarm.model.snapshot import Snapshot
from swarm.ports.net import DialError
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.ref import Inlet, Ref
from swarm.runtime.scope import Scope
from swarm.wire.codec import prepare
from swarm.wire.link import Link
from swarm.wire.messages.raft import JoinRaft, Member, Membership

log = logging.getLogger(__name__)

LEADERSHIP_WINDOW = 16
LEADER_DIAL_S = 5.0
JOIN_TIMEOUT_S = 30.0
JOIN_RETRY_S = 1.0
HAND_OVER_S = 3.0
"""At an orderly stop: for another manager to take the leadership over."""
ADDRESS_RETRY_S = 0.5
"""Between two tries to make a changed address known."""
STATUS_S = 5.0
ON_WIRE = ("raft", "store", "membership", "ca", "control")


async def run_manager(parent: Scope, node: NodeContext, life: ManagerLife) -> None:
    """Be a manager until `life.end` is set; everything of it has ended when this returns."""
    prepare()
    async with parent.open("manager") as scope, trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_end, life, nursery.cancel_scope)
        await _be_manager(scope, node, life)
    node.router.unmanage()
    for name in ON_WIRE:
        node.router.unregister(name)


async def _cancel_at_end(life: ManagerLife, scope: trio.CancelScope) -> None:
    await life.end.wait()
    if life.context is not None and life.leadership is not None and not life.leadership.removed:
        await _hand_over(life.context)
    scope.cancel()


async def _hand_over(manager: ManagerContext) -> None:
    """Have another manager lead before this one goes, so that nobody waits for an election."""
    try:
        status: RaftStatusView = await manager.raft.ask(GetRaftStatus(), timeout_s=STATUS_S)
        if status.role != "leader" or len(status.members) < 2:
            return
        await manager.raft.ask(TransferLeadership(), timeout_s=HAND_OVER_S)
    except SwarmError as error:
        log.warning("leadership could not be handed over: %s", error.text)


async def _be_manager(scope: Scope, node: NodeContext, life: ManagerLife) -> None:
    listener = await scope.start("listener", lambda: Listener(node.net, node.file.listen, node.links))
    _learn_address(node, await listener.ask(GetBoundAddress(), timeout_s=LEADER_DIAL_S))
    start = await _how_to_begin(node, life)
    manager = await _start_actors(scope, node, life, start, listener)
    life.context = manager
    async with (
        manager.raft.stream(WatchLeadership(), window=LEADERSHIP_WINDOW) as inlet,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_announce_address, manager, life)
        await _follow_leadership(scope, manager, life, inlet)
        nursery.cancel_scope.cancel()


async def _announce_address(manager: ManagerContext, life: ManagerLife) -> None:
    """See to it that Raft has this member's present address: it may have come back under another one."""
    await life.ready.wait()
    here, said = manager.advertised(), ""
    while True:
        try:
            status: RaftStatusView = await manager.raft.ask(GetRaftStatus(), timeout_s=STATUS_S)
            known = next((member.address for member in status.members if member.raft_id == manager.raft_id), here)
            if known == here:
                return
            request = JoinRaft(here, manager.raft_id)
            await manager.router.local("membership").ask(request, timeout_s=JOIN_TIMEOUT_S)
            log.info("the managers know this one at %s now, no more at %s", here, known)
        except SwarmError as error:
            if error.text != said:
                log.warning("the managers do not know yet that this one is at %s now: %s", here, error.text)
            said = error.text
        await trio.sleep(ADDRESS_RETRY_S)


def _learn_address(node: NodeContext, bound: str) -> None:
    """A port 0 becomes the one that was bound; an unspecified advertised host is guessed once, and kept.

    A typed address is on disk from here on only, so the file there is what to compare with.
    """
    host, _, port = bound.rpartition(":")
    listen_host = node.file.listen.rpartition(":")[0]
    advertise = node.file.advertise
    if not advertise or advertise.endswith(":0"):
        unspecified = host in ("0.0.0.0", "[::]", "::", "")
        advertise = f"{node.ports.outward_host() if unspecified else host}:{port}"
    node.file = evolve(node.file, listen=f"{listen_host}:{port}", advertise=advertise)
    if node.state.node() != node.file:
        node.state.save_node(node.file)


async def _how_to_begin(node: NodeContext, life: ManagerLife) -> MemberStart:
    """From its own log; as the first member of a new cluster; or as the leader lets it in."""
    known = bool(node.file.raft_id)
    members: tuple[Member, ...] = ()
    if known:
        raft_id, found = node.file.raft_id, node.state.founding() is not None
    elif node.state.founding() is not None:
        raft_id, found = RaftId(node.entropy.integer(1, (1 << 63) - 1)), True
    else:
        node.state.erase_raft()  # of a join that was cut short before its number was kept: that member will be taken out
        membership = await _join_raft(node, life)
        raft_id, found, members = membership.raft_id, False, membership.members
    if not members:
        node.save(evolve(node.file, raft_id=raft_id))
    me = Member(raft_id, node.node_id, node.file.advertise)
    forced = known and node.config.force_new_cluster
    return MemberStart(me, found=found, members=members, force_new_cluster=forced)


async def _join_raft(node: NodeContext, life: ManagerLife) -> Membership:
    while True:
        for address in node.file.managers:
            try:
                link = await node.links.to(address, timeout_s=LEADER_DIAL_S)
                return await link.ref("membership").ask(JoinRaft(node.file.advertise), timeout_s=JOIN_TIMEOUT_S)
            except (SwarmError, DialError) as error:
                life.waiting(f"joining the managers through {address}: {error}")
        await trio.sleep(JOIN_RETRY_S)


async def _start_actors(
    scope: Scope, node: NodeContext, life: ManagerLife, start: MemberStart, listener: Ref
) -> ManagerContext:
    data_key = node.state.data_key(node.entropy)
    log_store = node.ports.log_store(node.state, data_key)
    starts = [start]

    def new_member() -> RaftMember:
        # What is forced is forced once: a member that is restarted goes on from its log.
        first, starts[0] = starts[0], evolve(starts[0], force_new_cluster=False)
        return RaftMember(first, log_store, node.links, node.entropy)

    raft = await scope.start("raft", new_member)
    # Kept once something is in the log: a number without a log is that of a manager that has lost it, and is refused.
    node.save(evolve(node.file, raft_id=start.me.raft_id))
    stores: list[StoreActor] = []

    def new_store() -> StoreActor:
        stores[:] = [StoreActor(raft, node.entropy)]
        return stores[0]

    store = await scope.start("store", new_store)
    membership = await scope.start(
        "membership", lambda: MembershipActor(raft, node.links, node.entropy, lambda id: _name(stores[0].view(), id))
    )
    manager = ManagerContext(node, node.file.raft_id, store, raft, membership, lambda: stores[0].view())
    authority = await scope.start("ca", lambda: CertificateAuthority(store, node.clock, node.entropy))
    await scope.start("admission", lambda: Admission(store, listener, node.router))
    control = await scope.start("control", lambda: ControlApi(manager))
    for name, ref in zip(ON_WIRE, (raft, store, membership, authority, control), strict=True):
        node.router.register(name, ref)
    node.router.manage(lambda: _leads(life), lambda: _leader_link(node, life))
    return manager


def _name(view: Snapshot, id: NodeId) -> str:
    """A node's name for people."""
    node = view.node(id)
    return node.description.hostname or id if node is not None else id


def _leads(life: ManagerLife) -> bool:
    return life.leadership is not None and life.leadership.is_leader


async def _leader_link(node: NodeContext, life: ManagerLife) -> Link:
    leadership = life.leadership
    if leadership is None or not leadership.leader_address:
        raise SwarmError(
            ErrorCode.UNAVAILABLE,
            "no leader is known here: fewer than half of the managers can reach each other, or an election is under way",
        )
    if leadership.leader_node == node.node_id:
        # Soon here: a link to itself would take a handshake, and what came over it would have used up its one hop.
        raise SwarmError(ErrorCode.UNAVAILABLE, "this manager was elected and is about to lead; try again")
    return await node.links.to(leadership.leader_address, timeout_s=LEADER_DIAL_S)


async def _follow_leadership(
    scope: Scope, manager: ManagerContext, life: ManagerLife, inlet: Inlet[Leadership]
) -> None:
    """Open the leader scope when this member begins to lead, and have it ended before anything else when it ceases to."""
    async with trio.open_nursery() as nursery:
        leading: _Leading | None = None
        async for news in inlet:
            life.leadership = news
            if news.leader is not None:
                manager.router.leader_moved(news.leader_address)
            if news.removed:
                life.removed()
            if news.leader is not None:
                life.ready.set()
            if leading is not None and (not news.is_leader or news.term != leading.term):
                log.info("term %d: this manager does not lead any more", leading.term)
                await leading.stop()
                leading = None
            if news.is_leader and leading is None:
                log.info("term %d: this manager leads", news.term)
                await _tell_given_up(manager, life)
                leading = _Leading(scope, manager, news.term)
                nursery.start_soon(leading.run)


async def _tell_given_up(manager: ManagerContext, life: ManagerLife) -> None:
    """After a forced new cluster: whose logs could not be seen."""
    status: RaftStatusView = await manager.raft.ask(GetRaftStatus(), timeout_s=STATUS_S)
    if status.given_up and not life.note:
        names = ", ".join(f"{_name(manager.view(), NodeId(id))} ({id})" for id in status.given_up)
        life.note = (
            f"this manager goes on alone with what its own log holds; the logs of {names} could not be seen: what only they "
            "acknowledged is lost. Never start them with their old state: swarm node rm them, erase their state "
            "directories and join them anew"
        )
        log.warning("%s", life.note)
        life.say(life.note)


class _Leading:
    """One stay in the leader scope."""

    def __init__(self, scope: Scope, manager: ManagerContext, term: int) -> None:
        self.term = term
        self._scope = scope
        self._manager = manager
        self._cancel = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Lead until stopped. Errors of what it starts with mean that leadership is being lost again."""
        try:
            with self._cancel:
                async with self._scope.open("leader") as leader:
                    try:
                        await run_leader(leader, self._manager, self.term)
                    except SwarmError as error:
                        log.warning("term %d: leading did not begin: %s", self.term, error.text)
                    await trio.sleep_forever()
        finally:
            leave_leader(self._manager)
            self._ended.set()

    async def stop(self) -> None:
        """Cancel all of it, without grace: what it proposes is refused by its term anyway."""
        self._cancel.cancel()
        await self._ended.wait()
