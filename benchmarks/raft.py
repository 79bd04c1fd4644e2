"""Committed writes a second: three members as three processes, TLS between them and to the client, beside etcd and PySyncObj.

`python -m benchmarks.raft [seconds]`; or `python -m benchmarks.raft behind`: how fast the leader goes on while a member that
is 100,000 entries behind catches up by snapshot. A write is a 256-byte value; it counts once a majority has it on disk and the
leader has applied it. One client process keeps 1, 16, 256 or 4,096 writes in flight on one connection to the leader; both clients
are as thin as can be (blocking, frames by hand). PySyncObj's commands are put in within its leader's process and are not flushed;
one at a time it gathers for 50 ms, so that only many in flight say anything. Rates and latencies (p50, p99) of the median
round; the systems take turns, and whoever is not installed is named and left out.
The disk is the one below the temporary directory (`TMPDIR`). Nothing is random but values.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import msgpack
import trio
from attrs import frozen

from benchmarks import _etcd, _pysyncobj
from benchmarks._client import Client
from swarm.actors.daemon import GC_THRESHOLDS, SWITCH_INTERVAL_S
from swarm.actors.membership import MembershipActor
from swarm.actors.raft_member import RaftMember
from swarm.actors.raft_messages import ApplyEntries, AttachStore, GetRaftStatus, InstallSnapshot, Propose, TakeSnapshot
from swarm.actors.raft_messages import SnapshotTaken as Taken
from swarm.actors.raft_start import MemberStart
from swarm.ca import certificates as ca
from swarm.ca.credentials import Credentials
from swarm.ca.identity import Peer, PeerRole
from swarm.model.ids import NodeId, RaftId
from swarm.ports.clock import SystemClock
from swarm.ports.entropy import SystemEntropy
from swarm.ports.sqlite_log_store import SqliteLogStore
from swarm.raft.config import SNAPSHOT_CHUNK_BYTES
from swarm.runtime.actor import Actor, on
from swarm.runtime.local import LocalRef
from swarm.runtime.message import Request
from swarm.runtime.ref import HERE
from swarm.runtime.scope import open_scope
from swarm.runtime.supervise import Restart
from swarm.runtime.turn import Call, Later, Turn
from swarm.wire.codec import declaration, encode_message
from swarm.wire.link import Link
from swarm.wire.links import open_links
from swarm.wire.messages.raft import JoinRaft, Member, Membership
from swarm.wire.registry import MANAGERS, At, wire_message
from swarm.wire.router import open_router
from swarm.wire.websocket import open_net

CLUSTER = "bench"
VALUE_BYTES = 256
IN_FLIGHT = {
    1: ("swarm", "etcd"),
    16: ("swarm", "etcd"),
    256: ("swarm", "etcd", "PySyncObj"),
    4096: ("swarm", "PySyncObj"),
}
"""Who is measured with how many writes under way."""
ROUNDS = 5
SECONDS = 3.0
NUMBER_BYTES = 8
DATA_KEY_BYTES = 32
ASK_S = 30.0
BEHIND = 100_000


@wire_message("bench.put", to="bench", at=At.MANAGER, roles=MANAGERS)
@frozen
class Put(Request[int]):
    """Keep a value; answered with its index when it is applied here."""

    key: bytes
    value: bytes


class Values(Actor):
    """A dictionary behind the log, in the place of the store."""

    mailbox_capacity = 8192

    def __init__(self, raft: LocalRef) -> None:
        self._raft = raft
        self._values: dict[bytes, bytes] = {}
        self._waiting: dict[bytes, Later[int]] = {}
        self._life = os.urandom(NUMBER_BYTES)
        self._count = 0
        self._index = 0

    async def started(self) -> None:
        """Ask for what is committed."""
        await self._raft.tell(AttachStore(self.ref))

    @on(Put)
    def put(self, request: Put, turn: Turn[int]) -> int:
        """Into the log."""
        self._count += 1
        number = self._life + self._count.to_bytes(NUMBER_BYTES, "big")
        self._waiting[number] = later = turn.defer()

        def done(call: Call[int]) -> None:
            if call.error is not None:
                self._waiting.pop(number, None)
                later.fail(call.error)

        propose = Propose(number + request.key + request.value)
        self._raft.deliver(propose, caller=HERE, deadline=turn.deadline, chain=(), on_done=done)
        return 0

    @on(ApplyEntries)
    def apply(self, message: ApplyEntries, turn: Turn[None]) -> None:
        """Keep the values, answer whoever put them here."""
        for entry in message.entries:
            data = entry.data
            self._values[data[16:32]] = data[32:]
            later = self._waiting.pop(data[:16], None)
            if later is not None:
                later.answer(entry.index)
        self._index = message.through

    @on(InstallSnapshot)
    def install(self, message: InstallSnapshot, turn: Turn[None]) -> None:
        """Start over from a snapshot."""
        self._values = msgpack.unpackb(b"".join(message.chunks))
        self._index = message.index

    @on(TakeSnapshot)
    def snapshot(self, request: TakeSnapshot, turn: Turn[Taken]) -> Taken:
        """All values."""
        data = msgpack.packb(self._values)
        size = SNAPSHOT_CHUNK_BYTES
        return Taken(self._index, tuple(data[start : start + size] for start in range(0, len(data), size)))


# --- a member --------------------------------------------------------------------------------------------------------
@attrs.define
class MemberProcess:
    """What a member process is told, and what the parent knows of it."""

    name: str
    credentials: Credentials
    address: str
    directory: str
    data_key: bytes
    join: str = ""
    """Whom it asks to let it in; empty for the first member, and for one that has its log."""
    raft_id: int = 1
    applied: int = 0
    """It reports for duty once it has applied this index."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it; returns at once."""
        told = (self.name, self.credentials, self.address, self.directory, self.data_key, self.join, self.raft_id)
        command = [sys.executable, "-m", "benchmarks.raft", "--member"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(pickle.dumps((*told, self.applied)))
        self.process.stdin.close()

    def wait(self) -> None:
        """Until it is a voter and has applied what it is to."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.raft_id = int(self.process.stdout.readline())

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


async def be_member(
    name: str, own: Credentials, address: str, directory: str, data_key: bytes, join: str, raft_id: int, applied: int
) -> None:
    """The member process: prints its number once it is a voter and up to date, then serves."""
    entropy = SystemEntropy()

    async def no_leader() -> Link:
        raise AssertionError("all are asked directly")

    async with (
        open_net(own) as net,
        open_router(entropy) as router,
        open_links(net, router, clock=SystemClock(), entropy=entropy, node_id=lambda: name) as links,
        net.listen(address) as listener,
        open_scope("bench") as scope,
        trio.open_nursery() as nursery,
    ):
        router.me = Peer(PeerRole.MANAGER, name, CLUSTER)
        router.manage(lambda: True, no_leader)

        async def accept() -> None:
            while True:
                nursery.start_soon(links.accept, await listener.accept())

        nursery.start_soon(accept)
        me = Member(RaftId(raft_id), NodeId(name), address)
        begin = MemberStart(me, found=not join and not applied)
        if join:
            link = await links.to(join, timeout_s=5)
            joined: Membership = await link.ref("membership").ask(JoinRaft(address), timeout_s=ASK_S)
            begin = MemberStart(Member(joined.raft_id, me.node_id, address), members=joined.members)
        disk = SqliteLogStore(Path(directory), data_key, entropy)
        raft = await scope.start("raft", lambda: RaftMember(begin, disk, links, entropy), restart=Restart.NEVER)
        values = await scope.start("bench", lambda: Values(raft))
        members = await scope.start("membership", lambda: MembershipActor(raft, links, entropy))
        for actor, ref in (("raft", raft), ("bench", values), ("membership", members)):
            router.register(actor, ref)
        await _until_ready(raft, begin.me.raft_id, applied)
        gc.collect()
        gc.freeze()
        print(begin.me.raft_id, flush=True)
        await trio.sleep_forever()


async def _until_ready(raft: LocalRef, raft_id: RaftId, applied: int) -> None:
    while True:
        view = await raft.ask(GetRaftStatus(), timeout_s=ASK_S)
        voters = [member.raft_id for member in view.members if not member.learner]
        if view.leader is not None and raft_id in voters and not view.pending_change and view.applied_index >= applied:
            return
        await trio.sleep(0.05)


# --- the parent's side -----------------------------------------------------------------------------------------------
@contextlib.contextmanager
def members(directory: Path) -> Iterator[tuple[list[MemberProcess], Credentials]]:
    """Three member processes, the first leads; and a client's credentials."""
    *issued, client = credentials("m1", "m2", "m3", "client")
    addresses = [f"127.0.0.1:{port}" for port in _etcd.free_ports(len(issued))]
    started: list[MemberProcess] = []
    try:
        for number, (own, address) in enumerate(zip(issued, addresses, strict=True), 1):
            name = f"m{number}"
            key = os.urandom(DATA_KEY_BYTES)
            one = MemberProcess(name, own, address, str(directory / name), key, addresses[0] if number > 1 else "")
            started.append(one)
            one.start()
            one.wait()
        yield started, client
    finally:
        for one in started:
            one.kill()


def write(
    address: str, client: Credentials, in_flight: int, is_over: Callable[[int], bool], keys: int = 1
) -> list[float]:
    """The latencies of writes to so many keys in turn, until `is_over(count)`."""
    messages = [Put(b"key %012d" % key, os.urandom(VALUE_BYTES)) for key in range(keys)]
    declared = declaration(messages[0])
    bodies = [encode_message(declared, message) for message in messages]
    with contextlib.closing(Client(address, client)) as connection:
        return connection.run(declared.tag, bodies, in_flight, is_over)


def until(seconds: float) -> Callable[[int], bool]:
    """Over after so long."""
    end = time.perf_counter() + seconds
    return lambda count: time.perf_counter() >= end


def credentials(*names: str) -> list[Credentials]:
    """Managers of one throw-away cluster."""
    entropy, now = SystemEntropy(), SystemClock().now()
    root_key = ca.new_key(entropy.bytes(ca.KEY_RANDOM_BYTES))
    root = ca.create_root(root_key, entropy.bytes(ca.SERIAL_RANDOM_BYTES), now)
    authority = ca.Authority(root, root_key)

    def issue(name: str) -> Credentials:
        key = ca.new_key(entropy.bytes(ca.KEY_RANDOM_BYTES))
        certificate = authority.issue(
            ca.make_request(key),
            node_id=name,
            cluster_id=CLUSTER,
            role=PeerRole.MANAGER,
            expiry_s=3600.0,
            serial=entropy.bytes(ca.SERIAL_RANDOM_BYTES),
            now=now,
        )
        return Credentials(certificate, key, root)

    return [issue(name) for name in names]


# --- the comparison --------------------------------------------------------------------------------------------------
Run = Callable[[int, float], list[float]]


def compare(contestants: dict[str, Run], seconds: float) -> None:
    """Rounds in turn; each system's median round."""
    for in_flight, names in IN_FLIGHT.items():
        rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names if name in contestants}
        for number in range(ROUNDS + 1):
            for name in rounds:
                latencies = sorted(contestants[name](in_flight, seconds if number else 1.0))
                if number:  # the first round warms up
                    p50, p99 = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
                    rounds[name].append((len(latencies) / seconds, p50 * 1e3, p99 * 1e3))
        medians = {name: sorted(found)[len(found) // 2] for name, found in rounds.items()}
        for name, (rate, p50, p99) in medians.items():
            print(f"{in_flight:>4} in flight  {name:9} {rate:>9,.0f} writes/s  p50 {p50:>7.2f} ms  p99 {p99:>7.2f} ms")
        ours = medians.pop("swarm")
        for name, theirs in medians.items():
            rate, p50 = ours[0] / theirs[0], ours[1] / theirs[1]
            print(f"{'':14} of {name:9} {rate:>6.2f}           p50 {p50:>7.2f}", flush=True)


def behind(directory: Path) -> None:
    """A member is killed, misses `BEHIND` writes to as many keys, and comes back while the writes go on.

    Where all share the cores, two members do more than three, catching up or not: both shares are told.
    """
    with members(directory) as (started, client):
        leader, late = started[0].address, started[2]

        def rate(is_over: Callable[[int], bool]) -> float:
            began = time.perf_counter()
            latencies = write(leader, client, 256, is_over, BEHIND)
            return len(latencies) / (time.perf_counter() - began)

        rate(until(2.0))
        three = rate(until(5.0))
        print(f"all three              {three:>9,.0f} writes/s")
        late.kill()
        print(f"one is away            {rate(lambda count: count >= BEHIND):>9,.0f} writes/s, for {BEHIND:,} writes")
        before = rate(until(5.0))
        late.join, late.applied = "", BEHIND
        late.start()
        back = threading.Event()
        waiter = threading.Thread(target=lambda: (late.wait(), back.set()))
        waiter.start()
        began = time.perf_counter()
        during = rate(lambda count: back.is_set())
        waiter.join()
        took = time.perf_counter() - began
        shares = f"{during / three:.2f} of what three do, {during / before:.2f} of the {before:,.0f} of two"
        print(f"it catches up          {during:>9,.0f} writes/s, for {took:.1f} s: {shares}")
        print(f"all three again        {rate(until(5.0)):>9,.0f} writes/s")


def main() -> None:
    """Start all systems and measure."""
    if sys.argv[1:] == ["--member"]:
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        with contextlib.suppress(KeyboardInterrupt):
            trio.run(be_member, *pickle.load(sys.stdin.buffer))
        return
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if sys.argv[1:] == ["behind"]:
            behind(directory)
            return
        seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
        started, client = stack.enter_context(members(directory))

        def ours(in_flight: int, for_s: float) -> list[float]:
            return write(started[0].address, client, in_flight, until(for_s))

        contestants: dict[str, Run] = {"swarm": ours}
        if _etcd.is_here():
            (directory / "etcd").mkdir()
            etcd = stack.enter_context(_etcd.cluster(directory / "etcd"))
            puts = stack.enter_context(contextlib.closing(_etcd.Client(etcd)))
            value = os.urandom(VALUE_BYTES)
            contestants["etcd"] = lambda in_flight, for_s: puts.run(b"key %012d" % 0, value, in_flight, for_s)
        else:
            print("etcd is not installed (Debian: etcd-server, etcd-client): left out", file=sys.stderr)
        if _pysyncobj.is_here():
            contestants["PySyncObj"] = stack.enter_context(_pysyncobj.cluster(directory, os.urandom(VALUE_BYTES))).run
        else:
            print("PySyncObj is not installed (the extra `bench`): left out", file=sys.stderr)
        compare(contestants, seconds)


if __name__ == "__main__":
    main()
