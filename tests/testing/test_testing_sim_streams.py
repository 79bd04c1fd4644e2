"""Simulated byte streams do what a socket does: whole, in order, in pieces, and an end that is an end or a reset."""

from __future__ import annotations

import pytest
import trio

from swarm.ports.entropy import SeededEntropy
from swarm.testing.deterministic import run_seeded
from swarm.testing.sim_net import Life, SimNetwork
from swarm.testing.sim_streams import SimStream, SimStreams


async def connected(network: SimNetwork) -> tuple[SimStream, SimStream, Life, Life]:
    near, far = Life("a"), Life("b")
    (listener,) = await SimStreams(network, far).listen("b", 1)
    stream = await SimStreams(network, near).connect("b", 1)
    accepted = await listener.accept()
    assert isinstance(stream, SimStream) and isinstance(accepted, SimStream)
    return stream, accepted, near, far


def simulated(seed: str = "x") -> SimNetwork:
    return SimNetwork(SeededEntropy(seed))


def test_all_bytes_arrive_in_order_and_some_chunks_in_pieces() -> None:
    async def story() -> None:
        near, far, _, _ = await connected(simulated())
        sent = [bytes([number]) * 100 for number in range(200)]

        async def send() -> None:
            for chunk in sent:
                await near.send_all(chunk)
            await near.send_eof()

        got: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while data := await far.receive_some(80):
                got.append(data)
        assert b"".join(got) == b"".join(sent)
        assert max(map(len, got)) == 80
        assert len({len(data) for data in got}) > 3, "no chunk was torn anywhere but at 80"

    run_seeded("x", story)


def test_a_cut_is_a_reset_for_both_ends() -> None:
    async def story() -> None:
        network = simulated()
        near, far, _, _ = await connected(network)
        network.cut("a", "b")
        for stream in (near, far):
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")

    run_seeded("x", story)


def test_what_was_sent_before_the_close_is_read_then_the_end() -> None:
    async def story() -> None:
        near, far, _, _ = await connected(simulated())
        await near.send_all(b"last words")
        await near.aclose()
        got = b""
        while data := await far.receive_some():
            got += data
        assert got == b"last words"
        with pytest.raises(trio.ClosedResourceError):
            await near.receive_some()

    run_seeded("x", story)


def test_nobody_connects_to_who_does_not_listen_or_refuses_and_a_dead_daemon_sends_nothing() -> None:
    async def story() -> None:
        network = simulated()
        near, far, life, _ = await connected(network)
        with pytest.raises(ConnectionRefusedError):
            await SimStreams(network, life).connect("b", 2)
        network.refusing.add("b")
        with pytest.raises(ConnectionRefusedError):
            await SimStreams(network, life).connect("b", 1)
        life.revoked = True
        with trio.move_on_after(10):
            await near.send_all(b"from beyond")
        with trio.move_on_after(10):
            await far.receive_some()
            pytest.fail("a killed process sent something")

    run_seeded("x", story)


def test_a_blocked_direction_holds_bytes_back_and_handshakes_too() -> None:
    async def story() -> None:
        network = simulated()
        near, far, life, _ = await connected(network)
        network.block("a", "b")
        await near.send_all(b"late")
        with trio.move_on_after(5) as scope:
            await far.receive_some()
        assert scope.cancelled_caught
        with trio.move_on_after(5) as scope:
            await SimStreams(network, life).connect("b", 1)
        assert scope.cancelled_caught
        network.heal()
        assert (await far.receive_some())[:1] == b"l"

    run_seeded("x", story)
