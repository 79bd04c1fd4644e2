"""Frames: what crosses a connection, as plain tuples; a batch of them is one msgpack array in one message.

A frame's first element says what it is, the second of most names the call. Later versions only append elements, so a reader
passes over elements that it does not know and fills in those that are missing. Bodies are bytes that the codec made: a frame
can be checked, limited and forwarded without decoding what it carries. Nothing here keeps state; order is the mux's matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from swarm.ca.identity import Peer, PeerRole

VERSION: Final = 1
"""Both sides send theirs in Hello; the newer side speaks as the older one can."""

HELLO: Final = 0
OPEN: Final = 1
ITEM: Final = 2
CREDIT: Final = 3
END: Final = 4
FAIL: Final = 5
CANCEL: Final = 6
PING: Final = 7
GO_AWAY: Final = 8
WANT: Final = 9

NAMES: Final = ("hello", "open", "item", "credit", "end", "fail", "cancel", "ping", "go-away", "want")

# The four ways to open a call, as `Ref` has them.
OFFER: Final = 0
TELL: Final = 1
ASK: Final = 2
STREAM: Final = 3

CALL_NAMES: Final = ("offer", "tell", "ask", "stream")

BATCH_BYTES: Final = 128 * 1024
"""A writer closes a batch once it holds this much: two 64 KiB chunks, so that a stream of them pays for half the messages."""
BODY_BYTES_MAX: Final = 48 * 1024 * 1024
"""Largest body: the list of 100,000 tasks with their names is some 30 MB."""
MESSAGE_BYTES_MAX: Final = BODY_BYTES_MAX + 2 * BATCH_BYTES
"""Largest batch that is read: one body of the largest size, and the batch that it closed."""
ANONYMOUS_MESSAGE_BYTES_MAX: Final = 256 * 1024
"""Largest batch that is read from a peer without a certificate: its few calls carry a token and a signing request."""
BATCH_FRAMES_MAX: Final = 8192
"""Most frames in a batch: a writer puts in fewer, as a frame counts `FRAME_BYTES` at least."""
FRAME_BYTES: Final = 24
"""What a frame counts beyond its body and texts when batches and buffers are measured."""
TEXT_BYTES_MAX: Final = 16 * 1024
"""Longest error or reason text that is sent; longer ones are cut."""

Frame: TypeAlias = tuple[Any, ...]


class FrameError(Exception):
    """The peer sent something that is no batch of frames; the text says what."""


class Hello(NamedTuple):
    """First frame of a connection, both ways. `session` groups a link's connections, `lane` says which one this is."""

    frame: int
    version: int
    session: str
    lane: str


class Open(NamedTuple):
    """A call. `time_left_s` None: no deadline. `window`: items that may be sent before the first Credit (streams only)."""

    frame: int
    call: int
    kind: int
    tag: str
    body: bytes
    time_left_s: float | None = None
    window: int = 0
    chain: tuple[str, ...] = ()
    caller: tuple[str, str, str, str] | None = None
    """(role, node id, cluster id, address) of the one who really asks, from a manager that forwards."""


_NUMBER = (int, float)
_NONE = type(None)
_SHAPES: Final[dict[int, tuple[int, tuple[Any, ...]]]] = {
    # kind: (elements that must be there, the type of each)
    HELLO: (4, (int, int, str, str)),
    OPEN: (5, (int, int, int, str, bytes, (int, float, _NONE), int, tuple, (tuple, _NONE))),
    ITEM: (3, (int, int, bytes)),
    CREDIT: (3, (int, int, int)),
    END: (2, (int, int, bytes)),
    FAIL: (4, (int, int, str, str, dict)),
    CANCEL: (2, (int, int, str)),
    PING: (3, (int, int, bool)),
    GO_AWAY: (2, (int, str)),
    WANT: (2, (int, str)),
}


def frame_bytes(frame: Frame) -> int:
    """What a frame counts in batches and buffers: its byte and text elements plus `FRAME_BYTES`; never under its real size
    by more than the overhead of a chain or of details."""
    size = FRAME_BYTES
    for element in frame:
        if isinstance(element, (bytes, str)):
            size += len(element)
    return size


class Packing:
    """A msgpack packer that keeps its buffer: a fresh one costs more than packing a small message into it."""

    __slots__ = ("_pack",)

    def __init__(self) -> None:
        self._pack = msgpack.Packer().pack

    def __call__(self, value: Any) -> bytes:
        """The bytes of a plain value."""
        packed: bytes = self._pack(value)
        if len(packed) > PACKING_BYTES_MAX:
            self._pack = msgpack.Packer().pack
        return packed


PACKING_BYTES_MAX: Final = 1024 * 1024
"""A buffer that has grown beyond this is given back."""
_pack: Final = Packing()


def encode_batch(frames: Sequence[Frame]) -> bytes:
    """One message that holds these frames, in order."""
    return _pack(frames)


def decode_batch(data: bytes) -> list[Frame]:
    """The frames of a message, each of a known kind and the right shape; `FrameError` says what is wrong.

    Frames of unknown kinds are left out: a newer peer may send what this version can do without.
    """
    try:
        batch = msgpack.unpackb(data, raw=False, use_list=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise FrameError(f"{len(data)} bytes that are no batch: {error or type(error).__name__}") from error
    if type(batch) is not tuple:
        raise FrameError(f"a batch that is a {type(batch).__name__}, not an array")
    if len(batch) > BATCH_FRAMES_MAX:
        raise FrameError(f"a batch of {len(batch)} frames, more than {BATCH_FRAMES_MAX}")
    return [frame for frame in batch if _checked(frame)]


def _checked(frame: object) -> bool:
    if type(frame) is not tuple or not frame or type(frame[0]) is not int:
        raise FrameError("a frame that is no array with a kind")
    shape = _SHAPES.get(frame[0])
    if shape is None:
        return False
    least, types = shape
    if len(frame) < least:
        raise FrameError(f"{NAMES[frame[0]]} frame of {len(frame)} elements, needs {least}")
    for element, wanted in zip(frame, types, strict=False):
        if not isinstance(element, wanted) or (wanted is int and type(element) is bool):
            raise FrameError(f"{NAMES[frame[0]]} frame with a {type(element).__name__} in the wrong place")
    if frame[0] == OPEN and len(frame) > 7 and not all(type(link) is str for link in frame[7]):
        raise FrameError("open frame with a chain that is not of texts")
    return True


def caller_of(peer: Peer, address: str) -> tuple[str, str, str, str]:
    """What travels in `Open.caller` for a caller that is forwarded."""
    return (peer.role.value, peer.node_id, peer.cluster_id, address)


def peer_of(caller: Sequence[object]) -> tuple[Peer, str]:
    """The forwarded caller and its address; `FrameError` when it is none."""
    if len(caller) < 4 or not all(isinstance(part, str) for part in caller):
        raise FrameError("a forwarded caller that is no (role, node, cluster, address)")
    role, node_id, cluster_id, address = (str(part) for part in caller[:4])
    try:
        return Peer(PeerRole(role), node_id, cluster_id), address
    except ValueError:
        raise FrameError(f"a forwarded caller of the unknown role {role!r}") from None


def cut(text: str) -> str:
    """`text`, shortened to `TEXT_BYTES_MAX` characters when it is longer."""
    return text if len(text) <= TEXT_BYTES_MAX else text[: TEXT_BYTES_MAX - 1] + "…"
