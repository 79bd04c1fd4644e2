"""One random story: services and roles change while machines, disks and the network fail; then all heals and must converge.

Everything is drawn from the world's entropy, so the seed is the whole story. Clients write and read registers (node labels)
all the while; their history must be linearizable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from attrs import define, evolve, field

from swarm.executors.base import Exit, Workload
from swarm.model.specs import (
    Global,
    GlobalJob,
    Mode,
    Placement,
    ProcessSpec,
    Replicated,
    ReplicatedJob,
    RestartPolicy,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarm.model.states import Availability, FailureAction, Role, UpdateOrder
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.testing.executor import Script
from swarm.testing.linearizable import Kind, Operation, Result, TooHard, check
from swarm.testing.world import SimNode, World
from swarm.wire.messages.control import (
    CreateService,
    GetNode,
    ListNodes,
    ListServices,
    RemoveNode,
    RemoveService,
    UpdateNode,
    UpdateService,
)

SERVICES_MAX = 6
REPLICAS_MAX = 6
REGISTERS = 2
HOME = "a"
"""The zone of half of the nodes once all has healed; the others are in zone b, so that every constraint can be met."""
SNAPSHOT_INTERVAL = 60
KEPT_ENTRIES = 10
MANAGERS_MIN = 3
CLIENTS = 3
CONVERGE_S = 240.0
CERTAIN_REFUSALS = frozenset(
    {
        ErrorCode.OUT_OF_DATE,
        ErrorCode.NOT_LEADER,
        ErrorCode.INVALID,
        ErrorCode.NOT_FOUND,
        ErrorCode.EXISTS,
        ErrorCode.PRECONDITION,
        ErrorCode.DENIED,
    }
)


@define
class Storm:
    """What one seed does."""

    managers: int = 3
    workers: int = 4
    minutes: float = 3.0
    history: list[Operation] = field(factory=list)
    calm: bool = False
    _writes: int = 0

    async def __call__(self, world: World) -> None:
        """The story."""
        world.script = lambda workload: self._script(world, workload)
        with trio.move_on_after(120.0) as booting:
            await world.boot(self.managers, self.workers)
        if booting.cancelled_caught:
            waiting = {node.name: node.waiting for node in world.nodes.values() if not node.ready.is_set()}
            world.checkers.fail(f"the cluster did not form within 120 s: {waiting}")
            return
        await world.compact_often(SNAPSHOT_INTERVAL, KEPT_ENTRIES)
        with trio.move_on_after(self.minutes * 60.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._change, world)
                nursery.start_soon(self._break, world)
                for number in range(CLIENTS):
                    nursery.start_soon(self._client, world, f"c{number}")
        await self._heal(world)
        await world.converge(CONVERGE_S)
        self._judge(world)

    def _script(self, world: World, workload: Workload) -> Script:
        draw = world.entropy.uniform
        script = Script(prepare_s=draw(0, 0.5), start_s=draw(0, 0.5), stop_s=draw(0, 1))
        name = workload.spec.name
        if name.startswith("job"):
            return evolve(script, runs_s=draw(0.1, 20), exit_code=0 if self.calm else world.entropy.integer(0, 1))
        if self.calm or not name.startswith("crashy"):
            return script
        return evolve(script, runs_s=draw(1, 40), exit_code=world.entropy.integer(0, 1))

    # --- what operators do -----------------------------------------------------------------------------------------
    async def _change(self, world: World) -> None:
        acts: list[Callable[[World], Awaitable[None]]] = [
            self._create, self._create, self._scale, self._scale, self._update, self._update, self._remove,
            self._availability, self._role, self._label,
        ]  # fmt: skip
        while True:
            await trio.sleep(world.entropy.uniform(0.1, 8.0))
            act = acts[world.entropy.integer(0, len(acts) - 1)]
            try:
                await act(world)
            except SwarmError as error:
                world.checkers.probe(f"refused {error.code.value}")

    async def _create(self, world: World) -> None:
        services = await world.ask(manager(world), ListServices())
        if len(services) >= SERVICES_MAX:
            return
        draw = world.entropy
        kind = ("steady", "steady", "crashy")[draw.integer(0, 2)]
        mode: Mode = Global() if draw.integer(1, 5) == 1 else Replicated(draw.integer(0, REPLICAS_MAX))
        if draw.integer(1, 5) == 1:
            job = ReplicatedJob(draw.integer(1, 3), draw.integer(1, REPLICAS_MAX))
            kind, mode = "job", job if draw.integer(0, 2) else GlobalJob()
        order = UpdateOrder.START_FIRST if draw.integer(1, 3) == 1 else UpdateOrder.STOP_FIRST
        action = (FailureAction.PAUSE, FailureAction.CONTINUE, FailureAction.ROLLBACK)[draw.integer(0, 2)]
        update: UpdateConfig | None = UpdateConfig(
            draw.integer(0, 2), draw.uniform(0, 1), action, draw.uniform(0, 5), 0.3, order
        )
        constraints = (f"node.labels.zone{'!=' if draw.integer(0, 1) else '=='}{HOME if draw.integer(0, 1) else 'b'}",)
        task = TaskSpec(
            ProcessSpec(("work",)),
            restart=RestartPolicy(delay_s=draw.uniform(0, 3)),
            placement=Placement(constraints if draw.integer(1, 4) == 1 else ()),
        )
        update = update if kind != "job" else None
        spec = ServiceSpec(f"{kind}-{draw.new()[:6]}", task, mode, update=update, replace_after_s=draw.uniform(1, 20))
        await world.ask(manager(world), CreateService(spec))

    async def _scale(self, world: World) -> None:
        await self._change_service(world, scale=True)

    async def _update(self, world: World) -> None:
        await self._change_service(world, scale=False)

    async def _change_service(self, world: World, *, scale: bool) -> None:
        services = await world.ask(manager(world), ListServices())
        if not services:
            return
        service = services[world.entropy.integer(0, len(services) - 1)].service
        if scale:
            if not isinstance(service.spec.mode, Replicated):
                return
            spec = evolve(service.spec, mode=Replicated(world.entropy.integer(0, REPLICAS_MAX)))
        else:
            runtime = ProcessSpec(("work", world.entropy.new()[:6]))
            spec = evolve(service.spec, task=evolve(service.spec.task, runtime=runtime))
        await world.ask(manager(world), UpdateService(service.id, service.version, spec))

    async def _remove(self, world: World) -> None:
        services = await world.ask(manager(world), ListServices())
        if services:
            await world.ask(manager(world), RemoveService(services[0].service.id))

    async def _availability(self, world: World) -> None:
        view = await self._node(world)
        wanted = (Availability.ACTIVE, Availability.PAUSE, Availability.DRAIN)[world.entropy.integer(0, 2)]
        spec = evolve(view.spec, availability=wanted)
        await world.ask(manager(world), UpdateNode(view.id, view.version, spec))

    async def _role(self, world: World) -> None:
        view = await self._node(world)
        managers = [node for node in world.checkers.store.nodes() if node.spec.desired_role is Role.MANAGER]
        if len(managers) < MANAGERS_MIN and view.spec.desired_role is Role.MANAGER:
            return  # so that most of the time there is a quorum to lose
        wanted = Role.WORKER if view.spec.desired_role is Role.MANAGER else Role.MANAGER
        await world.ask(manager(world), UpdateNode(view.id, view.version, evolve(view.spec, desired_role=wanted)))
        world.checkers.probe("demotion" if wanted is Role.WORKER else "promotion")

    async def _label(self, world: World) -> None:
        """Move a node to another zone: tasks that may not be there any more have to go."""
        view = await self._node(world)
        zone = (HOME, "b")[world.entropy.integer(0, 1)]
        spec = evolve(view.spec, labels={**view.spec.labels, "zone": zone})
        await world.ask(manager(world), UpdateNode(view.id, view.version, spec))

    async def _node(self, world: World):  # type: ignore[no-untyped-def]
        views = await world.ask(manager(world), ListNodes())
        return views[world.entropy.integer(0, len(views) - 1)].node

    # --- clients ---------------------------------------------------------------------------------------------------
    async def _client(self, world: World, name: str) -> None:
        while True:
            await trio.sleep(world.entropy.uniform(0.1, 4.0))
            register = f"r{world.entropy.integer(0, REGISTERS - 1)}"
            if world.entropy.integer(0, 1):
                await self._swap(world, name, register)
            else:
                await self._read(world, name, register)

    async def _read(self, world: World, name: str, register: str) -> str | None:
        start = trio.current_time()
        try:
            view = await world.ask(manager(world), GetNode("m1"), timeout_s=20.0)
        except SwarmError:
            return None
        value = view.node.spec.labels.get(register)
        self.history.append(Operation(name, register, Kind.READ, value, start, trio.current_time()))
        return value

    async def _swap(self, world: World, name: str, register: str) -> None:
        try:
            node = (await world.ask(manager(world), GetNode("m1"), timeout_s=20.0)).node
        except SwarmError:
            return
        self._writes += 1
        value, before = f"v{self._writes}", node.spec.labels.get(register)
        spec = evolve(node.spec, labels={**node.spec.labels, register: value})
        start, result = trio.current_time(), Result.OK
        try:
            await world.ask(manager(world), UpdateNode(node.id, node.version, spec), timeout_s=20.0)
        except SwarmError as error:
            result = Result.FAIL if error.code in CERTAIN_REFUSALS else Result.UNKNOWN
        except trio.Cancelled:
            result = Result.UNKNOWN
            raise
        finally:
            end = trio.current_time()
            self.history.append(Operation(name, register, Kind.SWAP, value, start, end, result, expected=before))

    def _judge(self, world: World) -> None:
        try:
            violation = check(self.history)
        except TooHard:
            world.checkers.probe("history too hard to judge")
            return
        if violation is not None:
            world.checkers.fail(str(violation))
        world.checkers.probes["operations judged"] = len(self.history)

    # --- what breaks -----------------------------------------------------------------------------------------------
    async def _break(self, world: World) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(world.entropy.uniform(0.5, 15.0))
                names = sorted(FAULTS)
                kind = names[world.entropy.integer(0, len(names) - 1)]
                nursery.start_soon(self._one_fault, world, kind)

    async def _one_fault(self, world: World, kind: str) -> None:
        world.fault(kind)
        await FAULTS[kind](world)

    async def _heal(self, world: World) -> None:
        self.calm = True
        world.network.heal()
        for node in world.nodes.values():
            node.machine.fill_disk(full=False)
            world.resume(node.name)
            if node.is_up and not node.wanted_up:
                await node.ended.wait()  # the end of the faults came in the middle of a stop
            if not node.is_up:
                node.wanted_up = True
                world.start(node.name)
        with trio.move_on_after(CONVERGE_S) as scope:
            await self._activate_all(world)
        if scope.cancelled_caught:
            world.checkers.fail(f"no write was taken within {CONVERGE_S:g} s after healing: {world.problem()}")
            await trio.sleep_forever()
        await self._replace_removed(world)

    async def _replace_removed(self, world: World) -> None:
        """A removal that was answered as unknown, or cut off by the end of the faults, may have taken effect: now it is known."""
        for node in world.nodes.values():
            if node.node_id and node.node_id not in {one.id for one in world.checkers.store.nodes()}:
                await world.crash(node.name)
                world.replace(node.name)
                world.start(node.name)
                world.checkers.probe("machine replaced late")

    async def _activate_all(self, world: World) -> None:
        while True:
            try:
                for number, view in enumerate(await world.ask(manager(world), ListNodes())):
                    node = view.node
                    labels = {**node.spec.labels, "zone": "b" if number % 2 else HOME}
                    spec = evolve(node.spec, availability=Availability.ACTIVE, labels=labels)
                    if spec != node.spec:
                        await world.ask(manager(world), UpdateNode(node.id, node.version, spec))
                return
            except SwarmError:
                await trio.sleep(0.5)


def manager(world: World) -> str:
    """Any node that runs as a manager; any node when there is none."""
    up = [node.name for node in world.nodes.values() if node.is_up and node.raft is not None]
    names = up or list(world.nodes)
    return names[world.entropy.integer(0, len(names) - 1)]


def anyone(world: World, *, managers: bool = False) -> SimNode:
    """A machine to hurt: a manager half of the time, the leader now and then."""
    draw = world.entropy.integer
    nodes = list(world.nodes.values())
    if managers or draw(0, 1):
        if draw(1, 3) == 1 and world.leader is not None:
            return world.leader
        nodes = [node for node in nodes if node.raft is not None] or nodes
    return nodes[draw(0, len(nodes) - 1)]


async def crash(world: World) -> None:
    """SIGKILL; back after a while."""
    await _down(world, power=False)


async def power(world: World) -> None:
    """The machine loses its power."""
    await _down(world, power=True)


async def _down(world: World, *, power: bool) -> None:
    node = anyone(world)
    if not node.is_up:
        return
    await world.crash(node.name, keep_write=bool(world.entropy.integer(0, 1)), power=power)
    await trio.sleep(world.entropy.uniform(0.1, 25.0))
    if not node.is_up:
        world.start(node.name)


async def restart(world: World) -> None:
    """An orderly stop and a new start."""
    node = anyone(world)
    if not node.is_up:
        return
    with trio.move_on_after(60.0) as scope:
        await world.stop(node.name)
    if scope.cancelled_caught:
        world.checkers.fail(f"{node.name} did not stop in order within 60 s")
        return
    await trio.sleep(world.entropy.uniform(0.1, 10.0))
    if not node.is_up:
        world.start(node.name)


async def pause(world: World) -> None:
    """SIGSTOP, and SIGCONT after a while."""
    node = anyone(world)
    if not node.is_up:
        return
    watch = node.watch
    world.pause(node.name)
    await trio.sleep(world.entropy.uniform(0.1, 25.0))
    if node.watch is watch:
        world.resume(node.name)


async def replaced(world: World) -> None:
    """A worker's machine is lost for good: its node is removed, and a new machine of its name joins."""
    spared = "m1"  # its labels are the clients' registers
    nodes = [node for name, node in world.nodes.items() if name != spared]
    workers = [node for node in nodes if node.is_up and node.raft is None and node.node_id]
    if not workers:
        return
    node = workers[world.entropy.integer(0, len(workers) - 1)]
    lost = node.node_id
    await world.crash(node.name, power=True)
    try:
        await world.ask(manager(world), RemoveNode(lost, force=True))
    except SwarmError as error:
        world.checkers.probe(f"removal {error.code.value}")
    if lost not in {one.id for one in world.checkers.store.nodes()}:
        world.replace(node.name)
        world.checkers.probe("machine replaced")
    if not node.is_up:
        world.start(node.name)


async def partition(world: World) -> None:
    """Two halves that do not reach each other."""
    names = list(world.nodes)
    left = [name for name in names if world.entropy.integer(0, 1)]
    right = [name for name in names if name not in left]
    pairs = [(one, other) for one in left for other in right]
    await _blocked(world, [*pairs, *((other, one) for one, other in pairs)])


async def isolate(world: World) -> None:
    """One machine is cut off."""
    name = anyone(world).name
    others = [other for other in world.nodes if other != name]
    await _blocked(world, [*((name, other) for other in others), *((other, name) for other in others)])


async def one_way(world: World) -> None:
    """One machine is heard and hears nothing, or the reverse."""
    name = anyone(world, managers=True).name
    others = [other for other in world.nodes if other != name]
    deaf = world.entropy.integer(0, 1)
    await _blocked(world, [(other, name) if deaf else (name, other) for other in others])


async def _blocked(world: World, pairs: list[tuple[str, str]]) -> None:
    for pair in pairs:
        world.network.block(*pair)
    try:
        await trio.sleep(world.entropy.uniform(0.2, 45.0))
    finally:
        for pair in pairs:
            world.network.unblock(*pair)


async def clog(world: World) -> None:
    """Node by node becomes slow, then fast again in another order."""
    names = list(world.nodes)
    for name in names:
        world.network.slow[name] = world.entropy.uniform(0.05, 2.0)
        await trio.sleep(world.entropy.uniform(0.0, 1.0))
    while names:
        world.network.slow.pop(names.pop(world.entropy.integer(0, len(names) - 1)), None)
        await trio.sleep(world.entropy.uniform(0.0, 1.0))


async def cut(world: World) -> None:
    """All connections of a machine break."""
    world.network.cut(anyone(world).name)


async def refuse(world: World) -> None:
    """A machine takes no new connections."""
    name = anyone(world).name
    world.network.refusing.add(name)
    await trio.sleep(world.entropy.uniform(0.5, 10.0))
    world.network.refusing.discard(name)


async def full_disk(world: World) -> None:
    """Nothing can be written for a while."""
    machine = anyone(world, managers=True).machine
    machine.fill_disk(full=True)
    await trio.sleep(world.entropy.uniform(0.5, 15.0))
    machine.fill_disk(full=False)


async def clock_jump(world: World) -> None:
    """A wall clock is set."""
    anyone(world).machine.clock.skew_s += world.entropy.uniform(-60.0, 60.0)


async def kill_tasks(world: World) -> None:
    """Processes die by themselves."""
    tasks = [task for task in anyone(world).machine.tasks.tasks.values() if task.is_running]
    for task in tasks:
        if world.entropy.integer(0, 1):
            task.end_by(trio.current_time(), Exit(137, "killed (SIGKILL)"))


FAULTS: dict[str, Callable[[World], Awaitable[None]]] = {
    "crash": crash,
    "pause": pause,
    "replaced": replaced,
    "power": power,
    "restart": restart,
    "partition": partition,
    "isolate": isolate,
    "one-way": one_way,
    "clog": clog,
    "cut": cut,
    "refuse": refuse,
    "full-disk": full_disk,
    "clock-jump": clock_jump,
    "kill-tasks": kill_tasks,
}
