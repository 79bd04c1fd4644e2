"""From a process service's spec to what is started: program, arguments, environment, user, directory, limits.

Everything a user may have got wrong is found here, before anything is started, and said in words that name it. It looks
at the machine (accounts, PATH) and changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from attrs import frozen

from swarm.executors.base import ExecutorError, Workload
from swarm.executors.process.shim import PRIVATE_PREFIX, SWITCH_USER
from swarm.model.specs import NANO_CPUS_PER_CORE, GenericResource, ProcessSpec
from swarm.ports import accounts, disk, processes

DEFAULT_STOP_GRACE_S = 10.0
INHERITED_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""What a task gets of the agent's environment: where programs are, language, time zone. Never its secrets."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TASK_ID_VARIABLE = "SWARM_TASK_ID"
"""Also how a task's processes are told from others once they have left its session."""
ENV_PROGRAM = "/usr/bin/env"


@frozen
class Launch:
    """One process task, checked and ready to start."""

    command: tuple[str, ...]
    """The program as an absolute path, then its arguments."""
    env: Mapping[str, str]
    directory: str
    """Empty: the task's own."""
    account: accounts.Account | None
    """None: the node's own."""
    stop_signal: int
    stop_grace_s: float
    limit_nano_cpus: int = 0
    limit_memory_bytes: int = 0
    limit_pids: int = 0

    @property
    def switch_user(self) -> tuple[str, ...]:
        """The command that becomes the task's user and then the task's command; empty when none is needed."""
        if self.account is None:
            return ()
        groups = ",".join(map(str, self.account.groups))
        python = (sys.executable, "-I", "-S", "-c", SWITCH_USER)
        return (*python, str(self.account.user_id), str(self.account.group_id), groups)


def prepare_launch(workload: Workload, spec: ProcessSpec, node_env: Mapping[str, str], scratch: str) -> Launch:
    """How to start a task whose placeholders are expanded; raises `ExecutorError`. `scratch` is the task's own directory."""
    if not spec.command or not spec.command[0]:
        raise ExecutorError("the service has no command")
    for text in (*spec.command, *spec.env, spec.dir, spec.user):
        if "\0" in text:
            raise ExecutorError(f"{text!r} holds a NUL character, which no command or variable can")
    account = _account(spec.user)
    env = _environment(workload, spec, node_env, account or accounts.current())
    directory = _directory(spec.dir)
    program = _find_program(spec.command[0], env["PATH"], directory or scratch, is_other_user=account is not None)
    limits = workload.spec.task.resources.limits
    if limits.nano_cpus < 0 or limits.memory_bytes < 0:
        raise ExecutorError("a limit cannot be negative")
    return Launch(
        command=_with_odd_variables((program, *spec.command[1:]), env),
        env={name: value for name, value in env.items() if _is_shell_name(name)},
        directory=directory,
        account=account,
        stop_signal=stop_signal_number(spec.stop_signal),
        stop_grace_s=DEFAULT_STOP_GRACE_S if spec.stop_grace_s is None else max(0.0, spec.stop_grace_s),
        limit_nano_cpus=limits.nano_cpus,
        limit_memory_bytes=limits.memory_bytes,
        limit_pids=workload.spec.task.resources.pids_limit,
    )


def stop_signal_number(name: str) -> int:
    """The number of a spec's stop signal, SIGTERM when it names none; raises `ExecutorError`."""
    try:
        return processes.signal_number(name or "SIGTERM")
    except ValueError as error:
        raise ExecutorError(f"stop signal: {error}") from None


def resource_text(resource: GenericResource) -> str:
    """What a task is told of a user-defined resource that it holds: its items, or the amount."""
    return ",".join(resource.items) if resource.items else str(resource.amount)


def cores(nano_cpus: int) -> str:
    """A CPU amount as users write it: `0.5`, `2`."""
    return f"{nano_cpus / NANO_CPUS_PER_CORE:g}"


def _account(user: str) -> accounts.Account | None:
    """The account to change to, None when it is the node's own."""
    if not user:
        return None
    try:
        account = accounts.find(user)
    except accounts.AccountError as error:
        raise ExecutorError(str(error)) from None
    if accounts.may_become_others():
        return account
    own = accounts.current()
    if (account.user_id, account.group_id) == (own.user_id, own.group_id):
        return None
    raise ExecutorError(
        f"this node runs as {own.name or own.user_id} and may not start a task as {user}; "
        "run the node as root, or leave the user out"
    )


def _environment(
    workload: Workload, spec: ProcessSpec, node_env: Mapping[str, str], account: accounts.Account
) -> dict[str, str]:
    env = {name: node_env[name] for name in INHERITED_VARIABLES if name in node_env}
    env.setdefault("PATH", DEFAULT_PATH)
    env |= {"HOME": account.home, "USER": account.name or str(account.user_id), "SHELL": account.shell}
    env["LOGNAME"] = env["USER"]
    for resource in workload.generic:
        env[f"SWARM_RESOURCE_{resource.kind.upper()}"] = resource_text(resource)
    for entry in spec.env:
        name, equals, value = entry.partition("=")
        if not name:
            raise ExecutorError(f"environment entry {entry!r} has no name; write NAME=value")
        if equals:
            env[name] = value
        else:
            env.pop(name, None)
    return env | {
        TASK_ID_VARIABLE: workload.task_id,
        "SWARM_TASK_NAME": workload.name,
        "SWARM_TASK_SLOT": str(workload.slot or workload.node_id),
        "SWARM_SERVICE_NAME": workload.spec.name,
        "SWARM_NODE_ID": workload.node_id,
    }


def _directory(directory: str) -> str:
    if not directory:
        return ""
    if not directory.startswith("/"):
        raise ExecutorError(f"directory {directory!r} must be an absolute path")
    if not disk.is_directory(directory):
        raise ExecutorError(f"directory {directory} does not exist on this node or is not a directory")
    return directory


def _find_program(name: str, path: str, directory: str, *, is_other_user: bool) -> str:
    """The program's absolute path; another user's permission to execute it is only known when it is tried."""
    usable = disk.is_file if is_other_user else disk.is_executable
    if "/" in name:
        found = name if name.startswith("/") else f"{directory}/{name}"
        if disk.is_directory(found):
            raise ExecutorError(f"command {name} is a directory")
        if not disk.is_file(found):
            raise ExecutorError(f"command {name} does not exist on this node")
        if not usable(found):
            raise ExecutorError(f"command {name} is not executable: permission denied")
        return found
    candidates = [f"{folder or '.'}/{name}" for folder in path.split(":")]
    for candidate in candidates:
        if candidate.startswith("/") and usable(candidate):
            return candidate
    if any(disk.is_file(candidate) for candidate in candidates):
        raise ExecutorError(f"command {name!r} is not executable: permission denied")
    raise ExecutorError(f"command {name!r} was not found on this node (PATH={path})")


def _with_odd_variables(command: tuple[str, ...], env: Mapping[str, str]) -> tuple[str, ...]:
    """Shells drop variables whose names they could not write themselves (`a.b`), ours unsets its own: env(1) sets those."""
    odd = [f"{name}={value}" for name, value in env.items() if not _is_shell_name(name)]
    return (ENV_PROGRAM, *odd, *command) if odd else command


def _is_shell_name(name: str) -> bool:
    return name.isascii() and name.isidentifier() and not name.startswith(PRIVATE_PREFIX)
