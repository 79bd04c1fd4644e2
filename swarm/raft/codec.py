"""Messages and memberships to bytes and back: msgpack arrays, fields by position, fields only ever added at the end.

An entry's data is bytes already and is packed as it is; entries of one append share their place and, nearly always, their
term and kind, which then cross once. Raises `BadMessage` on anything that it did not make itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgpack

from swarm.raft.messages import (
    Append,
    AppendReply,
    Commit,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    Member,
    Membership,
    PreVote,
    PreVoteReply,
    RaftMessage,
    ReadReply,
    ReadRequest,
    Removed,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
    TimeoutNow,
    Vote,
    VoteReply,
)

_PLAIN: dict[int, type[RaftMessage]] = {
    1: PreVote,
    2: PreVoteReply,
    3: Vote,
    4: VoteReply,
    6: AppendReply,
    7: Heartbeat,
    8: HeartbeatReply,
    9: Commit,
    11: SnapshotReply,
    12: ReadRequest,
    13: ReadReply,
    14: TimeoutNow,
    15: Removed,
}
"""Messages whose fields are numbers and booleans. Numbers are on the wire: never reuse one."""
_APPEND = 5
_CHUNK = 10
_CODE = {cls: code for code, cls in _PLAIN.items()}
_FIELDS: dict[type, tuple[str, ...]] = {
    cls: tuple(attribute.name for attribute in cls.__attrs_attrs__) for cls in _PLAIN.values()
}
T = TypeVar("T")
_KINDS = {int(kind): kind for kind in EntryKind}


class BadMessage(Exception):
    """Bytes that are no message of this protocol."""


def encode(message: RaftMessage) -> bytes:
    """The message as bytes."""
    if isinstance(message, Append):
        return _pack(_append_fields(message))
    if isinstance(message, SnapshotChunk):
        fields = (message.to, message.sender, message.term, _meta_fields(message.meta))
        return _pack((_CHUNK, *fields, message.number, message.total, message.data))
    cls = type(message)
    return _pack((_CODE[cls], *[getattr(message, name) for name in _FIELDS[cls]]))


def decode(data: bytes) -> RaftMessage:
    """The message that `encode` made these bytes of; `BadMessage` for anything else."""
    return _guarded(_decode, data)


def encode_membership(membership: Membership) -> bytes:
    """The data of a membership entry."""
    return _pack(_membership_fields(membership))


def decode_membership(data: bytes) -> Membership:
    """The membership in an entry's data."""
    return _guarded(lambda raw: _membership(msgpack.unpackb(raw)), data)


def encode_meta(meta: SnapshotMeta) -> bytes:
    """A snapshot's description, for storing beside its chunks."""
    return _pack(_meta_fields(meta))


def decode_meta(data: bytes) -> SnapshotMeta:
    """The description that `encode_meta` made these bytes of."""
    return _guarded(lambda raw: _meta(msgpack.unpackb(raw)), data)


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _guarded(read: Callable[[bytes], T], data: bytes) -> T:
    try:
        return read(data)
    except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
        raise BadMessage(f"{len(data)} bytes are no Raft message: {error!r}") from error


def _decode(data: bytes) -> RaftMessage:
    fields = msgpack.unpackb(data)
    code = fields[0]
    if code == _APPEND:
        return _append(fields)
    if code == _CHUNK:
        _, to, sender, term, meta, number, total, chunk = fields[:8]
        return SnapshotChunk(to, sender, term, _meta(meta), number, total, chunk)
    cls = _PLAIN[code]
    values = fields[1 : 1 + len(_FIELDS[cls])]
    for value in values:
        if not isinstance(value, int):
            raise ValueError(f"{cls.__name__} has a field that is no number")
    return cls(*values)


def _append_fields(message: Append) -> tuple[object, ...]:
    entries = message.entries
    head = (_APPEND, message.to, message.sender, message.term, message.prev_index, message.prev_term, message.commit)
    return (
        *head,
        _shared([entry.term for entry in entries]),
        _shared([entry.kind for entry in entries]),
        [entry.data for entry in entries],
    )


def _shared(numbers: list[Any]) -> object:
    """One number when all are equal, else the list."""
    if numbers and numbers.count(numbers[0]) == len(numbers):
        return int(numbers[0])
    return [int(number) for number in numbers]


def _spread(numbers: int | list[int], count: int) -> Sequence[int]:
    if isinstance(numbers, int):
        return [numbers] * count
    if len(numbers) != count:
        raise ValueError("as many terms and kinds as entries are needed")
    return numbers


def _append(fields: list[Any]) -> Append:
    _, to, sender, term, prev_index, prev_term, commit, terms, kinds, datas = fields[:10]
    first = prev_index + 1
    count = len(datas)
    places = range(first, first + count)
    sorts = [_KINDS[kind] for kind in _spread(kinds, count)]
    entries = tuple(map(Entry, places, _spread(terms, count), sorts, datas))
    return Append(to, sender, term, prev_index, prev_term, commit, entries)


def _meta_fields(meta: SnapshotMeta) -> tuple[object, ...]:
    return meta.index, meta.term, _membership_fields(meta.membership)


def _meta(fields: list[Any]) -> SnapshotMeta:
    index, term, membership = fields[:3]
    return SnapshotMeta(index, term, _membership(membership))


def _membership_fields(membership: Membership) -> tuple[object, ...]:
    members = [(member.raft_id, member.node_id, member.address, member.learner) for member in membership.members]
    return members, membership.removed


def _membership(fields: list[Any]) -> Membership:
    members, removed = fields[:2]
    return Membership(tuple(Member(*member[:4]) for member in members), tuple(removed))
