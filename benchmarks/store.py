"""What do the store, its encodings and its disk cost? Changes a second, microseconds an operation, bytes a task.

The peer's figures are SwarmKit's in-memory store, taken with its own benchmarks on such a machine (Go; they are quoted, it is not
run here). Each memory line is a process of its own. `python -m benchmarks.store`; `... store memory TASKS NODES alone|shared`.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from swarm.model.change_codec import decode_groups, encode_groups, encode_objects
from swarm.model.changes import Advance, Assign, Create, Group, Kind, Update
from swarm.model.ids import id_from_bytes
from swarm.model.objects import NEW_STATUS, Node, Revision, Service, Task, TaskStatus
from swarm.model.plain import dumps, loads
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.specs import ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.model.store import Store
from swarm.ports.entropy import SystemEntropy
from swarm.ports.log_store import LogBatch
from swarm.ports.sqlite_log_store import SqliteLogStore
from swarm.raft.messages import Entry, EntryKind, HardState

SEED = 7
ROUNDS = 9
TASK = TaskSpec(ProcessSpec(("sleep", "1")))
ASSIGNED = TaskStatus(TaskState.ASSIGNED, message="scheduler assigned the task")
SHAPES = [(100_000, 1_000, "shared"), (100_000, 1_000, "alone"), (1_000_000, 100_000, "shared")]


def line(what: str, ours: str, peer: str = "") -> None:
    """One result."""
    print(f"{what:<58} {ours:>26}   {peer}", flush=True)


class Ids:
    """The same ids in every run."""

    def __init__(self) -> None:
        self._random = random.Random(SEED)

    def new(self) -> str:
        """As `ports.entropy` makes them."""
        return id_from_bytes(self._random.randbytes(17))


def node_groups(ids: Ids, count: int) -> list[Group]:
    """New nodes."""
    return [(Create(Node(ids.new())),) for _ in range(count)]


def task_groups(ids: Ids, count: int, shape: str) -> list[Group]:
    """New tasks: all of one service, or each alone in a service whose spec differs from the others' by its name."""
    if shape == "alone":
        groups: list[Group] = []
        for number in range(count):
            id, spec = ids.new(), ServiceSpec(f"service-{number}", TASK)
            groups.append((Create(Service(id, spec)), Create(Revision(id, 1, spec)), Create(Task(ids.new(), id, 1, 1))))
        return groups
    id, spec = ids.new(), ServiceSpec("service", TASK)
    why = Reason(ReasonCode.SCALED_UP, f"scaled to {count}")
    tasks = [(Create(Task(ids.new(), id, 1, slot, reason=why)),) for slot in range(1, count + 1)]
    return [(Create(Service(id, spec)), Create(Revision(id, 1, spec))), *tasks]


def assign_groups(store: Store) -> list[Group]:
    """Every pending task onto the nodes in turn."""
    nodes = [node.id for node in store.nodes()]
    why = Reason(ReasonCode.PLACED, "least loaded of the nodes that fit")
    return [
        (Assign(task.id, task.version, nodes[place % len(nodes)], ASSIGNED, (), why),)
        for place, task in enumerate(store.pending_tasks())
    ]


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def each_us(work: Callable[[], object], times: int) -> str:
    """Median and worst of rounds, in microseconds a call."""
    work()
    found = sorted(seconds(lambda: [work() for _ in range(times)]) / times * 1e6 for _ in range(ROUNDS))
    return f"{statistics.median(found):8.2f} us (worst {found[-1]:.2f})"


def operations() -> None:
    """The peer's own benchmark of its store: 10,000 nodes."""
    ids, store = Ids(), Store()
    groups = node_groups(ids, 10_000)
    taken = seconds(lambda: [store.apply([group], at) for at, group in enumerate(groups, start=1)])
    line("create a node, an entry each", f"{taken / len(groups) * 1e6:8.2f} us", "SwarmKit 12 us")
    nodes = list(store.nodes())
    taken = seconds(lambda: [store.apply([(Update(node),)], store.version + 1) for node in nodes])
    line(
        "update a node, an entry each", f"{taken / len(nodes) * 1e6:8.2f} us", "SwarmKit 15 us, 40 us in a transaction"
    )
    line("get a node", each_us(lambda: store.node(nodes[5000].id), 10_000), "SwarmKit 1.0 us")
    store.apply(task_groups(ids, 1000, "alone"), store.version + 1)
    line("find a service by name", each_us(lambda: store.service_named("Service-500"), 10_000), "SwarmKit 0.45 us")
    line(
        "find a node by a prefix of its id",
        each_us(lambda: list(store.ids_with_prefix(Kind.NODE, nodes[9].id[:6])), 1000),
    )
    line("list 10,000 nodes", each_us(lambda: list(store.nodes()), 20), "SwarmKit 8,600 us")


def applying() -> None:
    """Batches as planners and agents make them."""
    for count in (10_000, 100_000):
        ids, store = Ids(), Store()
        store.apply(node_groups(ids, 1000), 1)
        groups = task_groups(ids, count, "shared")
        taken = seconds(lambda store=store, groups=groups: store.apply(groups, 2))
        line(f"apply {count:,} new tasks", f"{count / taken:12,.0f} /s")
        groups = assign_groups(store)
        taken = seconds(lambda store=store, groups=groups: store.apply(groups, 3))
        line(f"apply {count:,} assignments", f"{count / taken:12,.0f} /s", "goal 300,000/s")
        groups = running_groups(store)
        taken = seconds(lambda store=store, groups=groups: store.apply(groups, 4))
        line(f"apply {count:,} status reports", f"{count / taken:12,.0f} /s")
        rows = store.dump()
        taken = seconds(lambda rows=rows: Store().restore(rows, 5))
        line(f"restore {len(rows):,} objects", f"{taken * 1000:12,.0f} ms")


def running_groups(store: Store) -> list[Group]:
    """Every task reports RUNNING, each with a status of its own."""
    ids = Ids()
    return [
        (Advance(task.id, status=TaskStatus(TaskState.RUNNING, 5.0 + at, "started", pid=at, handle=ids.new())),)
        for at, task in enumerate(store.tasks())
    ]


def encodings() -> None:
    """One task, and batches."""
    ids = Ids()
    task = Task(ids.new(), ids.new(), 3, 2, ids.new(), status=TaskStatus(TaskState.RUNNING, 1.5, "started", pid=7))
    line("one task to bytes and back", each_us(lambda: loads(dumps(task, Task), Task), 2000), "default cattrs 60 us")
    store = Store()
    store.apply(node_groups(ids, 1000), 1)
    batches = {"new tasks": task_groups(ids, 10_000, "shared")}
    store.apply(batches["new tasks"], 2)
    batches["assignments"] = assign_groups(store)
    store.apply(batches["assignments"], 3)
    batches["status reports"] = running_groups(store)
    batches["one new task"] = batches["new tasks"][1:2]
    for name, groups in batches.items():
        data = encode_groups(groups)
        writing = statistics.median(seconds(lambda groups=groups: encode_groups(groups)) for _ in range(ROUNDS))
        reading = statistics.median(seconds(lambda data=data: decode_groups(data)) for _ in range(ROUNDS))
        a_change = f"{writing / len(groups) * 1e6:.2f} + {reading / len(groups) * 1e6:.2f} us"
        line(
            f"{len(groups):,} {name}: encode + decode a change",
            a_change,
            f"{len(data) / len(groups):.0f} bytes a change",
        )
    line("a piece of a snapshot, 500 objects", each_us(lambda: encode_objects(store.dump()[-500:]), 5))


async def disk() -> None:
    """Group commits of 256-byte entries, on disk when they return."""
    with tempfile.TemporaryDirectory() as directory:
        key = os.urandom(32)
        store = SqliteLogStore(Path(directory), key, SystemEntropy())
        await store.open()
        index = 1
        for size in (1, 16, 256, 1000):
            times = []
            for _ in range(200 if size < 256 else 50):
                entries = tuple(Entry(index + at, 1, EntryKind.NORMAL, os.urandom(256)) for at in range(size))
                index += size
                began = time.perf_counter()
                await store.write(LogBatch(HardState(1, 1, index), entries=entries))
                times.append((time.perf_counter() - began) * 1000)
            times.sort()
            spread = f"p50 {statistics.median(times):.2f} p99 {times[int(len(times) * 0.99)]:.2f} ms"
            line(
                f"commit {size} entries of 256 bytes to disk",
                spread,
                f"{size * len(times) / sum(times) * 1000:,.0f} entries/s",
            )
        await store.aclose()
        again = SqliteLogStore(Path(directory), key, SystemEntropy())
        began = time.perf_counter()
        recovered = await again.open()
        line(f"open a log of {len(recovered.entries):,} entries", f"{(time.perf_counter() - began) * 1000:8.0f} ms")
        await again.aclose()


def memory(tasks: int, nodes: int, shape: str) -> None:
    """Resident bytes of nodes, services and assigned tasks, in a process that holds nothing else."""

    def resident() -> int:
        with Path("/proc/self/statm").open() as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    ids, store = Ids(), Store()
    before = resident()
    step = 1000  # as entries come: what was proposed is gone when the next ones arrive
    for _ in range(0, nodes, step):
        store.apply(node_groups(ids, step), store.version + 1)
    made = task_groups(ids, 1 if shape == "shared" else 0, "shared")
    service = made[0][0].object.id if made else ""
    store.apply(made, store.version + 1)
    for start in range(len(made) and 1, tasks, step):
        if shape == "alone":
            groups = alone(ids, start, step)
        else:
            groups = [(Create(Task(ids.new(), service, 1, start + at, status=NEW_STATUS)),) for at in range(step)]
        store.apply(groups, store.version + 1)
    names = [node.id for node in store.nodes()]
    why = Reason(ReasonCode.PLACED, "least loaded of the nodes that fit")
    pending = list(store.pending_tasks())
    taken = 0.0
    for start in range(0, len(pending), step):
        part = pending[start : start + step]
        groups = [
            (Assign(it.id, it.version, names[(start + at) % nodes], ASSIGNED, (), why),) for at, it in enumerate(part)
        ]
        taken += seconds(lambda groups=groups: store.apply(groups, store.version + 1))
    del pending, part, groups, names
    gc.collect()
    used = resident() - before
    each = f"{used / 1e6:,.0f} MB, {used / len(store.tasks()):,.0f} B a task"
    peer = "SwarmKit 1,070 MB; goal 120" if tasks == 100_000 else "goal 1,000"
    line(f"{tasks:,} tasks on {nodes:,} nodes, {shape}", each, peer)


def alone(ids: Ids, start: int, count: int) -> list[Group]:
    """Services of one task each, their specs alike but for the name."""
    groups: list[Group] = []
    for number in range(start, start + count):
        id, spec = ids.new(), ServiceSpec(f"service-{number}", TASK)
        groups.append((Create(Service(id, spec)), Create(Revision(id, 1, spec)), Create(Task(ids.new(), id, 1, 1))))
    return groups


def main(arguments: Sequence[str]) -> None:
    """All of it, or one line of memory."""
    gc.collect()
    gc.freeze()
    gc.disable()  # the daemon raises the thresholds; a collection in the middle would only blur the figures
    if arguments[:1] == ["memory"]:
        memory(int(arguments[1]), int(arguments[2]), arguments[3])
        return
    operations()
    applying()
    encodings()
    trio.run(disk)
    for tasks, nodes, shape in SHAPES:
        subprocess.run([sys.executable, "-m", "benchmarks.store", "memory", str(tasks), str(nodes), shape], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
