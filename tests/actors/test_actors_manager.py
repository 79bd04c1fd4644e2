"""How a manager finds the leader."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from swarm.actors.manager import _leader_link
from swarm.actors.manager_life import ManagerLife
from swarm.actors.raft_messages import Leadership
from swarm.model.ids import NodeId, RaftId
from swarm.runtime.errors import ErrorCode, SwarmError


class Links:
    """Notes what is dialled."""

    def __init__(self) -> None:
        self.dialled: list[str] = []

    async def to(self, address: str, *, timeout_s: float) -> Any:
        self.dialled.append(address)


def life(leader: str) -> ManagerLife:
    news = Leadership(3, RaftId(7), False, NodeId(leader), f"{leader}:4242")
    return ManagerLife(leadership=news)


async def test_the_leader_is_dialled_where_it_is() -> None:
    links = Links()
    await _leader_link(cast("Any", SimpleNamespace(node_id=NodeId("me"), links=links)), life("other"))
    assert links.dialled == ["other:4242"]


async def test_a_manager_that_was_elected_and_does_not_lead_yet_makes_no_link_to_itself() -> None:
    links = Links()
    with pytest.raises(SwarmError, match="about to lead") as refused:
        await _leader_link(cast("Any", SimpleNamespace(node_id=NodeId("me"), links=links)), life("me"))
    assert (refused.value.code, links.dialled) == (ErrorCode.UNAVAILABLE, [])
