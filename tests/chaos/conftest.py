"""How long, and from which seed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from chaos_cluster import ChaosCluster, chaos_cluster

DEFAULT_SECONDS = 25.0
"""In CI's short form."""
DEFAULT_SEED = 1


@pytest.fixture
def chaos_seconds(request: pytest.FixtureRequest) -> float:
    """For how long faults are drawn: `--chaos-minutes`, else SWARM_CHAOS_MINUTES, else the short form."""
    minutes = request.config.getoption("--chaos-minutes") or os.environ.get("SWARM_CHAOS_MINUTES")
    return float(minutes) * 60.0 if minutes else DEFAULT_SECONDS


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest) -> int:
    """`--chaos-seed`, else SWARM_CHAOS_SEED, else always the same."""
    return int(request.config.getoption("--chaos-seed") or os.environ.get("SWARM_CHAOS_SEED") or DEFAULT_SEED)


@pytest.fixture(scope="session", autouse=True)
def cleans_up_when_terminated() -> Iterator[None]:
    """SIGTERM, as from a CI's time-out, ends the run as Ctrl-C does: daemons, namespaces and mounts are removed first."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Say a line to whoever watches the run, whatever pytest captures."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\nchaos: {text}", end="", file=sys.stderr, flush=True)

    return say


@pytest.fixture(scope="session")
def three() -> Iterator[ChaosCluster]:
    """Three managers, the last on a small disk, for tests that leave them as they were."""
    with chaos_cluster(managers=3, workers=0, small_disks=1) as found:
        yield found
