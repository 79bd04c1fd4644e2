"""A look at a whole service that takes several calls comes to what a look in one go would come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from orch_world import CountingIds, World, spec
from test_plan_orch_properties import CALM, CHANGES, TROUBLE, Action, Player, actions, assert_at_rest

from swarm.model.changes import Advance, Group
from swarm.model.events import Event
from swarm.model.objects import Task
from swarm.model.specs import Global, Mode, Replicated, ReplicatedJob
from swarm.model.states import TaskState
from swarm.plan import orchestrator, reap
from swarm.plan.keys import ALL, part_key
from swarm.plan.replicated import ReplicatedPlanner

EXAMPLES = 50
LOOKS = st.sampled_from([1, 2, 5])


@contextmanager
def looking_at(slots: int) -> Iterator[None]:
    """No call looks at more slots of whole services."""
    with mock.patch.object(orchestrator, "LOOKS", slots), mock.patch.object(reap, "LOOKS", slots):
        yield


def planned_by_a_new_leader(world: World) -> tuple[list[Group], int]:
    """The first groups that it plans for all services, and the calls that it took."""
    planner = ReplicatedPlanner()
    memory, first = planner.start(world.store)
    keys, calls = tuple(first), 0
    while keys:
        plan = planner.plan(world.store, keys, memory, world.now, CountingIds("x"))
        memory, calls = plan.memory, calls + 1
        if plan.groups:
            return list(plan.groups), calls
        keys = plan.again
    return [], calls


@settings(max_examples=EXAMPLES, deadline=None)
@given(actions(*CALM, *TROUBLE, *CHANGES), st.integers(0, 8), LOOKS)
def test_a_new_leader_plans_the_same_in_slices(script: list[Action], replicas: int, slots: int) -> None:
    player = Player(Replicated(replicas))
    for action in script:
        player.play(action)
    whole, _ = planned_by_a_new_leader(player.world)
    with looking_at(slots):
        sliced, _ = planned_by_a_new_leader(player.world)
    assert sliced == whole


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    actions(*CALM, *TROUBLE, *CHANGES),
    st.sampled_from([Replicated(0), Replicated(4), Replicated(7), Global(), ReplicatedJob(2, 4)]),
    LOOKS,
)
def test_services_that_are_looked_at_in_slices_converge(script: list[Action], mode: Mode, slots: int) -> None:
    player = Player(mode)
    world = player.world
    with looking_at(slots):
        for action in script:
            if not (isinstance(mode, ReplicatedJob) and action[0] == "roll_back"):
                player.play(action)
        player.heal()
        assert_at_rest(world)
    assert_at_rest(world)
    mode = world.service().spec.mode
    if isinstance(mode, Replicated):
        assert (
            len(world.live()) == len(world.running()) == len({task.slot for task in world.running()}) == mode.replicas
        )


@settings(max_examples=EXAMPLES, deadline=None)
@given(actions(*CALM, "fail", "reject", "scale", "update", "wide", "roll_back", "full"), st.integers(1, 6), LOOKS)
def test_slices_never_run_two_tasks_of_a_slot(script: list[Action], replicas: int, slots: int) -> None:
    player = Player(Replicated(replicas))

    def look(world: World, event: Event) -> None:
        running = Counter(task.slot for task in world.tasks() if task.status.state is TaskState.RUNNING)
        assert max(running.values(), default=0) <= 1

    player.world.checks.append(look)
    with looking_at(slots):
        for action in script:
            player.play(action)


def test_a_slot_that_changes_after_it_was_looked_at_is_looked_at_again() -> None:
    world = World("a b")
    world.create(spec(replicas=6))
    world.run()
    planner = ReplicatedPlanner()
    memory, _ = planner.start(world.store)
    key = part_key(world.service().id, ALL)
    with looking_at(4):
        plan = planner.plan(world.store, [key], memory, world.now, CountingIds("x"))
        assert plan.again == (key,) and not plan.groups
        first = next(task for task in world.tasks() if task.slot == 1)
        stopped = Advance(first.id, desired=TaskState.REMOVE)
        _, events = world.store.apply([(stopped,)], world.store.version + 1)
        for event in events:
            planner.dirty(event, plan.memory)
        plan = planner.plan(world.store, plan.again, plan.memory, world.now, CountingIds("x"))
    (group,) = plan.groups
    assert [change.object.slot for change in group if isinstance(change.object, Task)] == [1]
    assert not plan.memory.surveys


def test_a_look_that_no_event_told_enough_begins_again() -> None:
    world = World("a b")
    world.create(spec(replicas=6))
    world.run()
    planner = ReplicatedPlanner()
    memory, _ = planner.start(world.store)
    key = part_key(world.service().id, ALL)
    with looking_at(4):
        plan = planner.plan(world.store, [key], memory, world.now, CountingIds("x"))
        other = next(task for task in world.tasks() if task.slot == 6)
        survey = plan.memory.surveys[world.service().id]
        survey.ahead.remove(other.slot)
        calls = 0
        while plan.again:
            plan = planner.plan(world.store, plan.again, plan.memory, world.now, CountingIds("x"))
            calls += 1
    assert calls == 3
    assert not plan.groups and not plan.memory.surveys
