"""`swarm up`, `join`, `status`, `stop`, `leave`: this machine's node.

`up` and `join` run the daemon in this process. With `--detach` they start themselves again as a process of its own, in a
session of its own, that writes to the state directory's log; it tells through an inherited pipe what it waits for, that it
is ready, or why it gave up, so that the command that was typed can say so and exit with the right code.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from swarm.commands import output, parse
from swarm.commands.context import Context, Exit, exit_of, fail, read_secret, stop, usage
from swarm.commands.hiding import is_in_process_list
from swarm.ports.paths import LOG_NAME, SOCKET_NAME, default_state_dir
from swarm.runtime.errors import SwarmError
from swarm.wire.messages.node import GetNodeStatus, LeaveCluster, NodeStatusView, StopNode

if TYPE_CHECKING:
    from swarm.actors.context import JoinTarget, NodeConfig

NOTIFY_ENVIRONMENT = "SWARM_NOTIFY_FD"
DEFAULT_LISTEN = "0.0.0.0:4242"
STOP_TIMEOUT_S = 60.0
_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


@frozen
class Options:
    """What was typed after `up` or `join`; None is "as it was the last time, else the default"."""

    state_dir: str | None
    listen: str | None
    advertise: str | None
    hostname: str | None
    labels: list[str] | None
    executor: str | None
    generic: list[str] | None
    log_level: str
    force_new_cluster: bool = False
    managers: list[str] | None = None

    @property
    def directory(self) -> Path:
        """The state directory."""
        return Path(self.state_dir).absolute() if self.state_dir else default_state_dir()


def socket_of(state_dir: str | None) -> str | None:
    """The socket of a state directory that was named."""
    return str(Path(state_dir).absolute() / SOCKET_NAME) if state_dir else None


# --- up and join ---------------------------------------------------------------------------------------------------
def up(options: Options, detach: bool) -> None:
    """Start this machine's node; the first time, a new cluster."""
    _check(options)
    if detach:
        _start_detached(options, secret=None)
    else:
        _run(options, address=None, token=None)


def join(options: Options, address: str, token: str | None, detach: bool) -> None:
    """Join this machine to a cluster."""
    _check(options)
    _check_address("HOST:PORT", address)
    _hide_typed_token(token)
    secret = read_secret(token, "SWARM_TOKEN", "--token")
    if not secret:
        usage(
            "--token is missing: swarm token worker on a manager shows it; give it as --token -, @FILE or SWARM_TOKEN"
        )
    if detach:
        _start_detached(options, secret=secret)
    else:
        os.environ.pop("SWARM_TOKEN", None)
        _run(options, address=address, token=secret)


def _hide_typed_token(token: str | None) -> None:
    """Start over with the token in a pipe when it could not be hidden where it was typed (`hiding`)."""
    if not token or token == "-" or token.startswith("@") or not is_in_process_list(token):
        return
    reader, writer = os.pipe()
    os.write(writer, token.encode() + b"\n")
    os.close(writer)
    os.set_inheritable(reader, True)
    source = f"@/dev/fd/{reader}"
    arguments = [
        source if argument == token else f"--token={source}" if argument == f"--token={token}" else argument
        for argument in sys.argv[1:]
    ]
    os.execv(sys.executable, [sys.executable, "-m", "swarm", *arguments])


def _check(options: Options) -> None:
    managers = [("--manager", address) for address in options.managers or ()]
    for flag, address in (("--listen", options.listen), ("--advertise", options.advertise), *managers):
        if address is not None:
            _check_address(flag, address)
    if options.executor not in (None, "auto", "process", "docker"):
        _check_executor(options.executor or "")
    if options.hostname is not None and not _HOSTNAME.fullmatch(options.hostname):
        usage(
            f"--hostname {options.hostname!r} is not a name for a node: letters, digits, '-', '_' and '.', "
            "beginning with a letter or digit"
        )
    for label in options.labels or ():
        try:
            parse.key_value(label, "--label")
        except ValueError as error:
            usage(error)
    if options.log_level not in ("debug", "info", "warning", "error"):
        usage(f"--log-level {options.log_level!r} is not known: debug, info, warning or error")


def _check_executor(name: str) -> None:
    from swarm.executors.registry import installed

    if name not in installed():
        usage(f"--executor {name!r} is not known here: auto, {', '.join(sorted(installed()))}")


def _check_address(flag: str, address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        usage(f"{flag} {address!r} is not HOST:PORT: write 10.0.0.5:4242 or [::1]:4242")


def checked(options: Options) -> NodeConfig:
    """What was typed, as far as it is well-formed; usage errors end the command."""
    _check(options)
    return config_of(options, None)


def config_of(options: Options, join: JoinTarget | None) -> NodeConfig:
    """What the node is started with."""
    from swarm.actors.context import NodeConfig

    return NodeConfig(
        state_dir=options.directory,
        listen=options.listen,
        advertise=options.advertise,
        hostname=options.hostname,
        labels=None if options.labels is None else dict(parse.key_value(text, "--label") for text in options.labels),
        executor=options.executor,
        generic=None if options.generic is None else tuple(options.generic),
        join=join,
        force_new_cluster=options.force_new_cluster,
        managers=tuple(options.managers or ()),
    )


def _run(options: Options, address: str | None, token: str | None) -> None:
    """The daemon itself, in this process, until it is told to stop."""
    from swarm.actors.context import JoinTarget
    from swarm.actors.daemon import run_daemon

    notify = _notifier()
    config = config_of(options, None if address is None or token is None else JoinTarget(address, token))
    try:
        run_daemon(config, options.log_level, notify)
    except SwarmError as error:
        hint = error.details.get("hint", "")
        notify({"error": error.text, "hint": hint, "exit": str(int(_exit_of(error)))})
        stop(error.text, _exit_of(error), hint)


def _notifier() -> Callable[[dict[str, str]], None]:
    """Tells whoever waits for this daemon: the command that detached it, else a person at the terminal."""
    number = os.environ.pop(NOTIFY_ENVIRONMENT, None)
    if number is None:
        return _tell_person
    os.set_inheritable(int(number), False)
    pipe = os.fdopen(int(number), "w", buffering=1)

    def tell(news: dict[str, str]) -> None:
        try:
            pipe.write(json.dumps(news) + "\n")
        except OSError:
            pass  # nobody waits any more

    return tell


def _tell_person(news: dict[str, str]) -> None:
    if "waiting" in news:
        output.note(news["waiting"])
    if "ready" in news:
        _announce(news)


def _announce(news: dict[str, str]) -> None:
    output.note(f"node {news['hostname']} ({news['ready'][: output.SHORT_ID]}) is ready as {news['role']}")
    if news.get("new_cluster"):
        output.note(
            f"a new cluster was created; `swarm token worker{news['socket_hint']}` shows how to add workers, "
            f"`swarm token manager{news['socket_hint']}` managers"
        )


def _start_detached(options: Options, secret: str | None) -> None:
    """Start this very command again without `--detach`, and report on it until it is ready."""
    from swarm.ports.files import open_log
    from swarm.ports.state_dir import refuse_foreign

    directory = options.directory
    try:
        refuse_foreign(directory)  # before the log is made there
        log = open_log(directory, LOG_NAME)
    except SwarmError as error:
        stop(error.text, _exit_of(error), error.details.get("hint", ""))
    reader, writer = os.pipe()
    arguments = _without_detach_and_token(sys.argv[1:])
    if secret is not None:
        arguments += ["--token", "-"]
    environment = {**os.environ, NOTIFY_ENVIRONMENT: str(writer)}
    environment.pop("SWARM_TOKEN", None)
    with log:
        child = subprocess.Popen(
            [sys.executable, "-m", "swarm", *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=(writer,),
            start_new_session=True,
            cwd="/",
        )
    os.close(writer)
    assert child.stdin is not None, "it was opened as a pipe"
    with child.stdin as pipe:
        pipe.write((secret or "").encode() + b"\n")
    with os.fdopen(reader) as news:
        _report(news, child, directory / LOG_NAME)


def _without_detach_and_token(arguments: list[str]) -> list[str]:
    """The typed arguments without `--detach` and `--token T`; relative state directories made absolute."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--detach", "-d") or argument.startswith("--token="):
            continue
        if argument == "--token":
            next(rest, None)
        elif argument == "--state-dir":
            kept += [argument, str(Path(next(rest, "")).absolute())]
        elif argument.startswith("--state-dir="):
            kept.append(f"--state-dir={Path(argument.partition('=')[2]).absolute()}")
        else:
            kept.append(argument)
    return kept


def _report(news: Iterable[str], child: subprocess.Popen[bytes], log: Path) -> None:
    """Show what the starting daemon tells, until it is ready or has given up."""
    try:
        for line in news:
            told = json.loads(line)
            if "error" in told:
                child.wait()
                stop(told["error"], Exit(int(told["exit"])), told["hint"])
            if "waiting" in told:
                output.note(told["waiting"])
            if "ready" in told:
                _announce(told)
                return
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        stop("interrupted before the node was ready; it was stopped")
    code = child.wait()
    stop(f"the daemon ended before it was ready (exit code {code})", hint=f"{log} tells more")


def _exit_of(error: SwarmError) -> Exit:
    """4 is for a cluster that does not answer; a disk that does not take what must be written is this machine's failure."""
    from swarm.ports.files import StateDirError
    from swarm.ports.log_store import LogWriteFailed
    from swarm.ports.task_store import TaskStoreFailed

    of_this_machine = isinstance(error, StateDirError | LogWriteFailed | TaskStoreFailed)
    return Exit.FAILED if of_this_machine else exit_of(error)


# --- status, stop, leave -------------------------------------------------------------------------------------------
def status(context: Context, now: float) -> None:
    """How this machine's node is."""
    view = context.ask(GetNodeStatus())
    context.show(view, [view.node_id], lambda: _print_status(view, now))


def _print_status(view: NodeStatusView, now: float) -> None:
    output.print_fields(_status_fields(view, now))
    if view.members:
        output.print_lines([""])
        rows = [
            (
                str(member.raft_id),
                member.node_id[: output.SHORT_ID],
                member.address,
                "leader" if member.leader else "learner" if member.learner else "voter",
                "yes" if member.reachable else "no",
                str(member.match_index or ""),
                member.problem,
            )
            for member in view.members
        ]
        output.print_table(("MEMBER", "NODE", "ADDRESS", "ROLE", "REACHABLE", "MATCHED", "PROBLEM"), rows)


def _status_fields(view: NodeStatusView, now: float) -> Iterable[tuple[str, str]]:
    yield "Node", f"{view.node_id} ({view.hostname})"
    yield "Cluster", view.cluster_id
    yield "Role", view.role
    yield "State", view.state
    yield "Leader", view.leader
    if view.role == "manager":
        yield "Term", str(view.term)
        yield "Log", f"committed {view.commit_index}, applied {view.applied_index}"
    for note in view.notes:
        yield "Note", note
    yield "Listens at", view.listen_address
    yield "Reached at", view.advertise_address
    yield "Managers", ", ".join(view.managers)
    yield "Runs", ", ".join(view.executors)
    yield "Tasks running", str(view.tasks_running)
    yield "Certificate", f"valid for {output.age(view.certificate_expires_at, now) or 'no time any more'}"
    yield "State directory", view.state_dir
    yield "Process", str(view.pid)
    yield "Version", view.version


def stop_daemon(context: Context) -> None:
    """Stop the daemon in order and wait until its process is gone."""
    pid = context.ask(GetNodeStatus()).pid
    context.ask(StopNode())
    _wait_for_end(pid)


def _wait_for_end(pid: int) -> None:
    from swarm.ports.clock import monotonic_seconds, pause

    end = monotonic_seconds() + STOP_TIMEOUT_S
    while monotonic_seconds() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        except PermissionError:
            pass
        if _is_zombie(pid):
            return
        pause(0.02)
    stop(f"the daemon (process {pid}) has not ended after {STOP_TIMEOUT_S:g} s", Exit.NOT_CONVERGED)


def _is_zombie(pid: int) -> bool:
    """Whether the process has ended and only its parent has not asked for its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def leave(context: Context, force: bool) -> None:
    """Take this node out of its cluster, showing each step."""
    try:
        for step in context.stream(LeaveCluster(force=force)):
            output.note(step.text)
            if step.done:
                return
    except SwarmError as error:
        fail(error)
    stop("the daemon ended before it had left")
