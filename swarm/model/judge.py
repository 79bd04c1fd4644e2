"""Judges one group of changes without writing: resolves each against the tables and what the group itself has done so far.

The result is a list of transitions to store once the whole group has passed, so that a refusal leaves no trace and there is
nothing to undo. Which refusals there are is documented with each change in `changes.py`.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar, cast

from attrs import evolve

from swarm.model.changes import Advance, Assign, Change, Create, Delete, Kind, Refusal, RefusalCode, Update
from swarm.model.ids import ServiceId, Version
from swarm.model.objects import Cluster, Node, Revision, Service, StoreObject, Task, revision_key
from swarm.model.tables import Tables
from swarm.model.task_changes import (
    advanced,
    assigned,
    exists_already,
    judge_assign,
    judge_task,
    judge_update,
    out_of_date,
    with_version,
)

T = TypeVar("T", bound=StoreObject)
Transition: TypeAlias = "tuple[Kind, StoreObject | None, StoreObject | None]"

_KINDS: dict[type, Kind] = {
    Cluster: Kind.CLUSTER,
    Node: Kind.NODE,
    Service: Kind.SERVICE,
    Revision: Kind.REVISION,
    Task: Kind.TASK,
}


def kind_of(object: StoreObject) -> Kind:
    """The table that an object belongs to."""
    return _KINDS[type(object)]


class Refused(Exception):
    """A change of the group cannot be applied."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class Judge:
    """Resolves the changes of one group, without writing: `transitions` is what to store when all have passed."""

    __slots__ = ("_index", "_names", "_overlay", "_revision_users", "_tables", "transitions")

    def __init__(self, tables: Tables, index: Version) -> None:
        self._tables = tables
        self._index = index
        self.transitions: list[Transition] = []
        self._overlay: dict[tuple[Kind, str], StoreObject | None] = {}
        self._names: dict[str, ServiceId | None] = {}
        self._revision_users: dict[str, int] = {}
        """How many more tasks name a revision than before the group."""

    def resolve(self, change: Change) -> None:
        """Add a change's transitions; raises Refused."""
        match change:
            case Create():
                self._create(change.object)
            case Update():
                self._update(change.object)
            case Delete():
                self._delete(change)
            case Advance():
                task = cast("Task | None", self._find(Kind.TASK, change.task_id))
                after = None if task is None else advanced(task, change, self._index)
                if after is not task:
                    self._put(Kind.TASK, task, after)
            case Assign():
                self._assign(change)

    def _find(self, kind: Kind, id: str) -> StoreObject | None:
        key = (kind, id)
        return self._overlay[key] if key in self._overlay else self._tables.find(kind, id)

    def _put(self, kind: Kind, before: StoreObject | None, after: StoreObject | None) -> None:
        object = after if after is not None else before
        assert object is not None, "a change has at least one side"
        self._overlay[(kind, object.id)] = after
        self.transitions.append((kind, before, after))

    def _create(self, object: StoreObject) -> None:
        kind = kind_of(object)
        if isinstance(object, Task):
            self._join_revision(object)
        elif self._find(kind, object.id) is not None:
            raise Refused(exists_already(kind, object.id))
        match object:
            case Service():
                self._take_name(object)
            case Cluster():
                self._check_only_cluster(object)
        self._put(kind, None, self._stamped(object))

    def _update(self, object: StoreObject) -> None:
        kind = kind_of(object)
        before = self._find(kind, object.id)
        if before is None:
            raise _refused(RefusalCode.NOT_FOUND, kind, object.id, f"{kind.value} {object.id} is gone")
        if before.version != object.version:
            raise Refused(out_of_date(kind, object.id, object.version, before.version))
        if isinstance(object, Revision):
            text = f"revision {object.id} never changes; create the next one"
            raise _refused(RefusalCode.IMMUTABLE, kind, object.id, text)
        if isinstance(object, Task) and isinstance(before, Task):
            refusal = judge_update(before, object)
            if refusal is not None:
                raise Refused(refusal)
        if isinstance(object, Service) and isinstance(before, Service) and object.spec.name != before.spec.name:
            self._take_name(object)
            if before.spec.name.casefold() != object.spec.name.casefold():
                self._names[before.spec.name.casefold()] = None
        self._put(kind, before, self._stamped(object))

    def _delete(self, change: Delete) -> None:
        before = self._find(change.kind, change.id)
        if before is None:
            return
        if change.version is not None and change.version != before.version:
            raise Refused(out_of_date(change.kind, change.id, change.version, before.version))
        match before:
            case Revision():
                users = self._users_of(before)
                if users:
                    text = (
                        f"revision {before.id} is named by {users} task{'s' if users > 1 else ''}; delete those first"
                    )
                    raise _refused(RefusalCode.IN_USE, Kind.REVISION, before.id, text)
            case Service():
                self._names[before.spec.name.casefold()] = None
            case Task():
                key = revision_key(before.service_id, before.revision)
                self._revision_users[key] = self._revision_users.get(key, 0) - 1
        self._put(change.kind, before, None)
        if isinstance(before, Service):
            self._delete_unused_revisions(before)

    def _delete_unused_revisions(self, service: Service) -> None:
        stored = list(self._tables.revisions_of(service.id))
        made = [it for it in self._overlay.values() if isinstance(it, Revision) and it.service_id == service.id]
        for revision in {it.number: it for it in stored + made}.values():
            kept = self._find(Kind.REVISION, revision.id)
            if kept is not None and not self._users_of(revision):
                self._put(Kind.REVISION, kept, None)

    def _assign(self, change: Assign) -> None:
        before = cast("Task | None", self._find(Kind.TASK, change.task_id))
        node = cast("Node | None", self._find(Kind.NODE, change.node_id))
        refusal = judge_assign(change, before, node)
        if refusal is not None or before is None or node is None:
            assert refusal is not None, "a missing task or node is refused"
            raise Refused(refusal)
        self._put(Kind.TASK, before, assigned(before, change, node.id, self._index))

    def _take_name(self, service: Service) -> None:
        name = service.spec.name.casefold()
        holder = self._names[name] if name in self._names else self._tables.holder_of_name(name)
        if holder is not None and holder != service.id:
            text = f"the name {service.spec.name!r} is taken by service {holder}"
            raise _refused(RefusalCode.NAME_TAKEN, Kind.SERVICE, service.id, text)
        self._names[name] = service.id

    def _join_revision(self, task: Task) -> None:
        key = revision_key(task.service_id, task.revision)
        refusal = judge_task(
            task,
            exists=self._find(Kind.TASK, task.id) is not None,
            service=self._find(Kind.SERVICE, task.service_id) is not None,
            revision=self._find(Kind.REVISION, key) is not None,
        )
        if refusal is not None:
            raise Refused(refusal)
        self._revision_users[key] = self._revision_users.get(key, 0) + 1

    def _users_of(self, revision: Revision) -> int:
        use = self._tables.use(revision.service_id, revision.number)
        return (0 if use is None else use.tasks) + self._revision_users.get(revision.id, 0)

    def _check_only_cluster(self, cluster: Cluster) -> None:
        stored = self._tables.cluster
        present = [it for (kind, _), it in self._overlay.items() if kind is Kind.CLUSTER and it is not None]
        if stored is not None and (Kind.CLUSTER, stored.id) not in self._overlay:
            present.append(stored)
        if present:
            text = f"this is cluster {present[0].id} already"
            raise _refused(RefusalCode.EXISTS, Kind.CLUSTER, cluster.id, text)

    def _stamped(self, object: T) -> T:
        match object:
            case Task():
                return cast("T", with_version(object, self._index))
            case Service():
                revision = self._find(Kind.REVISION, revision_key(object.id, object.revision))
                return cast("T", self._sharing(object, cast("Revision | None", revision)))
            case Revision():
                service = self._find(Kind.SERVICE, object.service_id)
                return cast("T", self._sharing(object, cast("Service | None", service)))
        return evolve(object, version=self._index)

    def _sharing(self, object: Service | Revision, beside: Service | Revision | None) -> Service | Revision:
        spec = self._tables.shared.share(object.spec, None if beside is None else beside.spec)
        return evolve(object, spec=spec, version=self._index)


def _refused(code: RefusalCode, kind: Kind, id: str, text: str) -> Refused:
    return Refused(Refusal(code, kind, id, text))
