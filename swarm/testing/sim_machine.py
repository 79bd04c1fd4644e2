"""A simulated machine and what one run of a daemon on it gets for ports. The machine outlives its daemons, as a real one does.

One idea: everything that lasts (files, log, task record, running tasks) belongs to the `SimMachine`; everything that a daemon
is handed goes through `SimPorts`, which a crash revokes first: whatever the dying daemon still calls waits for ever or does
nothing, so that no clean-up code writes what a killed process could not have written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum
from pathlib import Path

import trio
from attrs import define, field

from swarm.actors.context import NodeNet
from swarm.executors.base import Exit, LogLine, LogOptions, Running, Workload
from swarm.executors.registry import Executors
from swarm.model.ids import Instant, TaskId
from swarm.model.objects import TaskStatus
from swarm.model.specs import NodeDescription
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy, SeededEntropy
from swarm.ports.log_store import LogBatch, LogStore, Recovered, WriteDone
from swarm.ports.state_dir import NodeFile, StateDir
from swarm.ports.task_store import StoredTask, TaskStore
from swarm.raft.messages import Index, Snapshot
from swarm.testing.executor import SimulatedController, SimulatedExecutor, SimulatedMachine
from swarm.testing.memory_log import MemoryLogStore
from swarm.testing.sim_net import Life, SimNetwork, listen_local_simulated
from swarm.testing.sim_streams import SimStreams
from swarm.testing.task_store import MemoryTaskStore
from swarm.wire.local import LocalListener
from swarm.wire.websocket import open_net

EPOCH_S = 1_800_000_000.0
"""Wall time at which every world begins."""
DAY_S = 86_400.0
PORT = 4242


class Level(Enum):
    """What of the wire is real."""

    FRAMES = "frames"
    """Whole messages are carried, and certificates checked, by the simulated network."""
    BYTES = "bytes"
    """The shipped TLS and websocket code runs on simulated byte streams."""


def epoch_of(level: Level, now_s: float) -> float:
    """Wall time at which a world begins. OpenSSL compares certificates with the machine's own clock, which `now_s` is from:
    at level BYTES a world begins at the midnight before last, so that hours of virtual time end before now."""
    return EPOCH_S if level is Level.FRAMES else now_s // DAY_S * DAY_S - DAY_S


@define
class SimClock:
    """A machine's clocks; `skew_s` is how wrong its wall clock is, and may jump."""

    skew_s: float = 0.0
    epoch_s: float = EPOCH_S

    def now(self) -> Instant:
        """Wall time."""
        return Instant(self.epoch_s + trio.current_time() + self.skew_s)

    def monotonic(self) -> float:
        """Trio's."""
        return trio.current_time()


@define(eq=False)
class SimMachine:
    """What lasts: one machine with its disk and the tasks that run on it."""

    name: str
    entropy: Entropy
    tasks: SimulatedMachine
    clock: SimClock
    files: dict[str, bytes] = field(factory=dict)
    log: MemoryLogStore = field(factory=MemoryLogStore)
    task_record: MemoryTaskStore = field(factory=MemoryTaskStore)
    runs: int = 0

    @property
    def address(self) -> str:
        """host:port of its manager, when it is one."""
        return f"{self.name}:{PORT}"

    @property
    def socket(self) -> str:
        """The path of its daemon's local socket."""
        return f"/simulated/{self.name}/swarm.sock"

    @property
    def is_full(self) -> bool:
        """Whether its disk takes nothing."""
        return bool(self.log.refuses)

    def fill_disk(self, *, full: bool) -> None:
        """Have the disk take nothing, or something again."""
        self.log.refuses = self.task_record.refusing = "No space left on device" if full else ""

    def crash(self, *, keep_write: bool) -> None:
        """What is under way on the disk is lost, or just done."""
        self.log.crash(keep=keep_write)

    def removed(self, name: str) -> None:
        """A directory of the node was erased."""
        if name == "raft":
            self.log = MemoryLogStore()
            self.log.is_erased = True
        elif name == "agent":
            self.task_record = MemoryTaskStore()


@define(eq=False)
class SimFiles:
    """`ports.files.Files` of one run. Each write is whole and durable at once."""

    machine: SimMachine
    life: Life

    @property
    def root(self) -> Path:
        """Where they seem to be."""
        return Path("/simulated") / self.machine.name

    def read(self, name: str) -> bytes | None:
        """The whole file."""
        return self.machine.files.get(name)

    def write(self, name: str, data: bytes, *, mode: int = 0o600) -> None:
        """Replace the file."""
        if not self.life.revoked:
            self.machine.files[name] = data

    def remove(self, name: str) -> None:
        """Remove a file, or a directory with all in it."""
        if self.life.revoked:
            return
        files = self.machine.files
        for path in [path for path in files if path == name or path.startswith(name + "/")]:
            del files[path]
        self.machine.removed(name)

    def names(self) -> list[str]:
        """What lies in the root."""
        return sorted({path.split("/")[0] for path in self.machine.files})

    def close(self) -> None:
        """Nothing is locked."""


class SimLog:
    """`ports.log_store.LogStore` of one run, on the machine's disk."""

    def __init__(self, machine: SimMachine, life: Life) -> None:
        self._life = life
        self._disk = machine.log

    async def open(self) -> Recovered:
        """What was durable."""
        await self._life.check()
        return await self._disk.open()

    async def write(self, batch: LogBatch) -> None:
        """Durable on return."""
        await self._life.check()
        await self._disk.write(batch)

    def begin_write(self, batch: LogBatch, done: WriteDone) -> bool:
        """Only by `write`, whose task ends with its machine."""
        return False

    async def landed(self) -> None:
        """Nothing is ever begun."""

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """In place of the one before."""
        await self._life.check()
        await self._disk.save_snapshot(snapshot)

    async def load_snapshot(self) -> Snapshot | None:
        """The newest."""
        await self._life.check()
        return await self._disk.load_snapshot()

    async def compact(self, through: Index) -> None:
        """The entry at `through` stays."""
        await self._life.check()
        await self._disk.compact(through)

    async def erase(self) -> None:
        """As new."""
        await self._life.check()
        await self._disk.erase()

    async def aclose(self) -> None:
        """Nothing to let go of."""


class SimTaskRecord:
    """`ports.task_store.TaskStore` of one run."""

    def __init__(self, machine: SimMachine, life: Life) -> None:
        self._life = life
        self._disk = machine.task_record

    async def open(self) -> list[StoredTask]:
        """All that is recorded."""
        await self._life.check()
        return await self._disk.open()

    async def assign(self, tasks: Sequence[StoredTask], removed: Iterable[TaskId] = ()) -> None:
        """All at once."""
        await self._life.check()
        await self._disk.assign(tasks, removed)

    async def record(self, statuses: Mapping[TaskId, TaskStatus]) -> None:
        """All at once."""
        await self._life.check()
        await self._disk.record(statuses)

    async def aclose(self) -> None:
        """It stays for the next run."""


class SimController:
    """`executors.base.Controller` of one run."""

    def __init__(self, inner: SimulatedController, life: Life) -> None:
        self._inner = inner
        self._life = life

    async def prepare(self) -> None:
        """As the machine's."""
        await self._life.check()
        await self._inner.prepare()

    async def start(self) -> Running:
        """As the machine's."""
        await self._life.check()
        return await self._inner.start()

    async def wait(self) -> Exit:
        """As the machine's."""
        await self._life.check()
        return await self._inner.wait()

    async def shutdown(self) -> Exit:
        """As the machine's."""
        await self._life.check()
        return await self._inner.shutdown()

    async def terminate(self) -> None:
        """As the machine's."""
        await self._life.check()
        await self._inner.terminate()

    async def remove(self) -> None:
        """As the machine's."""
        await self._life.check()
        await self._inner.remove()

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """As the machine's."""
        return self._inner.logs(options)


class SimExecutor:
    """`executors.base.Executor` of one run: the tasks are the machine's and go on without it."""

    kind = "process"

    def __init__(self, machine: SimMachine, life: Life) -> None:
        self._inner = SimulatedExecutor(machine.tasks, self.kind)
        self._life = life

    async def describe(self, base: NodeDescription) -> NodeDescription:
        """The machine."""
        return await self._inner.describe(base)

    def controller(self, workload: Workload) -> SimController:
        """Of a task."""
        return SimController(self._inner.controller(workload), self._life)

    async def known_tasks(self) -> frozenset[TaskId]:
        """Every task that was not removed."""
        await self._life.check()
        return await self._inner.known_tasks()

    async def discard(self, task_id: TaskId) -> None:
        """Ends and forgets a task."""
        await self._life.check()
        await self._inner.discard(task_id)

    async def run(self) -> None:
        """Nothing in the background."""
        await self._inner.run()


class SimPorts:
    """`actors.context.NodePorts` of one run of a daemon."""

    def __init__(self, machine: SimMachine, network: SimNetwork, level: Level = Level.FRAMES) -> None:
        self.machine = machine
        self._level = level
        self.life = Life(machine.name)
        self.clock: Clock = machine.clock
        machine.runs += 1
        self.entropy: Entropy = SeededEntropy(f"{machine.entropy.bytes(8).hex()} {machine.name} {machine.runs}")
        self._network = network

    def open_state(self, path: Path) -> StateDir:
        """The machine's files."""
        return StateDir(SimFiles(self.machine, self.life))

    @asynccontextmanager
    async def _open_net(self) -> AsyncIterator[NodeNet]:
        if self._level is Level.FRAMES:
            yield self._network.net(self.life, self.clock)
            return
        async with open_net(streams=SimStreams(self._network, self.life)) as net:
            yield net

    def open_net(self) -> AbstractAsyncContextManager[NodeNet]:
        """The simulated network."""
        return self._open_net()

    def open_local(self, path: str) -> AbstractAsyncContextManager[LocalListener]:
        """The local socket, in the simulated network too."""
        return listen_local_simulated(self._network, self.life, path)

    def log_store(self, state: StateDir, data_key: bytes) -> LogStore:
        """On the machine's disk."""
        return SimLog(self.machine, self.life)

    def task_store(self, state: StateDir) -> TaskStore:
        """On the machine's disk."""
        return SimTaskRecord(self.machine, self.life)

    def executors(self, file: NodeFile, state: StateDir) -> Executors:
        """One, of kind `process`."""
        return Executors({"process": SimExecutor(self.machine, self.life)}, {})

    def hostname(self) -> str:
        """The machine's name."""
        return self.machine.name

    def outward_host(self) -> str:
        """The machine's name."""
        return self.machine.name

    def pid(self) -> int:
        """Which run this is."""
        return self.machine.runs
