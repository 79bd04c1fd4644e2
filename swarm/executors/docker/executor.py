"""Containers of the machine's Docker Engine as tasks of this node.

Its one idea: the engine keeps the containers, and their labels say which task of which node each one is; so an agent that
is killed loses nothing, and two nodes may share one engine. One event stream serves every task that waits.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import trio
from attrs import evolve

from swarm.executors.base import (
    ExecutorContext,
    ExecutorError,
    ExecutorUnavailable,
    LogOptions,
    Workload,
)
from swarm.executors.docker.config import LABEL_NODE_ID, LABEL_TASK_ID
from swarm.executors.docker.controller import DockerController, Services, remove_container
from swarm.executors.docker.engine import Engine, address_of
from swarm.executors.docker.events import Changes, EventStream, list_containers
from swarm.executors.docker.images import Images
from swarm.executors.docker.output import ContainerLogs, Pump
from swarm.executors.template import expand_workload
from swarm.model.ids import NodeId, TaskId
from swarm.model.specs import NANO_CPUS_PER_CORE, ContainerSpec, NodeDescription, Platform
from swarm.ports import sockets

KIND = "docker"
PLUGIN_TYPES = ("Volume", "Network", "Log", "Authorization")


class DockerExecutor:
    """Runs tasks as containers; see `executors.base.Executor`."""

    kind = KIND

    def __init__(self, engine: Engine, node_id: NodeId) -> None:
        self._engine = engine
        self._node_id = node_id
        self._changes = Changes()
        self._events = EventStream(engine, node_id, self._changes)
        self._images = Images(engine)
        self._logs = ContainerLogs(engine)
        self._nursery: trio.Nursery | None = None
        self._opened = trio.Event()

    async def describe(self, base: NodeDescription) -> NodeDescription:
        """`base` with the engine's version, labels and plugins, and its machine where `base` names none."""
        info: dict[str, Any] = await self._engine.call(lambda api: api.info())
        resources = evolve(
            base.resources,
            nano_cpus=base.resources.nano_cpus or int(info["NCPU"]) * NANO_CPUS_PER_CORE,
            memory_bytes=base.resources.memory_bytes or int(info["MemTotal"]),
        )
        plugins = {(kind, str(name)) for kind in PLUGIN_TYPES for name in (info.get("Plugins") or {}).get(kind) or ()}
        labels = dict(text.partition("=")[::2] for text in info.get("Labels") or ())
        return evolve(
            base,
            platform=Platform(base.platform.architecture or info["Architecture"], base.platform.os or info["OSType"]),
            resources=resources,
            executors=tuple(sorted({*base.executors, KIND})),
            engine_version=str(info["ServerVersion"]),
            engine_labels={**base.engine_labels, **labels},
            plugins=tuple(sorted({*base.plugins, *plugins})),
        )

    def controller(self, workload: Workload) -> DockerController:
        """The controller of a container task; raises `ExecutorError` for another runtime or a spec that cannot be."""
        expanded = expand_workload(workload)
        spec = expanded.spec.task.runtime
        if not isinstance(spec, ContainerSpec):
            raise ExecutorError(f"the docker executor cannot run a {workload.spec.task.runtime_kind} task")
        services = Services(self._engine, self._changes, self._pull, self._read)
        return DockerController(services, expanded, spec)

    async def known_tasks(self) -> frozenset[TaskId]:
        """Every task of this node that has a container, running or not."""
        found = await self._engine.call(partial(list_containers, label=f"{LABEL_NODE_ID}={self._node_id}"))
        return frozenset(TaskId(container["Labels"][LABEL_TASK_ID]) for container in found)

    async def discard(self, task_id: TaskId) -> None:
        """Kills and removes whatever containers the task has."""
        found = await self._engine.call(partial(list_containers, label=f"{LABEL_TASK_ID}={task_id}"))
        for container in found:
            await remove_container(self._engine, container["Id"])
        self._changes.notify(task_id)

    async def run(self) -> None:
        """Follows the engine's events, and is home to pulls and readers of output."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._opened.set()
            nursery.start_soon(self._events.run)

    async def _pull(self, image: str, registry_auth: str) -> None:
        await self._images.pull(image, registry_auth, await self._home())

    async def _read(self, pump: Pump, container: str, options: LogOptions, tty: bool) -> None:
        home = await self._home()
        home.start_soon(partial(self._logs.read, pump, container, options, tty=tty))

    async def _home(self) -> trio.Nursery:
        """The nursery of `run`, which the agent starts once for the life of the executor."""
        await self._opened.wait()
        assert self._nursery is not None, "set before the event"
        return self._nursery


def factory(context: ExecutorContext) -> DockerExecutor:
    """The docker executor of a node; raises `ExecutorUnavailable` when no engine answers. Loads no SDK for that."""
    address = address_of(context.env)
    why = sockets.why_nobody_answers(address)
    if why:
        raise ExecutorUnavailable(
            f"no Docker Engine answers at {address}: {why}; install and start one "
            "(Debian: apt-get install docker.io), or set DOCKER_HOST"
        )
    return DockerExecutor(Engine(context.env), context.node_id)
