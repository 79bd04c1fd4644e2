"""Who waits for what of a Raft member: proposals until they are handed over, reads for their index.

A proposal's place in the log tells its fate for certain: committed there in its own term, it is done; another term's entry
there, and it never will be. A waiter is answered once, and no more than a bounded time after leadership was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from attrs import define, field

from swarm.raft.errors import (
    ChangePending,
    ChangeRefused,
    EntryTooLarge,
    NotLeader,
    NoTransferTarget,
    RaftError,
    StaleTerm,
)
from swarm.raft.messages import Entry, Index, Term
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.turn import Later


@define
class Proposals:
    """Waiting proposals by the index that they hope for.

    `Any`: proposals are answered with their index, membership changes with None.
    """

    _by_index: dict[Index, tuple[Term, Later[Any], bool]] = field(factory=dict)

    def __len__(self) -> int:
        return len(self._by_index)

    def add(self, index: Index, term: Term, later: Later[int]) -> None:
        """Answer `later` with the index when it is handed over."""
        self._add(index, term, later, with_index=True)

    def add_change(self, index: Index, term: Term, later: Later[None]) -> None:
        """Answer `later` when the membership change at `index` is committed."""
        self._add(index, term, later, with_index=False)

    def _add(self, index: Index, term: Term, later: Later[Any], *, with_index: bool) -> None:
        before = self._by_index.get(index)
        if before is not None:
            # A leader's log holds all that was committed: what an earlier term had at its end and it has not, never will be.
            before[1].fail(never_committed())
        self._by_index[index] = (term, later, with_index)

    def settle(self, entries: Iterable[Entry]) -> None:
        """These were committed and handed over."""
        by_index = self._by_index
        if not by_index:
            return
        for entry in entries:
            found = by_index.pop(entry.index, None)
            if found is None:
                continue
            term, later, with_index = found
            if term != entry.term:
                later.fail(never_committed())
            else:
                later.answer(entry.index if with_index else None)

    def passed(self, through: Index) -> None:
        """A snapshot stands for everything through there: what became of single entries is not known any more."""
        for index in [index for index in self._by_index if index <= through]:
            self._by_index.pop(index)[1].fail(outcome_unknown())

    def give_up(self) -> None:
        """Nobody will tell soon."""
        waiting, self._by_index = self._by_index, {}
        for _, later, _ in waiting.values():
            later.fail(outcome_unknown())


@define
class Read:
    """A read that waits for its index."""

    later: Later[int]
    asked_at: float
    """When it came."""
    sent_at: float | None = None
    """When the leader was asked; None: there was none to ask."""


@define
class Reads:
    """Waiting reads by context."""

    _waiting: dict[int, Read] = field(factory=dict)
    _next: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, later: Later[int], now: float) -> int:
        """A new read; its context."""
        self._next += 1
        context = self._next
        self._waiting[context] = Read(later, now)
        later.on_cancel(lambda: self._waiting.pop(context, None))
        return context

    def answer(self, context: int, index: Index) -> None:
        """The index came."""
        read = self._waiting.pop(context, None)
        if read is not None:
            read.later.answer(index)

    def sent(self, context: int, now: float) -> None:
        """The leader was asked."""
        self._waiting[context].sent_at = now

    def unsent(self, context: int) -> None:
        """The leader was lost; to be asked again."""
        read = self._waiting.get(context)
        if read is not None:
            read.sent_at = None

    def items(self) -> Iterator[tuple[int, Read]]:
        """All that wait, oldest first."""
        yield from list(self._waiting.items())

    def fail(self, context: int, error: SwarmError) -> None:
        """Give one up."""
        read = self._waiting.pop(context, None)
        if read is not None:
            read.later.fail(error)


def outcome_unknown() -> SwarmError:
    """Leadership was lost, and nobody told what became of the proposal."""
    return SwarmError(
        ErrorCode.UNAVAILABLE,
        "leadership was lost before the change was committed; whether it will be is not known: look before repeating it",
    )


def never_committed() -> SwarmError:
    """Another term's entry took the proposal's place."""
    return SwarmError(
        ErrorCode.UNAVAILABLE, "leadership was lost and the change was not committed; repeating it is safe"
    )


def no_leader() -> SwarmError:
    """Nobody leads for a while now."""
    return SwarmError(
        ErrorCode.UNAVAILABLE,
        "no leader is known: too few managers reach each other; `swarm status` on each shows which ones are missing",
    )


def refusal(error: RaftError, leader_address: str) -> SwarmError:
    """The core's refusal as callers get it."""
    text = str(error)
    if isinstance(error, NotLeader):
        details = {"leader": leader_address} if leader_address else {}
        return SwarmError(ErrorCode.NOT_LEADER, f"this manager does not lead: {text}", details)
    if isinstance(error, StaleTerm):
        return SwarmError(ErrorCode.NOT_LEADER, f"refused, another term has begun: {text}")
    if isinstance(error, EntryTooLarge):
        return SwarmError(ErrorCode.INVALID, f"{text}; split the change")
    if isinstance(error, ChangePending | ChangeRefused | NoTransferTarget):
        return SwarmError(ErrorCode.PRECONDITION, text)
    return SwarmError(ErrorCode.UNAVAILABLE, f"{text}; try again")
