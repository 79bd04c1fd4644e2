"""From a container service's spec to the Engine's JSON for one container. Pure.

Everything that a user may have got wrong and the Engine would say badly, or drop, is refused here with its name.
The keys are those of the Docker Engine API, `POST /containers/create`.
"""

from __future__ import annotations

from typing import TypeAlias

from swarm.executors.base import ExecutorError, Workload
from swarm.model.specs import ContainerSpec, HealthCheck, Mount, Port
from swarm.model.states import MountType, NetworkMode, PublishMode

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"

LABEL_TASK_ID = "swarm.task.id"
LABEL_TASK_NAME = "swarm.task.name"
LABEL_NODE_ID = "swarm.node.id"
LABEL_SERVICE_ID = "swarm.service.id"
LABEL_SERVICE_NAME = "swarm.service.name"
LABEL_REVISION = "swarm.service.revision"

DEFAULT_STOP_GRACE_S = 10.0
CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1_000
"""The kernel refuses less."""
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
NANOSECONDS = 1_000_000_000


def container_config(workload: Workload, spec: ContainerSpec) -> JsonObject:
    """The container of a task whose placeholders are expanded; raises `ExecutorError`."""
    if not spec.image:
        raise ExecutorError("the service has no image")
    config: JsonObject = {
        "Image": spec.image,
        "Env": [*_resource_variables(workload), *spec.env],
        "Labels": _labels(workload, spec),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "HostConfig": _host_config(workload, spec),
    }
    if spec.command:
        config["Entrypoint"] = list(spec.command)
    if spec.args:
        config["Cmd"] = list(spec.args)
    for key, text in (
        ("WorkingDir", spec.dir),
        ("User", spec.user),
        ("Hostname", spec.hostname),
        ("StopSignal", spec.stop_signal),
    ):
        if text:
            config[key] = text
    if spec.health is not None:
        config["Healthcheck"] = _health(spec.health)
    ports = _bound_ports(workload, spec)
    if ports:
        config["ExposedPorts"] = {_port_key(port): {} for port in ports}
    return config


def volumes_to_make(spec: ContainerSpec) -> list[Mount]:
    """The mounts whose named volume must exist, made by its driver, before the container does."""
    return [
        mount
        for mount in spec.mounts
        if mount.type is MountType.VOLUME and mount.source and (mount.driver or mount.driver_options)
    ]


def host_ports(workload: Workload) -> list[Port]:
    """The ports that are published on the task's own node; the others are not an executor's business."""
    return [port for port in workload.spec.ports if port.mode is PublishMode.HOST]


def _bound_ports(workload: Workload, spec: ContainerSpec) -> list[Port]:
    return [] if spec.network is NetworkMode.HOST else host_ports(workload)


def _labels(workload: Workload, spec: ContainerSpec) -> JsonObject:
    own = {
        LABEL_TASK_ID: workload.task_id,
        LABEL_TASK_NAME: workload.name,
        LABEL_NODE_ID: workload.node_id,
        LABEL_SERVICE_ID: workload.service_id,
        LABEL_SERVICE_NAME: workload.spec.name,
        LABEL_REVISION: str(workload.revision),
    }
    return {**spec.labels, **own}


def _resource_variables(workload: Workload) -> list[str]:
    """User-defined resources, under the names that images made for Docker expect."""
    return [
        f"DOCKER_RESOURCE_{resource.kind.upper()}={','.join(resource.items) or resource.amount}"
        for resource in workload.generic
    ]


def _host_config(workload: Workload, spec: ContainerSpec) -> JsonObject:
    requirements = workload.spec.task.resources
    limits = requirements.limits
    host: JsonObject = {
        "RestartPolicy": {"Name": "no"},
        "NetworkMode": "host" if spec.network is NetworkMode.HOST else "default",
    }
    if limits.memory_bytes > 0:
        host["Memory"] = limits.memory_bytes
    if limits.nano_cpus > 0:
        host["CpuPeriod"] = CPU_PERIOD_US
        host["CpuQuota"] = max(CPU_QUOTA_US_MIN, limits.nano_cpus * CPU_PERIOD_US // NANOSECONDS)
    if requirements.pids_limit > 0:
        host["PidsLimit"] = requirements.pids_limit
    if spec.read_only:
        host["ReadonlyRootfs"] = True
    if spec.init is not None:
        host["Init"] = spec.init
    lists: list[tuple[str, list[Json]]] = [
        ("GroupAdd", list(spec.groups)),
        ("CapAdd", list(spec.cap_add)),
        ("CapDrop", list(spec.cap_drop)),
        ("Ulimits", [_ulimit(text) for text in spec.ulimits]),
        ("ExtraHosts", [entry for text in spec.hosts for entry in _hosts(text)]),
        ("Mounts", [_mount(mount) for mount in spec.mounts if mount.type is not MountType.TMPFS]),
    ]
    maps: list[tuple[str, JsonObject]] = [
        ("Sysctls", dict(spec.sysctls)),
        ("Tmpfs", {mount.target: _tmpfs(mount) for mount in spec.mounts if mount.type is MountType.TMPFS}),
        ("PortBindings", _port_bindings(_bound_ports(workload, spec))),
    ]
    host.update({key: values for key, values in lists if values})
    host.update({key: mapping for key, mapping in maps if mapping})
    driver = workload.spec.task.log_driver
    if driver is not None and driver.name:
        host["LogConfig"] = {"Type": driver.name, "Config": dict(driver.options)}
    return host


def _port_key(port: Port) -> str:
    return f"{port.target}/{port.protocol}"


def _port_bindings(ports: list[Port]) -> JsonObject:
    """A target published twice has two bindings; 0 asks the Engine for a free port."""
    bindings: dict[str, list[Json]] = {}
    for port in ports:
        bindings.setdefault(_port_key(port), []).append({"HostPort": str(port.published or "")})
    return {**bindings}


def _mount(mount: Mount) -> Json:
    _check_target(mount)
    found: JsonObject = {
        "Type": str(mount.type),
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
    }
    if mount.type is MountType.BIND:
        if not mount.source.startswith("/"):
            raise ExecutorError(
                f"mount {mount.target}: a bind needs an absolute path as its source, not {mount.source!r}"
            )
        unknown = [option for option in mount.options if option not in PROPAGATIONS]
        if mount.options:
            found["BindOptions"] = {"Propagation": mount.options[-1]}
    else:
        unknown = [option for option in mount.options if option != "nocopy"]
        volume: JsonObject = {"Labels": dict(mount.labels), "NoCopy": "nocopy" in mount.options}
        if mount.driver or mount.driver_options:
            volume["DriverConfig"] = {"Name": mount.driver or "local", "Options": dict(mount.driver_options)}
        found["VolumeOptions"] = volume
    if unknown:
        raise ExecutorError(f"mount {mount.target}: unknown option {unknown[0]!r} for a {mount.type} mount")
    return found


def _tmpfs(mount: Mount) -> str:
    """Options as `HostConfig.Tmpfs` takes them, which every Engine knows; the mount API learnt `exec` late."""
    _check_target(mount)
    if mount.source:
        raise ExecutorError(f"mount {mount.target}: a tmpfs has no source, but {mount.source!r} was given")
    for option in mount.options:
        if option not in ("exec", "noexec"):
            raise ExecutorError(
                f"mount {mount.target}: unknown option {option!r} for a tmpfs mount; known: exec, noexec"
            )
    options = [*mount.options]
    if mount.read_only:
        options.append("ro")
    if mount.tmpfs_size_bytes:
        options.append(f"size={mount.tmpfs_size_bytes}")
    if mount.tmpfs_mode:
        options.append(f"mode={mount.tmpfs_mode:o}")
    return ",".join(options)


def _check_target(mount: Mount) -> None:
    if not mount.target.startswith("/"):
        raise ExecutorError(f"mount target {mount.target!r} must be an absolute path")


def _ulimit(text: str) -> Json:
    """`name=soft` or `name=soft:hard`; -1 is no limit."""
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise ExecutorError(f"ulimit {text!r} is not NAME=SOFT or NAME=SOFT:HARD with numbers") from None


def _hosts(text: str) -> list[str]:
    """`IP name...` as in /etc/hosts, or `name:IP`; the Engine takes `name:IP`."""
    words = text.split()
    if len(words) > 1:
        return [f"{name}:{words[0]}" for name in words[1:]]
    name, colon, _ = text.partition(":")
    if not colon or not name:
        raise ExecutorError(f"host entry {text!r} is neither 'IP NAME' nor NAME:IP")
    return [text]


def _health(health: HealthCheck) -> Json:
    def nanoseconds(seconds: float) -> int:
        return int(seconds * NANOSECONDS)

    return {
        "Test": list(health.test),
        "Interval": nanoseconds(health.interval_s),
        "Timeout": nanoseconds(health.timeout_s),
        "Retries": health.retries,
        "StartPeriod": nanoseconds(health.start_period_s),
    }
