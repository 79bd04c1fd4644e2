"""The operating system's processes: starting, watching, signalling and finding them. Linux, through /proc and pidfds.

Its one idea: a pid alone names nothing, because pids are used again. Everything here names a process by pid *and* start
time (`ProcessId`), and waits on a pidfd that was opened first and checked afterwards.

It decides nothing: which process is whose, and what its end means, is the executors' matter.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator, Mapping

import trio
from attrs import frozen

from swarm.ports.disk import read_bytes

_PROC = "/proc"
_STAT_START_FIELD = 19
"""`starttime` counted from the field after the command's name (proc(5): field 22, the state is field 3)."""


@frozen
class ProcessId:
    """One process for all time since boot: its pid and when it started, in clock ticks."""

    pid: int
    started: int


@frozen
class ProcessStat:
    """What /proc/PID/stat tells of a process."""

    id: ProcessId
    state: str
    """One letter: R, S, D, T, Z (ended, not yet reaped), X."""
    group: int
    session: int

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return self.state not in ("Z", "X")


@frozen
class Spawn:
    """A new session leader to start: `fds` maps its descriptor numbers to ours; 0 is /dev/null, all others are closed."""

    arguments: tuple[str, ...]
    env: Mapping[str, str]
    fds: Mapping[int, int]


def parse_stat(text: str) -> ProcessStat:
    """The meaning of one /proc/PID/stat line; `ValueError` when it is not one."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    pid = head.partition("(")[0]
    if len(fields) <= _STAT_START_FIELD or not pid.strip().isdecimal():
        raise ValueError(f"not a process status line: {text[:80]!r}")
    identity = ProcessId(int(pid), int(fields[_STAT_START_FIELD]))
    return ProcessStat(identity, state=fields[0], group=int(fields[2]), session=int(fields[3]))


def stat(pid: int) -> ProcessStat | None:
    """The process that has this pid now, if any."""
    data = _proc_file(pid, "stat")
    try:
        return parse_stat(data.decode("utf-8", "replace")) if data else None
    except ValueError:
        return None


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs; a pid that somebody else has by now does not count."""
    now = stat(process.pid)
    return now is not None and now.id == process and now.is_alive


def command_line(pid: int) -> bytes:
    """Its arguments, NUL-separated; empty when it is gone."""
    return _proc_file(pid, "cmdline")


def environment(pid: int) -> bytes:
    """The environment that it was started with, NUL-separated; empty when it is gone or not ours to read."""
    return _proc_file(pid, "environ")


def all_processes() -> Iterator[ProcessStat]:
    """Every process of the machine (of this pid namespace) that still runs."""
    for name in os.listdir(_PROC):
        if name.isdecimal() and (found := stat(int(name))) is not None and found.is_alive:
            yield found


def spawn(request: Spawn) -> int:
    """The pid of a new process, the leader of its own session, with default signal handling; `OSError` as exec gives it.

    The caller owns it: it must be waited for by `ended` and `reap`, by this process or by whoever inherits it.
    """
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    actions += [(os.POSIX_SPAWN_CLOSE, number) for number in _inheritable() if number not in request.fds]
    actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in sorted(request.fds.items())]
    defaults = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
    return os.posix_spawn(
        request.arguments[0],
        request.arguments,
        dict(request.env),
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=defaults,
    )


async def ended(process: ProcessId) -> None:
    """Waits until exactly this process has ended, whoever started it; at once when it has. A child stays to be reaped."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        await trio.lowlevel.checkpoint()
        return
    try:
        if is_alive(process):
            await trio.lowlevel.wait_readable(descriptor)
        else:
            await trio.lowlevel.checkpoint()
    finally:
        trio.lowlevel.notify_closing(descriptor)
        os.close(descriptor)


def reap(pid: int) -> None:
    """Lets the kernel forget a child of ours that has ended; nothing happens for anybody else's, or while it runs."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def signal_process(process: ProcessId, number: int) -> bool:
    """Signals exactly this process; False when it is gone. `PermissionError` when it is not ours."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def signal_group(leader: ProcessId, number: int) -> bool:
    """Signals the process group that `leader` leads, while the leader lives; False when it is gone."""
    if not is_alive(leader):
        return False
    try:
        os.killpg(leader.pid, number)
    except ProcessLookupError:
        return False
    return True


def boot_id() -> str:
    """Names this boot of the machine: processes of another boot have all ended."""
    return read_bytes(f"{_PROC}/sys/kernel/random/boot_id").decode().strip()


def signal_number(name: str) -> int:
    """The number of `SIGTERM`, `TERM`, `term`, `15`, `RTMIN+3`; `ValueError` names what is not one."""
    text = name.strip().upper().removeprefix("SIG")
    if text.isdecimal():
        number = int(text)
    elif text.startswith("RTMIN+") and text[6:].isdecimal():
        number = signal.SIGRTMIN + int(text[6:])
    else:
        found = signal.Signals.__members__.get(f"SIG{text}")
        number = 0 if found is None else int(found)
    if number not in {int(valid) for valid in signal.valid_signals()}:
        raise ValueError(f"unknown signal {name!r}")
    return number


def catchable_signals() -> tuple[int, ...]:
    """The signals that a supervising shell must survive: all but those that cannot be caught or concern its children."""
    never = {
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGCHLD,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
    }
    return tuple(sorted(int(number) for number in signal.valid_signals() - never))


def _inheritable() -> list[int]:
    """Descriptors that were handed to us open and would be handed on; our own are all closed by an exec."""
    found: list[int] = []
    for name in os.listdir(f"{_PROC}/self/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            continue  # the one that listed the directory
    return found


def _proc_file(pid: int, name: str) -> bytes:
    try:
        return read_bytes(f"{_PROC}/{pid}/{name}")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.EIO):
            return b""
        raise
