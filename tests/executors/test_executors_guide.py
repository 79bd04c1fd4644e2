"""The executor in docs/executors-guide.md is complete and passes the suite."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from swarm.executors.base import ExecutorContext, Workload
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.specs import GenericSpec, ServiceSpec, TaskSpec
from swarm.ports.clock import SystemClock
from swarm.ports.entropy import SystemEntropy
from swarm.testing.executor_suite import Behaviour, ExecutorSuite

pytestmark = pytest.mark.integration
GUIDE = Path(__file__).parents[2] / "docs" / "executors-guide.md"
SOURCE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, {handler})
for line in {out!r}: print(line, flush=True)
for line in {err!r}: print(line, file=sys.stderr, flush=True)
end = time.monotonic() + {runs_s}
while time.monotonic() < end: time.sleep(0.02)
sys.exit({exit_code})
"""


def example() -> dict[str, Any]:
    block = re.search(r"<!-- example: [^\n]*\n```python\n(.*?)```", GUIDE.read_text(), re.S)
    assert block is not None
    namespace: dict[str, Any] = {}
    exec(compile(block[1], str(GUIDE), "exec"), namespace)
    return namespace


class PythonHarness:
    """One node's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ids = SystemEntropy()
        self.node_id = NodeId(self.ids.new())
        self.context = ExecutorContext(
            str(directory), SystemClock(), self.ids, self.node_id, "here", {"PATH": os.environ["PATH"]}
        )

    def executor(self) -> Any:
        return example()["factory"](self.context)

    def workload(self, behaviour: Behaviour) -> Workload:
        handler = "signal.SIG_IGN" if behaviour.ignores_stop else "lambda *_: os._exit(143)"
        runs_s = 1e9 if behaviour.runs_s is None else behaviour.runs_s
        source = SOURCE.format(
            handler=handler, out=behaviour.out, err=behaviour.err, runs_s=runs_s, exit_code=behaviour.exit_code
        )
        return self.generic(GenericSpec("python", source.encode()))

    def broken_workload(self) -> Workload:
        return self.generic(GenericSpec("python", b"what now?"))

    def generic(self, spec: GenericSpec) -> Workload:
        ids = TaskId(self.ids.new()), ServiceId(self.ids.new()), RevisionNumber(1), Slot(1), self.node_id
        return Workload(*ids, "here", ServiceSpec("web", TaskSpec(spec)))

    async def leftovers(self, task_id: TaskId) -> list[str]:
        return [str(path) for path in self.directory.rglob("*") if task_id in str(path)]


@pytest.fixture
def harness(tmp_path: Path) -> PythonHarness:
    return PythonHarness(tmp_path)


class TestGuideExecutor(ExecutorSuite):
    """Everything that is asked of any executor."""
