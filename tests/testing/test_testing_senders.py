"""A message that no peer may have sent is seen when it comes to an actor, however it got there."""

from __future__ import annotations

import pytest

from swarm.actors.raft_messages import ApplyEntries
from swarm.model.changes import Kind
from swarm.model.events import Event
from swarm.model.ids import NodeId
from swarm.model.objects import Node
from swarm.model.specs import NodeDescription, NodeSpec
from swarm.model.states import Role
from swarm.runtime.ref import HERE, Caller
from swarm.testing.senders import Senders
from swarm.wire.messages.ca import GetRootCertificate
from swarm.wire.messages.control import GetToken

TOKEN = GetToken(Role.WORKER)
MANAGER = Caller("m", "manager", "c", "m1:40001")


def senders() -> Senders:
    known = Senders()
    for id, role, host in (("m", Role.MANAGER, "m1"), ("w", Role.WORKER, "w1"), ("new", Role.WORKER, "")):
        node = Node(NodeId(id), NodeSpec(desired_role=role), role=role, description=NodeDescription(hostname=host))
        known.see(Event(Kind.NODE, None, node))
    return known


@pytest.mark.parametrize(
    "caller", [HERE, MANAGER, Caller("m", "manager", "c"), Caller("", "local", "", "the local socket")]
)
def test_what_may_be_sent_is_no_matter(caller: Caller) -> None:
    assert senders().objection(TOKEN, caller, "c") == ""


def test_a_node_that_has_not_told_its_host_may_call_from_anywhere() -> None:
    assert senders().objection(GetRootCertificate(), Caller("new", "worker", "c", "w7:40001"), "c") == ""


@pytest.mark.parametrize(
    ("caller", "words"),
    [
        (Caller("w", "worker", "c", "w1:40001"), "may not be sent by this role"),
        (Caller("", "anonymous", "", "w1:40001"), "may not be sent by this role"),
        (Caller("w", "manager", "c", "w1:40001"), "that node never was one"),
        (Caller("m", "manager", "other", "m1:40001"), "of another cluster"),
        (Caller("x", "manager", "c", "m1:40001"), "never let in"),
        (Caller("m", "manager", "c", "w1:40001"), "came from w1, and that node is m1"),
    ],
)
def test_what_may_not_be_sent_is_seen(caller: Caller, words: str) -> None:
    assert words in senders().objection(TOKEN, caller, "c")


def test_what_is_for_this_node_alone_never_comes_over_a_link() -> None:
    assert "is not declared" in senders().objection(ApplyEntries(()), MANAGER, "c")


def test_who_was_a_manager_may_have_its_certificate_still() -> None:
    known = senders()
    node = Node(NodeId("m"), NodeSpec(), role=Role.WORKER, description=NodeDescription(hostname="m1"))
    known.see(Event(Kind.NODE, None, node))
    assert known.objection(TOKEN, MANAGER, "c") == ""
