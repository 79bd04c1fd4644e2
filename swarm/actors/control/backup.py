"""The cluster's whole state, as a stream: consistent, live, and with everything that was acknowledged before it was asked for."""

from __future__ import annotations

from swarm.actors.raft_messages import SnapshotTaken, TakeSnapshot
from swarm.actors.store_messages import ReadBarrier
from swarm.model.ids import ClusterId
from swarm.model.snapshot import Snapshot
from swarm.ports.clock import Clock
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.ref import Ref, Sink
from swarm.wire.messages.control import BackupPart

READ_TIMEOUT_S = 20.0
SNAPSHOT_TIMEOUT_S = 60.0
"""A million objects are encoded in a few seconds."""


async def send_backup(store: Ref, clock: Clock, sink: Sink[BackupPart]) -> None:
    """Send it, piece by piece, as fast as the reader takes it."""
    try:
        view: Snapshot = await store.ask(ReadBarrier(), timeout_s=READ_TIMEOUT_S)
        if view.cluster is None:
            raise SwarmError(ErrorCode.UNAVAILABLE, "the cluster is being made; try again in a moment")
        cluster_id = ClusterId(view.cluster.id)
        taken: SnapshotTaken = await store.ask(TakeSnapshot(), timeout_s=SNAPSHOT_TIMEOUT_S)
        for number, chunk in enumerate(taken.chunks, 1):
            last = number == len(taken.chunks)
            await sink.send(BackupPart(chunk, cluster_id, taken.index, clock.now(), last))
    except SwarmError as error:
        sink.fail(error)
        return
    sink.close()
