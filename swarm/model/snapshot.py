"""A read-only view of the store: what planners and readers get instead of the store itself.

The view is live: within one turn nothing changes under it, after an `await` it may have. Iteration orders are the same on
every member, whether it followed the log or was restored from a snapshot: tables and pending tasks in order of creation, a
service's tasks by slot and then creation, a node's tasks by id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId, Version
from swarm.model.objects import Cluster, Node, Revision, Service, Task
from swarm.model.resources import NodeUsage
from swarm.model.specs import ServiceSpec


class Snapshot(Protocol):
    """The store as of `version`; look-ups give None for what is absent, collections are empty for it."""

    @property
    def version(self) -> Version:
        """Raft index of the last applied entry."""
        ...

    @property
    def cluster(self) -> Cluster | None:
        """The one cluster object, None before the first leader created it."""
        ...

    def node(self, id: NodeId) -> Node | None: ...
    def service(self, id: ServiceId) -> Service | None: ...
    def task(self, id: TaskId) -> Task | None: ...
    def revision(self, service_id: ServiceId, number: RevisionNumber) -> Revision | None: ...

    def spec_of(self, task: Task) -> ServiceSpec | None:
        """The spec that the task was made from; None only for a task whose service is gone."""
        ...

    def lone_spec(self, task: Task) -> ServiceSpec | None:
        """The spec of a task that is the only one of a service that exists; None for every other task."""
        ...

    def service_named(self, name: str) -> Service | None:
        """Case-insensitive."""
        ...

    def nodes(self) -> Collection[Node]: ...
    def services(self) -> Collection[Service]: ...
    def tasks(self) -> Collection[Task]: ...
    def revisions_of(self, service_id: ServiceId) -> Collection[Revision]:
        """Ascending by number."""
        ...

    def tasks_of_service(self, id: ServiceId) -> Collection[Task]: ...
    def count_tasks_of_service(self, id: ServiceId) -> int:
        """How many tasks the service has, history too."""
        ...

    def services_with_tasks(self) -> Collection[ServiceId]:
        """The ids of services that have tasks, those that are gone too, in order of creation."""
        ...

    def tasks_of_node(self, id: NodeId) -> Collection[Task]: ...
    def slots_of_service(self, id: ServiceId) -> Mapping[Slot, Collection[Task]]:
        """Slot number, ascending, to its tasks, all of them, history too (global kinds keep all in slot 0: use by node)."""
        ...

    def pending_tasks(self) -> Collection[Task]:
        """Tasks with status PENDING or below, in order of creation."""
        ...

    def usage(self, id: NodeId) -> NodeUsage:
        """What the node's tasks hold, kept as changes are applied; an empty one for a node without tasks."""
        ...

    def ids_with_prefix(self, kind: str, prefix: str) -> Iterator[str]:
        """Ids of nodes, services or tasks (`kind` is a `Kind` value) that start with `prefix`, sorted."""
        ...
