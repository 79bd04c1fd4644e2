"""Which local actor a message goes to, or which node: the only way from a link to a mailbox.

One idea: tag, authorization, place, shape and body are checked in this order, before anything is queued. What the leader
answers is forwarded, undecoded and one hop at most, with the identity of the one who asks. Callers on this very node that
want the leader (`local`) go the same way. A refusal crosses as code, text and details; a bug as INTERNAL with an incident
number, under which the log has its traceback. It never waits: what does is a task in the nursery that it is given.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import trio

import swarm
from swarm.ca.identity import ANONYMOUS, Peer, PeerRole
from swarm.ports.entropy import Entropy
from swarm.ports.net import DialError
from swarm.runtime.context import localize
from swarm.runtime.errors import AskTimeout, ErrorCode, SwarmError
from swarm.runtime.local import LocalRef
from swarm.runtime.message import Message, Request, Subscribe
from swarm.runtime.ref import Caller
from swarm.runtime.turn import Call
from swarm.wire.authorize import authorize
from swarm.wire.codec import decode_message, encode_reply
from swarm.wire.connection import Incoming
from swarm.wire.frames import ASK, CALL_NAMES, OFFER, STREAM, TELL, FrameError, caller_of, peer_of
from swarm.wire.link import Link
from swarm.wire.outflow import Outflow
from swarm.wire.registry import At, WireMessage, by_tag
from swarm.wire.remote import RemoteInlet
from swarm.wire.routed import RoutedRef

log: Final = logging.getLogger(__name__)

LEADER_LINK_S: Final = 10.0
"""For finding the leader when the caller sets no deadline (streams, tells)."""

NO_LEADER_S: Final = 4.0
"""A caller waits this long for a leader that can be reached; an election takes a fraction of it."""
FAREWELL_S: Final = 1.0
"""A manager that does not lead any more has this long to answer what it took on; one that is frozen never will."""
RETRY_S: Final = 0.01
"""Between two looks for the leader: an election on a good day takes ten of them."""

WORKER_TEXT: Final = (
    "this node is a worker; what concerns the whole cluster is answered on managers: run the command there"
)


def about(declared: WireMessage) -> dict[str, str]:
    """An error's details for developers; its text speaks to users, who know commands and no messages."""
    return {"message": declared.tag}


LeaderLink: TypeAlias = Callable[[], Awaitable[Link]]

_KINDS: Final[dict[type, frozenset[int]]] = {
    Message: frozenset({OFFER, TELL}),
    Request: frozenset({ASK}),
    Subscribe: frozenset({STREAM}),
}


class Router:
    """Per node. Made by `open_router`, or with a nursery for what must wait."""

    def __init__(self, nursery: trio.Nursery, entropy: Entropy) -> None:
        self.me: Peer = ANONYMOUS
        """This node as its certificate says; set whenever that changes."""
        self.removed: Container[str] = frozenset()
        """Ids of nodes that were removed from the cluster: whatever they send is refused."""
        self._nursery = nursery
        self._entropy = entropy
        self._actors: dict[str, LocalRef] = {}
        self._leading: Callable[[], bool] | None = None
        self._leader_link: LeaderLink | None = None
        self._asked: dict[trio.CancelScope, Link] = {}
        """Calls that leaders were asked to answer."""
        self._lines: dict[tuple[Link, str], deque[_InLine]] = {}

    # --- what is here -----------------------------------------------------------------------------------------------
    def register(self, name: str, ref: LocalRef) -> None:
        """From now on messages for `name` go to `ref`."""
        self._actors[name] = ref

    def unregister(self, name: str) -> None:
        """Messages for `name` are refused from now on."""
        self._actors.pop(name, None)

    def manage(self, leading: Callable[[], bool], leader_link: LeaderLink) -> None:
        """This node is a manager: `leading` says whether it leads now, `leader_link` gives the link to the one that does.

        `leader_link` raises `SwarmError` (NOT_LEADER, UNAVAILABLE) or `DialError` when there is none.
        """
        self._leading, self._leader_link = leading, leader_link

    def unmanage(self) -> None:
        """This node is a manager no more."""
        self._leading = self._leader_link = None

    def leader_moved(self, address: str) -> None:
        """The manager at `address` leads now: what others were asked is given up soon, should they be silent."""
        late = [scope for scope, link in self._asked.items() if link.remote_address != address]
        if late:
            self._nursery.start_soon(self._give_up, late)

    async def _give_up(self, late: list[trio.CancelScope]) -> None:
        await trio.sleep(FAREWELL_S)
        for scope in late:
            scope.cancel()

    @property
    def leading(self) -> bool:
        """Whether this node answers what the leader answers."""
        return self._leading is not None and self._leading()

    def local(self, to: str) -> RoutedRef:
        """The actor `to` for callers on this node: here, or on the leader for what only the leader answers.

        They count as this node (its id and role), as they would over a link, and are authorized as such.
        """
        return RoutedRef(self, to)

    def own(self, name: str) -> LocalRef | None:
        """The actor of this very node as its other actors reach it, None when it does not run now."""
        return self._actors.get(name)

    def actor(self, declared: WireMessage) -> LocalRef:
        """The local actor of a message; UNAVAILABLE says what is missing."""
        actor = self._actors.get(declared.to)
        if actor is not None:
            return actor
        if declared.at is At.NODE or self.me.role is PeerRole.MANAGER:
            text = "this node cannot answer that now: it is starting or stopping; try again"
        else:
            text = WORKER_TEXT
        raise SwarmError(ErrorCode.UNAVAILABLE, text, about(declared))

    async def leader_link(self, declared: WireMessage) -> Link:
        """The link to the leader; NOT_LEADER or UNAVAILABLE say why there is none."""
        if self._leader_link is None:
            starting = self.me.role is PeerRole.MANAGER
            text = "this manager is starting or stopping and knows no leader" if starting else WORKER_TEXT
            raise SwarmError(ErrorCode.NOT_LEADER, text, about(declared))
        try:
            with trio.fail_after(LEADER_LINK_S):
                return await self._leader_link()
        except (DialError, trio.TooSlowError) as error:
            text = f"the leader cannot be reached: {error or 'no answer in time'}"
            raise SwarmError(ErrorCode.UNAVAILABLE, text, about(declared)) from error

    # --- what peers ask ---------------------------------------------------------------------------------------------
    async def serve(self, link: Link) -> str:
        """Wait until a link has ended; why. Its calls come through `handle`."""
        return await link.closed()

    def handle(self, incoming: Incoming) -> None:
        """Answer a peer's call, now or later."""
        try:
            self._route(incoming)
        except SwarmError as refusal:
            incoming.fail(refusal)
        # The border to peers: whatever a bug here raises must not take the link's other calls with it.
        except Exception as bug:
            incoming.fail(self.incident(bug, incoming.open.tag))

    def incident(self, bug: Exception, tag: str) -> SwarmError:
        """What the peer is told of a bug; the log has the rest under the same number."""
        number = self._entropy.new()[:10]
        log.error("incident %s while answering %s", number, tag, exc_info=bug)
        text = f"a bug was met while this was answered; the log of node {self.me.node_id} has the details: incident {number}"
        return SwarmError(ErrorCode.INTERNAL, text, {"incident": number, "message": tag})

    def _route(self, incoming: Incoming) -> None:
        opened = incoming.open
        declared = by_tag(opened.tag)
        if declared is None:
            text = (
                f"no message {opened.tag!r} is known here (swarm {swarm.__version__}); are the versions too far apart?"
            )
            raise SwarmError(ErrorCode.INVALID, text)
        forwarded, address = None, incoming.link.remote_address
        if opened.caller is not None:
            try:
                forwarded, address = peer_of(opened.caller)
            except FrameError as error:
                raise SwarmError(ErrorCode.INVALID, f"{opened.tag}: {error}") from None
        peer = authorize(declared, incoming.link.peer, forwarded, self.me.cluster_id, self.removed)
        if opened.kind not in kinds_of(declared):
            raise SwarmError(ErrorCode.INVALID, f"{opened.tag} cannot be sent as {CALL_NAMES[opened.kind]}")
        if declared.at is At.LEADER and not self.leading and not _asks_for_stale(declared, opened.body):
            if forwarded is not None:
                raise SwarmError(ErrorCode.NOT_LEADER, "this manager does not lead any more", about(declared))
            self._nursery.start_soon(self._forward, declared, incoming, peer, address)
            return
        self._here(declared, incoming, peer, address, movable=declared.at is At.LEADER and forwarded is None)

    def _here(self, declared: WireMessage, incoming: Incoming, peer: Peer, address: str, *, movable: bool) -> None:
        """Give it to the actor here; `movable`: should this node turn out not to lead any more, to the one that does."""
        actor = self.actor(declared)
        message = decode_message(declared, incoming.open.body)
        caller = Caller(peer.node_id, peer.role.value, peer.cluster_id, address)
        item = _InLine(declared, incoming, message, caller, actor, self)
        if movable:
            item.elsewhere = lambda: self._nursery.start_soon(self._forward, declared, incoming, peer, address)
        self._deliver(item)

    # --- to a local actor -------------------------------------------------------------------------------------------
    def _deliver(self, item: _InLine) -> None:
        incoming, kind = item.incoming, item.incoming.open.kind
        if kind == OFFER:
            item.actor.offer(item.message, caller=item.caller)
        elif (line := self._lines.get(item.key)) is not None:
            line.append(item)
        elif kind != TELL:
            self._hand_over(item)
        elif item.actor.offer(item.message, caller=item.caller):
            incoming.answer()
        else:
            self._lines[item.key] = deque([item])
            self._nursery.start_soon(self._serve_line, item.key)

    def _hand_over(self, item: _InLine) -> None:
        incoming, actor = item.incoming, item.actor
        chain = localize(incoming.open.chain, self.me.node_id)
        if incoming.open.kind == STREAM:
            window = max(1, incoming.open.window)
            outflow: Outflow[Any] = Outflow(incoming, item.declared, self.incident)
            outflow.forget = actor.deliver_stream(item.message, outflow, caller=item.caller, chain=chain, window=window)
            incoming.on_cancel(outflow.forget)
            return
        deadline = incoming.deadline
        call = actor.deliver(item.message, caller=item.caller, deadline=deadline, chain=chain, on_done=item.settle)
        incoming.on_cancel(call.give_up)

    async def _serve_line(self, key: tuple[Link, str]) -> None:
        """Tells that found the mailbox full, and what the same link sent to the same actor behind them, in order."""
        line = self._lines[key]
        try:
            while line:
                item = line[0]
                try:
                    if item.incoming.open.kind != TELL:
                        self._hand_over(item)
                    elif not item.incoming.done:
                        await item.actor.tell(item.message, caller=item.caller)
                        item.incoming.answer()
                except SwarmError as refusal:
                    item.incoming.fail(refusal)
                line.popleft()
        finally:
            del self._lines[key]

    # --- to the leader ----------------------------------------------------------------------------------------------
    async def _forward(self, declared: WireMessage, incoming: Incoming, peer: Peer, address: str) -> None:
        """Have the leader answer, whoever that is by then.

        Leadership moves while calls are under way: what was refused with NOT_LEADER, or never sent, is tried again until the
        caller's deadline, or until nobody has led for `NO_LEADER_S`; so is a read that a lost leader did not answer. A write
        that may have been acted on is never repeated.
        """
        with self._guarded(incoming), trio.CancelScope(deadline=incoming.deadline) as scope:
            give_up_at = trio.current_time() + NO_LEADER_S
            while True:
                try:
                    if self.leading:
                        self._here(declared, incoming, peer, address, movable=True)
                        return
                    link = await self.leader_link(declared)
                except SwarmError as error:
                    if self._leader_link is None or trio.current_time() >= give_up_at:
                        raise
                    log.debug("%s waits for a leader: %s", declared.tag, error.text)
                else:
                    if await self._forwarded(link, declared, incoming, peer, address, give_up_at):
                        return
                await trio.sleep(RETRY_S)
        if scope.cancelled_caught:
            incoming.fail(AskTimeout("the leader did not answer in time"))

    async def _forwarded(
        self, link: Link, declared: WireMessage, incoming: Incoming, peer: Peer, address: str, give_up_at: float
    ) -> bool:
        """Send it over this link; False when that manager does not lead and nothing was done."""
        opened = incoming.open
        options: dict[str, Any] = {"chain": opened.chain, "caller": caller_of(peer, address)}
        relay = _Relay(incoming)
        scope = trio.CancelScope()
        self._asked[scope] = link
        try:
            with scope:
                await self._ask_leader(link, declared, incoming, relay, options)
            if scope.cancelled_caught:
                text = "leadership moved while this was under way; whether it was acted on is not known"
                raise SwarmError(ErrorCode.UNAVAILABLE, f"{text}: look before repeating it", about(declared))
        except SwarmError as refusal:
            undone = refusal.code is ErrorCode.NOT_LEADER
            read = declared.may_be_stale and refusal.code is ErrorCode.UNAVAILABLE
            if not (undone or read) or relay.begun or trio.current_time() >= give_up_at:
                raise
            return False
        finally:
            del self._asked[scope]
        return True

    async def _ask_leader(
        self, link: Link, declared: WireMessage, incoming: Incoming, relay: _Relay, options: dict[str, Any]
    ) -> None:
        opened = incoming.open
        connection = link.connection(declared.lane)
        await connection.room()
        if opened.kind == OFFER:
            connection.call(None, OFFER, opened.tag, opened.body, **options)
        elif opened.kind == STREAM:
            window = max(1, opened.window)
            await relay.run(RemoteInlet(connection, declared, opened.body, window, **options))
        else:
            if opened.time_left_s is not None:
                options["time_left_s"] = incoming.deadline - trio.current_time()
            incoming.answer(await connection.answer_to(opened.kind, opened.tag, opened.body, **options))

    def _guarded(self, incoming: Incoming) -> _Guard:
        return _Guard(self, incoming)


class _Guard:
    """Around a task that answers one call: cancelled when the peer gives up; a refusal is the answer, a bug an incident."""

    def __init__(self, router: Router, incoming: Incoming) -> None:
        self._router = router
        self._incoming = incoming
        self._scope = trio.CancelScope()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._incoming.on_cancel(self._scope.cancel)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> bool:
        if isinstance(error, SwarmError):
            self._incoming.fail(error)
        elif isinstance(error, trio.BrokenResourceError) and self._incoming.done:
            pass
        elif isinstance(error, Exception):
            self._incoming.fail(self._router.incident(error, self._incoming.open.tag))
        elif error is not None:
            return bool(self._scope.__exit__(kind, error, traceback))
        self._scope.__exit__(None, None, None)
        return error is not None


class _InLine:
    """A message of a peer for an actor of this node."""

    __slots__ = ("actor", "caller", "declared", "elsewhere", "incoming", "message", "router")

    def __init__(
        self,
        declared: WireMessage,
        incoming: Incoming,
        message: Any,
        caller: Caller,
        actor: LocalRef,
        router: Router,
    ) -> None:
        self.declared = declared
        self.incoming = incoming
        self.message = message
        self.caller = caller
        self.actor = actor
        self.router = router
        self.elsewhere: Callable[[], object] | None = None
        """What to do instead when this node turns out not to lead any more."""

    @property
    def key(self) -> tuple[Link, str]:
        """Whose order is kept: one link's messages to one actor."""
        return self.incoming.link, self.declared.to

    def settle(self, call: Call[Any]) -> None:
        """The actor has answered."""
        if call.error is not None:
            if self.elsewhere is not None and call.error.code is ErrorCode.NOT_LEADER and not self.incoming.done:
                self.elsewhere()
            else:
                self.incoming.fail(call.error)
            return
        try:
            self.incoming.answer(encode_reply(self.declared, call.value))
        except SwarmError as refusal:
            self.incoming.fail(refusal)
        # An actor that answers with what its message does not declare: its bug, not the link's.
        except Exception as bug:
            self.incoming.fail(self.router.incident(bug, self.declared.tag))


class _Relay:
    """A stream of the leader's, passed on item by item."""

    __slots__ = ("begun", "incoming")

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.begun = False
        """An item was passed on: from now on it cannot begin anew elsewhere."""

    async def run(self, inlet: RemoteInlet[Any]) -> None:
        """Until it ends."""
        try:
            while True:
                body = await inlet.receive_body()
                self.begun = True
                await self.incoming.send(body)
        except trio.EndOfChannel:
            self.incoming.answer()
        finally:
            inlet.leave()


def _asks_for_stale(declared: WireMessage, body: bytes) -> bool:
    """Whether the caller is content with what this manager knows, which may be old."""
    return declared.may_be_stale and bool(decode_message(declared, body).stale)


def kinds_of(declared: WireMessage) -> frozenset[int]:
    """The kinds of call that a message may be sent as."""
    for base, kinds in _KINDS.items():
        if issubclass(declared.cls, base):
            return kinds
    raise TypeError(f"{declared.cls.__name__} is no message")


@asynccontextmanager
async def open_router(entropy: Entropy) -> AsyncIterator[Router]:
    """A router whose waiting calls end with this context."""
    async with trio.open_nursery() as nursery:
        try:
            yield Router(nursery, entropy)
        finally:
            nursery.cancel_scope.cancel()
