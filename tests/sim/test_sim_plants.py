"""Planted bugs are found: the quick ones here, all of them by `python -m tests.sim --plant all`."""

from __future__ import annotations

import pytest

from tests.sim.plants import PLANTS, STORIES, planted, seeds_to_find

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_every_plant_still_has_a_place_to_be_planted_in(name: str) -> None:
    with planted(name):
        pass


QUICK = (*STORIES, "acknowledged-before-durable", "double-slot", "follower-skips-an-entry")


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name: str) -> None:
    seeds, by = seeds_to_find(name, 3, 2, 1.0, first=1, seeds_max=3)
    assert seeds, "not found in 3 seeds"
    assert by
