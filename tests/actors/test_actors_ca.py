"""The authority: who is let in as what, what is recorded, and every refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import define, evolve

from swarm.actors.ca import CertificateAuthority
from swarm.ca import certificates as pki
from swarm.ca.identity import PeerRole
from swarm.ca.renewal import EXPIRED_GRACE_S
from swarm.ca.tokens import SECRET_RANDOM_BYTES, new_token
from swarm.model.changes import Create, Delete, Kind, Update
from swarm.model.ids import ClusterId, Instant, NodeId, Version
from swarm.model.objects import Cluster, JoinTokens, Node
from swarm.model.specs import ClusterSettings, NodeSpec
from swarm.model.states import Membership, Role
from swarm.model.store import Store
from swarm.ports.entropy import SystemEntropy
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.local import LocalRef
from swarm.runtime.ref import Caller
from swarm.runtime.scope import open_scope
from swarm.testing.local_store import HoldProposals, LocalStoreActor, RefuseProposals
from swarm.wire.messages.ca import GetRootCertificate, JoinWithToken, RenewCertificate, RenewExpired

NOW = 1.8e9
ROOT_KEY = pki.new_key(b"r" * pki.KEY_RANDOM_BYTES)
ROOT = pki.create_root(ROOT_KEY, bytes(pki.SERIAL_RANDOM_BYTES), NOW)
OTHER_ROOT = pki.create_root(pki.new_key(b"o" * pki.KEY_RANDOM_BYTES), bytes(pki.SERIAL_RANDOM_BYTES), NOW)
WORKER, MANAGER, OLD = (new_token(ROOT, bytes([n]) * SECRET_RANDOM_BYTES) for n in (1, 2, 3))
CLUSTER = Cluster(
    ClusterId("c"), ClusterSettings(certificate_expiry_s=86400.0), ROOT, ROOT_KEY, JoinTokens(WORKER, MANAGER)
)
NONCE = "n" * 32


@define
class SetClock:
    at: float = NOW

    def now(self) -> Instant:
        return Instant(self.at)

    def monotonic(self) -> float:
        return trio.current_time()


def key(number: int) -> bytes:
    return pki.new_key(bytes([number]) * pki.KEY_RANDOM_BYTES)


def joining(
    token: str = WORKER, *, nonce: str = NONCE, number: int = 5, labels: dict[str, str] | None = None
) -> JoinWithToken:
    return JoinWithToken(token, pki.make_request(key(number)), nonce, labels or {})


def caller(node_id: str, role: PeerRole = PeerRole.WORKER) -> Caller:
    return Caller(node_id, role.value, "c")


@define
class Place:
    ca: LocalRef
    store_ref: LocalRef
    store: Store
    clock: SetClock

    def change(self, *changes: Create | Update | Delete) -> None:
        results, _ = self.store.apply([changes], Version(self.store.version + 1))
        assert results == [None]


@asynccontextmanager
async def place(cluster: Cluster | None = CLUSTER) -> AsyncIterator[Place]:
    store, clock = Store(), SetClock()
    async with open_scope("manager") as scope:
        store_ref = await scope.start("store", lambda: LocalStoreActor(store))
        ca = await scope.start("ca", lambda: CertificateAuthority(store_ref, clock, SystemEntropy()))
        here = Place(ca, store_ref, store, clock)
        if cluster is not None:
            here.change(Create(cluster))
        yield here


async def test_the_roots_are_public(autojump_clock: trio.testing.MockClock) -> None:
    async with place() as here:
        reply = await here.ca.ask(GetRootCertificate(), timeout_s=5)
        assert (reply.pem, reply.cluster_id) == (ROOT, "c")


@pytest.mark.parametrize(("token", "role"), [(WORKER, Role.WORKER), (MANAGER, Role.MANAGER)])
async def test_a_token_makes_a_node_with_its_role(
    token: str, role: Role, autojump_clock: trio.testing.MockClock
) -> None:
    async with place() as here:
        issued = await here.ca.ask(joining(token, labels={"zone": "a"}), timeout_s=5)
        peer = pki.verify_chain(issued.pem, issued.root_pem, NOW)
        assert (peer.node_id, peer.cluster_id, peer.role.value) == (issued.node_id, "c", role.name.lower())
        pki.check_pair(issued.pem, key(5))
        node = here.store.node(issued.node_id)
        assert node is not None
        assert (node.role, node.spec.desired_role, node.spec.membership) == (role, role, Membership.ACCEPTED)
        assert (node.spec.labels, node.description.hostname) == ({"zone": "a"}, "")
        assert node.certificate_serial == pki.serial_of(issued.pem)
        assert node.certificate_expires_at == peer.expires_at == pytest.approx(NOW + 86400, abs=60)


async def test_a_join_that_is_repeated_makes_no_second_node(autojump_clock: trio.testing.MockClock) -> None:
    async with place() as here:
        first = await here.ca.ask(joining(), timeout_s=5)
        again = await here.ca.ask(joining(), timeout_s=5)
        assert first.node_id == again.node_id
        assert len(here.store.nodes()) == 1
        other = await here.ca.ask(joining(number=6), timeout_s=5)
        another = await here.ca.ask(joining(nonce="m" * 32), timeout_s=5)
        assert len({first.node_id, other.node_id, another.node_id}) == 3


async def test_two_equal_joins_at_once_are_one_node(autojump_clock: trio.testing.MockClock) -> None:
    async with place() as here:
        found: list[NodeId] = []

        async def join() -> None:
            found.append((await here.ca.ask(joining(), timeout_s=5)).node_id)

        await here.store_ref.ask(HoldProposals(True), timeout_s=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            nursery.start_soon(join)
            await trio.sleep(1)
            await here.store_ref.ask(HoldProposals(False), timeout_s=1)
        assert found[0] == found[1] and len(here.store.nodes()) == 1


@pytest.mark.parametrize(
    ("token", "code", "says"),
    [
        ("nonsense", ErrorCode.INVALID, "swarm token worker"),
        (WORKER[:-3], ErrorCode.INVALID, "3 characters are missing"),
        (OLD, ErrorCode.DENIED, "rotated.*swarm token worker"),
        (new_token(OTHER_ROOT, b"x" * SECRET_RANDOM_BYTES), ErrorCode.DENIED, "not of the cluster that answered"),
    ],
)
async def test_wrong_tokens_are_refused_with_a_way_out(
    token: str, code: ErrorCode, says: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with place() as here:
        with pytest.raises(SwarmError, match=says) as caught:
            await here.ca.ask(joining(token), timeout_s=5)
        assert caught.value.code is code
        assert token[-25:] not in caught.value.text or token == "nonsense"
        assert not here.store.nodes()


async def test_requests_out_of_shape_are_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with place() as here:
        for bad in (
            joining(nonce="short"),
            joining(nonce="x" * 1000),
            joining(labels={"a": "b" * 1000}),
            joining(labels={str(n): "" for n in range(100)}),
            JoinWithToken(WORKER, b"junk", NONCE, {}),
        ):
            with pytest.raises(SwarmError) as caught:
                await here.ca.ask(bad, timeout_s=5)
            assert caught.value.code is ErrorCode.INVALID


async def test_before_the_first_leader_made_the_cluster(autojump_clock: trio.testing.MockClock) -> None:
    async with place(None) as here:
        with pytest.raises(SwarmError, match="try again"):
            await here.ca.ask(GetRootCertificate(), timeout_s=5)


async def test_a_removed_node_neither_joins_nor_renews(autojump_clock: trio.testing.MockClock) -> None:
    async with place() as here:
        issued = await here.ca.ask(joining(), timeout_s=5)
        cluster = here.store.cluster
        assert cluster is not None
        here.change(
            Delete(Kind.NODE, issued.node_id), Update(evolve(cluster, removed_nodes={issued.node_id: NOW + 86400}))
        )
        for request in (
            joining(),
            RenewCertificate(pki.make_request(key(5))),
            RenewExpired(issued.pem, pki.make_request(key(5))),
        ):
            with pytest.raises(SwarmError, match="erase its state directory") as caught:
                await here.ca.ask(request, timeout_s=5, caller=caller(issued.node_id))
            assert caught.value.code is ErrorCode.DENIED


async def test_a_renewal_gives_the_observed_role_and_is_recorded(autojump_clock: trio.testing.MockClock) -> None:
    async with place() as here:
        issued = await here.ca.ask(joining(), timeout_s=5)
        node = here.store.node(issued.node_id)
        assert node is not None
        here.change(Update(evolve(node, spec=evolve(node.spec, desired_role=Role.MANAGER))))
        request = RenewCertificate(pki.make_request(key(6)))
        renewed = await here.ca.ask(request, timeout_s=5, caller=caller(node.id))
        assert pki.peer_of(renewed.pem).role is PeerRole.WORKER, "desired is not observed"
        node = here.store.node(issued.node_id)
        assert node is not None
        here.change(Update(evolve(node, role=Role.MANAGER)))
        renewed = await here.ca.ask(request, timeout_s=5, caller=caller(node.id))
        assert pki.peer_of(renewed.pem).role is PeerRole.MANAGER
        after = here.store.node(issued.node_id)
        assert after is not None and after.certificate_serial == pki.serial_of(renewed.pem) != node.certificate_serial


async def test_a_node_that_was_not_accepted_gets_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with place() as here:
        here.change(Create(Node(NodeId("p"), NodeSpec(membership=Membership.PENDING))))
        with pytest.raises(SwarmError, match="not accepted"):
            await here.ca.ask(RenewCertificate(pki.make_request(key(6))), timeout_s=5, caller=caller("p"))


async def test_a_renewal_survives_changes_of_the_node_in_between(autojump_clock: trio.testing.MockClock) -> None:
    async with place() as here:
        issued = await here.ca.ask(joining(), timeout_s=5)
        await here.store_ref.ask(HoldProposals(True), timeout_s=1)
        async with trio.open_nursery() as nursery:

            async def renew() -> None:
                await here.ca.ask(
                    RenewCertificate(pki.make_request(key(6))), timeout_s=5, caller=caller(issued.node_id)
                )

            nursery.start_soon(renew)
            await trio.sleep(1)
            node = here.store.node(issued.node_id)
            assert node is not None
            here.change(Update(evolve(node, spec=evolve(node.spec, labels={"new": "1"}))))
            await here.store_ref.ask(HoldProposals(False), timeout_s=1)
        after = here.store.node(issued.node_id)
        assert after is not None and after.spec.labels == {"new": "1"}


async def test_an_expired_certificate_is_renewed_with_its_own_key_within_the_grace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with place() as here:
        issued = await here.ca.ask(joining(), timeout_s=5)
        here.clock.at = NOW + 90 * 86400
        renewed = await here.ca.ask(RenewExpired(issued.pem, pki.make_request(key(5))), timeout_s=5)
        assert pki.verify_chain(renewed.pem, ROOT, here.clock.at).node_id == issued.node_id
        with pytest.raises(SwarmError, match="its own key only"):
            await here.ca.ask(RenewExpired(issued.pem, pki.make_request(key(6))), timeout_s=5)
        here.clock.at = NOW + 86400 + EXPIRED_GRACE_S + 120
        with pytest.raises(SwarmError, match=r"expired.*join it again"):
            await here.ca.ask(RenewExpired(issued.pem, pki.make_request(key(5))), timeout_s=5)


@pytest.mark.parametrize(
    ("cluster_id", "root", "says"), [("c", OTHER_ROOT, "another cluster"), ("d", ROOT, "another cluster .d.")]
)
async def test_a_foreign_certificate_is_not_renewed(
    cluster_id: str, root: bytes, says: str, autojump_clock: trio.testing.MockClock
) -> None:
    root_key = ROOT_KEY if root is ROOT else pki.new_key(b"o" * pki.KEY_RANDOM_BYTES)
    foreign = pki.Authority(root, root_key).issue(
        pki.make_request(key(5)), node_id="x", cluster_id=cluster_id, role=PeerRole.MANAGER, expiry_s=86400,
        serial=bytes(pki.SERIAL_RANDOM_BYTES), now=NOW,
    )  # fmt: skip
    async with place() as here:
        with pytest.raises(SwarmError, match=says):
            await here.ca.ask(RenewExpired(foreign, pki.make_request(key(5))), timeout_s=5)


async def test_only_a_leader_issues(autojump_clock: trio.testing.MockClock) -> None:
    async with place() as here:
        await here.store_ref.ask(RefuseProposals(SwarmError(ErrorCode.NOT_LEADER, "another leads")), timeout_s=1)
        with pytest.raises(SwarmError) as caught:
            await here.ca.ask(joining(), timeout_s=5)
        assert caught.value.code is ErrorCode.NOT_LEADER
        assert (await here.ca.ask(GetRootCertificate(), timeout_s=5)).pem == ROOT
