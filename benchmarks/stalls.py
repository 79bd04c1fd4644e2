"""How long does the event loop of a leader stand still while 100,000 tasks are placed on 1,000 nodes? Milliseconds.

`python -m benchmarks.stalls [--services 1]`: a manager's own actors in one process, with the daemon's collector settings: the
real single Raft member on SQLite, the store, every planner in its control loop, the dispatcher with a session for each of the
nodes. A service of 100,000 replicas is created, or so many services that have as many between them; it is over when all of them
are assigned and every session has been told of its share. Not there: TLS and the websocket (1,000 links in one process would
measure the simulated workers).

- *loop*: lateness of a task that sleeps for 1 ms: everything that runs between two looks at the clock, not one turn alone.
  *busy*: the processor time of this thread alone, so without what other processes of a shared machine took meanwhile.
- *heartbeat*: from asking the dispatcher until its answer; each node asks twice in a heartbeat period.
- *late*: heartbeats that were answered later than a tenth of a period after they were sent, and nodes that were given up.
The bar: loop p99.9 under 25 ms, and no heartbeat late. The slowest single turns follow.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from swarm.actors.control_loop import ControlLoop
from swarm.actors.daemon import GC_THRESHOLDS, SWITCH_INTERVAL_S
from swarm.actors.dispatcher import Dispatcher
from swarm.actors.leader import PLANNERS
from swarm.actors.raft_member import RaftMember
from swarm.actors.raft_messages import Leadership, WatchLeadership
from swarm.actors.raft_start import MemberStart
from swarm.actors.store import StoreActor
from swarm.actors.store_messages import ProposeChanges, ReadBarrier
from swarm.model.changes import Create, Group
from swarm.model.ids import ClusterId, NodeId, RaftId, RevisionNumber, ServiceId
from swarm.model.objects import Cluster, Node, NodeStatus, Revision, Service
from swarm.model.specs import NodeDescription, ProcessSpec, Replicated, Resources, ServiceSpec, TaskSpec
from swarm.model.states import NodeState, TaskState
from swarm.ports.clock import SystemClock
from swarm.ports.entropy import SystemEntropy
from swarm.ports.net import DialError
from swarm.ports.sqlite_log_store import SqliteLogStore
from swarm.runtime.ref import Caller, Inlet, Ref
from swarm.runtime.scope import Scope, open_scope
from swarm.runtime.trace import Trace
from swarm.wire.messages.dispatcher import Assignments, Heartbeat, OpenSession, SessionItem, SessionOpened
from swarm.wire.messages.raft import Member

NODES = int(os.environ.get("SWARM_STALLS_NODES", "1000"))
TASKS = int(os.environ.get("SWARM_STALLS_TASKS", "100000"))
TICK_S = 0.001
HEARTBEAT_S = 2.5
LATE_S = 0.5
"""A tenth of the period of 5 s that agents are given by default: an answer that comes later is called late."""
PATIENCE_S = 600.0
SLOWEST = 8
SERVICES_A_PROPOSAL = 250


def declared(number: int, services: int) -> Group:
    """One of so many services, with its share of the tasks."""
    replicas = TASKS // services + (number < TASKS % services)
    spec = ServiceSpec(f"web-{number}", TaskSpec(ProcessSpec(("sleep", "600"))), Replicated(replicas))
    service = Service(ServiceId(f"s{number}"), spec)
    return Create(service), Create(Revision(service.id, RevisionNumber(1), spec))


class SlowTurns(Trace):
    """Remembers the slowest turn of each actor and message, and how much all of them took."""

    def __init__(self) -> None:
        self.worst: dict[tuple[str, str], float] = {}
        self.total: dict[tuple[str, str], float] = {}
        self.on = False

    def clock(self) -> float:
        """Seconds of this thread on the processor: other processes are not counted."""
        return time.thread_time()

    def turn(self, actor: str, message: Any, caller: Caller, duration_s: float) -> None:
        """Keep the worst."""
        if self.on:
            key = (actor, type(message).__name__)
            self.worst[key] = max(self.worst.get(key, 0.0), duration_s)
            self.total[key] = self.total.get(key, 0.0) + duration_s


class Nobody:
    """There is no other member to dial."""

    async def to(self, address: str, *, timeout_s: float) -> Any:
        """Never."""
        raise DialError(address, "a member alone")


class Manager:
    """The actors of a leader, and the measurements."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.late: list[float] = []
        self.busy: list[float] = []
        self.beats: list[float] = []
        self.told = 0
        self.over = trio.Event()

    async def start(self, directory: Path) -> None:
        """Found a cluster of one manager and `NODES` ready nodes, then open the leader's scope."""
        entropy, clock = SystemEntropy(), SystemClock()
        disk = SqliteLogStore(directory, entropy.bytes(32), entropy)
        me = MemberStart(Member(RaftId(1), NodeId("me"), "127.0.0.1:1"), found=True)
        raft = await self.scope.start("raft", lambda: RaftMember(me, disk, Nobody(), entropy))
        self.store: Ref = await self.scope.start("store", lambda: StoreActor(raft, entropy))
        leadership = await self._leadership(raft)
        ready = NodeStatus(NodeState.READY)
        nodes = [
            Create(Node(NodeId(f"n{number}"), description=describe(number), status=ready)) for number in range(NODES)
        ]
        await self.commit((Create(Cluster(ClusterId("c"))),), tuple(nodes))
        self.dispatcher = await self.scope.start(
            "dispatcher", lambda: Dispatcher(self.store, clock, entropy, leadership.term)
        )
        for make in PLANNERS:
            planner = make()
            await self.scope.start(
                planner.name,
                lambda planner=planner: ControlLoop(planner, self.store, clock, entropy, leadership.term),  # type: ignore[misc]  # bound now
            )

    async def _leadership(self, raft: Ref) -> Leadership:
        async with raft.stream(WatchLeadership()) as inlet:
            async for leadership in inlet:
                if leadership.is_leader:
                    return leadership
        raise RuntimeError("the member ended")

    async def commit(self, *groups: Group) -> None:
        """Write, or fail."""
        results = await self.store.ask(ProposeChanges(groups), timeout_s=PATIENCE_S)
        if any(results):
            raise RuntimeError(f"refused: {results}")

    # --- the simulated agents ---------------------------------------------------------------------------------------
    async def agent(self, number: int, inlet: Inlet[SessionItem], session_id: str, caller: Caller) -> None:
        """Take the share, and say now and then that the node lives."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take, inlet)
            await trio.sleep(HEARTBEAT_S * number / NODES)
            while True:
                began = time.perf_counter()
                await self.dispatcher.ask(Heartbeat(session_id), timeout_s=PATIENCE_S, caller=caller)  # type: ignore[call-arg]  # a local ref
                self.beats.append(time.perf_counter() - began)
                await trio.sleep(HEARTBEAT_S)

    async def _take(self, inlet: Inlet[SessionItem]) -> None:
        async for item in inlet:
            if isinstance(item, Assignments):
                self.told += len(item.tasks)
                if self.told >= TASKS:
                    self.over.set()

    # --- the measurement --------------------------------------------------------------------------------------------
    async def tick(self) -> None:
        """How much later than asked the loop comes back, each millisecond."""
        while True:
            began, began_busy = time.perf_counter(), time.thread_time()
            await trio.sleep(TICK_S)
            self.busy.append(time.thread_time() - began_busy)
            self.late.append(time.perf_counter() - began - TICK_S)


def describe(number: int) -> NodeDescription:
    """What an agent says of its machine."""
    return NodeDescription(hostname=f"n{number}", resources=Resources(64_000_000_000, 1 << 38), executors=("process",))


def quantiles(what: str, values: Sequence[float]) -> None:
    """One line, in milliseconds."""
    ordered = sorted(values)
    chosen = [ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] for share in (0.5, 0.99, 0.999, 1.0)]
    print(f"{what:<22} {len(values):8} " + " ".join(f"{value * 1000:9.2f}" for value in chosen))


async def measure(directory: Path, services: int) -> None:
    """Idle first, then with the services."""
    trace = SlowTurns()
    async with AsyncExitStack() as stack:
        scope = await stack.enter_async_context(open_scope("manager", trace=trace))
        manager = Manager(scope)
        await manager.start(directory)
        nursery = await stack.enter_async_context(trio.open_nursery())
        for number in range(NODES):
            caller = Caller(f"n{number}", "worker", "c", "10.0.0.1:1")
            stream = manager.dispatcher.stream(OpenSession(describe(number)), window=1024, caller=caller)  # type: ignore[call-arg]  # a local ref
            inlet = await stack.enter_async_context(stream)
            opened = await inlet.receive()
            assert isinstance(opened, SessionOpened)
            nursery.start_soon(manager.agent, number, inlet, opened.session_id, caller)
        await trio.sleep(HEARTBEAT_S)
        gc.collect()
        gc.freeze()
        print(
            f"{'milliseconds':<22} {'samples':>8} " + " ".join(f"{name:>9}" for name in ("p50", "p99", "p99.9", "max"))
        )
        manager.beats.clear()
        with trio.move_on_after(3.0):
            await manager.tick()
        quantiles("loop, idle", manager.late)
        quantiles("heartbeat, idle", manager.beats)
        manager.late, manager.busy, manager.beats = [], [], []
        trace.on = True
        nursery.start_soon(manager.tick)
        began = time.perf_counter()
        for first in range(0, services, SERVICES_A_PROPOSAL):
            numbers = range(first, min(services, first + SERVICES_A_PROPOSAL))
            await manager.commit(*(declared(number, services) for number in numbers))
        with trio.fail_after(PATIENCE_S):
            await manager.over.wait()
        took = time.perf_counter() - began
        view = await manager.store.ask(ReadBarrier(), timeout_s=PATIENCE_S)
        placed = sum(1 for task in view.tasks() if task.status.state is TaskState.ASSIGNED)
        if placed != TASKS:
            raise RuntimeError(f"{placed} of {TASKS} tasks are assigned")
        quantiles("loop, placing", manager.late)
        quantiles("loop, placing, busy", manager.busy)
        quantiles("heartbeat, placing", manager.beats)
        late = sum(1 for took_s in manager.beats if took_s > LATE_S)
        lost = sum(1 for node in view.nodes() if node.status.state is not NodeState.READY)
        print(f"late heartbeats: {late} of {len(manager.beats)}; nodes given up: {lost} of {NODES}")
        print(
            f"\n{TASKS} tasks of {services} services assigned to {NODES} nodes, on disk, every agent told: {took:.1f} s"
        )
        print(f"\n{'slowest turns, processor ms':<44} {'worst':>8} {'all, s':>8}")
        for key, worst in sorted(trace.worst.items(), key=lambda item: -item[1])[:SLOWEST]:
            print(f"{key[0] + ' ' + key[1]:<44} {worst * 1000:8.1f} {trace.total[key]:8.2f}")
        nursery.cancel_scope.cancel()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Stalls of a leader's event loop while tasks are placed.")
    parser.add_argument("--services", type=int, default=1, help="services that the tasks are divided between")
    services = parser.parse_args().services
    if not 0 < services <= TASKS:
        parser.error(f"--services is from 1 to {TASKS}")
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory(prefix="swarm-stalls-") as directory:
        trio.run(measure, Path(directory), services)


if __name__ == "__main__":
    main()
