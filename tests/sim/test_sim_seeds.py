"""The short form of `python -m tests.sim`: a few seeds, those that failed once, and one twice. SWARM_SIM_SEEDS=N runs more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from swarm.testing.sim_machine import Level
from swarm.testing.world import World, run_world
from tests.sim.runner import Setting, Totals, run_seeds
from tests.sim.storm import Storm

SEEDS_FILE = Path(__file__).parent / "seeds.txt"
SEEDS = int(os.environ.get("SWARM_SIM_SEEDS", "2"))
MINUTES = 1.0

pytestmark = pytest.mark.timeout(300)


def failed_once() -> list[tuple[str, int, int, float]]:
    """Seed, managers, workers, minutes of each line that is no comment."""
    rows = []
    for line in SEEDS_FILE.read_text().splitlines():
        if line and not line.startswith("#"):
            seed, nodes, minutes = line.split()[:3]
            managers, workers = (int(part) for part in nodes.split(","))
            rows.append((seed, managers, workers, float(minutes)))
    return rows


@pytest.mark.parametrize("seed", [str(number) for number in range(1, SEEDS + 1)])
def test_a_cluster_survives_a_random_story(seed: str) -> None:
    outcome = run_world(seed, Storm(3, 2, MINUTES))
    assert outcome.violations == [], f"replay: python -m tests.sim {seed} --nodes 3,2 --minutes {MINUTES:g}"
    assert outcome.probes.get("operations judged", 0) > 10


@pytest.mark.parametrize(("seed", "managers", "workers", "minutes"), failed_once())
def test_a_seed_that_failed_once_passes(seed: str, managers: int, workers: int, minutes: float) -> None:
    assert run_world(seed, Storm(managers, workers, minutes)).violations == []


def test_the_same_seed_gives_the_same_schedule() -> None:
    runs = [run_world("twin", Storm(2, 1, 0.25)) for _ in range(2)]
    assert runs[0].violations == []
    assert runs[0].hash == runs[1].hash
    assert runs[0].hash != run_world("other", Storm(2, 1, 0.25)).hash


@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_cluster_survives_a_random_story_over_real_tls_and_websockets(seed: str) -> None:
    outcome = run_world(seed, Storm(3, 1, 0.5), level=Level.BYTES)
    assert outcome.violations == [], f"replay: python -m tests.sim {seed} --nodes 3,1 --minutes 0.5 --level bytes"


def test_the_same_seed_gives_the_same_schedule_over_real_tls_too() -> None:
    runs = [run_world("twin", Storm(1, 1, 0.1), level=Level.BYTES) for _ in range(2)]
    assert runs[0].violations == []
    assert runs[0].hash == runs[1].hash


def test_the_totals_do_not_depend_on_how_many_processes_shared_the_seeds() -> None:
    setting, seeds = Setting(1, 1, 0.02), ["31", "32", "33"]
    told: list[str] = []
    alone, shared = (run_seeds(setting, seeds, jobs, lambda outcome: told.append(outcome.seed)) for jobs in (1, 2))
    assert sorted(told) == sorted(2 * seeds)
    assert alone.lines(0.0)[0] == shared.lines(0.0)[0]
    assert [line.rpartition(", ")[2] for line in alone.lines(0)] == [
        line.rpartition(", ")[2] for line in shared.lines(0)
    ]
    assert alone.failed == []


def test_a_seed_that_fails_is_counted_wherever_it_ran() -> None:
    outcome = Setting(1, 0, 0.01).run("1")
    outcome.violations.append("at 1.000 s: planted")
    totals = Totals()
    totals.add(outcome)
    assert totals.failed == ["1"]
    assert "1 seeds, 1 failed" in totals.lines(1.0)[0]


def test_a_daemon_whose_stop_is_under_way_when_the_faults_end_is_started_again() -> None:
    """Seed 20313 at a741734: nobody started it, and the world waited for it in vain."""

    async def story(world: World) -> None:
        await world.boot(1, 1)
        with trio.move_on_after(0.0):
            await world.stop("w1")
        assert world.nodes["w1"].is_up
        await Storm()._heal(world)
        await world.converge(60)

    assert run_world("stopping", story).violations == []
