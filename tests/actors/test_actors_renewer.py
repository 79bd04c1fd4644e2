"""The renewer: in time, at once on a changed role, with pauses after failures, and never something foreign."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from attrs import define, field

from swarm.actors.renewer import CredentialsChanged, GetRenewal, Renewer, RenewNow, TrustRoots
from swarm.ca import certificates as pki
from swarm.ca.credentials import Credentials
from swarm.ca.identity import PeerRole
from swarm.model.ids import ClusterId, Instant, NodeId
from swarm.model.states import Role
from swarm.ports.entropy import SystemEntropy
from swarm.ports.state_dir import NodeFile, StateDir
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.scope import Scope, open_scope
from swarm.runtime.turn import Turn
from swarm.testing.memory_files import MemoryFiles
from swarm.wire.messages.ca import IssuedCertificate, RenewCertificate, RenewExpired

START = 1.8e9
DAY = 86400.0
SERIAL = bytes(pki.SERIAL_RANDOM_BYTES)
ROOT_KEY = pki.new_key(b"r" * pki.KEY_RANDOM_BYTES)
ROOT = pki.create_root(ROOT_KEY, SERIAL, START)
NEXT_KEY = pki.new_key(b"s" * pki.KEY_RANDOM_BYTES)
NEXT_ROOT = pki.create_root(NEXT_KEY, SERIAL, START)


class TrioClock:
    """Wall time that goes with the virtual clock."""

    def now(self) -> Instant:
        return Instant(START + trio.current_time())

    def monotonic(self) -> float:
        return trio.current_time()


class NodeActor(Actor):
    def __init__(self, told: list[CredentialsChanged]) -> None:
        self.told = told

    @on(CredentialsChanged)
    def changed(self, message: CredentialsChanged, _turn: Turn[None]) -> None:
        self.told.append(message)


@define
class Authority:
    """What managers would do; `fail` decides for each attempt."""

    role: PeerRole = PeerRole.WORKER
    node_id: str = "n"
    asked: list[tuple[float, bool]] = field(factory=list)
    fail: Callable[[int], SwarmError | None] = lambda attempt: None
    key_of: bytes = ROOT_KEY
    root: bytes = ROOT

    async def __call__(self, request: object, *, anonymous: bool, timeout_s: float) -> IssuedCertificate:
        await trio.sleep(0.01)
        self.asked.append((trio.current_time(), anonymous))
        problem = self.fail(len(self.asked))
        if problem is not None:
            raise problem
        assert isinstance(request, RenewCertificate | RenewExpired)
        assert isinstance(request, RenewExpired) == anonymous
        return IssuedCertificate(NodeId(self.node_id), leaf(request.csr_pem, self), self.root)


def leaf(csr: bytes, by: Authority, role: PeerRole | None = None) -> bytes:
    now = TrioClock().now() if trio.lowlevel.in_trio_run() else START
    return pki.Authority(by.root, by.key_of).issue(
        csr, node_id=by.node_id, cluster_id="c", role=role or by.role, expiry_s=90 * DAY, serial=SERIAL, now=now
    )


@define
class World:
    state: StateDir
    authority: Authority
    told: list[CredentialsChanged]


async def start(scope: Scope) -> tuple[World, object]:
    state, authority = StateDir(MemoryFiles()), Authority()
    key = pki.new_key(b"k" * pki.KEY_RANDOM_BYTES)
    state.save_node(NodeFile(NodeId("n"), ClusterId("c"), Role.WORKER))
    state.save_credentials(Credentials(leaf(pki.make_request(key), authority), key, ROOT))
    told: list[CredentialsChanged] = []
    node = await scope.start("node", lambda: NodeActor(told))
    ref = await scope.start("renewer", lambda: Renewer(state, authority, node, TrioClock(), SystemEntropy()))
    return World(state, authority, told), ref


async def test_it_renews_between_half_and_four_fifths_of_the_life(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("node") as scope:
        world, _ = await start(scope)
        before = world.state.require_credentials()
        await trio.sleep(44 * DAY)
        assert world.authority.asked == []
        await trio.sleep(29 * DAY)
        assert len(world.authority.asked) == 1
        after = world.state.require_credentials()
        assert after.key_pem != before.key_pem and after.certificate_pem != before.certificate_pem
        assert [changed.credentials for changed in world.told] == [after]
        await trio.sleep(300 * DAY)
        assert len(world.authority.asked) >= 5


async def test_a_changed_role_is_renewed_at_once_until_the_certificate_says_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scope("node") as scope:
        world, ref = await start(scope)
        await ref.tell(RenewNow(PeerRole.MANAGER))
        await trio.sleep(10)
        assert len(world.authority.asked) >= 2, "the authority still says worker: again, with pauses"
        gaps = [b - a for (a, _), (b, _) in zip(world.authority.asked, world.authority.asked[1:], strict=False)]
        assert all(gap >= 0.5 for gap in gaps)
        world.authority.role = PeerRole.MANAGER
        await trio.sleep(60)
        count = len(world.authority.asked)
        assert world.told[-1].peer.role is PeerRole.MANAGER
        await ref.tell(RenewNow(PeerRole.MANAGER))
        await trio.sleep(10 * DAY)
        assert len(world.authority.asked) == count


async def test_failures_are_told_and_tried_again_with_growing_pauses(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("node") as scope:
        world, ref = await start(scope)
        world.authority.fail = lambda attempt: (
            SwarmError(ErrorCode.UNAVAILABLE, "no manager answers") if attempt < 8 else None
        )
        await trio.sleep(73 * DAY)
        times = [at for at, _ in world.authority.asked]
        assert len(times) == 8 and times[7] - times[0] < 200
        assert times[7] - times[6] > times[1] - times[0]
        view = await ref.ask(GetRenewal(), timeout_s=1)
        assert view.failures == 0 and view.problem == ""


async def test_an_expired_certificate_is_renewed_without_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("node") as scope:
        world, ref = await start(scope)
        world.authority.fail = lambda attempt: (
            SwarmError(ErrorCode.UNAVAILABLE, "off") if trio.current_time() < 91 * DAY else None
        )
        await trio.sleep(90.5 * DAY)
        assert (await ref.ask(GetRenewal(), timeout_s=1)).problem == "off"
        key = world.state.require_credentials().key_pem
        await trio.sleep(DAY)
        assert world.authority.asked[-1][1] is True
        assert world.state.require_credentials().key_pem == key, "proved by its own key"
        assert world.told[-1].peer.expires_at > TrioClock().now()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda by: setattr(by, "node_id", "other"), "names another node"),
        (lambda by: (setattr(by, "root", NEXT_ROOT), setattr(by, "key_of", NEXT_KEY)), "another cluster"),
    ],
)
async def test_a_foreign_answer_is_not_kept(
    spoil: Callable[[Authority], None], says: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_scope("node") as scope:
        world, ref = await start(scope)
        before = world.state.require_credentials()
        spoil(world.authority)
        await trio.sleep(73 * DAY)
        assert says in (await ref.ask(GetRenewal(), timeout_s=1)).problem
        assert world.state.require_credentials() == before and world.told == []


async def test_new_roots_are_taken_only_if_they_vouch_for_this_node(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scope("node") as scope:
        world, ref = await start(scope)
        for roots in (NEXT_ROOT, b"junk", ROOT):
            await ref.tell(TrustRoots(roots))
        await trio.sleep(1)
        assert world.told == [] and world.state.require_credentials().root_pem == ROOT
        await ref.tell(TrustRoots(ROOT + NEXT_ROOT))
        await trio.sleep(1)
        assert world.told[-1].credentials.root_pem == ROOT + NEXT_ROOT == world.state.require_credentials().root_pem
