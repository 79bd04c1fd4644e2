"""What a leader runs: every planner, inside its scope, and nothing once that is left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import trio.testing

from swarm.actors import leader
from swarm.actors.context import ManagerContext
from swarm.model.changes import Create
from swarm.model.ids import ClusterId, Instant, NodeId, Version
from swarm.model.objects import Cluster, Node
from swarm.model.store import Store
from swarm.ports.entropy import SystemEntropy
from swarm.runtime.scope import open_scope
from swarm.testing.local_store import LocalStoreActor

PLANNERS = ("scheduler", "replicated", "global", "jobs", "enforce", "reap")


class TrioClock:
    def now(self) -> Instant:
        return Instant(1000.0 + trio.current_time())

    def monotonic(self) -> float:
        return trio.current_time()


async def test_every_planner_runs_in_the_leaders_scope(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 24.2: the reference's jobs orchestrator outlived the leadership, so that two could run."""
    monkeypatch.setattr(leader, "ACTORS", ())
    assert tuple(made().name for made in leader.PLANNERS) == PLANNERS
    store = Store()
    store.apply([(Create(Cluster(ClusterId("c"))), Create(Node(NodeId("n"))))], Version(1))
    async with open_scope("manager") as manager_scope:
        store_ref = await manager_scope.start("store", lambda: LocalStoreActor(store))
        state = SimpleNamespace(founding=lambda: None, founded=lambda: None)
        manager = SimpleNamespace(
            store=store_ref, clock=TrioClock(), entropy=SystemEntropy(), node_id="n", node=SimpleNamespace(state=state)
        )
        before = _tasks()
        async with open_scope("leader") as scope:
            await leader.run_leader(scope, cast(ManagerContext, manager), 7)
            await trio.sleep(5)
            running = {name for name in PLANNERS if any(f"leader/{name}" in task for task in _tasks())}
            assert running == set(PLANNERS)
        assert _tasks() == before


def _tasks() -> list[str]:
    """The names of all tasks of this run."""
    found: list[str] = []
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        assert task is not None
        found.append(task.name)
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return sorted(found)
