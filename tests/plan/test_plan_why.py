"""`svc why`, from a state to its words."""

from __future__ import annotations

from orch_world import World, planners, spec

from swarm.actors.control.why import NODES_SHOWN, service_why
from swarm.model.specs import Global, Placement, ReplicatedJob, RestartPolicy, UpdateConfig
from swarm.model.states import Availability, NodeState, TaskState
from swarm.plan.schedule.planner import Scheduler
from swarm.wire.messages.control import ServiceWhy


def world(nodes: str = "a b c") -> World:
    return World(nodes, all=[*planners(), Scheduler()])


def why(here: World, name: str = "web") -> ServiceWhy:
    return service_why(here.store, here.service(name))


def test_a_running_task_tells_why_it_is_there_and_what_moved_it_by_any_leader() -> None:
    here = world()
    here.create(spec(replicas=1, restart=RestartPolicy(delay_s=0)))
    here.run()
    (slot,) = why(here).slots
    assert slot.placed and slot.text.startswith("the best of 3 nodes that fit")
    (task,) = here.running()
    here.set_node(task.node_id, availability=Availability.DRAIN)
    here.run()
    before = why(here)
    (slot,) = before.slots
    assert slot.text.startswith(f"replaces {task.id}: node {task.node_id} is being drained; the best of 2 nodes")
    here.new_leader()
    here.run()
    assert why(here) == before


def test_a_task_that_waits_tells_what_each_node_lacks_what_would_place_it_and_what_moved_it() -> None:
    here = world("a b")
    here.create(spec(replicas=1, placement=Placement(("node.hostname == a",)), restart=RestartPolicy(delay_s=0)))
    here.run()
    here.set_node("a", state=NodeState.DOWN)
    here.run()
    (waiting,) = (slot for slot in why(here).slots if not slot.placed)
    assert waiting.text.startswith("replaces t1: node a is lost; no suitable node (")
    assert waiting.nodes == ("a: is down", "b: needs node.hostname == a")
    assert waiting.advice == "node a is down: bring node a back"


def test_tasks_that_wait_for_the_same_are_explained_from_one_look_at_the_nodes() -> None:
    here = world(" ".join(f"n{number}" for number in range(NODES_SHOWN + 5)))
    here.create(spec(replicas=40, placement=Placement(("node.labels.zone == z",))))
    here.run()
    slots = why(here).slots
    assert len(slots) == 40 and len({slot.nodes for slot in slots}) == 1
    assert len(slots[0].nodes) == NODES_SHOWN
    assert "--label-add zone=z" in slots[0].advice


def test_nodes_that_have_none_of_a_global_service_say_why() -> None:
    here = world()
    here.label_node("a", zone="z")
    here.set_node("c", availability=Availability.PAUSE)
    here.create(spec(mode=Global(), placement=Placement(("node.labels.zone != y",))))
    here.run()
    here.label_node("b", zone="y")
    here.run()
    assert set(why(here).notes) == {"none on c: is paused", "none on b: needs node.labels.zone != y"}


def test_what_holds_up_the_service_as_a_whole_is_said() -> None:
    here = world()
    here.create(spec("idle", mode=ReplicatedJob(0, 3)))
    here.create(spec(replicas=2, update=UpdateConfig(monitor_s=5)))
    here.run()
    assert why(here, "idle").notes == ("nothing starts: --max-concurrent is 0",)
    here.broken.add("2")
    here.declare(spec(replicas=2, version="2", update=UpdateConfig(monitor_s=5)))
    here.run()
    (note,) = why(here).notes
    assert note.startswith("update paused: task ") and "exit code 1" in note


def test_a_slot_that_gave_up_says_what_ended_it_and_slot_0_of_a_job_is_called_by_its_number() -> None:
    here = world()
    here.broken.add("1")
    here.create(spec("job", mode=ReplicatedJob(1, 1), restart=RestartPolicy(delay_s=0, max_attempts=1)))
    here.run()
    (slot,) = why(here, "job").slots
    assert slot.task.task.status.state is TaskState.FAILED
    assert "it was restarted 1 of at most 1 times" in slot.text
    assert slot.task.name == "job.0"
