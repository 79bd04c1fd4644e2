"""Groups of changes as the bytes of a Raft entry, and stored objects as the bytes of a snapshot, and back.

An entry is encoded once, stored once and sent as it is. The changes of a batch are sorted into one table per shape (create a
task, assign, advance, ...); a table of a few rows is written row by row, a long one by columns (`columns`). What the groups
were and in which order their changes came is kept beside the tables.

    format byte, then msgpack of [sizes, order, table, table, ...]
    sizes: null when each group holds one change, else the number of changes of each group
    order: null when there is one table, else a byte for each change: the number of its table
    table: [code, rows] or [code, count, column]

The format byte and the codes are stored: they never change their meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgpack

from swarm.model.changes import Advance, Assign, Change, Create, Delete, Group, Update
from swarm.model.columns import codec_of
from swarm.model.objects import Cluster, Node, Revision, Service, StoreObject, Task
from swarm.model.plain import PlainError, decoder, encoder

FORMAT = 1
COLUMNS_MIN = 8
"""From this many rows on, columns are smaller than rows and read faster (measured for tasks and assignments)."""
ROWS_MAX = 1 << 24
"""More rows than any entry holds (its size is limited): a damaged count must not exhaust the memory."""

_OBJECTS: tuple[type, ...] = (Cluster, Node, Service, Revision, Task)
_CREATE, _UPDATE = 10, 20
_CODES: dict[Any, int] = {Delete: 1, Advance: 2, Assign: 3}
_ROW_TYPES: dict[int, type] = {code: cls for cls, code in _CODES.items()}
_WRAPPERS: dict[int, Callable[[Any], Change]] = {}
for _number, _class in enumerate(_OBJECTS, start=1):
    _CODES[Create, _class] = _CREATE + _number
    _CODES[Update, _class] = _UPDATE + _number
    _ROW_TYPES[_CREATE + _number] = _ROW_TYPES[_UPDATE + _number] = _class
    _WRAPPERS[_CREATE + _number] = Create
    _WRAPPERS[_UPDATE + _number] = Update
_OBJECT_CODES: dict[type, int] = {cls: number for number, cls in enumerate(_OBJECTS, start=1)}
_OBJECT_TYPES: dict[int, type] = {number: cls for cls, number in _OBJECT_CODES.items()}


def encode_groups(groups: Sequence[Group]) -> bytes:
    """The bytes of these groups."""
    tables: dict[int, list[Any]] = {}
    codes: list[int] = []
    for group in groups:
        for change in group:
            cls = type(change)
            if cls is Create or cls is Update:
                row: Any = cast("Create | Update", change).object
                code = _CODES[cls, type(row)]
            else:
                row, code = change, _CODES[cls]
            rows = tables.get(code)
            if rows is None:
                tables[code] = [row]
            else:
                rows.append(row)
            codes.append(code)
    sizes = None if len(codes) == len(groups) and all(groups) else [len(group) for group in groups]
    return _pack(sizes, codes, tables, _ROW_TYPES)


def decode_groups(data: bytes) -> list[Group]:
    """The groups in `data`; PlainError for bytes that hold none, or that a newer version wrote."""
    sizes, columns, order = _unpack(data, _ROW_TYPES)
    tables = [_wrapped(code, rows) for code, rows in columns]
    changes: list[Change] = tables[0] if order is None and tables else _in_order(tables, order or b"")
    if sizes is None:
        return [(change,) for change in changes]
    if not isinstance(sizes, list) or sum(sizes) != len(changes):
        raise PlainError("the sizes of the groups do not add up to the changes")
    groups: list[Group] = []
    at = 0
    for size in sizes:
        groups.append(tuple(changes[at : at + size]))
        at += size
    return groups


def encode_objects(objects: Sequence[StoreObject]) -> bytes:
    """The bytes of these objects, in order: a piece of a snapshot."""
    tables: dict[int, list[Any]] = {}
    codes = [_OBJECT_CODES[type(it)] for it in objects]
    for code, it in zip(codes, objects, strict=True):
        tables.setdefault(code, []).append(it)
    return _pack(None, codes, tables, _OBJECT_TYPES)


def decode_objects(data: bytes) -> list[StoreObject]:
    """The objects in `data`, in order; PlainError as for `decode_groups`."""
    _, columns, order = _unpack(data, _OBJECT_TYPES)
    tables = [rows for _, rows in columns]
    return tables[0] if order is None and tables else _in_order(tables, order or b"")


def _pack(sizes: list[int] | None, codes: list[int], tables: dict[int, list[Any]], types: dict[int, type]) -> bytes:
    order = None
    if len(tables) > 1:
        numbers = {code: number for number, code in enumerate(tables)}
        order = bytes([numbers[code] for code in codes])
    written = [_encode_table(code, rows, types[code]) for code, rows in tables.items()]
    return bytes((FORMAT,)) + cast(bytes, msgpack.packb([sizes, order, *written]))


def _encode_table(code: int, rows: list[Any], cls: type) -> list[Any]:
    if len(rows) < COLUMNS_MIN:
        return [code, list(map(encoder(cls), rows))]
    return [code, len(rows), codec_of(cls).encode(rows)]


def _unpack(data: bytes, types: dict[int, type]) -> tuple[Any, list[tuple[int, list[Any]]], bytes | None]:
    if not data or data[0] != FORMAT:
        raise PlainError(f"format {data[0] if data else 'none'} is not known to this version, which knows {FORMAT}")
    try:
        sizes, order, *tables = msgpack.unpackb(memoryview(data)[1:], strict_map_key=False)
        decoded = [(table[0], _decode_table(table, types)) for table in tables]
    except PlainError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
        raise PlainError(f"damaged: {error!r}") from error
    if order is None and len(decoded) > 1:
        raise PlainError("several tables without an order")
    return sizes, decoded, order


def _decode_table(table: list[Any], types: dict[int, type]) -> list[Any]:
    code, second = table[0], table[1]
    if code not in types:
        raise PlainError(f"changes of code {code!r} are not known to this version")
    if isinstance(second, list):
        return list(map(decoder(types[code]), second))
    if type(second) is not int or not 0 < second <= ROWS_MAX:
        raise PlainError(f"a table cannot have {second!r} rows")
    return codec_of(types[code]).decode(table[2], second)


def _wrapped(code: int, rows: list[Any]) -> list[Change]:
    wrap = _WRAPPERS.get(code)
    return rows if wrap is None else list(map(wrap, rows))


def _in_order(tables: Sequence[list[Any]], order: bytes) -> list[Any]:
    rows = [iter(table) for table in tables]
    try:
        ordered = [next(rows[number]) for number in order]
    except (StopIteration, IndexError):
        raise PlainError("the order names rows that are not there") from None
    if len(ordered) != sum(map(len, tables)):
        raise PlainError("the order leaves out rows")
    return ordered
