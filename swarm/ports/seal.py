"""Sealing of what is stored: AES-256-GCM, each record bound to its place, so that damage and misplacing are detected.

A sealed record is

    format byte, salt (16 bytes), counter (8 bytes), ciphertext with its tag

The key of a record is derived (HKDF-SHA256) from the data key and the salt, which is drawn anew at each opening; within an
opening the counter is the nonce. So no nonce is used twice under one key, also when a record that never became durable is
written again after a crash, and however many records there are. What a record is (its table, its place) is associated data:
it is not stored, and a record that was moved does not open.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FORMAT = 1
SALT_BYTES = 16
COUNTER_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = 1 + SALT_BYTES + COUNTER_BYTES + TAG_BYTES
DATA_KEY_BYTES = 32


class SealBroken(Exception):
    """A record does not open: it was changed, moved, or sealed with another key."""


class Sealer:
    """Seals and opens records under one data key. `salt` is 16 fresh random bytes, drawn for this object alone."""

    def __init__(self, data_key: bytes, salt: bytes) -> None:
        if len(data_key) != DATA_KEY_BYTES or len(salt) != SALT_BYTES:
            raise ValueError(f"a data key has {DATA_KEY_BYTES} bytes and a salt {SALT_BYTES}")
        self._data_key = data_key
        self._salt = salt
        self._counter = 0
        self._ciphers: dict[bytes, AESGCM] = {}
        """By salt: one for each opening of the past that still has records."""
        self._cipher = self._cipher_of(salt)

    def seal(self, plain: bytes, place: bytes) -> bytes:
        """The sealed record that opens only at `place`."""
        self._counter += 1
        counter = self._counter.to_bytes(COUNTER_BYTES, "big")
        sealed = self._cipher.encrypt(counter.rjust(NONCE_BYTES, b"\0"), plain, place)
        return b"".join((bytes((FORMAT,)), self._salt, counter, sealed))

    def open(self, record: object, place: bytes) -> bytes:
        """What was sealed for `place`; `SealBroken` otherwise."""
        if not isinstance(record, bytes) or len(record) < OVERHEAD_BYTES or record[0] != FORMAT:
            raise SealBroken("it is no sealed record")
        salt = record[1 : 1 + SALT_BYTES]
        counter = record[1 + SALT_BYTES : 1 + SALT_BYTES + COUNTER_BYTES]
        try:
            return self._cipher_of(salt).decrypt(
                counter.rjust(NONCE_BYTES, b"\0"), record[1 + SALT_BYTES + COUNTER_BYTES :], place
            )
        except InvalidTag:
            raise SealBroken("it fails its check") from None

    def _cipher_of(self, salt: bytes) -> AESGCM:
        cipher = self._ciphers.get(salt)
        if cipher is None:
            key = HKDF(SHA256(), DATA_KEY_BYTES, salt, b"swarm sealed record").derive(self._data_key)
            cipher = self._ciphers[salt] = AESGCM(key)
        return cipher
