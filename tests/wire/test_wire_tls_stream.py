"""TLS on streams in memory and on sockets: what is sent arrives whole and in order, and every end is told as it was."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from certs import TestCluster
from trio.abc import HalfCloseableStream
from trio.testing import memory_stream_pair

from swarm.wire.tls import client_context, peer_of_stream, server_context
from swarm.wire.tls_stream import TlsStream

HERE = TestCluster()
ELSEWHERE = TestCluster("cluster-b")


@asynccontextmanager
async def raw_pair(kind: str) -> AsyncIterator[tuple[HalfCloseableStream, HalfCloseableStream]]:
    near: HalfCloseableStream
    far: HalfCloseableStream
    if kind == "memory":
        near, far = memory_stream_pair()
    else:
        near, far = map(trio.SocketStream, trio.socket.socketpair())
    try:
        yield near, far
    finally:
        await trio.aclose_forcefully(near)
        await trio.aclose_forcefully(far)


@asynccontextmanager
async def pair(kind: str = "socket") -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    async with raw_pair(kind) as (near_raw, far_raw):
        near = TlsStream(near_raw, client_context(HERE.credentials("m1"), anonymous=False))
        far = TlsStream(far_raw, server_context(HERE.credentials("m2")), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.do_handshake)
            nursery.start_soon(far.do_handshake)
        yield near, far


async def read(stream: TlsStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(1000)
        assert 0 < len(more) <= 1000
        data += more
    return data


@pytest.mark.parametrize("kind", ["memory", "socket"])
async def test_what_is_sent_arrives_and_the_end_is_the_end(kind: str) -> None:
    async with pair(kind) as (near, far):
        assert peer_of_stream(near.session).node_id == "m2"
        assert peer_of_stream(far.session).node_id == "m1"
        await near.send(b"small")
        assert await far.receive_some() == b"small"
        await far.send_all(b"back")
        assert await near.receive_some() == b"back"
        await near.aclose()
        assert await far.receive_some() == b""
        assert await far.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await near.send(b"late")


@pytest.mark.parametrize("kind", ["memory", "socket"])
async def test_more_than_the_kernel_takes_waits_and_keeps_its_order_among_several_senders(kind: str) -> None:
    parts = [bytes([number]) * 700_000 for number in range(5)]
    async with pair(kind) as (near, far), trio.open_nursery() as nursery:

        async def send_after(number: int) -> None:
            await trio.testing.wait_all_tasks_blocked(0.001 * number)
            await near.send(parts[number])

        if kind == "memory":
            for part in parts:
                nursery.start_soon(near.send, part)
        else:
            for number in range(len(parts)):
                nursery.start_soon(send_after, number)
            await trio.testing.wait_all_tasks_blocked(0.01)
        received = await read(far, sum(map(len, parts)))
    runs = [received[at] for at in range(0, len(received), 700_000)]
    assert sorted(runs) == [0, 1, 2, 3, 4]
    assert received == b"".join(parts[number] for number in runs)
    if kind == "socket":
        assert runs == sorted(runs)


async def test_a_sender_cut_off_within_a_record_breaks_the_stream_one_that_only_stood_in_line_does_not() -> None:
    async with pair() as (near, _), trio.open_nursery() as nursery:
        nursery.start_soon(near.send, bytes(20_000_000))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await near.send(b"in line")
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.BrokenResourceError):
        await near.send(b"more")


async def test_who_stood_in_line_behind_a_sender_that_was_cut_off_is_not_told_that_its_bytes_went_out() -> None:
    refused: list[str] = []
    async with pair() as (near, far), trio.open_nursery() as nursery:

        async def send_behind() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await near.send(b"in line")
            refused.append("in line")

        with trio.CancelScope() as scope:
            nursery.start_soon(send_behind)

            async def cut_off() -> None:
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

            nursery.start_soon(cut_off)
            await near.send(bytes(20_000_000))
        await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(near)
        with trio.move_on_after(1):
            while await far.receive_some():
                pass
    assert refused == ["in line"]


async def test_who_finishes_what_could_not_be_sent_is_told_so() -> None:
    async with pair() as (near, far):
        await trio.aclose_forcefully(far)
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(3):  # the kernel takes what comes before the other side's reset
                near.begin(b"nobody reads this")
        with pytest.raises(trio.BrokenResourceError):
            await near.finish()


async def test_what_an_impatient_sender_leaves_goes_out_with_the_next_one() -> None:
    async with pair() as (near, far), trio.open_nursery() as nursery:
        big = bytes(5_000_000)
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.send(big)  # the kernel takes some; waiting for the rest is cancelled before it begins
        assert scope.cancelled_caught
        nursery.start_soon(near.send, b"the end")
        assert await read(far, len(big) + 7) == big + b"the end"


async def test_a_foreign_client_is_told_by_an_alert() -> None:
    async with raw_pair("socket") as (near_raw, far_raw):
        trusting = ELSEWHERE.credentials("x")
        context = client_context(trusting, anonymous=False)
        context.load_verify_locations(cadata=HERE.root_pem.decode())
        near = TlsStream(near_raw, context)
        far = TlsStream(far_raw, server_context(HERE.credentials("m2")), server_side=True)

        async def refuse() -> None:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await far.do_handshake()
            assert isinstance(caught.value.__cause__, ssl.SSLError)
            await far.send_alert()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            await near.do_handshake()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await near.receive_some()
        assert "UNKNOWN_CA" in str(caught.value.__cause__).upper().replace(" ", "_")
        with pytest.raises(trio.BrokenResourceError):
            await near.receive_some()


async def test_an_end_within_the_handshake_and_damage_after_it_are_errors() -> None:
    async with raw_pair("memory") as (near_raw, far_raw):
        near = TlsStream(near_raw, client_context(None, anonymous=True))
        await far_raw.send_eof()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await near.do_handshake()
        assert isinstance(caught.value.__cause__, ssl.SSLError)
    async with pair("memory") as (near, far):
        await near.raw.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await far.send(b"!")


async def test_damage_behind_a_whole_record_is_told_at_the_next_look_though_nothing_more_arrives() -> None:
    async with pair("socket") as (near, far):
        near.session.write(b"whole")
        record = near._outgoing.read()
        await near.raw.send_all(record + b"\x17\x03\x03\x00\x20" + bytes(32))
        assert await far.receive_some() == b"whole"
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError) as caught:
            await far.receive_some()
        assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_closing_wakes_the_one_who_receives() -> None:
    async with pair() as (near, _), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await near.receive_some()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await near.aclose()


async def test_what_was_begun_and_not_taken_is_finished_later_and_goes_first() -> None:
    big = bytes(5_000_000)
    async with pair() as (near, far), trio.open_nursery() as nursery:
        assert near.begin(b"at once")
        assert await read(far, 7) == b"at once"
        assert not near.begin(big)
        assert not near.begin(b"behind")
        nursery.start_soon(near.finish)
        assert await read(far, len(big) + 6) == big + b"behind"
