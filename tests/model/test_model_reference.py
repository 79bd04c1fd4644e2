"""Numbers and defaults that are the reference's: sections 1.1, 1.7 and 2.1 of its behaviour."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.executors.process.launch import DEFAULT_STOP_GRACE_S
from swarm.model.ids import id_from_bytes
from swarm.model.specs import (
    ClusterSettings,
    ProcessSpec,
    Replicated,
    RestartPolicy,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarm.model.states import FailureAction, RestartCondition, TaskState, UpdateOrder, UpdateState
from swarm.plan.update import DEFAULT_CONFIG


@given(st.binary(min_size=17, max_size=17))
def test_an_id_is_25_base_36_characters(raw: bytes) -> None:
    id = id_from_bytes(raw)
    assert len(id) == 25 and set(id) <= set("0123456789abcdefghijklmnopqrstuvwxyz")


def test_defaults_are_those_of_the_reference() -> None:
    """A setting that is absent is the default, wherever it is absent: in a whole message or in one field of it."""
    assert RestartPolicy() == RestartPolicy(RestartCondition.ANY, delay_s=5.0, max_attempts=0, window_s=0.0)
    assert UpdateConfig(1, 0.0, FailureAction.PAUSE, 5.0, 0.0, UpdateOrder.STOP_FIRST) == DEFAULT_CONFIG
    spec = ServiceSpec("web", TaskSpec(ProcessSpec(("true",))))
    assert (spec.mode, spec.update, spec.rollback) == (Replicated(1), None, None)
    assert (ProcessSpec(("true",)).stop_grace_s, DEFAULT_STOP_GRACE_S) == (None, 10.0)
    settings = ClusterSettings()
    assert (settings.task_history_limit, settings.heartbeat_period_s) == (5, 5.0)


def test_states_have_the_ranks_of_the_reference() -> None:
    assert {state.name: int(state) for state in TaskState} == {
        "NEW": 0,
        "PENDING": 64,
        "ASSIGNED": 192,
        "ACCEPTED": 256,
        "PREPARING": 320,
        "READY": 384,
        "STARTING": 448,
        "RUNNING": 512,
        "COMPLETE": 576,
        "SHUTDOWN": 640,
        "FAILED": 704,
        "REJECTED": 768,
        "REMOVE": 800,
        "ORPHANED": 832,
    }
    assert [state.name for state in sorted(UpdateState)] == [
        "UNKNOWN",
        "UPDATING",
        "PAUSED",
        "COMPLETED",
        "ROLLBACK_STARTED",
        "ROLLBACK_PAUSED",
        "ROLLBACK_COMPLETED",
    ]
    assert [state for state in TaskState if state.is_terminal] == sorted(s for s in TaskState if s > TaskState.RUNNING)
