"""The replicated store: applies committed groups of changes, each whole or not at all, identically on every member.

A group is judged first and stored afterwards: each change is resolved against the tables and against what the group itself has
done so far (the overlay), and nothing is written until the last one has passed. So a refusal leaves no trace and there is
nothing to undo. The changes that come by the hundred thousand, a new task, `Assign` and `Advance` alone in their group, skip the
overlay. Only committed entries may reach `apply`; nothing here reads a clock, draws a number or raises for what a group asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from swarm.model.changes import Advance, Assign, Create, Group, GroupResult, Kind
from swarm.model.construct import constructor_of
from swarm.model.events import Event
from swarm.model.ids import Version
from swarm.model.idset import with_id
from swarm.model.judge import Judge, Refused, kind_of
from swarm.model.objects import Cluster, Node, Revision, Service, StoreObject, Task
from swarm.model.tables import COMPLETE, PENDING, RUNNING, Tables
from swarm.model.task_changes import advanced, assigned, judge_assign, judge_task, with_assignment, with_version
from swarm.model.usage import NodeTasks

__all__ = ["Store", "kind_of"]

_TASK = Kind.TASK
_new_event = constructor_of(Event)


class Store(Tables):
    """The tables with `apply`; a `snapshot.Snapshot` of its own present state."""

    __slots__ = ()

    def apply(self, groups: Sequence[Group], index: Version) -> tuple[list[GroupResult], list[Event]]:
        """Apply one committed entry: a result for each group, and what became of each object, in order.

        `index` is the entry's Raft index; it becomes the version of all that changes and must be above the last one
        (ValueError otherwise: an entry is applied once).
        """
        if index <= self._version:
            raise ValueError(f"entry {index} is applied after entry {self._version}")
        self._version = index
        results: list[GroupResult] = []
        events: list[Event] = []
        at, end = 0, len(groups)
        while at < end:
            group = groups[at]
            change = group[0] if len(group) == 1 else None
            # The types are final: an identity test is cheaper than a match, and this loop runs 300,000 times a second.
            if type(change) is Assign:
                at = self._assign_run(groups, at, index, results, events)
                continue
            at += 1
            if type(change) is Advance:
                self._advance(change, index, events)
                results.append(None)
            elif type(change) is Create and type(change.object) is Task:
                results.append(self._create_task(change.object, index, events))
            else:
                results.append(self._apply_group(group, index, events))
        return results, events

    def dump(self) -> list[StoreObject]:
        """Every object as of now, in an order that `restore` takes; later changes do not touch the list."""
        return self._rows()

    def restore(self, objects: Iterable[StoreObject], index: Version) -> list[Event]:
        """Replace all content by a dump made at `index`; the events say how it differs from what was here."""
        tables = Tables()
        tables.load(objects)
        before = {(kind_of(it), it.id): it for it in self._rows()}
        events: list[Event] = []
        for after in tables._rows():
            kind = kind_of(after)
            old = before.pop((kind, after.id), None)
            if old != after:
                events.append(_new_event(kind, old, after))
        gone = [Event(kind, old, None) for (kind, _), old in before.items()]
        self.replace(tables, index)
        return [*reversed(gone), *events]

    def replace(self, tables: Tables, index: Version) -> None:
        """The end of a restore whose `tables` were loaded piece by piece: they become this store's own."""
        for name in Tables.__slots__:
            setattr(self, name, getattr(tables, name))
        self._version = index

    # --- alone in a group: the fast way ----------------------------------------------------------------------------
    def _assign_run(
        self, groups: Sequence[Group], at: int, index: Version, results: list[GroupResult], events: list[Event]
    ) -> int:
        """Apply the lone `Assign`s from `at` on; gives the place of the first group that is none.

        A scheduler's batch is one such run. What `_assign` and `_put_task` do for a pending task that gets its node is
        written out here, since a call costs as much as the work that it would hold.
        """
        tasks, nodes, lineages, holders = self._tasks, self._nodes, self._lineages, self._holders
        pending = self._pending
        end = len(groups)
        for place in range(at, end):
            group = groups[place]
            change = group[0] if len(group) == 1 else None
            if type(change) is not Assign:
                end = place
                break
            id, status = change.task_id, change.status
            before, node = tasks.get(id), nodes.get(change.node_id)
            if (
                before is None
                or node is None
                or before.version != change.version
                or before.node_id
                or not before.status.state <= PENDING < status.state <= RUNNING
            ):
                results.append(self._assign(change, index, events))
                continue
            node_id, generic, reason = node.id, change.generic, change.reason
            after = with_assignment(
                before, node_id, status, generic, before.reason if reason is None else reason, index
            )
            lineage = lineages[before.service_id]
            use = lineage.revisions[-1]
            if use.number != before.revision:
                use = lineage.named(before.revision)
            holder = holders.get(node_id)
            if holder is None:
                holder = holders[node_id] = NodeTasks()
            ids = holder.ids
            if type(ids) is dict:
                ids[id] = None
            else:
                holder.ids = with_id(ids, id)
            tasks[id] = after
            del pending[id]
            if before.desired <= COMPLETE:
                holder.activate(lineage.id)
            if use.reserves or generic:
                holder.hold(use, generic)
            results.append(None)
            events.append(_new_event(_TASK, before, after))
        if not pending:
            pending.clear()  # see `_leave_pending`
        return end

    def _assign(self, change: Assign, index: Version, events: list[Event]) -> GroupResult:
        before = self._tasks.get(change.task_id)
        node = self._nodes.get(change.node_id)
        if before is None or node is None or before.version != change.version or before.node_id:
            refusal = judge_assign(change, before, node)
            if refusal is not None or before is None or node is None:
                return refusal
        after = assigned(before, change, node.id, index)
        self._put_task(before, after)
        events.append(_new_event(_TASK, before, after))
        return None

    def _advance(self, change: Advance, index: Version, events: list[Event]) -> None:
        before = self._tasks.get(change.task_id)
        if before is None:
            return
        after = advanced(before, change, index)
        if after is not before:
            self._put_task(before, after)
            events.append(_new_event(_TASK, before, after))

    def _create_task(self, task: Task, index: Version, events: list[Event]) -> GroupResult:
        refusal = judge_task(
            task,
            exists=task.id in self._tasks,
            service=task.service_id in self._services,
            revision=self.use(task.service_id, task.revision) is not None,
        )
        if refusal is None:
            after = with_version(task, index)
            self._put_task(None, after)
            events.append(_new_event(_TASK, None, after))
        return refusal

    # --- any group -------------------------------------------------------------------------------------------------
    def _apply_group(self, group: Group, index: Version, events: list[Event]) -> GroupResult:
        judge = Judge(self, index)
        try:
            for change in group:
                judge.resolve(change)
        except Refused as refused:
            return refused.refusal
        for kind, before, after in judge.transitions:
            self._put(kind, before, after)
            events.append(_new_event(kind, before, after))
        return None

    def _put(self, kind: Kind, before: StoreObject | None, after: StoreObject | None) -> None:
        if kind is Kind.TASK:
            self._put_task(cast("Task | None", before), cast("Task | None", after))
        elif kind is Kind.SERVICE:
            self._put_service(cast("Service | None", before), cast("Service | None", after))
        elif kind is Kind.REVISION:
            self._put_revision(cast("Revision | None", before), cast("Revision | None", after))
        elif kind is Kind.NODE:
            self._put_node(cast("Node | None", before), cast("Node | None", after))
        else:
            self._put_cluster(cast("Cluster | None", after))
