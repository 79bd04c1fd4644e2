"""A client of one manager that costs next to nothing, as the one for etcd: blocking, one TLS websocket, frames by hand.

It makes the handshakes, says Hello, and then knows two frames: the calls that it opens and their ends.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Sequence

import msgpack
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request
from wsproto.frame_protocol import FrameProtocol

from swarm.ca.credentials import Credentials
from swarm.wire.frames import ASK, END, FAIL, HELLO, MESSAGE_BYTES_MAX, OPEN, PING, VERSION
from swarm.wire.registry import Lane
from swarm.wire.tls import client_context
from swarm.wire.websocket import RESOURCE
from swarm.wire.websocket_frames import Splitter

READ_BYTES = 256 * 1024
ASK_S = 30.0


class Client:
    """One connection, any number of calls in flight on it."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        host, port = address.split(":")
        plain = socket.create_connection((host, int(port)))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = client_context(credentials, anonymous=False).wrap_socket(plain)
        self._frames = FrameProtocol(True, [])
        self._splitter = Splitter(from_client=False, limit=MESSAGE_BYTES_MAX)
        self._next = 1
        self._upgrade(address)
        self._send([(HELLO, VERSION, f"bench-{time.monotonic_ns()}", Lane.CALLS.value)])

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def run(self, tag: str, bodies: Sequence[bytes], in_flight: int, is_over: Callable[[int], bool]) -> list[float]:
        """Keep so many asks under way, with these bodies in turn, until `is_over(answers)`; each one's latency in seconds."""
        under_way: dict[int, float] = {}
        latencies: list[float] = []
        body, room, over = itertools.cycle(bodies), in_flight, False
        while not over or under_way:
            if room and not over:
                opened = []
                for _ in range(room):
                    under_way[self._next] = time.perf_counter()
                    opened.append((OPEN, self._next, ASK, tag, next(body), ASK_S))
                    self._next += 2
                self._send(opened)
                room = 0
            for call in self._ended():
                latencies.append(time.perf_counter() - under_way.pop(call))
                room += 1
            over = over or is_over(len(latencies))
        return latencies

    def _send(self, frames: list[tuple[object, ...]]) -> None:
        self._socket.sendall(self._frames.send_data(msgpack.packb(frames)))

    def _ended(self) -> list[int]:
        """Read what there is; the calls that it ends."""
        self._splitter.feed(self._read())
        ended = []
        while self._splitter.messages:
            for frame in msgpack.unpackb(self._splitter.messages.popleft()):
                if frame[0] == END:
                    ended.append(frame[1])
                elif frame[0] == PING and not frame[2]:
                    self._send([(PING, frame[1], True)])
                elif frame[0] == FAIL:
                    raise RuntimeError(f"refused: {frame[3]}")
        return ended

    def _read(self) -> bytes:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise RuntimeError("the manager hung up")
        return data

    def _upgrade(self, address: str) -> None:
        """The websocket's handshake; the server sends nothing behind it before our Hello."""
        library = WSConnection(ConnectionType.CLIENT)
        self._socket.sendall(library.send(Request(host=address, target=RESOURCE)))
        while True:
            library.receive_data(self._read())
            for event in library.events():
                if not isinstance(event, AcceptConnection):
                    raise RuntimeError(f"no websocket: {event}")
                return
