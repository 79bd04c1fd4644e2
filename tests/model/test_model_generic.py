"""User-defined resources: text, enough, claim, and what is left after a claim, whoever leads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.generic import (
    GenericResourceError,
    amount_left,
    claim,
    enough,
    free,
    lost,
    merged,
    parse,
    parse_request,
    to_text,
)
from swarm.model.specs import GenericResource

GPUS = GenericResource("gpu", 3, ("a", "b", "c"))
SSD = GenericResource("ssd", 4)


def want(kind: str, amount: int) -> GenericResource:
    return GenericResource(kind, amount)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("ssd=4", (SSD,)),
        ("ssd=0", (GenericResource("ssd", 0),)),
        ("gpu=a,gpu=b,gpu=c", (GPUS,)),
        ("gpu=a", (GenericResource("gpu", 1, ("a",)),)),
        ("gpu=a,ssd=4,gpu=b,gpu=c", (GPUS, SSD)),
        (" gpu = a , gpu=b,gpu=c", (GPUS,)),
    ],
)
def test_text_is_read(text: str, expected: tuple[GenericResource, ...]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gpu", "kind=value"),
        ("gpu=", "kind=value"),
        ("=3", "kind=value"),
        ("gpu=1,", "kind=value"),
        ("gpu=-1", "0 or more"),
        ("gpu=1,gpu=2", "more than one amount"),
        ("gpu=1,gpu=a", "mixes"),
        ("gpu=a,gpu=a", "twice"),
        ("gpu=a\nssd=1", "one line"),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(GenericResourceError, match=complaint):
        parse(text)


def test_a_task_asks_for_amounts_only() -> None:
    assert parse_request("gpu=2,ssd=1") == (want("gpu", 2), want("ssd", 1))
    with pytest.raises(GenericResourceError, match="amount, not for items"):
        parse_request("gpu=a")


def test_text_and_back() -> None:
    assert parse(to_text((GPUS, SSD))) == (GPUS, SSD)


@pytest.mark.parametrize(
    ("request_", "fits"),
    [
        (want("ssd", 3), True),
        (want("ssd", 4), True),
        (want("ssd", 5), False),
        (want("gpu", 3), True),
        (want("gpu", 4), False),
        (want("tpu", 1), False),
        (GenericResource("gpu", 1, ("a",)), False),
    ],
)
def test_enough(request_: GenericResource, fits: bool) -> None:
    assert enough(free((GPUS, SSD), {}, {}), (request_,)) is fits


def test_a_claim_subtracts_an_amount_and_takes_the_first_items_in_order() -> None:
    left = free((GPUS, SSD), {}, {})
    assert claim(left, (want("gpu", 2), want("ssd", 3))) == (GenericResource("gpu", 2, ("a", "b")), want("ssd", 3))
    assert left == {"gpu": ("c",), "ssd": 1}


def test_items_that_tasks_hold_are_not_handed_out_again_by_another_leader() -> None:
    """The reference claims from scratch after a leader change, and two tasks may get the same item."""
    left = free((GPUS,), {"gpu": 1}, {"gpu": {"a": 1}})
    assert claim(left, (want("gpu", 1),)) == (GenericResource("gpu", 1, ("b",)),)


def test_a_kind_whose_form_changed_promises_nothing_that_is_still_held() -> None:
    assert free((want("gpu", 3),), {"gpu": 2}, {"gpu": {"a": 1, "b": 1}}) == {"gpu": 1}
    assert free((GPUS,), {"gpu": 2}, {}) == {"gpu": ("c",)}
    assert free((want("gpu", 1),), {"gpu": 2}, {}) == {"gpu": 0}


def test_requests_of_one_kind_are_added_up() -> None:
    assert merged((want("gpu", 1), want("ssd", 1), want("gpu", 2))) == (want("gpu", 3), want("ssd", 1))


def test_a_claim_is_lost_when_its_item_its_amount_or_its_form_is_gone() -> None:
    held = (GenericResource("gpu", 1, ("b",)),)
    assert lost(held, free((GPUS,), {}, {})) is None
    assert lost(held, free((GenericResource("gpu", 1, ("x",)),), {}, {})) == held[0]
    assert lost(held, free((want("gpu", 5),), {}, {})) == held[0]
    assert lost(held, {}) == held[0]
    assert lost((want("ssd", 2),), free((want("ssd", 1),), {}, {})) == want("ssd", 2)
    left = free((SSD,), {}, {})
    assert lost((want("ssd", 3),), left) is None
    assert left == {"ssd": 1}
    assert lost((want("ssd", 2),), left) == want("ssd", 2)


kinds = st.sampled_from(["gpu", "ssd", "tpu"])


@st.composite
def advertised(draw: st.DrawFn) -> tuple[GenericResource, ...]:
    found = []
    for kind in sorted(draw(st.sets(kinds))):
        if draw(st.booleans()):
            items = tuple(f"{kind}-{i}" for i in range(draw(st.integers(1, 5))))
            found.append(GenericResource(kind, len(items), items))
        else:
            found.append(GenericResource(kind, draw(st.integers(0, 5))))
    return tuple(found)


@given(advertised(), st.lists(st.builds(want, kinds, st.integers(1, 3)), max_size=12))
def test_no_item_is_ever_held_twice_and_no_amount_exceeded_whoever_hands_them_out(
    present: tuple[GenericResource, ...], requests: list[GenericResource]
) -> None:
    """Each claim is made by a new leader, who knows only what the tasks hold."""
    amounts: dict[str, int] = {}
    items: dict[str, dict[str, int]] = {}
    for request in requests:
        left = free(present, amounts, items)
        if not enough(left, (request,)):
            assert amount_left(left, request.kind) < request.amount or request.kind not in left
            continue
        (got,) = claim(left, (request,))
        amounts[got.kind] = amounts.get(got.kind, 0) + got.amount
        for item in got.items:
            held = items.setdefault(got.kind, {})
            assert item not in held
            held[item] = 1
        assert left == free(present, amounts, items)
    for resource in present:
        assert amounts.get(resource.kind, 0) <= resource.amount
