"""Bugs that are planted at run time: the test of the tests. Each must be found; what is not found is a hole in the checkers.

    python -m tests.sim --plant all            every plant, with the number of seeds that it took
    python -m tests.sim --plant double-slot    one

A plant is a list of (object, attribute or key, replacement); nothing of the project knows of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from attrs import evolve

import swarm.actors.control.api as control_api
import swarm.actors.dispatcher as dispatcher
import swarm.actors.manager as manager
import swarm.actors.reporter as reporter
import swarm.actors.role_manager as role_manager
import swarm.actors.store as store_actor
import swarm.actors.store_snapshots as store_snapshots
import swarm.actors.task as task_actor
import swarm.model.store as model_store
import swarm.plan.assignments as assignments
import swarm.plan.reap as reap
import swarm.plan.repair as repair
import swarm.plan.replicated as replicated
import swarm.plan.rollout as rollout
import swarm.plan.update as update
from swarm.model.judge import Judge
from swarm.model.states import TaskState
from swarm.model.task_changes import advanced
from swarm.plan.task_step import NOTHING
from swarm.raft import core, election, log, quorum, read_index, replication
from swarm.raft.messages import Heartbeat, Vote, VoteReply
from swarm.raft.ready import Role
from swarm.testing.checkers import NUMBER_BYTES
from swarm.testing.memory_log import MemoryLogStore
from swarm.testing.world import run_world
from tests.sim.intruder import admits_anybody, believes_whoever_forwards, intruder
from tests.sim.storm import Storm

Patch = tuple[Any, Any, Any]
SEEDS_MAX = 200


# --- Raft --------------------------------------------------------------------------------------------------------------
def vote_not_persisted() -> list[Patch]:
    """A restarted member has forgotten whom it voted for."""
    put = MemoryLogStore._put

    def forgetful(self: MemoryLogStore, batch: Any) -> None:
        if batch.hard_state is not None:
            batch = evolve(batch, hard_state=evolve(batch.hard_state, vote=0))
        put(self, batch)

    return [(MemoryLogStore, "_put", forgetful)]


def term_not_persisted() -> list[Patch]:
    """A restarted member is back in its first term."""
    put = MemoryLogStore._put
    return [(MemoryLogStore, "_put", lambda self, batch: put(self, evolve(batch, hard_state=None)))]


def log_not_flushed() -> list[Patch]:
    """The disk says "written" and loses the last writes with the power."""
    put, crash = MemoryLogStore._put, MemoryLogStore.crash

    def lazily(self: Any, batch: Any) -> None:
        self.__dict__.setdefault("before", []).append((self.hard_state, list(self.entries), self.snapshot))
        del self.before[:-8]
        put(self, batch)

    def losing(self: Any, *, keep: bool = False) -> None:
        crash(self, keep=False)
        if self.__dict__.get("before"):
            self.hard_state, self.entries, self.snapshot = self.before[0]
            self.before.clear()

    return [(MemoryLogStore, "_put", lazily), (MemoryLogStore, "crash", losing)]


def votes_twice() -> list[Patch]:
    """A member gives its vote to everybody who asks in a term."""

    def on_vote(state: Any, message: Vote) -> None:
        granted = state.log.is_up_to_date(message.last_index, message.last_term)
        state.vote = message.sender if granted else state.vote
        state.send_after(VoteReply(message.sender, state.id, state.term, granted))

    return [(core.TABLE[role], Vote, on_vote) for role in Role] + [(election, "is_protected", lambda state: False)]


def votes_for_old_logs() -> list[Patch]:
    """A candidate whose log is behind gets votes."""
    return [(log.Log, "is_up_to_date", lambda self, last_index, last_term: True)]


def commits_without_majority() -> list[Patch]:
    """The leader commits what one member holds."""

    def advance(state: Any) -> None:
        reached = max(state.progress[voter].match for voter in state.voters)
        if reached > state.log.commit and state.log.term_at(reached) == state.term:
            replication.membership.commit_to(state, reached)

    return [(replication, "advance_commit", advance)]


def commit_past_the_log() -> list[Patch]:
    """Heartbeats tell followers to commit what they may not have."""

    def beat(state: Any, raft_id: Any) -> None:
        state.send(Heartbeat(raft_id, state.id, state.term, state.log.commit, state.read_round))

    return [(read_index, "beat", beat)]


def acknowledged_before_durable() -> list[Patch]:
    """Votes and acknowledgements leave before the write that they promise."""
    take = core.Raft._take

    def early(self: Any, *args: Any) -> Any:
        self._state.outbox.extend(self._state.outbox_after)
        self._state.outbox_after.clear()
        return take(self, *args)

    slow = MemoryLogStore.__init__
    return [
        (core.Raft, "_take", early),
        (MemoryLogStore, "__init__", lambda self, latency_s=0.2: slow(self, latency_s)),
    ]


def read_without_round() -> list[Patch]:
    """A read index is given without asking whether somebody else leads by now."""

    def release(state: Any) -> None:
        for waiting in state.read_rounds:
            for voter in state.others:
                state.progress[voter].acked_round = max(state.progress[voter].acked_round, waiting.number)
        original(state)

    original = read_index._release
    return [(read_index, "_release", release), (quorum, "is_active", lambda voters, active: True)]


# --- the store ---------------------------------------------------------------------------------------------------------
def status_goes_back() -> list[Patch]:
    """The newest report wins, whatever it says."""

    def careless(before: Any, change: Any, index: Any) -> Any:
        after = advanced(before, change, index)
        if change.status is not None and change.status.state < before.status.state:
            return evolve(after, status=change.status, version=index)
        return after

    reports, count = reporter.Reporter._reports, [0]

    def late(self: Any, ids: Any, number: int) -> Any:
        """Every third report is one that was under way for long."""
        made = reports(self, ids, number)
        count[0] += ids is self._unsent
        if ids is not self._unsent or count[0] % 3:
            return made
        return tuple(evolve(one, status=evolve(one.status, state=TaskState.PREPARING)) for one in made)

    return [
        (model_store, "advanced", careless),
        (dispatcher.Dispatcher, "_is_news", lambda self, node_id, task_id, status: True),
        (reporter.Reporter, "_reports", late),
    ]


def stale_write_is_taken() -> list[Patch]:
    """An update that saw an old version replaces a newer object."""
    original = Judge._update

    def careless(self: Any, object: Any) -> None:
        before = self._find(model_store.kind_of(object), object.id)
        original(self, object if before is None else evolve(object, version=before.version))

    return [(Judge, "_update", careless)]


def follower_skips_an_entry() -> list[Patch]:
    """What is applied depends on who applies it."""
    original = store_actor.StoreActor._apply

    def skipping(self: Any, entry: Any, events: Any) -> None:
        if entry.index % 37 or entry.data[:NUMBER_BYTES] in self._proposals._waiting:
            original(self, entry, events)

    return [(store_actor.StoreActor, "_apply", skipping)]


def snapshot_loses_an_object() -> list[Patch]:
    """A snapshot holds all but the last object."""
    original = store_snapshots.chunks_of

    async def short(objects: Any) -> Any:
        return await original(objects[:-1])

    return [(store_actor, "chunks_of", short)]


def answered_before_commit() -> list[Patch]:
    """A write is acknowledged when it is proposed."""
    original = store_actor.StoreActor._send_entry

    def hasty(self: Any, proposal: Any) -> None:
        original(self, proposal)
        if not proposal.later.done:
            proposal.later.answer(tuple(None for _ in proposal.groups))

    return [(store_actor.StoreActor, "_send_entry", hasty)]


def read_without_barrier() -> list[Patch]:
    """A manager that takes itself for the leader answers reads from what it has."""

    async def local(self: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return self._local()

    return [(control_api.ControlApi, "_barrier", local), (quorum, "is_active", lambda voters, active: True)]


# --- planners ----------------------------------------------------------------------------------------------------------
def double_slot() -> list[Patch]:
    """A replacement does not wait for its predecessor to stop."""
    return [(module, "is_held", lambda ctx, task: False) for module in (repair, rollout)] + [
        (repair, "holds_when_stopped", lambda ctx, task: False),
        (update, "hold_back", lambda ctx, slot, start_after, stopping=False: ctx.goal),
    ]


def slot_forgotten() -> list[Patch]:
    """A task that ended in slot 1 is not replaced."""
    original = repair._replace_ended

    def forgetting(ctx: Any, slot: Any, *args: Any) -> bool:
        return False if slot.number == 1 else original(ctx, slot, *args)

    return [(repair, "_replace_ended", forgetting)]


def update_forgotten() -> list[Patch]:
    """A new revision reaches only slots that are replaced anyway."""
    return [(module, "is_dirty", lambda ctx, slot: False) for module in (rollout, update)]


def never_scales_down() -> list[Patch]:
    """Fewer replicas change nothing."""
    return [(replicated, "choose_removed", lambda candidates, wanted: [])]


def reaps_the_living() -> list[Patch]:
    """Records go while their tasks run."""
    return [(reap, "_is_gone", lambda view, task: True)]


# --- dispatcher and agent ----------------------------------------------------------------------------------------------
def assignment_lost() -> list[Patch]:
    """Every fifth incremental set does not reach its node."""
    original = assignments.NodeShare.change
    count = [0]

    def losing(self: Any, view: Any, task_ids: Any) -> Any:
        change = original(self, view, task_ids)
        count[0] += 1
        if change is not None and count[0] % 5 == 0:
            self.sequence -= 1
            return None
        return change

    return [(assignments.NodeShare, "change", losing)]


def assignment_out_of_order() -> list[Patch]:
    """An incremental set is numbered as the one before it."""
    original = assignments.NodeShare.change
    count = [0]

    def shuffled(self: Any, view: Any, task_ids: Any) -> Any:
        change = original(self, view, task_ids)
        count[0] += 1
        if change is not None and count[0] % 7 == 0 and change.tasks:
            return evolve(change, tasks=change.tasks[1:])
        return change

    return [(assignments.NodeShare, "change", shuffled)]


def exit_lost() -> list[Patch]:
    """That a task failed is not reported."""
    handler = reporter.Reporter.handlers[reporter.StatusChanged]

    def deaf(self: Any, message: Any, turn: Any) -> None:
        if message.status.state is not TaskState.FAILED:
            handler.function(self, message, turn)

    return [(reporter.Reporter.handlers, reporter.StatusChanged, handler._replace(function=deaf))]


def statuses_not_reported_again() -> list[Patch]:
    """What was under way when a session broke is not said to the next one."""
    handler = reporter.Reporter.handlers[reporter.SessionBegan]

    def silent(self: Any, message: Any, turn: Any) -> None:
        self._session = (message.dispatcher, message.session_id)
        self._unsent = {}

    return [(reporter.Reporter.handlers, reporter.SessionBegan, handler._replace(function=silent))]


def stop_ignored() -> list[Patch]:
    """A running task is not stopped, an orphan is kept."""
    original = task_actor.next_step

    def stubborn(state: TaskState, desired: TaskState) -> Any:
        return NOTHING if state is TaskState.RUNNING and desired >= TaskState.SHUTDOWN else original(state, desired)

    return [(task_actor, "next_step", stubborn)]


# --- managers ----------------------------------------------------------------------------------------------------------
def leader_scope_lives_on() -> list[Patch]:
    """Losing the leadership does not end the leader's actors."""

    async def nothing(self: Any) -> None:
        await trio.lowlevel.checkpoint()

    return [(manager._Leading, "stop", nothing)]


def demoted_member_stays() -> list[Patch]:
    """A demoted manager is not taken out of Raft."""

    async def nothing(self: Any, step: Any, self_id: Any) -> None:
        await trio.lowlevel.checkpoint()

    return [(role_manager.RoleManager, "_remove", nothing)]


PLANTS: dict[str, Callable[[], list[Patch]]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        vote_not_persisted, term_not_persisted, log_not_flushed, votes_twice, votes_for_old_logs,
        commits_without_majority, commit_past_the_log, acknowledged_before_durable, read_without_round,
        status_goes_back, stale_write_is_taken, follower_skips_an_entry, snapshot_loses_an_object,
        answered_before_commit, read_without_barrier, double_slot, slot_forgotten, update_forgotten,
        never_scales_down, reaps_the_living, assignment_lost, assignment_out_of_order, exit_lost,
        statuses_not_reported_again, stop_ignored, leader_scope_lives_on, demoted_member_stays,
        admits_anybody, believes_whoever_forwards,
    )
}  # fmt: skip


STORIES = {"admits-anybody": intruder, "believes-whoever-forwards": intruder}
"""Plants that the random stories have nobody for."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The bug is there for as long as the context lasts."""
    undo: list[Callable[[], None]] = []
    try:
        for target, key, replacement in PLANTS[name]():
            if isinstance(target, dict):
                before = target[key]
                undo.append(lambda target=target, key=key, before=before: target.__setitem__(key, before))
                target[key] = replacement
            else:
                before = target.__dict__[key]
                undo.append(lambda target=target, key=key, before=before: setattr(target, key, before))
                setattr(target, key, replacement)
        yield
    finally:
        for one in reversed(undo):
            one()


def seeds_to_find(
    name: str, managers: int, workers: int, minutes: float, first: int, seeds_max: int
) -> tuple[int, str]:
    """How many seeds it took to find a plant (0: it was not found), and by what."""
    with planted(name):
        for number in range(seeds_max):
            story = STORIES.get(name) or Storm(managers, workers, minutes)
            outcome = run_world(str(first + number), story)
            if outcome.violations:
                return number + 1, outcome.violations[0]
    return 0, ""


def find_all(arguments: argparse.Namespace) -> int:
    """Plant one bug or all; the exit code is 1 when one was not found."""
    names = list(PLANTS) if arguments.plant == "all" else arguments.plant.split(",")
    if len(names) > 1 and arguments.jobs > 1:
        missed = trio.run(_share_out, names, arguments.jobs)
    else:
        missed = sum(not _find(name, arguments) for name in names)
    print(f"{len(names)} plants, {missed} not found")
    return 1 if missed else 0


def _find(name: str, arguments: argparse.Namespace) -> bool:
    managers, workers = (int(part) for part in arguments.nodes.split(","))
    first = int(arguments.seed) if arguments.seed.isdigit() else 1
    seeds_max = arguments.seeds if arguments.seeds > 1 else SEEDS_MAX
    seeds, by = seeds_to_find(name, managers, workers, arguments.minutes, first, seeds_max)
    verdict = f"found after {seeds} seed{'s' if seeds > 1 else ''}" if seeds else f"NOT FOUND in {seeds_max} seeds"
    print(f"{name:30} {verdict:24} {by[:140]}", flush=True)
    return bool(seeds)


async def _share_out(names: list[str], jobs: int) -> int:
    """Each plant in a process of its own, with the same command line but for its name; how many were not found."""
    room, missed = trio.CapacityLimiter(jobs), 0

    async def find(name: str) -> None:
        nonlocal missed
        command = [sys.executable, "-m", "tests.sim", *sys.argv[1:], "--plant", name]
        async with room:
            done = await trio.run_process(command, capture_stdout=True, check=False)
        missed += done.returncode != 0
        print(done.stdout.decode().partition("\n")[0], flush=True)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(find, name)
    return missed
