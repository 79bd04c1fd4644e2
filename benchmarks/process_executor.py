"""How long from `start` to a command that runs, and what does a running task cost in memory? The process executor.

`python -m benchmarks.process_executor`: each round starts `sleep` bare (`subprocess.Popen`, which also returns after the
exec) and as a task (record, supervising shell, output files, control group), in the same run. Milliseconds, median and
p99; then the memory that the supervising shells hold (PSS, kilobytes). Nothing is random but ids.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import trio

from swarm.executors.base import Workload
from swarm.executors.process import ProcessExecutor
from swarm.executors.process.record import parse_record
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.specs import ProcessSpec, ServiceSpec, TaskSpec
from swarm.ports.entropy import SystemEntropy

ROUNDS = 200
WARM_UP = 20
COMMAND = ("sleep", "1000")


def bare() -> float:
    """Seconds to start the command without us."""
    began = time.perf_counter()
    child = subprocess.Popen(COMMAND, stdin=subprocess.DEVNULL, start_new_session=True)
    took = time.perf_counter() - began
    child.kill()
    child.wait()
    return took


def workload(ids: SystemEntropy) -> Workload:
    """A new task."""
    spec = ServiceSpec("bench", TaskSpec(ProcessSpec(COMMAND)))
    return Workload(TaskId(ids.new()), ServiceId("s"), RevisionNumber(1), Slot(1), NodeId("n"), "here", spec)


def shell_memory(directory: str, task: Workload) -> int:
    """Kilobytes that the task's shell has to itself, with its share of what it shares."""
    shell = parse_record(Path(directory, task.task_id, "record").read_bytes()).shell
    assert shell is not None
    text = Path(f"/proc/{shell.pid}/smaps_rollup").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))


def show(name: str, seconds: list[float]) -> float:
    """Print median and p99; the median."""
    seconds = sorted(seconds[WARM_UP:])
    median = seconds[len(seconds) // 2]
    print(f"{name:5} median {median * 1e3:6.2f} ms  p99 {seconds[int(len(seconds) * 0.99)] * 1e3:6.2f} ms")
    return median


async def main() -> None:
    """All measurements."""
    ids = SystemEntropy()
    with tempfile.TemporaryDirectory() as directory:
        executor = ProcessExecutor(directory, env=os.environ)
        times: dict[str, list[float]] = {"bare": [], "task": []}
        memory: list[int] = []
        for number in range(ROUNDS):
            times["bare"].append(bare())
            task = workload(ids)
            controller = executor.controller(task)
            await controller.prepare()
            began = time.perf_counter()
            await controller.start()
            times["task"].append(time.perf_counter() - began)
            if number % 20 == 0:
                memory.append(shell_memory(directory, task))
            await controller.remove()
        ratio = show("task", times["task"]) / show("bare", times["bare"])
        print(f"ratio {ratio:.1f}; shell {sorted(memory)[len(memory) // 2]} kB (PSS)")


if __name__ == "__main__":
    trio.run(main)
