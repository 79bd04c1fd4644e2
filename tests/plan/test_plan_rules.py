"""The list of the reference's rules names what exists; and rules that no other file holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import schedule_world
from attrs import evolve
from orch_invariants import check
from orch_world import World, nothing_to_do, planners, spec

from swarm.model.changes import Delete, Kind
from swarm.model.events import Event
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.objects import Service, Task, TaskStatus
from swarm.model.reasons import ReasonCode
from swarm.model.specs import (
    GenericResource,
    Global,
    GlobalJob,
    Mode,
    Replicated,
    ReplicatedJob,
    RestartPolicy,
    UpdateConfig,
)
from swarm.model.states import Availability, FailureAction, NodeState, Origin, RestartCondition, TaskState, UpdateState
from swarm.model.store import Store
from swarm.plan.schedule.filters import Filter

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/design/orchestration-rules.md"
NEVER = RestartPolicy(RestartCondition.NONE, delay_s=0)
AT_ONCE = RestartPolicy(delay_s=0)


# --- the list ----------------------------------------------------------------------------------------------------------
def _rows() -> list[list[str]]:
    lines = [line for line in DOCUMENT.read_text().splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _tests() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        found.update(n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return found


def test_every_rule_names_files_and_tests_that_exist() -> None:
    assert not set(re.findall(r"`(test_\w+)`", DOCUMENT.read_text())) - _tests()
    for row in _rows():
        rule, held = row[0], re.findall(r"`(test_\w+)`", row[-1])
        if len(row) == 2:
            assert held, rule
            continue
        _, stands, decided, _ = row
        assert stands in ("ref", "own", "none"), rule
        assert bool(held) is (stands != "none"), rule
        assert stands == "none" or (ROOT / "swarm" / decided).is_file(), f"{rule}: {decided}"


def test_no_section_is_left_out() -> None:
    sections = {row[0].split()[0].split(".")[0] for row in _rows()}
    assert sections == {str(number) for number in (*range(1, 18), 24)}


# --- who decides -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", [Replicated(1), Global(), ReplicatedJob(1, 1), GlobalJob()])
def test_each_kind_of_service_has_one_planner(mode: Mode) -> None:
    service = Service(ServiceId("s"), spec(mode=mode))
    iteration = 0 if isinstance(mode, ReplicatedJob | GlobalJob) else None
    slot = Slot(1 if isinstance(mode, Replicated) else 0)
    task = Task(TaskId("t"), service.id, RevisionNumber(1), slot, job_iteration=iteration)
    orchestrators = [planner for planner in planners() if planner.name != "reap"]
    assert len([p for p in orchestrators if p.owns(service)]) == 1  # type: ignore[attr-defined]  # they are Orchestrators
    assert [p.owns(service) for p in orchestrators] == [p.owns_task(task) for p in orchestrators]  # type: ignore[attr-defined]


TASK = Task(TaskId("t"), ServiceId("s"), RevisionNumber(1), Slot(1))
RUNNING = evolve(TASK, node_id=NodeId("a"), status=TaskStatus(TaskState.RUNNING))


@pytest.mark.parametrize(
    ("author", "before", "after"),
    [
        ("replicated", RUNNING, evolve(RUNNING, status=TaskStatus(TaskState.FAILED))),
        ("jobs", RUNNING, None),
        ("scheduler", TASK, evolve(TASK, desired=TaskState.SHUTDOWN)),
        ("scheduler", RUNNING, evolve(RUNNING, status=TaskStatus(TaskState.FAILED))),
        ("enforce", RUNNING, evolve(RUNNING, status=TaskStatus(TaskState.SHUTDOWN))),
        ("reap", RUNNING, None),
        ("reap", evolve(RUNNING, desired=TaskState.SHUTDOWN), None),
        ("global", None, evolve(RUNNING, id=TaskId("new"))),
        ("", RUNNING, evolve(RUNNING, desired=TaskState.READY)),
        ("", RUNNING, evolve(RUNNING, node_id=NodeId("b"))),
        ("", TASK, evolve(TASK, status=TaskStatus(TaskState.RUNNING))),
    ],
)
def test_orchestrators_write_no_status(author: str, before: Task | None, after: Task | None) -> None:
    """Nor does anybody else write what is not its own: what every world here is checked for does find it."""
    with pytest.raises(AssertionError):
        check(Store(), Event(Kind.TASK, before, after), author)


def test_a_rejection_outlasts_the_report_of_the_stop() -> None:
    world = World("a")
    world.create(spec())
    world.run()
    world.report("t1", TaskState.REJECTED, error="no longer fits")
    world.report("t1", TaskState.SHUTDOWN)
    assert world.task("t1").status.state is TaskState.REJECTED


# --- slots -------------------------------------------------------------------------------------------------------------
def test_a_finished_slot_counts_except_during_a_rollback() -> None:
    world = World("a b")
    update = UpdateConfig(failure_action=FailureAction.ROLLBACK, monitor_s=1, parallelism=0)
    world.create(spec(replicas=2, restart=NEVER, rollback=UpdateConfig(parallelism=1, delay_s=100, monitor_s=1)))
    world.run()
    world.report("t1", TaskState.COMPLETE)
    world.run()
    world.touch()
    world.run()
    assert len(world.tasks()) == 2, "its slot is served for good"
    world.broken = {"2"}
    slowly = UpdateConfig(parallelism=1, delay_s=100, monitor_s=1)
    world.declare(spec(replicas=2, version="2", restart=NEVER, update=update, rollback=slowly))
    world.pass_time(5)
    assert world.update_state() is UpdateState.ROLLBACK_COMPLETED
    assert world.programs() == ["1", "1"], "what the failed update left behind is made anew at once, and not rolled"


def test_the_history_of_a_slot_that_nothing_uses_goes() -> None:
    world = World("a b c")
    world.create(spec(replicas=3, restart=AT_ONCE))
    world.run()
    world.report("t3", TaskState.FAILED)
    world.run()
    (live,) = (task for task in world.live() if task.slot == 3)
    world.commit(Delete(Kind.TASK, live.id))
    service = world.service()
    world.declare(evolve(service.spec, mode=Replicated(2)))
    world.run()
    assert {task.slot for task in world.tasks()} == {1, 2}


# --- leaders -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", [Replicated(3), Global()])
def test_a_new_leader_finds_what_happened_while_nobody_led(mode: Mode) -> None:
    """A task that failed, a node that is lost, a record that is gone, a service that changed: no event tells of them."""
    world = World("a b c")
    world.create(spec(mode=mode, restart=AT_ONCE))
    world.run()
    failed, lost, gone = sorted(world.running(), key=lambda task: task.node_id)
    world.report(failed.id, TaskState.FAILED)
    world.set_node(lost.node_id, state=NodeState.DOWN)
    world.commit(Delete(Kind.TASK, gone.id))
    world.new_leader()
    world.run()
    serving = {task.node_id for task in world.running()} - {lost.node_id}
    assert serving == {failed.node_id, gone.node_id}
    assert not {failed.id, gone.id} & {task.id for task in world.running()}
    assert not nothing_to_do(world)


# --- restarts and updates ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("condition", list(RestartCondition))
def test_a_rejection_is_an_end_like_any_other(condition: RestartCondition) -> None:
    world = World("a")
    world.create(spec(restart=RestartPolicy(condition, delay_s=0)))
    world.run()
    world.report("t1", TaskState.REJECTED, error="no longer fits")
    world.run()
    assert len(world.running()) == (0 if condition is RestartCondition.NONE else 1)
    reason = world.task("t1").reason
    assert reason is not None
    expected = ReasonCode.NOT_RESTARTED if condition is RestartCondition.NONE else ReasonCode.RESTARTED
    assert reason.code is expected and "no longer fits" in reason.text


def test_a_step_that_completes_has_failed_its_update() -> None:
    """A service's task is to go on running: one that ends well within the monitoring has not."""
    world = World("a b")
    world.create(spec(replicas=2))
    world.run()
    world.declare(spec(replicas=2, version="2", update=UpdateConfig(delay_s=60, monitor_s=10)))
    world.pass_time(6)
    (step,) = (task for task in world.running() if task.origin is Origin.UPDATE)
    world.report(step.id, TaskState.COMPLETE)
    world.run()
    assert world.update_state() is UpdateState.PAUSED


# --- the scheduler -------------------------------------------------------------------------------------------------------
GPU = (GenericResource("gpu", 1),)


def _blocked() -> tuple[schedule_world.World, TaskId, TaskId]:
    """One node with one card, which `holder` has and `waiting` needs."""
    world = schedule_world.World()
    world.node("n1", generic=GPU)
    world.service("web", generic=GPU)
    (holder,) = world.tasks("web", 1)
    world.run()
    (waiting,) = world.tasks("web", 1)
    world.run()
    assert (world.where(holder), world.where(waiting)) == ("n1", "")
    return world, holder, waiting


@pytest.mark.parametrize("event", ["stopped", "failed", "deleted", "joined", "grown", "woken"])
def test_every_event_that_frees_or_fits_lets_a_waiting_task_go(event: str) -> None:
    world, holder, waiting = _blocked()
    match event:
        case "stopped":
            world.status(holder, TaskState.SHUTDOWN, TaskState.SHUTDOWN)
        case "failed":
            world.status(holder, TaskState.FAILED)
        case "deleted":
            world.status(holder, TaskState.SHUTDOWN, TaskState.SHUTDOWN)
            world.apply(Delete(Kind.TASK, holder))
        case "joined":
            world.node("n2", generic=GPU)
        case "grown":
            world.node("n1", generic=(GenericResource("gpu", 2),))
        case "woken":
            world.node("n2", generic=GPU, state=NodeState.DOWN)
            world.run()
            assert world.where(waiting) == ""
            world.set_state("n2", NodeState.READY)
    world.run()
    assert world.where(waiting)


def test_what_waiting_cannot_change_is_said_first() -> None:
    """The order of the filters: a node that can never take the task is not reported as full."""
    world = schedule_world.World()
    world.node("n1", memory=1)
    world.service("web", memory=2, constraints=("node.hostname == n2",))
    (id,) = world.tasks("web", 1)
    world.run()
    assert world.error(id) == "no suitable node (constraints not met on 1 node)"
    world.node("n1", memory=1, availability=Availability.PAUSE)
    world.wait(2)
    assert world.error(id) == "no suitable node (1 node not available for new tasks)"
    assert list(Filter) == sorted(Filter) and Filter.READY < Filter.CONSTRAINTS < Filter.RESOURCES < Filter.MAX_REPLICAS
