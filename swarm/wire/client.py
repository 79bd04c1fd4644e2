"""The command line's way to its daemon: blocking calls over the unix socket, by the same frames and multiplexer as a link.

One connection, one thread, no trio: a command imports this, asks, and ends. Errors are `SwarmError`s as an actor would get
them; `NoDaemon` when nobody answers at the socket.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from swarm.ports.clock import monotonic_seconds
from swarm.runtime.errors import AskTimeout, ErrorCode, SwarmError
from swarm.runtime.message import Request, Subscribe
from swarm.wire.codec import declaration, decode_reply, encode_message
from swarm.wire.errors import error_of
from swarm.wire.events import Answered, Ended, Failed, GoneAway, ItemArrived
from swarm.wire.frames import ASK, MESSAGE_BYTES_MAX, STREAM, FrameError, decode_batch, encode_batch
from swarm.wire.mux import Mux, ProtocolError

R = TypeVar("R")
T = TypeVar("T")

LENGTH_BYTES: Final = 4
RECEIVE_BYTES: Final = 256 * 1024
CONNECT_S: Final = 5.0
"""For the daemon to take the connection: it answers at once, or it hangs."""
IDLE_S: Final = 1.0
"""Nothing came for so long: whoever waits may want to say so."""
LANE: Final = "single"


class NoDaemon(SwarmError):
    """Nobody answers at the socket: no daemon runs here, or it is another one's."""

    def __init__(self, path: str, why: str) -> None:
        text = f"no swarm daemon answers at {path}: {why}; start one with `swarm up`, or name its socket with --socket"
        super().__init__(ErrorCode.UNAVAILABLE, text)
        self.path = path


class LocalClient:
    """A connection to the daemon whose unix socket is at `path`; made at the first call. Not for several threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket: socket.socket | None = None
        self._mux = Mux(dialler=True)
        self._buffer = bytearray()
        self._events: deque[Any] = deque()

    def __enter__(self) -> LocalClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the daemon cancels what was still asked."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, request: Request[R], *, timeout_s: float) -> R:
        """The answer, or the `SwarmError` that it was refused with; `AskTimeout`, `NoDaemon`."""
        declared = declaration(request)
        deadline = monotonic_seconds() + timeout_s
        self._connect()
        body = encode_message(declared, request)
        call = self._mux.open(ASK, declared.tag, body, time_left_s=timeout_s)
        try:
            while True:
                event = self._next(call, deadline)
                if isinstance(event, Answered):
                    return cast(R, decode_reply(declared, event.body))
        except TimeoutError:
            self._mux.cancel(call, "the caller gave up")
            self._flush()
            raise AskTimeout(f"the daemon at {self.path} did not answer within {timeout_s:g} s") from None

    def stream(
        self,
        request: Subscribe[T],
        *,
        window: int = 64,
        timeout_s: float | None = None,
        idle: Callable[[], None] | None = None,
    ) -> Iterator[T]:
        """The items, until the far side ends it; `SwarmError` when it fails.

        With `timeout_s`, `AskTimeout` when the whole takes longer. `idle` is called whenever nothing has come for
        `IDLE_S`. Closing the iterator ends the stream.
        """
        declared = declaration(request)
        deadline = math.inf if timeout_s is None else monotonic_seconds() + timeout_s
        self._connect()
        call = self._mux.open(STREAM, declared.tag, encode_message(declared, request), window=window)
        try:
            while True:
                event = self._next_or_idle(call, deadline, idle)
                if isinstance(event, ItemArrived):
                    self._mux.taken(call, len(event.body))
                    yield cast(T, decode_reply(declared, event.body))
                elif isinstance(event, Ended):
                    return
        except TimeoutError:
            raise AskTimeout(f"not done within {timeout_s:g} s") from None
        finally:
            if self._mux.cancel(call, "the caller gave up") and self._socket is not None:
                self._flush()

    # --- the connection ---------------------------------------------------------------------------------------------
    def _connect(self) -> None:
        if self._socket is not None and not self._mux.over:
            return
        self.close()  # the daemon may have said goodbye behind its last answer: nothing of the next call has been sent
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CONNECT_S)
        try:
            connection.connect(self.path)
        except PermissionError:
            connection.close()
            text = f"the socket {self.path} belongs to another user; run this as the user who started the daemon"
            raise SwarmError(ErrorCode.DENIED, text) from None
        except (OSError, ValueError) as error:
            connection.close()
            raise NoDaemon(self.path, _reason(error)) from None
        self._socket = connection
        self._mux = Mux(dialler=True)
        self._mux.hello(f"{os.getpid()}-{id(self)}-{monotonic_seconds()}", LANE)
        self._buffer.clear()
        self._events.clear()

    def _next_or_idle(self, call: int, deadline: float, idle: Callable[[], None] | None) -> Any:
        """As `_next`, calling `idle` each time that nothing has come for `IDLE_S`."""
        while idle is not None and (pause_end := monotonic_seconds() + IDLE_S) < deadline:
            try:
                return self._next(call, pause_end)
            except TimeoutError:
                idle()
        return self._next(call, deadline)

    def _next(self, call: int, deadline: float) -> Any:
        """The next event of a call; `TimeoutError` at the deadline, the call's error as `SwarmError`."""
        while True:
            self._flush()
            while self._events:
                event = self._events.popleft()
                if isinstance(event, GoneAway):
                    self.close()
                    raise SwarmError(ErrorCode.UNAVAILABLE, f"the daemon ended the connection: {event.reason}")
                if getattr(event, "call", 0) != call:
                    continue  # of an earlier call that was given up
                if isinstance(event, Failed):
                    raise error_of(event.code, event.text, event.details)
                return event
            self._receive(deadline)

    def _flush(self) -> None:
        while batch := self._mux.take():
            data = encode_batch(batch)
            assert self._socket is not None
            self._socket.settimeout(None)
            # When it is closed already, what the daemon said before is still to be read, and tells more than this error.
            with suppress(OSError):
                self._socket.sendall(len(data).to_bytes(LENGTH_BYTES, "big") + data)

    def _receive(self, deadline: float) -> None:
        """Wait for bytes and take in the messages that are complete."""
        assert self._socket is not None
        left = deadline - monotonic_seconds()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left if math.isfinite(left) else None)
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._lost(error) from None
        if not data:
            raise self._lost(None)
        self._buffer += data
        while (message := self._message()) is not None:
            try:
                self._events.extend(self._mux.receive(decode_batch(message)))
            except (FrameError, ProtocolError) as error:
                self.close()
                raise SwarmError(
                    ErrorCode.INTERNAL, f"the daemon at {self.path} speaks another language: {error}"
                ) from None

    def _message(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < LENGTH_BYTES:
            return None
        size = int.from_bytes(buffer[:LENGTH_BYTES], "big")
        if size > MESSAGE_BYTES_MAX:
            self.close()
            raise SwarmError(ErrorCode.INTERNAL, f"what answers at {self.path} is no swarm daemon")
        if len(buffer) < LENGTH_BYTES + size:
            return None
        message = bytes(buffer[LENGTH_BYTES : LENGTH_BYTES + size])
        del buffer[: LENGTH_BYTES + size]
        return message

    def _lost(self, error: OSError | None) -> SwarmError:
        self.close()
        why = f": {error.strerror}" if error is not None and error.strerror else ""
        text = f"the daemon at {self.path} closed the connection{why}; whether it acted on the request is not known"
        return SwarmError(ErrorCode.UNAVAILABLE, text)


def _reason(error: OSError | ValueError) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "there is no such socket"
    if number == errno.ECONNREFUSED:
        return "its daemon is not running any more"
    if isinstance(error, TimeoutError):
        return "it does not take connections"
    return getattr(error, "strerror", None) or str(error)
