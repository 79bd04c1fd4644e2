"""Proposals on their way: cut into entries of bounded size, found again when an entry comes back, answered once.

A proposal's groups are independent of each other, so that a large one may become several entries, in order: each is encoded,
stored and applied in bounded time. An entry begins with a number that only this store in this life uses; on the member that
proposed it, the groups behind the number are applied without decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from swarm.model.change_codec import encode_groups
from swarm.model.changes import Group, GroupResult
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.turn import Later

ENTRY_CHANGES = 500
"""Changes in one entry: encoded in 1 ms, applied in 2, however large the batch that a planner proposes."""
ENTRY_BYTES_MAX = 3 << 19
"""1.5 MiB in one entry, which a single group must fit into: every member holds many of them in memory, and a link must not be
busy with one for long."""
LIFE_BYTES = 8
NUMBER_BYTES = LIFE_BYTES + 8
"""An entry's number: random bytes of this store's life, then a count."""

Results = tuple[GroupResult, ...]


class TooLarge(Exception):
    """One group alone does not fit into an entry."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes")
        self.size_bytes = size_bytes


@define(eq=False)
class Proposal:
    """One `ProposeChanges` until it is answered."""

    groups: Sequence[Group]
    term: int | None
    later: Later[Results]
    sent: int = 0
    """How many of the groups are in entries already."""
    entries: int = 0
    """Entries that were sent."""
    results: list[GroupResult] = field(factory=list)

    def applied(self, results: Sequence[GroupResult]) -> None:
        """The next entry was applied; entries of one proposal are applied in order."""
        self.results += results
        if len(self.results) == len(self.groups):
            self.later.answer(tuple(self.results))

    def failed(self, error: SwarmError) -> None:
        """One entry will not, or may not, be applied: the rest is not sent any more."""
        self.sent = len(self.groups)
        if self.entries > 1 or self.results:
            text = f"only a part of the change may have been committed: {error.text}"
            error = SwarmError(ErrorCode.UNAVAILABLE, text, error.details)
        self.later.fail(error)


class Proposals:
    """All that were proposed here and are not applied yet, by the number of their entry."""

    def __init__(self, life: bytes) -> None:
        self._life = life
        self._count = 0
        self._waiting: dict[bytes, tuple[Proposal, Sequence[Group]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def next_entry(self, proposal: Proposal) -> tuple[bytes, bytes]:
        """The number and the bytes of the proposal's next entry; TooLarge when its first group fills more than one."""
        groups, data = _cut(proposal.groups, proposal.sent)
        self._count += 1
        number = self._life + self._count.to_bytes(NUMBER_BYTES - LIFE_BYTES, "big")
        self._waiting[number] = (proposal, groups)
        proposal.sent += len(groups)
        proposal.entries += 1
        return number, number + data

    def take(self, number: bytes) -> tuple[Proposal, Sequence[Group]] | None:
        """What is behind an entry that came back or failed; None for another member's and for one that was given up."""
        return self._waiting.pop(number, None)

    def fail_all(self, error: Callable[[], SwarmError]) -> None:
        """Nobody will learn what became of them."""
        waiting, self._waiting = self._waiting, {}
        for proposal, _ in waiting.values():
            proposal.failed(error())


def _cut(groups: Sequence[Group], start: int) -> tuple[Sequence[Group], bytes]:
    """The longest bounded run of groups from `start` on, and its bytes."""
    end, changes = start, 0
    while end < len(groups) and (end == start or changes + len(groups[end]) <= ENTRY_CHANGES):
        changes += len(groups[end])
        end += 1
    while True:
        chosen = groups[start:end]
        data = encode_groups(chosen)
        if len(data) <= ENTRY_BYTES_MAX:
            return chosen, data
        if len(chosen) == 1:
            raise TooLarge(len(data))
        end = start + max(1, len(chosen) * ENTRY_BYTES_MAX // (2 * len(data)))
