"""How far a service is, and what it waits for."""

from __future__ import annotations

from attrs import evolve
from orch_world import World, spec

from swarm.model.ids import NodeId, ServiceId
from swarm.model.specs import Global, GlobalJob, ReplicatedJob, RestartPolicy, UpdateConfig
from swarm.model.states import Availability, FailureAction, NodeState, RestartCondition, TaskState
from swarm.plan.progress import ServiceFacts, drain_facts, service_facts


def facts(world: World, name: str = "web") -> ServiceFacts:
    return service_facts(world.store, world.service(name).id, world.now)


def test_a_service_converges_when_all_run() -> None:
    world = World("a b")
    world.create(spec(replicas=3))
    world.settle()
    assert (facts(world).running, facts(world).converged) == (0, False)
    world.run()
    found = facts(world)
    assert (found.mode, found.desired, found.running, found.converged, found.failed) == (
        "replicated",
        3,
        3,
        True,
        False,
    )
    assert found.text == "3 of 3 running"


def test_a_service_of_which_none_is_wanted_says_so_and_not_that_all_of_none_run() -> None:
    world = World("a")
    world.create(spec(replicas=2))
    world.run()
    world.scale(0)
    world.settle()
    assert (facts(world).converged, facts(world).text) == (False, "2 still to stop")
    world.run()
    assert (facts(world).converged, facts(world).text) == (True, "stopped, none runs")


def test_scale_down_converges_only_when_the_surplus_has_stopped() -> None:
    world = World("a")
    world.create(spec(replicas=3))
    world.run()
    world.stubborn = {task.id for task in world.tasks()}
    world.scale(1)
    world.run()
    found = facts(world)
    assert (found.running, found.stopping, found.converged) == (1, 2, False)
    assert "2 still to stop" in found.text
    world.stubborn.clear()
    world.run()
    assert facts(world).converged


def test_what_stops_on_a_lost_node_is_not_waited_for() -> None:
    world = World("a b")
    world.create(spec(replicas=2))
    world.run()
    world.set_node("a", state=NodeState.DOWN)
    world.run()
    assert facts(world).converged


def test_an_update_converges_when_it_is_completed() -> None:
    world = World("a")
    world.create(spec())
    world.run()
    world.declare(spec(version="2"))
    world.run()
    found = facts(world)
    assert not found.converged and "updating" in found.text and "watching" in found.text
    world.pass_time(5)
    assert facts(world).converged


def test_a_paused_update_has_failed_and_says_why() -> None:
    world = World("a")
    world.create(spec())
    world.run()
    world.broken = {"2"}
    world.declare(spec(version="2"))
    world.pass_time(1)
    found = facts(world)
    assert found.failed and not found.converged
    assert "paused" in found.text and "exit code 1" in found.text
    assert "exit code 1" in found.last_error


def test_an_automatic_rollback_has_failed_and_a_manual_one_has_not() -> None:
    world = World("a")
    world.create(spec())
    world.run()
    world.broken = {"2"}
    world.declare(spec(version="2", update=UpdateConfig(failure_action=FailureAction.ROLLBACK, monitor_s=1)))
    world.pass_time(1)
    assert not facts(world).failed
    world.pass_time(60)
    assert facts(world).failed and "rolled back" in facts(world).text
    assert "exit code 1" in facts(world).last_error, "of the revision that failed"
    world.broken.clear()
    world.declare(spec(version="3"))
    world.pass_time(60)
    assert facts(world).converged
    world.roll_back()
    world.pass_time(60)
    assert facts(world).converged and not facts(world).failed


def test_an_unplaceable_service_says_what_it_waits_for() -> None:
    world = World("")
    world.create(spec(replicas=2))
    world.run()
    assert facts(world).blocked == ("no suitable node",)
    assert not facts(world).failed


def test_a_service_whose_tasks_are_given_up_has_failed() -> None:
    world = World("a")
    world.create(spec(restart=RestartPolicy(RestartCondition.NONE)))
    world.run()
    world.report("t1", TaskState.FAILED, error="exit code 3")
    world.run()
    found = facts(world)
    assert found.failed and "not restarted" in found.text and "exit code 3" in found.last_error


def test_a_job_has_not_failed_while_completions_are_still_to_start() -> None:
    world = World("a")
    world.create(
        spec(mode=ReplicatedJob(max_concurrent=1, total_completions=3), restart=RestartPolicy(RestartCondition.NONE))
    )
    failed = False
    for _ in range(12):
        for step in (world.settle, world.place, world.agents):
            step()
            for task in world.tasks():
                if not failed and task.status.state is TaskState.RUNNING:
                    failed = True
                    world.report(task.id, TaskState.FAILED, error="exit code 3")
            ended = [task for task in world.tasks() if task.status.state.is_terminal]
            assert len(ended) == 3 or not facts(world).failed
    assert facts(world).failed and "1 of 3 tasks ended" in facts(world).text


def test_a_restart_delay_is_named() -> None:
    world = World("a")
    world.create(spec())
    world.run()
    world.report("t1", TaskState.FAILED)
    world.run()
    assert any("starts in 5 s" in text for text in facts(world).blocked)


def test_a_removed_service_is_followed_to_its_end() -> None:
    world = World("a")
    id = world.create(spec(replicas=2))
    world.run()
    world.remove()
    world.settle()
    found = service_facts(world.store, id, world.now)
    assert (found.stopping, found.removed, found.converged) == (2, False, False)
    world.run()
    found = service_facts(world.store, id, world.now)
    assert (found.stopping, found.removed, found.converged) == (0, True, True)
    assert service_facts(world.store, ServiceId("nobody"), world.now).removed


def test_a_removal_says_which_silent_nodes_hold_it_up() -> None:
    world = World("a b")
    id = world.create(spec(replicas=2))
    world.run()
    world.set_node("b", state=NodeState.DISCONNECTED)
    world.remove()
    world.run()
    found = service_facts(world.store, id, world.now)
    assert (found.text, found.blocked) == ("1 task still to stop", ("1 on b, which does not answer",))
    world.set_node("b", state=NodeState.DOWN)
    world.run()
    assert service_facts(world.store, id, world.now).removed


def test_a_global_service_wants_one_a_suitable_node() -> None:
    world = World("a b c")
    world.set_node("b", availability=Availability.DRAIN)
    world.set_node("c", state=NodeState.DOWN)
    world.create(spec(mode=Global()))
    world.run()
    found = facts(world)
    assert (found.mode, found.desired, found.running, found.converged) == ("global", 1, 1, True)


def test_jobs_converge_when_completed_and_fail_when_they_cannot() -> None:
    world = World("a")
    world.create(spec(mode=ReplicatedJob(1, 3), restart=RestartPolicy(delay_s=0)))
    world.settle()
    assert facts(world).text == "0 of 3 completed"
    world.run()
    assert facts(world).converged and facts(world).running == 3
    world.create(spec("bad", mode=GlobalJob(), version="x", restart=RestartPolicy(RestartCondition.NONE)))
    world.broken = {"x"}
    world.run()
    assert facts(world, "bad").failed


def test_tasks_of_a_drained_node_that_wait_for_the_same_are_one_sentence() -> None:
    world = World("a b")
    world.create(evolve(spec(replicas=6)))
    world.run()
    world.full = {NodeId("b")}
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    assert drain_facts(world.store, NodeId("a")).blocked == ("3 cannot be placed elsewhere: no suitable node",)


def test_a_drain_is_over_when_the_node_holds_nothing() -> None:
    world = World("a b")
    world.create(evolve(spec(replicas=2)))
    world.run()
    world.full = {NodeId("b")}
    world.set_node("a", availability=Availability.DRAIN)
    world.run()
    found = drain_facts(world.store, NodeId("a"))
    assert (found.remaining, found.converged) == (1, False)
    assert found.blocked == ("1 cannot be placed elsewhere: no suitable node",)
    world.full.clear()
    world.run()
    assert drain_facts(world.store, NodeId("a")).converged
