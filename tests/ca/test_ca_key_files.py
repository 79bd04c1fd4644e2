"""Key files: what is written reads back, and damage is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.ca import certificates as pki
from swarm.ca.identity import PeerRole
from swarm.ca.key_files import DATA_KEY_BYTES, decode_data_key, decode_identity, encode_data_key, encode_identity

ROOT_KEY, NODE_KEY, OTHER_KEY = (pki.new_key(bytes([n]) * pki.KEY_RANDOM_BYTES) for n in (1, 2, 3))
SERIAL = bytes(pki.SERIAL_RANDOM_BYTES)
ROOT = pki.create_root(ROOT_KEY, SERIAL, 1.8e9)
LEAF = pki.Authority(ROOT, ROOT_KEY).issue(
    pki.make_request(NODE_KEY), node_id="n", cluster_id="c", role=PeerRole.WORKER, expiry_s=1e6, serial=SERIAL,
    now=1.8e9,
)  # fmt: skip


def test_an_identity_reads_back_with_its_chain() -> None:
    credentials = decode_identity(encode_identity(LEAF + ROOT, NODE_KEY), ROOT)
    assert (credentials.certificate_pem, credentials.key_pem, credentials.root_pem) == (LEAF + ROOT, NODE_KEY, ROOT)
    assert "PRIVATE" not in repr(credentials)


def test_a_pair_that_does_not_match_is_neither_written_nor_read() -> None:
    with pytest.raises(pki.CertificateError, match="does not belong"):
        encode_identity(LEAF, OTHER_KEY)
    with pytest.raises(pki.CertificateError, match="does not belong"):
        decode_identity(OTHER_KEY + LEAF, ROOT)


@settings(max_examples=50)
@given(st.integers(0, 5000))
def test_a_torn_identity_is_refused(length: int) -> None:
    whole = encode_identity(LEAF, NODE_KEY)
    torn = whole[: length % (len(whole) - 1)]
    with pytest.raises(pki.CertificateError):
        decode_identity(torn, ROOT)


@given(st.binary(min_size=DATA_KEY_BYTES, max_size=DATA_KEY_BYTES))
def test_a_data_key_reads_back(key: bytes) -> None:
    assert decode_data_key(encode_data_key(key)) == key


@settings(max_examples=50)
@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_data_key_is_refused(at: int, value: int) -> None:
    key = bytes(range(DATA_KEY_BYTES))
    data = bytearray(encode_data_key(key))
    data[at % len(data)] = value
    try:
        assert decode_data_key(bytes(data)) == key
    except pki.CertificateError:
        pass
