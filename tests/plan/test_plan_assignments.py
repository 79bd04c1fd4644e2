"""A node's share: full sets, changes, specs once a session; against a node that takes the messages literally."""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.ids import NodeId, RevisionNumber, ServiceId, TaskId
from swarm.model.objects import Task, TaskStatus
from swarm.model.specs import ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.plan.assignments import NodeShare, NodeSpecs, ShareChange, SpecKey

ME, OTHER = NodeId("me"), NodeId("other")


@define
class View:
    """As much of a snapshot as a share reads."""

    by_id: dict[TaskId, Task] = field(factory=dict)

    def task(self, id: TaskId) -> Task | None:
        return self.by_id.get(id)

    def tasks_of_node(self, id: NodeId) -> Collection[Task]:
        return [task for task in self.by_id.values() if task.node_id == id]

    def spec_of(self, task: Task) -> ServiceSpec:
        return ServiceSpec(f"{task.service_id}-{task.revision}", TaskSpec(ProcessSpec(("true",))))

    def put(self, task: Task) -> TaskId:
        self.by_id[task.id] = task
        return task.id


def task(number: int, state: TaskState = TaskState.ASSIGNED, *, node: NodeId = ME, revision: int = 1) -> Task:
    return Task(
        TaskId(f"t{number}"), ServiceId("s"), RevisionNumber(revision), node_id=node, status=TaskStatus(state=state)
    )


def ids(change: ShareChange | None) -> list[str]:
    assert change is not None
    return [each.id for each in change.tasks]


def test_the_first_message_is_everything_that_the_node_may_see() -> None:
    view = View()
    for each in (task(1), task(2, TaskState.FAILED), task(3, TaskState.PENDING), task(4, node=OTHER)):
        view.put(each)
    full = NodeShare(ME).full(view)
    assert full.full and full.sequence == 1
    assert ids(full) == ["t1", "t2"]
    assert [key for key, _ in full.specs] == [("s", 1)]


def test_a_change_of_status_alone_is_not_sent_back() -> None:
    view, share = View(), NodeShare(ME)
    view.put(task(1))
    share.full(view)
    changed = view.put(task(1, TaskState.RUNNING))
    assert share.change(view, [changed]) is None
    view.put(evolve(task(1, TaskState.RUNNING), desired=TaskState.SHUTDOWN))
    assert ids(share.change(view, [changed])) == ["t1"]


def test_create_update_and_delete_in_one_burst_say_nothing() -> None:
    share = NodeShare(ME)
    share.full(View())
    assert share.change(View(), [TaskId("t1")]) is None


def test_a_spec_travels_once_and_again_after_its_last_task_was_removed() -> None:
    view, share = View(), NodeShare(ME)
    share.full(view)
    first = share.change(view, [view.put(task(1))])
    second = share.change(view, [view.put(task(2))])
    assert first is not None and len(first.specs) == 1 and first.sequence == 2
    assert second is not None and second.specs == () and second.sequence == 3
    view.by_id.clear()
    gone = share.change(view, [TaskId("t1"), TaskId("t2")])
    assert gone is not None and gone.removed == ("t1", "t2")
    third = share.change(view, [view.put(task(3))])
    assert third is not None and len(third.specs) == 1


@define
class LiteralNode:
    """Takes messages as they are documented."""

    sequence: int = 0
    tasks: dict[TaskId, Task] = field(factory=dict)
    specs: dict[SpecKey, ServiceSpec] = field(factory=dict)
    kept: NodeSpecs = field(factory=NodeSpecs)

    def take(self, change: ShareChange | None) -> None:
        if change is None:
            return
        assert change.full or change.sequence == self.sequence + 1, "a gap"
        self.sequence = change.sequence
        if change.full:
            self.tasks.clear()
            self.specs.clear()
        for key, spec in change.specs:
            assert key not in self.specs, "a spec was sent twice"
            self.specs[key] = spec
        for each in change.tasks:
            assert (each.service_id, each.revision) in self.specs, "a task came without its spec"
            self.tasks[each.id] = each
        for task_id in change.removed:
            del self.tasks[task_id]
        used = {(each.service_id, each.revision) for each in self.tasks.values()}
        self.specs = {key: spec for key, spec in self.specs.items() if key in used}
        self._check_kept(change)

    def _check_kept(self, change: ShareChange) -> None:
        """What a real node keeps, without looking at all of its tasks, is the same."""
        if change.full:
            self.kept.clear()
        self.kept.learn(change.specs, change.tasks)
        assert all(self.kept.get(each) is not None for each in change.tasks)
        self.kept.forget(change.removed)
        assert len(self.kept) == len(self.specs)
        assert all(self.kept.get(each) == self.specs[each.service_id, each.revision] for each in self.tasks.values())


TASKS = st.builds(
    lambda number, state, node, desired: evolve(task(number, state, node=node, revision=number % 3), desired=desired),
    st.integers(0, 7),
    st.sampled_from([TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED]),
    st.sampled_from([ME, OTHER]),
    st.sampled_from([TaskState.RUNNING, TaskState.SHUTDOWN]),
)


@given(st.lists(st.lists(TASKS | st.integers(0, 7), max_size=6), max_size=12), st.integers(0, 12))
def test_a_node_that_takes_every_message_knows_what_the_store_knows(
    batches: list[list[Task | int]], reset_at: int
) -> None:
    view, share, me = View(), NodeShare(ME), LiteralNode()
    me.take(share.full(view))
    for number, batch in enumerate(batches):
        touched: dict[TaskId, None] = {}
        for change in batch:
            if isinstance(change, int):
                view.by_id.pop(TaskId(f"t{change}"), None)
                touched[TaskId(f"t{change}")] = None
            else:
                touched[view.put(change)] = None
        if number == reset_at:
            me.take(share.full(view))
        else:
            me.take(share.change(view, touched))
        visible = {
            each.id: each.desired
            for each in view.by_id.values()
            if each.node_id == ME and each.status.state >= TaskState.ASSIGNED
        }
        assert {each.id: each.desired for each in me.tasks.values()} == visible
