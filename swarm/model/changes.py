"""What a Raft entry asks of the store: groups of changes, each group applied whole or refused whole.

`Create`, `Update`, `Delete` and `Assign` name the version that their author saw and are refused when it is out of date.
`Advance` needs no version: a task's desired state and status only move forward, so that merging two reports in any
order gives the same task, and an orchestrator's stop can never be lost against a status report.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from attrs import frozen

from swarm.model.ids import NodeId, TaskId, Version
from swarm.model.objects import StoreObject, TaskStatus
from swarm.model.reasons import Reason
from swarm.model.specs import GenericResource
from swarm.model.states import TaskState


class Kind(StrEnum):
    """The store's tables."""

    CLUSTER = "cluster"
    NODE = "node"
    SERVICE = "service"
    REVISION = "revision"
    TASK = "task"


@frozen(weakref_slot=False)
class Create:
    """Add an object. Refused: its id exists; a service's name is taken; a task's service or revision is missing.

    Service names are unique whatever their case. There is one cluster object at most.
    """

    object: StoreObject


@frozen(weakref_slot=False)
class Update:
    """Replace an object whose stored version equals `object.version`; refused otherwise.

    Refused too: a revision, since those never change; another service, revision, slot or (once set) node for a task; a
    service's new name when it is taken.
    """

    object: StoreObject


@frozen(weakref_slot=False)
class Delete:
    """Remove an object; refused when `version` is given and is not the stored one. Absent already: no change.

    A service takes those of its revisions with it that no task names. A revision that a task names is refused.
    """

    kind: Kind
    id: str
    version: Version | None = None


@frozen(weakref_slot=False)
class Advance:
    """Move a task forward: desired and status by rank, never back. A task that is gone: no change.

    A status replaces the stored one when its state's rank is higher, or equal with other content.
    `reason` replaces the stored reason when given.
    """

    task_id: TaskId
    desired: TaskState | None = None
    status: TaskStatus | None = None
    reason: Reason | None = None


@frozen(weakref_slot=False)
class Assign:
    """Bind a task to a node (status ASSIGNED). Refused when the task's version is not `version`.

    Refused too: the node is gone; the task is bound to another node already.
    """

    task_id: TaskId
    version: Version
    node_id: NodeId
    status: TaskStatus
    generic: tuple[GenericResource, ...] = ()
    reason: Reason | None = None


Change: TypeAlias = Create | Update | Delete | Advance | Assign
Group: TypeAlias = tuple[Change, ...]


class RefusalCode(StrEnum):
    """Why a group was refused."""

    EXISTS = "exists"
    NAME_TAKEN = "name-taken"
    NOT_FOUND = "not-found"
    OUT_OF_DATE = "out-of-date"
    IMMUTABLE = "immutable"
    IN_USE = "in-use"


@frozen
class Refusal:
    """The first change of a group that could not be applied; nothing of the group was."""

    code: RefusalCode
    kind: Kind
    id: str
    text: str


GroupResult: TypeAlias = Refusal | None
"""None: the group was applied."""
