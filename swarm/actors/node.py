"""A node's life: who it is, what it runs, when it ends. `run_node` is the whole of it; the actor `node` is its front.

The one idea: the scopes are the role. A worker is a node that has not opened the manager scope; a promotion opens it, a
demotion leaves it and waits until all in it has ended, and neither touches the agent or a task. Which of these is due is
decided from three facts (the certificate's role, whether Raft has taken this member out, whether the end was asked for) in one
loop, so that no two things open or close the scope at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from enum import Enum, auto

import trio
import trio.lowlevel
from attrs import define, evolve, field, frozen

import swarm
from swarm.actors.agent import Agent, AgentConfig
from swarm.actors.context import NodeConfig, NodeContext, NodePorts
from swarm.actors.gateway import Gateway
from swarm.actors.identify import AnonymousDialler, identify
from swarm.actors.manager_life import ManagerLife
from swarm.actors.managers import Managers
from swarm.actors.raft_messages import GetRaftStatus, RaftStatusView
from swarm.actors.renewer import CredentialsChanged, Renewer, RenewNow, TrustRoots
from swarm.actors.session_messages import (
    AgentStatus,
    GetAgentStatus,
    LeaveSession,
    RemoveAllTasks,
    SessionNews,
)
from swarm.ca.certificates import issuer_key_hash, peer_of
from swarm.ca.credentials import Credentials
from swarm.ca.identity import ANONYMOUS, Peer, PeerRole
from swarm.model.generic import parse as parse_resources
from swarm.model.ids import Instant, NodeId, RaftId
from swarm.model.specs import NodeDescription, Resources
from swarm.model.states import Role
from swarm.ports.net import DialError
from swarm.ports.paths import SOCKET_NAME
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.ref import Ref, Sink
from swarm.runtime.scope import Scope, open_scope
from swarm.runtime.supervise import Restart
from swarm.runtime.trace import Trace
from swarm.runtime.turn import StreamTurn, Turn
from swarm.wire.links import open_links
from swarm.wire.messages.control import GetNode, UpdateNode
from swarm.wire.messages.node import GetNodeStatus, LeaveCluster, LeaveProgress, NodeStatusView, StopNode
from swarm.wire.router import open_router

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 20.0
LEAVE_TIMEOUT_S = 60.0
DEMOTION_TIMEOUT_S = 45.0
REJOIN_S = 15.0
"""For a node that leaves to find a manager that it can tell."""
REJOIN_FORCED_S = 3.0
"""The same for one that leaves by force."""
REJOIN_RETRY_S = 0.1
LISTEN_RETRY_S = 2.0
"""Between two tries of a node that was promoted to listen."""
STATUS_TIMEOUT_S = 5.0
NO_LEADER = "waiting for a leader: too few managers can be reached, or an election is under way"
PEER_ROLES = {Role.WORKER: PeerRole.WORKER, Role.MANAGER: PeerRole.MANAGER}


class End(Enum):
    """Why a node's life ends."""

    STOPPED = auto()
    LEFT = auto()


@define
class Facts:
    """What decides whether the manager scope is open, and a bell that rings when one of them changes."""

    role: PeerRole
    removed: bool = False
    """Raft has taken this member out since the scope was opened."""
    end: End | None = None
    _changed: trio.Event = field(factory=trio.Event)

    def set(self, **facts: object) -> None:
        """Change facts and ring."""
        for name, value in facts.items():
            setattr(self, name, value)
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, holds: Callable[[Facts], bool]) -> None:
        """Wait until it holds."""
        while not holds(self):
            await self._changed.wait()


@frozen
class Told:
    """How whoever started the daemon hears of it."""

    waiting: Callable[[str], None]
    ready: Callable[[NodeStatusView, bool], None]
    """Called once: the node is registered with a leader. The flag: a cluster was founded."""


async def run_node(
    config: NodeConfig, ports: NodePorts, told: Told, stop: trio.Event, *, trace: Trace | None = None
) -> End:
    """Be a node until `stop` is set, `swarm stop` or `swarm leave`; all of it has ended when this returns."""
    state = ports.open_state(config.state_dir)
    try:
        async with ports.open_net() as net, open_router(ports.entropy) as router:
            identity = NodeIdentity()
            async with open_links(net, router, clock=ports.clock, entropy=ports.entropy, node_id=identity.get) as links:
                dialler = AnonymousDialler(net, links)
                made, founded = await identify(config, ports, state, dialler, told.waiting)
                identity.node_id = made.node.node_id
                node = NodeContext(config, ports, state, made.node, made.credentials, net, router, links)
                use_credentials(node, made.credentials)
                try:
                    end = await _live(node, told, founded, stop, trace)
                except* DialError:
                    if founded and not state.began_raft():  # it never listened: the next `up` or `join` starts afresh
                        state.erase()
                    raise
        if end is End.LEFT:
            state.erase()
        return end
    finally:
        state.close()


@define
class NodeIdentity:
    """The node's id, once it is known."""

    node_id: str = ""

    def get(self) -> str:
        """Empty before the node is identified."""
        return self.node_id


def use_credentials(node: NodeContext, credentials: Credentials) -> Peer:
    """New connections prove this node with these; links that stand with another role end."""
    peer = peer_of(credentials.certificate_pem)
    before = node.router.me
    node.credentials = credentials
    node.net.set_credentials(credentials)
    node.router.me = peer
    if before != ANONYMOUS and before.role is not peer.role:
        node.links.close_where(
            lambda link: link.peer.role is not PeerRole.LOCAL, f"this node is a {peer.role.value} now"
        )
    role = Role.MANAGER if peer.role is PeerRole.MANAGER else Role.WORKER
    node.save(evolve(node.file, role=role))
    return peer


async def _live(node: NodeContext, told: Told, founded: bool, stop: trio.Event, trace: Trace | None) -> End:
    facts = Facts(role=node.router.me.role)
    front = Node(node, facts, told.waiting)
    async with open_scope("node", log=log, trace=trace) as scope, trio.open_nursery() as nursery:
        ref = await scope.start("node", lambda: front, restart=Restart.NEVER)
        node.router.register("node", ref)
        await scope.start(
            "gateway", lambda: Gateway(str(node.state.path(SOCKET_NAME)), node.links, node.ports.open_local)
        )
        managers = Managers(node.links, node.router, node.entropy)
        managers.remember(node.file.managers)
        executors = node.ports.executors(node.file, node.state)
        front.renewer = await scope.start(
            "renewer",
            lambda: Renewer(node.state, managers.ask_authority, ref, node.clock, node.entropy, log.info),
        )
        config = AgentConfig(node.node_id, node.file.hostname, executors.usable, lambda: _description(node))
        front.agent = await scope.start(
            "agent",
            lambda: Agent(config, node.ports.task_store(node.state), managers, ref, node.clock, node.entropy),
        )
        node.local_agent = front.agent
        node.router.register("agent", front.agent)
        nursery.start_soon(_stop_when_told, stop, facts)
        nursery.start_soon(_tell_when_ready, front, told, founded)
        await _follow_role(scope, node, facts, front)
        nursery.cancel_scope.cancel()
    assert facts.end is not None, "a life ends only when it was asked to"
    return facts.end


def _description(node: NodeContext) -> NodeDescription:
    """What is known of this machine without asking its executors."""
    generic = parse_resources(",".join(node.file.generic)) if node.file.generic else ()
    issuer = issuer_key_hash(node.credentials.certificate_pem, node.credentials.root_pem)
    return NodeDescription(hostname=node.file.hostname, resources=Resources(generic=generic), certificate_issuer=issuer)


async def _stop_when_told(stop: trio.Event, facts: Facts) -> None:
    await stop.wait()
    if facts.end is None:
        facts.set(end=End.STOPPED)


async def _tell_when_ready(front: Node, told: Told, founded: bool) -> None:
    shown = ""
    while True:
        status = await front.look()
        if status.state == "ready":
            told.ready(status, founded)
            return
        if status.state != shown:
            shown = status.state
            told.waiting(shown)
        await front.changed()


async def _follow_role(scope: Scope, node: NodeContext, facts: Facts, front: Node) -> None:
    """Open and leave the manager scope as the facts demand; returns when the node's life ends."""
    while facts.end is None:
        if facts.role is not PeerRole.MANAGER:
            node.save(evolve(node.file, raft_id=RaftId(0)))
            front.agent_runs = True
            front.manager = None
            await facts.until(lambda now: now.end is not None or now.role is PeerRole.MANAGER)
            continue
        from swarm.actors.manager import run_manager  # a worker does without a manager's 10 MB of code

        facts.removed = False
        life = ManagerLife(front.manager_waits, front.say, removed=lambda: facts.set(removed=True))
        front.manager = life
        promoted, refused = front.agent_runs, ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_life, facts, life)
                await run_manager(scope, node, life)
                nursery.cancel_scope.cancel()
        except* DialError as errors:
            # At its start a node that cannot listen ends; one that is promoted has tasks to look after, and tries again.
            if not promoted:
                raise
            refused = f"it was promoted and cannot be a manager yet: {_innermost(errors)}"
        if refused:
            front.manager_waits(refused)
            log.error("%s", refused)
            with trio.move_on_after(LISTEN_RETRY_S):
                await facts.until(lambda now: now.end is not None or now.role is not PeerRole.MANAGER)
            continue
        front.agent_runs = True
        front.manager = None
        if facts.end is None:
            await _left_raft(node, facts)


def _innermost(group: BaseExceptionGroup[DialError]) -> BaseException:
    """The first error in nested groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _end_life(facts: Facts, life: ManagerLife) -> None:
    await facts.until(lambda now: now.end is not None or now.removed or now.role is not PeerRole.MANAGER)
    life.end.set()


async def _left_raft(node: NodeContext, facts: Facts) -> None:
    """Erase what a former member must not keep, then wait for the worker's certificate, or for a new promotion."""
    log.info("this node left Raft: its log is erased")
    node.state.erase_raft()
    node.save(evolve(node.file, raft_id=RaftId(0)))
    await facts.until(lambda now: now.end is not None or now.role is not PeerRole.MANAGER or not now.removed)


def _unreached(raft: RaftStatusView) -> Iterable[str]:
    """Why members are not reached, for whoever looks for the reason that nobody leads."""
    for member in raft.members:
        if member.problem:
            yield member.problem if member.address in member.problem else f"{member.address}: {member.problem}"


class Node(Actor):
    """The actor `node`: answers for this machine, and turns news from the managers into facts."""

    def __init__(self, node: NodeContext, facts: Facts, say: Callable[[str], None]) -> None:
        self._node = node
        self._facts = facts
        self.say = say
        """Tell whoever started the daemon, as long as the node is not ready."""
        self._waiting = "starting"
        self._bell = trio.Event()
        self.renewer: Ref | None = None
        self.agent: Ref | None = None
        self.manager: ManagerLife | None = None
        self.agent_runs = False
        """This node has been a working node since it started: what keeps it from being a manager does not end it."""

    # --- news ------------------------------------------------------------------------------------------------------
    @on(SessionNews)
    def session_news(self, news: SessionNews, turn: Turn[None]) -> None:
        """The managers' view of this node: its role, the trust roots, where managers are."""
        if self.renewer is not None:
            self.renewer.offer(RenewNow(PEER_ROLES[news.node.role]))
            self.renewer.offer(TrustRoots(news.root_certificate))
        addresses = tuple(manager.address for manager in news.managers)
        if addresses:
            self._node.save(evolve(self._node.file, managers=addresses))
        if self._facts.removed and news.node.role is Role.MANAGER and news.node.spec.desired_role is Role.MANAGER:
            self._facts.set(removed=False)
        self._ring()

    @on(CredentialsChanged)
    def credentials_changed(self, news: CredentialsChanged, turn: Turn[None]) -> None:
        """A renewed certificate is in force from now on."""
        peer = use_credentials(self._node, news.credentials)
        if peer.role is not self._facts.role:
            log.info("this node is a %s now", peer.role.value)
            self._facts.set(role=peer.role)
        self._ring()

    def manager_waits(self, text: str) -> None:
        """What the manager scope waits for at its start."""
        self._waiting = text
        self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = trio.Event()

    async def changed(self) -> None:
        """Wait for news, a little while at the most."""
        with trio.move_on_after(0.05):
            await self._bell.wait()

    # --- status ----------------------------------------------------------------------------------------------------
    @on(GetNodeStatus)
    def status(self, request: GetNodeStatus, turn: Turn[NodeStatusView]) -> None:
        """This node's own state."""
        if turn.caller.role == PeerRole.ANONYMOUS.value:
            turn.defer().answer(self._view(None, None, anonymous=True))
            return
        self.answer_in_job(turn, self.look)

    async def look(self) -> NodeStatusView:
        """Ask the agent and the Raft member how they are."""
        agent: AgentStatus | None = None
        raft: RaftStatusView | None = None
        try:
            if self.agent is not None:
                agent = await self.agent.ask(GetAgentStatus(), timeout_s=STATUS_TIMEOUT_S)
            life = self.manager
            if life is not None and life.context is not None:
                raft = await life.context.raft.ask(GetRaftStatus(), timeout_s=STATUS_TIMEOUT_S)
        except SwarmError as error:
            log.debug("status is incomplete: %s", error.text)
        return self._view(agent, raft)

    def _view(self, agent: AgentStatus | None, raft: RaftStatusView | None, anonymous: bool = False) -> NodeStatusView:
        file = self._node.file
        leader = next((member.node_id for member in raft.members if member.leader), NodeId("")) if raft else NodeId("")
        return NodeStatusView(
            version=swarm.__version__,
            node_id=file.node_id,
            cluster_id=file.cluster_id,
            hostname="" if anonymous else file.hostname,
            role=self._facts.role.value,
            state=self._state(agent, raft),
            pid=self._node.ports.pid(),
            state_dir="" if anonymous else str(self._node.state.root),
            listen_address="" if anonymous else file.listen,
            advertise_address="" if anonymous else file.advertise,
            managers=() if anonymous else file.managers,
            executors=agent.executors if agent is not None and not anonymous else (),
            certificate_expires_at=Instant(self._node.router.me.expires_at),
            tasks_running=agent.running if agent is not None else 0,
            leader=leader or (agent.leader if agent is not None else NodeId("")),
            term=raft.term if raft is not None else 0,
            commit_index=raft.commit_index if raft is not None else 0,
            applied_index=raft.applied_index if raft is not None else 0,
            members=raft.members if raft is not None and not anonymous else (),
            notes=() if anonymous else self._notes(raft),
        )

    def _notes(self, raft: RaftStatusView | None) -> tuple[str, ...]:
        life = self.manager
        found = (life.note if life is not None else "", raft.problem if raft is not None else "")
        return tuple(text for text in found if text)

    def _state(self, agent: AgentStatus | None, raft: RaftStatusView | None = None) -> str:
        if self._facts.end is not None:
            return "stopping"
        if agent is not None and agent.refused:
            return f"refused by the managers: {agent.refused}"
        if self._facts.role is PeerRole.MANAGER:
            life = self.manager
            if life is None:
                return "leaving the managers"
            if life.context is None:
                return self._waiting
            if not life.ready.is_set():
                return "; ".join([NO_LEADER, *(_unreached(raft) if raft is not None else ())])
        elif self.manager is not None:
            return "leaving the managers"  # a worker by its certificate, and not yet by what it runs
        if agent is None or not agent.registered:
            return agent.waiting if agent is not None and agent.waiting else "waiting for a manager to register with"
        return "ready"

    # --- stop and leave --------------------------------------------------------------------------------------------
    @on(StopNode)
    def stop(self, request: StopNode, turn: Turn[None]) -> None:
        """Stop the daemon; tasks go on."""
        self._facts.set(end=End.STOPPED)

    @on(LeaveCluster)
    def leave(self, request: LeaveCluster, turn: StreamTurn[LeaveProgress]) -> None:
        """Leave for good."""
        self.job(self._leave, request.force, turn.sink, name="leave")

    async def _leave(self, force: bool, sink: Sink[LeaveProgress]) -> None:
        try:
            if self._facts.role is PeerRole.MANAGER:
                await self._leave_raft(force, sink)
            sink.offer(LeaveProgress("stopping this node's tasks"))
            assert self.agent is not None, "a node that answers has an agent"
            await self.agent.ask(RemoveAllTasks(), timeout_s=LEAVE_TIMEOUT_S)
            await self._forget_me(force, sink)
        except SwarmError as error:
            sink.fail(error)
            return
        sink.offer(LeaveProgress(f"left the cluster; {self._node.state.root} is erased", done=True))
        sink.close()
        await trio.lowlevel.checkpoint()
        self._facts.set(end=End.LEFT)

    async def _leave_raft(self, force: bool, sink: Sink[LeaveProgress]) -> None:
        life = self.manager
        raft: RaftStatusView | None = None
        if life is not None and life.context is not None:
            raft = await life.context.raft.ask(GetRaftStatus(), timeout_s=STATUS_TIMEOUT_S)
        if raft is None or len(raft.members) <= 1:
            if not force:
                raise SwarmError(
                    ErrorCode.PRECONDITION,
                    "this is the last manager: leaving ends the cluster and forgets all of its services",
                    {"hint": "swarm leave --force does it all the same"},
                )
            return
        sink.offer(LeaveProgress("becoming a worker: leaving the managers"))
        control = self._node.router.local("control")
        try:
            node = (await control.ask(GetNode(self._node.node_id), timeout_s=ASK_TIMEOUT_S)).node
            spec = evolve(node.spec, desired_role=Role.WORKER)
            await control.ask(UpdateNode(node.id, node.version, spec), timeout_s=ASK_TIMEOUT_S)
            with trio.move_on_after(DEMOTION_TIMEOUT_S):
                await self._facts.until(lambda now: now.role is PeerRole.WORKER)
        except SwarmError:
            if not force:
                raise
            sink.offer(LeaveProgress("the other managers could not be asked; they keep this one as unreachable"))

    async def _leave_session(self, agent: Ref, patience_s: float) -> None:
        """Have a manager take this node's record out; a node that has just been a manager has to find another one first."""
        give_up_at = trio.current_time() + patience_s
        while True:
            try:
                await agent.ask(LeaveSession(), timeout_s=ASK_TIMEOUT_S)
                return
            except SwarmError as error:
                if error.code is not ErrorCode.UNAVAILABLE or trio.current_time() >= give_up_at:
                    raise
            await trio.sleep(REJOIN_RETRY_S)

    async def _forget_me(self, force: bool, sink: Sink[LeaveProgress]) -> None:
        sink.offer(LeaveProgress("taking this node out of the cluster"))
        try:
            assert self.agent is not None, "a node that answers has an agent"
            await self._leave_session(self.agent, REJOIN_FORCED_S if force else REJOIN_S)
        except SwarmError as error:
            if not force:
                raise SwarmError(
                    error.code,
                    f"no manager could be told: {error.text}",
                    {"hint": "swarm leave --force leaves without; then run swarm node rm for it on a manager"},
                ) from None
            sink.offer(LeaveProgress("no manager could be told; run swarm node rm for this node on one"))
