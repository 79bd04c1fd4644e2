"""Taking a websocket's bytes apart: what wsproto encodes comes out again however it was cut, and broken frames are refused."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol

from swarm.wire.websocket_frames import PROTOCOL_ERROR, TOO_LARGE, UNACCEPTABLE, FramingError, Skipper, Splitter

LIMIT = 100_000
SIZES = st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 65_535, 65_536]))


def fed(*chunks: bytes, from_client: bool = True) -> Splitter:
    splitter = Splitter(from_client=from_client, limit=LIMIT)
    for chunk in chunks:
        splitter.feed(chunk)
    return splitter


@given(
    from_client=st.booleans(),
    frames=st.lists(st.tuples(st.sampled_from(["message", "fragments", "ping", "pong"]), SIZES), max_size=6),
    cuts=st.lists(st.integers(0, 200_000), max_size=8),
    closes=st.booleans(),
)
def test_whatever_the_library_encodes_comes_out_however_it_was_cut(
    from_client: bool, frames: list[tuple[str, int]], cuts: list[int], closes: bool
) -> None:
    library = FrameProtocol(from_client, [])
    stream, messages, control = b"", [], b""
    for number, (kind, size) in enumerate(frames):
        payload = bytes([number % 256]) * size
        if kind == "message":
            stream += library.send_data(payload)
            messages.append(payload)
        elif kind == "fragments":
            ping = bytes(library.ping(b"between"))
            first, second = library.send_data(payload[: size // 2], fin=False), library.send_data(payload[size // 2 :])
            stream += bytes(first) + ping + bytes(second)
            messages.append(payload)
            control += ping
        else:
            sent = bytes((library.ping if kind == "ping" else library.pong)(payload[:125]))
            stream += sent
            control += sent
    if closes:
        sent = bytes(library.close(1000, "done"))
        stream += sent
        control += sent
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    chunks = [stream[low:high] for low, high in itertools.pairwise(at)]
    splitter = fed(*chunks, from_client=from_client)
    assert list(splitter.messages) == messages
    assert splitter.aside == control
    assert splitter.closing is closes
    assert splitter.rest() == b""


def test_nothing_behind_a_close_frame_is_a_message_and_it_is_kept_for_the_library() -> None:
    client = FrameProtocol(True, [])
    behind = bytes(client.send_data(b"late"))
    splitter = fed(bytes(client.close(1000)) + behind)
    assert not splitter.messages
    assert splitter.rest() == behind


def test_half_a_frame_is_kept_for_the_library_too() -> None:
    whole = bytes(FrameProtocol(True, []).send_data(b"message"))
    splitter = fed(whole, whole[:5])
    assert list(splitter.messages) == [b"message"]
    assert splitter.rest() == whole[:5]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes(FrameProtocol(False, []).send_data(b"not masked")), PROTOCOL_ERROR),
        (bytes(FrameProtocol(True, []).send_data("a text")), UNACCEPTABLE),
        (b"\xc2\x80\x00\x00\x00\x00", PROTOCOL_ERROR),  # a reserved bit
        (b"\x83\x80\x00\x00\x00\x00", PROTOCOL_ERROR),  # a kind that does not exist
        (b"\x8b\x80\x00\x00\x00\x00", PROTOCOL_ERROR),
        (b"\x89\xfe\x01\x00\x00\x00\x00\x00", PROTOCOL_ERROR),  # a ping of 256 bytes
        (b"\x80\x80\x00\x00\x00\x00", PROTOCOL_ERROR),  # the rest of a message that never began
        (b"\x02\x80\x00\x00\x00\x00" * 2, PROTOCOL_ERROR),  # a message within a message
    ],
)
def test_broken_frames_are_refused_with_the_code_that_names_it(data: bytes, code: int) -> None:
    with pytest.raises(FramingError) as caught:
        fed(data)
    assert caught.value.code == code


def test_a_message_that_is_too_large_is_refused_by_its_head_alone_whole_or_in_fragments() -> None:
    client = FrameProtocol(True, [])
    whole = bytes(client.send_data(bytes(LIMIT + 1)))
    with pytest.raises(FramingError, match="maximum message size") as caught:
        fed(whole[:14])
    assert caught.value.code == TOO_LARGE
    half = bytes(client.send_data(bytes(LIMIT), fin=False))
    splitter = fed(half)
    with pytest.raises(FramingError, match="maximum message size"):
        splitter.feed(bytes(client.send_data(b"!")))


def test_fragments_without_content_take_no_memory() -> None:
    splitter = fed(b"\x02\x80\x00\x00\x00\x00")
    tracemalloc.start()
    for _ in range(10):
        splitter.feed(b"\x00\x80\x00\x00\x00\x00" * 10_000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000
    splitter.feed(bytes(FrameProtocol(True, []).send_data(b"end")).replace(b"\x82", b"\x80", 1))
    assert list(splitter.messages) == [b"end"]


def test_a_control_frame_between_fragments_is_no_part_of_the_message() -> None:
    client = FrameProtocol(True, [])
    first, ping = bytes(client.send_data(bytes(LIMIT - 1), fin=False)), bytes(client.ping(b"alive?"))
    splitter = fed(first, ping, bytes(client.send_data(b"!")))
    assert list(splitter.messages) == [bytes(LIMIT - 1) + b"!"]
    assert splitter.aside == ping


# --- behind a refusal ----------------------------------------------------------------------------------------------------
@given(
    from_client=st.booleans(),
    sizes=st.lists(st.one_of(st.integers(0, 300), st.sampled_from([65_535, 65_536, LIMIT + 1])), max_size=5),
    cuts=st.lists(st.integers(0, 400_000), max_size=8),
)
def test_the_peers_close_is_seen_behind_whatever_it_sent_and_not_before(
    from_client: bool, sizes: list[int], cuts: list[int]
) -> None:
    library = FrameProtocol(from_client, [])
    before = b"".join(bytes(library.send_data(b"\x88" * size)) for size in sizes)
    ends = sorted({*(cut for cut in cuts if cut < len(before)), len(before)})
    skipper = Skipper()
    for start, end in itertools.pairwise([0, *ends]):
        skipper.feed(before[start:end])
        assert not skipper.closed
    skipper.feed(bytes(library.close(1009, "too large")))
    assert skipper.closed


def test_what_is_refused_is_walked_over_from_its_beginning() -> None:
    client = FrameProtocol(True, [])
    splitter, skipper = Splitter(from_client=True, limit=LIMIT), Skipper()
    whole = bytes(client.send_data(b"fine")) + bytes(client.send_data(bytes(LIMIT + 1)))
    splitter.feed(whole[:3])
    with pytest.raises(FramingError):
        splitter.feed(whole[3:50])
    assert list(splitter.messages) == [b"fine"]
    skipper.feed(splitter.rest())
    skipper.feed(whole[50:])
    assert not skipper.closed
    skipper.feed(bytes(client.close(1009)))
    assert skipper.closed


def test_bytes_that_are_no_frames_take_no_memory() -> None:
    skipper = Skipper()
    skipper.feed(b"GET / HTTP/1.1\r\n" * 1_000)
    tracemalloc.start()
    for _ in range(100):
        skipper.feed(bytes(range(256)) * 100)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000
