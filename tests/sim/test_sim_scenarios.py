"""Stories with a plot: what an operator fears most, one at a time, in a whole simulated cluster."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
import trio
from attrs import evolve

from swarm.model.specs import ProcessSpec, Replicated, RestartPolicy, ServiceSpec, TaskSpec, UpdateConfig
from swarm.model.states import Availability, Role
from swarm.runtime.errors import SwarmError
from swarm.testing.world import World, run_world
from swarm.wire.messages.control import CreateService, GetNode, GetService, RemoveNode, UpdateNode, UpdateService
from tests.sim.intruder import FORBIDDEN, intruder

pytestmark = pytest.mark.timeout(300)


def holds(seed: str, story: Callable[[World], Awaitable[None]]) -> None:
    outcome = run_world(seed, story)
    assert outcome.violations == []


def spec_of(replicas: int, *words: str) -> ServiceSpec:
    task = TaskSpec(ProcessSpec(("work", *words)), restart=RestartPolicy(delay_s=0.5))
    return ServiceSpec("web", task, Replicated(replicas), update=UpdateConfig(2, 0.5, monitor_s=1), replace_after_s=5)


def manager_of(world: World) -> str:
    return next(node.name for node in world.nodes.values() if node.is_up and node.raft is not None)


async def until_done(world: World, act: Callable[[], Awaitable[object]]) -> None:
    """As an operator does it: again, after reading again, when it was not taken."""
    for _ in range(120):
        try:
            await act()
            return
        except SwarmError:
            await trio.sleep(0.5)
    world.checkers.fail("an operator's change was not taken within a minute")


async def change(world: World, spec: ServiceSpec) -> None:
    async def act() -> None:
        service = (await world.ask(manager_of(world), GetService("web"))).service
        if service.spec != spec:
            await world.ask(manager_of(world), UpdateService(service.id, service.version, spec))

    await until_done(world, act)


async def change_node(world: World, name: str, **fields: object) -> None:
    async def act() -> None:
        node = (await world.ask(manager_of(world), GetNode(name))).node
        spec = evolve(node.spec, **fields)
        if node.spec != spec:
            await world.ask(manager_of(world), UpdateNode(node.id, node.version, spec))

    await until_done(world, act)


async def begun(world: World, managers: int, workers: int, replicas: int) -> None:
    await world.boot(managers, workers)
    await world.ask("m1", CreateService(spec_of(replicas)))
    await world.converge(60, stays_s=1)


def leader_of(world: World) -> str:
    leader = world.leader
    assert leader is not None
    return leader.name


def test_managers_are_restarted_one_by_one_during_an_update() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 3, 6)
        await change(world, spec_of(6, "two"))
        for name in ("m1", "m2", "m3"):
            await world.stop(name)
            await trio.sleep(1)
            world.start(name)
            await world.nodes[name].ready.wait()
        await world.converge(120)

    holds("rolling", story)


def test_a_node_is_drained_while_the_leader_dies() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 3, 6)
        await change_node(world, "w1", availability=Availability.DRAIN)
        name = leader_of(world)
        await world.crash(name)
        await trio.sleep(40)  # a replacement may have been placed on the machine that died
        assert not world.nodes["w1"].machine.tasks.running()
        world.start(name)
        await world.converge(120)

    holds("drain", story)


def test_the_leader_is_cut_off_together_with_most_workers() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 5, 10)
        old = leader_of(world)
        here = {old, "w1", "w2", "w3", "w4"}
        pairs = [(one, other) for one in here for other in world.nodes if other not in here]
        for one, other in pairs:
            world.network.block(one, other)
            world.network.block(other, one)
        await trio.sleep(60)
        assert leader_of(world) != old
        world.network.heal()
        await world.converge(120)

    holds("cut off", story)


def test_the_disk_of_the_leader_fills_up() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 2, 4)
        old = leader_of(world)
        world.nodes[old].machine.fill_disk(full=True)
        await change(world, spec_of(6))
        await trio.sleep(15)
        assert leader_of(world) != old
        world.nodes[old].machine.fill_disk(full=False)
        await world.converge(120)

    holds("disk", story)


def test_a_service_is_scaled_up_and_down_while_leaders_die() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 3, 2)
        for replicas in (9, 1, 12, 4):
            await change(world, spec_of(replicas))
            name = leader_of(world)
            await world.crash(name, keep_write=replicas > 4)
            await trio.sleep(4)
            world.start(name)
            await world.nodes[name].ready.wait()
        await world.converge(120)

    holds("scale", story)


def test_everybody_is_promoted_and_demoted_again() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 2, 4)
        for _ in range(2):
            for name in ("w1", "w2"):
                await change_node(world, name, desired_role=Role.MANAGER)
            await world.converge(60, stays_s=1)
            for name in ("m1", "m2"):
                await change_node(world, name, desired_role=Role.WORKER)
            await world.converge(120, stays_s=1)
            for name in ("m1", "m2"):
                await change_node(world, name, desired_role=Role.MANAGER)
            for name in ("w1", "w2"):
                await change_node(world, name, desired_role=Role.WORKER)
            await world.converge(120, stays_s=1)

    holds("roles", story)


def test_many_workers_come_back_at_once() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 30, 60)
        await world.crash(leader_of(world))
        for number in range(1, 31):
            world.network.cut(f"w{number}")
        await trio.sleep(5)
        for node in world.nodes.values():
            if not node.is_up:
                world.start(node.name)
        await world.converge(120)

    holds("stampede", story)


def test_a_node_dies_at_the_moment_in_which_it_becomes_a_member() -> None:
    """Seed 1 with --nodes 1,3 at fc8bef6: its number was on disk before anything was in its log, and it never started again."""

    async def story(world: World) -> None:
        await begun(world, 1, 2, 2)
        await change_node(world, "w1", desired_role=Role.MANAGER)
        files = world.nodes["w1"].machine.files
        while not json.loads(files["node.json"])["raft_id"]:
            await trio.sleep(0.0002)
        await world.crash("w1")
        world.start("w1")
        await world.converge(120)

    holds("birth", story)


@pytest.mark.parametrize("after_s", [0.002, 0.005, 0.01, 0.02, 0.05])
def test_a_node_dies_while_it_becomes_a_manager(after_s: float) -> None:
    async def story(world: World) -> None:
        await begun(world, 1, 2, 2)
        await change_node(world, "w1", desired_role=Role.MANAGER)
        while world.nodes["w1"].actor("node/manager/listener") is None:
            await trio.sleep(0.0002)
        await trio.sleep(after_s)
        await world.crash("w1")
        world.start("w1")
        await world.converge(120)

    holds("birth", story)


def test_a_hundred_workers_come_back_at_once() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 100, 100)
        for number in range(1, 101):
            world.network.cut(f"w{number}")
        await world.converge(120)

    holds("hundred", story)


def test_node_by_node_is_clogged_and_freed_in_another_order() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 4, 8)
        names = list(world.nodes)
        for round_number in range(3):
            for name in names:
                world.network.slow[name] = world.entropy.uniform(0.1, 3.0)
                await trio.sleep(world.entropy.uniform(0.1, 2.0))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(change, world, spec_of(8, f"round {round_number}"))
                waiting = list(names)
                while waiting:
                    world.network.slow.pop(waiting.pop(world.entropy.integer(0, len(waiting) - 1)))
                    await trio.sleep(world.entropy.uniform(0.1, 2.0))
        await world.converge(120)

    holds("swizzle", story)


def test_a_paused_leader_finds_out_that_it_leads_no_more() -> None:
    """SIGSTOP: its timers stand still too, so that it wakes up in the belief to lead."""

    async def story(world: World) -> None:
        await begun(world, 3, 2, 4)
        old = leader_of(world)
        term = world.nodes[old].raft.term
        world.pause(old)
        await trio.sleep(20)
        assert leader_of(world) != old
        assert world.nodes[old].raft.is_leader, "its timers went on while it was stopped"
        await change_elsewhere(world, old, spec_of(6))
        world.resume(old)
        await world.converge(120)
        assert world.nodes[old].raft.term > term

    holds("paused", story)


async def change_elsewhere(world: World, not_by: str, spec: ServiceSpec) -> None:
    name = next(one for one in ("m1", "m2", "m3") if one != not_by)

    async def act() -> None:
        service = (await world.ask(name, GetService("web"))).service
        if service.spec != spec:
            await world.ask(name, UpdateService(service.id, service.version, spec))

    await until_done(world, act)


def test_a_machine_is_lost_for_good_and_another_takes_its_name() -> None:
    async def story(world: World) -> None:
        await begun(world, 3, 3, 6)
        lost = world.nodes["w1"].node_id
        await world.crash("w1", power=True)
        await until_done(world, lambda: world.ask(manager_of(world), RemoveNode(lost, force=True)))
        world.replace("w1")
        world.start("w1")
        await world.nodes["w1"].ready.wait()
        await world.converge(120)
        assert world.nodes["w1"].node_id != lost
        assert lost not in {node.id for node in world.checkers.store.nodes()}

    holds("replaced", story)


def test_what_a_worker_and_strangers_may_not_send_reaches_nobody() -> None:
    outcome = run_world("intruder", intruder)
    assert outcome.violations == []
    assert outcome.probes["intruder refused"] == 2 * 2 * 2 * len(FORBIDDEN)
