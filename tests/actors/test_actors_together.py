"""Store, planners, dispatcher, wire, agents and executors in one: a cluster without Raft, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, evolve, field

from swarm.actors.agent import Agent, AgentConfig
from swarm.actors.control_loop import ControlLoop
from swarm.actors.dispatcher import Dispatcher
from swarm.actors.listener import Listener
from swarm.actors.managers import Managers
from swarm.actors.session_messages import SessionNews
from swarm.ca.identity import Peer, PeerRole
from swarm.model.changes import Change, Create, Update
from swarm.model.ids import ClusterId, Instant, NodeId, RevisionNumber, ServiceId
from swarm.model.objects import Cluster, Node, Revision, Service, Task
from swarm.model.specs import NodeDescription, ProcessSpec, Replicated, RestartPolicy, ServiceSpec, TaskSpec
from swarm.model.states import NodeState, TaskState
from swarm.model.store import Store
from swarm.plan.reap import Reaper
from swarm.plan.replicated import ReplicatedPlanner
from swarm.plan.schedule.planner import Scheduler
from swarm.ports.entropy import SystemEntropy
from swarm.runtime import Actor, Ref, Restart, Turn, on, open_scope
from swarm.testing.executor import Script, SimulatedExecutor, SimulatedMachine
from swarm.testing.local_store import LocalStoreActor, Replay
from swarm.testing.net import MemoryNetwork
from swarm.testing.task_store import MemoryTaskStore
from swarm.wire.links import Links, open_links
from swarm.wire.router import open_router

CLUSTER = ClusterId("c")
MANAGER = Peer(PeerRole.MANAGER, "m", CLUSTER, 4e9)
ADDRESS = "10.0.0.1:4242"
WEB = ServiceSpec("web", TaskSpec(ProcessSpec(("serve",)), restart=RestartPolicy(delay_s=1.0)), Replicated(6))


class TrioClock:
    def now(self) -> Instant:
        return Instant(1.8e9 + trio.current_time())

    def monotonic(self) -> float:
        return trio.current_time()


class Front(Actor):
    @on(SessionNews)
    def news(self, message: SessionNews, turn: Turn[None]) -> None: ...


@define
class World:
    network: MemoryNetwork = field(factory=MemoryNetwork)
    actor: LocalStoreActor = field(factory=lambda: LocalStoreActor(Store()))
    machines: dict[str, SimulatedMachine] = field(factory=dict)
    records: dict[str, MemoryTaskStore] = field(factory=dict)
    script: Script = Script(prepare_s=0.5, start_s=0.5)
    store_ref: Any = None

    @property
    def store(self) -> Store:
        return self.actor.store

    async def change(self, *changes: Change) -> None:
        assert await self.store_ref.ask(Replay(changes), timeout_s=5) is None

    @asynccontextmanager
    async def manager(self) -> AsyncIterator[None]:
        entropy, clock = SystemEntropy(), TrioClock()
        async with open_router(entropy) as router:
            router.me = MANAGER
            router.manage(lambda: True, no_leader)
            net = self.network.net(MANAGER, "10.0.0.1")
            async with (
                open_links(net, router, clock=clock, entropy=entropy, node_id=lambda: "m") as links,
                open_scope("manager") as scope,
            ):
                self.store_ref = await scope.start("store", lambda: self.actor)
                await scope.start("listener", lambda: Listener(net, ADDRESS, links))
                await self.change(Create(Cluster(CLUSTER)))
                store: Ref = self.store_ref
                dispatcher = await scope.start(
                    "dispatcher", lambda: Dispatcher(store, clock, entropy), restart=Restart.NEVER
                )
                router.register("dispatcher", dispatcher)
                planners: list[Any] = [ReplicatedPlanner(), Scheduler(), Reaper()]
                for planner in planners:
                    await scope.start(
                        planner.name,
                        lambda planner=planner: ControlLoop(planner, store, clock, entropy, 1),
                        restart=Restart.NEVER,
                    )
                yield

    @asynccontextmanager
    async def worker(self, name: str) -> AsyncIterator[Links]:
        """One life of a worker; its machine and its record outlive it."""
        entropy, clock = SystemEntropy(), TrioClock()
        machine = self.machines.setdefault(name, SimulatedMachine(lambda _: self.script))
        record = self.records.setdefault(name, MemoryTaskStore())
        if self.store.node(NodeId(name)) is None:
            await self.change(Create(Node(NodeId(name))))
        peer = Peer(PeerRole.WORKER, name, CLUSTER, 4e9)
        async with open_router(entropy) as router:
            router.me = peer
            net = self.network.net(peer, f"10.0.1.{len(self.machines)}")
            async with (
                open_links(net, router, clock=clock, entropy=entropy, node_id=lambda: name) as links,
                open_scope("node") as scope,
            ):
                front = await scope.start("node", Front)
                managers = Managers(links, router, entropy)
                managers.remember([ADDRESS])
                config = AgentConfig(
                    NodeId(name), name, {"process": SimulatedExecutor(machine)}, lambda: NodeDescription(name)
                )
                agent = await scope.start(
                    "agent",
                    lambda: Agent(config, record, managers, front, clock, entropy),
                    restart=Restart.NEVER,
                )
                router.register("agent", agent)
                yield links

    async def declare(self, spec: ServiceSpec) -> None:
        service = self.store.service(ServiceId("s"))
        if service is None:
            await self.change(
                Create(Service(ServiceId("s"), spec)),
                Create(Revision(ServiceId("s"), RevisionNumber(1), spec)),
            )
            return
        number = RevisionNumber(service.revision + 1)
        await self.change(
            Update(evolve(service, spec=spec, revision=number, previous=service.revision)),
            Create(Revision(ServiceId("s"), number, spec)),
        )

    def running(self) -> list[Task]:
        return [task for task in self.store.tasks() if task.is_live and task.status.state is TaskState.RUNNING]

    def on_machines(self) -> dict[str, int]:
        return {name: len(machine.running()) for name, machine in self.machines.items()}


async def no_leader() -> Any:
    raise AssertionError("this manager leads")


async def test_a_declared_service_runs_scales_and_heals(autojump_clock: Any) -> None:
    world = World()
    async with world.manager(), world.worker("w1"), world.worker("w2"):
        await trio.sleep(1)
        await world.declare(WEB)
        await trio.sleep(10)
        assert len(world.running()) == 6
        assert world.on_machines() == {"w1": 3, "w2": 3}
        # one of them ends: its slot is filled again after the restart delay
        victim = world.machines["w1"].running()[0]
        await SimulatedExecutor(world.machines["w1"]).controller(victim).terminate()
        await trio.sleep(0.5)
        assert len(world.running()) == 5
        await trio.sleep(10)
        assert len(world.running()) == 6
        # fewer, then none
        await world.declare(evolve(WEB, mode=Replicated(2)))
        await trio.sleep(20)
        assert sum(world.on_machines().values()) == len(world.running()) == 2
        await world.declare(evolve(WEB, mode=Replicated(0)))
        await trio.sleep(20)
        assert sum(world.on_machines().values()) == 0


async def test_tasks_survive_a_restart_of_the_agent(autojump_clock: Any) -> None:
    world = World()
    async with world.manager():
        async with world.worker("w1"):
            await world.declare(WEB)
            await trio.sleep(10)
            assert world.on_machines() == {"w1": 6}
        before = [workload.task_id for workload in world.machines["w1"].running()]
        await trio.sleep(3)
        async with world.worker("w1"):
            await trio.sleep(10)
            assert [workload.task_id for workload in world.machines["w1"].running()] == before
            assert [task.id for task in world.running()] == before


async def test_a_node_that_is_lost_is_replaced_and_comes_back(autojump_clock: Any) -> None:
    world = World()
    async with world.manager(), world.worker("w1"):
        async with world.worker("w2"):
            await trio.sleep(1)
            await world.declare(WEB)
            await trio.sleep(10)
            assert world.on_machines() == {"w1": 3, "w2": 3}
        await trio.sleep(60)  # the agent of w2 is gone, its tasks still run there
        node = world.store.node(NodeId("w2"))
        assert node is not None and node.status.state is NodeState.DOWN
        assert world.on_machines() == {"w1": 6, "w2": 3}
        async with world.worker("w2"):
            await trio.sleep(20)
            assert world.on_machines() == {"w1": 6, "w2": 0}
            assert len(world.running()) == 6


async def test_a_broken_link_is_replaced_at_once(autojump_clock: Any) -> None:
    world = World()
    async with world.manager(), world.worker("w1"):
        await world.declare(WEB)
        await trio.sleep(10)
        for near, far in world.network.connections:
            near.cut()
            far.cut()
        await trio.sleep(2)
        node = world.store.node(NodeId("w1"))
        assert node is not None and node.status.state is NodeState.READY
        await world.declare(evolve(WEB, mode=Replicated(7)))
        await trio.sleep(10)
        assert world.on_machines() == {"w1": 7}
