"""Ordered sets of ids in as little memory as their size allows: the values of the store's indexes.

One id is the string itself, a few are a tuple, many are a dict. 100,000 slots with one task each then cost nothing beyond
their dict entries. The empty set is `()`; who holds the set drops its entry instead of keeping an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

IdSet: TypeAlias = "str | tuple[str, ...] | dict[str, None]"

TUPLE_MAX = 8
"""A tuple this long is still cheaper to copy (0.1 us) than a dict is to hold (over 350 bytes)."""
EMPTY: tuple[str, ...] = ()


def with_id(ids: IdSet, id: str) -> IdSet:
    """The set with `id` at its end. A dict is changed in place; `id` must not be in the set yet."""
    if isinstance(ids, dict):
        ids[id] = None
        return ids
    if isinstance(ids, str):
        return (ids, id)
    if not ids:
        return id
    if len(ids) < TUPLE_MAX:
        return (*ids, id)
    many = dict.fromkeys(ids)
    many[id] = None
    return many


def without_id(ids: IdSet, id: str) -> IdSet:
    """The set without `id`, which must be in it; `EMPTY` when it was the last. A dict is changed in place."""
    if isinstance(ids, dict):
        del ids[id]
        return ids if ids else EMPTY
    if isinstance(ids, str):
        assert ids == id, "an index entry belongs to another task"
        return EMPTY
    left = tuple([other for other in ids if other != id])
    assert len(left) == len(ids) - 1, "an index entry is missing"
    return left[0] if len(left) == 1 else left


def each(ids: IdSet) -> Iterable[str]:
    """The ids in the order in which they were added."""
    return (ids,) if isinstance(ids, str) else ids


def size(ids: IdSet) -> int:
    """How many ids."""
    return 1 if isinstance(ids, str) else len(ids)


class PrefixIndex:
    """Ids by their first two characters, so that a prefix is resolved without a scan of the table.

    Ids are uniform base 36, so that a bucket holds 1/1296 of them; an id costs its pointer and nothing else.
    """

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[str, list[str]] = {}

    def add(self, id: str) -> None:
        """Put a new id in."""
        head = id[:2]
        bucket = self._buckets.get(head)
        if bucket is None:
            self._buckets[head] = [id]
        else:
            bucket.append(id)

    def remove(self, id: str) -> None:
        """Take an id out."""
        bucket = self._buckets[id[:2]]
        bucket.remove(id)
        if not bucket:
            del self._buckets[id[:2]]

    def find(self, prefix: str) -> list[str]:
        """The ids that start with `prefix`, sorted."""
        head = prefix[:2]
        if len(head) == 2:
            return sorted(id for id in self._buckets.get(head, ()) if id.startswith(prefix))
        return sorted(
            id
            for key, bucket in self._buckets.items()
            if key.startswith(head)
            for id in bucket
            if id.startswith(prefix)
        )
