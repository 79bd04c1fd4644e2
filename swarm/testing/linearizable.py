"""Is a recorded history of registers linearizable? Says so, or names the operation that no order of effects explains.

The search of Wing and Gong with Lowe's memory of what was tried: an operation may take effect at one moment between its start
and its end, and the moments have one order in which every read gives the value last written. Registers are judged one by one,
since linearizability is local (Herlihy and Wing 1990, theorem 1). An operation whose outcome is not known may take effect
at any time after its start, or never. Pure; neither trio nor files in here.

Histories are JSON lines: `Operation.to_line`, `Operation.from_line`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from enum import StrEnum
from math import inf
from typing import Final

from attrs import asdict, evolve, frozen

STEPS_MAX: Final = 2_000_000
"""Of the search of one register, about ten seconds; a history with distinct values needs a few steps an operation."""


class Kind(StrEnum):
    """What was asked of a register."""

    WRITE = "write"
    READ = "read"
    SWAP = "swap"
    """Compare and set: `value` in place of `expected`."""


class Result(StrEnum):
    """What the client was told."""

    OK = "ok"
    FAIL = "fail"
    """It certainly did not take effect, and never will."""
    UNKNOWN = "unknown"
    """The answer was lost: it took effect, or will, or never does."""


@frozen
class Operation:
    """One call of one client. Times in seconds of one clock, `end` when the answer was there."""

    client: str
    register: str
    kind: Kind
    value: str | None
    """What was written or read; None is a register that was never written."""
    start: float
    end: float
    result: Result = Result.OK
    expected: str | None = None
    """Of a swap: what it replaces."""

    def to_line(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Operation:
        """From `to_line`."""
        fields = json.loads(line)
        return cls(**{**fields, "kind": Kind(fields["kind"]), "result": Result(fields["result"])})

    def __str__(self) -> str:
        what = f"{self.expected!r} -> {self.value!r}" if self.kind is Kind.SWAP else repr(self.value)
        return f"{self.client} {self.kind} {self.register} {what} {self.start:.3f}..{self.end:.3f} {self.result}"


@frozen
class Violation:
    """A register whose history no order explains."""

    register: str
    stuck: tuple[Operation, ...]
    """The operations of which one had to be next where the longest explanation ends."""
    explained: tuple[Operation, ...]
    """The longest explanation, in order of effect; its last few show the register's value."""

    def __str__(self) -> str:
        before = "\n".join(f"    {operation}" for operation in self.explained[-5:])
        stuck = "\n".join(f"    {operation}" for operation in self.stuck)
        return (
            f"register {self.register} is not linearizable\n  after {len(self.explained)} operations, the last being\n"
            f"{before}\n  none of these can be next\n{stuck}"
        )


class TooHard(Exception):
    """The search was given up: too many operations at once, or too many of the same value with unknown outcome."""


def check(history: Iterable[Operation], initial: str | None = None) -> Violation | None:
    """The first violation by name of register, or None when the history is linearizable. Raises `TooHard`."""
    registers: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.result is not Result.FAIL:
            registers[operation.register].append(operation)
    for register in sorted(registers):
        found = _check_register(registers[register], initial)
        if found is not None:
            return found
    return None


# --- operations of unknown outcome ---------------------------------------------------------------------------------
def _settle(operations: Sequence[Operation], initial: str | None) -> list[Operation]:
    """The operations that the search needs, those of unknown outcome decided where values decide it.

    A read of unknown outcome says nothing. Where one operation alone can have written a value: it took effect before
    the end of whatever certainly saw the value; and where nothing certain saw it, leaving it out changes nothing.
    """
    known = [operation for operation in operations if operation.result is Result.OK]
    unknown = [item for item in operations if item.result is Result.UNKNOWN and item.kind is not Kind.READ]
    writers = Counter(operation.value for operation in operations if operation.kind is not Kind.READ)
    writers[initial] += 1
    seen: dict[str | None, float] = {}
    for operation in known:
        _see(seen, operation)
    while True:
        open_ones: list[Operation] = []
        for operation in unknown:
            if writers[operation.value] == 1 and operation.value in seen:
                settled = evolve(operation, end=max(seen[operation.value], operation.start), result=Result.OK)
                _see(seen, settled)
                known.append(settled)
            else:
                open_ones.append(operation)
        if len(open_ones) == len(unknown):
            break
        unknown = open_ones
    wanted = {item.value for item in unknown if writers[item.value] > 1}
    if not wanted:
        return known
    # Values that several may have written: kept, to take effect at any time or never.
    return known + [evolve(operation, end=inf) for operation in unknown]


def _see(seen: dict[str | None, float], operation: Operation) -> None:
    if operation.kind is not Kind.WRITE:
        value = operation.value if operation.kind is Kind.READ else operation.expected
        seen[value] = min(seen.get(value, inf), operation.end)


# --- the search ----------------------------------------------------------------------------------------------------
def _check_register(operations: Sequence[Operation], initial: str | None) -> Violation | None:
    ordered = sorted(_settle(operations, initial), key=lambda item: (item.start, item.end))
    return _Search(ordered).run(initial)


@frozen
class _Place:
    """How far an explanation has come: all before `low` took effect, and of the others those in `mask` (bit 0 is `low`)."""

    low: int
    mask: int
    value: str | None


class _Search:
    """Depth first over which operation takes effect next; a place that was left once is not tried again."""

    def __init__(self, ordered: Sequence[Operation]) -> None:
        self._ordered = ordered
        self._certain = sum(operation.result is Result.OK for operation in ordered)
        self._path: list[Operation] = []
        self._best: list[Operation] = []
        self._best_stuck: list[Operation] = []

    def run(self, initial: str | None) -> Violation | None:
        """None when all that is certain can be put in order."""
        place = _Place(0, 0, initial)
        tried = {place}
        stack = [(self._choices(place), 0)]
        steps = done = 0
        while done < self._certain:
            steps += 1
            if steps > STEPS_MAX:
                raise TooHard(f"{len(self._ordered)} operations on {self._ordered[0].register}: {STEPS_MAX} steps")
            choices, _ = stack[-1]
            if not choices:
                stack.pop()
                if not stack:
                    return Violation(self._ordered[0].register, tuple(self._best_stuck), tuple(self._best))
                done -= self._path.pop().result is Result.OK
                continue
            at, following = choices.pop()
            if following in tried:
                continue
            tried.add(following)
            self._path.append(self._ordered[at])
            done += self._ordered[at].result is Result.OK
            stack.append((self._choices(following), at))
        return None

    def _choices(self, place: _Place) -> list[tuple[int, _Place]]:
        """What may take effect next, the one to try first at the end. A read that fits now can as well be now: it alone."""
        candidates = self._candidates(place)
        fitting: list[tuple[int, _Place]] = []
        for at in candidates:
            operation = self._ordered[at]
            if operation.kind is Kind.READ:
                if operation.value == place.value:
                    return [(at, _taken(place, at, place.value))]
            elif operation.kind is Kind.WRITE or operation.expected == place.value:
                fitting.append((at, _taken(place, at, operation.value)))
        if not fitting and len(self._path) >= len(self._best):
            self._best, self._best_stuck = list(self._path), [self._ordered[at] for at in candidates]
        fitting.sort(key=lambda choice: -self._ordered[choice[0]].end)
        return fitting

    def _candidates(self, place: _Place) -> list[int]:
        """Operations that began before the first of those that are left ended."""
        found: list[int] = []
        first_end = inf
        mask = place.mask
        for at in range(place.low, len(self._ordered)):
            operation = self._ordered[at]
            if operation.start > first_end:
                break
            if not mask & 1:
                found.append(at)
                first_end = min(first_end, operation.end)
            mask >>= 1
        return [at for at in found if self._ordered[at].start <= first_end]


def _taken(place: _Place, at: int, value: str | None) -> _Place:
    low, mask = place.low, place.mask | 1 << (at - place.low)
    while mask & 1:
        low, mask = low + 1, mask >> 1
    return _Place(low, mask, value)
