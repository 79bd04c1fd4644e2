"""Joining, renewing and a session over real TLS on loopback: the parts as they are shipped, with real certificates."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from attrs import define, evolve

from swarm.actors.bootstrap import Made, NodeSettings, join, new_cluster, renew_expired
from swarm.actors.ca import CertificateAuthority
from swarm.actors.dispatcher import Dispatcher
from swarm.actors.listener import GetBoundAddress, Listener
from swarm.ca.certificates import KEY_RANDOM_BYTES, SERIAL_RANDOM_BYTES, create_root, new_key, peer_of
from swarm.ca.credentials import Credentials
from swarm.ca.identity import PeerRole
from swarm.ca.tokens import SECRET_RANDOM_BYTES, new_token
from swarm.model.changes import Create
from swarm.model.ids import Instant, Version
from swarm.model.objects import Cluster, JoinTokens
from swarm.model.specs import ClusterSettings, NodeDescription
from swarm.model.states import NodeState, Role
from swarm.model.store import Store
from swarm.ports.clock import SystemClock
from swarm.ports.entropy import SystemEntropy
from swarm.ports.state_dir import StateDir
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.scope import open_scope
from swarm.testing.local_store import LocalStoreActor
from swarm.testing.memory_files import MemoryFiles
from swarm.wire.link import Link
from swarm.wire.links import Links, open_links
from swarm.wire.messages.dispatcher import Heartbeat, OpenSession, SessionChanged, SessionOpened
from swarm.wire.router import open_router
from swarm.wire.websocket import WebsocketNet, open_net

pytestmark = pytest.mark.integration
ENTROPY, CLOCK = SystemEntropy(), SystemClock()


@define
class ShiftedClock:
    """The machine's clock, moved."""

    by_s: float = 0.0

    def now(self) -> Instant:
        return Instant(time.time() + self.by_s)

    def monotonic(self) -> float:
        return trio.current_time()


@define
class Dialler:
    net: WebsocketNet
    links: Links

    def trust(self, root_pem: bytes) -> None:
        self.net.set_credentials(Credentials(b"", b"", root_pem) if root_pem else None)

    async def dial(self, address: str, *, timeout_s: float) -> Link:
        return await self.links.dial(address, anonymous=True, timeout_s=timeout_s)


@define
class Manager:
    address: str
    store: Store
    cluster: Cluster
    clock: ShiftedClock


@asynccontextmanager
async def manager(expiry_s: float = 90 * 86400.0) -> AsyncIterator[Manager]:
    """A leader with a store, an authority, a dispatcher and a wire port."""
    clock, state, store = ShiftedClock(), StateDir(MemoryFiles()), Store()
    made = new_cluster(state, NodeSettings(), clock=ShiftedClock(-4 * 3600.0), entropy=ENTROPY)
    founding = state.founding()
    assert founding is not None
    root = founding.root_certificate
    tokens = JoinTokens(*(new_token(root, ENTROPY.bytes(SECRET_RANDOM_BYTES)) for _ in range(2)))
    settings = ClusterSettings(certificate_expiry_s=expiry_s)
    cluster = Cluster(made.node.cluster_id, settings, root, founding.root_key, tokens)
    store.apply([(Create(cluster),)], Version(1))
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(open_net(made.credentials))
        router = await stack.enter_async_context(open_router(ENTROPY))
        router.me = peer_of(made.credentials.certificate_pem)
        router.manage(lambda: True, _no_other_leader)
        links = await stack.enter_async_context(open_links(net, router, clock=CLOCK, entropy=ENTROPY))
        scope = await stack.enter_async_context(open_scope("manager"))
        store_ref = await scope.start("store", lambda: LocalStoreActor(store))
        router.register("ca", await scope.start("ca", lambda: CertificateAuthority(store_ref, clock, ENTROPY)))
        router.register(
            "dispatcher", await scope.start("dispatcher", lambda: Dispatcher(store_ref, CLOCK, ENTROPY, None))
        )
        listener = await scope.start("listener", lambda: Listener(net, "127.0.0.1:0", links))
        yield Manager(await listener.ask(GetBoundAddress(), timeout_s=5), store, cluster, clock)


async def _no_other_leader() -> Link:
    raise SwarmError(ErrorCode.UNAVAILABLE, "there is one manager")


@asynccontextmanager
async def machine() -> AsyncIterator[Dialler]:
    async with (
        open_net() as net,
        open_router(ENTROPY) as router,
        open_links(net, router, clock=CLOCK, entropy=ENTROPY) as links,
    ):
        yield Dialler(net, links)


async def do_join(here: Manager, dialler: Dialler, state: StateDir, token: str) -> Made:
    return await join(state, here.address, token, NodeSettings(), dialler=dialler, clock=CLOCK, entropy=ENTROPY)


@pytest.mark.parametrize("role", list(Role))
async def test_a_machine_joins_and_opens_a_session(role: Role) -> None:
    async with manager() as here, machine() as dialler:
        token = here.cluster.tokens.manager if role is Role.MANAGER else here.cluster.tokens.worker
        made = await do_join(here, dialler, StateDir(MemoryFiles()), token)
        assert made.node.role is role
        dialler.net.set_credentials(made.credentials)
        link = await dialler.links.dial(here.address, timeout_s=5)
        dispatcher = link.ref("dispatcher")
        async with dispatcher.stream(OpenSession(NodeDescription(hostname="h"))) as inlet:
            opened = await inlet.receive()
            assert isinstance(opened, SessionOpened)
            news = await inlet.receive()
            assert isinstance(news, SessionChanged) and news.node.id == made.node.node_id
            await dispatcher.ask(Heartbeat(opened.session_id), timeout_s=5)
            node = here.store.node(made.node.node_id)
            assert node is not None
            assert (node.status.state, node.status.address) == (NodeState.READY, "127.0.0.1")
        with trio.fail_after(5):
            while True:
                node = here.store.node(made.node.node_id)
                assert node is not None
                if node.status.state is NodeState.DISCONNECTED:
                    break
                await trio.sleep(0.01)


async def test_a_token_of_another_cluster_is_refused_before_it_is_shown() -> None:
    other = create_root(new_key(b"o" * KEY_RANDOM_BYTES), bytes(SERIAL_RANDOM_BYTES), time.time())
    async with manager() as here, machine() as dialler:
        with pytest.raises(SwarmError, match="not of the cluster that answered"):
            await do_join(here, dialler, StateDir(MemoryFiles()), new_token(other, b"x" * SECRET_RANDOM_BYTES))


async def test_nothing_there_says_so() -> None:
    async with manager() as here, machine() as dialler:
        nobody = evolve(here, address="127.0.0.1:1")
        with pytest.raises(SwarmError, match="connection refused") as caught:
            await do_join(nobody, dialler, StateDir(MemoryFiles()), here.cluster.tokens.worker)
        assert caught.value.code is ErrorCode.UNAVAILABLE


async def test_a_certificate_that_really_has_expired_is_renewed() -> None:
    """Issued by an authority whose clock is three hours behind, for an hour: OpenSSL takes it for expired."""
    async with manager(expiry_s=3600.0) as here, machine() as dialler:
        here.clock.by_s = -3 * 3600.0
        state = StateDir(MemoryFiles())
        behind = ShiftedClock(-3 * 3600.0)
        made = await join(
            state, here.address, here.cluster.tokens.worker, NodeSettings(), dialler=dialler, clock=behind,
            entropy=ENTROPY,
        )  # fmt: skip
        here.clock.by_s = 0.0
        assert peer_of(made.credentials.certificate_pem).expires_at < time.time()
        fresh = await renew_expired(state, (here.address,), dialler=dialler, clock=CLOCK)
        peer = peer_of(fresh.certificate_pem)
        assert peer.node_id == made.node.node_id and peer.role is PeerRole.WORKER and peer.expires_at > time.time()
        dialler.net.set_credentials(fresh)
        link = await dialler.links.dial(here.address, timeout_s=5)
        async with link.ref("dispatcher").stream(OpenSession(NodeDescription())) as inlet:
            assert isinstance(await inlet.receive(), SessionOpened)
