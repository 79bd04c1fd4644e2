"""What must hold in a simulated cluster after every turn of every actor, and once it has healed.

One idea: the checkers keep a store of their own, fed with each committed entry once, and hold every manager against it. They
see actors between their turns, ask nothing of them and change nothing. What is wrong is noted with its time, and ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import trio
from attrs import define, field

from swarm.actors.raft_messages import ApplyEntries, InstallSnapshot
from swarm.model.change_codec import decode_groups
from swarm.model.changes import Group, Kind
from swarm.model.events import Event
from swarm.model.ids import Version
from swarm.model.objects import Node, Service, StoreObject, Task
from swarm.model.reasons import ReasonCode
from swarm.model.specs import Global, GlobalJob, Replicated, ReplicatedJob, TaskSpec
from swarm.model.states import Availability, NodeState, Origin, TaskState, UpdateOrder
from swarm.model.store import Store
from swarm.plan.restart import old_task_timeout_s
from swarm.raft.codec import decode
from swarm.raft.messages import AppendReply, VoteReply
from swarm.runtime.ref import Caller
from swarm.testing.senders import Senders
from swarm.testing.sim_machine import SimMachine

NUMBER_BYTES = 16
"""What precedes the groups in an entry: see `actors/store.py`."""
MOVED = (ReasonCode.NODE_DOWN, ReasonCode.NODE_DRAINED)
STALE_LEADER_S = 1.0
"""So long the leader scope of a term may outlive the news of another term."""


@define
class Checkers:
    """Everything that is checked while a world runs."""

    violations: list[str] = field(factory=list)
    found: trio.Event = field(factory=trio.Event)
    """Set with the first violation."""
    store: Store = field(factory=Store)
    """The reference: every committed entry, applied once."""
    probes: dict[str, int] = field(factory=dict)
    """How often something that a simulation should reach was reached."""
    latest_clock: Callable[[], float] = field(default=lambda: 0.0)
    """The wall clock that is furthest ahead."""
    on_event: list[Callable[[Event], None]] = field(factory=list)
    senders: Senders = field(factory=Senders)
    _entries: dict[int, bytes] = field(factory=dict)
    """Index to the digest of the entry that was applied there first."""
    _touched: dict[int, list[StoreObject | tuple[Kind, str]]] = field(factory=dict)
    """Index to what the entry left behind, or the key of what it deleted."""
    _leaders: dict[int, int] = field(factory=dict)
    _commits: dict[str, int] = field(factory=dict)
    _committed: dict[int, int] = field(factory=dict)
    """Term to the highest index that a member of that term knew to be committed."""
    _terms: dict[int, int] = field(factory=dict)
    """Committed index to the term of its entry."""
    _votes: dict[tuple[int, int], int] = field(factory=dict)
    """(member, term) to whom it gave its vote."""
    _disks: dict[int, SimMachine] = field(factory=dict)
    _acknowledged: dict[int, tuple[object, int, int]] = field(factory=dict)
    """Member to its disk, and the newest term and index that it said was on it."""

    def fail(self, what: str) -> None:
        """Note that something must not be."""
        self.violations.append(f"at {trio.current_time():.3f} s: {what}")
        self.found.set()

    def probe(self, name: str) -> None:
        """Something interesting was reached."""
        self.probes[name] = self.probes.get(name, 0) + 1

    # --- Raft ------------------------------------------------------------------------------------------------------
    def raft_turn(self, machine: SimMachine, run: str, core: Any) -> None:
        """After a turn of a Raft member."""
        host, state = machine.name, core._state
        self._disks[state.id] = machine
        if core.is_leader and self._leaders.get(core.term) != state.id:
            if core.term in self._leaders:
                first = self._leaders[core.term]
                self.fail(f"two leaders in term {core.term}: {first:x} and {state.id:x} ({host})")
            self._leaders[core.term] = state.id
            # Votes that were under way for long make a leader of a term that is over; it may lack what came after that term.
            committed = max((index for term, index in self._committed.items() if term < core.term), default=0)
            if state.log.last_index < committed:
                text = f"leads term {core.term} with a log that ends at {state.log.last_index}"
                self.fail(f"{host} {text}, and {committed} was committed before")
        commit = state.log.commit
        before = self._commits.get(run)
        if commit == before:
            return
        if before is None:
            self._check_kept(machine, state)
        elif commit < before:
            self.fail(f"{host}: the commit index went back from {before} to {commit}")
        self._commits[run] = commit
        self._committed[core.term] = max(self._committed.get(core.term, 0), commit)
        term = state.log.term_at(commit)
        if term is not None and self._terms.setdefault(commit, term) != term:
            self.fail(f"{host} committed entry {commit} of term {term}, others of term {self._terms[commit]}")

    def _check_kept(self, machine: SimMachine, state: Any) -> None:
        """A member that begins has all that it acknowledged, as far as that was committed.

        Committed by the term of the acknowledgement: what a later leader replaces may be gone for a while.
        """
        disk, term, index = self._acknowledged.get(state.id, (None, 0, 0))
        committed = max((known for led, known in self._committed.items() if led <= term), default=0)
        if disk is machine.log and state.log.last_index < min(index, committed):
            text = f"{machine.name} begins with a log that ends at {state.log.last_index}"
            self.fail(f"{text}; it had acknowledged {index}, and {committed} was committed")

    def raft_messages(self, payload: Iterable[bytes], to: int) -> None:
        """What a member was promised: a vote is given once a term, and is on disk; so is what is acknowledged."""
        for data in payload:
            message = decode(data)
            machine = self._disks.get(message.sender)
            if machine is None or not isinstance(message, VoteReply | AppendReply):
                continue
            disk = machine.log
            if disk.is_erased:
                continue  # it was demoted since
            if isinstance(message, VoteReply):
                if not message.granted:
                    continue
                known = self._votes.setdefault((message.sender, message.term), to)
                if known != to:
                    self.fail(f"{machine.name} voted for {known:x} and for {to:x} in term {message.term}")
                if disk.hard_state.term < message.term or (
                    disk.hard_state.term == message.term and disk.hard_state.vote != to
                ):
                    self.fail(f"{machine.name} voted in term {message.term}; its disk has {disk.hard_state}")
            elif not message.rejected:
                _, term, index = self._acknowledged.get(message.sender, (None, 0, 0))
                self._acknowledged[message.sender] = (disk, *max((term, index), (message.term, message.index)))
                if disk.hard_state.term != message.term:
                    continue
                last = disk.entries[-1].index if disk.entries else 0
                last = max(last, disk.snapshot.meta.index if disk.snapshot is not None else 0)
                if last < message.index:
                    self.fail(f"{machine.name} acknowledged entry {message.index}; its disk ends at {last}")

    @property
    def terms_led(self) -> int:
        """How many terms had a leader."""
        return len(self._leaders)

    # --- links -----------------------------------------------------------------------------------------------------
    def crossed(self, where: str, message: Any, caller: Caller) -> None:
        """A message that counts as sent by a peer has come to an actor."""
        cluster = self.store.cluster
        objection = self.senders.objection(message, caller, "" if cluster is None else cluster.id)
        if objection:
            self.fail(f"{where}: {objection}")

    # --- the store -------------------------------------------------------------------------------------------------
    def store_turn(self, host: str, message: Any, view: Any) -> None:
        """After a turn of a store actor that applied entries."""
        if isinstance(message, InstallSnapshot):
            self.probe("snapshot installed")
        if not isinstance(message, ApplyEntries):
            return
        last: dict[tuple[Kind, str], StoreObject | None] = {}
        for entry in message.entries:
            digest = blake2b(entry.data, digest_size=16).digest()
            known = self._entries.setdefault(entry.index, digest)
            if known != digest:
                self.fail(f"{host} applied another entry at index {entry.index} than was committed there")
                return
            if entry.index > self.store.version:
                self._apply(entry.index, entry.data)
            for left in self._touched.get(entry.index, ()):
                if isinstance(left, tuple):
                    last[left] = None
                else:
                    last[kind_of(left), left.id] = left
        for (kind, id), wanted in last.items():
            got = look_up(view, kind, id)
            if got != wanted:
                self.fail(f"{host} at {view.version}: {kind} {id} differs: {got!r} instead of {wanted!r}")
                return

    def _apply(self, index: int, data: bytes) -> None:
        groups: list[Group] = decode_groups(data[NUMBER_BYTES:])
        results, events = self.store.apply(groups, Version(index))
        for result in results:
            if result is not None:
                self.probe("group refused")
        touched: dict[tuple[Kind, str], StoreObject | tuple[Kind, str]] = {}
        for event in events:
            one = event.after if event.after is not None else event.before
            assert one is not None, "an event has one side at least"
            key = (event.kind, one.id)
            touched[key] = event.after if event.after is not None else key
            if event.kind is Kind.TASK:
                self._check_task(event.before, event.after)
            self.senders.see(event)
            for listener in self.on_event:
                listener(event)
        self._touched[index] = list(touched.values())

    def _check_task(self, before: Any, after: Any) -> None:
        if after is None:
            if before.node_id and TaskState.ASSIGNED <= before.status.state <= TaskState.RUNNING:
                node = self.store.node(before.node_id)
                if node is not None and node.status.state is NodeState.READY:
                    self.fail(
                        f"the record of task {before.id} was deleted while {before.status.state.name} is observed"
                    )
            return
        if before is not None:
            if after.status.state < before.status.state:
                self.fail(f"task {after.id} went back from {before.status.state.name} to {after.status.state.name}")
            if after.desired < before.desired:
                self.fail(f"task {after.id}: desired went back from {before.desired.name} to {after.desired.name}")
            if before.node_id and after.node_id != before.node_id:
                self.fail(f"task {after.id} was moved from node {before.node_id} to {after.node_id}")
            if (before.service_id, before.revision, before.slot) != (after.service_id, after.revision, after.slot):
                self.fail(f"task {after.id} changed its identity")
        promoted = after.desired == TaskState.RUNNING and (before is None or before.desired < TaskState.RUNNING)
        if promoted:
            self._check_slot(after)

    def _check_slot(self, task: Task) -> None:
        """A task may run from now on: nothing else may still run in its slot, unless its node is lost."""
        service = self.store.service(task.service_id)
        spec = self.store.spec_of(task)
        if service is None or spec is None or not isinstance(spec.mode, Replicated):
            return
        if task.origin in (Origin.DRAIN, Origin.LOSS):
            return  # made while its predecessor runs, on purpose
        orders = [one.update for one in (spec, service.spec)]
        if any(update is not None and update.order is UpdateOrder.START_FIRST for update in orders):
            return
        for other in self.store.tasks_of_service(task.service_id):
            if other.id == task.id or other.slot != task.slot or not other.node_id:
                continue
            if other.status.state > TaskState.RUNNING:
                continue
            if self.latest_clock() - task.created_at >= old_task_timeout_s(self.store.spec_of(other)):
                continue  # waited for long enough
            if other.reason is not None and other.reason.code in MOVED:
                continue  # replaced first, stopped then; a lost node may be back before its task is known to have ended
            node = self.store.node(other.node_id)
            if node is None or node.spec.availability is Availability.DRAIN:
                continue
            if node.status.state is NodeState.READY:
                self.fail(
                    f"slot {task.slot} of {service.spec.name}: task {task.id} may run while {other.id} is "
                    f"{other.status.state.name} (desired {other.desired.name}) on a node that is ready"
                )

    # --- at the end ------------------------------------------------------------------------------------------------
    def compare(self, host: str, view: Any) -> None:
        """A manager that has applied as much as the reference holds the same objects."""
        mine = {(kind_of(one), one.id): one for one in self.store.dump()}
        theirs = {(kind_of(one), one.id): one for one in view.dump()}
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                self.fail(f"{host}: {key} differs: {theirs.get(key)!r} instead of {mine.get(key)!r}")
                return


def kind_of(one: StoreObject) -> Kind:
    """Its table."""
    return Kind(type(one).__name__.lower())


def look_up(view: Any, kind: Kind, id: str) -> StoreObject | None:
    """An object of a view."""
    if kind is Kind.TASK:
        return view.task(id)  # type: ignore[no-any-return]  # a Snapshot, given as Any since ids have types of their own
    if kind is Kind.NODE:
        return view.node(id)  # type: ignore[no-any-return]
    if kind is Kind.SERVICE:
        return view.service(id)  # type: ignore[no-any-return]
    if kind is Kind.REVISION:
        service_id, _, number = id.rpartition(".")
        return view.revision(service_id, int(number))  # type: ignore[no-any-return]
    return view.cluster  # type: ignore[no-any-return]


def unconverged(store: Store, running: dict[str, set[str]]) -> str:
    """Why the cluster is not what was declared yet; empty when it is. `running`: node id to ids of tasks that run there."""
    for node in store.nodes():
        if node.status.state is not NodeState.READY:
            return f"node {node.description.hostname or node.id} is {node.status.state.name}"
        if node.role is not node.spec.desired_role:
            return f"node {node.description.hostname} is {node.role.name} and is to be {node.spec.desired_role.name}"
        if (node.manager is not None) != bool(node.role):
            return f"node {node.description.hostname} is {node.role.name} and its manager status is {node.manager}"
    for service in store.services():
        problem = _service_problem(store, service)
        if problem:
            return problem
    wanted: dict[str, set[str]] = {node: set() for node in running}
    for task in store.tasks():
        if store.service(task.service_id) is None:
            return f"task {task.id} belongs to no service (desired {task.desired.name}, {task.status.state.name})"
        if task.status.state is TaskState.RUNNING:
            wanted.setdefault(task.node_id, set()).add(task.id)
    for node_id, ids in running.items():
        if ids != wanted.get(node_id, set()):
            return f"node {node_id} runs {sorted(ids - wanted[node_id])} that nobody wants, lacks {sorted(wanted[node_id] - ids)}"
    return ""


def meets(node: Node, constraints: Iterable[str]) -> bool:
    """Whether a node's labels meet constraints `node.labels.NAME==VALUE` or `!=`; an obvious twin of the planners'."""
    for constraint in constraints:
        name, equal, value = constraint.partition("!=" if "!=" in constraint else "==")
        wanted = equal == "=="
        if (node.spec.labels.get(name.strip().removeprefix("node.labels.")) == value.strip()) is not wanted:
            return False
    return True


def _service_problem(store: Store, service: Service) -> str:
    mode = service.spec.mode
    tasks = [task for task in store.tasks_of_service(service.id) if task.is_live]
    up = [task for task in tasks if task.status.state is TaskState.RUNNING]
    places = {node.id for node in store.nodes() if meets(node, service.spec.task.placement.constraints)}
    astray = [task.id for task in tasks if task.status.state < TaskState.COMPLETE and task.node_id not in places]
    if isinstance(mode, GlobalJob):
        over = {
            task.node_id
            for task in store.tasks_of_service(service.id)
            if task.job_iteration == service.job_iteration and task.status.state is TaskState.COMPLETE
        }
        return f"job {service.spec.name}: not completed on {sorted(places - over)}" if places - over else ""
    if isinstance(mode, ReplicatedJob):
        done = {
            task.slot
            for task in store.tasks_of_service(service.id)
            if task.job_iteration == service.job_iteration and task.status.state is TaskState.COMPLETE
        }
        busy = [task.id for task in tasks if task.status.state < TaskState.COMPLETE]
        if len(done) != mode.total_completions or busy:
            return f"job {service.spec.name}: {len(done)} of {mode.total_completions} completed, {len(busy)} under way"
        return ""
    unexplained = [task.id for task in tasks if task.status.state <= TaskState.PENDING and task.reason is None]
    if isinstance(mode, Replicated):
        slots = {task.slot for task in up}
        if len(up) != mode.replicas or len(slots) != mode.replicas or len(tasks) != mode.replicas:
            return (
                f"{service.spec.name}: {len(up)} running in {len(slots)} slots, {len(tasks)} live, of {mode.replicas}"
                + (f"; without a reason: {unexplained}" if unexplained else "")
            )
    if isinstance(mode, Global) and sorted(task.node_id for task in tasks) != sorted(task.node_id for task in up):
        return f"{service.spec.name}: {len(up)} running, {len(tasks)} live"
    if isinstance(mode, Global) and sorted(task.node_id for task in up) != sorted(places):
        return f"{service.spec.name}: runs on {sorted(task.node_id for task in up)}, belongs on {sorted(places)}"
    if astray:
        return f"{service.spec.name}: {astray} are where the constraints do not allow them"
    old = [task.id for task in up if _task_spec(store, task) != service.spec.task]
    if old and (service.update_status is None or service.update_status.state.name in ("UPDATING", "COMPLETED")):
        return f"{service.spec.name}: {len(old)} tasks are of an older revision"
    return ""


def _task_spec(store: Store, task: Task) -> TaskSpec | None:
    spec = store.spec_of(task)
    return None if spec is None else spec.task


def digest(parts: Iterable[str]) -> str:
    """A short hash for summary lines."""
    return blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
