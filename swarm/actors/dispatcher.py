"""The leader's side of every agent: sessions, heartbeats, each node's share of the tasks, and status reports.

The one idea: one watch of the store serves all sessions. Each event is handed to the session of the node it names, a session
is told from the store's present state, and what agents report gathers while one proposal is in flight and travels in the
next. So a lone report waits for nobody, a thousand cost one commit, and no cost is events times nodes.

Heartbeats are not committed: a new leader gives every node time to find it (`plan/liveness.py`). Who a caller is comes from
its certificate alone.
"""

from __future__ import annotations

import trio
from attrs import evolve, frozen

from swarm.actors.dispatch_batch import Batch, Gathered, NodeWish, Waiter, removed_text
from swarm.actors.dispatch_sessions import Session, Sessions, Surroundings
from swarm.actors.store_messages import ProposeChanges, WatchStore
from swarm.model.changes import GroupResult, Kind
from swarm.model.events import Event
from swarm.model.ids import NodeId, TaskId
from swarm.model.objects import Cluster, Node, Task, TaskStatus
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.snapshot import Snapshot
from swarm.model.specs import ClusterSettings
from swarm.model.states import Membership, NodeState, Role, TaskState
from swarm.plan.assignments import NodeShare
from swarm.plan.departure import departure
from swarm.plan.liveness import BecomesDisconnected, BecomesDown, Liveness, TasksOrphaned
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ActorDied, ErrorCode, SwarmError
from swarm.runtime.message import Message
from swarm.runtime.ref import Caller, Ref
from swarm.runtime.turn import StreamTurn, Turn
from swarm.wire.addresses import split_address
from swarm.wire.messages.dispatcher import (
    DescribeNode,
    Heartbeat,
    HeartbeatReply,
    LeaveNode,
    OpenSession,
    ReportAccepted,
    ReportStatus,
    SessionItem,
)

TICK_S = 0.25
"""How often deadlines are looked at, and refused writes and slow readers tried again."""
STALL_S = 1.0
"""A tick that is later than this was a stall of this process: no node can be blamed for it."""
PROPOSE_TIMEOUT_S = 30.0
WATCH_WINDOW = 256
WATCH_RETRY_S = 0.1
SESSION_BYTES = 16
REMOVE_ATTEMPTS = 8
"""The cluster object may change between reading and writing it; more often than this in a row is no accident."""
REPORTS_MAX = 5000
"""Statuses in one report; an agent with more splits them."""


@frozen
class _Began(Message):
    """The store as it is: the start, and again whenever the watch had to begin anew."""

    view: Snapshot


@frozen
class _Moved(Message):
    """One applied batch."""

    events: tuple[Event, ...]


@frozen
class _Left(Message):
    """A session's reader has gone."""

    node_id: NodeId
    session_id: str


@frozen
class _Proposed(Message):
    """What became of the proposal in flight."""

    batch: Batch
    results: tuple[GroupResult, ...]
    error: SwarmError | None


@frozen
class _Tick(Message):
    """Time has passed."""


@frozen
class _PushOn(Message):
    """More sessions are to be told something."""


class Dispatcher(Actor):
    """The actor `dispatcher` of the leader's scope; `term` fences what it writes."""

    mailbox_capacity = 16384
    """Heartbeats and reports of a cluster of 10,000 nodes that all come at once."""

    def __init__(self, store: Ref, clock: Clock, entropy: Entropy, term: int | None = None) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._term = term
        self._view: Snapshot
        self._surroundings = Surroundings()
        self._sessions = Sessions(self._surroundings)
        self._liveness = Liveness(ClusterSettings().heartbeat_period_s)
        self._pushing = False
        """A `_PushOn` is under way."""
        self._gathered = Gathered()
        self._proposing = False
        self._held_up = False
        """The last proposal failed: the next one waits for a tick."""
        self._last_tick = 0.0
        self._stalled_s = 0.0
        """Time that this process was not able to hear anybody; taken off the clock that nodes are judged by."""

    async def started(self) -> None:
        """Begin with the store as it is, then follow it; messages may lie in the mailbox from an earlier life already."""
        self._last_tick = self._clock.monotonic()
        async with self._store.stream(WatchStore(), window=1) as inlet:
            self._begin((await inlet.receive()).snapshot)
        self.job(self._follow)
        self.job(self._keep_ticking)

    # --- the agents' calls ------------------------------------------------------------------------------------------
    @on(OpenSession)
    def open_session(self, request: OpenSession, turn: StreamTurn[SessionItem]) -> None:
        """Register the node; the session's first items follow when it is READY in the store."""
        node_id = NodeId(turn.caller.node_id)
        node = self._view.node(node_id)
        if node is None:
            raise SwarmError(ErrorCode.NOT_FOUND, removed_text(node_id))
        if node.spec.membership is not Membership.ACCEPTED:
            raise SwarmError(ErrorCode.DENIED, f"node {node_id} was not accepted into this cluster yet")
        now = self._now()
        self._liveness.watch([node], now, self._clock.now())
        if not self._liveness.may_register(node_id, now):
            raise SwarmError(ErrorCode.UNAVAILABLE, "this node registers too often; wait a few seconds")
        self._sessions.end(node_id, SwarmError(ErrorCode.UNAVAILABLE, "another session of this node began"))
        period = self._liveness.registered(node_id, now, self._chance())
        session_id = self._entropy.bytes(SESSION_BYTES).hex()
        session = Session(session_id, node_id, turn.caller.role, turn.sink, NodeShare(node_id), period)
        self._sessions.add(session)
        turn.sink.on_close(lambda: self._reader_left(node_id, session_id))
        wish = NodeWish(NodeState.READY, "", _host(turn.caller), request.description)
        wish.waiters.append(lambda error: self._registered(session, error))
        self._gathered.add_node(node_id, wish)
        self._propose()

    @on(Heartbeat)
    def heartbeat(self, request: Heartbeat, turn: Turn[HeartbeatReply]) -> HeartbeatReply:
        """The node's deadline moves; nothing else happens."""
        session = self._session_of(turn.caller, request.session_id)
        return HeartbeatReply(self._liveness.beat(session.node_id, self._now(), self._chance()))

    @on(ReportStatus)
    def report(self, request: ReportStatus, turn: Turn[ReportAccepted]) -> ReportAccepted | None:
        """Answered when committed; at once when nothing in it is news."""
        session = self._session_of(turn.caller, request.session_id)
        if len(request.reports) > REPORTS_MAX:
            raise SwarmError(ErrorCode.INVALID, f"a report holds {REPORTS_MAX} statuses at most; split it")
        news = [
            (report.task_id, report.status)
            for report in request.reports
            if self._is_news(session.node_id, report.task_id, report.status)
        ]
        if not news:
            return ReportAccepted()
        now = self._clock.now()
        for task_id, status in news:
            self._gathered.add_status(task_id, evolve(status, applied_at=now))
        self._answer_when_committed(turn, self._gathered.status_waiters)
        self._propose()
        return None

    @on(DescribeNode)
    def describe(self, request: DescribeNode, turn: Turn[ReportAccepted]) -> None:
        """Answered when committed."""
        session = self._session_of(turn.caller, request.session_id)
        wish = NodeWish(description=request.description)
        self._answer_when_committed(turn, wish.waiters)
        self._gathered.add_node(session.node_id, wish)
        self._propose()

    @on(LeaveNode)
    def leave(self, request: LeaveNode, turn: Turn[None]) -> None:
        """Answered when the node's record is gone; its session ends by that."""
        session = self._session_of(turn.caller, request.session_id)
        self.answer_in_job(turn, self._remove, self._view, session.node_id)

    # --- news -------------------------------------------------------------------------------------------------------
    @on(_Began)
    def began(self, message: _Began, _turn: Turn[None]) -> None:
        """The watch began anew: sessions that are open are told everything anew."""
        self._begin(message.view)
        self._push()

    @on(_Moved)
    def moved(self, message: _Moved, _turn: Turn[None]) -> None:
        """Hand each event to the one session that it is for, then tell those sessions."""
        for event in message.events:
            if event.kind is Kind.TASK:
                self._task_moved(event)
            elif event.kind is Kind.NODE:
                self._node_moved(event)
            elif event.kind is Kind.CLUSTER and isinstance(event.after, Cluster):
                self._take_cluster(event.after)
        self._push()

    @on(_Left)
    def left(self, message: _Left, _turn: Turn[None]) -> None:
        """The agent's link is gone: say so at once. Its deadline stands."""
        session = self._sessions.of(message.node_id)
        if session is None or session.id != message.session_id:
            return
        self._sessions.drop(message.node_id)
        if self._liveness.link_lost(message.node_id) is not None:
            text = "its connection to the managers was lost"
            self._gathered.add_node(message.node_id, NodeWish(NodeState.DISCONNECTED, text))
            self._propose()

    @on(_Tick)
    def tick(self, _message: _Tick, _turn: Turn[None]) -> None:
        """Deadlines, writes that were refused, readers that were slow."""
        now = self._clock.monotonic()
        late_s = now - self._last_tick - TICK_S
        self._last_tick = now
        if late_s > STALL_S:
            self._stalled_s += late_s
        for transition in self._liveness.due(self._now()):
            if isinstance(transition, BecomesDown):
                self._down(transition)
            elif isinstance(transition, BecomesDisconnected):
                text = "it has not found the new leader yet"
                self._gathered.add_node(transition.node_id, NodeWish(NodeState.DISCONNECTED, text))
            elif isinstance(transition, TasksOrphaned):
                self._orphan(transition.node_id)
        self._held_up = False
        self._propose()
        self._sessions.try_slow_again()
        self._push()

    @on(_Proposed)
    def proposed(self, message: _Proposed, _turn: Turn[None]) -> None:
        """Tell who waits, and propose what has gathered meanwhile."""
        self._proposing = False
        if message.error is None:
            self._gathered.settle(message.batch, message.results)
        else:
            self._held_up = True
            self._gathered.fail(message.batch, message.error)
        self._propose()

    @on(_PushOn)
    def push_on(self, _message: _PushOn, _turn: Turn[None]) -> None:
        """The next slice of sessions."""
        self._pushing = False
        self._push()

    # --- sessions ---------------------------------------------------------------------------------------------------
    def _session_of(self, caller: Caller, session_id: str) -> Session:
        session = self._sessions.of(NodeId(caller.node_id))
        if session is None or session.id != session_id or not session.is_open:
            raise SwarmError(ErrorCode.NOT_FOUND, "this session is not, or no longer, open; open another one")
        if session.role != caller.role:
            text = "this node's certificate has another role now; open another session"
            self._sessions.end(session.node_id, SwarmError(ErrorCode.NOT_FOUND, text))
            raise SwarmError(ErrorCode.NOT_FOUND, text)
        return session

    def _registered(self, session: Session, error: SwarmError | None) -> None:
        if self._sessions.of(session.node_id) is not session:
            return
        if error is not None:
            self._sessions.end(session.node_id, error)
            return
        self._sessions.opened(session)
        self._push()

    def _reader_left(self, node_id: NodeId, session_id: str) -> None:
        if not self.ref.offer(_Left(node_id, session_id)):
            self.job(self._tell_self, _Left(node_id, session_id))

    def _removed(self, node_id: NodeId) -> None:
        self._liveness.forget(node_id)
        self._sessions.end(node_id, SwarmError(ErrorCode.NOT_FOUND, removed_text(node_id)))

    def _down(self, transition: BecomesDown) -> None:
        text = f"nothing was heard of it for {transition.silent_s:.0f} s"
        error = SwarmError(ErrorCode.UNAVAILABLE, f"this session has ended: {text}")
        self._sessions.end(transition.node_id, error)
        self._gathered.add_node(transition.node_id, NodeWish(NodeState.DOWN, text))

    def _orphan(self, node_id: NodeId) -> None:
        now = self._clock.now()
        text = f"its node {node_id} was down for a day"
        for task in self._view.tasks_of_node(node_id):
            if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
                status = TaskStatus(TaskState.ORPHANED, at=now, error=text, applied_at=now)
                self._gathered.add_status(task.id, status, Reason(ReasonCode.NODE_DOWN, text))

    def _push(self) -> None:
        if not self._pushing and self._sessions.push(self._view):
            self._pushing = self.ref.offer(_PushOn())

    # --- the store --------------------------------------------------------------------------------------------------
    def _begin(self, view: Snapshot) -> None:
        self._view = view
        if view.cluster is not None:
            self._take_cluster(view.cluster)
        managers = {node.id: node.manager.address for node in view.nodes() if node.manager is not None}
        self._surroundings.managers = managers
        self._liveness.watch(view.nodes(), self._now(), self._clock.now())
        for session in self._sessions.all():
            if view.node(session.node_id) is None:
                self._removed(session.node_id)
            else:
                self._sessions.start_over(session)

    def _task_moved(self, event: Event) -> None:
        task = event.object
        assert isinstance(task, Task), "the table of tasks holds tasks"
        self._sessions.task_changed(task.node_id, task.id)

    def _node_moved(self, event: Event) -> None:
        before, after = event.before, event.after
        assert before is None or isinstance(before, Node), "the table of nodes holds nodes"
        if isinstance(after, Node):
            self._liveness.watch([after], self._now(), self._clock.now())
            self._sessions.node_changed(before, after)
        elif before is not None:
            self._removed(before.id)
        node = event.object
        address = after.manager.address if isinstance(after, Node) and after.manager is not None else ""
        if self._surroundings.managers.get(NodeId(node.id), "") != address:
            self._surroundings.managers[NodeId(node.id)] = address
            if not address:
                del self._surroundings.managers[NodeId(node.id)]
            self._sessions.surroundings_changed()

    def _take_cluster(self, cluster: Cluster) -> None:
        self._liveness.set_period(cluster.settings.heartbeat_period_s)
        if cluster.root_certificate != self._surroundings.root_certificate:
            self._surroundings.root_certificate = cluster.root_certificate
            self._sessions.surroundings_changed()

    # --- writing ----------------------------------------------------------------------------------------------------
    def _is_news(self, node_id: NodeId, task_id: TaskId, status: TaskStatus) -> bool:
        task = self._view.task(task_id)
        if task is None:
            return False
        if task.node_id != node_id:
            raise SwarmError(
                ErrorCode.DENIED, f"task {task_id} is not a task of this node; nothing of the report is taken"
            )
        if status.state <= TaskState.ASSIGNED or status.state is TaskState.REMOVE:
            raise SwarmError(ErrorCode.INVALID, f"{status.state.name} is no status that an agent reports")
        known = task.status
        return status.state > known.state or (
            status.state is known.state and evolve(status, applied_at=known.applied_at) != known
        )

    def _answer_when_committed(self, turn: Turn[ReportAccepted], waiters: list[Waiter]) -> None:
        later = turn.defer()
        waiters.append(lambda error: later.answer(ReportAccepted()) if error is None else later.fail(error))

    def _propose(self) -> None:
        if self._proposing or self._held_up or not self._gathered:
            return
        batch = self._gathered.take(self._view, self._clock.now())
        if batch.groups:
            self._proposing = True
            self.job(self._commit, batch)

    async def _remove(self, view: Snapshot, node_id: NodeId) -> None:
        for _ in range(REMOVE_ATTEMPTS):
            node, cluster = view.node(node_id), view.cluster
            if node is None or cluster is None:
                return
            name = node.description.hostname or node_id
            if Role.MANAGER in (node.role, node.spec.desired_role):
                text = f"node {name} is a manager and cannot leave; demote it first with `swarm node demote {name}`"
                raise SwarmError(ErrorCode.PRECONDITION, text)
            group = departure(view, cluster, node, self._clock.now(), f"node {name} left the cluster")
            request = ProposeChanges((group,), self._term)
            (result,) = await self._store.ask(request, timeout_s=PROPOSE_TIMEOUT_S)
            if result is None:
                return
        raise SwarmError(ErrorCode.UNAVAILABLE, "the cluster changes too fast to take this node out of it; try again")

    async def _commit(self, batch: Batch) -> None:
        results: tuple[GroupResult, ...] = ()
        problem: SwarmError | None = None
        try:
            results = await self._store.ask(ProposeChanges(batch.groups, self._term), timeout_s=PROPOSE_TIMEOUT_S)
        except SwarmError as error:
            problem = error
        await self._tell_self(_Proposed(batch, results, problem))

    # --- time and the watch -----------------------------------------------------------------------------------------
    def _now(self) -> float:
        return self._clock.monotonic() - self._stalled_s

    def _chance(self) -> float:
        return self._entropy.uniform(0.0, 1.0)

    async def _keep_ticking(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            self.ref.offer(_Tick())

    async def _tell_self(self, message: Message) -> None:
        try:
            await self.ref.tell(message)
        except ActorDied:
            pass  # this actor is stopping: nothing is to be learnt any more

    async def _follow(self) -> None:
        while True:
            try:
                async with self._store.stream(WatchStore(), window=WATCH_WINDOW) as inlet:
                    await self._tell_self(_Began((await inlet.receive()).snapshot))
                    async for committed in inlet:
                        await self._tell_self(_Moved(committed.events))
            except SwarmError as error:
                if error.code is ErrorCode.OVERRUN:
                    continue
            except trio.EndOfChannel:
                pass
            await trio.sleep(WATCH_RETRY_S)


def _host(caller: Caller) -> str:
    try:
        return split_address(caller.address)[0]
    except ValueError:
        return ""
