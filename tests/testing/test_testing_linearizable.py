"""The checker of histories: what is linearizable passes, and a planted fault in any of them is named."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.testing.linearizable import Kind, Operation, Result, check


def op(text: str, start: float, end: float, result: Result = Result.OK, client: str = "c") -> Operation:
    """`w1`: write 1; `r1`: read 1, `r` nothing yet; `s12`: swap 1 for 2."""
    kind = {"w": Kind.WRITE, "r": Kind.READ, "s": Kind.SWAP}[text[0]]
    value = text[-1] if len(text) > 1 else None
    return Operation(client, "x", kind, value, start, end, result, text[1] if kind is Kind.SWAP else None)


OK, FAIL, UNKNOWN = Result.OK, Result.FAIL, Result.UNKNOWN

GOOD = {
    "nothing": [],
    "never written": [op("r", 0, 1)],
    "one after another": [op("w1", 0, 1), op("r1", 2, 3), op("w2", 4, 5), op("r2", 6, 7)],
    "a read beside a write may give either": [op("w1", 0, 1), op("w2", 2, 9), op("r1", 3, 4), op("r2", 5, 6)],
    "two writes at once, either last": [op("w1", 0, 5), op("w2", 0, 5), op("r1", 6, 7), op("r1", 8, 9)],
    "a swap": [op("w1", 0, 1), op("s12", 2, 3), op("r2", 4, 5)],
    "a chain of swaps, recorded in another order": [op("s23", 0, 9), op("s12", 0, 9), op("w1", 0, 9), op("r3", 10, 11)],
    "an unknown write that came late": [op("w1", 0, 1), op("w2", 2, 3, UNKNOWN), op("r1", 5, 6), op("r2", 7, 8)],
    "an unknown write that never came": [op("w1", 0, 1), op("w2", 2, 3, UNKNOWN), op("r1", 5, 6)],
    "an unknown swap that an unknown swap followed": [
        op("w1", 0, 1), op("s12", 2, 3, UNKNOWN), op("s23", 4, 5, UNKNOWN), op("r3", 6, 7)
    ],
    "a refused write": [op("w1", 0, 1), op("w2", 2, 3, FAIL), op("r1", 4, 5)],
    "an unknown read": [op("w1", 0, 1), op("r", 4, 5, UNKNOWN)],
    "the same value again, once unknown": [
        op("w1", 0, 1), op("w2", 2, 3), op("w1", 4, 5, UNKNOWN), op("r2", 6, 7), op("r1", 8, 9)
    ],
}  # fmt: skip
BAD = {
    "a stale read": [op("w1", 0, 1), op("w2", 2, 3), op("r1", 4, 5)],
    "a lost write": [op("w1", 0, 1), op("r", 2, 3)],
    "a value from nowhere": [op("w1", 0, 1), op("r9", 2, 3)],
    "back in time": [op("w1", 0, 1), op("w2", 2, 9), op("r2", 3, 4), op("r1", 5, 6)],
    "two readers that saw two orders": [
        op("w1", 0, 5), op("w2", 0, 5), op("r1", 6, 7), op("r2", 8, 9)
    ],
    "two swaps of one value": [op("w1", 0, 1), op("s12", 2, 9), op("s13", 2, 9)],
    "a swap of what was swapped before": [op("w1", 0, 1), op("s12", 2, 3), op("s13", 4, 5), op("r3", 6, 7)],
    "a refused write that was seen": [op("w1", 0, 1), op("w2", 2, 3, FAIL), op("r2", 4, 5)],
    "an unknown write, seen before it was asked for": [op("w1", 0, 1), op("r2", 2, 3), op("w2", 4, 5, UNKNOWN)],
    "an unknown write that came and went": [
        op("w1", 0, 1), op("w2", 2, 3, UNKNOWN), op("r2", 4, 5), op("r1", 6, 7)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes(name: str) -> None:
    assert check(GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_found_and_the_register_named(name: str) -> None:
    found = check(BAD[name])
    assert found is not None
    assert found.register == "x"
    assert found.stuck
    assert "x is not linearizable" in str(found)


def test_registers_are_apart() -> None:
    other = [Operation("c", "y", Kind.WRITE, "7", 0, 1), Operation("c", "y", Kind.READ, "7", 2, 3)]
    assert check([*GOOD["a swap"], *other]) is None
    found = check([*BAD["a stale read"], *other])
    assert found is not None and found.register == "x"


def test_a_line_of_json_gives_the_operation_back() -> None:
    operation = op("s12", 1.25, 2.5, UNKNOWN)
    assert Operation.from_line(operation.to_line()) == operation


def twin(history: list[Operation], value: str | None = None) -> bool:
    """Every order of every choice of unknown operations, tried."""
    certain = [item for item in history if item.result is OK]
    maybe = [item for item in history if item.result is UNKNOWN and item.kind is not Kind.READ]
    for chosen in range(1 << len(maybe)):
        taken = certain + [item for at, item in enumerate(maybe) if chosen >> at & 1]
        if any(_explains(order, value) for order in permutations(taken)):
            return True
    return False


def _explains(order: tuple[Operation, ...], value: str | None) -> bool:
    for at, item in enumerate(order):
        if any(later.result is OK and later.end < item.start for later in order[at:]):
            return False
        if (item.kind is Kind.READ and item.value != value) or (item.kind is Kind.SWAP and item.expected != value):
            return False
        if item.kind is not Kind.READ:
            value = item.value
    return True


TIMES = st.tuples(st.integers(0, 9), st.integers(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1] + 0.5))
OPERATIONS = st.builds(
    lambda text, times, result: op(text, times[0], times[1], result),
    st.sampled_from(["w1", "w2", "w3", "r", "r1", "r2", "r3", "s12", "s23", "s31"]),
    TIMES,
    st.sampled_from([OK, OK, OK, UNKNOWN, FAIL]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(OPERATIONS, max_size=5))
def test_it_agrees_with_its_slow_twin(history: list[Operation]) -> None:
    assert (check(history) is None) == twin(history)


@st.composite
def real_histories(draw: st.DrawFn) -> list[Operation]:
    """What clients of a true register would have recorded: moments of effect first, intervals around them."""
    value: str | None = None
    found = []
    for moment in range(draw(st.integers(5, 60))):
        start = moment - draw(st.floats(0, 6))
        end = moment + draw(st.floats(0, 6))
        kind = draw(st.sampled_from(list(Kind)))
        unknown = draw(st.integers(0, 9)) == 0
        if unknown and draw(st.booleans()):
            found.append(Operation("c", "x", Kind.WRITE, f"never {moment}", start, end, UNKNOWN))
            continue
        expected = value if kind is Kind.SWAP else None
        value = value if kind is Kind.READ else f"v{moment}"
        found.append(Operation("c", "x", kind, value, start, end, UNKNOWN if unknown else OK, expected))
    return found


@settings(max_examples=100, deadline=None)
@given(real_histories())
def test_what_a_true_register_did_passes(history: list[Operation]) -> None:
    assert check(history) is None


@settings(max_examples=100, deadline=None)
@given(real_histories())
def test_a_read_of_what_was_overwritten_long_ago_is_found(history: list[Operation]) -> None:
    changes = [item for item in history if item.kind is not Kind.READ and item.result is OK]
    if len(changes) < 2:
        return
    end = max(item.end for item in history)
    last = Operation("c", "x", Kind.WRITE, "last", end + 1, end + 2)
    stale = Operation("c", "x", Kind.READ, changes[0].value, end + 3, end + 4)
    found = check([*history, last, stale])
    assert found is not None and found.register == "x"
