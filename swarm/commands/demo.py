"""`make demo`: the main job, end to end, with the command that users type. Run as `python -m swarm.commands.demo`.

Managers and workers are separate processes on loopback with real mutual TLS. It fails loudly, with a non-zero exit, when
any step does not happen, and leaves no process and no file behind either way.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from swarm.ports.clock import monotonic_seconds, pause
from swarm.ports.free_ports import free_port, is_free

MANAGERS = ("manager-1", "manager-2", "manager-3")
WORKERS = ("worker-1", "worker-2")
NODE_PORTS = range(10_000, 20_000)
SERVICE_PORTS = range(21_000, 32_000)
"""Apart from those of the nodes, which are drawn later."""
REPLICAS = 6
LIMIT_S = 90.0
STEP_LIMIT_S = 45.0


class DemoFailed(Exception):
    """A step did not happen."""


class Demo:
    """The cluster of the demo: a directory, the nodes in it, and every process that was seen."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.addresses: dict[str, str] = {}
        self.down: set[str] = set()
        self.seen: dict[int, str] = {}
        self.started_s = monotonic_seconds()

    # --- the command -----------------------------------------------------------------------------------------------
    def swarm(self, *arguments: str, node: str = "", show: bool = True, env: dict[str, str] | None = None) -> str:
        """Run the command against a node's daemon and give what it printed; a failure ends the demo."""
        where = ["--socket", str(self.directory / node / "swarm.sock")] if node else []
        command = [sys.executable, "-m", "swarm", *_with_socket(list(arguments), where)]
        environment = {**os.environ, **(env or {})}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=STEP_LIMIT_S)
        if show:  # at once, since nodes are started side by side
            print(f"$ swarm {' '.join(arguments)}\n{done.stderr}{done.stdout}", end="", flush=True)
        if done.returncode:
            raise DemoFailed(f"swarm {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def json(self, *arguments: str, node: str = "") -> Any:
        """What the command prints with `--format json`."""
        return json.loads(self.swarm(*arguments, "--format", "json", node=node or self.manager(), show=False))

    def manager(self) -> str:
        """A manager that was not killed."""
        return next(name for name in MANAGERS if name not in self.down and name in self.addresses)

    # --- nodes -----------------------------------------------------------------------------------------------------
    def start(self, name: str, token: str = "") -> None:
        """Start a node: the first makes the cluster, the others join it."""
        self.addresses[name] = f"127.0.0.1:{free_port(NODE_PORTS)}"
        options = ["--state-dir", str(self.directory / name), "--listen", self.addresses[name], "--hostname", name]
        options += ["--executor", "process", "--detach"]
        if token:
            self.swarm("join", self.addresses[MANAGERS[0]], *options, env={"SWARM_TOKEN": token})
        else:
            self.swarm("up", *options)
        self.seen[self.status(name)["pid"]] = name

    def start_each(self, names: Sequence[str], token: str) -> None:
        """Start nodes one after the other."""
        for name in names:
            self.start(name, token)

    def start_again(self, name: str) -> None:
        """Start the daemon of a node that was killed: it goes on from its state directory."""
        self.swarm("up", "--state-dir", str(self.directory / name), "--detach")
        self.down.discard(name)
        self.seen[self.status(name)["pid"]] = name

    def status(self, name: str) -> Any:
        """`swarm status` of a node."""
        return self.json("status", node=name)

    def kill_machine(self, name: str) -> None:
        """End a node and all its tasks at once, as a machine that loses power."""
        pids = [task["task"]["status"]["pid"] for task in self.json("task", "ls", "--node", name)]
        daemon = self.status(name)["pid"]
        self.down.add(name)
        os.kill(daemon, signal.SIGKILL)
        sessions = {session for session in map(_session_of, pids) if session}
        for pid, session in _sessions():
            if session in sessions:
                os.kill(pid, signal.SIGKILL)

    # --- tasks -----------------------------------------------------------------------------------------------------
    def running(self) -> list[Any]:
        """Tasks of `web` that run and are wanted to."""
        views = self.json("svc", "ps", "web", "--running")
        for view in views:
            if view["task"]["status"]["pid"]:
                self.seen[view["task"]["status"]["pid"]] = f"task {view['task']['id']}"
        return [view for view in views if view["task"]["status"]["state"] == "running"]

    def until(self, what: str, holds: Callable[[], bool]) -> float:
        """Wait until something holds; the seconds that it took."""
        began = monotonic_seconds()
        while not holds():
            if monotonic_seconds() - began > STEP_LIMIT_S:
                raise DemoFailed(f"after {STEP_LIMIT_S:g} s still not true: {what}")
            pause(0.1)
        return monotonic_seconds() - began


def _with_socket(arguments: list[str], where: list[str]) -> list[str]:
    """The socket option goes before a `--` and what follows it."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:cut] + where + arguments[cut:]


def _free_port_prefix() -> int:
    """A number that with one more digit is a port that is free, for each digit."""
    for prefix in range(SERVICE_PORTS.start // 10, SERVICE_PORTS.stop // 10):
        if all(is_free(prefix * 10 + digit) for digit in range(10)):
            return prefix
    raise DemoFailed("no ten free ports in a row on loopback")


def _sessions() -> Iterator[tuple[int, int]]:
    """Every process with its session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            session = _session_of(int(entry.name))
            if session:
                yield int(entry.name), session


def _session_of(pid: int) -> int:
    """The session of a process, 0 when it is gone (or is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[3])


def fetch(port: int) -> str:
    """The page of one replica."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        text: str = answer.read().decode()
        return text.strip()


def say(text: str) -> None:
    """A heading."""
    print(f"\n== {text}", flush=True)


def form_cluster(demo: Demo) -> None:
    """Managers and workers, each a process of its own."""
    say("a cluster: three managers and two workers, five processes, mutual TLS")
    demo.start(MANAGERS[0])
    manager_token = demo.swarm("token", "manager", "-q", node=MANAGERS[0]).strip()
    worker_token = demo.swarm("token", "worker", "-q", node=MANAGERS[0]).strip()
    with ThreadPoolExecutor(max_workers=2) as pool:
        joins = [
            pool.submit(demo.start_each, names, token)
            for names, token in ((MANAGERS[1:], manager_token), (WORKERS, worker_token))
        ]
    for join in joins:
        join.result()
    demo.until("all nodes are ready", lambda: _ready(demo) == len(MANAGERS) + len(WORKERS))
    demo.swarm("node", "ls", node=demo.manager())


def _ready(demo: Demo) -> int:
    return sum(view["node"]["status"]["state"] == "ready" for view in demo.json("node", "ls"))


def run_service(demo: Demo, prefix: int) -> None:
    """Six replicas of a real HTTP server, one port per slot, on the workers."""
    say(f"a service of {REPLICAS} replicas of a real HTTP server, one port per slot")
    arguments = ["svc", "create", "--name", "web", "--replicas", str(REPLICAS), "--constraint", "node.role==worker"]
    arguments += ["--replace-after", "1s", "--restart-delay", "0s", "--timeout", "30s"]
    for name, value in (
        ("SERVICE", "{{.Service.Name}}"),
        ("SLOT", "{{.Task.Slot}}"),
        ("NODE", "{{.Node.Hostname}}"),
        ("TASK", "{{.Task.ID}}"),
    ):
        arguments += ["--env", f"{name}={value}"]
    server = [sys.executable, "-m", "swarm.commands.demo_server", f"{prefix}{{{{.Task.Slot}}}}"]
    demo.swarm(*arguments, "--", *server, node=demo.manager())
    demo.swarm("svc", "ps", "web", node=demo.manager())
    fetch_all(demo, prefix, REPLICAS)


def fetch_all(demo: Demo, prefix: int, count: int) -> None:
    """A page from each replica."""
    say("a page from each replica")
    for view in sorted(demo.running(), key=lambda view: view["task"]["slot"]):
        slot = view["task"]["slot"]
        pages: list[str] = []
        demo.until(f"slot {slot} answers", lambda slot=slot, pages=pages: _answers(prefix * 10 + slot, pages))  # type: ignore[misc]
        print(f"  http://127.0.0.1:{prefix}{slot}/  {pages[0]}")
        if f"web slot {slot} " not in pages[0]:
            raise DemoFailed(f"port {prefix}{slot} answered as somebody else: {pages[0]}")
        count -= 1
    if count:
        raise DemoFailed(f"{count} replicas are missing")


def _answers(port: int, pages: list[str]) -> bool:
    try:
        pages.append(fetch(port))
    except OSError:
        return False
    return True


def lose_worker(demo: Demo, prefix: int) -> None:
    """A machine that loses power."""
    lost = WORKERS[0]
    say(f"{lost} loses power: its daemon and its tasks are killed")
    began = monotonic_seconds()
    demo.kill_machine(lost)
    demo.until("all replicas run elsewhere", lambda: len(_elsewhere(demo, lost)) == REPLICAS)
    print(f"all {REPLICAS} replicas run again, none on {lost}, after {monotonic_seconds() - began:.2f} s")
    demo.swarm("svc", "ps", "web", "--running", node=demo.manager())
    fetch_all(demo, prefix, REPLICAS)
    say(f"{lost} does not come back: it is forgotten, with what it ran")
    demo.swarm("node", "rm", "--force", lost, node=demo.manager())
    if any(view["node"]["description"]["hostname"] == lost for view in demo.json("node", "ls")):
        raise DemoFailed(f"{lost} was removed and is still listed")


def _elsewhere(demo: Demo, lost: str) -> list[Any]:
    return [view for view in demo.running() if view["node_name"] != lost]


def lose_leader(demo: Demo) -> None:
    """The leader is killed; another manager takes writes; the lost one comes back."""
    nodes = demo.json("node", "ls")
    leader = next(view["node"]["description"]["hostname"] for view in nodes if view["leader"])
    say(f"the leader, {leader}, is killed")
    before = {view["task"]["id"] for view in demo.running()}
    pid = demo.status(leader)["pid"]
    demo.down.add(leader)
    began = monotonic_seconds()
    os.kill(pid, signal.SIGKILL)
    demo.swarm("node", "update", WORKERS[1], "--label-add", "after=failover", node=demo.manager())
    print(f"the next write was accepted after {monotonic_seconds() - began:.2f} s")
    if {view["task"]["id"] for view in demo.running()} != before:
        raise DemoFailed("losing the leader moved tasks")
    say(f"{leader} is started again: it catches up and follows")
    demo.start_again(leader)
    demo.until("all managers are reachable", lambda: _reachable(demo) == len(MANAGERS))
    demo.swarm("node", "ls", node=demo.manager())


def _reachable(demo: Demo) -> int:
    return sum(bool(view["leader"] or view["reachable"]) for view in demo.json("node", "ls"))


def change_service(demo: Demo, prefix: int) -> None:
    """Scale, drain, remove."""
    say("scale")
    demo.swarm("svc", "scale", "web=8", "--timeout", "30s", node=demo.manager())
    fetch_all(demo, prefix, 8)
    demo.swarm("svc", "scale", "web=3", "--timeout", "30s", node=demo.manager())
    say(f"{WORKERS[1]} is drained; the managers may run tasks too now")
    demo.swarm("svc", "update", "web", "--constraint-rm", "node.role==worker", "--timeout", "30s", node=demo.manager())
    demo.swarm("node", "drain", WORKERS[1], "--timeout", "30s", node=demo.manager())
    fetch_all(demo, prefix, 3)
    if any(view["node_name"] == WORKERS[1] for view in demo.running()):
        raise DemoFailed(f"{WORKERS[1]} is drained and still runs tasks")
    say("remove")
    demo.swarm("svc", "rm", "web", "--timeout", "30s", node=demo.manager())
    demo.swarm("svc", "ls", node=demo.manager())


def stop_all(demo: Demo) -> None:
    """An orderly stop of every daemon, then proof that nothing is left."""
    say("stop")
    for name in (*WORKERS, *reversed(MANAGERS)):
        if name not in demo.down and name in demo.addresses:
            demo.swarm("stop", node=name)
    left = {pid: what for pid, what in demo.seen.items() if _session_of(pid)}
    if left:
        raise DemoFailed(f"processes are left: {left}")
    print("no process is left")


@contextmanager
def cleaned_up(demo: Demo) -> Iterator[None]:
    """Whatever happens, end what the demo started and delete its files."""
    try:
        yield
    except BaseException:
        _print_logs(demo)
        raise
    finally:
        _end_all(demo)
        shutil.rmtree(demo.directory, ignore_errors=True)


def _end_all(demo: Demo) -> None:
    """Kill what was seen, with its session, and whatever names the demo's directory: a start that failed was not seen."""
    mark = os.fsencode(demo.directory)
    sessions = {session for pid in demo.seen if (session := _session_of(pid))}
    for pid, session in list(_sessions()):
        if pid != os.getpid() and (session in sessions or mark in _about(pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _about(pid: int) -> bytes:
    """A process's command line and environment; empty when it is gone or somebody else's."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _stopped(_number: int, _frame: object) -> None:
    raise DemoFailed("it was told to stop")


def _print_logs(demo: Demo) -> None:
    for log in sorted(demo.directory.glob("*/swarm.log")):
        sys.stderr.write(f"--- the end of {log.parent.name}'s log\n{log.read_text(errors='replace')[-3000:]}\n")


def main() -> None:
    """The whole demo; exit code 1 when a step did not happen."""
    signal.signal(signal.SIGTERM, _stopped)
    demo = Demo(Path(tempfile.mkdtemp(prefix="swarm-demo-")))
    try:
        with cleaned_up(demo):
            prefix = _free_port_prefix()
            form_cluster(demo)
            run_service(demo, prefix)
            lose_worker(demo, prefix)
            lose_leader(demo)
            change_service(demo, prefix)
            stop_all(demo)
    except (DemoFailed, subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        sys.stderr.write(f"\nthe demo failed: {str(error) or 'interrupted'}\n")
        sys.exit(1)
    if demo.directory.exists():
        sys.exit(f"the demo failed: {demo.directory} is left")
    took = monotonic_seconds() - demo.started_s
    print(f"\ndone in {took:.1f} s; nothing is left behind")
    if took > LIMIT_S:
        sys.exit(f"the demo failed: it took more than {LIMIT_S:g} s")


if __name__ == "__main__":
    main()
