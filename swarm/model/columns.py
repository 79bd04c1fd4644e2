"""Many values of one type as one column: what repeats is written once, what counts up is a start and a step.

10,000 new tasks differ in their ids and slots and hardly in anything else, so that a column of each field costs little more
than that. A column is a list that begins with its form:

    [0, value]                       all the same
    [1, column, indexes]             few distinct values: a column of those, and which one each is
    [2, values]                      as they are, in the form of `plain`
    [3, start, step]                 whole numbers that count up
    [4, column, column, ...]         objects of one class, none of them None: a column for each field

Objects are told apart by identity, not by equality: that is cheap, and who makes many objects shares what they have in common.
Decoding gives shared objects back, so that a follower's memory stays as small as the leader's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import attrs

from swarm.model.construct import constructor_of
from swarm.model.plain import PlainError, decoder, encoder
from swarm.model.plain_class import base_of, default_of, fields_of, is_enum

SAME, FEW, VALUES, RANGE, FIELDS = range(5)
FEW_RATIO = 2
"""Distinct values are worth a column of their own when there are at least this many values to each."""
STEP_MAX = 1 << 31
"""A larger step is no counting, and may not fit msgpack's 64 bits."""

Column = list[Any]


@cache
def codec_of(type: Any) -> ColumnCodec:
    """The column codec of a declared type; looked up once a type."""
    kind = base_of(type)
    if kind in (str, int, float, bool, bytes):
        return ScalarColumn(kind)
    if is_enum(kind):
        return EnumColumn(kind)
    if attrs.has(kind):
        return ClassColumn(kind)
    return ColumnCodec(type)


class ColumnCodec:
    """Values of any declared type, told apart by identity."""

    def __init__(self, type: Any) -> None:
        self.type = type
        self._encode: Callable[[Any], Any] = encoder(type)
        self._decode: Callable[[Any], Any] = decoder(type)

    def encode(self, values: Sequence[Any]) -> Column:
        """The column of these values; there is at least one."""
        by_id = {id(value): value for value in values}
        if len(by_id) == 1:
            return [SAME, self._encode(values[0])]
        if len(by_id) * FEW_RATIO <= len(values):
            return self._few(by_id, list(map(id, values)))
        return self.encode_distinct(values)

    def encode_distinct(self, values: Sequence[Any]) -> Column:
        """The column of values that repeat little."""
        encode = self._encode
        return [VALUES, [encode(value) for value in values]]

    def _few(self, by_key: dict[Any, Any], keys: list[Any]) -> Column:
        numbers = {key: number for number, key in enumerate(by_key)}
        indexes = [numbers[key] for key in keys]
        return [FEW, self.encode_distinct(list(by_key.values())), _pack_indexes(indexes, len(by_key))]

    def decode(self, column: Any, count: int) -> list[Any]:
        """The `count` values of a column; PlainError when it holds no such thing."""
        form = column[0] if isinstance(column, list) and column else None
        if form == SAME and len(column) == 2:
            return [self._decode(column[1])] * count
        if form == FEW and len(column) == 3:
            indexes = _unpack_indexes(column[2], count)
            values = self.decode(column[1], max(indexes, default=-1) + 1)
            return [values[index] for index in indexes]
        values = self.decode_form(form, column, count)
        if len(values) != count:
            raise PlainError(f"a column of {self.type} holds {len(values)} values instead of {count}")
        return values

    def decode_form(self, form: Any, column: list[Any], count: int) -> list[Any]:
        """The values of a form other than SAME and FEW."""
        if form != VALUES or len(column) != 2 or not isinstance(column[1], list):
            raise PlainError(f"a column of {self.type} has the unknown form {form!r}")
        decode = self._decode
        return [decode(value) for value in column[1]]


class ScalarColumn(ColumnCodec):
    """Text, numbers and bytes, told apart by value."""

    def encode(self, values: Sequence[Any]) -> Column:
        """The column of these values; there is at least one."""
        first = values[0]
        values = list(values)
        if values.count(first) == len(values):
            return [SAME, first]
        if self.type is int:
            step = values[1] - first
            if 0 < step <= STEP_MAX and values == list(range(first, first + step * len(values), step)):
                return [RANGE, first, step]
        distinct = dict.fromkeys(values)
        if len(distinct) * FEW_RATIO <= len(values):
            return self._few({value: value for value in distinct}, values)
        return [VALUES, values]

    def encode_distinct(self, values: Sequence[Any]) -> Column:
        """As they are."""
        return [VALUES, list(values)]

    def decode_form(self, form: Any, column: list[Any], count: int) -> list[Any]:
        """Checked all at once: the types of a column are a set of one."""
        if form == RANGE and self.type is int and len(column) == 3:
            _, start, step = column
            if type(start) is int and type(step) is int and step:
                return list(range(start, start + step * count, step))
        if (
            form == VALUES
            and len(column) == 2
            and isinstance(column[1], list)
            and set(map(type, column[1])) <= {self.type}
        ):
            return column[1]
        return super().decode_form(form, column, count)


class EnumColumn(ColumnCodec):
    """Members of an enum, by their values."""

    def encode(self, values: Sequence[Any]) -> Column:
        """The column of these members; there is at least one."""
        raw = [value._value_ for value in values]
        if raw.count(raw[0]) == len(raw):
            return [SAME, raw[0]]
        return self._few({value: value for value in dict.fromkeys(raw)}, raw)

    def encode_distinct(self, values: Sequence[Any]) -> Column:
        """The values as they are; the caller has them out of their members already."""
        return [VALUES, list(values)]


class ClassColumn(ColumnCodec):
    """Objects of one attrs class: a column for each field when they differ."""

    def __init__(self, type: Any) -> None:
        super().__init__(type)
        fields = fields_of(type)
        self._names = [field.name for field in fields]
        self._codecs = [codec_of(cast(Any, field.type)) for field in fields]
        self._defaults: list[Callable[[], Any] | None] = [default_of(field) for field in fields]
        self._construct = constructor_of(type)

    def encode_distinct(self, values: Sequence[Any]) -> Column:
        """A column for each field; fields at the end that have their default everywhere are written nevertheless."""
        if not self._names:
            return super().encode_distinct(values)
        columns = [
            codec.encode([getattr(value, name) for value in values])
            for name, codec in zip(self._names, self._codecs, strict=True)
        ]
        return [FIELDS, *columns]

    def decode_form(self, form: Any, column: list[Any], count: int) -> list[Any]:
        """Objects from the columns of their fields: missing ones have their default, unknown ones are passed over."""
        if form != FIELDS:
            return super().decode_form(form, column, count)
        columns = [codec.decode(part, count) for codec, part in zip(self._codecs, column[1:], strict=False)]
        for default in self._defaults[len(columns) :]:
            if default is None:
                raise PlainError(f"a column of {self.type.__name__} lacks required fields")
            columns.append([default() for _ in range(count)])
        return list(map(self._construct, *columns))


def _pack_indexes(indexes: list[int], distinct: int) -> bytes:
    if distinct <= 1 << 8:
        return bytes(indexes)
    return struct.pack(f"<{len(indexes)}{'H' if distinct <= 1 << 16 else 'I'}", *indexes)


def _unpack_indexes(packed: Any, count: int) -> Sequence[int]:
    if not isinstance(packed, bytes) or not count or len(packed) not in (count, 2 * count, 4 * count):
        raise PlainError(f"the indexes of a column of {count} values are damaged")
    width = len(packed) // count
    if width == 1:
        return packed
    return cast("tuple[int, ...]", struct.unpack(f"<{count}{'H' if width == 2 else 'I'}", packed))
