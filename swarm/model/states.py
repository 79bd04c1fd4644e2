"""The ordered enums: what a task, a node, an update can be in. Numbers are those of the reference and are stored."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class TaskState(IntEnum):
    """The life of a task. Observed and desired state only ever move to a higher rank; the gaps are deliberate."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    """Desired only: stop, then delete the record. Never a status."""
    ORPHANED = 832

    @property
    def is_terminal(self) -> bool:
        """Whether, as a status, the workload is over."""
        return self > TaskState.RUNNING


class NodeState(IntEnum):
    """What the managers know of a node's agent."""

    UNKNOWN = 0
    DOWN = 1
    READY = 2
    DISCONNECTED = 3


class Availability(IntEnum):
    """What an operator allows a node to do."""

    ACTIVE = 0
    PAUSE = 1
    DRAIN = 2


class Role(IntEnum):
    """What a node is in the cluster, as its certificate says."""

    WORKER = 0
    MANAGER = 1


class Membership(IntEnum):
    """Whether a node was let in."""

    PENDING = 0
    ACCEPTED = 1


class RestartCondition(StrEnum):
    """When a task that ended is replaced."""

    NONE = "none"
    ON_FAILURE = "on-failure"
    ANY = "any"


class FailureAction(StrEnum):
    """What an update does when too many new tasks fail."""

    PAUSE = "pause"
    CONTINUE = "continue"
    ROLLBACK = "rollback"


class UpdateOrder(StrEnum):
    """Whether an updated slot may hold two tasks for a moment."""

    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


class Origin(IntEnum):
    """What made the orchestrator create a task: decides whether it counts as a restart, or as a step of an update."""

    CREATED = 0
    """A slot, a node or a job completion had no task."""
    RESTART = 1
    """Its predecessor ended."""
    UPDATE = 2
    """Its predecessor had another spec."""
    DRAIN = 3
    """Its predecessor's node is being drained."""
    LOSS = 4
    """Its predecessor's node is lost."""


class UpdateState(IntEnum):
    """Where a rolling update stands."""

    UNKNOWN = 0
    UPDATING = 1
    PAUSED = 2
    COMPLETED = 3
    ROLLBACK_STARTED = 4
    ROLLBACK_PAUSED = 5
    ROLLBACK_COMPLETED = 6


class MountType(StrEnum):
    """Where a mount's content comes from."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


class Protocol(StrEnum):
    """A port's transport."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class PublishMode(StrEnum):
    """Whether a port is reached on every node or on the task's node only."""

    INGRESS = "ingress"
    HOST = "host"


class NetworkMode(StrEnum):
    """A container's network, until clusters have networks of their own."""

    DEFAULT = "default"
    HOST = "host"
