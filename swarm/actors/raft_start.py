"""How a member begins: what its disk holds decides; without a log it founds, or waits to be fed, but never by accident."""

from __future__ import annotations

import logging

import trio
from attrs import frozen

from swarm.actors.raft_disk import WRITE_RETRY_S
from swarm.ports.log_store import LogBatch, LogStore, LogWriteFailed, Recovered
from swarm.raft import messages as raft
from swarm.raft.bootstrap import force_new_cluster, found_cluster
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.messages.raft import Member

log = logging.getLogger(__name__)


class LogMissing(SwarmError):
    """The log that should be there is not. A new cluster in its place would lose the old one."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.PRECONDITION,
            "the Raft log of this manager is gone; it does not found a new cluster in its place. If other managers live, "
            "remove this node there with `swarm node rm --force` and join again; else restore a backup",
        )


@frozen
class MemberStart:
    """How this member begins. With a log on disk, the log decides and nobody is contacted."""

    me: Member
    found: bool = False
    """Without a log: found a new cluster. False and no `members`: a log must be there."""
    members: tuple[Member, ...] = ()
    """Without a log: the members of the cluster that let it in."""
    force_new_cluster: bool = False
    """With a log: go on alone, for good; the others' logs cannot be seen."""


@frozen
class Begun:
    """What the core starts with."""

    recovered: Recovered
    given_up: tuple[str, ...] = ()
    """Node ids of the members that a forced new cluster leaves behind."""


def entry_of(member: Member) -> raft.Member:
    """A member as the core stores it."""
    return raft.Member(member.raft_id, member.node_id, member.address)


JOINED = raft.HardState(term=1)
"""What a joining member's log begins with: a log that was never written to is one that is lost."""


async def begin(start: MemberStart, disk: LogStore) -> Begun:
    """Open the disk and begin. Raises `LogDamaged`, `LogMissing`."""
    recovered = await disk.open()
    if recovered.repaired:
        log.warning("the Raft log was repaired: %s", recovered.repaired)
    if not recovered.is_empty:
        return await _force(start, disk, recovered) if start.force_new_cluster else Begun(recovered)
    if start.found:
        hard_state, entries = found_cluster([entry_of(start.me)])
        await disk.write(LogBatch(hard_state, None, tuple(entries)))
        return Begun(Recovered(hard_state, entries=tuple(entries)))
    if not start.members:
        raise LogMissing
    await _mark_joined(disk)
    return Begun(Recovered(JOINED))


async def _mark_joined(disk: LogStore) -> None:
    """A full disk is waited for: a node that is being promoted goes on as a worker meanwhile."""
    while True:
        try:
            await disk.write(LogBatch(JOINED, None, ()))
            return
        except LogWriteFailed as error:
            log.warning("joining the managers waits for the disk: %s", error.text)
            await trio.sleep(WRITE_RETRY_S)


async def _force(start: MemberStart, disk: LogStore, recovered: Recovered) -> Begun:
    forced = force_new_cluster(recovered.hard_state, recovered.snapshot, recovered.entries, entry_of(start.me))
    await disk.write(LogBatch(forced.hard_state, None, (forced.entry,)))
    given_up = tuple(member.node_id for member in forced.lost)
    log.warning("this manager goes on alone; not seen: the logs of %s", ", ".join(given_up) or "nobody")
    return Begun(Recovered(forced.hard_state, recovered.snapshot, (*recovered.entries, forced.entry)), given_up)
