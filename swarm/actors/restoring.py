"""From a backup to the state directory of a single manager that goes on from it. Nothing is contacted, nothing runs.

The new manager is a new node of the same cluster, with a certificate from the cluster's own authority, which the backup
holds; workers take it for what it is, since they trust that authority. `node.json` is written last, so that a restore that
was cut short leaves a directory that holds no node.
"""

from __future__ import annotations

from attrs import frozen

from swarm.actors.ca import sign
from swarm.actors.context import DEFAULT_LISTEN, NodeConfig, NodePorts
from swarm.actors.store_snapshots import chunks_of, tables_of
from swarm.ca.certificates import KEY_RANDOM_BYTES, SERIAL_RANDOM_BYTES, make_request, new_key
from swarm.ca.credentials import Credentials
from swarm.ca.identity import PeerRole
from swarm.model.ids import NodeId, RaftId, Version
from swarm.model.plain import PlainError
from swarm.model.states import Role
from swarm.model.store import Store
from swarm.plan.restored import restore
from swarm.ports.log_store import LogBatch
from swarm.ports.state_dir import NodeFile
from swarm.raft.messages import HardState, Member, Membership, Snapshot, SnapshotMeta
from swarm.runtime.errors import ErrorCode, SwarmError

RAFT_ID_MAX = (1 << 63) - 1
TERM = 1
"""The log begins anew: no member of before is in it, and their terms mean nothing here."""


@frozen
class Restored:
    """What was made."""

    node: NodeFile
    forgotten: tuple[str, ...]
    """Names of the managers of that time."""
    services: int
    workers: int


async def restore_state(config: NodeConfig, ports: NodePorts, body: bytes, index: int) -> Restored:
    """Make the state directory. EXISTS when it belongs to a cluster already, INVALID when the body cannot be read."""
    state = ports.open_state(config.state_dir)
    try:
        state.require_empty()
        store = Store()
        try:
            store.replace(await tables_of([body]), Version(index))
        except PlainError as error:
            raise SwarmError(ErrorCode.INVALID, f"the backup cannot be read: {error}") from None
        cluster, now = store.cluster, ports.clock.now()
        if cluster is None:
            raise SwarmError(ErrorCode.INVALID, "the backup holds no cluster")
        node_id, raft_id = NodeId(ports.entropy.new()), RaftId(ports.entropy.integer(1, RAFT_ID_MAX))
        listen = config.listen or DEFAULT_LISTEN
        advertise = config.advertise or ""
        forgotten = restore(store, node_id, raft_id, advertise, now)
        key = new_key(ports.entropy.bytes(KEY_RANDOM_BYTES))
        serial = ports.entropy.bytes(SERIAL_RANDOM_BYTES)
        leaf = sign(cluster, make_request(key), node_id, PeerRole.MANAGER, now, serial)
        state.save_credentials(Credentials(leaf, key, cluster.root_certificate))
        disk = ports.log_store(state, state.data_key(ports.entropy))
        try:
            if not (await disk.open()).is_empty:  # of a restore that was cut short
                await disk.erase()
                await disk.open()
            meta = SnapshotMeta(store.version, TERM, Membership((Member(raft_id, node_id, advertise),)))
            chunks = await chunks_of(store.dump())
            await disk.write(LogBatch(HardState(term=TERM, commit=meta.index), Snapshot(meta, chunks)))
        finally:
            await disk.aclose()
        node = NodeFile(
            node_id=node_id,
            cluster_id=cluster.id,
            role=Role.MANAGER,
            hostname=config.hostname or ports.hostname(),
            listen=listen,
            advertise=advertise,
            executors=() if config.executor in (None, "auto") else (config.executor,),
            raft_id=raft_id,
            joined_at=now,
        )
        state.save_node(node)
        workers = sum(1 for one in store.nodes() if one.id != node_id)
        return Restored(node, tuple(forgotten), sum(1 for _ in store.services()), workers)
    finally:
        state.close()
