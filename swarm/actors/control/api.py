"""The actor `control`: answers what operators ask of the cluster, on the leader, after a linearizable read.

Its one idea: read a barrier, decide in a pure function (`writes.py`, `views.py`), commit one group, answer. Everything that
waits is a job, so that a slow commit never holds up a read. It never touches the store or another actor's state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from swarm.actors.context import ManagerContext
from swarm.actors.control import views, writes
from swarm.actors.control.backup import send_backup
from swarm.actors.control.lookup import find_node, find_service, find_task
from swarm.actors.control.watch import follow_drain, follow_service
from swarm.actors.control.why import service_why
from swarm.actors.membership import CheckDemotion
from swarm.actors.raft_messages import GetRaftStatus, RaftStatusView
from swarm.actors.store_messages import ProposeChanges, ReadBarrier
from swarm.ca.tokens import SECRET_RANDOM_BYTES, new_token
from swarm.model.changes import Group
from swarm.model.ids import NodeId, ServiceId
from swarm.model.objects import Cluster, Node, Revision, Service
from swarm.model.snapshot import Snapshot
from swarm.model.specs import ServiceSpec
from swarm.model.states import Role
from swarm.plan.preview import Slices, dump_of, preview_slices
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.turn import StreamTurn, Turn
from swarm.wire.messages import control as api

READ_TIMEOUT_S = 20.0
"""Longer than an election, so that a request survives one."""
COMMIT_TIMEOUT_S = 20.0
DRAIN_S = 3.0
"""At an orderly stop: for requests under way."""

R = TypeVar("R")
Read = Callable[[Snapshot], R]


class ControlApi(Actor):
    """Serves `swarm/wire/messages/control.py`."""

    def __init__(self, manager: ManagerContext) -> None:
        self._store = manager.store
        self._raft = manager.raft
        self._membership = manager.membership
        self._local = manager.view
        self._me = manager.node_id
        self._clock = manager.clock
        self._entropy = manager.entropy
        self._advertised = manager.advertised
        self._under_way = 0
        self._idle = trio.Event()

    # --- the two shapes of a request -------------------------------------------------------------------------------
    def _read(self, turn: Turn[R], stale: bool, answer: Read[R]) -> None:
        """Answer from the local view, or from one that has seen every commit until now."""

        async def read() -> R:
            return answer(self._local() if stale else await self._barrier())

        self.answer_in_job(turn, read)

    def _write(self, turn: Turn[R], decide: Callable[[Snapshot], tuple[Group, Read[R]]]) -> None:
        """Commit the group that `decide` gives for the newest view, then answer from the view that has it."""

        async def write() -> R:
            group, answer = decide(await self._barrier())
            await self._commit(group)
            return answer(self._local())

        self.answer_in_job(turn, write)

    async def _barrier(self) -> Snapshot:
        return await self._store.ask(ReadBarrier(), timeout_s=READ_TIMEOUT_S)

    async def _commit(self, group: Group) -> None:
        results = await self._store.ask(ProposeChanges((group,)), timeout_s=COMMIT_TIMEOUT_S)
        refusal = writes.refused(results)
        if refusal is not None:
            raise refusal

    def answer_in_job(self, turn: Turn[R], function: Callable[..., Awaitable[R]], *args: Any, name: str = "") -> None:
        """As for any actor; counted, so that an orderly stop waits for what was taken on."""

        async def counted() -> R:
            try:
                return await function(*args)
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()
                    self._idle = trio.Event()

        self._under_way += 1
        super().answer_in_job(turn, counted, name=name or getattr(function, "__name__", ""))

    async def stopping(self) -> None:
        """Answer what was taken on: another manager leads by now, and commits it."""
        with trio.move_on_after(DRAIN_S):
            while self._under_way:
                await self._idle.wait()

    def _author(self, turn: Turn[R]) -> NodeId:
        """The node through which it came: this one for whoever is at its own socket."""
        return NodeId(turn.caller.node_id) or self._me

    # --- services --------------------------------------------------------------------------------------------------
    @on(api.CreateService)
    def create_service(self, request: api.CreateService, turn: Turn[api.ServiceWritten]) -> None:
        """Declare a service."""

        def decide(view: Snapshot) -> tuple[Group, Read[api.ServiceWritten]]:
            warnings = writes.check_spec(view, request.spec)
            id, group = writes.create_service(view, request.spec, self._author(turn), self._clock.now(), self._entropy)
            return group, lambda after: api.ServiceWritten(find_service(after, id), warnings)

        if request.plan_only:
            self._preview(turn, request.spec, None)
        else:
            self._write(turn, decide)

    @on(api.UpdateService)
    def update_service(self, request: api.UpdateService, turn: Turn[api.ServiceWritten]) -> None:
        """Make a spec the next revision."""

        def decide(view: Snapshot) -> tuple[Group, Read[api.ServiceWritten]]:
            warnings = writes.check_spec(view, request.spec)
            group = writes.update_service(
                view, request.id, request.version, request.spec, self._author(turn), self._clock.now()
            )
            return group, lambda after: api.ServiceWritten(find_service(after, request.id), warnings)

        if request.plan_only:
            self._preview(turn, request.spec, request)
        else:
            self._write(turn, decide)

    def _preview(self, turn: Turn[api.ServiceWritten], spec: ServiceSpec, update: api.UpdateService | None) -> None:
        """Refuse what the write would refuse, then play the change on a copy, a slice at a time."""

        async def look() -> api.ServiceWritten:
            view = await self._barrier()
            warnings, now = writes.check_spec(view, spec), self._clock.now()
            if update is None:
                writes.create_service(view, spec, NodeId(""), now, self._entropy)
                service = Service(ServiceId(""), spec)
            else:
                writes.update_service(view, update.id, update.version, spec, NodeId(""), now)
                service = find_service(view, update.id)
            slices = preview_slices(dump_of(view), view.version, spec, now, self._entropy)
            return views.planned(service, warnings, await _in_slices(slices))

        self.answer_in_job(turn, look)

    @on(api.RollbackService)
    def rollback_service(self, request: api.RollbackService, turn: Turn[api.ServiceWritten]) -> None:
        """Return to an earlier revision."""

        def decide(view: Snapshot) -> tuple[Group, Read[api.ServiceWritten]]:
            id, group = writes.rollback_service(
                view, request.who, request.to_revision, self._author(turn), self._clock.now()
            )
            return group, lambda after: api.ServiceWritten(find_service(after, id))

        self._write(turn, decide)

    @on(api.RemoveService)
    def remove_service(self, request: api.RemoveService, turn: Turn[Service]) -> None:
        """Remove a service."""

        def decide(view: Snapshot) -> tuple[Group, Read[Service]]:
            service, group = writes.remove_service(view, request.who)
            return group, lambda after: service

        self._write(turn, decide)

    @on(api.ListServices)
    def list_services(self, request: api.ListServices, turn: Turn[tuple[api.ServiceView, ...]]) -> None:
        """All services."""
        self._read(turn, request.stale, lambda view: tuple(views.service_view(view, one) for one in view.services()))

    @on(api.GetService)
    def get_service(self, request: api.GetService, turn: Turn[api.ServiceView]) -> None:
        """One service."""
        self._read(turn, request.stale, lambda view: views.service_view(view, find_service(view, request.who)))

    @on(api.ListRevisions)
    def list_revisions(self, request: api.ListRevisions, turn: Turn[tuple[Revision, ...]]) -> None:
        """A service's revisions, newest first."""
        self._read(turn, False, lambda view: tuple(reversed([*view.revisions_of(find_service(view, request.who).id)])))

    @on(api.ExplainService)
    def explain_service(self, request: api.ExplainService, turn: Turn[api.ServiceWhy]) -> None:
        """Why each task is where it is."""

        self._read(turn, False, lambda view: service_why(view, find_service(view, request.who)))

    @on(api.WatchService)
    def watch_service(self, request: api.WatchService, turn: StreamTurn[api.ServiceProgress]) -> None:
        """Progress of a service."""
        self.job(follow_service, self._store, request, self._clock, turn.sink, name="watch-service")

    # --- tasks -----------------------------------------------------------------------------------------------------
    @on(api.ListTasks)
    def list_tasks(self, request: api.ListTasks, turn: Turn[tuple[api.TaskView, ...]]) -> None:
        """Tasks by service, by node, or all."""

        def answer(view: Snapshot) -> tuple[api.TaskView, ...]:
            if request.service:
                tasks = view.tasks_of_service(find_service(view, request.service).id)
            elif request.node:
                tasks = view.tasks_of_node(find_node(view, request.node).id)
            else:
                tasks = view.tasks()
            return views.task_views(view, (task for task in tasks if request.all or task.is_live))

        self._read(turn, request.stale, answer)

    @on(api.GetTask)
    def get_task(self, request: api.GetTask, turn: Turn[api.TaskView]) -> None:
        """One task."""
        self._read(turn, False, lambda view: views.task_view(view, find_task(view, request.who)))

    # --- nodes -----------------------------------------------------------------------------------------------------
    def _read_nodes(self, turn: Turn[R], stale: bool, answer: Callable[[Snapshot, RaftStatusView], R]) -> None:
        async def read() -> R:
            view = self._local() if stale else await self._barrier()
            return answer(view, await self._raft.ask(GetRaftStatus(), timeout_s=READ_TIMEOUT_S))

        self.answer_in_job(turn, read)

    @on(api.ListNodes)
    def list_nodes(self, request: api.ListNodes, turn: Turn[tuple[api.NodeView, ...]]) -> None:
        """All nodes."""
        self._read_nodes(
            turn,
            request.stale,
            lambda view, raft: tuple(views.node_view(view, node, raft) for node in view.nodes()),
        )

    @on(api.GetNode)
    def get_node(self, request: api.GetNode, turn: Turn[api.NodeView]) -> None:
        """One node."""
        self._read_nodes(
            turn, request.stale, lambda view, raft: views.node_view(view, find_node(view, request.who), raft)
        )

    @on(api.UpdateNode)
    def update_node(self, request: api.UpdateNode, turn: Turn[api.NodeView]) -> None:
        """Replace a node's spec; a demotion must leave a quorum."""

        async def write() -> api.NodeView:
            view = await self._barrier()
            group = writes.update_node(view, request.id, request.version, request.spec)
            if writes.is_demotion(find_node(view, request.id), request.spec):
                await self._check_demotion(request.id)
            await self._commit(group)
            after = self._local()
            return views.node_view(after, find_node(after, request.id), None)

        self.answer_in_job(turn, write)

    @on(api.RemoveNode)
    def remove_node(self, request: api.RemoveNode, turn: Turn[Node]) -> None:
        """Forget a node; a manager that is lost only if the others can go on."""

        async def write() -> Node:
            view = await self._barrier()
            node = find_node(view, request.who)
            status = await self._raft.ask(GetRaftStatus(), timeout_s=READ_TIMEOUT_S)
            member = any(one.node_id == node.id for one in status.members)
            node, group = writes.remove_node(view, request.who, request.force, self._clock.now(), member=member)
            if member:
                await self._check_demotion(node.id)
            await self._commit(group)
            return node

        self.answer_in_job(turn, write)

    async def _check_demotion(self, id: NodeId) -> None:
        """PRECONDITION with the arithmetic when the others could not go on without it; a node that is no member may go."""
        try:
            await self._membership.ask(CheckDemotion(id), timeout_s=READ_TIMEOUT_S)
        except SwarmError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise

    @on(api.WatchDrain)
    def watch_drain(self, request: api.WatchDrain, turn: StreamTurn[api.DrainProgress]) -> None:
        """Progress of a drain."""
        self.job(follow_drain, self._store, request.id, turn.sink, name="watch-drain")

    # --- cluster ---------------------------------------------------------------------------------------------------
    @on(api.GetCluster)
    def get_cluster(self, request: api.GetCluster, turn: Turn[Cluster]) -> None:
        """The cluster without its secrets."""
        self._read(turn, request.stale, lambda view: views.public_cluster(writes.the_cluster(view)))

    @on(api.UpdateClusterSettings)
    def update_cluster(self, request: api.UpdateClusterSettings, turn: Turn[Cluster]) -> None:
        """Replace the cluster's settings."""

        def decide(view: Snapshot) -> tuple[Group, Read[Cluster]]:
            group = writes.update_settings(view, request.version, request.settings)
            return group, lambda after: views.public_cluster(writes.the_cluster(after))

        self._write(turn, decide)

    @on(api.TakeBackup)
    def backup(self, request: api.TakeBackup, turn: StreamTurn[api.BackupPart]) -> None:
        """Everything."""
        self.job(send_backup, self._store, self._clock, turn.sink, name="backup")

    @on(api.GetToken)
    def get_token(self, request: api.GetToken, turn: Turn[api.TokenView]) -> None:
        """A role's join token."""

        def show(view: Snapshot) -> api.TokenView:
            tokens = writes.the_cluster(view).tokens
            token = tokens.manager if request.role is Role.MANAGER else tokens.worker
            return api.TokenView(token, self._advertised())

        def decide(view: Snapshot) -> tuple[Group, Read[api.TokenView]]:
            fresh = new_token(writes.the_cluster(view).root_certificate, self._entropy.bytes(SECRET_RANDOM_BYTES))
            return writes.rotate_token(view, request.role, fresh), show

        if request.rotate:
            self._write(turn, decide)
        else:
            self._read(turn, False, show)


async def _in_slices(work: Slices[R]) -> R:
    """What work in slices comes to; everybody else gets a turn after each of them."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: R = end.value
            return result
        await trio.lowlevel.checkpoint()
