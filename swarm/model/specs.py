"""What users write: the desired side of services, nodes and the cluster. Frozen, slotted, no I/O.

Every object can be hashed, so that the store can let equal ones be shared; mappings are compared but do not count for the hash.

Every field has a default that means "as the reference does it", so that fields can be added and old bytes still read.
Durations are seconds, sizes are bytes, CPU is nano-CPUs (10**9 is one core).
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen

from swarm.model.states import (
    Availability,
    FailureAction,
    Membership,
    MountType,
    NetworkMode,
    Protocol,
    PublishMode,
    RestartCondition,
    Role,
    UpdateOrder,
)

NANO_CPUS_PER_CORE = 1_000_000_000

Labels: TypeAlias = "dict[str, str]"
"""Treated as immutable once inside a spec: nobody changes a label mapping in place."""


# --- resources -----------------------------------------------------------------------------------------------------
@frozen(weakref_slot=False)
class GenericResource:
    """An amount of a user-defined kind (`items` empty), or named items of it (`amount` is then their number)."""

    kind: str
    amount: int = 0
    items: tuple[str, ...] = ()


@frozen(weakref_slot=False)
class Resources:
    """What is reserved, allowed or present."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    generic: tuple[GenericResource, ...] = ()


NO_RESOURCES = Resources()


@frozen(weakref_slot=False)
class ResourceRequirements:
    """A task's limits (0 = none) and reservations."""

    limits: Resources = NO_RESOURCES
    reservations: Resources = NO_RESOURCES
    pids_limit: int = 0


# --- runtimes ------------------------------------------------------------------------------------------------------
@frozen(weakref_slot=False)
class Mount:
    """One mount of a container: bind or volume with a source, tmpfs without."""

    target: str
    source: str = ""
    type: MountType = MountType.VOLUME
    read_only: bool = False
    driver: str = ""
    """Volume driver; empty means the engine's own `local`."""
    driver_options: Labels = field(factory=dict, hash=False)
    labels: Labels = field(factory=dict, hash=False)
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int = 0
    options: tuple[str, ...] = ()


@frozen(weakref_slot=False)
class HealthCheck:
    """How a task tells that it is healthy; an empty `test` means the image's own, `("NONE",)` none at all."""

    test: tuple[str, ...] = ()
    interval_s: float = 0.0
    timeout_s: float = 0.0
    retries: int = 0
    start_period_s: float = 0.0


@frozen(weakref_slot=False)
class ProcessSpec:
    """A plain process: `command` is the program and its arguments, looked up in PATH; templates are expanded."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    """`NAME=value` entries, later ones win."""
    dir: str = ""
    user: str = ""
    stop_signal: str = ""
    stop_grace_s: float | None = None


@frozen(weakref_slot=False)
class ContainerSpec:
    """A container: an image and how to run it. `command` replaces the entrypoint, `args` the command."""

    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    labels: Labels = field(factory=dict, hash=False)
    mounts: tuple[Mount, ...] = ()
    network: NetworkMode = NetworkMode.DEFAULT
    stop_signal: str = ""
    stop_grace_s: float | None = None
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    init: bool | None = None
    hosts: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    sysctls: Labels = field(factory=dict, hash=False)
    ulimits: tuple[str, ...] = ()
    health: HealthCheck | None = None
    registry_auth: str = ""


@frozen(weakref_slot=False)
class GenericSpec:
    """A task for a third-party executor: its kind and an opaque payload."""

    kind: str
    payload: bytes = b""


RuntimeSpec: TypeAlias = ProcessSpec | ContainerSpec | GenericSpec


# --- policies ------------------------------------------------------------------------------------------------------
@frozen(weakref_slot=False)
class RestartPolicy:
    """When, after how long and how often a task that ended is replaced in its slot."""

    condition: RestartCondition = RestartCondition.ANY
    delay_s: float = 5.0
    max_attempts: int = 0
    """0 is unlimited."""
    window_s: float = 0.0
    """Attempts are counted within this window; 0 counts them all."""


@frozen(weakref_slot=False)
class UpdateConfig:
    """How a rolling update or rollback proceeds."""

    parallelism: int = 1
    """Slots at a time; 0 is all at once."""
    delay_s: float = 0.0
    failure_action: FailureAction = FailureAction.PAUSE
    monitor_s: float = 5.0
    max_failure_ratio: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST


@frozen(weakref_slot=False)
class Platform:
    """An architecture and an operating system; an empty field matches any."""

    architecture: str = ""
    os: str = ""


@frozen(weakref_slot=False)
class Placement:
    """Where tasks may run and how they spread."""

    constraints: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    """Descriptors to spread over, outermost first: `node.labels.zone`."""
    platforms: tuple[Platform, ...] = ()
    max_replicas: int = 0
    """Per node; 0 is unlimited."""


@frozen(weakref_slot=False)
class LogDriver:
    """A log driver's name and options."""

    name: str = ""
    options: Labels = field(factory=dict, hash=False)


@frozen(weakref_slot=False)
class Port:
    """One published port; `published` 0 asks for any."""

    target: int
    published: int = 0
    protocol: Protocol = Protocol.TCP
    mode: PublishMode = PublishMode.HOST
    name: str = ""


# --- services ------------------------------------------------------------------------------------------------------
@frozen(weakref_slot=False)
class Replicated:
    """A number of tasks, wherever they fit."""

    replicas: int = 1


@frozen(weakref_slot=False)
class Global:
    """One task on every eligible node."""


@frozen(weakref_slot=False)
class ReplicatedJob:
    """Tasks that run to completion: `total_completions` of them, `max_concurrent` at a time."""

    max_concurrent: int = 1
    total_completions: int = 1


@frozen(weakref_slot=False)
class GlobalJob:
    """One task that runs to completion on every eligible node."""


Mode: TypeAlias = Replicated | Global | ReplicatedJob | GlobalJob


@frozen(weakref_slot=False)
class TaskSpec:
    """What one task of a service is; a difference here makes running tasks dirty."""

    runtime: RuntimeSpec
    resources: ResourceRequirements = ResourceRequirements()
    restart: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    log_driver: LogDriver | None = None
    force_update: int = 0

    @property
    def runtime_kind(self) -> str:
        """The executor that this task needs: `process`, `docker`, or a generic runtime's kind in lower case."""
        match self.runtime:
            case ProcessSpec():
                return "process"
            case ContainerSpec():
                return "docker"
            case GenericSpec(kind=kind):
                return kind.lower()


@frozen(weakref_slot=False)
class ServiceSpec:
    """What a user declares. `name` and the kind of `mode` never change after creation."""

    name: str
    task: TaskSpec
    mode: Mode = Replicated()
    labels: Labels = field(factory=dict, hash=False)
    update: UpdateConfig | None = None
    rollback: UpdateConfig | None = None
    ports: tuple[Port, ...] = ()
    replace_after_s: float | None = None
    """How long a node may be unreachable before this service's tasks there are replaced; None: the cluster's."""


# --- nodes ---------------------------------------------------------------------------------------------------------
@frozen(weakref_slot=False)
class NodeSpec:
    """What operators want of a node."""

    labels: Labels = field(factory=dict, hash=False)
    desired_role: Role = Role.WORKER
    membership: Membership = Membership.ACCEPTED
    availability: Availability = Availability.ACTIVE


@frozen(weakref_slot=False)
class NodeDescription:
    """What an agent says of its machine."""

    hostname: str = ""
    platform: Platform = Platform()
    resources: Resources = NO_RESOURCES
    executors: tuple[str, ...] = ()
    """Runtime kinds that can run here, sorted: `docker`, `process`, third-party ones."""
    engine_version: str = ""
    engine_labels: Labels = field(factory=dict, hash=False)
    plugins: tuple[tuple[str, str], ...] = ()
    """(type, name) pairs, sorted."""
    certificate_issuer: str = ""
    """SHA-256 of the issuing key of the node's certificate, in hex: what a root rotation waits for."""


# --- the cluster ---------------------------------------------------------------------------------------------------
@frozen(weakref_slot=False)
class RaftSettings:
    """Log compaction; read live."""

    snapshot_interval: int = 10_000
    """Applied entries between snapshots; 0 disables periodic ones."""
    kept_entries: int = 500
    """Entries kept after a snapshot for slow followers."""


@frozen(weakref_slot=False)
class ClusterSettings:
    """What operators may set for the whole cluster."""

    task_history_limit: int = 5
    heartbeat_period_s: float = 5.0
    replace_after_s: float | None = None
    """Default for services; None: three heartbeat periods."""
    certificate_expiry_s: float = 2160 * 3600.0
    raft: RaftSettings = RaftSettings()
    revision_history_limit: int = 10
    labels: Labels = field(factory=dict, hash=False)
