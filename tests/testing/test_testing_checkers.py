"""The checkers see what must not be, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from swarm.ports.entropy import SeededEntropy
from swarm.raft.codec import encode
from swarm.raft.messages import AppendReply, Entry, EntryKind, HardState, VoteReply
from swarm.testing.checkers import Checkers
from swarm.testing.executor import Script, SimulatedMachine
from swarm.testing.sim_machine import SimClock, SimMachine


def machine(name: str) -> SimMachine:
    clock = SimClock()
    return SimMachine(name, SeededEntropy(name), SimulatedMachine(script=lambda _: Script(), clock=clock), clock)


def member(id: int, term: int, *, leads: bool, last: int, commit: int) -> Any:
    log = SimpleNamespace(last_index=last, commit=commit, term_at=lambda index: 1)
    return SimpleNamespace(_state=SimpleNamespace(id=id, log=log), term=term, is_leader=leads)


async def test_a_leader_lacks_nothing_that_was_committed_before_its_term() -> None:
    checkers = Checkers()
    checkers.raft_turn(machine("m1"), "m1", member(1, 2, leads=True, last=43, commit=43))
    checkers.raft_turn(machine("m2"), "m2", member(2, 3, leads=True, last=42, commit=42))
    assert "leads term 3 with a log that ends at 42, and 43 was committed before" in checkers.violations[0]


async def test_a_leader_of_a_term_that_is_over_may_lack_what_came_after_it() -> None:
    """Seed 20573 at 04adc03: votes of term 3 came after term 4 had committed an entry."""
    checkers = Checkers()
    checkers.raft_turn(machine("m2"), "m2", member(2, 4, leads=True, last=43, commit=43))
    checkers.raft_turn(machine("m3"), "m3", member(3, 3, leads=True, last=42, commit=41))
    assert checkers.violations == []


@pytest.mark.parametrize("erased", [False, True])
async def test_a_vote_is_on_the_disk_unless_the_disk_was_erased_since(erased: bool) -> None:
    """Seed 20391 at c92b357: a vote was under way when its giver was demoted, which erases its log."""
    checkers, giver = Checkers(), machine("m1")
    checkers.raft_turn(giver, "m1", member(1, 3, leads=False, last=0, commit=0))
    giver.log.hard_state = HardState(3, 2, 0)
    if erased:
        await giver.log.erase()
    else:
        giver.log.hard_state = HardState(3, 0, 0)
    checkers.raft_messages([encode(VoteReply(2, 1, 3, True))], to=2)  # type: ignore[arg-type]
    assert bool(checkers.violations) is not erased


@pytest.mark.parametrize("led", [2, 3])
async def test_a_member_begins_with_what_it_acknowledged_and_was_committed(led: int) -> None:
    """What only a later term committed at that place may be another entry, and the log shorter for a while."""
    checkers, giver = Checkers(), machine("m1")
    giver.log.hard_state = HardState(2, 0, 0)
    giver.log.entries = [Entry(index, 2, EntryKind.EMPTY, b"") for index in range(1, 43)]  # type: ignore[arg-type]
    checkers.raft_turn(giver, "m1/1", member(1, 2, leads=False, last=42, commit=40))
    checkers.raft_messages([encode(AppendReply(2, 1, 2, 42))], to=2)  # type: ignore[arg-type]
    checkers.raft_turn(machine("m2"), "m2", member(2, led, leads=True, last=42, commit=42))
    checkers.raft_turn(giver, "m1/2", member(1, 2, leads=False, last=41, commit=0))
    found = [
        "begins with a log that ends at 41; it had acknowledged 42, and 42 was committed" in it
        for it in checkers.violations
    ]
    assert found == ([True] if led == 2 else [])
