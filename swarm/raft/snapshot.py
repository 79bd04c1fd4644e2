"""Snapshots on their way, chunk by chunk: a window of chunks ahead, resumed at the first one that is missing.

The core holds no snapshot that it sends: it asks for chunks (`Ready.chunks_wanted`) and is handed them. What it receives it
keeps until all is there. Chunks travel on a lane of their own; nothing here holds back entries or heartbeats of others.
"""

from __future__ import annotations

from swarm.raft import membership
from swarm.raft.config import SNAPSHOT_CHUNKS_MAX
from swarm.raft.messages import Index, RaftId, Snapshot, SnapshotChunk, SnapshotReply
from swarm.raft.progress import Progress, ProgressState
from swarm.raft.ready import ChunkWanted, Role
from swarm.raft.state import Incoming, State


# --- the leader's side ---------------------------------------------------------------------------------------------
def begin(state: State, raft_id: RaftId, progress: Progress) -> None:
    """Send the newest snapshot to a member that answers; one that is silent would only fill queues."""
    if progress.active:
        progress.become_snapshot(state.log.snapshot)
        want_chunks(state, raft_id, progress)


def want_chunks(state: State, raft_id: RaftId, progress: Progress) -> None:
    """Ask for the chunks that the window has room for; the first alone tells how many there are."""
    transfer = progress.transfer
    if transfer is None:
        return
    end = transfer.acked + state.config.snapshot_window if transfer.total is not None else 1
    while transfer.next < min(end, transfer.total or 1):
        state.chunks_wanted.append(ChunkWanted(raft_id, transfer.meta, transfer.next))
        transfer.next += 1


def supply(state: State, wanted: ChunkWanted, total: int, data: bytes) -> None:
    """A chunk that was wanted: send it, unless the member does not need it any more."""
    progress = state.progress.get(wanted.to)
    if progress is None or progress.transfer is None or progress.transfer.meta != wanted.meta:
        return
    first = progress.transfer.total is None
    progress.transfer.total = total
    state.send(SnapshotChunk(wanted.to, state.id, state.term, wanted.meta, wanted.number, total, data))
    if first:
        want_chunks(state, wanted.to, progress)


def on_reply(state: State, message: SnapshotReply) -> None:
    """A member says how far it has got."""
    progress = state.progress[message.sender]
    progress.active = True
    transfer = progress.transfer
    if transfer is None or transfer.meta.index != message.index:
        return
    if message.installed:
        progress.acknowledged(message.index)
        progress.become_replicate()
        return
    if message.gap and message.next_number < transfer.next and transfer.rewound_at != message.next_number:
        # Every chunk behind a lost one is answered by the same gap: send again once.
        transfer.rewound_at = message.next_number
        transfer.acked = transfer.next = message.next_number
    elif message.next_number > transfer.acked:
        transfer.acked = message.next_number
        transfer.next = max(transfer.next, transfer.acked)
        transfer.rewound_at = None
    else:
        return
    transfer.idle_ticks = 0
    want_chunks(state, message.sender, progress)


def tick(state: State) -> None:
    """Leader: a transfer that has stood still for an election timeout goes on from the last chunk that arrived."""
    for raft_id, progress in state.progress.items():
        transfer = progress.transfer
        if transfer is None:
            continue
        transfer.idle_ticks += 1
        if transfer.idle_ticks >= state.config.election_ticks:
            transfer.idle_ticks = 0
            transfer.rewound_at = None
            transfer.next = transfer.acked
            want_chunks(state, raft_id, progress)


def report(state: State, raft_id: RaftId, ok: bool) -> None:
    """The world says how sending went; a failure (the snapshot is gone from disk) starts over with the newest one."""
    progress = state.progress.get(raft_id)
    if progress is not None and progress.state is ProgressState.SNAPSHOT and not ok:
        progress.become_probe()


def compact(state: State, kept_entries: int) -> Index:
    """Forget what the newest snapshot covers, but for `kept_entries` and what live members are about to need.

    Returns the last index that is gone, through which the stored log may be compacted too.
    """
    log, config = state.log, state.config
    through = max(log.snapshot.index - kept_entries, log.base_index)
    if state.role is Role.LEADER and log.size_bytes <= config.compaction_hold_bytes:
        needed = [_needed(progress) for progress in state.progress.values() if progress.active]
        held = max(min(needed, default=through), log.last_index - config.compaction_hold_entries)
        through = min(through, held)
    log.compact(through)
    return log.base_index


def _needed(progress: Progress) -> Index:
    """The place from which a member needs entries; 0 would be the whole log, for one that is not known yet."""
    return progress.transfer.meta.index if progress.transfer else progress.match


# --- the follower's side -------------------------------------------------------------------------------------------
def on_chunk(state: State, message: SnapshotChunk) -> None:
    """One more chunk from the leader."""
    state.follow(message.sender)
    meta = message.meta
    if meta.index <= state.log.commit:
        _reply(state, message, message.total, installed=True)
        return
    incoming = _incoming(state, message)
    if incoming is None or message.number > len(incoming.chunks):
        arrived = 0 if incoming is None else len(incoming.chunks)
        _reply(state, message, arrived, gap=True)
        return
    if message.number == len(incoming.chunks):
        incoming.chunks.append(message.data)
    if len(incoming.chunks) < incoming.total:
        _reply(state, message, len(incoming.chunks))
        return
    state.incoming = None
    _install(state, Snapshot(meta, tuple(incoming.chunks)))
    _reply(state, message, message.total, installed=True)


def _incoming(state: State, message: SnapshotChunk) -> Incoming | None:
    """The snapshot that this chunk belongs to, begun when it is the first; None for a middle piece of an unknown one."""
    incoming = state.incoming
    if incoming is not None and (incoming.sender, incoming.meta) == (message.sender, message.meta):
        return incoming
    if message.number or not 0 < message.total <= SNAPSHOT_CHUNKS_MAX:
        return None
    state.incoming = Incoming(message.sender, message.meta, message.total, [])
    return state.incoming


def _install(state: State, snapshot: Snapshot) -> None:
    """Take it over; a log that holds its last entry already only learns that all of it is committed (paper 7)."""
    meta = snapshot.meta
    if state.log.matches(meta.index, meta.term):
        membership.commit_to(state, meta.index)
        return
    state.log.restore(meta)
    state.installed = snapshot
    state.handed = meta.index
    if state.id in meta.membership.removed:
        membership.retire(state)


def _reply(state: State, message: SnapshotChunk, number: int, *, gap: bool = False, installed: bool = False) -> None:
    reply = SnapshotReply(message.sender, state.id, state.term, message.meta.index, number, gap, installed)
    if installed:
        state.send_after(reply)
    else:
        state.send(reply)
