"""What the orchestrators cost for one large service: how long they plan in sum, and how long their longest turn is.

One replicated service on a hundredth as many nodes is created, placed, started, loses a task, is updated in twenty steps,
loses a node, gets a new leader, is scaled to half and removed, in memory, with the real planners and scheduler; agents do at
once what they are told. A turn is one call of a planner, without the application of what it planned.

    python -m benchmarks.orchestration [--tasks 10000]

Units: seconds on the wall for the whole step, seconds and milliseconds in the planner.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from time import perf_counter
from typing import Any

from attrs import evolve

from swarm.actors.daemon import GC_THRESHOLDS
from swarm.model.changes import Advance, Change, Create, Delete, Kind, Update
from swarm.model.events import Event
from swarm.model.ids import ClusterId, Ids, Instant, NodeId, RevisionNumber, ServiceId, id_from_bytes
from swarm.model.objects import Cluster, Node, NodeStatus, Revision, Service, Task, TaskStatus
from swarm.model.snapshot import Snapshot
from swarm.model.specs import NodeDescription, ProcessSpec, Replicated, ServiceSpec, TaskSpec, UpdateConfig
from swarm.model.states import NodeState, TaskState
from swarm.model.store import Store
from swarm.plan.base import Plan, Planner
from swarm.plan.reap import Reaper
from swarm.plan.rehearsal import Rehearsal
from swarm.plan.replicated import ReplicatedPlanner
from swarm.plan.schedule.planner import Scheduler

SEED = 20_240_801
BATCH = 1_000
SERVICE = ServiceId("0" * 25)


class SeededIds:
    """Ids from a seed."""

    def __init__(self) -> None:
        self._random = random.Random(SEED)

    def new(self) -> str:
        """The next one."""
        return id_from_bytes(self._random.randbytes(17))


class Timed:
    """A planner whose calls are timed."""

    def __init__(self, planner: Planner[Any], turns: dict[str, list[float]]) -> None:
        self.name, self.slice_keys = planner.name, planner.slice_keys
        self._planner, self._turns = planner, turns

    def start(self, view: Snapshot) -> tuple[Any, Iterable[str]]:
        """As the planner."""
        return self._planner.start(view)

    def dirty(self, event: Event, memory: Any) -> Iterable[str]:
        """As the planner."""
        return self._planner.dirty(event, memory)

    def plan(self, view: Snapshot, keys: Collection[str], memory: Any, now: Instant, ids: Ids) -> Plan[Any]:
        """As the planner, timed."""
        began = perf_counter()
        plan = self._planner.plan(view, keys, memory, now, ids)
        self._turns[self.name].append(perf_counter() - began)
        return plan


class Bench:
    """The store, the planners and the agents."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.turns: dict[str, list[float]] = defaultdict(list)
        planners = [Timed(planner, self.turns) for planner in (ReplicatedPlanner(), Reaper(), Scheduler())]
        self.rehearsal = Rehearsal(Store(), planners, Instant(1_700_000_000.0), SeededIds())
        self.store = self.rehearsal.store
        self.commit(Create(Cluster(ClusterId("c"))))
        for number in range(max(10, tasks // 100)):
            description = NodeDescription(f"n{number}", executors=("process",))
            status = NodeStatus(NodeState.READY, since=self.rehearsal.now)
            self.commit(Create(Node(NodeId(f"{number:025}"), description=description, status=status)))
        self.rehearsal.settle()

    def commit(self, *changes: Change) -> None:
        """One group; it must not be refused."""
        results, _ = self.rehearsal.commit([changes])
        assert results == [None], results

    def run(self) -> None:
        """Until planners and agents are at rest at this instant."""
        while True:
            self.rehearsal.settle()
            moves = [move for task in self.store.tasks() if (move := self._move(task)) is not None]
            for start in range(0, len(moves), BATCH):
                self.rehearsal.commit([(move,) for move in moves[start : start + BATCH]])
            if not moves:
                return

    def _move(self, task: Task) -> Advance | None:
        if not task.node_id or task.status.state.is_terminal:
            return None
        goal = TaskState.READY if task.desired is TaskState.READY else TaskState.RUNNING
        goal = goal if task.is_live else TaskState.SHUTDOWN
        if task.status.state >= goal:
            return None
        return Advance(task.id, status=TaskStatus(goal, at=self.rehearsal.now, applied_at=self.rehearsal.now))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.rehearsal.now = Instant(self.rehearsal.now + seconds)
        self.run()

    # --- steps -----------------------------------------------------------------------------------------------------
    def spec(self, replicas: int, version: str) -> ServiceSpec:
        """The service."""
        update = UpdateConfig(parallelism=max(1, self.tasks // 20), monitor_s=1.0)
        return ServiceSpec("web", TaskSpec(ProcessSpec(("web", version))), Replicated(replicas), update=update)

    def create(self) -> None:
        """Declared, made, placed, started."""
        spec = self.spec(self.tasks, "1")
        self.commit(Create(Service(SERVICE, spec)), Create(Revision(SERVICE, RevisionNumber(1), spec)))
        self.run()

    def fail(self) -> None:
        """One task fails."""
        task = next(iter(self.store.tasks()))
        status = TaskStatus(TaskState.FAILED, at=self.rehearsal.now, applied_at=self.rehearsal.now)
        self.commit(Advance(task.id, status=status))
        self.rehearsal.settle()

    def declare(self, spec: ServiceSpec) -> None:
        """A new revision."""
        service = self.store.service(SERVICE)
        assert service is not None
        number = RevisionNumber(service.revision + 1)
        after = evolve(service, spec=spec, revision=number, previous=service.revision, update_status=None)
        self.commit(Create(Revision(SERVICE, number, spec)), Update(after))
        self.run()

    def update(self) -> None:
        """Every task is replaced, a twentieth at a time."""
        self.declare(self.spec(self.tasks, "2"))
        self.wait(2)

    def lose_node(self) -> None:
        """A node is declared down."""
        node = next(iter(self.store.nodes()))
        self.commit(Update(evolve(node, status=NodeStatus(NodeState.DOWN, since=self.rehearsal.now))))
        self.run()

    def new_leader(self) -> None:
        """Everything is looked at, nothing changes."""
        version = self.store.version
        self.rehearsal.new_leader()
        self.run()
        assert self.store.version == version, "a new leader changed something"

    def halve(self) -> None:
        """Scaled to half."""
        self.declare(self.spec(self.tasks // 2, "2"))

    def remove(self) -> None:
        """Removed, stopped, forgotten."""
        self.commit(Delete(Kind.SERVICE, SERVICE))
        self.run()
        assert not len(self.store.tasks()), "tasks were left"


def measure(name: str, bench: Bench, step: Callable[[], None]) -> None:
    """Run a step and print what it took."""
    bench.turns.clear()
    began = perf_counter()
    step()
    wall_s = perf_counter() - began
    row = [f"{name:12} {wall_s:8.2f} s"]
    for planner in ("replicated", "reap"):
        turns = sorted(bench.turns[planner]) or [0.0]
        p99 = turns[min(len(turns) - 1, int(len(turns) * 0.99))]
        row.append(
            f"{planner} {sum(turns):7.3f} s in {len(turns):5} turns, median {statistics.median(turns) * 1e3:6.2f}, "
            f"p99 {p99 * 1e3:7.2f}, worst {turns[-1] * 1e3:7.1f} ms"
        )
    print(" | ".join(row), flush=True)


def main() -> None:
    """One line a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    bench = Bench(parser.parse_args().tasks)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    for name in ("create", "fail", "update", "lose_node", "new_leader", "halve", "remove"):
        measure(name, bench, getattr(bench, name))
        if name == "fail":
            bench.wait(10)


if __name__ == "__main__":
    main()
