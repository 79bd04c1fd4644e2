"""The way to the leader: forwarding with the caller's identity, one hop, and refs for callers on the same node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
from attrs import define, field
from nodes import CLUSTER, Node, open_node

from swarm.ca.identity import PeerRole
from swarm.model.specs import NodeDescription
from swarm.ports.net import DialError
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import AskTimeout, ErrorCode, SwarmError
from swarm.runtime.turn import StreamTurn, Turn
from swarm.testing.net import MemoryNetwork
from swarm.wire.link import Link
from swarm.wire.messages.ca import GetRootCertificate, IssuedCertificate, JoinWithToken, RootCertificate
from swarm.wire.messages.control import ListServices, ServiceView
from swarm.wire.messages.dispatcher import Heartbeat, HeartbeatReply, OpenSession, SessionItem, SessionOpened

Clock: TypeAlias = trio.testing.MockClock


class Leader(Actor):
    """Answers what the leader answers and notes who asked."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.gone = 0

    @on(Heartbeat)
    def heartbeat(self, request: Heartbeat, turn: Turn[HeartbeatReply]) -> HeartbeatReply:
        self.seen.append(turn.caller)
        if request.session_id == "keep":
            turn.defer().on_cancel(self._gone)
        if request.session_id == "refuse":
            raise SwarmError(ErrorCode.NOT_FOUND, "no session", {"a": "b"})
        return HeartbeatReply(turn.deadline - trio.current_time())

    @on(JoinWithToken)
    def join(self, request: JoinWithToken, turn: Turn[IssuedCertificate]) -> IssuedCertificate:
        self.seen.append(turn.caller)
        return IssuedCertificate("new", b"", b"")  # type: ignore[arg-type]

    @on(ListServices)
    def services(self, request: ListServices, turn: Turn[tuple[ServiceView, ...]]) -> tuple[ServiceView, ...]:
        self.seen.append(turn.caller)
        return ()

    @on(GetRootCertificate)
    def root(self, request: GetRootCertificate, turn: Turn[RootCertificate]) -> RootCertificate:
        self.seen.append(turn.caller)
        return RootCertificate(b"", CLUSTER)

    @on(OpenSession)
    def session(self, request: OpenSession, turn: StreamTurn[SessionItem]) -> None:
        self.seen.append(turn.caller)
        turn.sink.on_close(self._gone)
        self.job(self._feed, turn.sink, int(request.description.hostname))

    async def _feed(self, sink: Any, count: int) -> None:
        for number in range(count):
            await sink.send(SessionOpened(str(number), 1.0))
        if count:
            sink.close()

    def _gone(self) -> None:
        self.gone += 1


@define
class Three:
    """A leader, a follower that knows it, a worker with a link to the follower."""

    leader: Node
    follower: Node
    worker: Node
    link: Link
    actor: Leader = field(factory=Leader)
    leads: dict[str, bool] = field(factory=dict)


async def nowhere() -> Link:
    raise SwarmError(ErrorCode.NOT_LEADER, "there is no leader")


@asynccontextmanager
async def three() -> AsyncIterator[Three]:
    network = MemoryNetwork()
    async with (
        open_node(network, "m1", PeerRole.MANAGER) as leader,
        open_node(network, "m2", PeerRole.MANAGER) as follower,
        open_node(network, "w1", PeerRole.WORKER) as worker,
    ):
        nodes = Three(leader, follower, worker, await worker.link_to(follower), leads={"m1": True, "m2": False})
        for node, other in ((leader, follower), (follower, leader)):
            node_id = node.peer.node_id

            async def link(node: Node = node, other: Node = other) -> Link:
                return await node.links.to(other.address, timeout_s=5)

            node.router.manage(lambda node_id=node_id: nodes.leads[node_id], link)
        ref = await leader.start("dispatcher", nodes.actor)
        for name in ("ca", "control"):
            leader.router.register(name, ref)
        await follower.start("ca", Leader())
        yield nodes


async def refusal(link: Link, message: Any, to: str = "dispatcher") -> SwarmError:
    with pytest.raises(SwarmError) as caught:
        await link.ref(to).ask(message, timeout_s=5)
    return caught.value


async def test_a_follower_forwards_with_the_callers_identity(autojump_clock: Clock) -> None:
    async with three() as nodes:
        reply = await nodes.link.ref("dispatcher").ask(Heartbeat("s"), timeout_s=5)
        assert 4.9 < reply.period_s <= 5
        [caller] = nodes.actor.seen
        assert (caller.node_id, caller.role, caller.cluster_id) == ("w1", "worker", CLUSTER)
        assert caller.address.startswith("w1:")


async def test_errors_and_the_anonymous_pass_through(autojump_clock: Clock) -> None:
    async with three() as nodes:
        error = await refusal(nodes.link, Heartbeat("refuse"))
        assert (error.code, error.text, error.details) == (ErrorCode.NOT_FOUND, "no session", {"a": "b"})
        link = await nodes.worker.link_to(nodes.follower, anonymous=True)
        await link.ref("ca").ask(JoinWithToken("t", b"", "n", {}), timeout_s=5)
        assert (nodes.actor.seen[-1].role, nodes.actor.seen[-1].node_id) == ("anonymous", "")


async def test_authorization_comes_before_forwarding(autojump_clock: Clock) -> None:
    async with three() as nodes:
        assert (await refusal(nodes.link, ListServices(), "control")).code is ErrorCode.DENIED
        assert nodes.actor.seen == []
        assert nodes.follower.links.all == nodes.follower.links.all[:1]  # nobody was dialled for it


async def test_what_any_manager_answers_is_not_forwarded(autojump_clock: Clock) -> None:
    async with three() as nodes:
        await nodes.link.ref("ca").ask(GetRootCertificate(), timeout_s=5)
        assert nodes.actor.seen == []


async def test_streams_are_forwarded_with_their_window_and_end(autojump_clock: Clock) -> None:
    async with three() as nodes:
        request = OpenSession(NodeDescription(hostname="200"))
        async with nodes.link.ref("dispatcher").stream(request, window=5) as inlet:
            assert [item.session_id async for item in inlet] == [str(number) for number in range(200)]


async def test_giving_up_reaches_the_leader(autojump_clock: Clock) -> None:
    async with three() as nodes:
        with pytest.raises(AskTimeout):
            await nodes.link.ref("dispatcher").ask(Heartbeat("keep"), timeout_s=1)
        async with nodes.link.ref("dispatcher").stream(OpenSession(NodeDescription(hostname="0"))):
            await trio.sleep(1)
        await trio.sleep(1)
        assert nodes.actor.gone == 2
        for node in (nodes.leader, nodes.follower):
            for link in node.links.all:
                assert sum(connection.mux.open_calls for connection in link.connections.values()) == 0


async def test_one_hop_at_most(autojump_clock: Clock) -> None:
    async with three() as nodes:
        nodes.leads["m1"] = False  # each believes that the other leads
        error = await refusal(nodes.link, Heartbeat("s"))
        assert error.code is ErrorCode.NOT_LEADER
        assert "does not lead any more" in error.text


async def test_without_a_leader_the_caller_is_told(autojump_clock: Clock) -> None:
    async with three() as nodes:

        async def unknown() -> Link:
            raise SwarmError(ErrorCode.NOT_LEADER, "no leader is known; is there a quorum?")

        async def unreachable() -> Link:
            raise DialError("cannot connect to m1:1: connection refused")

        async def slow() -> Link:
            await trio.sleep_forever()
            raise AssertionError

        nodes.follower.router.manage(lambda: False, unknown)
        assert "quorum" in (await refusal(nodes.link, Heartbeat("s"))).text
        nodes.follower.router.manage(lambda: False, unreachable)
        error = await refusal(nodes.link, Heartbeat("s"))
        assert (error.code, "m1:1" in error.text) == (ErrorCode.UNAVAILABLE, True)
        nodes.follower.router.manage(lambda: False, slow)
        assert (await refusal(nodes.link, Heartbeat("s"))).code is ErrorCode.TIMEOUT
        nodes.follower.router.unmanage()
        assert "knows no leader" in (await refusal(nodes.link, Heartbeat("s"))).text


async def test_the_leaders_end_is_felt_by_whoever_waits(autojump_clock: Clock) -> None:
    async with three() as nodes:
        errors: list[SwarmError] = []

        async def ask() -> None:
            errors.append(await refusal(nodes.link, Heartbeat("keep")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.5)
            nodes.leader.links.close_where(lambda link: True, "m1 stops")
        assert (errors[0].code, "m1 stops" in errors[0].text) == (ErrorCode.UNAVAILABLE, True)


async def test_what_may_be_stale_is_answered_where_it_comes_when_it_says_so(autojump_clock: Clock) -> None:
    async with three() as nodes:
        here = Leader()
        await nodes.follower.start("control", here)
        link = await nodes.leader.link_to(nodes.follower)
        await link.ref("control").ask(ListServices(stale=True), timeout_s=5)
        assert (len(here.seen), len(nodes.actor.seen)) == (1, 0)
        await link.ref("control").ask(ListServices(), timeout_s=5)
        assert (len(here.seen), len(nodes.actor.seen)) == (1, 1)


async def test_a_call_that_was_refused_before_anything_was_done_finds_the_next_leader(autojump_clock: Clock) -> None:
    async with three() as nodes:
        nodes.leads["m1"] = False  # nobody leads; then the manager that was asked does itself

        async def elect() -> None:
            await trio.sleep(1)
            nodes.follower.router.register("dispatcher", await nodes.follower.start("leads now", Leader()))
            nodes.leads["m2"] = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(elect)
            assert (await nodes.link.ref("dispatcher").ask(Heartbeat("s"), timeout_s=5)).period_s < 4.1
        assert nodes.actor.seen == []


async def test_a_leader_that_finds_out_that_it_is_none_passes_the_call_on(autojump_clock: Clock) -> None:
    class Was(Actor):
        @on(Heartbeat)
        def heartbeat(self, request: Heartbeat, turn: Turn[HeartbeatReply]) -> HeartbeatReply:
            nodes.leads["m2"] = False
            raise SwarmError(ErrorCode.NOT_LEADER, "this manager does not lead")

    async with three() as nodes:
        nodes.leads["m2"] = True
        await nodes.follower.start("dispatcher", Was())
        await nodes.link.ref("dispatcher").ask(Heartbeat("s"), timeout_s=5)
        assert [caller.node_id for caller in nodes.actor.seen] == ["w1"]


async def test_a_frozen_leaders_calls_are_given_up_when_another_leads_and_reads_go_there(autojump_clock: Clock) -> None:
    class Frozen(Actor):
        @on(Heartbeat)
        def heartbeat(self, request: Heartbeat, turn: Turn[HeartbeatReply]) -> None:
            turn.defer()

        @on(ListServices)
        def services(self, request: ListServices, turn: Turn[tuple[ServiceView, ...]]) -> None:
            turn.defer()

    async with three() as nodes:
        frozen = Frozen()
        for name in ("dispatcher", "control"):
            await nodes.leader.start(f"frozen {name}", frozen if name == "control" else Frozen())
            nodes.leader.router.register(name, nodes.leader.actors[f"frozen {name}"].ref)
        manager = await nodes.leader.link_to(nodes.follower)
        answers: list[object] = []

        async def read() -> None:
            answers.append(await manager.ref("control").ask(ListServices(), timeout_s=5))

        async def write() -> None:
            answers.append(await refusal(nodes.link, Heartbeat("s")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
            await trio.sleep(1)
            await nodes.follower.start("control", Leader())
            nodes.leads["m2"] = True
            nodes.follower.router.leader_moved("m2:1")
        error = next(answer for answer in answers if isinstance(answer, SwarmError))
        assert (error.code, "not known" in error.text) == (ErrorCode.UNAVAILABLE, True)
        assert () in answers, "a read is repeated, it changes nothing"


# --- refs for callers on the same node -------------------------------------------------------------------------------
async def test_a_local_caller_reaches_the_leader_wherever_it_is(autojump_clock: Clock) -> None:
    async with three() as nodes:
        for node in (nodes.leader, nodes.follower):
            await node.router.local("dispatcher").ask(Heartbeat("s"), timeout_s=5)
            caller = nodes.actor.seen[-1]
            assert (caller.node_id, caller.role, caller.cluster_id) == (node.peer.node_id, "manager", CLUSTER)
            request = OpenSession(NodeDescription(hostname="3"))
            async with node.router.local("dispatcher").stream(request) as inlet:
                assert len([item async for item in inlet]) == 3
        with pytest.raises(SwarmError, match="is a worker"):
            await nodes.worker.router.local("dispatcher").ask(Heartbeat("s"), timeout_s=5)


async def test_a_local_caller_is_authorized_too(autojump_clock: Clock) -> None:
    async with three() as nodes:
        ref = await nodes.worker.start("dispatcher", Leader())
        nodes.worker.router.manage(lambda: True, nowhere)
        nodes.worker.router.register("control", ref)
        with pytest.raises(SwarmError) as caught:
            await nodes.worker.router.local("control").ask(ListServices(), timeout_s=5)
        assert caught.value.code is ErrorCode.DENIED


async def test_a_local_caller_waits_no_longer_than_it_said(autojump_clock: Clock) -> None:
    async with three() as nodes:

        async def slow() -> Link:
            await trio.sleep_forever()
            raise AssertionError

        nodes.follower.router.manage(lambda: False, slow)
        with trio.fail_after(3), pytest.raises(AskTimeout):
            await nodes.follower.router.local("dispatcher").ask(Heartbeat("s"), timeout_s=2)
