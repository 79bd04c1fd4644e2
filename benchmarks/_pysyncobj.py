"""Three PySyncObj members as processes, each with a journal file, and commands put in from within the leader's process.

It has no client protocol: a command is a method call in a member's process, answered by a callback. There is no TLS, and the
journal is not flushed: a commit here promises less than one of the others. Each member runs this module.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from attrs import define

from benchmarks._etcd import free_ports

MEMBERS = 3
READY_S = 30.0
POLL_S = 0.02
SLACK_S = 30.0
"""For the commands that are under way when the time is up."""


def is_here() -> bool:
    """Whether PySyncObj is installed."""
    return importlib.util.find_spec("pysyncobj") is not None


# --- a member --------------------------------------------------------------------------------------------------------
def be_member(address: str, others: list[str], journal: str) -> None:
    """Says whether it leads when asked ("leads?"), runs commands when told to (in flight, seconds, value)."""
    from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

    class Values(SyncObj):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(address, others, SyncObjConf(journalFile=journal))
            self.values: dict[bytes, bytes] = {}

        @replicated  # type: ignore[misc]
        def put(self, key: bytes, value: bytes) -> None:
            self.values[key] = value

    logging.disable(logging.CRITICAL)  # on a busy machine it reports every change of leader, at length
    values = Values()

    def run(in_flight: int, seconds: float, value: bytes) -> list[float]:
        latencies: list[float] = []
        end = time.perf_counter() + seconds
        over, lock = threading.Event(), threading.Lock()
        under_way = in_flight

        def send() -> None:
            began = time.perf_counter()

            def done(_: object, error: int) -> None:
                nonlocal under_way
                if error != FAIL_REASON.SUCCESS:
                    raise RuntimeError(f"PySyncObj refused a command: {error}")
                latencies.append(time.perf_counter() - began)
                if time.perf_counter() < end:
                    return send()
                with lock:
                    under_way -= 1
                    if not under_way:
                        over.set()
                return None

            values.put(b"key %012d" % 0, value, callback=done)

        for _ in range(in_flight):
            send()
        if not over.wait(seconds + SLACK_S):
            raise RuntimeError(f"{under_way} commands got no answer")
        return latencies

    for line in sys.stdin.buffer:
        asked = pickle.loads(bytes.fromhex(line.decode()))
        if asked == "leads?":
            answer: object = values.isReady() and str(values._getLeader()) == address
        else:
            answer = run(*asked)
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


# --- the parent's side -----------------------------------------------------------------------------------------------
@define
class Cluster:
    """The members' processes; the first of them that leads is asked to run the commands."""

    processes: list[subprocess.Popen[bytes]]
    value: bytes

    def run(self, in_flight: int, seconds: float) -> list[float]:
        """The latencies of so many commands in flight for so long."""
        latencies: list[float] = _ask(self._leader(), (in_flight, seconds, self.value))
        return latencies

    def _leader(self) -> subprocess.Popen[bytes]:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            for process in self.processes:
                if _ask(process, "leads?"):
                    return process
            time.sleep(POLL_S)
        raise RuntimeError("PySyncObj has no leader")


def _ask(process: subprocess.Popen[bytes], what: object) -> object:
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(pickle.dumps(what).hex().encode() + b"\n")
    stdin.flush()
    return pickle.load(stdout)


@contextlib.contextmanager
def cluster(directory: Path, value: bytes) -> Iterator[Cluster]:
    """Three members; every command keeps `value`."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(MEMBERS)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks._pysyncobj", str(directory / f"journal-{number}"), address,
             *(other for other in addresses if other != address)],
            stdin=pipe, stdout=pipe,
        )
        for number, address in enumerate(addresses)
    ]  # fmt: skip
    try:
        yield Cluster(processes, value)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            _close(process.stdin)
            _close(process.stdout)


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe is not None
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


if __name__ == "__main__":
    be_member(sys.argv[2], sys.argv[3:], sys.argv[1])
