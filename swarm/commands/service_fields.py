"""What `svc inspect` says of a spec, field by field, in the words of the flags that set it; what is not set is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from swarm.commands import output
from swarm.model.specs import ContainerSpec, ProcessSpec, RestartPolicy, ServiceSpec, UpdateConfig
from swarm.model.states import RestartCondition


def spec_fields(spec: ServiceSpec) -> Iterable[tuple[str, str]]:
    """The fields of a spec as (name, text), an empty text for one that is not set."""
    task = spec.task
    limits, reserved = task.resources.limits, task.resources.reservations
    runtime = task.runtime
    if isinstance(runtime, ContainerSpec):
        yield "Image", runtime.image
        yield "Entrypoint", " ".join(runtime.command)
        yield "Arguments", " ".join(runtime.args)
        yield "Network", runtime.network.value
        yield "Mounts", ", ".join(f"{m.type.value} {m.source}:{m.target}" for m in runtime.mounts)
    if isinstance(runtime, ProcessSpec):
        yield "Command", " ".join(runtime.command)
    if isinstance(runtime, ProcessSpec | ContainerSpec):
        yield "Environment", ", ".join(runtime.env)
        yield "Directory", runtime.dir
        yield "User", runtime.user
        yield "Stop", f"{runtime.stop_signal or 'SIGTERM'}, grace {_seconds(runtime.stop_grace_s, 10.0)}"
    yield "Ports", ports_text(spec)
    yield "CPU", _range(reserved.nano_cpus / 1e9, limits.nano_cpus / 1e9, lambda cores: f"{cores:g}")
    yield "Memory", _range(reserved.memory_bytes, limits.memory_bytes, lambda amount: output.size(int(amount)))
    yield "Resources", ", ".join(f"{generic.kind}={generic.amount}" for generic in reserved.generic)
    yield "Processes", f"at most {task.resources.pids_limit}" if task.resources.pids_limit else ""
    yield "Constraints", ", ".join(task.placement.constraints)
    yield "Spread over", ", ".join(task.placement.preferences)
    yield "Platforms", ", ".join(f"{platform.os}/{platform.architecture}" for platform in task.placement.platforms)
    yield "Restart", _restart_text(task.restart)
    if spec.replace_after_s is not None:
        yield "Replace", f"{spec.replace_after_s:g} s after its node falls silent"
    for name, config in (("Updates", spec.update), ("Rollbacks", spec.rollback)):
        if config is not None:
            yield name, _update_text(config)


def _restart_text(restart: RestartPolicy) -> str:
    if restart.condition is RestartCondition.NONE:
        return "never"
    attempts = f", at most {restart.max_attempts} times" if restart.max_attempts else ""
    window = f" within {restart.window_s:g} s" if restart.max_attempts and restart.window_s else ""
    return f"{restart.condition.value}, after {restart.delay_s:g} s{attempts}{window}"


def _update_text(config: UpdateConfig) -> str:
    failures = f" of more than {config.max_failure_ratio:.0%}" if config.max_failure_ratio else ""
    parts = [
        f"{config.parallelism or 'all'} at a time",
        config.order.value,
        f"{config.delay_s:g} s apart" if config.delay_s else "",
        f"watched for {config.monitor_s:g} s",
        f"{config.failure_action.value} on failure{failures}",
    ]
    return ", ".join(part for part in parts if part)


def _range(reserved: float, limit: float, show: Callable[[float], str]) -> str:
    parts = [f"reserved {show(reserved)}"] if reserved else []
    return ", ".join([*parts, f"at most {show(limit)}"] if limit else parts)


def _seconds(value: float | None, default: float) -> str:
    return f"{default if value is None else value:g} s"


def ports_text(spec: ServiceSpec) -> str:
    """`8080:80/tcp, ...`."""
    return ", ".join(f"{port.published or '*'}:{port.target}/{port.protocol.value}" for port in spec.ports)
