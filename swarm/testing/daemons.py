"""Real daemons on loopback, for integration tests and benchmarks: started with the real command, stopped and erased at the end.

Nothing here is simulated. Whatever was started is ended when the context is left, tasks included.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from swarm.ports.clock import monotonic_seconds, pause
from swarm.ports.free_ports import free_port


class LocalCluster:
    """Nodes by name, the first one the manager that made the cluster."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names: list[str] = []
        self.addresses: dict[str, str] = {}

    def command(self, *arguments: str) -> list[str]:
        """The command line of `swarm ARGUMENTS`."""
        return [sys.executable, "-m", "swarm", *arguments]

    def attempt(
        self, *arguments: str, node: str = "", env: dict[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the command, whatever comes of it."""
        environment = {**os.environ, **(env or {})}
        if node:
            environment["SWARM_SOCKET"] = self.socket(node)
        return subprocess.run(
            self.command(*arguments), env=environment, input=stdin, capture_output=True, text=True, timeout=120
        )

    def run(self, *arguments: str, node: str = "", env: dict[str, str] | None = None) -> str:
        """What the command printed; a failure raises with its stderr."""
        done = self.attempt(*arguments, node=node, env=env)
        if done.returncode:
            raise RuntimeError(f"swarm {' '.join(arguments)}: exit code {done.returncode}: {done.stderr}")
        return done.stdout

    def json(self, *arguments: str, node: str) -> Any:
        """What the command printed as JSON."""
        return json.loads(self.run(*arguments, "--format", "json", node=node))

    def socket(self, name: str) -> str:
        """A node's local socket."""
        return str(self.directory / name / "swarm.sock")

    def start(self, name: str, role: str = "worker", *options: str) -> None:
        """Start a node and wait until it is ready; a node that was here before comes back as who it was."""
        if name in self.names:
            self.run("up", "--state-dir", str(self.directory / name), "--detach")
            return
        address = self.addresses[name] = f"127.0.0.1:{free_port()}"
        common = ["--state-dir", str(self.directory / name), "--listen", address, "--hostname", name]
        common += ["--executor", "process", "--detach", *options]
        if not self.names:
            self.run("up", *common)
        else:
            token = self.run("token", role, "-q", node=self.names[0]).strip()
            self.run("join", self.addresses[self.names[0]], *common, env={"SWARM_TOKEN": token})
        self.names.append(name)

    def kill(self, name: str) -> None:
        """SIGKILL to a daemon; its tasks go on."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), "the daemon is gone")

    def log(self, name: str) -> str:
        """What a daemon wrote to its log."""
        return (self.directory / name / "swarm.log").read_text(errors="replace")

    def task_pids(self) -> list[int]:
        """Sessions of tasks that were started here: processes that name this directory in their environment or command."""
        mark = str(self.directory).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                about = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in about and alive(int(entry.name)):
                found.append(int(entry.name))
        return found

    def pid(self, name: str) -> int:
        """A daemon's process id."""
        pid: int = self.json("status", node=name)["pid"]
        return pid


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Look until it holds; raises when it does not in time."""
    end = monotonic_seconds() + timeout_s
    while not holds():
        if monotonic_seconds() > end:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        pause(0.05)


@contextmanager
def local_cluster() -> Iterator[LocalCluster]:
    """An empty cluster directory; at the end every process that was started in it is ended, and all is erased."""
    directory = Path(tempfile.mkdtemp(prefix="swarm-local-"))
    cluster = LocalCluster(directory)
    try:
        yield cluster
    finally:
        for pid in cluster.task_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)
