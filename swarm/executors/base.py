"""The one contract between an agent and whatever runs tasks: the Docker Engine, plain processes, third-party runtimes.

An `Executor` belongs to one node and makes a `Controller` for each task. Every method is idempotent: an agent that was
killed calls them again after its restart, on a task that may be anywhere in its life, and adopts what still runs.
Methods may wait; the task's supervisor cancels them when something newer is wanted, and a cancelled method leaves
nothing half-done that a second call could not finish.

Errors: `TemporaryError` is tried again with back-off, `TaskExited` carries how the workload ended, any other
`ExecutorError` is final (REJECTED before STARTING, FAILED from then on). Everything else is a bug.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from attrs import field, frozen

from swarm.model.ids import Instant, NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.objects import PortStatus
from swarm.model.specs import GenericResource, NodeDescription, ServiceSpec

if TYPE_CHECKING:  # the command line reads the types of this module and must not load trio for them
    from swarm.ports.clock import Clock
    from swarm.ports.entropy import Entropy


@frozen
class Workload:
    """Everything that a controller needs to know of its task; templates are expanded by `executors.template`."""

    task_id: TaskId
    service_id: ServiceId
    revision: RevisionNumber
    slot: Slot
    node_id: NodeId
    hostname: str
    spec: ServiceSpec
    generic: tuple[GenericResource, ...] = ()
    description: NodeDescription = NodeDescription()

    @property
    def name(self) -> str:
        """`service.slot.task`, with the node id for slot 0."""
        return f"{self.spec.name}.{self.slot or self.node_id}.{self.task_id}"


@frozen
class Running:
    """What a started workload can be known by."""

    pid: int = 0
    handle: str = ""
    ports: tuple[PortStatus, ...] = ()
    note: str = ""
    """What its user should know although it runs: a limit that this machine cannot enforce."""


@frozen
class Exit:
    """How a workload ended: `code` as a shell would give it (128 + signal), None when it cannot be known."""

    code: int | None
    detail: str = ""


class ExecutorError(Exception):
    """The workload cannot be run here, in words for its user."""


class TemporaryError(ExecutorError):
    """It did not work now and may later: an engine that does not answer."""


class TaskExited(ExecutorError):
    """The workload ended before it counted as started (before it was healthy); `exit` tells how."""

    def __init__(self, text: str, exit: Exit) -> None:
        super().__init__(text)
        self.exit = exit


class Stream(StrEnum):
    """Which output of a task."""

    STDOUT = "stdout"
    STDERR = "stderr"


@frozen
class LogLine:
    """One line of a task's output, without its newline; `at` is the node's clock when it was written or read."""

    stream: Stream
    data: bytes
    at: Instant


@frozen
class LogOptions:
    """Which lines: the last `tail` (None: all), written after `since`, then new ones while `follow`."""

    follow: bool = False
    tail: int | None = None
    since: Instant | None = None
    streams: tuple[Stream, ...] = field(default=(Stream.STDOUT, Stream.STDERR))


@frozen
class ExecutorContext:
    """What a node hands to the factory of every executor."""

    state_dir: str
    """The executor's files go below `state_dir/<kind>`, which the factory makes."""
    clock: Clock
    entropy: Entropy
    node_id: NodeId
    hostname: str
    env: Mapping[str, str] = field(factory=dict)
    """The node's own environment."""


class Controller(Protocol):
    """One task's way through an executor."""

    async def prepare(self) -> None:
        """Make ready to start (directories, image, container); done already is success."""
        ...

    async def start(self) -> Running:
        """Start it and return once it runs (and is healthy, if it has a health check); running already is success."""
        ...

    async def wait(self) -> Exit:
        """How it ended, once it has; at once when it ended before."""
        ...

    async def shutdown(self) -> Exit:
        """Stop it: its stop signal, its grace, then kill. Not running is success."""
        ...

    async def terminate(self) -> None:
        """Kill it now."""
        ...

    async def remove(self) -> None:
        """Kill it if needed and delete all that belongs to it on this node, its logs included."""
        ...

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """Its output; following ends when the task's output has ended. Whoever reads may walk away at any line."""
        ...


class ExecutorUnavailable(Exception):
    """A factory's answer when its runtime cannot be used on this machine; the text says why and what to do."""


class Executor(Protocol):
    """A runtime on this node."""

    kind: str
    """The runtime kind that it runs: `process`, `docker`, a generic runtime's kind."""

    async def describe(self, base: NodeDescription) -> NodeDescription:
        """`base` with what this executor knows of the machine merged in (its kind in `executors`, engine, plugins)."""
        ...

    def controller(self, workload: Workload) -> Controller:
        """The controller of a task; raises `ExecutorError` when the spec cannot run here."""
        ...

    async def known_tasks(self) -> frozenset[TaskId]:
        """Tasks of this node that have anything left here, running or not: the agent removes those nobody owns."""
        ...

    async def discard(self, task_id: TaskId) -> None:
        """Kill and delete all that is left here of a task of which only the id is known; nothing left is success."""
        ...

    async def run(self) -> None:
        """The executor's own background work (event stream, log rotation); runs until cancelled.

        The agent runs it once for the life of the executor object, and everything else may count on it.
        """
        ...


ExecutorFactory: TypeAlias = Callable[[ExecutorContext], Executor]
"""What the entry-point group `swarm.executors` names; raises `ExecutorUnavailable` when the runtime is not here."""
