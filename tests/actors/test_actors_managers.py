"""Which manager is chosen, kept, given up; against links that are scripted by the test."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import trio
from attrs import define, field, frozen

from swarm.actors.managers import Managers
from swarm.ca.identity import Peer, PeerRole
from swarm.model.ids import NodeId
from swarm.ports.net import DialError
from swarm.runtime import Actor, ErrorCode, LocalRef, Request, Scope, SwarmError, Turn, on, open_scope
from swarm.wire.messages.dispatcher import ManagerAddress


@frozen
class WhoAreYou(Request[str]):
    pass


class Authority(Actor):
    def __init__(self, said: str, refusal: SwarmError | None = None) -> None:
        self.said = said
        self.refusal = refusal

    @on(WhoAreYou)
    def answer(self, request: WhoAreYou, turn: Turn[str]) -> str:
        if self.refusal is not None:
            raise self.refusal
        return self.said


@define(eq=False)
class FakeLink:
    peer: Peer
    ca: LocalRef | None
    anonymous: bool = False
    reason: str = ""

    @property
    def is_open(self) -> bool:
        return not self.reason

    def ref(self, to: str) -> Any:
        return self.ca

    async def closed(self) -> str:
        await trio.sleep_forever()

    def close(self, reason: str) -> None:
        self.reason = reason


@define
class FakeLinks:
    down: set[str] = field(factory=set)
    authorities: dict[str, LocalRef] = field(factory=dict)
    links: dict[str, FakeLink] = field(factory=dict)
    dialled: list[str] = field(factory=list)

    async def to(self, address: str, *, timeout_s: float) -> FakeLink:
        known = self.links.get(address)
        if known is None or not known.is_open:
            known = self.links[address] = await self.dial(address, timeout_s=timeout_s)
        return known

    async def dial(self, address: str, *, anonymous: bool = False, timeout_s: float) -> FakeLink:
        await trio.lowlevel.checkpoint()
        self.dialled.append(address)
        if address in self.down:
            raise DialError(f"cannot connect to {address}: refused")
        link = FakeLink(Peer(PeerRole.MANAGER, f"node-{address}"), self.authorities.get(address), anonymous)
        if anonymous:
            self.links[address] = link
        return link


@define
class FakeRouter:
    me: Peer = Peer(PeerRole.WORKER, "me")
    refs: dict[str, Any] = field(factory=dict)

    def local(self, to: str) -> Any:
        return self.refs.get(to, "here")

    def own(self, name: str) -> Any:
        return self.refs.get(name)


class Drawn:
    """Entropy from a seed."""

    def __init__(self) -> None:
        self.random = random.Random(7)

    def uniform(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)


def make(*addresses: str) -> tuple[Managers, FakeLinks, FakeRouter]:
    links, router = FakeLinks(), FakeRouter()
    entropy: Any = Drawn()
    managers = Managers(links, router, entropy)
    managers.remember(addresses)
    return managers, links, router


async def test_a_node_that_knows_no_manager_says_so() -> None:
    managers, _, _ = make()
    with pytest.raises(SwarmError, match="this node knows none") as refusal:
        await managers.connect()
    assert refusal.value.code is ErrorCode.UNAVAILABLE


async def test_those_that_do_not_answer_are_named_and_lose_weight() -> None:
    managers, links, _ = make("a", "b", "c", "d")
    links.down = {"a", "b", "c", "d"}
    with pytest.raises(SwarmError, match="cannot connect to") as refusal:
        await managers.connect()
    assert refusal.value.text.count("refused") == 3  # not more than so many at a time
    links.down = {"a", "b", "c"}
    for _ in range(3):
        try:
            connection = await managers.connect()
            break
        except SwarmError:
            continue
    assert connection.node_id == "node-d"
    connection.done(good=True)
    assert managers.addresses[0] == "d"


async def test_a_link_that_works_is_kept_and_one_that_does_not_is_closed() -> None:
    managers, links, _ = make("a", "b")
    first = await managers.connect()
    first.done(good=True)
    second = await managers.connect()
    assert second.node_id == first.node_id and len(links.dialled) == 1
    second.done(good=False)
    (link,) = links.links.values()
    assert link.reason == "another manager is tried"


async def test_a_manager_that_did_not_serve_keeps_its_link_to_another_manager() -> None:
    managers, links, router = make("a")
    router.me = Peer(PeerRole.MANAGER, "me")
    (await managers.connect()).done(good=False)
    (await managers.connect()).done(good=False)
    assert links.links["a"].is_open, "Raft uses it, and what is forwarded"


async def test_the_draw_follows_the_weights() -> None:
    managers, _, _ = make("good", "bad")
    for _ in range(10):
        managers.observe("good", good=True)
        managers.observe("bad", good=False)
    drawn = Counter(managers._order()[0] for _ in range(2000))
    assert drawn["good"] > 1990
    assert all(len(managers._order()) == 2 for _ in range(10))


async def test_the_list_follows_what_is_told() -> None:
    managers, _, _ = make("old", "kept")
    managers.observe("kept", good=False)
    managers.learn(
        (
            ManagerAddress(NodeId("1"), "kept"),
            ManagerAddress(NodeId("2"), "new"),
            ManagerAddress(NodeId("me"), "my-own"),
            ManagerAddress(NodeId("3"), ""),
        )
    )
    assert managers.addresses == ("new", "kept")
    managers.learn(())  # no news
    assert managers.addresses == ("new", "kept")


async def test_a_named_leader_is_tried_next_and_once() -> None:
    managers, links, _ = make("a", "b")
    connection = await managers.connect()
    connection.done(good=False, error=SwarmError(ErrorCode.NOT_LEADER, "ask the leader", {"leader": "z"}))
    connection = await managers.connect()
    assert connection.node_id == "node-z"
    links.down = {"z"}
    connection.done(good=False)
    connection = await managers.connect()
    assert connection.node_id != "node-z"


async def test_a_manager_asks_itself_first_and_others_in_turn() -> None:
    managers, _, router = make("a")
    router.me = Peer(PeerRole.MANAGER, "me")
    here = await managers.connect()
    assert here.node_id == "me" and str(here.dispatcher) == "here"
    here.done(good=False)
    other = await managers.connect()
    assert other.node_id == "node-a"
    other.done(good=False)
    assert (await managers.connect()).node_id == "me"
    lonely, _, alone = make()
    alone.me = router.me
    (await lonely.connect()).done(good=False)
    assert (await lonely.connect()).node_id == "me"


async def authority(scope: Scope, name: str, refusal: SwarmError | None = None) -> LocalRef:
    return await scope.start(name, lambda: Authority(name, refusal))


async def test_the_authority_of_any_manager_will_do() -> None:
    managers, links, _ = make("a", "b", "c")
    async with open_scope("s") as scope:
        links.down = {"a"}
        links.authorities["b"] = await authority(scope, "b", SwarmError(ErrorCode.NOT_LEADER, "not here"))
        links.authorities["c"] = await authority(scope, "c")
        for anonymous in (False, True):
            assert await managers.ask_authority(WhoAreYou(), anonymous=anonymous, timeout_s=10) == "c"
        assert links.links["c"].anonymous and links.links["c"].reason == "answered"
        links.down = {"a", "c"}
        with pytest.raises(SwarmError, match="not here"):
            await managers.ask_authority(WhoAreYou(), anonymous=True, timeout_s=10)


async def test_a_refusal_of_the_authority_is_final() -> None:
    managers, links, _ = make("a", "b")
    async with open_scope("s") as scope:
        for name in "ab":
            links.authorities[name] = await authority(scope, name, SwarmError(ErrorCode.DENIED, "removed"))
        with pytest.raises(SwarmError, match="removed"):
            await managers.ask_authority(WhoAreYou(), anonymous=False, timeout_s=10)
        assert len(links.dialled) == 1


async def test_a_manager_asks_its_own_authority_first() -> None:
    managers, links, router = make("a")
    router.me = Peer(PeerRole.MANAGER, "me")
    async with open_scope("s") as scope:
        router.refs["ca"] = await authority(scope, "here")
        links.authorities["a"] = await authority(scope, "a")
        assert await managers.ask_authority(WhoAreYou(), anonymous=False, timeout_s=10) == "here"
        router.refs["ca"] = await authority(scope, "weak", SwarmError(ErrorCode.UNAVAILABLE, "no leader"))
        assert await managers.ask_authority(WhoAreYou(), anonymous=False, timeout_s=10) == "a"


async def test_a_manager_whose_certificate_has_expired_asks_its_own_authority_directly() -> None:
    managers, links, router = make("a")
    router.me = Peer(PeerRole.MANAGER, "me")
    async with open_scope("s") as scope:
        links.authorities["a"] = await authority(scope, "a")
        assert await managers.ask_authority(WhoAreYou(), anonymous=True, timeout_s=10) == "a"
        router.refs["ca"] = await authority(scope, "own")
        assert await managers.ask_authority(WhoAreYou(), anonymous=True, timeout_s=10) == "own"
