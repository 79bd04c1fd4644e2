"""The unix socket of a node: the same batches as between nodes, each preceded by its length.

Whoever may open the socket is an operator: its mode is 0600 from before the first connection can be made. A socket file that
nobody answers at was left by a daemon that was killed, and is replaced; one that answers is another daemon's.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import trio

from swarm.ca.identity import LOCAL, Peer
from swarm.ports.net import DialError, Transport, TransportClosed
from swarm.wire.frames import MESSAGE_BYTES_MAX

LENGTH_BYTES: Final = 4
BACKLOG: Final = 64
RECEIVE_BYTES: Final = 64 * 1024
PATH_BYTES_MAX: Final = 107
"""The kernel's limit for the path of a unix socket."""


class LocalTransport:
    """One connection of the unix socket, as `ports.net.Transport`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @property
    def peer(self) -> Peer:
        """An operator of this machine."""
        return LOCAL

    @property
    def remote_address(self) -> str:
        """There is only one place where it can come from."""
        return "the local socket"

    async def send(self, data: bytes) -> None:
        """One message."""
        try:
            await self._stream.send_all(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise TransportClosed("the local socket was closed") from None

    async def receive(self) -> bytes:
        """The next message."""
        size = int.from_bytes(await self._take(LENGTH_BYTES), "big")
        if size > MESSAGE_BYTES_MAX:
            raise TransportClosed(f"a message of {size} bytes, more than {MESSAGE_BYTES_MAX}")
        return await self._take(size)

    async def _take(self, size: int) -> bytes:
        buffer = self._buffer
        while len(buffer) < size:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                raise TransportClosed("the local socket was closed")
            buffer += data
        taken = bytes(buffer[:size])
        del buffer[:size]
        return taken

    async def aclose(self) -> None:
        """Close it; what was sent is still read by the other side."""
        await self._stream.aclose()


class LocalListener(Protocol):
    """Where operators of this machine come in."""

    async def accept(self) -> Transport:
        """The next connection; OSError when this process has no room for one at the moment."""
        ...


class SocketListener:
    """The unix socket as a `LocalListener`."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener

    async def accept(self) -> Transport:
        """The next connection."""
        return LocalTransport(await self._listener.accept())


@asynccontextmanager
async def open_socket(path: str) -> AsyncIterator[LocalListener]:
    """As `listen_local`, giving transports."""
    async with listen_local(path) as listener:
        yield SocketListener(listener)


@asynccontextmanager
async def listen_local(path: str) -> AsyncIterator[trio.SocketListener]:
    """The unix socket at `path`, mode 0600, for as long as the context lasts; the file goes with it.

    Raises `DialError` when another daemon answers there, or the path cannot be used.
    """
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise DialError(f"the socket path {path} is longer than {PATH_BYTES_MAX} bytes; choose a shorter --state-dir")
    await _remove_stale(path)
    listener = _bind(path)
    try:
        yield listener
    finally:
        listener.socket.close()
        _unlink(path)


def _bind(path: str) -> trio.SocketListener:
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        plain.bind(path)
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)  # nobody can connect before listen()
        plain.listen(BACKLOG)
    except OSError as error:
        plain.close()
        raise DialError(f"cannot open the local socket {path}: {error.strerror}") from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(plain))


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


async def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise DialError(f"cannot open the local socket {path}: a file that is no socket is in its place")
        stream = await trio.open_unix_socket(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ECONNREFUSED:
            raise DialError(f"cannot open the local socket {path}: {error.strerror}") from error
        _unlink(path)
    else:
        await stream.aclose()
        raise DialError(f"another swarm daemon answers at {path}; stop it first, or choose another --state-dir")
