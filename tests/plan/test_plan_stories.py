"""Stories of services, told as text: `tests/testdata/plan_*.txt`.

Each block gives commands and what followed from them: every decision of the planners with its reason, and every task that began
to run or ended. `create` and `update` take `key=value` pairs; times are seconds since the story began.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from orch_world import NOON, World, spec

from swarm.model.events import Event
from swarm.model.ids import NodeId, TaskId
from swarm.model.objects import Service, Task
from swarm.model.specs import (
    ClusterSettings,
    Global,
    GlobalJob,
    Mode,
    Placement,
    Replicated,
    ReplicatedJob,
    RestartPolicy,
    ServiceSpec,
    UpdateConfig,
)
from swarm.model.states import Availability, FailureAction, NodeState, RestartCondition, TaskState, UpdateOrder

STORIES = sorted(path.name for path in (Path(__file__).parents[1] / "testdata").glob("plan_*.txt"))


class Teller:
    """Plays the commands of a story and tells what happens."""

    def __init__(self) -> None:
        self.world = World(settings=ClusterSettings(replace_after_s=None))
        self.world.checks.append(self._see)
        self.lines: list[str] = []
        self.options: dict[str, dict[str, str]] = {}

    def tell(self, commands: str) -> str:
        """The lines that follow from the commands."""
        self.lines = []
        for line in commands.split("\n"):
            name, *words = line.split()
            getattr(self, f"do_{name}")(*words)
        return "\n".join(self.lines)

    # --- commands --------------------------------------------------------------------------------------------------
    def do_nodes(self, *names: str) -> None:
        for name in names:
            self.world.add_node(name)

    def do_create(self, name: str, *options: str) -> None:
        self.world.create(self._spec(name, options))
        self.world.run()

    def do_update(self, name: str, *options: str) -> None:
        self.world.declare(self._spec(name, options))
        self.world.run()

    def do_scale(self, name: str, replicas: str) -> None:
        self.do_update(name, f"replicas={replicas}")

    def do_rollback(self, name: str) -> None:
        self.world.roll_back(name)
        self.world.run()

    def do_remove(self, name: str) -> None:
        self.world.remove(name)
        self.world.run()

    def do_end(self, task: str, state: str, *error: str) -> None:
        self.world.report(task, TaskState[state.upper()], error=" ".join(error))
        self.world.run()

    def do_node(self, name: str, word: str) -> None:
        if word.upper() in NodeState.__members__:
            self.world.set_node(name, state=NodeState[word.upper()])
        else:
            self.world.set_node(name, availability=Availability[word.upper()])
        self.world.run()

    def do_label(self, name: str, pair: str) -> None:
        key, _, value = pair.partition("=")
        self.world.label_node(name, **{key: value})
        self.world.run()

    def do_full(self, *names: str) -> None:
        self.world.full = {NodeId(name) for name in names}
        self.world.run()

    def do_broken(self, *versions: str) -> None:
        self.world.broken = set(versions)

    def do_stubborn(self, *tasks: str) -> None:
        self.world.stubborn = {TaskId(task) for task in tasks}
        self.world.run()

    def do_wait(self, seconds: str) -> None:
        self.world.pass_time(float(seconds))

    def do_leader(self) -> None:
        self.lines.append(f"{self._time()} a new leader")
        self.world.new_leader()
        self.world.run()

    # --- specs -----------------------------------------------------------------------------------------------------
    def _spec(self, name: str, options: tuple[str, ...]) -> ServiceSpec:
        given = self.options.setdefault(name, {})
        given.update(option.split("=", 1) for option in options)
        update = UpdateConfig(
            parallelism=int(given.get("parallelism", "1")),
            delay_s=float(given.get("delay", "0")),
            monitor_s=float(given.get("monitor", "5")),
            failure_action=FailureAction(given.get("on-failure", "pause")),
            max_failure_ratio=float(given.get("ratio", "0")),
            order=UpdateOrder(given.get("order", "stop-first")),
        )
        restart = RestartPolicy(
            RestartCondition(given.get("restart", "any")),
            float(given.get("restart-delay", "5")),
            int(given.get("attempts", "0")),
            float(given.get("window", "0")),
        )
        constraints = (given["constraint"].replace("~", " "),) if "constraint" in given else ()
        declared = spec(
            name,
            version=given.get("version", "1"),
            mode=_mode(given),
            restart=restart,
            update=update,
            rollback=update,
            placement=Placement(constraints=constraints),
        )
        return evolve(declared, replace_after_s=float(given["replace-after"]) if "replace-after" in given else None)

    # --- what is told ----------------------------------------------------------------------------------------------
    def _time(self) -> str:
        return f"{self.world.now - NOON:5g}s"

    def _see(self, world: World, event: Event) -> None:
        for line in _told(event):
            self.lines.append(f"{self._time()} {line}")


def _mode(given: dict[str, str]) -> Mode:
    match given.get("mode", "replicated"):
        case "global":
            return Global()
        case "global-job":
            return GlobalJob()
        case "job":
            return ReplicatedJob(int(given["together"]), int(given["completions"]))
    return Replicated(int(given.get("replicas", "1")))


def _told(event: Event) -> list[str]:
    before, after = event.before, event.after
    if isinstance(event.object, Service):
        old = before.update_status if isinstance(before, Service) else None
        new = after.update_status if isinstance(after, Service) else None
        if new is None or (old is not None and (new.state, new.message) == (old.state, old.message)):
            return []
        return [f"{event.object.spec.name}: {new.state.name}, {new.message}"]
    if not isinstance(event.object, Task):
        return []
    if not isinstance(after, Task):
        return [f"{event.object.id} is forgotten"]
    where = f"slot {after.slot}" if after.slot or not after.node_id else f"node {after.node_id}"
    why = after.reason.text if after.reason is not None else ""
    if not isinstance(before, Task):
        return [f"{after.id} is made for {where}, {after.desired.name}: {why}"]
    lines = []
    if after.desired is not before.desired:
        told = f": {why}" if after.reason != before.reason else ""
        lines.append(f"{after.id} is to be {after.desired.name}{told}")
    elif after.reason != before.reason and not after.reason.text.startswith("placed on"):  # type: ignore[union-attr]
        lines.append(f"{after.id}: {why}")
    if after.status.state is not before.status.state and after.status.state >= TaskState.RUNNING:
        lines.append(f"{after.id} is {after.status.state.name} on {after.node_id or 'no node'}")
    return lines


@pytest.mark.parametrize("story", STORIES)
def test_story(story: str, scenario: Callable[[str, Callable[[str], str]], None]) -> None:
    scenario(story, Teller().tell)
