"""The daemon as a process: real ports, logging, signals, and the garbage collector's settings.

Whatever a user can cause comes out of `run_daemon` as a `SwarmError`; a bug comes out as it is, with its traceback.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import cast

import trio

from swarm.actors.context import NodeConfig, NodeNet
from swarm.actors.node import End, Told, run_node
from swarm.executors.base import ExecutorContext, ExecutorUnavailable
from swarm.executors.registry import AUTO, Executors, open_executors
from swarm.ports.clock import Clock, SystemClock
from swarm.ports.entropy import Entropy, SystemEntropy
from swarm.ports.log_store import LogStore
from swarm.ports.machine_net import machine_hostname, outward_host
from swarm.ports.net import DialError
from swarm.ports.sqlite_log_store import SqliteLogStore
from swarm.ports.state_dir import NodeFile, StateDir, open_state_dir
from swarm.ports.task_store import SqliteTaskStore, TaskStore
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.local import LocalListener, open_socket
from swarm.wire.messages.node import NodeStatusView
from swarm.wire.websocket import open_net

GC_THRESHOLDS = (5_000, 500, 100)
"""Allocations between two collections, and how many of a generation make one of the next.

A pause stalls every actor, and objects here are acyclic data that stay: a young collection of 5,000 takes 2 ms where one of
50,000 takes 15 to 25, and an older generation, with hundreds of thousands, is to be looked at rarely."""

SWITCH_INTERVAL_S = 0.0005
"""How long the loop's thread may keep the log's writer thread waiting: with Python's 5 ms a commit under load takes twice
as long (measured: p50 32 ms against 17 ms)."""

Notify = Callable[[dict[str, str]], None]


class SystemPorts:
    """The real world."""

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()
        self.entropy: Entropy = SystemEntropy()

    def open_state(self, path: Path) -> StateDir:
        """The locked state directory."""
        return open_state_dir(path)

    def open_net(self) -> AbstractAsyncContextManager[NodeNet]:
        """TLS websockets."""
        return cast("AbstractAsyncContextManager[NodeNet]", open_net())

    def open_local(self, path: str) -> AbstractAsyncContextManager[LocalListener]:
        """The unix socket."""
        return open_socket(path)

    def log_store(self, state: StateDir, data_key: bytes) -> LogStore:
        """SQLite below `raft/`."""
        return SqliteLogStore(state.path("raft"), data_key, self.entropy)

    def task_store(self, state: StateDir) -> TaskStore:
        """SQLite below `agent/`."""
        return SqliteTaskStore(state.path("agent"))

    def executors(self, file: NodeFile, state: StateDir) -> Executors:
        """Those that were asked for."""
        context = ExecutorContext(
            state_dir=str(state.path("tasks")),
            clock=self.clock,
            entropy=self.entropy,
            node_id=file.node_id,
            hostname=file.hostname,
            env=dict(os.environ),
        )
        try:
            return open_executors(context, file.executors or (AUTO,))
        except ExecutorUnavailable as error:
            raise SwarmError(ErrorCode.PRECONDITION, str(error)) from None

    def hostname(self) -> str:
        """The machine's own name."""
        return machine_hostname()

    def outward_host(self) -> str:
        """The address that others most likely reach."""
        return outward_host()

    def pid(self) -> int:
        """This process."""
        return os.getpid()


def run_daemon(config: NodeConfig, log_level: str, notify: Notify) -> None:
    """Be a node in this process until it is told to stop; `notify` hears what it waits for and when it is ready."""
    _set_up_logging(log_level)
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    def ready(status: NodeStatusView, founded: bool) -> None:
        gc.collect()
        gc.freeze()
        hint = f" --socket {Path(status.state_dir) / 'swarm.sock'}" if os.environ.get("SWARM_SOCKET") is None else ""
        notify(
            {
                "ready": status.node_id,
                "hostname": status.hostname,
                "role": status.role,
                "new_cluster": "yes" if founded else "",
                "socket_hint": hint,
            }
        )

    told = Told(waiting=lambda text: notify({"waiting": text}), ready=ready)
    try:
        with _one_error():
            end = trio.run(_until_signal, config, told, strict_exception_groups=True)
    except DialError as error:
        raise SwarmError(ErrorCode.PRECONDITION, str(error)) from None
    if end is End.LEFT:
        logging.getLogger(__name__).info("this node has left its cluster")


async def _until_signal(config: NodeConfig, told: Told) -> End:
    stop = trio.Event()
    end: End | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_wait_for_signal, stop)
        end = await run_node(config, SystemPorts(), told, stop)
        nursery.cancel_scope.cancel()
    assert end is not None, "the nursery ends with an error or after the node"
    return end


async def _wait_for_signal(stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()


@contextmanager
def _one_error() -> Iterator[None]:
    """What nurseries wrap in groups comes out bare when there is only one thing in it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


def _set_up_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger("swarm")
    root.setLevel(level.upper())
    root.addHandler(handler)
    logging.getLogger("trio-websocket").setLevel(logging.ERROR)
