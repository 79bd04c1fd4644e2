"""Join tokens: making, reading, refusing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.ca.certificates import KEY_RANDOM_BYTES, SERIAL_RANDOM_BYTES, create_root, new_key
from swarm.ca.identity import PeerRole
from swarm.ca.tokens import (
    PREFIX,
    SECRET_RANDOM_BYTES,
    JoinToken,
    TokenError,
    check_root,
    new_token,
    parse_token,
    role_for,
)


def root(number: int) -> bytes:
    return create_root(new_key(bytes([number]) * KEY_RANDOM_BYTES), bytes(SERIAL_RANDOM_BYTES), 1.8e9)


ROOT = root(1)
WORKER = new_token(ROOT, b"w" * SECRET_RANDOM_BYTES)
MANAGER = new_token(ROOT, b"m" * SECRET_RANDOM_BYTES)


@given(st.binary(min_size=SECRET_RANDOM_BYTES, max_size=SECRET_RANDOM_BYTES))
def test_every_token_reads_back(secret: bytes) -> None:
    token = new_token(ROOT, secret)
    assert len(token) == len(PREFIX) + 1 + 50 + 1 + 25
    assert str(parse_token(f"  '{token}'\n")) == token
    check_root(parse_token(token), ROOT)


@given(st.text(max_size=100) | st.text("SWARM-1abc", max_size=100))
def test_other_text_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(TokenError, match="swarm token worker"):
        parse_token(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (WORKER[:-1], "truncated: 1 char"),
        (WORKER[:40], "truncated"),
        (WORKER + "x", "too long"),
        (WORKER + "-x", "too many parts"),
        ("SWMTKN-1-" + WORKER[8:], "Docker Swarm"),
        ("SWARM-2-" + WORKER[8:], "starts with SWARM-1-"),
        (WORKER[:-1] + "!", "characters"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_never_the_secret(text: str, says: str) -> None:
    with pytest.raises(TokenError, match=says) as caught:
        parse_token(text)
    assert WORKER[-25:-1] not in str(caught.value)


def test_a_token_of_another_cluster_is_told_by_its_digest() -> None:
    with pytest.raises(TokenError, match="not of the cluster that answered"):
        check_root(parse_token(WORKER), root(2))


def test_the_secret_decides_the_role() -> None:
    assert role_for(parse_token(WORKER), worker=WORKER, manager=MANAGER) is PeerRole.WORKER
    assert role_for(parse_token(MANAGER), worker=WORKER, manager=MANAGER) is PeerRole.MANAGER
    rotated = new_token(ROOT, b"n" * SECRET_RANDOM_BYTES)
    assert role_for(parse_token(WORKER), worker=rotated, manager=MANAGER) is None
    assert role_for(parse_token(WORKER), worker="", manager="") is None


def test_a_secret_stays_out_of_the_repr() -> None:
    assert "secret" not in repr(JoinToken("d", "s"))
