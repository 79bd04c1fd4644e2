"""What typed flags mean for a service: a new spec from nothing, or a changed one from the stored one. Pure.

Errors are `ValueError`s that name the flag. What is not typed keeps its value, so that an update never resets anything.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import evolve

from swarm.commands import parse
from swarm.model.specs import (
    ContainerSpec,
    Global,
    GlobalJob,
    HealthCheck,
    Labels,
    LogDriver,
    Mode,
    Port,
    ProcessSpec,
    Replicated,
    ReplicatedJob,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarm.model.states import FailureAction, NetworkMode, RestartCondition, UpdateOrder

T = TypeVar("T")
Flags = Mapping[str, Any]

CONTAINER_ONLY = (
    "entrypoint", "group", "hostname", "container_label", "mount", "network", "host", "tty", "read_only", "init",
    "cap_add", "cap_drop", "sysctl", "ulimit", "health_cmd", "health_interval", "health_timeout", "health_retries",
    "health_start_period", "no_healthcheck", "registry_auth", "log_driver", "log_opt",
)  # fmt: skip


def new_spec(flags: Flags, command: Sequence[str]) -> ServiceSpec:
    """The spec of `svc create`: its flags and what stands after `--`."""
    name = flags.get("name")
    if not name:
        raise ValueError("--name is missing: swarm svc create --name NAME ...")
    if flags.get("image"):
        runtime: ProcessSpec | ContainerSpec = ContainerSpec(image=flags["image"], args=tuple(command))
    else:
        if not command:
            raise ValueError("nothing to run: give a command after --, or --image IMAGE for a container")
        runtime = ProcessSpec(command=tuple(command))
    bare = ServiceSpec(name=name, task=TaskSpec(runtime=runtime), mode=_mode(flags))
    return _applied(bare, flags)


def changed_spec(spec: ServiceSpec, flags: Flags, command: Sequence[str]) -> ServiceSpec:
    """The spec of `svc update`: the stored one with what was typed changed."""
    spec = evolve(spec, mode=_changed_mode(spec.mode, flags))
    runtime = spec.task.runtime
    arguments = tuple(command) or tuple(shlex.split(flags.get("args", "")))
    if isinstance(runtime, ContainerSpec):
        runtime = evolve(runtime, image=flags.get("image", runtime.image), args=arguments or runtime.args)
    elif isinstance(runtime, ProcessSpec):
        if "image" in flags:
            raise ValueError(f"service {spec.name} runs processes; create another service for containers")
        runtime = evolve(runtime, command=arguments or runtime.command)
    spec = evolve(spec, task=evolve(spec.task, runtime=runtime))
    if flags.get("force"):
        spec = evolve(spec, task=evolve(spec.task, force_update=spec.task.force_update + 1))
    return _applied(spec, flags)


def scaled_spec(spec: ServiceSpec, replicas: int) -> ServiceSpec:
    """The spec with another number of replicas."""
    return evolve(spec, mode=_changed_mode(spec.mode, {"replicas": replicas}))


# --- mode ----------------------------------------------------------------------------------------------------------
def _mode(flags: Flags) -> Mode:
    name = flags.get("mode", "replicated")
    replicas = flags.get("replicas")
    concurrent = flags.get("max_concurrent")
    if concurrent is not None and name != "replicated-job":
        raise ValueError(f"--max-concurrent does not go with --mode {name}; it is for replicated-job")
    match name:
        case "replicated":
            return Replicated(1 if replicas is None else replicas)
        case "replicated-job":
            total = 1 if replicas is None else replicas
            return ReplicatedJob(max_concurrent=total if concurrent is None else concurrent, total_completions=total)
        case "global" | "global-job":
            if replicas is not None:
                raise ValueError(f"--replicas does not go with --mode {name}: it runs one task on every eligible node")
            return Global() if name == "global" else GlobalJob()
    raise ValueError(f"--mode {name!r} is not known: replicated, global, replicated-job or global-job")


def _changed_mode(mode: Mode, flags: Flags) -> Mode:
    replicas = flags.get("replicas")
    concurrent = flags.get("max_concurrent")
    match mode:
        case Replicated() if concurrent is None:
            return mode if replicas is None else Replicated(replicas)
        case ReplicatedJob():
            return ReplicatedJob(
                max_concurrent=mode.max_concurrent if concurrent is None else concurrent,
                total_completions=mode.total_completions if replicas is None else replicas,
            )
    if replicas is None and concurrent is None:
        return mode
    flag = "--replicas" if concurrent is None else "--max-concurrent"
    raise ValueError(f"{flag} does not go with a service of mode {mode_name(mode)}")


def mode_name(mode: Mode) -> str:
    """The mode as users type it."""
    match mode:
        case Replicated():
            return "replicated"
        case Global():
            return "global"
        case ReplicatedJob():
            return "replicated-job"
        case GlobalJob():
            return "global-job"


# --- lists ---------------------------------------------------------------------------------------------------------
def _values(flags: Flags, key: str) -> list[str]:
    return [*flags.get(key, ()), *flags.get(f"{key}_add", ())]


def _listed(
    flags: Flags, key: str, stored: Sequence[T], parse_one: Callable[[str], T], name_of: Callable[[T], str]
) -> tuple[T, ...]:
    """The stored list with `--KEY-rm` taken out by name and `--KEY[-add]` put in, the same name replaced in place.

    Two different entries of one name in one command are an error: one of them would be dropped in silence.
    """
    flag = f"--{key.replace('_', '-')}"
    gone = set(flags.get(f"{key}_rm", ()))
    unknown = gone - {name_of(item) for item in stored}
    if unknown:
        raise ValueError(f"{flag}-rm {sorted(unknown)[0]}: there is no such entry")
    typed: dict[str, T] = {}
    for text in _values(flags, key):
        item = parse_one(text)
        if typed.setdefault(name_of(item), item) != item:
            raise ValueError(f"{flag} {text}: {name_of(item)} is given twice, with different values")
    kept = {name_of(item): item for item in stored if name_of(item) not in gone}
    return tuple({**kept, **typed}.values())


def _naming(flags: Flags, key: str, name_of: Callable[[str], str]) -> Flags:
    """The flags with what is to be removed named as the stored entries are, however it was spelled."""
    return {**flags, key: [name_of(text) for text in flags[key]]} if key in flags else flags


def _port_name(port: Port) -> str:
    return f"{port.target}/{port.protocol.value}"


def _port_named(text: str) -> str:
    """A port is removed by its target, in any spelling that publishes it: `80`, `80/tcp`, `8080:80`."""
    return _port_name(parse.port(text))


def _constraint_name(text: str) -> str:
    """An expression without the blanks around its operator."""
    return re.sub(r"\s*(==|!=)\s*", r"\1", text.strip(), count=1)


def _mapping(flags: Flags, key: str, stored: Labels) -> Labels:
    what = f"--{key.replace('_', '-')}"
    pairs = _listed(flags, key, tuple(stored.items()), lambda text: parse.key_value(text, what), lambda pair: pair[0])
    return dict(pairs)


def _env(flags: Flags, stored: Sequence[str]) -> tuple[str, ...]:
    def one(text: str) -> str:
        if "=" not in text:
            raise ValueError(f"--env {text!r} has no value: write NAME=VALUE")
        return text

    return _listed(flags, "env", stored, one, lambda entry: entry.partition("=")[0])


def _named_texts(flags: Flags, key: str, stored: Sequence[str], separator: str) -> tuple[str, ...]:
    return _listed(flags, key, stored, str, lambda entry: entry.partition(separator)[0])


def _texts(flags: Flags, key: str, stored: Sequence[str]) -> tuple[str, ...]:
    return _listed(flags, key, stored, str, str)


# --- the parts of a spec ---------------------------------------------------------------------------------------------
def _applied(spec: ServiceSpec, flags: Flags) -> ServiceSpec:
    task = spec.task
    task = _with_runtime(task, flags)
    task = _with_resources(task, flags)
    task = _with_restart(task, flags)
    task = _with_placement(task, flags)
    ports = _listed(_naming(flags, "publish_rm", _port_named), "publish", spec.ports, parse.port, _port_name)
    return evolve(
        spec,
        task=task,
        ports=ports,
        labels=_mapping(flags, "label", spec.labels),
        update=_update_config("update", flags, spec.update),
        rollback=_update_config("rollback", flags, spec.rollback),
        replace_after_s=_parsed(flags, "replace_after", _replace_after_s, spec.replace_after_s),
    )


def _with_runtime(task: TaskSpec, flags: Flags) -> TaskSpec:
    runtime = task.runtime
    if isinstance(runtime, ProcessSpec):
        for key in CONTAINER_ONLY:
            if any(name in flags for name in (key, f"{key}_add", f"{key}_rm")):
                raise ValueError(f"--{key.replace('_', '-')} is for containers; this service runs a plain process")
    if isinstance(runtime, ProcessSpec | ContainerSpec):
        grace = flags.get("stop_grace_period")
        runtime = evolve(
            runtime,
            env=_env(flags, runtime.env),
            dir=flags.get("workdir", runtime.dir),
            user=flags.get("user", runtime.user),
            stop_signal=flags.get("stop_signal", runtime.stop_signal),
            stop_grace_s=runtime.stop_grace_s if grace is None else _duration(flags, "stop_grace_period"),
        )
    if isinstance(runtime, ContainerSpec):
        runtime = _with_container(runtime, flags)
    return evolve(task, runtime=runtime, log_driver=_log_driver(flags, task.log_driver))


def _with_container(container: ContainerSpec, flags: Flags) -> ContainerSpec:
    entrypoint = flags.get("entrypoint")
    return evolve(
        container,
        command=container.command if entrypoint is None else tuple(shlex.split(entrypoint)),
        groups=_texts(flags, "group", container.groups),
        hostname=flags.get("hostname", container.hostname),
        labels=_mapping(flags, "container_label", container.labels),
        mounts=_listed(flags, "mount", container.mounts, parse.mount, lambda mount: mount.target),
        network=_choice(flags, "network", NetworkMode, container.network),
        hosts=_named_texts(flags, "host", container.hosts, ":"),
        tty=flags.get("tty", container.tty),
        read_only=flags.get("read_only", container.read_only),
        init=flags.get("init", container.init),
        cap_add=_texts(flags, "cap_add", container.cap_add),
        cap_drop=_texts(flags, "cap_drop", container.cap_drop),
        sysctls=_mapping(flags, "sysctl", container.sysctls),
        ulimits=_named_texts(flags, "ulimit", container.ulimits, "="),
        health=_health(flags, container.health),
        registry_auth=flags.get("registry_auth", container.registry_auth),
    )


def _health(flags: Flags, stored: HealthCheck | None) -> HealthCheck | None:
    if flags.get("no_healthcheck"):
        return HealthCheck(test=("NONE",))
    if not any(key.startswith("health_") for key in flags):
        return stored
    health = stored or HealthCheck()
    command = flags.get("health_cmd")
    return HealthCheck(
        test=health.test if command is None else ("CMD-SHELL", command),
        interval_s=_duration(flags, "health_interval", health.interval_s),
        timeout_s=_duration(flags, "health_timeout", health.timeout_s),
        retries=flags.get("health_retries", health.retries),
        start_period_s=_duration(flags, "health_start_period", health.start_period_s),
    )


def _log_driver(flags: Flags, stored: LogDriver | None) -> LogDriver | None:
    options = _mapping(flags, "log_opt", stored.options if stored else {})
    name = flags.get("log_driver", stored.name if stored else "")
    return LogDriver(name, options) if name or options else None


def _with_resources(task: TaskSpec, flags: Flags) -> TaskSpec:
    stored = task.resources
    limits = evolve(
        stored.limits,
        nano_cpus=_parsed(flags, "limit_cpu", parse.nano_cpus, stored.limits.nano_cpus),
        memory_bytes=_parsed(flags, "limit_memory", parse.size_bytes, stored.limits.memory_bytes),
    )
    reserved = stored.reservations
    reservations = evolve(
        reserved,
        nano_cpus=_parsed(flags, "reserve_cpu", parse.nano_cpus, reserved.nano_cpus),
        memory_bytes=_parsed(flags, "reserve_memory", parse.size_bytes, reserved.memory_bytes),
        generic=_listed(
            flags, "generic_resource", reserved.generic, parse.generic_resource, lambda generic: generic.kind
        ),
    )
    pids = flags.get("limit_pids", stored.pids_limit)
    return evolve(task, resources=evolve(stored, limits=limits, reservations=reservations, pids_limit=pids))


def _with_restart(task: TaskSpec, flags: Flags) -> TaskSpec:
    stored = task.restart
    restart = evolve(
        stored,
        condition=_choice(flags, "restart_condition", RestartCondition, stored.condition),
        delay_s=_duration(flags, "restart_delay", stored.delay_s),
        max_attempts=flags.get("restart_max_attempts", stored.max_attempts),
        window_s=_duration(flags, "restart_window", stored.window_s),
    )
    return evolve(task, restart=restart)


def _with_placement(task: TaskSpec, flags: Flags) -> TaskSpec:
    stored = task.placement
    placement = evolve(
        stored,
        constraints=_listed(
            _naming(flags, "constraint_rm", _constraint_name), "constraint", stored.constraints, str, _constraint_name
        ),
        preferences=_listed(
            _naming(flags, "placement_pref_rm", parse.preference),
            "placement_pref",
            stored.preferences,
            parse.preference,
            str,
        ),
        platforms=_listed(
            flags,
            "platform",
            stored.platforms,
            parse.platform,
            lambda platform: f"{platform.os}/{platform.architecture}",
        ),
        max_replicas=flags.get("replicas_max_per_node", stored.max_replicas),
    )
    return evolve(task, placement=placement)


def _update_config(prefix: str, flags: Flags, stored: UpdateConfig | None) -> UpdateConfig | None:
    if not any(key.startswith(f"{prefix}_") for key in flags):
        return stored
    config = stored or UpdateConfig()
    action = _choice(flags, f"{prefix}_failure_action", FailureAction, config.failure_action)
    if prefix == "rollback" and action is FailureAction.ROLLBACK:
        raise ValueError("--rollback-failure-action rollback: a rollback is not rolled back; use pause or continue")
    return UpdateConfig(
        parallelism=flags.get(f"{prefix}_parallelism", config.parallelism),
        delay_s=_duration(flags, f"{prefix}_delay", config.delay_s),
        failure_action=action,
        monitor_s=_duration(flags, f"{prefix}_monitor", config.monitor_s),
        max_failure_ratio=_parsed(flags, f"{prefix}_max_failure_ratio", _ratio, config.max_failure_ratio),
        order=_choice(flags, f"{prefix}_order", UpdateOrder, config.order),
    )


# --- single values -------------------------------------------------------------------------------------------------
def _replace_after_s(text: str) -> float | None:
    """A duration; `default` for what is set for the cluster."""
    return None if text.strip().lower() == "default" else parse.duration_s(text)


def _ratio(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a ratio: write a number between 0 and 1") from None


def _parsed(flags: Flags, key: str, parse_one: Callable[[str], T], stored: T) -> T:
    if key not in flags:
        return stored
    try:
        return parse_one(flags[key])
    except ValueError as error:
        raise ValueError(f"--{key.replace('_', '-')}: {error}") from None


def _duration(flags: Flags, key: str, stored: float = 0.0) -> float:
    return _parsed(flags, key, parse.duration_s, stored)


def _choice(flags: Flags, key: str, choices: type[T], stored: T) -> T:
    if key not in flags:
        return stored
    known: Iterable[Any] = choices  # type: ignore[assignment]  # an enum class iterates over its members
    for choice in known:
        if choice.value == flags[key].strip().lower():
            found: T = choice
            return found
    names = ", ".join(choice.value for choice in known)
    raise ValueError(f"--{key.replace('_', '-')} {flags[key]!r} is not known: {names}")
