"""The file format of a backup: what it says of itself in plain words, then the cluster's state, sealed or not. Pure.

    b"swarm backup\\n", one line of JSON (`Header`), the body

A sealed body is AES-256-GCM under a key that scrypt makes of the passphrase and the header's salt; the lines before it are
bound to it, so that nothing of the file can be changed unnoticed. An unsealed body is checked against the header's SHA-256, which
finds damage and no malice. It never decides whether a backup may go without a passphrase.
"""

from __future__ import annotations

import hashlib
import json

from attrs import asdict, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MAGIC = b"swarm backup\n"
FORMAT = 1
SALT_BYTES = 16
NONCE_BYTES = 12
KEY_BYTES = 32
SCRYPT_N = 1 << 15
SCRYPT_R = 8
SCRYPT_P = 1
"""32 MB and a tenth of a second for each passphrase that is tried."""
SCRYPT_N_MAX = 1 << 20
"""A file that asks for more than 1 GB is no backup of ours."""
HEADER_BYTES_MAX = 4096


class BackupError(Exception):
    """The file is no backup, is damaged, or does not open with this passphrase; the text says which."""


@frozen
class Header:
    """What can be read without the passphrase."""

    cluster_id: str
    index: int
    """Of the newest change that is in it."""
    created_at: float
    sealed: bool = False
    salt: str = ""
    nonce: str = ""
    sha256: str = ""
    """Of an unsealed body."""
    n: int = SCRYPT_N
    r: int = SCRYPT_R
    p: int = SCRYPT_P
    format: int = FORMAT


def encode(cluster_id: str, index: int, created_at: float, body: bytes, passphrase: str, random: bytes) -> bytes:
    """The file. An empty passphrase leaves it unsealed; `random` is `SALT_BYTES + NONCE_BYTES` fresh random bytes."""
    if len(random) != SALT_BYTES + NONCE_BYTES:
        raise ValueError(f"{SALT_BYTES + NONCE_BYTES} random bytes are needed")
    if not passphrase:
        header = Header(cluster_id, index, created_at, sha256=hashlib.sha256(body).hexdigest())
        return _head(header) + body
    salt, nonce = random[:SALT_BYTES], random[SALT_BYTES:]
    header = Header(cluster_id, index, created_at, sealed=True, salt=salt.hex(), nonce=nonce.hex())
    head = _head(header)
    return head + AESGCM(_key(header, passphrase)).encrypt(nonce, body, head)


def header_of(data: bytes) -> Header:
    """What a file says of itself. `BackupError` when it is no backup that this version reads."""
    return _split(data)[0]


def decode(data: bytes, passphrase: str) -> tuple[Header, bytes]:
    """Header and body. `BackupError` when it is damaged, or the passphrase is missing or wrong."""
    header, head, body = _split(data)
    if not header.sealed:
        if hashlib.sha256(body).hexdigest() != header.sha256:
            raise BackupError("it is damaged: its content is not what was written")
        return header, body
    if not passphrase:
        raise BackupError("it is sealed: give the passphrase with --passphrase -, @FILE or SWARM_PASSPHRASE")
    try:
        return header, AESGCM(_key(header, passphrase)).decrypt(bytes.fromhex(header.nonce), body, head)
    except (InvalidTag, ValueError):
        raise BackupError("it does not open: the passphrase is wrong, or the file was changed or cut short") from None


def _key(header: Header, passphrase: str) -> bytes:
    kdf = Scrypt(salt=bytes.fromhex(header.salt), length=KEY_BYTES, n=header.n, r=header.r, p=header.p)
    return kdf.derive(passphrase.encode())


def _head(header: Header) -> bytes:
    return MAGIC + json.dumps(asdict(header), sort_keys=True).encode("ascii") + b"\n"


def _split(data: bytes) -> tuple[Header, bytes, bytes]:
    if not data.startswith(MAGIC):
        raise BackupError("it is no backup of a swarm")
    end = data.find(b"\n", len(MAGIC), len(MAGIC) + HEADER_BYTES_MAX)
    try:
        plain = json.loads(data[len(MAGIC) : end]) if end > 0 else None
        if not isinstance(plain, dict):
            raise ValueError("no header")
        if plain.get("format") != FORMAT:
            raise BackupError(f"it is of format {plain.get('format')!r}, and this version reads {FORMAT} only")
        header = Header(**plain)
        if not (1 < header.n <= SCRYPT_N_MAX and 0 < header.r <= SCRYPT_R and 0 < header.p <= 16):
            raise ValueError("scrypt")
    except (ValueError, TypeError):
        raise BackupError("it is damaged: its header cannot be read") from None
    return header, data[: end + 1], data[end + 1 :]
