"""What is written into key files: a node's identity in one file, and the data key that seals the Raft log.

The one idea: a certificate and its key are one file, replaced by one rename, so that no crash can leave a pair that does
not match. Text in PEM form, readable by the usual tools. Pure; `ports.state_dir` writes the bytes.
"""

from __future__ import annotations

import base64
import hashlib

from swarm.ca.certificates import CertificateError, check_pair, load_certificates
from swarm.ca.credentials import Credentials

DATA_KEY_BYTES = 32
"""AES-256."""
_KEY_BEGIN = b"-----BEGIN PRIVATE KEY-----"
_KEY_END = b"-----END PRIVATE KEY-----"
_DATA_BEGIN = "-----BEGIN SWARM DATA KEY-----"
_DATA_END = "-----END SWARM DATA KEY-----"
_CHECK_BYTES = 8


def encode_identity(certificate_pem: bytes, key_pem: bytes) -> bytes:
    """The identity file: the private key, then the certificate with its chain."""
    check_pair(certificate_pem, key_pem)
    return key_pem.strip() + b"\n" + certificate_pem.strip() + b"\n"


def decode_identity(data: bytes, root_pem: bytes) -> Credentials:
    """The credentials of an identity file; `CertificateError` when it is damaged or its parts do not match."""
    start, end = data.find(_KEY_BEGIN), data.find(_KEY_END)
    if start < 0 or end < start:
        raise CertificateError("it holds no private key")
    end += len(_KEY_END)
    key_pem, certificate_pem = data[start:end] + b"\n", data[end:].lstrip()
    load_certificates(root_pem)
    check_pair(certificate_pem, key_pem)
    return Credentials(certificate_pem, key_pem, root_pem)


def encode_data_key(key: bytes) -> bytes:
    """The data key's file: the key and a check sum of it, so that damage is told from a wrong key."""
    if len(key) != DATA_KEY_BYTES:
        raise ValueError(f"a data key has {DATA_KEY_BYTES} bytes, not {len(key)}")
    body = base64.b64encode(key + _check(key)).decode("ascii")
    return f"{_DATA_BEGIN}\n{body}\n{_DATA_END}\n".encode("ascii")


def decode_data_key(data: bytes) -> bytes:
    """The data key; `CertificateError` when the file is damaged."""
    lines = data.decode("ascii", "replace").split()
    text = " ".join(lines)
    if not (text.startswith(_DATA_BEGIN) and text.endswith(_DATA_END)):
        raise CertificateError("it holds no data key")
    try:
        raw = base64.b64decode(text[len(_DATA_BEGIN) : -len(_DATA_END)].replace(" ", ""), validate=True)
    except ValueError:
        raise CertificateError("its data key is not base64") from None
    key, check = raw[:DATA_KEY_BYTES], raw[DATA_KEY_BYTES:]
    if len(key) != DATA_KEY_BYTES or check != _check(key):
        raise CertificateError("its data key fails its check sum")
    return key


def _check(key: bytes) -> bytes:
    return hashlib.sha256(b"swarm data key" + key).digest()[:_CHECK_BYTES]
