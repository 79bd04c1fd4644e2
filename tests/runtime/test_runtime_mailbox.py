"""Properties of the mailbox under any schedule of senders and reader."""

from __future__ import annotations

from collections import deque

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from swarm.runtime.context import localize, qualify
from swarm.runtime.errors import ActorDied
from swarm.runtime.mailbox import Mailbox
from swarm.runtime.stream import Pipe

SENDERS = 3


@given(
    capacity=st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "offer", "push", "take", "cancel"]), st.integers(0, SENDERS - 1)), max_size=60
    ),
)
def test_it_is_bounded_and_fifo_per_sender(capacity: int, steps: list[tuple[str, int]]) -> None:
    """Against a slow twin: one queue, in which everything beyond `capacity` is waiting."""

    async def main() -> None:
        box = Mailbox(capacity)
        twin: deque[tuple[int, int]] = deque()
        taken: list[tuple[int, int]] = []
        puts: dict[int, tuple[trio.CancelScope, tuple[int, int]]] = {}
        number = 0

        async def put(scope: trio.CancelScope, sender: int, item: tuple[int, int]) -> None:
            with scope:
                await box.put(item)
            if not scope.cancelled_caught:
                puts.pop(sender, None)

        async with trio.open_nursery() as nursery:
            for action, sender in steps:
                number += 1
                item = (sender, number)
                if action == "put" and sender not in puts:
                    scope = trio.CancelScope()
                    puts[sender] = (scope, item)
                    nursery.start_soon(put, scope, sender, item)
                    twin.append(item)
                elif action == "push":
                    assert (box.push(item) is None) == (len(twin) < capacity)
                    twin.append(item)
                elif action == "offer":
                    offered = box.offer(item)
                    assert offered == (len(twin) < capacity)
                    if offered:
                        twin.append(item)
                elif action == "take" and twin:
                    taken.append(box.take())
                    assert taken[-1] == twin.popleft()
                elif action == "cancel" and sender in puts:
                    scope, waiting = puts.pop(sender)
                    scope.cancel()
                    twin.remove(waiting)
                await trio.testing.wait_all_tasks_blocked()
                assert len(box.items) <= capacity
                assert len(box.items) + len(box.waiting) == len(twin)
            left = len(twin)
            assert len(box.close("over")) == left
            with pytest.raises(ActorDied, match="over"):
                box.push("late")
            nursery.cancel_scope.cancel()
        for sender in range(SENDERS):
            own = [n for who, n in taken if who == sender]
            assert own == sorted(own)

    # a put that is failed by the close raises in its task: that is its sender's business
    try:
        trio.run(main)
    except* ActorDied:
        pass


@given(window=st.integers(1, 4), steps=st.lists(st.sampled_from(["offer", "receive"]), max_size=40))
def test_a_pipe_is_bounded_and_in_order(window: int, steps: list[str]) -> None:
    async def main() -> None:
        pipe: Pipe[int] = Pipe(window)
        sent: list[int] = []
        received: list[int] = []
        for number, step in enumerate(steps):
            unread = len(sent) - len(received)
            if step == "offer":
                taken = pipe.offer(number)
                assert taken == (unread < window)
                if taken:
                    sent.append(number)
            elif unread:
                received.append(await pipe.receive())
            assert pipe.unread <= window
        pipe.close()
        received.extend([item async for item in pipe])
        assert received == sent

    trio.run(main)


def test_a_window_holds_at_least_one_item() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        Pipe(0)


@given(st.lists(st.sampled_from(["node/raft", "node/a/b", "x@other"])), st.sampled_from(["n1", "n2"]))
def test_a_chain_comes_home_as_it_left(chain: list[str], node: str) -> None:
    away = qualify(chain, node)
    assert all("@" in path for path in away)
    assert localize(away, node) == tuple(chain)
    assert localize(away, "elsewhere") == away
