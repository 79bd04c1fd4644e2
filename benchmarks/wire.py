"""What does the wire cost? Two processes, one TLS link between them over loopback; the bare thing in the same run.

`python -m benchmarks.wire`. Asks: small ones a second, one at a time and 1,000 in flight. Chunks: 64 KiB items of a stream,
MB a second, beside bare trio-websocket messages of the same size over the same TLS. Median and worst (p99) of the rounds, and
the ratio of the medians. Nothing is random but keys and session names.
"""

from __future__ import annotations

import gc
import os
import pickle
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
import trio_websocket

from swarm.ca import certificates as ca
from swarm.ca.credentials import Credentials
from swarm.ca.identity import Peer, PeerRole
from swarm.executors.base import LogOptions, Stream
from swarm.model.ids import Instant, NodeId, TaskId
from swarm.ports.clock import SystemClock
from swarm.ports.entropy import SystemEntropy
from swarm.runtime import Actor, StreamTurn, Turn, on, open_scope
from swarm.wire.link import Link
from swarm.wire.links import open_links
from swarm.wire.messages.dispatcher import Heartbeat, HeartbeatReply
from swarm.wire.messages.node import ReadLogs, TaskLogLine
from swarm.wire.router import Router, open_router
from swarm.wire.tls import client_context, server_context
from swarm.wire.websocket import RECEIVE_BYTES, open_net

CLUSTER = "bench"
ROUNDS = 9
ASKS_ALONE = 1_000
IN_FLIGHT = 1_000
ASKS_EACH = 8
CHUNK_BYTES = 64 * 1024
CHUNKS = 800
WINDOW = 64


class Desk(Actor):
    """Answers the asks, sends the chunks."""

    @on(Heartbeat)
    def heartbeat(self, request: Heartbeat, turn: Turn[HeartbeatReply]) -> HeartbeatReply:
        """At once."""
        return HeartbeatReply(5.0)

    @on(ReadLogs)
    def chunks(self, request: ReadLogs, turn: StreamTurn[TaskLogLine]) -> None:
        """`tail` chunks."""
        self.job(self._send, turn.sink, request.options.tail)

    async def _send(self, sink: Any, count: int) -> None:
        data = os.urandom(CHUNK_BYTES)
        for number in range(count):
            await sink.send(TaskLogLine(TaskId("t"), NodeId("n"), Stream.STDOUT, Instant(number), data))
        sink.close()


async def no_leader() -> Link:
    """This one leads."""
    raise AssertionError


def me(node_id: str) -> Peer:
    """A manager."""
    return Peer(PeerRole.MANAGER, node_id, CLUSTER)


async def serve(credentials: Credentials) -> None:
    """The other process."""

    async def bare(request: Any) -> None:
        connection = await request.accept()
        data = os.urandom(CHUNK_BYTES)
        while True:
            count = int(await connection.get_message())
            for _ in range(count):
                await connection.send_message(data)

    async with (
        open_net(credentials) as net,
        open_scope("bench") as scope,
        open_router(SystemEntropy()) as router,
        open_links(net, router, clock=SystemClock(), entropy=SystemEntropy()) as links,
        net.listen("127.0.0.1:0") as listener,
        trio.open_nursery() as nursery,
    ):
        router.me = me("server")
        router.manage(lambda: True, no_leader)
        ref = await scope.start("desk", Desk)
        router.register("dispatcher", ref)
        router.register("agent", ref)
        server = await nursery.start(
            partial(
                trio_websocket.serve_websocket,
                bare,
                "127.0.0.1",
                0,
                server_context(credentials),
                receive_buffer_size=RECEIVE_BYTES,
            )
        )
        print(listener.address, server.port, flush=True)
        gc.collect()
        gc.freeze()
        while True:
            nursery.start_soon(links.accept, await listener.accept())


async def measure(credentials: Credentials, address: str, port: int) -> None:
    """The asking process."""
    context: ssl.SSLContext = client_context(credentials, anonymous=False)
    async with (
        open_net(credentials) as net,
        trio.open_nursery() as nursery,
        open_links(net, Router(nursery, SystemEntropy()), clock=SystemClock(), entropy=SystemEntropy()) as links,
        trio_websocket.open_websocket(
            "127.0.0.1", port, "/", use_ssl=context, receive_buffer_size=RECEIVE_BYTES
        ) as websocket,
    ):
        link = await links.dial(address, timeout_s=10)
        desk, agent = link.ref("dispatcher"), link.ref("agent")

        async def ask(count: int) -> None:
            for _ in range(count):
                await desk.ask(Heartbeat("session-of-a-node-0000001"), timeout_s=60)

        async def many() -> None:
            async with trio.open_nursery() as askers:
                for _ in range(IN_FLIGHT):
                    askers.start_soon(ask, ASKS_EACH)

        async def chunks() -> None:
            request = ReadLogs((), LogOptions(tail=CHUNKS))
            async with agent.stream(request, window=WINDOW) as inlet:
                got = [len(item.data) async for item in inlet]
            assert sum(got) == CHUNKS * CHUNK_BYTES

        async def bare_chunks() -> None:
            await websocket.send_message(str(CHUNKS))
            for _ in range(CHUNKS):
                assert len(await websocket.get_message()) == CHUNK_BYTES

        await compare(
            ("one ask at a time", partial(ask, ASKS_ALONE), ASKS_ALONE),
            (f"{IN_FLIGHT:,} in flight", many, IN_FLIGHT * ASKS_EACH),
            "asks/s",
        )
        megabytes = CHUNKS * CHUNK_BYTES / 1e6
        await compare(
            ("bare trio-websocket", bare_chunks, megabytes), ("stream over the link", chunks, megabytes), "MB/s"
        )
        link.close("done")
        nursery.cancel_scope.cancel()


Contestant = tuple[str, Callable[[], Awaitable[None]], float]


async def compare(first: Contestant, second: Contestant, unit: str) -> None:
    """Rounds of both in turn; their rates and the ratio of the medians."""
    rates: dict[str, list[float]] = {first[0]: [], second[0]: []}
    for number in range(ROUNDS + 1):
        for name, function, amount in (first, second):
            gc.collect()
            began = time.perf_counter()
            await function()
            if number:  # the first round warms up
                rates[name].append(amount / (time.perf_counter() - began))
    medians = []
    for name, values in rates.items():
        values.sort()
        medians.append(values[len(values) // 2])
        print(f"{name:22} median {medians[-1]:>10,.0f} {unit}  p99 {values[0]:>10,.0f} {unit}")
    print(f"{'ratio':22} {medians[1] / medians[0]:.2f}")


def credentials() -> tuple[Credentials, Credentials]:
    """Two managers of one throw-away cluster."""
    entropy, now = SystemEntropy(), SystemClock().now()
    root_key = ca.new_key(entropy.bytes(ca.KEY_RANDOM_BYTES))
    root = ca.create_root(root_key, entropy.bytes(ca.SERIAL_RANDOM_BYTES), now)
    authority = ca.Authority(root, root_key)

    def issue(node_id: str) -> Credentials:
        key = ca.new_key(entropy.bytes(ca.KEY_RANDOM_BYTES))
        certificate = authority.issue(
            ca.make_request(key),
            node_id=node_id,
            cluster_id=CLUSTER,
            role=PeerRole.MANAGER,
            expiry_s=3600.0,
            serial=entropy.bytes(ca.SERIAL_RANDOM_BYTES),
            now=now,
        )
        return Credentials(certificate, key, root)

    return issue("server"), issue("client")


def main() -> None:
    """Start the other process and measure."""
    if sys.argv[1:] == ["--serve"]:
        try:
            trio.run(serve, pickle.load(sys.stdin.buffer))
        except* KeyboardInterrupt:
            pass
        return
    server, client = credentials()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.wire", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(pickle.dumps(server))
            child.stdin.close()
            address, port = child.stdout.readline().split()
            trio.run(measure, client, address.decode(), int(port))
        finally:
            child.kill()


if __name__ == "__main__":
    main()
