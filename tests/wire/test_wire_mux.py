"""The multiplexer: written scenarios, refusals, and two of them back to back in any interleaving."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swarm.wire import events as e
from swarm.wire import frames as f
from swarm.wire import mux as m

KINDS = {name: number for number, name in enumerate(f.CALL_NAMES)}
SMALL = m.Limits(calls=3, held_bytes=100, outbox_bytes=200, outbox_bytes_max=500)


class Pair:
    """Two muxes, `d` (dialler) and `a`, with the frames that are under way between them."""

    def __init__(self) -> None:
        self.sides = {"d": m.Mux(dialler=True, limits=SMALL), "a": m.Mux(dialler=False, limits=SMALL)}
        self.wires: dict[str, deque[f.Frame]] = {"d": deque(), "a": deque()}

    def run(self, line: str) -> list[str]:
        side, verb, *arguments = shlex.split(line)
        mux = self.sides[side]
        other = "a" if side == "d" else "d"
        if verb == "send":
            batch = mux.take(int(arguments[0]) if arguments else f.BATCH_BYTES)
            self.wires[other].extend(f.decode_batch(f.encode_batch(batch)))
            return [f"{side}> {_frame(frame)}" for frame in batch]
        if verb == "receive":
            count = int(arguments[0]) if arguments else len(self.wires[side])
            frames = [self.wires[side].popleft() for _ in range(count)]
            return self._receive(side, frames)
        if verb == "inject":
            return self._receive(side, [tuple(eval(arguments[0], vars(f)))])  # a scenario's own literal
        if verb == "status":
            room = "" if mux.has_room else ", no room"
            return [f"{side}: {mux.state.value}, {mux.open_calls} open, {mux.outbox_bytes} to send{room}"]
        return _result(side, lambda: _operate(mux, verb, arguments))

    def _receive(self, side: str, frames: list[f.Frame]) -> list[str]:
        try:
            return [f"{side}: {_event(event)}" for event in self.sides[side].receive(frames)]
        except m.ProtocolError as error:
            return [f"{side}: PROTOCOL ERROR {error}"]


def _operate(mux: m.Mux, verb: str, arguments: list[str]) -> object:
    if verb == "open":
        kind, tag, body, *rest = arguments
        window = int(rest[0]) if rest else 0
        return mux.open(KINDS[kind], tag, body.encode(), time_left_s=None if kind == "offer" else 5.0, window=window)
    if verb in ("answer", "item"):
        return getattr(mux, verb)(int(arguments[0]), arguments[1].encode() if len(arguments) > 1 else b"")
    if verb in ("fail", "cancel"):
        return getattr(mux, verb)(int(arguments[0]), *arguments[1:])
    if verb in ("taken", "credit", "ping"):
        return getattr(mux, verb)(*map(int, arguments))
    return getattr(mux, verb)(*arguments)


def _result(side: str, operation: Callable[[], object]) -> list[str]:
    try:
        result = operation()
    except (m.MuxClosed, m.TooManyCalls) as error:
        return [f"{side}: {type(error).__name__}: {error}"]
    return [] if result is None else [f"{side}: -> {result}"]


def _frame(frame: f.Frame) -> str:
    return " ".join([f.NAMES[frame[0]], *(_value(part) for part in frame[1:])])


def _value(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)


def _event(event: e.Event) -> str:
    if isinstance(event, e.Opened):
        return f"Opened {event.call} {f.CALL_NAMES[event.open.kind]} {event.open.tag} {event.open.body.decode()}"
    if isinstance(event, e.Up):
        return f"Up {event.hello.session} {event.hello.lane}"
    return " ".join([type(event).__name__, *(_value(part) for part in event)])


def test_scenarios(scenario: Callable[[str, Callable[[str], str]], None]) -> None:
    pair = Pair()

    def run(block: str) -> str:
        nonlocal pair
        lines: list[str] = []
        for line in block.split("\n"):
            if line in ("new", "up"):
                pair = Pair()
                if line == "up":
                    _introduce(pair)
            else:
                lines += pair.run(line)
        return "\n".join(lines)

    scenario("wire_mux.txt", run)


def _introduce(pair: Pair) -> None:
    for line in ("d hello s calls", "a hello s calls", "d send", "a send", "a receive", "d receive"):
        pair.run(line)


def test_every_frame_and_state_has_an_entry_or_a_named_error() -> None:
    frames: dict[int, f.Frame] = {
        f.HELLO: (f.HELLO, 1, "s", "calls"),
        f.OPEN: f.Open(f.OPEN, 2, f.ASK, "t", b""),
        f.ITEM: (f.ITEM, 1, b""),
        f.CREDIT: (f.CREDIT, 1, 1),
        f.END: (f.END, 1),
        f.FAIL: (f.FAIL, 1, "invalid", "no", {}),
        f.CANCEL: (f.CANCEL, 1, ""),
        f.PING: (f.PING, 1, False),
        f.GO_AWAY: (f.GO_AWAY, ""),
        f.WANT: (f.WANT, "bulk"),
    }
    assert sorted(frames) == list(range(len(f.NAMES)))
    for state in m.State:
        for kind, frame in frames.items():
            if (state, kind) in m._TABLE or state not in (m.State.NEW, m.State.UP, m.State.OURS_UNUSED):
                continue
            mux = m.Mux(dialler=True)
            if state is not m.State.NEW:
                mux.receive([frames[f.HELLO]])
            if f.OPEN < kind <= f.CANCEL or kind == f.HELLO or state is m.State.NEW:
                with pytest.raises(m.ProtocolError, match=f.NAMES[kind]):
                    mux.receive([frame])


class TwoSides(RuleBasedStateMachine):
    """Any interleaving of calls, answers, items, credit, cancels and deliveries, against a plain account of each call."""

    def __init__(self) -> None:
        super().__init__()
        limits = m.Limits(calls=6, held_bytes=10_000)
        self.mux = {True: m.Mux(dialler=True, limits=limits), False: m.Mux(dialler=False, limits=limits)}
        self.wire: dict[bool, deque[f.Frame]] = {True: deque(), False: deque()}
        self.up = {True: False, False: False}
        # calls by (opener is the dialler, number): what each side knows of it
        self.asking: dict[tuple[bool, int], str] = {}  # "ask" | "stream", until an end was seen or it was cancelled
        self.serving: dict[tuple[bool, int], str] = {}
        self.sent: dict[tuple[bool, int], list[bytes]] = {}
        self.got: dict[tuple[bool, int], list[bytes]] = {}
        self.unread: dict[tuple[bool, int], int] = {}
        self.offers: dict[bool, int] = {True: 0, False: 0}
        self.ended: set[tuple[bool, int]] = set()
        for side, mux in self.mux.items():
            mux.hello("s", "calls")
            self.send(side, 1 << 20)

    @rule(side=st.booleans(), size=st.integers(1, 200))
    def send(self, side: bool, size: int) -> None:
        self.wire[not side].extend(f.decode_batch(f.encode_batch(self.mux[side].take(size))))

    @rule(side=st.booleans(), count=st.integers(1, 5))
    def deliver(self, side: bool, count: int) -> None:
        wire = self.wire[side]
        for event in self.mux[side].receive([wire.popleft() for _ in range(min(count, len(wire)))]):
            self.happen(side, event)

    def happen(self, side: bool, event: e.Event) -> None:
        if isinstance(event, e.Up):
            assert not self.up[side]
            self.up[side] = True
            return
        assert self.up[side]
        if isinstance(event, e.Opened):
            if event.call == 0:
                self.offers[not side] -= 1
                assert self.offers[not side] >= 0
                return
            key = (not side, event.call)
            assert key not in self.serving
            self.serving[key] = "stream" if event.open.kind == f.STREAM else "ask"
            self.sent[key] = []
        elif isinstance(event, e.Cancelled):
            del self.serving[(not side, event.call)]
        elif isinstance(event, e.ItemArrived):
            key = (side, event.call)
            assert self.asking[key] == "stream"
            self.got[key].append(event.body)
            self.unread[key] += 1
        elif isinstance(event, (e.Answered, e.Ended, e.Failed)):
            key = (side, event.call)
            kind = self.asking.pop(key)
            assert (kind == "ask") == isinstance(event, e.Answered) or isinstance(event, e.Failed)
            if not isinstance(event, e.Failed) or event.code != "mailbox-full":
                assert self.got[key] == self.sent[key]

    @rule(side=st.booleans(), kind=st.sampled_from([f.TELL, f.ASK, f.STREAM]), window=st.integers(1, 5))
    def call(self, side: bool, kind: int, window: int) -> None:
        try:
            number = self.mux[side].open(kind, "t", b"body", window=window if kind == f.STREAM else 0)
        except m.TooManyCalls:
            return
        assert (side, number) not in self.got
        self.asking[(side, number)] = "stream" if kind == f.STREAM else "ask"
        self.got[(side, number)] = []
        self.unread[(side, number)] = 0

    @rule(side=st.booleans())
    def offer(self, side: bool) -> None:
        assert self.mux[side].open(f.OFFER, "t", b"") == 0
        self.offers[side] += 1

    @precondition(lambda self: self.serving)
    @rule(data=st.data(), fail=st.booleans())
    def finish(self, data: st.DataObject, fail: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.serving)))
        mux = self.mux[not key[0]]
        assert mux.fail(key[1], "invalid", "no") if fail else mux.answer(key[1])
        assert not mux.answer(key[1])
        del self.serving[key]

    @precondition(lambda self: self.serving)
    @rule(data=st.data(), body=st.binary(max_size=8))
    def feed(self, data: st.DataObject, body: bytes) -> None:
        key = data.draw(st.sampled_from(sorted(self.serving)))
        if self.mux[not key[0]].item(key[1], body):
            assert self.serving[key] == "stream"
            self.sent[key].append(body)

    @precondition(lambda self: any(self.unread[key] for key in self.asking))
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key in self.asking if self.unread[key])))
        self.mux[key[0]].taken(key[1], len(self.got[key][-self.unread[key]]))
        self.unread[key] -= 1

    @precondition(lambda self: self.asking)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.asking)))
        assert self.mux[key[0]].cancel(key[1], "enough")
        assert not self.mux[key[0]].cancel(key[1], "enough")
        del self.asking[key]

    @invariant()
    def nothing_is_negative(self) -> None:
        for mux in self.mux.values():
            assert mux.outbox_bytes >= 0
            assert mux._held_bytes >= 0
            assert all(call.credit >= 0 for call in [*mux._ours.values(), *mux._theirs.values()])

    def teardown(self) -> None:
        """Once all is delivered and answered, neither side knows of any call."""
        for _ in range(3):
            for side in (True, False):
                self.send(side, 1 << 20)
            for side in (True, False):
                self.deliver(side, 1 << 20)
            for key in list(self.serving):
                assert self.mux[not key[0]].answer(key[1])
                del self.serving[key]
        assert not self.asking
        assert self.offers == {True: 0, False: 0}
        for mux in self.mux.values():
            assert mux.open_calls == 0
            assert mux._held_bytes == 0
            assert mux.outbox_bytes == 0


TestTwoSides = TwoSides.TestCase
TestTwoSides.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=50), st.integers(1, 400))
def test_batches_are_bounded_and_keep_the_order(sizes: list[int], limit: int) -> None:
    mux = m.Mux(dialler=True)
    mux.receive([(f.HELLO, 1, "s", "calls")])
    for number, size in enumerate(sizes):
        mux.open(f.OFFER, str(number), bytes(size))
    seen = []
    while batch := mux.take(limit):
        assert sum(map(f.frame_bytes, batch[:-1])) < limit
        seen += [frame[3] for frame in batch]
    assert seen == [str(number) for number in range(len(sizes))]
    assert mux.outbox_bytes == 0


_numbers = st.integers(-2, 9)
_frames = st.one_of(
    st.tuples(st.just(f.HELLO), _numbers, st.just("s"), st.just("calls")),
    st.tuples(st.just(f.OPEN), _numbers, _numbers, st.just("t"), st.binary(max_size=60), st.none(), _numbers),
    st.tuples(st.just(f.ITEM), _numbers, st.binary(max_size=60)),
    st.tuples(st.just(f.CREDIT), _numbers, _numbers),
    st.tuples(st.just(f.END), _numbers),
    st.tuples(st.just(f.FAIL), _numbers, st.just("code"), st.just("text"), st.just({"a": 1})),
    st.tuples(st.just(f.CANCEL), _numbers),
    st.tuples(st.just(f.PING), _numbers, st.booleans()),
    st.tuples(st.just(f.GO_AWAY), st.just("bye")),
    st.tuples(st.just(f.WANT), st.just("bulk")),
)


@given(st.booleans(), st.lists(_frames, max_size=30), st.lists(st.sampled_from([f.ASK, f.STREAM]), max_size=3))
def test_a_hostile_peer_gets_protocol_errors_and_nothing_else(
    dialler: bool, frames: list[f.Frame], ours: list[int]
) -> None:
    mux = m.Mux(dialler=dialler, limits=SMALL)
    mux.receive([(f.HELLO, 1, "s", "calls")])
    for kind in ours:
        mux.open(kind, "t", b"", window=2)
    try:
        for frame in f.decode_batch(f.encode_batch(frames)):
            for event in mux.receive([frame]):
                if isinstance(event, e.ItemArrived):
                    mux.taken(event.call, len(event.body))
    except m.ProtocolError:
        return
    assert mux._held_bytes >= 0
    assert len(mux._theirs) <= SMALL.calls
