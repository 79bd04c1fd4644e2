"""One container's way through an engine: prepare, start, wait, stop, remove, each of them good for a second call.

Its one idea: the container is found by its name, the task's, and looked at anew before every decision; nothing about it
is remembered here. Whoever must wait takes the next change first, then looks, then waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen

from swarm.executors.base import ExecutorError, Exit, LogOptions, Running, TaskExited, Workload
from swarm.executors.docker.config import (
    DEFAULT_STOP_GRACE_S,
    LABEL_TASK_ID,
    JsonObject,
    container_config,
    host_ports,
    volumes_to_make,
)
from swarm.executors.docker.engine import Engine, EngineRefused
from swarm.executors.docker.events import Changes
from swarm.executors.docker.output import ContainerOutput, Pump
from swarm.model.objects import PortStatus
from swarm.model.specs import ContainerSpec, Mount
from swarm.model.states import NetworkMode

if TYPE_CHECKING:
    from docker import APIClient

CREATED = "created"
ENDED = frozenset({"exited", "dead"})
KILL_WAIT_S_MAX = 30.0
"""How long the engine may take to notice the end of a container that it killed."""
REMOVE_ATTEMPTS_MAX = 50
REMOVE_PAUSE_S = 0.1
EXIT_CODE_OUT_OF_MEMORY = "it was killed because it used more memory than its limit or the machine had"


@frozen
class Services:
    """What controllers need of their executor."""

    engine: Engine
    changes: Changes
    pull: Callable[[str, str], Awaitable[None]]
    """Image and credentials; returns once the image is on this node."""
    read: Callable[[Pump, str, LogOptions, bool], Awaitable[None]]
    """Starts to fill a pump with a container's output."""


class DockerController:
    """The controller of one task; see `executors.base.Controller`."""

    def __init__(self, services: Services, workload: Workload, spec: ContainerSpec) -> None:
        self._services = services
        self._engine = services.engine
        self._workload = workload
        self._spec = spec
        self._name = workload.name
        self._config: JsonObject = container_config(workload, spec)

    # --- forward ---------------------------------------------------------------------------------------------------
    async def prepare(self) -> None:
        """Makes the container, after its image if that is missing."""
        if await self._inspect() is not None:
            return
        for mount in volumes_to_make(self._spec):
            await self._engine.call(partial(_create_volume, mount=mount), failing_is_final=True)
        try:
            await self._create()
        except EngineRefused as error:
            if not error.is_missing:
                raise
            await self._services.pull(self._spec.image, self._spec.registry_auth)
            await self._create()

    async def start(self) -> Running:
        """Starts the container and returns once it runs and is healthy, if it has a health check."""
        found = await self._inspect()
        if found is None:
            raise ExecutorError(f"container {self._name} is gone: it was removed by somebody else")
        if found["State"]["Status"] == CREATED:
            try:
                await self._engine.call(lambda api: api.start(found["Id"]), failing_is_final=True)
            except EngineRefused as error:
                raise ExecutorError(f"the container cannot be started: {error}") from None
        if has_health_check(found):
            await self._healthy()
        return await self._running()

    async def wait(self) -> Exit:
        """How it ended."""
        while True:
            changed = self._services.changes.next(self._workload.task_id)
            found = await self._inspect()
            if found is None:
                return Exit(None, "its container was removed by somebody else")
            status = found["State"]["Status"]
            if status in ENDED:
                return exit_of(found["State"])
            if status == CREATED:
                return Exit(None, found["State"].get("Error") or "it was never started")
            await changed.wait()

    # --- back ------------------------------------------------------------------------------------------------------
    async def shutdown(self) -> Exit:
        """Its stop signal, its grace, then SIGKILL."""
        found = await self._inspect()
        if found is not None and is_running(found):
            await self._kill(found["Id"], found["Config"].get("StopSignal") or "SIGTERM")
            grace_s = DEFAULT_STOP_GRACE_S if self._spec.stop_grace_s is None else max(0.0, self._spec.stop_grace_s)
            with trio.move_on_after(grace_s):
                return await self.wait()
            await self.terminate()
        return await self.wait()

    async def terminate(self) -> None:
        """SIGKILL, and returns once the engine has seen the end."""
        found = await self._inspect()
        if found is None or not is_running(found):
            return
        await self._kill(found["Id"], "SIGKILL")
        with trio.move_on_after(KILL_WAIT_S_MAX):
            await self.wait()

    async def remove(self) -> None:
        """Kills and removes the container with its anonymous volumes; named volumes stay."""
        found = await self._inspect()
        if found is not None:
            await remove_container(self._engine, found["Id"])
        self._services.changes.notify(self._workload.task_id)

    def logs(self, options: LogOptions) -> ContainerOutput:
        """Its output; following waits for the start, and ends with the container."""
        return ContainerOutput(partial(self._start_reading, options))

    # --- how -------------------------------------------------------------------------------------------------------
    async def _create(self) -> None:
        create = partial(_create_container, name=self._name, config=self._config)
        try:
            await self._engine.call(create, failing_is_final=True)
        except EngineRefused as error:
            if error.is_missing:
                raise
            if not error.is_conflict:
                raise ExecutorError(f"cannot make a container of image {self._spec.image}: {error}") from None
            if await self._inspect() is None:
                raise ExecutorError(f"the name {self._name} is taken by a container that is not this task's") from None

    async def _inspect(self) -> dict[str, Any] | None:
        """The task's container; one of the same name that somebody else made is none of ours."""
        try:
            found: dict[str, Any] = await self._engine.call(lambda api: api.inspect_container(self._name))
        except EngineRefused as error:
            if error.is_missing:
                return None
            raise
        labels = found["Config"].get("Labels") or {}
        return found if labels.get(LABEL_TASK_ID) == self._workload.task_id else None

    async def _healthy(self) -> None:
        """Waits for the first healthy report; an unhealthy container is stopped."""
        while True:
            changed = self._services.changes.next(self._workload.task_id)
            found = await self._inspect()
            if found is None:
                raise ExecutorError(f"container {self._name} was removed by somebody else before it was healthy")
            health = found["State"].get("Health", {})
            if found["State"]["Status"] in ENDED:
                exit = exit_of(found["State"])
                raise TaskExited(f"it ended with exit code {exit.code} before it was healthy", exit)
            if health.get("Status") == "healthy":
                return
            if health.get("Status") == "unhealthy":
                exit = await self.shutdown()
                raise TaskExited(f"its health check failed: {last_health_output(health)}", exit)
            await changed.wait()

    async def _running(self) -> Running:
        found = await self._inspect()
        if found is None:
            raise ExecutorError(f"container {self._name} is gone: it was removed by somebody else")
        if self._spec.network is NetworkMode.HOST:
            ports = [PortStatus(port.target, port.target, port.protocol) for port in host_ports(self._workload)]
        else:
            ports = bound_ports(found)
        return Running(pid=int(found["State"]["Pid"]), handle=found["Id"], ports=tuple(ports))

    async def _kill(self, container: str, signal: str) -> None:
        """Signals the container's first process; ended already is success."""
        try:
            await self._engine.call(lambda api: api.kill(container, signal))
        except EngineRefused as error:
            if not (error.is_missing or error.is_conflict):
                raise

    async def _start_reading(self, options: LogOptions, pump: Pump) -> bool:
        while True:
            changed = self._services.changes.next(self._workload.task_id)
            found = await self._inspect()
            if found is None:
                return False
            if found["State"]["Status"] != CREATED:
                break
            if not options.follow or found["State"].get("Error"):
                return False
            await changed.wait()
        await self._services.read(pump, found["Id"], options, bool(found["Config"]["Tty"]))
        return True


def is_running(found: dict[str, Any]) -> bool:
    """Whether an inspected container has processes."""
    return found["State"]["Status"] not in ENDED and found["State"]["Status"] != CREATED


def exit_of(state: dict[str, Any]) -> Exit:
    """How an ended container ended."""
    detail = state.get("Error") or ""
    if state.get("OOMKilled"):
        detail = EXIT_CODE_OUT_OF_MEMORY
    return Exit(int(state["ExitCode"]), detail)


def has_health_check(found: dict[str, Any]) -> bool:
    """Whether the spec or the image gave an inspected container a health check that is not NONE."""
    test = (found["Config"].get("Healthcheck") or {}).get("Test") or []
    return bool(test) and test[0] != "NONE"


def last_health_output(health: dict[str, Any]) -> str:
    """What the newest probe said."""
    log = health.get("Log") or []
    if not log:
        return "no output"
    output = str(log[-1].get("Output", "")).strip()
    return f"exit code {log[-1].get('ExitCode')}" + (f", {output[:200]}" if output else "")


def bound_ports(found: dict[str, Any]) -> list[PortStatus]:
    """The ports that an inspected container really holds on its node, one a binding whatever its address family."""
    ports: dict[PortStatus, None] = {}
    for key, bindings in (found["NetworkSettings"].get("Ports") or {}).items():
        target, _, protocol = key.partition("/")
        for binding in bindings or []:
            ports[PortStatus(int(target), int(binding["HostPort"]), protocol)] = None
    return sorted(ports, key=lambda port: (port.target, port.protocol, port.published))


async def remove_container(engine: Engine, container: str) -> None:
    """Removes a container by its id, killing it first; gone already is success."""
    for _ in range(REMOVE_ATTEMPTS_MAX):
        try:
            await engine.call(lambda api: api.remove_container(container, v=True, force=True))
        except EngineRefused as error:
            if error.is_missing:
                return
            if not error.is_conflict:  # a conflict: its removal is under way
                raise
        else:
            return
        await trio.sleep(REMOVE_PAUSE_S)
    raise ExecutorError(f"container {container} could not be removed: the engine says that its removal is in progress")


def _create_container(api: APIClient, name: str, config: JsonObject) -> None:
    """From the Engine's own JSON: the SDK's keyword arguments lag behind the API."""
    create: Callable[[JsonObject, str], object] = api.create_container_from_config
    create(config, name)


def _create_volume(api: APIClient, mount: Mount) -> None:
    """Makes a mount's volume, or leaves the one of that name as it is."""
    api.create_volume(mount.source, mount.driver or "local", dict(mount.driver_options), dict(mount.labels))
