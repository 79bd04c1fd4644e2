"""Which of two nodes is better: one whole number a node, smaller is better.

From the most significant part to the least:

    recent failures of the group, when 5 or more      standing: how one service sees the node
    active tasks of the service                       standing
    active tasks in all                               load: the same for every service
    reserved share of CPU or memory, the larger       load
    the node's index, in order of creation            load

One number instead of a tuple keeps a heap of 100,000 nodes small and its comparisons cheap, and the index in its lowest
bits makes every order total, so that every leader chooses the same node.
"""

from __future__ import annotations

INDEX_BITS = 24
INDEX_MASK = (1 << INDEX_BITS) - 1
SHARE_BITS = 12
SHARE_MAX = (1 << SHARE_BITS) - 1
ACTIVE_SHIFT = INDEX_BITS + SHARE_BITS
ACTIVE_BITS = 24
ONE_ACTIVE = 1 << ACTIVE_SHIFT
STANDING_SHIFT = ACTIVE_SHIFT + ACTIVE_BITS
LOAD_MASK = (1 << STANDING_SHIFT) - 1
ONE_REPLICA = 1 << STANDING_SHIFT
_COUNT_BITS = 24


def load_key(index: int, active: int, share: int) -> int:
    """A node's load: active tasks, then the reserved share in 1/4095, then the node's index."""
    return active << ACTIVE_SHIFT | share << INDEX_BITS | index


def share_of(used: int, total: int) -> int:
    """How much of `total` is used, from 0 to `SHARE_MAX`; a total of nothing is full as soon as anything is used."""
    if used <= 0:
        return 0
    return SHARE_MAX if used >= total else used * SHARE_MAX // total


def standing(faults: int, count: int) -> int:
    """A node's standing in the eyes of one group: recent failures when they make it faulty (else 0), then its tasks."""
    return faults << _COUNT_BITS | count


def key_for(standing_of_node: int, load: int) -> int:
    """The whole rank: standing first, then load."""
    return standing_of_node << STANDING_SHIFT | load
