"""The agent's sessions with the dispatcher, one after the other: find a manager, register, listen, send heartbeats.

One idea: any failure ends the session and a new one is opened after a pause that grows until a registration succeeds; what runs
on the node is not touched by it. This is the agent's job: all that happens is told to the agent, which alone decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from attrs import frozen

from swarm.model.ids import NodeId
from swarm.model.specs import NodeDescription
from swarm.ports.entropy import Entropy
from swarm.runtime import ErrorCode, Inlet, Message, Ref, SwarmError
from swarm.wire.messages.dispatcher import (
    DescribeNode,
    Heartbeat,
    ManagerAddress,
    OpenSession,
    SessionItem,
    SessionOpened,
)

CALL_TIMEOUT_S = 5.0
"""For opening a session, a heartbeat, a description."""
DESCRIBE_S = 20.0
"""Between two looks at the machine."""
BACKOFF_S_MIN = 0.1
BACKOFF_S_MAX = 8.0
WINDOW = 64


class ManagerConnection(Protocol):
    """A manager that was reached."""

    @property
    def node_id(self) -> NodeId:
        """Which one."""
        ...

    @property
    def dispatcher(self) -> Ref:
        """The cluster's dispatcher, through this manager."""
        ...

    async def closed(self) -> str:
        """Wait until the connection is gone; why."""
        ...

    def done(self, *, good: bool, error: SwarmError | None = None) -> None:
        """It is not needed any more; whether it served well and how the session ended, for the next choice."""
        ...


class ManagerFinder(Protocol):
    """Finds a manager to talk to."""

    async def connect(self) -> ManagerConnection:
        """One that answers; `SwarmError` says which were tried and why they did not. Takes a bounded time."""
        ...

    def learn(self, managers: tuple[ManagerAddress, ...]) -> None:
        """These are the managers now."""
        ...


@frozen
class SessionUp(Message):
    """The node is registered."""

    number: int
    session_id: str
    dispatcher: Ref
    manager: NodeId


@frozen
class SessionItemCame(Message):
    """The dispatcher sent something."""

    number: int
    item: SessionItem


@frozen
class SessionDown(Message):
    """The session has ended, or could not be opened."""

    number: int
    why: str
    denied: bool = False
    """A manager refused this node itself: trying again does not help."""


class Sessions:
    """Runs until cancelled; `describe` looks at the machine."""

    def __init__(
        self, agent: Ref, finder: ManagerFinder, describe: Callable[[], Awaitable[NodeDescription]], entropy: Entropy
    ) -> None:
        self._agent = agent
        self._finder = finder
        self._describe = describe
        self._entropy = entropy
        self._number = 0
        self._scope = trio.CancelScope()
        self._why = ""
        self._error: SwarmError | None = None
        self._registered = False

    def end(self, number: int, why: str) -> None:
        """End the session with this number, if it still lasts; a new one follows."""
        if number == self._number:
            self._finish(why)

    async def run(self) -> None:
        """One session after the other."""
        backoff_s = 0.0
        while True:
            await trio.sleep(self._entropy.uniform(0.0, backoff_s))
            self._number += 1
            self._scope, self._why, self._error, self._registered = trio.CancelScope(), "", None, False
            with self._scope:
                await self._session(self._number)
            backoff_s = BACKOFF_S_MIN if self._registered else min(BACKOFF_S_MIN + 2 * backoff_s, BACKOFF_S_MAX)
            await self._agent.tell(SessionDown(self._number, self._why, denied=self._is_denied()))

    def _is_denied(self) -> bool:
        return self._error is not None and self._error.code is ErrorCode.DENIED

    def _finish(self, why: str) -> None:
        if not self._why:
            self._why = why
        self._scope.cancel()

    async def _session(self, number: int) -> None:
        """One session, to its end; the reason is left in `_why`."""
        connection: ManagerConnection | None = None
        try:
            connection = await self._finder.connect()
            description = await self._describe()
            async with connection.dispatcher.stream(OpenSession(description), window=WINDOW) as inlet:
                opened = await self._opened(inlet)
                self._registered = True
                await self._agent.tell(SessionUp(number, opened.session_id, connection.dispatcher, connection.node_id))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._beat, connection.dispatcher, opened)
                    nursery.start_soon(self._describe_again, connection.dispatcher, opened.session_id, description)
                    nursery.start_soon(self._watch, connection)
                    nursery.start_soon(self._listen, number, inlet)
        except SwarmError as error:
            self._error = error
            self._finish(error.text)
        finally:
            if connection is not None:
                connection.done(good=self._registered, error=self._error)

    async def _opened(self, inlet: Inlet[SessionItem]) -> SessionOpened:
        with trio.move_on_after(CALL_TIMEOUT_S):
            try:
                opened = await inlet.receive()
            except trio.EndOfChannel:
                raise SwarmError(ErrorCode.UNAVAILABLE, "the dispatcher ended the session at once") from None
            if isinstance(opened, SessionOpened):
                return opened
            raise SwarmError(ErrorCode.INVALID, f"a session begins with its id, not with {type(opened).__name__}")
        raise SwarmError(ErrorCode.TIMEOUT, f"the dispatcher did not open a session within {CALL_TIMEOUT_S:g} s")

    # --- while it lasts: each of these ends the session when it ends --------------------------------------------------
    async def _listen(self, number: int, inlet: Inlet[SessionItem]) -> None:
        try:
            async for item in inlet:
                await self._agent.tell(SessionItemCame(number, item))
        except SwarmError as error:
            self._error = error
            self._finish(error.text)
        else:
            self._finish("the dispatcher ended the session")

    async def _watch(self, connection: ManagerConnection) -> None:
        self._finish(await connection.closed())

    async def _beat(self, dispatcher: Ref, opened: SessionOpened) -> None:
        period_s = opened.heartbeat_period_s
        while True:
            await trio.sleep(period_s)
            try:
                answer = await dispatcher.ask(Heartbeat(opened.session_id), timeout_s=CALL_TIMEOUT_S)
            except SwarmError as error:
                self._error = error
                self._finish(f"a heartbeat was not answered: {error.text}")
                return
            period_s = answer.period_s

    async def _describe_again(self, dispatcher: Ref, session_id: str, told: NodeDescription) -> None:
        while True:
            await trio.sleep(DESCRIBE_S)
            description = await self._describe()
            if description == told:
                continue
            try:
                await dispatcher.ask(DescribeNode(session_id, description), timeout_s=CALL_TIMEOUT_S)
            except SwarmError as error:
                self._finish(f"the machine's new description was not taken: {error.text}")
                return
            told = description
