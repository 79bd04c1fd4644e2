"""Clients that write and read registers all the while, each call recorded as one JSON line; an operator that changes services.

A register is a value that the cluster stores: a node's label, or a variable of a service that runs nothing. Every change
names the version that it saw, so that a write is read and swap until nobody came between.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from attrs import evolve, field, frozen

from swarm.model.ids import NodeId, ServiceId
from swarm.model.specs import ProcessSpec, Replicated, ServiceSpec, TaskSpec
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.testing.linearizable import Kind, Operation, Result
from swarm.wire.client import LocalClient, NoDaemon
from swarm.wire.messages.control import GetNode, GetService, UpdateNode, UpdateService

CALL_S = 3.0
THINK_S = (0.005, 0.05)
TRIES_MAX = 50
NOT_DONE = {ErrorCode.OUT_OF_DATE, ErrorCode.NOT_LEADER}
"""Refusals that promise that nothing was done and nothing will be."""
NAME = "VALUE"


class Register(Protocol):
    """A stored value; `read` gives it with whatever `swap` needs to replace exactly that."""

    name: str

    def read(self, client: LocalClient) -> tuple[str | None, object]:
        """Value and what was seen, linearizably."""
        ...

    def swap(self, client: LocalClient, seen: object, value: str) -> None:
        """Replace what was seen."""
        ...


@frozen
class LabelRegister:
    """A label of a node."""

    node_id: NodeId
    name: str

    def read(self, client: LocalClient) -> tuple[str | None, object]:
        """Through the leader."""
        node = client.ask(GetNode(self.node_id), timeout_s=CALL_S).node
        return node.spec.labels.get(NAME), node

    def swap(self, client: LocalClient, seen: object, value: str) -> None:
        """By the version seen."""
        spec = seen.spec  # type: ignore[attr-defined]
        new = evolve(spec, labels={**spec.labels, NAME: value})
        client.ask(UpdateNode(self.node_id, seen.version, new), timeout_s=CALL_S)  # type: ignore[attr-defined]


@frozen
class VariableRegister:
    """The only variable of a service that runs no task."""

    service_id: ServiceId
    name: str

    def read(self, client: LocalClient) -> tuple[str | None, object]:
        """Through the leader."""
        service = client.ask(GetService(self.service_id), timeout_s=CALL_S).service
        runtime = service.spec.task.runtime
        assert isinstance(runtime, ProcessSpec)
        return (runtime.env[0].partition("=")[2] if runtime.env else None), service

    def swap(self, client: LocalClient, seen: object, value: str) -> None:
        """By the version seen."""
        spec = seen.spec  # type: ignore[attr-defined]
        runtime = evolve(spec.task.runtime, env=(f"{NAME}={value}",))
        new = evolve(spec, task=evolve(spec.task, runtime=runtime))
        request = UpdateService(self.service_id, seen.version, new)  # type: ignore[attr-defined]
        client.ask(request, timeout_s=CALL_S)


def idle_service(name: str) -> ServiceSpec:
    """A service for a `VariableRegister`."""
    return ServiceSpec(name, TaskSpec(ProcessSpec(("true",))), Replicated(0))


class History:
    """Operations as they end, in a file; for several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.operations: list[Operation] = []
        self._file = path.open("w")
        self._lock = threading.Lock()

    def add(self, operation: Operation) -> None:
        """One more."""
        with self._lock:
            self.operations.append(operation)
            self._file.write(operation.to_line() + "\n")

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()

    def counts(self) -> Counter[str]:
        """Operations by kind and result."""
        return Counter(f"{one.kind} {one.result}" for one in self.operations)


@frozen
class Clients:
    """What all clients share."""

    history: History
    stop: threading.Event = field(factory=threading.Event)
    surprises: list[str] = field(factory=list)
    """Answers that no fault explains."""
    refusals: Counter[str] = field(factory=Counter)


class Client(threading.Thread):
    """One client with one connection at a time, to one manager."""

    def __init__(self, name: str, socket: str, registers: list[Register], seed: int, shared: Clients) -> None:
        super().__init__(name=name, daemon=True)
        self._client = LocalClient(socket)
        self._registers = registers
        self._random = random.Random(f"{seed} {name}")
        self._shared = shared
        self._count = 0

    def run(self) -> None:
        """Until it is told to stop."""
        try:
            while not self._shared.stop.is_set():
                register = self._random.choice(self._registers)
                choice = self._random.random()
                if choice < 0.5:
                    self.read(register)
                elif choice < 0.75:
                    self.write(register)
                else:
                    self.swap(register)
                time.sleep(self._random.uniform(*THINK_S))
        except Exception as bug:
            self._shared.surprises.append(f"{self.name}: {bug!r}")
            raise
        finally:
            self._client.close()

    def read(self, register: Register) -> tuple[str | None, object] | None:
        """Value and what was seen, None when there was no answer."""
        found: list[tuple[str | None, object]] = []
        start = time.monotonic()
        result = self._call(lambda: found.append(register.read(self._client)))
        if result is not Result.OK:
            return None
        self._record(register, Kind.READ, found[0][0], start, result)
        return found[0]

    def read_all(self) -> None:
        """Every register once; each must answer."""
        with self._client:
            missing = [register.name for register in self._registers if self.read(register) is None]
        assert not missing, f"{self.name} had no answer from {missing}"

    def swap(self, register: Register) -> None:
        """Read, then replace what was read."""
        seen = self.read(register)
        if seen is None:
            return
        value, start = self._value(), time.monotonic()
        result = self._call(lambda: register.swap(self._client, seen[1], value))
        self._record(register, Kind.SWAP, value, start, result, seen[0])

    def write(self, register: Register) -> None:
        """Replace whatever is there; a write that somebody came before is tried again."""
        value, start, result = self._value(), time.monotonic(), Result.FAIL

        def replace() -> None:
            register.swap(self._client, register.read(self._client)[1], value)

        for _ in range(TRIES_MAX):
            result = self._call(replace)
            if result is not Result.FAIL or self._shared.stop.is_set():
                break
        self._record(register, Kind.WRITE, value, start, result)

    def _value(self) -> str:
        self._count += 1
        return f"{self.name}.{self._count}"

    def _call(self, act: Callable[[], object]) -> Result:
        try:
            act()
        except NoDaemon:
            time.sleep(0.1)
            return Result.FAIL
        except SwarmError as error:
            self._shared.refusals[error.code.value] += 1
            if error.code in NOT_DONE:
                return Result.FAIL
            if error.code not in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT):
                self._shared.surprises.append(f"{self.name}: {error!r}")
            return Result.UNKNOWN
        return Result.OK

    def _record(
        self,
        register: Register,
        kind: Kind,
        value: str | None,
        start: float,
        result: Result,
        expected: str | None = None,
    ) -> None:
        end = time.monotonic()
        self._shared.history.add(Operation(self.name, register.name, kind, value, start, end, result, expected))


class Operator(threading.Thread):
    """Scales a service and changes its tasks, through whichever manager answers."""

    def __init__(self, sockets: list[str], service: str, replicas_max: int, seed: int, shared: Clients) -> None:
        super().__init__(name="operator", daemon=True)
        self._sockets = sockets
        self._service = service
        self._replicas_max = replicas_max
        self._random = random.Random(f"{seed} operator")
        self._shared = shared
        self.changes = 0

    def run(self) -> None:
        """Until it is told to stop."""
        while not self._shared.stop.wait(self._random.uniform(0.5, 2.0)):
            with suppress(SwarmError), LocalClient(self._random.choice(self._sockets)) as client:
                service = client.ask(GetService(self._service), timeout_s=CALL_S).service
                client.ask(UpdateService(service.id, service.version, self._changed(service.spec)), timeout_s=CALL_S)
                self.changes += 1

    def _changed(self, spec: ServiceSpec) -> ServiceSpec:
        if self._random.random() < 0.7:
            return evolve(spec, mode=Replicated(self._random.randint(1, self._replicas_max)))
        runtime = spec.task.runtime
        assert isinstance(runtime, ProcessSpec)
        changed = evolve(runtime, env=(f"ROUND={self.changes}",))
        return evolve(spec, task=evolve(spec.task, runtime=changed))
