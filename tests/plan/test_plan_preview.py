"""What `--plan` shows: the real planners' answer, and nothing changed."""

from __future__ import annotations

from orch_world import CountingIds, World, spec

from swarm.model.ids import NodeId
from swarm.model.specs import Global, Mode, Placement, Replicated, ReplicatedJob, UpdateConfig
from swarm.model.states import Availability, UpdateOrder, UpdateState
from swarm.plan.preview import PlannedStep, dump_of, preview, preview_slices


def running(replicas: int = 4) -> World:
    world = World("a b c")
    world.create(spec(replicas=replicas))
    world.run()
    return world


def planned(
    world: World, replicas: int = 4, name: str = "web", mode: Mode | None = None, **fields: object
) -> list[PlannedStep]:
    before = world.store.version
    steps = preview(world.store, spec(name, replicas, mode=mode, **fields), world.now, CountingIds("p"))  # type: ignore[arg-type]
    assert world.store.version == before
    return steps


def verbs(steps: list[PlannedStep]) -> list[str]:
    return [step.verb for step in steps]


def test_scaling_up_and_down() -> None:
    assert verbs(planned(running(2), 4)) == ["keep", "keep", "start", "start"]
    steps = planned(running(4), 2)
    assert verbs(steps) == ["keep", "keep", "stop", "stop"]
    assert "scaled down to 2" in steps[-1].text


def test_a_new_service_and_one_that_fits_nowhere() -> None:
    world = running(1)
    steps = planned(world, 2, "new")
    assert verbs(steps) == ["start", "start"] and all(step.node_name for step in steps)
    steps = planned(world, 1, "new", placement=Placement(constraints=("node.hostname == nowhere",)))
    assert steps[0].node_id == "" and "constraints not met" in steps[0].text


def test_an_update_shows_what_is_replaced_where() -> None:
    for order in UpdateOrder:
        steps = planned(running(3), 3, version="2", update=UpdateConfig(delay_s=600, order=order))
        assert {step.slot for step in steps} == {1, 2, 3}
        assert "keep" not in verbs(steps)


def test_a_move_names_both_nodes() -> None:
    world = running(1)
    steps = planned(world, 1, placement=Placement(constraints=("node.hostname == c",)))
    assert [(step.verb, step.node_name) for step in steps] == [("move", "c")]
    assert "from node a" in steps[0].text


def test_global_services_and_jobs() -> None:
    world = running(1)
    world.set_node("b", availability=Availability.DRAIN)
    assert [step.node_id for step in planned(world, 0, "g", mode=Global())] == ["a", "c"]
    assert len(planned(world, 0, "j", mode=ReplicatedJob(2, 10))) == 2


def test_what_follows_a_paused_update_is_not_paused() -> None:
    world = running(3)
    world.broken = {"2"}
    world.declare(spec(replicas=3, version="2"))
    world.pass_time(60)
    assert world.update_state() is UpdateState.PAUSED
    steps = planned(world, 3, version="3")
    assert {step.slot for step in steps if step.verb != "stop"} == {1, 2, 3} and "keep" not in verbs(steps)


def test_a_large_update_is_rehearsed_in_few_steps() -> None:
    world = World("a b")
    world.create(spec(replicas=300))
    world.run()
    steps = planned(world, 300, version="2", update=UpdateConfig(parallelism=1, delay_s=10))
    assert len({step.slot for step in steps}) == 300


def test_a_large_plan_is_made_in_small_slices() -> None:
    """Whoever computes it answers others in between; a leader that did not would lose its followers."""
    world = running(2000)
    slices = preview_slices(dump_of(world.store), world.store.version, spec(replicas=5000), world.now, CountingIds("p"))
    assert sum(1 for _ in slices) > 2000 // 500 + 3000 // 250 + 3000 // 1000 + 3000 // 500 + 5000 // 500


def test_the_plan_is_what_then_happens() -> None:
    world = running(3)
    world.set_node("c", availability=Availability.PAUSE)
    steps = planned(world, 5)
    world.declare(spec(replicas=5))
    world.run()
    happened = {task.slot: task.node_id for task in world.running()}
    assert {step.slot: step.node_id for step in steps} == happened
    assert isinstance(world.service().spec.mode, Replicated)
    assert NodeId("c") in happened.values()
