"""A whole cluster in one process: shipped daemons on simulated machines, in virtual time, under a seed.

    async def story(world: World) -> None:
        await world.boot(managers=3, workers=2)
        await world.ask("m1", CreateService(...))
        world.crash("m2", keep_write=False)
        await trio.sleep(10)
        world.start("m2")
        await world.converge(60)

    run_world("seed 1", story).report()

One idea: a node here is `actors.node.run_node`, unmodified; only its ports are simulated. Every turn of every actor is hashed
(same seed, same hash) and looked at by the `Checkers`; the first violation ends the story. A crash is no cancel: the ports are
revoked first, so that nothing the daemon still does has an effect.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import define, evolve, field

from swarm.actors.context import JoinTarget, NodeConfig
from swarm.actors.node import End, Told, run_node
from swarm.actors.store_messages import ProposeChanges
from swarm.executors.base import Workload
from swarm.model.changes import Update
from swarm.model.specs import RaftSettings
from swarm.model.states import Role
from swarm.ports.clock import SystemClock, monotonic_seconds
from swarm.ports.entropy import SeededEntropy
from swarm.ports.net import DialError, Transport
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.message import Request
from swarm.runtime.ref import HERE, Caller
from swarm.runtime.trace import Trace
from swarm.testing.checkers import STALE_LEADER_S, Checkers, unconverged
from swarm.testing.deterministic import PROCESS, continue_process, run_seeded, stop_process
from swarm.testing.executor import Script, SimulatedMachine
from swarm.testing.sim_machine import PORT, Level, SimClock, SimMachine, SimPorts, epoch_of
from swarm.testing.sim_net import Life, SimNetwork
from swarm.wire.connection import Incoming
from swarm.wire.link import Link
from swarm.wire.links import Links, open_links
from swarm.wire.messages.control import GetToken
from swarm.wire.messages.raft import RaftMessages

R = TypeVar("R")

RESTART_PAUSE_S = 5.0
"""A daemon that gave up at its start is started again after this, as a service manager would."""
SAMPLE_S = 0.5
"""Between two looks at what is checked by sampling."""
TURNS_AT_ONCE_MAX = 200_000
CURRENT: ContextVar[SimNode | None] = ContextVar("current_node", default=None)


class _Watch(Trace):
    """What the kernel tells of one run of one daemon."""

    def __init__(self, world: World, node: SimNode, life: Life) -> None:
        self.world = world
        self.node = node
        self.life = life
        self.actors: dict[str, Any] = {}

    def clock(self) -> float:
        """Durations are of no interest in virtual time."""
        return 0.0

    def begins(self, actor: str, made: Any) -> None:
        """Keep the object."""
        self.actors[actor] = made

    def ended(self, actor: str, reason: str) -> None:
        """Forget it."""
        self.actors.pop(actor, None)

    def crashed(self, actor: str, error: Exception) -> None:
        """A bug of ours."""
        if not self.life.revoked:
            self.world.checkers.fail(f"{self.node.name}: actor {actor} crashed: {type(error).__name__}: {error}")

    def turn(self, actor: str, message: Any, caller: Caller, duration_s: float) -> None:
        """Hash it, check it."""
        world = self.world
        world.turns += 1
        world.count_turn()
        world.hash.update(f"{trio.current_time():.9f} {self.node.name} {actor} {type(message).__name__}\n".encode())
        if self.life.revoked:
            return
        if caller is not HERE:
            world.checkers.crossed(f"{self.node.name} {actor}", message, caller)
        if actor == "node/manager/raft":
            run = f"{self.node.name}/{self.node.machine.runs}/{id(self.actors[actor])}"
            if isinstance(message, RaftMessages):
                world.checkers.raft_messages(message.payload, message.to_member)
            world.checkers.raft_turn(self.node.machine, run, self.actors[actor].raft)
        elif actor == "node/manager/store":
            world.checkers.store_turn(self.node.name, message, self.actors[actor].view())


@define(eq=False)
class SimNode:
    """One machine with its daemon, up or down."""

    world: World
    machine: SimMachine
    role: Role
    ports: SimPorts | None = None
    """Of the present run; None while it is down."""
    watch: _Watch | None = None
    stop: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)
    ready: trio.Event = field(factory=trio.Event)
    waiting: str = ""
    exits: int = 0
    """How often its daemon gave up at its start."""
    wanted_up: bool = False
    link: Link | None = None

    @property
    def name(self) -> str:
        """Of the machine."""
        return self.machine.name

    @property
    def is_up(self) -> bool:
        """Whether a daemon runs."""
        return self.ports is not None

    def actor(self, path: str) -> Any:
        """One of its actors, None when it does not run."""
        return self.watch.actors.get(path) if self.watch is not None else None

    @property
    def raft(self) -> Any:
        """The Raft core of a running manager, else None."""
        member = self.actor("node/manager/raft")
        return getattr(member, "raft", None)

    @property
    def node_id(self) -> str:
        """Its id, empty before it has one."""
        front = self.actor("node/node")
        return front._node.node_id if front is not None else ""


class _OperatorNet:
    """What operators dial with: local sockets."""

    def __init__(self, network: SimNetwork) -> None:
        self._network = network
        self._life = Life("operator")

    def listen(self, address: str) -> Any:
        """Operators are not dialled."""
        raise NotImplementedError

    async def dial(self, address: str, *, anonymous: bool = False, timeout_s: float) -> Transport:
        """Connect to a local socket."""
        return await self._network.dial_local(self._life, address)


class _NoCalls:
    """Operators are asked nothing."""

    def handle(self, incoming: Incoming) -> None:
        """Refuse."""
        incoming.fail(SwarmError(ErrorCode.DENIED, "an operator answers nothing"))


class World:
    """Machines, their network, and what is checked. Made by `run_world`."""

    def __init__(self, seed: str, nursery: trio.Nursery, level: Level = Level.FRAMES) -> None:
        self.seed = seed
        self.level = level
        self._epoch_s = epoch_of(level, SystemClock().now())
        self.entropy = SeededEntropy(f"world {seed}")
        self.network = SimNetwork(SeededEntropy(f"net {seed}"))
        self.nodes: dict[str, SimNode] = {}
        self.checkers = Checkers(latest_clock=self._latest_clock)
        self.hash = blake2b(digest_size=8)
        self.turns = 0
        self.faults: dict[str, int] = {}
        self.script: Callable[[Workload], Script] = lambda workload: Script(prepare_s=0.05, start_s=0.05, stop_s=0.1)
        self.links: Links
        self._nursery = nursery
        self._instant = -1.0
        self._since = 0
        self._tokens: dict[Role, str] = {}

    # --- machines and daemons --------------------------------------------------------------------------------------
    def add(self, name: str, role: Role) -> SimNode:
        """A new machine, its daemon down."""
        clock = SimClock(epoch_s=self._epoch_s)
        machine = SimulatedMachine(script=lambda workload: self.script(workload), clock=clock)
        node = SimNode(self, SimMachine(name, SeededEntropy(f"{self.seed} {name}"), machine, clock), role)
        self.nodes[name] = node
        return node

    def start(self, name: str) -> None:
        """Run its daemon, as a service manager does: again, should it give up at its start."""
        node = self.nodes[name]
        assert not node.is_up, f"{name} is up"
        node.wanted_up = True
        node.ports = SimPorts(node.machine, self.network, self.level)
        node.watch = _Watch(self, node, node.ports.life)
        node.stop, node.scope = trio.Event(), trio.CancelScope()
        node.ended, node.ready = trio.Event(), trio.Event()
        self._nursery.start_soon(self._run, node, node.ports, node.watch, node.scope, node.ended)

    async def crash(self, name: str, *, keep_write: bool = False, power: bool = False) -> None:
        """Kill its daemon: tasks go on. With `power`, the machine: tasks end and peers only see silence."""
        node = self.nodes[name]
        node.wanted_up = False
        if node.ports is None:
            return
        self.resume(name)
        node.ports.life.revoked = True
        node.machine.crash(keep_write=keep_write)
        if power:
            self.network.silence(name)
            node.machine.tasks.power_off()
        self.network.cut(name)
        self.network.cut("operator", name)
        node.scope.cancel()
        await node.ended.wait()

    def pause(self, name: str) -> None:
        """Stop its daemon where it is (SIGSTOP): tasks go on, its timers do not, connections stand and fill up."""
        assert self.nodes[name].is_up, f"{name} is down"
        stop_process(self.nodes[name].watch)

    def resume(self, name: str) -> None:
        """Let its daemon go on (SIGCONT), to find late what has happened; nothing happens when it is not paused."""
        continue_process(self.nodes[name].watch)

    def replace(self, name: str) -> None:
        """Put a new, empty machine of this name in the place of one whose daemon is down; it joins when it is started."""
        node = self.nodes[name]
        assert not node.is_up, f"{name} is up"
        old = node.machine
        tasks = SimulatedMachine(script=lambda workload: self.script(workload), clock=old.clock)
        node.machine = SimMachine(
            name, SeededEntropy(f"{self.seed} {name} {old.runs}"), tasks, old.clock, runs=old.runs
        )

    async def stop(self, name: str) -> None:
        """Stop its daemon in order."""
        node = self.nodes[name]
        node.wanted_up = False
        node.stop.set()
        await node.ended.wait()

    async def _run(
        self, node: SimNode, ports: SimPorts, watch: _Watch, scope: trio.CancelScope, ended: trio.Event
    ) -> None:
        CURRENT.set(node)
        PROCESS.set(watch)
        join = None
        if self._tokens and "node.json" not in node.machine.files:
            join = JoinTarget(self._anybody(), self._tokens[node.role])
        config = NodeConfig(
            state_dir=Path(f"/simulated/{node.name}"),
            listen=f"{node.name}:{PORT}",
            advertise=node.machine.address,
            hostname=node.name,
            join=join,
        )
        end: End | None = None

        def told_waiting(text: str) -> None:
            node.waiting = text

        told = Told(waiting=told_waiting, ready=lambda status, founded: node.ready.set())
        try:
            with scope:
                end = await run_node(config, ports, told, node.stop, trace=watch)
        except* (SwarmError, DialError) as group:
            if not ports.life.revoked:
                node.exits += 1
                node.waiting = f"gave up: {flat(group)}"
        except* Exception as group:
            if not ports.life.revoked:
                self.checkers.fail(f"{node.name}: the daemon died: {flat(group)}")
        finally:
            ports.life.revoked = True
            if node.ports is ports:
                node.ports = node.watch = None
            ended.set()
        if end is None and node.wanted_up and not self.checkers.violations:
            self._nursery.start_soon(self._again, node)

    async def _again(self, node: SimNode) -> None:
        await trio.sleep(RESTART_PAUSE_S)
        if node.wanted_up and not node.is_up:
            self.start(node.name)

    def _anybody(self) -> str:
        """The address of a manager that leads or at least runs."""
        leader = self.leader
        if leader is not None:
            return leader.machine.address
        up = [node for node in self.nodes.values() if node.is_up and node.raft is not None]
        return up[0].machine.address if up else f"m1:{PORT}"

    @property
    def leader(self) -> SimNode | None:
        """The manager that leads the highest term."""
        leading = [node for node in self.nodes.values() if node.is_up and node.raft is not None and node.raft.is_leader]
        return max(leading, key=lambda node: node.raft.term, default=None)

    async def boot(self, managers: int, workers: int) -> None:
        """Form a cluster: m1 founds it, the others join; returns when all are ready."""
        self.add("m1", Role.MANAGER)
        self.start("m1")
        await self.nodes["m1"].ready.wait()
        for role in (Role.MANAGER, Role.WORKER):
            self._tokens[role] = (await self.ask("m1", GetToken(role))).token
        names = [(f"m{number}", Role.MANAGER) for number in range(2, managers + 1)]
        names += [(f"w{number}", Role.WORKER) for number in range(1, workers + 1)]
        for name, role in names:
            self.add(name, role)
            self.start(name)
        for name, _ in names:
            await self.nodes[name].ready.wait()

    async def compact_often(self, interval: int, kept: int) -> None:
        """Have managers take a snapshot every `interval` entries and keep `kept`, so that a short story meets them."""
        leader = self.leader
        assert leader is not None, "a booted cluster has a leader"
        cluster = self.checkers.store.cluster
        assert cluster is not None
        settings = evolve(cluster.settings, raft=RaftSettings(interval, kept))
        change = Update(evolve(cluster, settings=settings))
        await leader.actor("node/manager/store").ref.ask(ProposeChanges(((change,),)), timeout_s=10.0)

    # --- operators -------------------------------------------------------------------------------------------------
    async def ask(self, name: str, request: Request[R], *, timeout_s: float = 30.0, to: str = "control") -> R:
        """Ask a node's daemon over its local socket. `SwarmError` is its answer; UNAVAILABLE when it is down."""
        node = self.nodes[name]
        try:
            if node.link is None or not node.link.is_open:
                node.link = await self.links.dial(node.machine.socket, anonymous=True, timeout_s=5.0)
            return await node.link.ref(to).ask(request, timeout_s=timeout_s)
        except DialError as error:
            raise SwarmError(ErrorCode.UNAVAILABLE, str(error)) from None

    # --- checking --------------------------------------------------------------------------------------------------
    def running(self) -> dict[str, set[str]]:
        """Node id to the ids of the tasks that run on its machine, for nodes that are up."""
        return {
            node.node_id: {workload.task_id for workload in node.machine.tasks.running()}
            for node in self.nodes.values()
            if node.node_id
        }

    def problem(self) -> str:
        """Why the world has not converged; empty when it has."""
        leader = self.leader
        if leader is None:
            return "nobody leads"
        for node in self.nodes.values():
            if not node.is_up:
                return f"{node.name} is down: {node.waiting}"
            if not node.ready.is_set():
                return f"{node.name} is not ready: {node.waiting}"
            store = node.actor("node/manager/store")
            if store is not None and store.view().version != self.checkers.store.version:
                return f"{node.name} has applied {store.view().version} of {self.checkers.store.version}"
        members = {member.node_id for member in leader.raft.membership.members if not member.learner}
        managers = {node.id for node in self.checkers.store.nodes() if node.spec.desired_role is Role.MANAGER}
        if members != managers:
            return f"Raft has {sorted(members)}, and the managers are {sorted(managers)}"
        return unconverged(self.checkers.store, self.running())

    async def converge(self, within_s: float, *, stays_s: float = 5.0) -> None:
        """Wait until all is as declared and stays so; a violation when that takes too long."""
        give_up = trio.current_time() + within_s
        since: float | None = None
        while True:
            problem = self.problem()
            now = trio.current_time()
            if problem:
                since = None
                if now > give_up:
                    self.checkers.fail(f"not converged {within_s:g} s after healing: {problem}")
                    await trio.sleep_forever()
            else:
                since = now if since is None else since
                if now - since >= stays_s:
                    break
            await trio.sleep(0.25)
        for node in self.nodes.values():
            store = node.actor("node/manager/store")
            if store is not None:
                self.checkers.compare(node.name, store.view())

    async def watch(self) -> None:
        """What is checked by looking now and then."""
        stale: dict[tuple[str, str], float] = {}
        while True:
            await trio.sleep(SAMPLE_S)
            for node in self.nodes.values():
                self._check_leader_scope(node, stale)

    def _check_leader_scope(self, node: SimNode, stale: dict[tuple[str, str], float]) -> None:
        raft = node.raft
        for path, actor in list(node.watch.actors.items()) if node.watch is not None else ():
            term = getattr(actor, "_term", None)
            if not path.startswith("node/manager/leader/") or not isinstance(term, int) or raft is None:
                continue
            key = (node.name, path)
            if raft.is_leader and term == raft.term:
                stale.pop(key, None)
            elif trio.current_time() - stale.setdefault(key, trio.current_time()) > STALE_LEADER_S:
                self.checkers.fail(f"{node.name}: {path} of term {term} lives on in term {raft.term}")

    def count_turn(self) -> None:
        """A cluster that never comes to rest stops virtual time; that is a violation, not a hanging test."""
        now = trio.current_time()
        if now != self._instant:
            self._instant, self._since = now, self.turns
        elif self.turns - self._since == TURNS_AT_ONCE_MAX:
            self.checkers.fail(f"{TURNS_AT_ONCE_MAX} turns without time passing")

    def _latest_clock(self) -> float:
        return max((node.machine.clock.now() for node in self.nodes.values()), default=0.0)

    def fault(self, kind: str) -> None:
        """Count one."""
        self.faults[kind] = self.faults.get(kind, 0) + 1


@define
class Outcome:
    """How a world ended."""

    seed: str
    violations: list[str]
    virtual_s: float
    wall_s: float
    hash: str
    turns: int
    faults: dict[str, int]
    probes: dict[str, int]
    told: int = 1
    """How often the story was told; `wall_s` is of all tellings."""


def run_world(
    seed: str, story: Callable[[World], Awaitable[None]], *, level: Level = Level.FRAMES, log: bool = False
) -> Outcome:
    """Run a story in a new world, in a `trio.run` of its own; what was violated is in the outcome."""
    handler = _Log()
    logger = logging.getLogger("swarm")
    quiet = logger.level
    logger.setLevel(logging.DEBUG if log else logging.ERROR)
    if log:
        logger.addHandler(handler)
    else:
        logger.addHandler(_SILENT)
    began = monotonic_seconds()
    try:
        world, virtual_s = run_seeded(seed, _run_story, seed, story, level)
    finally:
        logger.setLevel(quiet)
        logger.removeHandler(handler)
        logger.removeHandler(_SILENT)
    return Outcome(
        seed,
        world.checkers.violations,
        virtual_s,
        monotonic_seconds() - began,
        world.hash.hexdigest(),
        world.turns,
        world.faults,
        {**world.checkers.probes, "term led": world.checkers.terms_led},
    )


async def _run_story(seed: str, story: Callable[[World], Awaitable[None]], level: Level) -> tuple[World, float]:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        world = World(seed, nursery, level)
        net = _OperatorNet(world.network)
        entropy = SeededEntropy(f"operator {seed}")
        async with open_links(net, _NoCalls(), clock=SimClock(), entropy=entropy) as links:
            world.links = links
            nursery.start_soon(_end_at_violation, world, nursery.cancel_scope)
            nursery.start_soon(world.watch)
            try:
                await story(world)
            except SwarmError as error:
                world.checkers.fail(f"the story ended with {error.code.value}: {error.text}")
            finally:
                for name in world.nodes:
                    world.resume(name)
            for node in world.nodes.values():
                await world.crash(node.name)
            nursery.cancel_scope.cancel()
    return world, trio.current_time() - began


async def _end_at_violation(world: World, scope: trio.CancelScope) -> None:
    await world.checkers.found.wait()
    for node in world.nodes.values():
        world.resume(node.name)
        if node.ports is not None:
            node.ports.life.revoked = True
    scope.cancel()


def flat(group: BaseException) -> str:
    """The innermost errors of a group, in words."""
    if isinstance(group, BaseExceptionGroup):
        return "; ".join(flat(error) for error in group.exceptions)
    return f"{type(group).__name__}: {group}"


class _Log(logging.Handler):
    """Log lines with virtual time and node, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        node = CURRENT.get()
        try:
            now = trio.current_time()
        except RuntimeError:
            now = 0.0
        text = f"{now:9.3f} {node.name if node else '-':4} {record.levelname[0]} {record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        logging.lastResort.stream.write(text + "\n")  # type: ignore[union-attr]  # it is stderr


_SILENT = logging.NullHandler()
