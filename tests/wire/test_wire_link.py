"""Links between nodes: the four calls, their errors, lanes, cancellation, and every way a link ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
from nodes import CLUSTER, EPOCH, Node, open_node

from swarm.ca.identity import LOCAL, Peer, PeerRole
from swarm.executors.base import LogOptions, Stream
from swarm.model.ids import Instant, NodeId, RaftId, TaskId
from swarm.model.specs import NodeDescription
from swarm.ports.net import DialError, TransportClosed
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ActorDied, AskTimeout, ErrorCode, SwarmError
from swarm.runtime.message import Message
from swarm.runtime.turn import Later, StreamTurn, Turn
from swarm.testing.net import MemoryNetwork
from swarm.wire import frames as f
from swarm.wire import link as link_module
from swarm.wire.link import Link
from swarm.wire.messages.ca import GetRootCertificate, RootCertificate
from swarm.wire.messages.dispatcher import Heartbeat, HeartbeatReply, OpenSession, SessionItem, SessionOpened
from swarm.wire.messages.node import ReadLogs, TaskLogLine
from swarm.wire.messages.raft import RaftBulk, RaftMessages

Clock: TypeAlias = trio.testing.MockClock


class Dispatcher(Actor):
    """Does what a heartbeat's session id says."""

    mailbox_capacity = 4

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.kept: list[Later[HeartbeatReply]] = []
        self.gave_up = 0
        self.sinks: list[Any] = []

    @on(Heartbeat)
    def heartbeat(self, request: Heartbeat, turn: Turn[HeartbeatReply]) -> HeartbeatReply:
        self.seen.append(turn.caller)
        if request.session_id == "refuse":
            raise SwarmError(ErrorCode.NOT_FOUND, "no such session", {"session": "refuse"})
        if request.session_id == "crash":
            raise RuntimeError("the secret of the house")
        if request.session_id == "wrong":
            return "nonsense"  # type: ignore[return-value]
        if request.session_id == "keep":
            later = turn.defer()
            later.on_cancel(self._gone)
            self.kept.append(later)
        return HeartbeatReply(turn.deadline - trio.current_time())

    def _gone(self) -> None:
        self.gave_up += 1

    @on(OpenSession)
    def session(self, request: OpenSession, turn: StreamTurn[SessionItem]) -> None:
        self.sinks.append(turn.sink)
        turn.sink.on_close(self._gone)
        self.job(self._feed, turn.sink, int(request.description.hostname or 0))

    async def _feed(self, sink: Any, count: int) -> None:
        for number in range(count):
            try:
                await sink.send(SessionOpened(str(number), 1.0))
            except trio.BrokenResourceError:
                return
        if count:
            sink.close()


class Raft(Actor):
    """Keeps what it gets, slowly when told so."""

    mailbox_capacity = 2

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.delay_s = 0.0

    @on(RaftMessages)
    @on(RaftBulk)
    async def messages(self, message: RaftMessages | RaftBulk, turn: Turn[None]) -> None:
        if self.delay_s:
            await trio.sleep(self.delay_s)
        self.seen.append(message.to_member)


class Agent(Actor):
    """Has lines of a log."""

    @on(ReadLogs)
    def logs(self, request: ReadLogs, turn: StreamTurn[TaskLogLine]) -> None:
        self.job(self._send, turn.sink, len(request.task_ids))

    async def _send(self, sink: Any, count: int) -> None:
        for number in range(count):
            await sink.send(TaskLogLine(TaskId("t"), NodeId("n"), Stream.STDOUT, Instant(number), b"x" * 1000))
        sink.close()


class Root(Actor):
    """The one call that is open to all."""

    @on(GetRootCertificate)
    def root(self, request: GetRootCertificate, turn: Turn[RootCertificate]) -> RootCertificate:
        return RootCertificate(turn.caller.role.encode(), CLUSTER)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Node, Node, Link]]:
    """(manager that leads, worker, the worker's link to it)."""
    network = MemoryNetwork()
    async with open_node(network, "m1", PeerRole.MANAGER) as manager:
        manager.router.manage(lambda: True, no_leader)
        await manager.start("dispatcher", Dispatcher())
        await manager.start("raft", Raft())
        await manager.start("ca", Root())
        async with open_node(network, "w1", PeerRole.WORKER) as worker:
            await worker.start("agent", Agent())
            yield manager, worker, await worker.link_to(manager)


async def no_leader() -> Link:
    raise SwarmError(ErrorCode.NOT_LEADER, "there is no leader")


async def settle() -> None:
    """Let everything that is under way arrive."""
    await trio.testing.wait_all_tasks_blocked()


def open_calls(link: Link) -> int:
    return sum(connection.mux.open_calls for connection in link.connections.values())


async def refusal(link: Link, session: str) -> SwarmError:
    with pytest.raises(SwarmError) as caught:
        await link.ref("dispatcher").ask(Heartbeat(session), timeout_s=5)
    return caught.value


# --- asks ------------------------------------------------------------------------------------------------------------
async def test_an_ask_is_answered_and_the_caller_is_who_the_link_says(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        reply = await link.ref("dispatcher").ask(Heartbeat("s"), timeout_s=5)
        assert reply.period_s == pytest.approx(5)
        [caller] = manager.actors["dispatcher"].seen
        assert (caller.node_id, caller.role, caller.cluster_id) == ("w1", "worker", CLUSTER)
        assert caller.address.startswith("w1:")
        assert open_calls(link) == 0


async def test_errors_cross_as_code_text_and_details(autojump_clock: Clock) -> None:
    async with pair() as (_, _, link):
        error = await refusal(link, "refuse")
        assert (error.code, error.text) == (ErrorCode.NOT_FOUND, "no such session")
        assert error.details == {"session": "refuse"}


async def test_a_bug_ends_the_call_and_not_the_link_and_its_text_stays_here(autojump_clock: Clock) -> None:
    async with pair() as (_, _, link):
        error = await refusal(link, "crash")
        assert isinstance(error, ActorDied)
        assert "secret" not in error.text
        await link.ref("dispatcher").ask(Heartbeat("s"), timeout_s=5)


async def test_an_answer_of_the_wrong_type_is_an_incident(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (_, _, link):
        error = await refusal(link, "wrong")
        assert error.code is ErrorCode.INTERNAL
        assert error.details["incident"] in caplog.text
        await link.ref("dispatcher").ask(Heartbeat("s"), timeout_s=5)


async def test_a_thousand_asks_in_flight_are_all_answered(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(ask_one, link, str(number))
        assert len(manager.actors["dispatcher"].seen) == 1000


async def ask_one(link: Link, session: str) -> None:
    await link.ref("dispatcher").ask(Heartbeat(session), timeout_s=60)


async def test_an_ask_times_out_and_the_far_job_is_told(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        before = trio.current_time()
        with pytest.raises(AskTimeout, match=r"manager m1 .* did not answer in time"):
            await link.ref("dispatcher").ask(Heartbeat("keep"), timeout_s=3)
        assert trio.current_time() - before == pytest.approx(3)
        await settle()
        assert manager.actors["dispatcher"].gave_up == 1
        assert open_calls(link) == 0


async def test_cancelling_the_asker_cancels_the_far_job(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_one, link, "keep")
            await settle()
            assert len(manager.actors["dispatcher"].kept) == 1
            nursery.cancel_scope.cancel()
        await settle()
        assert manager.actors["dispatcher"].gave_up == 1
        manager.actors["dispatcher"].kept[0].answer(HeartbeatReply(1.0))
        await settle()
        assert open_calls(link) == 0


async def test_an_ask_that_would_come_back_is_refused_across_nodes(autojump_clock: Clock) -> None:
    class Asker(Actor):
        """Asks the far node, which asks back."""

        link: Link

        @on(Heartbeat)
        async def forth(self, request: Heartbeat, turn: Turn[HeartbeatReply]) -> HeartbeatReply:
            return await self.link.ref("dispatcher").ask(request, timeout_s=5)

    network = MemoryNetwork()
    async with (
        open_node(network, "m1", PeerRole.MANAGER) as one,
        open_node(network, "m2", PeerRole.MANAGER) as two,
    ):
        for node, other in ((one, two), (two, one)):
            node.router.manage(lambda: True, no_leader)
            actor = Asker()
            actor.link = await node.link_to(other)
            ref = await node.start("dispatcher", actor)
        with pytest.raises(SwarmError) as caught:
            await ref.ask(Heartbeat("s"), timeout_s=5)
        assert caught.value.code is ErrorCode.WOULD_DEADLOCK


# --- tells and offers ------------------------------------------------------------------------------------------------
async def test_tells_wait_for_the_far_mailbox_and_keep_their_order(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, _), open_node(manager.net.network, "m2", PeerRole.MANAGER) as other:
        link = await other.link_to(manager)
        raft = manager.actors["raft"]
        raft.delay_s = 1.0
        before = trio.current_time()
        for number in range(8):
            await link.ref("raft").tell(RaftMessages(RaftId(number), (b"x",)))
        assert trio.current_time() - before >= 4
        await trio.sleep(20)
        assert raft.seen == list(range(8))


async def test_tells_of_many_tasks_at_once_are_all_delivered_in_order(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, _), open_node(manager.net.network, "m2", PeerRole.MANAGER) as other:
        link = await other.link_to(manager)
        raft = manager.actors["raft"]
        raft.delay_s = 0.1
        connection = link.connection(link_module.Lane.CONTROL)
        for number in range(50):  # the order in which the link got them is the order of the mailbox
            body = link_module_encode(RaftMessages(RaftId(number), ()))
            connection.call(None if number % 2 else Ignored(), f.TELL, "raft.messages", body)
        await trio.sleep(20)
        assert raft.seen == list(range(50))


class Ignored:
    """A pending call whose outcome nobody wants."""

    def answered(self, body: bytes) -> None: ...
    def failed(self, error: SwarmError) -> None: ...
    def arrived(self, body: bytes) -> None: ...
    def ended(self) -> None: ...


def link_module_encode(message: Message) -> bytes:
    from swarm.wire.codec import declaration, encode_message

    return encode_message(declaration(message), message)


async def test_offers_arrive_or_are_dropped_and_never_wait(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, _), open_node(manager.net.network, "m2", PeerRole.MANAGER) as other:
        link = await other.link_to(manager)
        assert link.ref("raft").offer(RaftMessages(RaftId(1), (b"x",)))
        await settle()
        assert manager.actors["raft"].seen == [1]
        big = RaftMessages(RaftId(2), (bytes(300_000),))
        assert [link.ref("raft").offer(big) for _ in range(4)] == [True, True, False, False]
        link.close("enough")
        assert not link.ref("raft").offer(RaftMessages(RaftId(3), ()))


# --- streams ---------------------------------------------------------------------------------------------------------
def session(count: int) -> OpenSession:
    return OpenSession(NodeDescription(hostname=str(count)))


async def test_a_stream_brings_all_items_in_order_and_ends(autojump_clock: Clock) -> None:
    async with pair() as (_, _, link):
        async with link.ref("dispatcher").stream(session(500), window=7) as inlet:
            items = [item async for item in inlet]
        assert [item.session_id for item in items] == [str(number) for number in range(500)]
        await settle()
        assert open_calls(link) == 0


async def test_a_reader_that_is_behind_holds_the_feeder_back(autojump_clock: Clock) -> None:
    async with pair() as (_, _, link), link.ref("dispatcher").stream(session(100), window=4) as inlet:
        await inlet.receive()
        await trio.sleep(10)
        [connection] = link.connections.values()
        assert connection.pending[1].pipe.unread <= 4


async def test_leaving_a_stream_tells_the_far_sink(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        async with link.ref("dispatcher").stream(session(0)):
            await settle()
            assert len(manager.actors["dispatcher"].sinks) == 1
        await settle()
        assert manager.actors["dispatcher"].gave_up == 1
        assert open_calls(link) == 0


async def test_a_failed_stream_gives_its_items_then_its_error(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link), link.ref("dispatcher").stream(session(0)) as inlet:
        await settle()
        [sink] = manager.actors["dispatcher"].sinks
        assert sink.offer(SessionOpened("a", 1.0))
        sink.fail(SwarmError(ErrorCode.OVERRUN, "too slow"))
        assert (await inlet.receive()).session_id == "a"
        with pytest.raises(SwarmError, match="too slow"):
            await inlet.receive()


async def test_a_sink_has_the_readers_own_window(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        async with link.ref("dispatcher").stream(session(0), window=3) as inlet:
            await settle()
            [sink] = manager.actors["dispatcher"].sinks
            assert [sink.offer(SessionOpened(str(number), 1.0)) for number in range(5)] == [True] * 3 + [False] * 2
            await settle()
            for _ in range(2):
                await inlet.receive()
            await settle()
            assert sink.offer(SessionOpened("again", 1.0))
            sink.close()
            assert sink.closed
            assert not sink.offer(SessionOpened("late", 1.0))
            with pytest.raises(trio.BrokenResourceError):
                await sink.send(SessionOpened("late", 1.0))
            assert [item.session_id async for item in inlet] == ["2", "again"]
        await settle()
        assert manager.actors["dispatcher"].gave_up == 0  # its own close is no news to it


async def test_an_actor_that_dies_fails_its_remote_streams_and_leaves_nothing_behind(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        async with link.ref("dispatcher").stream(session(0)) as inlet:
            await settle()
            await refusal(link, "crash")
            with pytest.raises(ActorDied, match="crashed"):
                await inlet.receive()
        assert manager.actors["dispatcher"]._cell.streams == {}
        async with link.ref("dispatcher").stream(session(3)) as inlet:
            assert len([item async for item in inlet]) == 3
        assert manager.actors["dispatcher"]._cell.streams == {}
        async with link.ref("dispatcher").stream(session(0)) as inlet:
            await settle()
        await settle()
        assert manager.actors["dispatcher"]._cell.streams == {}


async def test_an_item_of_the_wrong_type_is_an_incident_and_not_the_actors_end(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (manager, _, link), link.ref("dispatcher").stream(session(0)) as inlet:
        await settle()
        [sink] = manager.actors["dispatcher"].sinks
        assert not sink.offer("nonsense")
        with pytest.raises(SwarmError, match="incident") as caught:
            await inlet.receive()
        assert caught.value.details["incident"] in caplog.text


# --- refusals --------------------------------------------------------------------------------------------------------
async def test_a_wrong_role_is_refused_before_the_mailbox(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        with pytest.raises(SwarmError) as caught:
            await link.ref("raft").tell(RaftMessages(RaftId(1), ()))
        assert caught.value.code is ErrorCode.DENIED
        assert manager.actors["raft"].seen == []


async def test_a_removed_node_is_refused(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        manager.router.removed = frozenset({"w1"})
        assert (await refusal(link, "s")).code is ErrorCode.DENIED


async def raw_call(link: Link, tag: str, body: bytes = b"\x90", kind: int = f.ASK, **options: Any) -> SwarmError:
    with pytest.raises(SwarmError) as caught:
        await link.connection(link_module.Lane.CONTROL).answer_to(kind, tag, body, **options)
    return caught.value


async def test_what_cannot_be_understood_is_named(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        assert "no message 'no.such' is known" in (await raw_call(link, "no.such")).text
        assert "cannot be sent as tell" in (await raw_call(link, "dispatcher.heartbeat", kind=f.TELL)).text
        assert "cannot be read" in (await raw_call(link, "dispatcher.heartbeat", b"\x91\x07")).text
        assert "cannot be read" in (await raw_call(link, "dispatcher.heartbeat", b"\x91")).text
        forged = ("manager", "m1", CLUSTER, "m1:1")
        error = await raw_call(link, "dispatcher.heartbeat", b"\x91\xa1s", caller=forged)
        assert error.code is ErrorCode.DENIED
        manager.router.unregister("dispatcher")
        assert "try again" in (await refusal(link, "s")).text


async def test_an_undeclared_message_and_a_wrong_address_never_leave_the_node(autojump_clock: Clock) -> None:
    from swarm.actors.raft_messages import GetRaftStatus

    async with pair() as (_, _, link):
        with pytest.raises(TypeError, match="must not leave its node"):
            await link.ref("raft").ask(GetRaftStatus(), timeout_s=1)
        with pytest.raises(TypeError, match="is for the actor 'dispatcher'"):
            await link.ref("raft").ask(Heartbeat("s"), timeout_s=1)


# --- lanes -----------------------------------------------------------------------------------------------------------
async def test_lanes_open_when_they_are_used_and_share_the_session(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        assert list(link.connections) == ["control"]
        await link.ref("ca").ask(GetRootCertificate(), timeout_s=5)
        assert list(link.connections) == ["control", "calls"]
        [accepted] = manager.links.all
        assert list(accepted.connections) == ["control", "calls"]


async def test_the_accepting_side_asks_for_a_lane_it_needs(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        [accepted] = manager.links.all
        request = ReadLogs((TaskId("t"),) * 5, LogOptions())
        async with accepted.ref("agent").stream(request) as inlet:
            assert len([item async for item in inlet]) == 5
        assert list(link.connections) == ["control", "bulk"]


async def test_a_session_belongs_to_one_node(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link), open_node(manager.net.network, "w2", PeerRole.WORKER) as thief:
        transport = await thief.net.dial(manager.address, timeout_s=5)
        await transport.send(f.encode_batch([f.Hello(f.HELLO, 1, link.session, "bulk")]))
        await transport.receive()
        sessions = {accepted.peer.node_id: list(accepted.connections) for accepted in manager.links.all}
        assert sessions == {"w1": ["control"], "w2": ["bulk"]}
        twice = await thief.net.dial(manager.address, timeout_s=5)
        await twice.send(f.encode_batch([f.Hello(f.HELLO, 1, link.session, "bulk")]))
        assert "bulk connection already" in str(f.decode_batch(await twice.receive()))


# --- peers without a certificate -------------------------------------------------------------------------------------
async def test_an_anonymous_peer_has_one_connection_and_three_calls(autojump_clock: Clock) -> None:
    async with pair() as (manager, worker, _):
        link = await worker.link_to(manager, anonymous=True)
        root = await link.ref("ca").ask(GetRootCertificate(), timeout_s=5)
        assert root.pem == b"anonymous"
        assert list(link.connections) == ["single"]
        error = await refusal(link, "s")
        assert error.code is ErrorCode.DENIED
        with trio.fail_after(link_module.ANONYMOUS_S + link_module.PING_S + 1):
            assert "without a certificate" in await link.closed()


async def test_an_anonymous_peer_gets_no_lane(autojump_clock: Clock) -> None:
    async with pair() as (manager, worker, _):
        transport = await worker.net.dial(manager.address, anonymous=True, timeout_s=5)
        await transport.send(f.encode_batch([f.Hello(f.HELLO, 1, "s", "control")]))
        assert "no lane" in str(f.decode_batch(await transport.receive()))
        with pytest.raises(TransportClosed):
            await transport.receive()


# --- ends ------------------------------------------------------------------------------------------------------------
async def test_closing_fails_all_calls_of_both_sides_with_the_reason(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        errors: list[SwarmError] = []

        async def ask() -> None:
            errors.append(await refusal(link, "keep"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            [accepted] = manager.links.all
            accepted.close("node w1 was removed from the cluster")
        assert errors[0].code is ErrorCode.UNAVAILABLE
        assert "was removed" in errors[0].text
        assert "was removed" in await link.closed()
        assert "was removed" in await accepted.closed()
        assert manager.actors["dispatcher"].gave_up == 1
        assert manager.links.all == []
        assert (await refusal(link, "s")).code is ErrorCode.UNAVAILABLE


async def test_a_lost_connection_ends_the_whole_link(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, link):
        await link.ref("ca").ask(GetRootCertificate(), timeout_s=5)
        manager.net.network.connections[0][0].cut()
        assert "ended" in await link.closed()
        assert not link.is_open
        await settle()
        assert manager.links.all == []


async def test_a_node_that_stops_says_so(autojump_clock: Clock) -> None:
    network = MemoryNetwork()
    async with open_node(network, "w1", PeerRole.WORKER) as worker:
        async with open_node(network, "m1", PeerRole.MANAGER) as manager:
            link = await worker.link_to(manager)
        assert await link.closed() == "this node is stopping"


async def test_a_silent_peer_is_given_up(autojump_clock: Clock) -> None:
    async with pair() as (manager, worker, _):
        transport = await worker.net.dial(manager.address, timeout_s=5)
        await transport.send(f.encode_batch([f.Hello(f.HELLO, 1, "quiet", "control")]))
        await settle()
        link = next(link for link in manager.links.all if link.session == "quiet")
        before = trio.current_time()
        assert "no sign of life" in await link.closed()
        assert trio.current_time() - before <= link_module.SILENCE_S + 2 * link_module.PING_S


async def test_a_local_client_may_be_silent(autojump_clock: Clock) -> None:
    async with pair() as (manager, _, _):
        net = manager.net.network.net(LOCAL, "here")
        manager.net.network.listeners[manager.address].peer = Peer(PeerRole.MANAGER, "m1", "")
        transport = await net.dial(manager.address, timeout_s=5)
        await transport.send(f.encode_batch([f.Hello(f.HELLO, 1, "cli", "single")]))
        await trio.sleep(3600)
        assert [link.is_open for link in manager.links.all if link.peer.role is PeerRole.LOCAL] == [True]


async def test_an_idle_link_lives(autojump_clock: Clock) -> None:
    async with pair() as (_, _, link):
        await trio.sleep(3600)
        assert link.is_open
        await link.ref("dispatcher").ask(Heartbeat("s"), timeout_s=5)


async def test_a_link_ends_when_the_peers_certificate_expires_by_the_clock_port(autojump_clock: Clock) -> None:
    network = MemoryNetwork()
    expires_at = EPOCH + trio.current_time() + 600
    async with (
        open_node(network, "m1", PeerRole.MANAGER) as manager,
        open_node(network, "w1", PeerRole.WORKER, expires_at=expires_at) as worker,
    ):
        link = await worker.link_to(manager)
        await trio.sleep(590)
        assert link.is_open
        assert "expired" in await link.closed()
        with pytest.raises(DialError, match="has expired"):
            await worker.link_to(manager)


async def test_a_clock_that_jumps_ends_it_too(autojump_clock: Clock) -> None:
    network = MemoryNetwork()
    expires_at = EPOCH + trio.current_time() + 600
    async with (
        open_node(network, "m1", PeerRole.MANAGER) as manager,
        open_node(network, "w1", PeerRole.WORKER, expires_at=expires_at) as worker,
    ):
        link = await worker.link_to(manager)
        manager.clock.offset_s = 1000
        with trio.fail_after(link_module.PING_S + 1):
            assert "expired" in await link.closed()


async def test_a_peer_that_breaks_the_protocol_is_told_and_cut_off(autojump_clock: Clock) -> None:
    async with pair() as (manager, worker, _):
        transport = await worker.net.dial(manager.address, timeout_s=5)
        await transport.send(f.encode_batch([f.Hello(f.HELLO, 1, "bad", "control")]))
        await transport.receive()
        await transport.send(b"\xc1 no batch")
        assert "protocol error" in str(f.decode_batch(await transport.receive()))


async def test_a_listener_that_says_nothing_is_a_dial_error(autojump_clock: Clock) -> None:
    network = MemoryNetwork()
    async with open_node(network, "w1", PeerRole.WORKER) as worker, open_node(network, "m1", PeerRole.MANAGER) as mute:
        async with mute.net.listen("m9:1"):
            with pytest.raises(DialError, match="did not say Hello within 5 s"):
                await worker.links.dial("m9:1", timeout_s=5)
        with pytest.raises(DialError, match="is swarm running there"):
            await worker.links.dial("m8:1", timeout_s=5)


async def test_a_shared_link_is_dialled_once_and_again_after_its_end(autojump_clock: Clock) -> None:
    async with pair() as (manager, worker, _):
        got: list[Link] = []

        async def share() -> None:
            got.append(await worker.links.to(manager.address, timeout_s=5))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(share)
        assert len(set(map(id, got))) == 1
        got[0].close("test")
        await got[0].closed()
        assert await worker.links.to(manager.address, timeout_s=5) is not got[0]


async def test_a_peer_that_stops_reading_is_cut_off_within_the_bounds(autojump_clock: Clock) -> None:
    async with pair() as (manager, worker, _):
        transport = await worker.net.dial(manager.address, timeout_s=5)
        await transport.send(f.encode_batch([f.Hello(f.HELLO, 1, "lazy", "control")]))
        await settle()
        link = next(link for link in manager.links.all if link.session == "lazy")
        for _ in range(200):  # never read back
            link.connection(link_module.Lane.CONTROL).mux._put(1 << 20, (f.PING, 1, True))
        link.connection(link_module.Lane.CONTROL).kick()
        with trio.fail_after(5):
            assert "does not read" in await link.closed()
