"""What does the leader pay for its agents? Heartbeats, shares and status reports, without wire, Raft and disk.

`python -m benchmarks.dispatcher`: the actor over a store without Raft, real clock. Each line is the median of the rounds and the
worst of them. The ratio says whether a change costs more when more agents listen (it should not: 1.0).

Then what all heartbeats cost the leader as the cluster grows: the period that agents are given, and the share of a core that
their heartbeats take there, of the dispatcher alone as measured here and of the whole way as the period reckons with it. The
bar: no more than 2 %, however many nodes.
"""

from __future__ import annotations

import gc
import statistics
import time
from contextlib import AsyncExitStack

import trio

from swarm.actors.dispatcher import Dispatcher
from swarm.model.changes import Change, Create
from swarm.model.ids import ClusterId, NodeId, RevisionNumber, ServiceId, TaskId, Version
from swarm.model.objects import Cluster, Node, Revision, Service, Task, TaskStatus
from swarm.model.specs import ClusterSettings, NodeDescription, ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.model.store import Store
from swarm.plan.liveness import HEARTBEAT_COST_S, period_for
from swarm.ports.clock import SystemClock
from swarm.ports.entropy import SystemEntropy
from swarm.runtime.local import LocalRef
from swarm.runtime.ref import Caller, Inlet
from swarm.runtime.scope import open_scope
from swarm.testing.local_store import LocalStoreActor, Replay
from swarm.wire.messages.dispatcher import (
    Assignments,
    Heartbeat,
    OpenSession,
    ReportStatus,
    SessionItem,
    SessionOpened,
    TaskReport,
)

ROUNDS = 5
BEATS = 5_000
TASKS = 5_000
SIZES = (10, 100, 400, 1_000, 10_000, 100_000)
PERIOD_S = ClusterSettings().heartbeat_period_s
SPEC = ServiceSpec("web", TaskSpec(ProcessSpec(("true",))))
SERVICE = Service(ServiceId("s"), SPEC)
RUNNING = TaskStatus(TaskState.RUNNING)


class Agents:
    """A leader with `count` open sessions."""

    def __init__(self, count: int) -> None:
        self.nodes = [NodeId(f"n{number}") for number in range(count)]
        self.sessions: list[tuple[Caller, str, Inlet[SessionItem]]] = []
        self.store = Store()
        base: list[Change] = [
            Create(Cluster(ClusterId("c"))),
            Create(SERVICE),
            Create(Revision(SERVICE.id, RevisionNumber(1), SPEC)),
        ]
        self.store.apply([(*base, *(Create(Node(id)) for id in self.nodes))], Version(1))

    async def open(self, stack: AsyncExitStack) -> None:
        """Start the actors and register everybody."""
        scope = await stack.enter_async_context(open_scope("bench"))
        self.store_ref = await scope.start("store", lambda: LocalStoreActor(self.store))
        self.ref: LocalRef = await scope.start(
            "dispatcher", lambda: Dispatcher(self.store_ref, SystemClock(), SystemEntropy())
        )
        for id in self.nodes:
            caller = Caller(id, "worker", "c", "10.0.0.1:1")
            stream = self.ref.stream(OpenSession(NodeDescription(hostname=id)), window=1024, caller=caller)
            inlet = await stack.enter_async_context(stream)
            opened = await inlet.receive()
            assert isinstance(opened, SessionOpened)
            for _ in range(2):
                await inlet.receive()
            self.sessions.append((caller, opened.session_id, inlet))

    async def beats(self) -> float:
        """Seconds for one heartbeat, asked and answered."""
        began = time.perf_counter()
        for number in range(BEATS):
            caller, session_id, _ = self.sessions[number % len(self.sessions)]
            await self.ref.ask(Heartbeat(session_id), timeout_s=10, caller=caller)
        return (time.perf_counter() - began) / BEATS

    async def share(self, round: int) -> float:
        """Seconds for one new task, from its commit until its agent has been told; all in one commit, over 100 agents."""
        names = self.nodes[:100]
        tasks = [
            Task(TaskId(f"t{round}.{n}"), SERVICE.id, RevisionNumber(1), node_id=names[n % 100],
                 status=TaskStatus(TaskState.ASSIGNED))
            for n in range(TASKS)
        ]  # fmt: skip
        began = time.perf_counter()
        await self.store_ref.ask(Replay(tuple(Create(task) for task in tasks)), timeout_s=60)
        for _, _, inlet in self.sessions[:100]:
            told = 0
            while told < TASKS // 100:
                item = await inlet.receive()
                assert isinstance(item, Assignments)
                told += len(item.tasks)
        return (time.perf_counter() - began) / TASKS

    async def reports(self, round: int) -> float:
        """Seconds for one status, from the report until the answer; 100 agents at once, each with its tasks one by one."""
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(self._report, number, round)
        return (time.perf_counter() - began) / TASKS

    async def _report(self, number: int, round: int) -> None:
        caller, session_id, _ = self.sessions[number]
        for n in range(number, TASKS, 100):
            report = TaskReport(TaskId(f"t{round}.{n}"), RUNNING)
            await self.ref.ask(ReportStatus(session_id, (report,)), timeout_s=60, caller=caller)


async def measure(count: int) -> dict[str, list[float]]:
    """All figures of `count` agents, one value a round."""
    found: dict[str, list[float]] = {"heartbeat": [], "task told": [], "status": []}
    async with AsyncExitStack() as stack:
        agents = Agents(count)
        await agents.open(stack)
        await agents.beats()
        for round in range(ROUNDS):
            gc.collect()
            found["heartbeat"].append(await agents.beats())
            found["task told"].append(await agents.share(round))
            found["status"].append(await agents.reports(round))
    return found


def main() -> None:
    """Print the table."""
    few, many = trio.run(measure, 100), trio.run(measure, 1000)
    print(f"{'':12}{'100 agents':>24}{'1,000 agents':>24}{'ratio':>8}")
    for name in few:
        cells = [
            f"{statistics.median(side[name]) * 1e6:8.1f} us (max {max(side[name]) * 1e6:6.1f})" for side in (few, many)
        ]
        ratio = statistics.median(many[name]) / statistics.median(few[name])
        print(f"{name:12}{cells[0]:>24}{cells[1]:>24}{ratio:8.2f}")
    beat_s = statistics.median(many["heartbeat"])
    print(f"\n{'nodes':>8}{'period, s':>12}{'heartbeats/s':>14}{'dispatcher':>12}{'whole way':>11}   % of a core")
    for nodes in SIZES:
        period_s = period_for(PERIOD_S, nodes)
        shares = [100 * nodes / period_s * cost_s for cost_s in (beat_s, HEARTBEAT_COST_S)]
        print(f"{nodes:8}{period_s:12.1f}{nodes / period_s:14.1f}{shares[0]:12.2f}{shares[1]:11.2f}")


if __name__ == "__main__":
    main()
