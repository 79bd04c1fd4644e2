"""Majorities: what a set of voters has acknowledged, and how its vote stands. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum

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


def acknowledged(voters: Collection[RaftId], acked: Callable[[RaftId], int]) -> int:
    """The largest number that a majority of `voters` has reached; 0 without voters."""
    if not voters:
        return 0
    numbers = sorted([acked(voter) for voter in voters], reverse=True)
    return numbers[majority(len(numbers)) - 1]


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
