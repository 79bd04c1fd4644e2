"""Majorities: what a set of voters has acknowledged, and how its vote stands. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum

from attrs import frozen

from swarm.raft.messages import RaftId


class VoteResult(Enum):
    """How a vote stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"
    """A majority can no longer be reached."""


def majority(voters: int) -> int:
    """How many of `voters` members are a majority."""
    return voters // 2 + 1


def acknowledged(reached: Iterable[int]) -> int:
    """The largest number that a majority of the voters has reached, given how far each one is; 0 without voters."""
    numbers = sorted(reached)
    return numbers[(len(numbers) - 1) // 2] if numbers else 0


def tally(voters: Collection[RaftId], votes: Mapping[RaftId, bool]) -> VoteResult:
    """How the vote among `voters` stands; votes of others do not count. Nobody wins without voters."""
    needed = majority(len(voters))
    cast = [votes[voter] for voter in voters if voter in votes]
    granted = sum(cast)
    if granted >= needed:
        return VoteResult.WON
    missing = len(voters) - len(cast)
    return VoteResult.PENDING if granted + missing >= needed else VoteResult.LOST


def is_active(voters: Collection[RaftId], active: Callable[[RaftId], bool]) -> bool:
    """Whether a majority of `voters` is active."""
    return sum(map(active, voters)) >= majority(len(voters))


@frozen
class Removal:
    """What would be left after a voter is taken out."""

    voters: int
    """Before."""
    reachable: int
    """Before, the one that is to go included if it is."""
    left: int
    """Reachable voters after."""
    needed: int
    """A majority after."""

    @property
    def keeps_quorum(self) -> bool:
        """Whether those that are left can go on."""
        return self.left >= self.needed


def removal(voters: Collection[RaftId], reachable: Collection[RaftId], target: RaftId) -> Removal:
    """The arithmetic of taking `target` out of `voters`. A member that is no voter changes nothing."""
    live = set(voters) & set(reachable)
    others = set(voters) - {target}
    return Removal(len(set(voters)), len(live), len(live & others), majority(len(others)) if others else 1)
