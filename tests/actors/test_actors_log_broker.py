"""The log broker: whose output can be asked for, and that a node that is not there holds nobody up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio.testing

from swarm.actors.log_broker import LogBroker
from swarm.model.changes import Create
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId, Version
from swarm.model.objects import Node, Revision, Service, Task, TaskStatus
from swarm.model.specs import NodeDescription, ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.model.store import Store
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.local import LocalRef
from swarm.runtime.scope import open_scope
from swarm.testing.local_store import LocalStoreActor
from swarm.wire.messages.control import FollowLogs, LogItem

SPEC = ServiceSpec("web", TaskSpec(ProcessSpec(("server",))))
WEB = Service(ServiceId("s"), SPEC)


def task(number: int, node: str, state: TaskState = TaskState.RUNNING) -> Task:
    return Task(
        TaskId(f"t{number}"),
        WEB.id,
        RevisionNumber(1),
        Slot(number),
        node_id=NodeId(node),
        status=TaskStatus(state),
    )


@asynccontextmanager
async def broker() -> AsyncIterator[LocalRef]:
    """Two nodes of which none is connected, each with a task."""
    store = Store()
    nodes = [Create(Node(NodeId(name), description=NodeDescription(hostname=f"host-{name}"))) for name in ("a", "b")]
    service = (Create(WEB), Create(Revision(WEB.id, RevisionNumber(1), SPEC)))
    tasks = [Create(task(1, "a")), Create(task(2, "b")), Create(task(3, "", TaskState.PENDING))]
    assert store.apply([(*nodes, *service, *tasks)], Version(1))[0] == [None]
    async with open_scope("leader") as scope:
        store_ref = await scope.start("store", lambda: LocalStoreActor(store))
        yield await scope.start("logs", lambda: LogBroker(store_ref, lambda node: None))


async def read(ref: LocalRef, who: str, follow: bool = False) -> list[LogItem]:
    with trio.fail_after(60):
        async with ref.stream(FollowLogs(who, follow=follow), window=16) as inlet:
            return [item async for item in inlet]


async def test_24_1_logs_cannot_be_asked_for_by_node(autojump_clock: trio.testing.MockClock) -> None:
    """There, a subscription by node that does not follow made a counter negative, and the leader ended."""
    async with broker() as ref:
        for name in ("a", "host-a"):
            with pytest.raises(SwarmError) as caught:
                await read(ref, name)
            assert caught.value.code is ErrorCode.NOT_FOUND
            assert f"there is no service or task {name!r}" in caught.value.text
        assert await read(ref, "web.1"), "and the broker still answers"


async def test_a_node_that_is_not_connected_is_noted_and_the_answer_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with broker() as ref:
        notes = sorted(item.note for item in await read(ref, "web"))
        assert notes == [
            "node host-a is not connected: the output of web.1.t1 is missing",
            "node host-b is not connected: the output of web.2.t2 is missing",
        ]
        assert [item.note for item in await read(ref, "web.2")] == notes[1:]
