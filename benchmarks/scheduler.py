"""How fast pending tasks get their nodes: from tasks PENDING to the last assignment applied to the store, in memory.

The shapes are those of SwarmKit's own scheduler benchmark: so many nodes, so many tasks, each task alone in its service or
all in one, optionally behind a filter that only every third node passes. What is timed is what a new leader does: start the
planner on the store as it stands, plan slice after slice, apply each slice, feed the events back. Peak memory is the
resident set of the process, which runs one shape only; `--shape` runs one here, without it each runs in a process of its own.

    python -m benchmarks.scheduler [--shape 1000x100000-alone] [--rounds 3]

Units: seconds on the wall and of the processor (the two agree on a machine that has nothing else to do; ratios use the
latter), placements a second, and milliseconds for a turn, which is one plan with its application and its events.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import subprocess
import sys
from time import perf_counter, process_time

from attrs import frozen

from swarm.actors.daemon import GC_THRESHOLDS
from swarm.model.changes import Create
from swarm.model.ids import Instant, NodeId, RevisionNumber, ServiceId, Slot, TaskId, Version, id_from_bytes
from swarm.model.objects import Node, NodeStatus, Revision, Service, Task, TaskStatus
from swarm.model.specs import (
    NodeDescription,
    NodeSpec,
    Placement,
    Platform,
    ProcessSpec,
    Replicated,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.states import NodeState, TaskState
from swarm.model.store import Store
from swarm.plan.schedule.planner import Scheduler

SEED = 20_240_801
NOW = Instant(1_700_000_000.0)


@frozen
class Shape:
    """One row of the benchmark; `reference_s` is SwarmKit's figure on a two-core machine (medians of several runs)."""

    nodes: int
    tasks: int
    alone: bool
    filtered: bool = False
    reserving: bool = False
    reference_s: float | None = None
    bar: float | None = None
    """How many times as fast as the reference this is to be."""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        extra = "-third" * self.filtered + "-reserving" * self.reserving
        return f"{self.nodes}x{self.tasks}-{'alone' if self.alone else 'one'}{extra}"


SHAPES = (
    Shape(1_000, 1_000, True, reference_s=0.15, bar=20),
    Shape(1_000, 10_000, True, reference_s=1.5, bar=20),
    Shape(1_000, 100_000, True, reference_s=18.0, bar=20),
    Shape(100_000, 1_000, True, reference_s=25.0, bar=20),
    Shape(100_000, 100_000, True, reference_s=1200.0, bar=20),
    Shape(5_000, 100_000, True, filtered=True, reference_s=60.0, bar=20),
    Shape(1_000, 1_000, False, reference_s=0.073, bar=10),
    Shape(1_000, 10_000, False, reference_s=0.50, bar=10),
    Shape(1_000, 100_000, False, reference_s=7.7, bar=10),
    Shape(100_000, 1_000, False),
    Shape(100_000, 100_000, False),
    Shape(5_000, 100_000, False, filtered=True),
    Shape(1_000, 100_000, True, reserving=True),
    Shape(1_000, 100_000, False, reserving=True),
    Shape(100_000, 1_000_000, False),
)


def new_id(number: int) -> str:
    """The number-th id: a fixed permutation of the numbers, spread like random ids."""
    return id_from_bytes(((number * 0x9E3779B97F4A7C15F39CC0605CEDC834D + SEED) % 2**136).to_bytes(17, "big"))


def fill(shape: Shape) -> tuple[Store, Version]:
    """A store with the shape's nodes, services and pending tasks."""
    store, index, number = Store(), Version(0), 0
    resources = Resources(nano_cpus=64 * 10**9, memory_bytes=256 << 30)
    changes: list[Create] = []

    def flush() -> None:
        nonlocal index
        index = Version(index + 1)
        results, _ = store.apply([tuple(changes)], index)
        assert results == [None], results
        changes.clear()

    for count in range(shape.nodes):
        number += 1
        labels = {"every": "third"} if count % 3 == 0 else {}
        description = NodeDescription(
            hostname=f"node-{count}", platform=Platform("x86_64", "linux"), resources=resources, executors=("process",)
        )
        node = Node(
            NodeId(new_id(number)),
            NodeSpec(labels=labels),
            description=description,
            status=NodeStatus(NodeState.READY, address="10.0.0.1"),
        )
        changes.append(Create(node))
    flush()
    reserved = Resources(10**8, 64 << 20) if shape.reserving else Resources()
    placement = Placement(constraints=("node.labels.every == third",)) if shape.filtered else Placement()
    pending = TaskStatus(TaskState.PENDING, at=NOW)
    service: Service | None = None
    for count in range(shape.tasks):
        if shape.alone or service is None:
            number += 1
            task_spec = TaskSpec(
                ProcessSpec(("server",)), ResourceRequirements(reservations=reserved), placement=placement
            )
            spec = ServiceSpec(f"service-{count}", task_spec, Replicated(1 if shape.alone else shape.tasks))
            service = Service(ServiceId(new_id(number)), spec)
            changes.append(Create(service))
            changes.append(Create(Revision(service.id, RevisionNumber(1), spec)))
        number += 1
        slot = Slot(1 if shape.alone else count + 1)
        changes.append(Create(Task(TaskId(new_id(number)), service.id, RevisionNumber(1), slot, status=pending)))
        if len(changes) >= 10_000:
            flush()
    if changes:
        flush()
    return store, index


class NoIds:
    """The scheduler makes nothing that needs an id."""

    def new(self) -> str:
        """Refuses."""
        raise AssertionError("the scheduler creates no objects")


def drive(store: Store, index: Version, tasks: int) -> tuple[float, float, list[float]]:
    """Seconds (wall, processor) from the planner's start to the last assignment applied, and of the processor by turn."""
    scheduler, placed, turns = Scheduler(), 0, []
    wall, started = perf_counter(), process_time()
    memory, first = scheduler.start(store)
    keys = dict.fromkeys(first)
    turns.append(process_time() - started)
    while keys:
        turn = process_time()
        slice_keys = list(keys)[: scheduler.slice_keys]
        for key in slice_keys:
            del keys[key]
        plan = scheduler.plan(store, slice_keys, memory, NOW, NoIds())
        keys.update(dict.fromkeys(plan.again))
        if plan.groups:
            index = Version(index + 1)
            results, events = store.apply(plan.groups, index)
            placed += results.count(None)
            dirty = scheduler.dirty
            for event in events:
                for key in dirty(event, memory):
                    keys[key] = None
        turns.append(process_time() - turn)
    took = process_time() - started
    assert placed == tasks, f"{placed} of {tasks} tasks were placed"
    return perf_counter() - wall, took, turns


def one_more(store: Store, index: Version, rounds: int) -> float:
    """Median seconds for a single new task in a service of its own, on the cluster as it is, its creation not counted."""
    scheduler = Scheduler()
    memory, first = scheduler.start(store)
    again: tuple[str, ...] = tuple(first)
    while again:
        again = scheduler.plan(store, again, memory, NOW, NoIds()).again
    samples: list[float] = []
    pending = TaskStatus(TaskState.PENDING, at=NOW)
    for count in range(rounds):
        spec = ServiceSpec(f"single-{count}", TaskSpec(ProcessSpec(("server",))), Replicated(1))
        service = Service(ServiceId(new_id(10**9 + 2 * count)), spec)
        task = Task(TaskId(new_id(10**9 + 2 * count + 1)), service.id, RevisionNumber(1), Slot(1), status=pending)
        index = Version(index + 1)
        group = (Create(service), Create(Revision(service.id, RevisionNumber(1), spec)), Create(task))
        _, events = store.apply([group], index)
        started = perf_counter()
        keys = [key for event in events for key in scheduler.dirty(event, memory)]
        plan = scheduler.plan(store, keys, memory, NOW, NoIds())
        index = Version(index + 1)
        results, events = store.apply(plan.groups, index)
        samples.append(perf_counter() - started)
        assert results == [None]
        for event in events:
            scheduler.dirty(event, memory)
    return statistics.median(samples)


def quiet_collector() -> None:
    """The collector as the daemon sets it, with the state that a manager starts with frozen."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def run(shape: Shape) -> None:
    """One round of one shape, printed."""
    store, index = fill(shape)
    quiet_collector()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, took, turns = drive(store, index, shape.tasks)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    turns.sort()
    p999 = turns[min(len(turns) - 1, int(len(turns) * 0.999))]
    line = (
        f"{shape.name:28} {wall:7.3f} s wall {took:7.3f} s cpu {shape.tasks / took:10,.0f}/s  peak {after / 1024:6.0f} MB"
        f" ({(after - before) / 1024:+.0f})  turn p99.9 {p999 * 1e3:6.1f} max {turns[-1] * 1e3:6.1f} ms"
    )
    if shape.reference_s is not None:
        line += f"  SwarmKit {shape.reference_s:g} s: {shape.reference_s / took:.1f} times as fast (bar {shape.bar:g})"
    print(line, flush=True)
    if shape == SHAPES[0]:
        store, index = fill(Shape(1_000, 0, True))
        print(f"{'one new task, 1000 nodes':28} {one_more(store, index, 500) * 1e3:8.3f} ms")


def main() -> None:
    """Run all shapes, each in a process of its own, or the one that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=[shape.name for shape in SHAPES])
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if options.shape:
        for _ in range(options.rounds):
            run(next(shape for shape in SHAPES if shape.name == options.shape))
        return
    for shape in SHAPES:
        for _ in range(options.rounds):
            subprocess.run([sys.executable, "-m", "benchmarks.scheduler", "--shape", shape.name], check=True)


if __name__ == "__main__":
    main()
