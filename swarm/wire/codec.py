"""Message bodies: objects to bytes and back, by the declarations of the registry.

`model/plain.py` makes objects plain, with code generated for each class: a heartbeat takes half a microsecond, a batch of Raft
messages one. What comes from a peer is checked against the declared types; what does not fit is INVALID, never an exception
of another kind. Nothing, as the answer of a request that only succeeds, has no bytes.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Final

import msgpack

from swarm.model.plain import PlainError, decoder, encoder
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.frames import BODY_BYTES_MAX, Packing
from swarm.wire.registry import WireMessage, by_class
from swarm.wire.registry import declared as all_declared

_pack: Final = Packing()


def prepare() -> None:
    """Have the code made for every message and answer, which otherwise is made when the first of its kind is met.

    For managers, before anybody depends on them: a follower forwards what it does not decode, so that one that has just been
    elected would spend its first 50 ms of leading on this. All of it takes 0.2 s of one core and less than a MiB.
    """
    for one in all_declared():
        for type in (one.cls, one.reply):
            if type not in (None, NoneType):
                encoder(type)
                decoder(type)


def declaration(message: object) -> WireMessage:
    """How a message is declared; `TypeError` for one that must stay on its node."""
    declared = by_class(type(message))
    if declared is None:
        raise TypeError(f"{type(message).__name__} is not declared with @wire_message: it must not leave its node")
    return declared


def encode_message(declared: WireMessage, message: Any) -> bytes:
    """The body of an Open. INVALID when it is larger than any peer would take."""
    return _limited(declared, _pack(encoder(declared.cls)(message)), "message")


def decode_message(declared: WireMessage, body: bytes) -> Any:
    """The message of an Open; INVALID when the bytes are not one."""
    return _decode(declared, declared.cls, body, "message")


def encode_reply(declared: WireMessage, value: Any) -> bytes:
    """The body of an answer, or of one item of a stream. INVALID when it is larger than any peer would take."""
    if declared.reply in (None, NoneType):
        if value is not None:
            raise TypeError(f"{declared.tag} is answered with nothing, not with a {type(value).__name__}")
        return b""
    return _limited(declared, _pack(encoder(declared.reply)(value)), "answer")


def decode_reply(declared: WireMessage, body: bytes) -> Any:
    """The value of an answer, or one item of a stream; INVALID when the bytes are not one."""
    if declared.reply in (None, NoneType):
        return None
    return _decode(declared, declared.reply, body, "answer")


def _limited(declared: WireMessage, body: bytes, what: str) -> bytes:
    if len(body) > BODY_BYTES_MAX:
        text = (
            f"the {what} of {declared.tag} has {len(body) // 2**20} MiB, more than the {BODY_BYTES_MAX // 2**20} MiB "
            "that are sent; ask for less at once"
        )
        raise SwarmError(ErrorCode.INVALID, text)
    return body


def _decode(declared: WireMessage, wanted: Any, body: bytes, what: str) -> Any:
    try:
        return decoder(wanted)(msgpack.unpackb(body, strict_map_key=False))
    except (PlainError, ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        text = f"the {what} of {declared.tag} cannot be read: {error or type(error).__name__}"
        raise SwarmError(ErrorCode.INVALID, text) from error
