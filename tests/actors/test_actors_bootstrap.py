"""Founding and joining: what lies on disk, what is said to whom, and every failure's words."""

from __future__ import annotations

import pytest
import trio
from attrs import define, evolve, field

from swarm.actors import bootstrap
from swarm.actors.bootstrap import NodeSettings, certificate_problem, join, new_cluster, renew_expired
from swarm.actors.ca import CertificateAuthority
from swarm.ca import certificates as pki
from swarm.ca.identity import Peer, PeerRole
from swarm.ca.tokens import SECRET_RANDOM_BYTES, new_token
from swarm.model.changes import Create
from swarm.model.ids import Instant, Version
from swarm.model.objects import Cluster, JoinTokens
from swarm.model.states import Role
from swarm.model.store import Store
from swarm.ports.entropy import SystemEntropy
from swarm.ports.net import DialError
from swarm.ports.state_dir import StateDir
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.local import LocalRef
from swarm.runtime.scope import Scope, open_scope
from swarm.testing.local_store import LocalStoreActor, RefuseProposals
from swarm.testing.memory_files import MemoryFiles

NOW = 1.8e9
ADDRESS = "10.0.0.1:4242"
ENTROPY = SystemEntropy()


@define
class SetClock:
    at: float = NOW

    def now(self) -> Instant:
        return Instant(self.at)

    def monotonic(self) -> float:
        return trio.current_time()


@define
class FakeLink:
    peer: Peer
    ca: LocalRef
    closed: bool = False

    def ref(self, to: str) -> LocalRef:
        assert to == "ca"
        return self.ca

    def close(self, reason: str) -> None:
        self.closed = True


@define
class FakeDialler:
    """A network with one manager; records with which roots each connection was made."""

    ca: LocalRef
    peer: Peer
    root: bytes
    trusted: bytes | None = None
    dials: list[bytes] = field(factory=list)
    unreachable: bool = False

    def trust(self, root_pem: bytes) -> None:
        self.trusted = root_pem

    async def dial(self, address: str, *, timeout_s: float) -> FakeLink:
        await trio.sleep(0.01)
        if self.unreachable:
            raise DialError(f"cannot connect to {address}: connection refused; is swarm running there?")
        assert self.trusted is not None
        if self.trusted and self.trusted != self.root:
            raise DialError(f"cannot connect to {address}: its certificate is not of this node's cluster")
        self.dials.append(self.trusted)
        return FakeLink(self.peer, self.ca)


@define
class World:
    scope: Scope
    store: Store
    store_ref: LocalRef
    dialler: FakeDialler
    cluster: Cluster
    clock: SetClock
    files: MemoryFiles = field(factory=MemoryFiles)

    @property
    def state(self) -> StateDir:
        return StateDir(self.files)


async def make_world(scope: Scope) -> World:
    clock, store = SetClock(), Store()
    founder = StateDir(MemoryFiles())
    made = new_cluster(founder, NodeSettings(), clock=clock, entropy=ENTROPY)
    founding = founder.founding()
    assert founding is not None
    root = founding.root_certificate
    tokens = JoinTokens(new_token(root, b"w" * SECRET_RANDOM_BYTES), new_token(root, b"m" * SECRET_RANDOM_BYTES))
    cluster = Cluster(made.node.cluster_id, root_certificate=root, root_key=founding.root_key, tokens=tokens)
    store.apply([(Create(cluster),)], Version(1))
    store_ref = await scope.start("store", lambda: LocalStoreActor(store))
    ca = await scope.start("ca", lambda: CertificateAuthority(store_ref, clock, ENTROPY))
    peer = pki.peer_of(made.credentials.certificate_pem)
    return World(scope, store, store_ref, FakeDialler(ca, peer, root), cluster, clock)


async def try_join(world: World, token: str, **settings: object) -> bootstrap.Made:
    return await join(
        world.state, ADDRESS, token, NodeSettings(**settings), dialler=world.dialler, clock=world.clock, entropy=ENTROPY
    )


def test_a_new_cluster_is_one_manager_that_can_prove_itself() -> None:
    files = MemoryFiles()
    made = new_cluster(
        StateDir(files), NodeSettings("h", "0.0.0.0:1", labels={"a": "b"}), clock=SetClock(), entropy=ENTROPY
    )
    again = StateDir(files)
    assert again.require_node() == made.node
    assert again.require_credentials() == made.credentials
    peer = pki.verify_chain(made.credentials.certificate_pem, made.credentials.root_pem, NOW)
    assert (peer.role, peer.node_id, peer.cluster_id) == (PeerRole.MANAGER, made.node.node_id, made.node.cluster_id)
    founding = again.founding()
    assert founding is not None and founding.labels == {"a": "b"}
    pki.Authority(founding.root_certificate, founding.root_key)
    again.founded()
    assert again.founding() is None
    with pytest.raises(SwarmError, match="already belongs"):
        new_cluster(again, NodeSettings(), clock=SetClock(), entropy=ENTROPY)


@pytest.mark.parametrize("role", list(Role))
async def test_joining_leaves_a_node_that_can_start(role: Role, autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("m") as scope:
        world = await make_world(scope)
        token = world.cluster.tokens.manager if role is Role.MANAGER else world.cluster.tokens.worker
        made = await try_join(world, token, hostname="h", labels={"zone": "a"})
        assert made.node.role is role and made.node.managers == (ADDRESS,)
        assert world.state.require_node() == made.node
        assert world.state.require_credentials() == made.credentials
        assert "pki/join.json" not in world.files.content
        stored = world.store.node(made.node.node_id)
        assert stored is not None and stored.spec.labels == {"zone": "a"} and stored.role is role


async def test_the_token_is_only_shown_to_a_server_that_proved_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("m") as scope:
        world = await make_world(scope)
        await try_join(world, world.cluster.tokens.worker)
        assert world.dialler.dials == [b"", world.dialler.root]


async def test_a_man_in_the_middle_with_a_root_of_his_own_never_sees_the_token(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scope("m") as scope:
        world = await make_world(scope)
        foreign = pki.create_root(pki.new_key(b"f" * 40), bytes(pki.SERIAL_RANDOM_BYTES), NOW)
        with pytest.raises(SwarmError, match="not of the cluster that answered") as caught:
            await try_join(world, new_token(foreign, b"w" * SECRET_RANDOM_BYTES))
        assert caught.value.code is ErrorCode.DENIED and ADDRESS in caught.value.text
        assert world.dialler.dials == [b""]
        assert world.state.node() is None


async def test_a_worker_of_the_cluster_that_answers_is_no_manager(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("m") as scope:
        world = await make_world(scope)
        for peer in (evolve(world.dialler.peer, role=PeerRole.WORKER), evolve(world.dialler.peer, cluster_id="x")):
            world.dialler.peer = peer
            with pytest.raises(SwarmError, match="not a manager of this cluster"):
                await try_join(world, world.cluster.tokens.worker)


async def test_failures_say_what_to_do_and_change_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("m") as scope:
        world = await make_world(scope)
        with pytest.raises(SwarmError, match="truncated") as caught:
            await try_join(world, world.cluster.tokens.worker[:-4])
        assert caught.value.code is ErrorCode.INVALID and not world.dialler.dials
        rotated = new_token(world.dialler.root, b"z" * SECRET_RANDOM_BYTES)
        with pytest.raises(SwarmError, match="rotated") as caught:
            await try_join(world, rotated)
        assert caught.value.code is ErrorCode.DENIED
        world.dialler.unreachable = True
        with pytest.raises(SwarmError, match="connection refused") as caught:
            await try_join(world, world.cluster.tokens.worker)
        assert caught.value.code is ErrorCode.UNAVAILABLE
        assert world.state.node() is None and world.state.credentials() is None
        assert not world.store.nodes()


async def test_a_join_waits_out_an_election_and_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("m") as scope:
        world = await make_world(scope)
        await world.store_ref.ask(RefuseProposals(SwarmError(ErrorCode.NOT_LEADER, "no leader now")), timeout_s=1)
        said: list[str] = []

        async def elect() -> None:
            await trio.sleep(10)
            await world.store_ref.ask(RefuseProposals(None), timeout_s=1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(elect)
            made = await join(
                world.state, ADDRESS, world.cluster.tokens.worker, NodeSettings(), dialler=world.dialler,
                clock=world.clock, entropy=ENTROPY, progress=said.append,
            )  # fmt: skip
        assert made.node.role is Role.WORKER
        assert any("waiting for the cluster" in text and "no leader now" in text for text in said)


async def test_a_join_without_a_leader_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("m") as scope:
        world = await make_world(scope)
        await world.store_ref.ask(RefuseProposals(SwarmError(ErrorCode.UNAVAILABLE, "no quorum")), timeout_s=1)
        with pytest.raises(SwarmError, match="no quorum"):
            await try_join(world, world.cluster.tokens.worker)
        assert trio.current_time() >= bootstrap.RETRY_FOR_S


@pytest.mark.parametrize("file", ["pki/roots.pem", "pki/node.pem", "node.json", "pki/join.json"])
async def test_a_join_that_crashed_makes_no_second_node(file: str, autojump_clock: trio.testing.MockClock) -> None:
    """Killed before each write that follows the answer, then called again."""

    class Crash(Exception):
        pass

    class Torn(MemoryFiles):
        def write(self, name: str, data: bytes, *, mode: int = 0o600) -> None:
            if name == file and name != "pki/join.json":
                raise Crash
            super().write(name, data, mode=mode)

        def remove(self, name: str) -> None:
            if name == file:
                raise Crash
            super().remove(name)

    async with open_scope("m") as scope:
        world = await make_world(scope)
        torn = Torn()
        world.files = torn
        with pytest.raises(Crash):
            await try_join(world, world.cluster.tokens.worker)
        world.files = MemoryFiles(content=torn.content)
        if file == "pki/join.json":
            assert world.state.require_node().node_id
        else:
            made = await try_join(world, world.cluster.tokens.worker)
            assert world.state.require_node() == made.node
        assert len(world.store.nodes()) == 1


async def test_a_clock_that_is_wrong_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("m") as scope:
        world = await make_world(scope)
        behind = SetClock(NOW - 86400)
        with pytest.raises(SwarmError, match="clock"):
            await join(
                world.state, ADDRESS, world.cluster.tokens.worker, NodeSettings(), dialler=world.dialler,
                clock=behind, entropy=ENTROPY,
            )  # fmt: skip
        assert world.state.credentials() is None


async def test_a_machine_that_was_off_for_months_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("m") as scope:
        world = await make_world(scope)
        made = await try_join(world, world.cluster.tokens.worker)
        assert certificate_problem(made.credentials, world.clock) is None
        world.clock.at = NOW + 200 * 86400
        assert certificate_problem(made.credentials, world.clock) is not None
        fresh = await renew_expired(world.state, (ADDRESS,), dialler=world.dialler, clock=world.clock)
        assert certificate_problem(fresh, world.clock) is None
        assert world.state.require_credentials() == fresh and fresh.key_pem == made.credentials.key_pem
        world.dialler.unreachable = True
        with pytest.raises(SwarmError, match=r"no manager renews it.*connection refused"):
            await renew_expired(world.state, (ADDRESS,), dialler=world.dialler, clock=world.clock)
        with pytest.raises(SwarmError, match="no manager's address is known"):
            await renew_expired(world.state, (), dialler=world.dialler, clock=world.clock)
