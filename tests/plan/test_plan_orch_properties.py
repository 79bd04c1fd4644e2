"""Properties of the orchestrators under any sequence of disturbances.

Never above what the order allows, never below what is promised, at rest on one's own result, the same from any leader, and when
the disturbances end, exactly the wanted tasks.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from orch_world import World, nothing_to_do, planners, spec

from swarm.model.changes import Delete, Kind
from swarm.model.events import Event
from swarm.model.ids import NodeId
from swarm.model.objects import Task
from swarm.model.specs import (
    Global,
    GlobalJob,
    Mode,
    Replicated,
    ReplicatedJob,
    RestartPolicy,
    ServiceSpec,
    UpdateConfig,
)
from swarm.model.states import Availability, FailureAction, NodeState, TaskState, UpdateOrder, UpdateState
from swarm.plan.enforce import ConstraintEnforcer
from swarm.plan.progress import service_facts
from swarm.plan.schedule.planner import Scheduler

Action: TypeAlias = "tuple[str, int]"

NODES = "abcd"
EXAMPLES = 50
CALM = ("run", "settle", "step", "time", "leader", "touch", "plan", "complete")
"""What disturbs nothing."""
TROUBLE = ("fail", "reject", "down", "back", "disconnect", "drain", "pause", "activate", "forget", "stubborn", "full")
MACHINES = ("remove_node", "add_node")
CHANGES = ("scale", "update", "start_first", "wide", "roll_back")


def actions(*names: str, size: int = 25) -> st.SearchStrategy[list[Action]]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(0, 11)), max_size=size)


def declared(mode: Mode, version: str = "1", **update: object) -> ServiceSpec:
    config = UpdateConfig(monitor_s=2.0, **update)  # type: ignore[arg-type]
    return spec(mode=mode, version=version, restart=RestartPolicy(delay_s=1.0), update=config, rollback=config)


class Player:
    """Plays actions on a world with one service."""

    def __init__(self, mode: Mode, *, everybody: bool = False, **update: object) -> None:
        self.world = World(" ".join(NODES), all=[*planners(), Scheduler(), ConstraintEnforcer()] if everybody else [])
        self.version = 1
        self.world.lasting = True
        self.world.create(declared(mode, **update))
        self.world.run()

    def play(self, action: Action) -> None:
        name, number = action
        getattr(self, f"do_{name}")(number)

    def pick(self, number: int) -> Task | None:
        live = [task for task in self.world.live() if task.status.state < TaskState.COMPLETE]
        return live[number % len(live)] if live else None

    def node(self, number: int) -> str:
        nodes = list(self.world.store.nodes())
        return nodes[number % len(nodes)].id

    # calm
    def do_run(self, number: int) -> None:
        self.world.run()

    def do_settle(self, number: int) -> None:
        self.world.settle()

    def do_plan(self, number: int) -> None:
        self.world.rehearsal.plan_once()

    def do_late(self, number: int) -> None:
        self.world.plan_late(number % 4)

    def do_step(self, number: int) -> None:
        self.world.settle()
        self.world.place()
        self.world.agents()

    def do_time(self, number: int) -> None:
        self.world.pass_time(number)

    def do_leader(self, number: int) -> None:
        self.world.new_leader()

    def do_touch(self, number: int) -> None:
        self.world.touch()

    def do_complete(self, number: int) -> None:
        task = self.pick(number)
        if task is not None and task.status.state >= TaskState.RUNNING and task.job_iteration is not None:
            self.world.report(task.id, TaskState.COMPLETE)

    # trouble
    def do_fail(self, number: int) -> None:
        task = self.pick(number)
        if task is not None and task.status.state >= TaskState.ASSIGNED:
            self.world.report(task.id, TaskState.FAILED, error="exit code 1")

    def do_reject(self, number: int) -> None:
        task = self.pick(number)
        if task is not None and task.status.state >= TaskState.ASSIGNED:
            self.world.report(task.id, TaskState.REJECTED, error="no longer fits")

    def do_down(self, number: int) -> None:
        self.world.set_node(self.node(number), state=NodeState.DOWN)

    def do_disconnect(self, number: int) -> None:
        self.world.set_node(self.node(number), state=NodeState.DISCONNECTED)

    def do_back(self, number: int) -> None:
        self.world.set_node(self.node(number), state=NodeState.READY)

    def do_drain(self, number: int) -> None:
        self.world.set_node(self.node(number), availability=Availability.DRAIN)

    def do_pause(self, number: int) -> None:
        self.world.set_node(self.node(number), availability=Availability.PAUSE)

    def do_activate(self, number: int) -> None:
        self.world.set_node(self.node(number), availability=Availability.ACTIVE)

    def do_forget(self, number: int) -> None:
        tasks = self.world.tasks()
        if tasks:
            self.world.commit(Delete(Kind.TASK, tasks[number % len(tasks)].id))

    def do_stubborn(self, number: int) -> None:
        task = self.pick(number)
        if task is not None:
            self.world.stubborn.add(task.id)

    def do_full(self, number: int) -> None:
        self.world.full ^= {NodeId(self.node(number))}

    def do_remove_node(self, number: int) -> None:
        if len(list(self.world.store.nodes())) > 2:
            self.world.remove_node(self.node(number))

    def do_add_node(self, number: int) -> None:
        self.world.add_node(f"n{self.world.store.version}")

    # changes
    def do_scale(self, number: int) -> None:
        service = self.world.service()
        if isinstance(service.spec.mode, Replicated):
            self.world.declare(evolve(service.spec, mode=Replicated(number % 7)))

    def _update(self, **update: object) -> None:
        self.version += 1
        self.world.declare(declared(self.world.service().spec.mode, str(self.version), **update))

    def do_update(self, number: int) -> None:
        self._update(parallelism=1, failure_action=list(FailureAction)[number % 3], delay_s=float(number % 2))

    def do_start_first(self, number: int) -> None:
        self._update(parallelism=number % 3, order=UpdateOrder.START_FIRST)

    def do_wide(self, number: int) -> None:
        self._update(parallelism=0)

    def do_roll_back(self, number: int) -> None:
        service = self.world.service()
        previous = service.previous
        if previous is not None and self.world.store.revision(service.id, previous) is not None:
            self.world.roll_back()

    # the end
    def heal_nodes(self) -> None:
        """Every node that is left is well again, and every task stops when it is told to."""
        self.world.stubborn.clear()
        self.world.full.clear()
        self.world.lasting = False
        for node in list(self.world.store.nodes()):
            self.world.set_node(node.id, state=NodeState.READY, availability=Availability.ACTIVE)

    def heal(self) -> None:
        """No more disturbances; an update that was paused by them is asked for once more."""
        world = self.world
        self.heal_nodes()
        world.pass_time(500)
        if world.update_state() in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED):
            self._update(parallelism=0)
            world.pass_time(500)


def assert_at_rest(world: World) -> None:
    """Nothing is left to do for anybody, and a new leader sees it the same way."""
    assert not nothing_to_do(world)
    version = world.store.version
    world.new_leader()
    world.run()
    assert world.store.version == version
    limit = world.store.cluster.settings.task_history_limit  # type: ignore[union-attr]
    for count in Counter((task.slot, task.slot or task.node_id) for task in world.tasks()).values():
        assert count <= limit
    facts = service_facts(world.store, world.service().id, world.now)
    assert facts.converged or facts.text.startswith("the update failed and was rolled back"), facts


@settings(max_examples=EXAMPLES, deadline=None)
@given(actions(*CALM, *TROUBLE, *CHANGES), st.integers(0, 6))
@example([("update", 1), ("run", 0), ("fail", 2)], 3)  # a slot that waits for its turn is restarted from the new spec
def test_a_replicated_service_converges_to_exactly_the_wanted(script: list[Action], replicas: int) -> None:
    player = Player(Replicated(replicas))
    world = player.world
    for action in script:
        player.play(action)
        if action[0] in ("run", "settle", "time"):
            live = Counter(task.slot for task in world.live() if not task.status.state.is_terminal)
            assert max(live.values(), default=0) <= 3
    player.heal()
    mode = world.service().spec.mode
    assert isinstance(mode, Replicated)
    assert len(world.live()) == len(world.running()) == mode.replicas
    assert len({task.slot for task in world.running()}) == mode.replicas
    assert_at_rest(world)


@settings(max_examples=EXAMPLES, deadline=None)
@given(actions(*CALM, *TROUBLE, "update", "start_first", "wide", "roll_back"))
def test_a_global_service_converges_to_one_on_every_node(script: list[Action]) -> None:
    player = Player(Global())
    for action in script:
        player.play(action)
    player.heal()
    assert sorted(task.node_id for task in player.world.live()) == list(NODES)
    assert sorted(task.node_id for task in player.world.running()) == list(NODES)
    assert_at_rest(player.world)


@settings(max_examples=EXAMPLES, deadline=None)
@given(actions(*CALM, *TROUBLE, "update"), st.sampled_from([ReplicatedJob(2, 5), ReplicatedJob(5, 3), GlobalJob()]))
def test_a_job_completes_every_slot(script: list[Action], mode: Mode) -> None:
    player = Player(mode)
    world = player.world
    for action in script:
        player.play(action)
    player.heal()
    done = [task for task in world.tasks() if task.status.state is TaskState.COMPLETE]
    if isinstance(mode, ReplicatedJob):
        assert {task.slot for task in done} == set(range(mode.total_completions))
    else:
        assert {task.node_id for task in done} == set(NODES)
    assert_at_rest(world)


def one_at_a_time(world: World, event: Event) -> None:
    """A task that may start from now on finds nothing in its slot that may still run."""
    task = event.after
    if not isinstance(task, Task) or not TaskState.RUNNING <= task.desired <= TaskState.COMPLETE:
        return
    if isinstance(event.before, Task) and event.before.desired is task.desired:
        return
    beside = [
        other
        for other in world.tasks()
        if (other.slot, other.job_iteration) == (task.slot, task.job_iteration)
        and other.id != task.id
        and TaskState.ASSIGNED <= other.status.state <= TaskState.RUNNING
        and (isinstance(world.service().spec.mode, Replicated | ReplicatedJob) or other.node_id == task.node_id)
    ]
    assert not beside, (task, beside)


@settings(max_examples=EXAMPLES, deadline=None)
@given(actions(*CALM, "late", "fail", "reject", "scale", "update", "wide", "roll_back", "full"), st.integers(1, 5))
@example([("scale", 2), ("settle", 0), ("wide", 0), ("late", 1)], 1)  # placed while the update made its plan
def test_stop_first_never_runs_two_tasks_of_a_slot(script: list[Action], replicas: int) -> None:
    """As long as no node is lost or drained and every task stops when it is told to."""
    player = Player(Replicated(replicas))
    player.world.checks.append(one_at_a_time)
    for action in script:
        player.play(action)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    actions(*CALM, "late", "fail", "reject", "drain", "activate", "pause", "full", "update"),
    st.sampled_from([ReplicatedJob(2, 4), ReplicatedJob(4, 3), GlobalJob(), Global()]),
)
def test_neither_a_job_nor_a_global_service_runs_two_tasks_of_a_slot(script: list[Action], mode: Mode) -> None:
    """Drains included, as long as no node is lost and every task stops when it is told to; a job's runs are apart."""
    player = Player(mode)
    player.world.checks.append(one_at_a_time)
    for action in script:
        player.play(action)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    actions("run", "settle", "step", "time", "leader", "touch", "plan", size=40),
    st.sampled_from(UpdateOrder),
    st.integers(1, 3),
)
def test_an_update_keeps_its_promises_step_by_step(script: list[Action], order: UpdateOrder, parallelism: int) -> None:
    """Start-first: never fewer than wanted run. Stop-first: never fewer by more than the parallelism, never more at all."""
    replicas = 5
    player = Player(Replicated(replicas))
    world = player.world

    def look(world: World, event: Event) -> None:
        running, live = len(world.running()), len(world.live())
        if order is UpdateOrder.START_FIRST:
            assert running >= replicas and live <= replicas + parallelism
        else:
            assert running >= replicas - parallelism and live <= replicas

    world.declare(declared(Replicated(replicas), "2", order=order, parallelism=parallelism))
    world.checks.append(look)
    for action in script:
        player.play(action)
    world.pass_time(100)
    assert world.programs() == ["2"] * replicas
    assert_at_rest(world)


@settings(max_examples=EXAMPLES, deadline=None)
@given(actions("run", "step", "drain", "activate", "down", "back", "leader", "time", size=20))
def test_drains_never_take_a_running_replica_away(script: list[Action]) -> None:
    """A slot that runs goes on running, here or elsewhere, unless its node is lost."""
    player = Player(Replicated(3))
    world = player.world
    served: set[int] = {1, 2, 3}

    def look(world: World, event: Event) -> None:
        nonlocal served
        ready = {node.id for node in world.store.nodes() if node.status.state is NodeState.READY}
        now = {task.slot for task in world.running() if task.node_id in ready}
        if isinstance(event.object, Task):
            assert served <= now
        served = now

    world.checks.append(look)
    for action in script:
        player.play(action)
        served = {
            task.slot
            for task in world.running()
            if (node := world.store.node(task.node_id)) and node.status.state is NodeState.READY
        }
    player.heal()
    assert_at_rest(world)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    actions(*CALM, *TROUBLE, *CHANGES, *MACHINES),
    st.sampled_from([Replicated(3), Global(), ReplicatedJob(2, 4), GlobalJob()]),
)
def test_all_planners_together_converge(script: list[Action], mode: Mode) -> None:
    """With the real scheduler and the enforcer at work."""
    player = Player(mode, everybody=True)
    for action in script:
        player.play(action)
    player.heal()
    assert_at_rest(player.world)
