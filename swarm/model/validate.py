"""What a service spec must be before it is stored: every rule that needs no more than the spec itself.

`problems` gives all that is wrong at once, each with the field, what was found and what is right, so that a user mends a
spec in one go. Nothing here asks the store, the network or an executor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from signal import Signals

from swarm.model.constraints import ConstraintError, key_problem, parse
from swarm.model.image import image_problem
from swarm.model.specs import (
    ClusterSettings,
    ContainerSpec,
    GenericSpec,
    GlobalJob,
    ProcessSpec,
    Replicated,
    ReplicatedJob,
    Resources,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarm.model.states import PublishMode

NAME_LENGTH_MAX = 63
CPU_MIN_NANO = 1_000_000
MEMORY_MIN_BYTES = 4 << 20
COUNT_MAX = (1 << 63) - 1
TASKS_MAX = 1_000_000
"""Tasks of one service: some 1 GB of records, the most that a cluster is built for. A digit too many must not fill its memory."""
PORT_MAX = 65_535
HEARTBEAT_S_MIN, HEARTBEAT_S_MAX = 0.1, 3600.0
"""More often costs the leader more than it tells; more rarely, a dead machine is not found."""
CERTIFICATE_EXPIRY_S_MIN = 3600.0
"""Shorter-lived certificates could expire between two attempts at their renewal."""

_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?\Z")
_SIGNALS = frozenset(name.removeprefix("SIG") for name in Signals.__members__)
_OTHER_SIGNAL = re.compile(r"RTM(?:IN\+|AX-)[0-9]{1,2}\Z|[1-9][0-9]?\Z")


def name_problem(name: str) -> str | None:
    """What is wrong with a service's name, None for a right one."""
    if not name:
        return "a service needs a name"
    if len(name) > NAME_LENGTH_MAX:
        return f"name {name!r} has {len(name)} characters; {NAME_LENGTH_MAX} are allowed"
    if not _NAME.match(name):
        return f"name {name!r} is not allowed: use letters, digits, '-' and '_', beginning and ending with a letter or digit"
    return None


def problems(spec: ServiceSpec) -> list[str]:
    """Everything that is wrong with a spec, in the order of its fields; empty for a right one."""
    return [*_service(spec), *_task(spec.task), *_update_configs(spec), *_ports(spec)]


def settings_problems(settings: ClusterSettings) -> list[str]:
    """Everything that is wrong with the cluster's settings; empty for right ones."""
    return [*_settings(settings)]


def _settings(settings: ClusterSettings) -> Iterator[str]:
    if settings.task_history_limit < -1:
        yield f"task history limit is {settings.task_history_limit}; it must be 0 or more, or -1 to keep all"
    if settings.revision_history_limit < 1:
        yield f"revision history limit is {settings.revision_history_limit}; it must be 1 or more"
    if not HEARTBEAT_S_MIN <= settings.heartbeat_period_s <= HEARTBEAT_S_MAX:
        allowed = f"{HEARTBEAT_S_MIN:g} to {HEARTBEAT_S_MAX:g} s"
        yield f"heartbeat period is {settings.heartbeat_period_s:g} s; it must be {allowed}"
    if settings.replace_after_s is not None and settings.replace_after_s < 0:
        yield f"replace-after is {settings.replace_after_s:g} s; it cannot be negative"
    if settings.certificate_expiry_s < CERTIFICATE_EXPIRY_S_MIN:
        yield f"certificate expiry is {settings.certificate_expiry_s:g} s; it must be an hour or more"
    yield from _count("snapshot interval", settings.raft.snapshot_interval)
    yield from _count("kept entries", settings.raft.kept_entries)


def _service(spec: ServiceSpec) -> Iterator[str]:
    wrong_name = name_problem(spec.name)
    if wrong_name:
        yield wrong_name
    match spec.mode:
        case Replicated(replicas=replicas):
            yield from _count("replicas", replicas, TASKS_MAX)
        case ReplicatedJob(max_concurrent=concurrent, total_completions=total):
            yield from _count("max concurrent", concurrent)
            yield from _count("total completions", total, TASKS_MAX)
    if spec.replace_after_s is not None and spec.replace_after_s < 0:
        yield f"replace-after is {spec.replace_after_s:g} s; it cannot be negative"


def _count(field: str, value: int, most: int = COUNT_MAX) -> Iterator[str]:
    if not 0 <= value <= most:
        yield f"{field} is {value}; it must be 0 or more" + (f", at most {most}" if value > most else "")


def _task(task: TaskSpec) -> Iterator[str]:
    match task.runtime:
        case ProcessSpec():
            yield from _process(task.runtime)
        case ContainerSpec():
            yield from _container(task.runtime)
        case GenericSpec(kind=kind):
            if len(kind) < 3 or kind.lower() in ("container", "docker", "process", "attachment"):
                yield f"generic runtime kind {kind!r} is not allowed: 3 characters or more, and no built-in kind"
    yield from _resources("limit", task.resources.limits)
    yield from _resources("reservation", task.resources.reservations)
    if task.resources.pids_limit < 0:
        yield f"pids limit is {task.resources.pids_limit}; it must be 0 (none) or more"
    yield from _not_negative("restart delay", task.restart.delay_s)
    yield from _not_negative("restart window", task.restart.window_s)
    yield from _count("restart attempts", task.restart.max_attempts)
    yield from _count("replicas per node", task.placement.max_replicas)
    for expression in task.placement.constraints:
        try:
            unknown = key_problem(parse(expression))
        except ConstraintError as error:
            unknown = str(error)
        if unknown:
            yield unknown
    for preference in task.placement.preferences:
        if not preference.lower().startswith(("node.labels.", "engine.labels.")):
            yield f"placement preference {preference!r} is not a label: write spread=node.labels.NAME"


def _process(process: ProcessSpec) -> Iterator[str]:
    if not process.command or not process.command[0]:
        yield "a process service needs a command: swarm svc create --name NAME -- COMMAND ARG..."
    yield from _env(process.env)
    yield from _stop(process.stop_signal, process.stop_grace_s)
    if process.dir and not process.dir.startswith("/"):
        yield f"directory {process.dir!r} is not an absolute path"


def _container(container: ContainerSpec) -> Iterator[str]:
    image = image_problem(container.image)
    if image:
        yield image
    yield from _env(container.env)
    yield from _stop(container.stop_signal, container.stop_grace_s)
    targets = [mount.target for mount in container.mounts]
    for target in sorted({target for target in targets if targets.count(target) > 1}):
        yield f"mount target {target!r} is used twice"
    for mount in container.mounts:
        if not mount.target.startswith("/"):
            yield f"mount target {mount.target!r} is not an absolute path"
    if container.health is not None:
        health = container.health
        for field, value in (("interval", health.interval_s), ("timeout", health.timeout_s)):
            if value and value < 0.001:
                yield f"health {field} is {value:g} s; it must be 1 ms or more"
        if health.retries < 0:
            yield f"health retries is {health.retries}; it must be 0 or more"


def _env(entries: tuple[str, ...]) -> Iterator[str]:
    for entry in entries:
        if not entry.partition("=")[0] or "\0" in entry:
            yield f"environment entry {entry!r} is not NAME=VALUE"


def _stop(signal: str, grace_s: float | None) -> Iterator[str]:
    name = signal.upper().removeprefix("SIG")
    if signal and name not in _SIGNALS and not _OTHER_SIGNAL.match(name):
        yield f"stop signal {signal!r} is not a signal: write SIGTERM, TERM or 15"
    if grace_s is not None:
        yield from _not_negative("stop grace period", grace_s)


def _resources(what: str, resources: Resources) -> Iterator[str]:
    if resources.nano_cpus and resources.nano_cpus < CPU_MIN_NANO:
        yield f"CPU {what} is {resources.nano_cpus / 1e9:g}; it must be 0 or at least 0.001 cores"
    if resources.memory_bytes and resources.memory_bytes < MEMORY_MIN_BYTES:
        yield f"memory {what} is {resources.memory_bytes} bytes; it must be 0 or at least 4 MiB"
    for generic in resources.generic:
        if not generic.kind or generic.items or generic.amount < 1:
            yield f"generic resource {generic.kind!r}: ask for an amount of 1 or more, as in gpu=2"


def _not_negative(field: str, seconds: float) -> Iterator[str]:
    if not seconds >= 0:
        yield f"{field} is {seconds:g} s; it cannot be negative"


def _update_configs(spec: ServiceSpec) -> Iterator[str]:
    if isinstance(spec.mode, ReplicatedJob | GlobalJob) and (spec.update or spec.rollback):
        yield "a job has no rolling update: leave the update and rollback options out"
        return
    for what, config in (("update", spec.update), ("rollback", spec.rollback)):
        if config is not None:
            yield from _update_config(what, config)


def _update_config(what: str, config: UpdateConfig) -> Iterator[str]:
    yield from _count(f"{what} parallelism", config.parallelism)
    yield from _not_negative(f"{what} delay", config.delay_s)
    yield from _not_negative(f"{what} monitor", config.monitor_s)
    if not 0 <= config.max_failure_ratio <= 1:
        yield f"{what} failure ratio is {config.max_failure_ratio:g}; it must be between 0 and 1"


def _ports(spec: ServiceSpec) -> Iterator[str]:
    seen: set[tuple[str, int]] = set()
    for port in spec.ports:
        for field, value, low in (("target", port.target, 1), ("published", port.published, 0)):
            if not low <= value <= PORT_MAX:
                yield f"{field} port {value} is not between {low} and {PORT_MAX}"
        if port.mode is PublishMode.INGRESS:
            yield f"port {port.target} asks for ingress mode; this version publishes on the task's node (mode=host)"
        key = (port.protocol.value, port.published)
        if port.published and key in seen:
            yield f"published port {port.published}/{port.protocol.value} is used twice"
        seen.add(key)
