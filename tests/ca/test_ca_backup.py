"""The format of a backup: what is sealed opens only with the passphrase, and no change of a byte goes unnoticed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.ca.backup import MAGIC, BackupError, decode, encode, header_of

RANDOM = bytes(range(28))
BODY = b"the state of a cluster" * 10


def made(passphrase: str = "") -> bytes:
    return encode("c1", 42, 1000.5, BODY, passphrase, RANDOM)


@pytest.mark.parametrize("passphrase", ["", "correct horse", "pässwörd"])
def test_what_was_written_is_read(passphrase: str) -> None:
    header, body = decode(made(passphrase), passphrase)
    assert (header.cluster_id, header.index, header.created_at, body) == ("c1", 42, 1000.5, BODY)
    assert header_of(made(passphrase)).sealed is bool(passphrase)
    assert (BODY in made(passphrase)) is (not passphrase)


def test_without_the_passphrase_it_stays_shut() -> None:
    with pytest.raises(BackupError, match="is sealed"):
        decode(made("a"), "")
    with pytest.raises(BackupError, match="wrong"):
        decode(made("a"), "b")


@pytest.mark.parametrize("passphrase", ["", "a"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_changed_or_cut_file_is_refused(passphrase: str, data: st.DataObject) -> None:
    whole = made(passphrase)
    if data.draw(st.booleans()):
        bad = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        start = 0 if passphrase else whole.index(BODY)  # an unsealed header is not protected
        at = data.draw(st.integers(start, len(whole) - 1))
        bad = whole[:at] + bytes((whole[at] ^ data.draw(st.integers(1, 255)),)) + whole[at + 1 :]
    with pytest.raises(BackupError):
        decode(bad, passphrase)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no backup"),
        (b"PK\x03\x04", "no backup"),
        (MAGIC + b"{}\n", "format"),
        (MAGIC + b"[]\n", "damaged"),
        (MAGIC + b'{"format": 2}\n', "format 2"),
    ],
)
def test_other_files_are_named_as_such(data: bytes, words: str) -> None:
    with pytest.raises(BackupError, match=words):
        decode(data, "")
