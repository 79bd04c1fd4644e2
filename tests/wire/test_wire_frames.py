"""Batches: what goes in comes out; whatever else comes is named and refused."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.ca.identity import Peer, PeerRole
from swarm.wire import frames as f

GOOD: list[f.Frame] = [
    f.Hello(f.HELLO, 1, "session", "control"),
    f.Open(f.OPEN, 1, f.ASK, "a.b", b"body", 1.5, 0, ("x", "y"), ("worker", "w1", "c", "10.0.0.1:1")),
    f.Open(f.OPEN, 0, f.OFFER, "a.b", b"body"),
    (f.ITEM, 1, b"x"),
    (f.CREDIT, 1, 32),
    (f.END, 1),
    (f.END, 1, b"answer"),
    (f.FAIL, 1, "denied", "no", {"why": "so"}),
    (f.CANCEL, 1, "stopped"),
    (f.PING, 7, False),
    (f.GO_AWAY, "bye"),
    (f.WANT, "bulk"),
]


def test_a_batch_comes_back_as_it_was() -> None:
    assert f.decode_batch(f.encode_batch(GOOD)) == [tuple(frame) for frame in GOOD]


def test_unknown_kinds_and_further_elements_of_a_newer_peer_are_passed_over() -> None:
    newer = [(99, "what"), (f.PING, 1, True, "new"), (f.ITEM, 1, b"x", 5)]
    assert f.decode_batch(msgpack.packb(newer)) == [(f.PING, 1, True, "new"), (f.ITEM, 1, b"x", 5)]


@pytest.mark.parametrize(
    ("value", "about"),
    [
        (7, "not an array"),
        ([7], "no array with a kind"),
        ([[]], "no array with a kind"),
        ([["x"]], "no array with a kind"),
        ([[f.HELLO, 1]], "needs 4"),
        ([[f.ITEM, 1, "text"]], "str in the wrong place"),
        ([[f.ITEM, True, b""]], "bool in the wrong place"),
        ([[f.OPEN, 1, 2, "t", b"", None, 0, [7]]], "chain"),
        ([[f.OPEN, 1, 2, "t", b"", None, 0, [], "x"]], "wrong place"),
        ([[f.PING, 1, True]] * (f.BATCH_FRAMES_MAX + 1), "more than"),
    ],
)
def test_what_is_no_batch_is_refused_by_name(value: object, about: str) -> None:
    with pytest.raises(f.FrameError, match=about):
        f.decode_batch(msgpack.packb(value))


@given(st.integers(0, 400), st.binary(max_size=4))
def test_a_torn_batch_is_refused_or_read_but_never_breaks_the_reader(length: int, tail: bytes) -> None:
    torn = f.encode_batch(GOOD)[:length] + tail
    try:
        f.decode_batch(torn)
    except f.FrameError:
        return


@given(st.binary(max_size=64))
def test_noise_never_breaks_the_reader(noise: bytes) -> None:
    try:
        f.decode_batch(noise)
    except f.FrameError:
        return


def test_the_measure_is_near_the_real_size() -> None:
    for frame in GOOD:
        real = len(f.encode_batch([frame]))
        assert f.frame_bytes(frame) - f.FRAME_BYTES <= real <= f.frame_bytes(frame) + 40


def test_a_forwarded_caller_survives_and_a_broken_one_is_refused() -> None:
    peer = Peer(PeerRole.WORKER, "w1", "c")
    assert f.peer_of(f.caller_of(peer, "10.0.0.1:1")) == (peer, "10.0.0.1:1")
    for broken in ((), ("worker", "w1", "c"), ("king", "w1", "c", "a"), ("worker", 1, "c", "a")):
        with pytest.raises(f.FrameError):
            f.peer_of(broken)


def test_long_texts_are_cut() -> None:
    assert f.cut("short") == "short"
    assert len(f.cut("x" * 100_000)) == f.TEXT_BYTES_MAX
