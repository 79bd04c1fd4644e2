"""The cluster under test: real daemons, in namespaces where that is permitted, and ways to hurt each of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from chaos_net import TestNet, small_disk, why_not

from swarm.model.objects import Node
from swarm.ports.free_ports import free_port
from swarm.runtime.errors import SwarmError
from swarm.runtime.message import Request
from swarm.testing.daemons import LocalCluster, alive, local_cluster, wait_until
from swarm.wire.client import LocalClient
from swarm.wire.messages.control import ListNodes
from swarm.wire.messages.node import GetNodeStatus, NodeStatusView

R = TypeVar("R")

PORT = 4242
SMALL_DISK_MIB = 48
FILLER = "filler"
SKEWED = Path(__file__).parent / "skewed"
READY_S = 30.0


class ChaosCluster:
    """Managers `m1`.. and workers `w1`..; `net` is None where namespaces cannot be made, and `why` says so."""

    def __init__(self, local: LocalCluster, net: TestNet | None, why: str) -> None:
        self.local = local
        self.net = net
        self.why = why
        self.managers: list[str] = []
        self.workers: list[str] = []
        self.ids: dict[str, str] = {}
        self.small_disks: set[str] = set()
        self.paused: set[str] = set()
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def nodes(self) -> list[str]:
        """All names."""
        return [*self.managers, *self.workers]

    # --- life and death ------------------------------------------------------------------------------------------------
    def create(self, name: str, role: str) -> None:
        """Start a node that was not here before, and wait until it is ready."""
        address = f"127.0.0.1:{free_port()}" if self.net is None else f"{self.net.add(name)}:{PORT}"
        self.local.addresses[name] = address
        self._first_start(name, role)
        (self.managers if role == "manager" else self.workers).append(name)
        self.local.names.append(name)

    def join_again(self, name: str, role: str) -> None:
        """Join a node whose state directory was erased, at its old address."""
        self._first_start(name, role)

    def attempt_up(self, name: str) -> subprocess.CompletedProcess[str]:
        """Start a daemon that was killed with `swarm up --detach`, whatever comes of it."""
        arguments = ["up", "--state-dir", str(self.local.directory / name), "--detach"]
        command = [*self._inside(name), *self.local.command(*arguments)]
        return subprocess.run(command, env=self._environment(name), capture_output=True, text=True, timeout=60)

    def _first_start(self, name: str, role: str) -> None:
        address = self.local.addresses[name]
        options = ["--state-dir", str(self.local.directory / name), "--listen", address, "--advertise", address]
        options += ["--hostname", name, "--executor", "process", "--detach"]
        inside = self.other(name)
        if not inside:
            self._swarm(name, "up", *options)
        else:
            token = self.local.run("token", role, "-q", node=inside).strip()
            self._swarm(name, "join", self.local.addresses[inside], *options, token=token)
        self.ids[name] = self.status(name).node_id

    def restart(self, name: str) -> None:
        """Start a daemon that was killed; it is ready, or waits for what is missing, when this returns."""
        directory = self.local.directory / name
        with (directory / "swarm.log").open("ab") as log:
            started = subprocess.Popen(
                [*self._inside(name), *self.local.command("up", "--state-dir", str(directory))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                env=self._environment(name),
            )  # fmt: skip
        self._started.append(started)
        wait_until(lambda: self._answers(name), f"{name} answers", READY_S)

    def kill(self, name: str) -> None:
        """SIGKILL; its tasks go on."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        self.paused.discard(name)
        wait_until(lambda: not alive(pid), f"{name} is gone")

    def stop(self, name: str) -> None:
        """SIGTERM, and wait until it has ended; its tasks go on."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not alive(pid), f"{name} has stopped", READY_S)

    def erase(self, name: str) -> None:
        """Its machine is set up anew: every process of it ends, and its state directory is empty."""
        mark = f"{self.local.directory / name}".encode()
        for pid in self.local.task_pids():
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        for entry in (self.local.directory / name).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def set_clock(self, name: str, skew_s: float) -> None:
        """Its wall clock jumps: it is off by this much from now on."""
        self._clock_file(name).write_text(str(skew_s))

    def pause(self, name: str) -> None:
        """SIGSTOP: connections stay open and nobody answers."""
        os.kill(self.pid(name), signal.SIGSTOP)
        self.paused.add(name)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        os.kill(self.pid(name), signal.SIGCONT)
        self.paused.discard(name)

    def fill_disk(self, name: str) -> None:
        """Leave no space below its state directory."""
        path = self.local.directory / name / FILLER
        with path.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free_disk(self, name: str) -> None:
        """Space again."""
        (self.local.directory / name / FILLER).unlink(missing_ok=True)

    def pid(self, name: str) -> int:
        """The daemon's process id, as its lock file says."""
        return int((self.local.directory / name / "lock").read_text().split()[0])

    def running(self, name: str) -> bool:
        """Whether its daemon lives."""
        try:
            return alive(self.pid(name))
        except (OSError, IndexError, ValueError):
            return False

    def close(self) -> None:
        """Kill the daemons that were started again; `local_cluster` ends the rest."""
        for started in self._started:
            started.kill()
            started.wait(30)

    # --- managers that come and go -------------------------------------------------------------------------------------
    def other(self, name: str) -> str:
        """A manager that runs, not this one; empty when there is none."""
        return next((other for other in self.managers if other != name and self.running(other)), "")

    def demote(self, name: str) -> None:
        """Wait until it is a worker."""
        self._insist("node", "demote", name, through=self.other(name))
        wait_until(lambda: self._is(name, "worker"), f"{name} is a worker", READY_S)

    def promote(self, name: str) -> None:
        """Wait until it is a manager."""
        self._insist("node", "promote", name, through=self.other(name))
        wait_until(lambda: self._is(name, "manager"), f"{name} is a manager", READY_S)

    def leave(self, name: str) -> None:
        """It goes in order; its tasks and its record go with it."""
        pid = self.pid(name)
        self._insist("leave", through=name)
        wait_until(lambda: not alive(pid), f"{name} has ended", READY_S)

    def remove(self, name: str) -> None:
        """It was lost for good: the others take its record out."""
        self._insist("node", "rm", "--force", self.ids[name], through=self.other(name))

    def _insist(self, *command: str, through: str) -> None:
        """Type it until it is done: others may have changed the same record, or an election may be under way."""
        end = time.monotonic() + READY_S
        while (done := self.local.attempt(*command, node=through)).returncode:
            if time.monotonic() > end:
                raise TimeoutError(f"swarm {' '.join(command)} on {through} is still refused: {done.stderr}")
            time.sleep(0.2)

    def _is(self, name: str, role: str) -> bool:
        try:
            status = self.ask(name, GetNodeStatus(), 1.0)
        except SwarmError:
            return False
        return (status.role, status.state) == (role, "ready")

    # --- asking --------------------------------------------------------------------------------------------------------
    def client(self, name: str) -> LocalClient:
        """A connection to its socket."""
        return LocalClient(self.local.socket(name))

    def ask(self, name: str, request: Request[R], timeout_s: float = 5.0) -> R:
        """One question over a connection of its own."""
        with self.client(name) as client:
            return client.ask(request, timeout_s=timeout_s)

    def status(self, name: str) -> NodeStatusView:
        """What the node says of itself."""
        return self.ask(name, GetNodeStatus())

    def leader(self) -> str | None:
        """Which manager leads, as far as any that answers knows."""
        return next((leader for name in self.managers if (leader := self.leader_of(name)) is not None), None)

    def leader_of(self, name: str) -> str | None:
        """Which manager leads, as this one knows it; None also when it does not answer."""
        with suppress(SwarmError):
            led_by = self.ask(name, GetNodeStatus(), 1.0).leader
            return next((other for other in self.managers if self.ids[other] == led_by), None)
        return None

    def records(self, name: str) -> dict[str, Node]:
        """Every node's record by hostname, as this manager tells it."""
        return {view.node.description.hostname: view.node for view in self.ask(name, ListNodes(), 10.0)}

    def logs(self, lines: int = 15) -> str:
        """The end of every daemon's log, for a failure's report."""
        found = []
        for name in self.nodes:
            text = self.local.log(name).splitlines()
            found.append("\n".join([f"--- {name}", *text[-lines:]]))
        return "\n".join(found)

    # --- inside --------------------------------------------------------------------------------------------------------
    def _answers(self, name: str) -> bool:
        try:
            return bool(self.ask(name, GetNodeStatus(), 1.0).node_id)
        except SwarmError:
            if not self.running(name):
                time.sleep(0.1)
            return False

    def _inside(self, name: str) -> list[str]:
        return [] if self.net is None else self.net.inside(name)

    def _clock_file(self, name: str) -> Path:
        return self.local.directory / f"{name}.clock"

    def _environment(self, name: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(SKEWED), "CHAOS_CLOCK": str(self._clock_file(name))}

    def _swarm(self, name: str, *arguments: str, token: str = "") -> None:
        environment = {**self._environment(name), **({"SWARM_TOKEN": token} if token else {})}
        command = [*self._inside(name), *self.local.command(*arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr}")


@contextmanager
def chaos_cluster(managers: int, workers: int, small_disks: int = 0) -> Iterator[ChaosCluster]:
    """A cluster of that size; the last `small_disks` managers have a small disk each. Nothing is left of it afterwards."""
    why = why_not()
    with ExitStack() as stack:
        net = None
        if not why:
            net = TestNet()
            stack.callback(net.close)
            net.open()
        disks = stack.enter_context(ExitStack())
        local = stack.enter_context(local_cluster())
        cluster = ChaosCluster(local, net, why)
        stack.callback(cluster.close)
        for number in range(1, managers + 1):
            name = f"m{number}"
            if not why and number > managers - small_disks:
                disks.enter_context(small_disk(str(local.directory / name), SMALL_DISK_MIB))
                os.chmod(local.directory / name, 0o700)
                cluster.small_disks.add(name)
            cluster.create(name, "manager")
        for number in range(1, workers + 1):
            cluster.create(f"w{number}", "worker")
        yield cluster
    shutil.rmtree(local.directory, ignore_errors=True)  # a small disk's directory stayed while it was mounted
    wait_until(lambda: not left_of(local, net), f"nothing is left: {left_of(local, net)}")


def left_of(local: LocalCluster, net: TestNet | None) -> list[str]:
    """Processes, mounts and namespaces of a cluster that should have none any more."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(local.directory) in line]
    return [*map(str, local.task_pids()), *mounts, *(net.left() if net is not None else ())]


def state_file(cluster: ChaosCluster, name: str, *parts: str) -> Path:
    """A file below a node's state directory."""
    return cluster.local.directory.joinpath(name, *parts)
