"""Certificates: the root, the leaves that nodes prove themselves with, and what a peer's certificate says of it.

The one idea: a leaf's subject is the identity (CN node id, OU role, O cluster id) and only the cluster's own authority
writes it; from a request nothing but the public key is taken. All functions are pure: the time, the random bytes of keys
and the serial numbers are arguments. Nothing here reads a file or decides who may have a certificate.
"""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime
from typing import TypeVar

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm.ca.identity import Peer, PeerRole

ROOT_NAME = "swarm-ca"
ROOT_VALIDITY_S = 20 * 365 * 86400.0
BACKDATE_S = 3600.0
"""How far not-before lies in the past, so that machines whose clocks are behind accept a fresh certificate."""
LEAF_EXPIRY_S_MIN = 3600.0
KEY_RANDOM_BYTES = 40
"""P-256 scalar plus 64 extra bits, so that the reduction has no measurable bias (FIPS 186-5, A.2.1)."""
SERIAL_RANDOM_BYTES = 19
CHAIN_LENGTH_MAX = 4
"""Leaf, a cross-signed root, and room; a longer chain is refused unread."""
PEM_SIZE_BYTES_MAX = 64 * 1024

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ROLE_UNITS = {PeerRole.WORKER: "swarm-worker", PeerRole.MANAGER: "swarm-manager"}
_UNIT_ROLES = {unit: role for role, unit in _ROLE_UNITS.items()}
MANAGER_NAME = _ROLE_UNITS[PeerRole.MANAGER]
"""Server name that a dialler expects: only a manager's certificate has it, so no worker can pose as a manager."""

N = TypeVar("N")


class CertificateError(Exception):
    """A certificate, key or request that cannot be used; the text says what is wrong with it and what to do."""


class CertificateExpired(CertificateError):
    """Good in every other way, but past its not-after."""


@frozen
class Validity:
    """A certificate's window, seconds since 1970."""

    not_before: float
    not_after: float


def new_key(random_bytes: bytes) -> bytes:
    """PEM (PKCS#8, not encrypted) of the P-256 key that `KEY_RANDOM_BYTES` random bytes stand for."""
    if len(random_bytes) != KEY_RANDOM_BYTES:
        raise ValueError(f"a key is made from {KEY_RANDOM_BYTES} random bytes, not {len(random_bytes)}")
    scalar = int.from_bytes(random_bytes, "big") % (_ORDER - 1) + 1
    key = ec.derive_private_key(scalar, ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_request(key_pem: bytes) -> bytes:
    """PEM of a signing request for the key; its subject is empty, since the authority would ignore it."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(load_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def create_root(key_pem: bytes, serial: bytes, now: float) -> bytes:
    """PEM of a self-signed root for the key, valid 20 years. `serial` is `SERIAL_RANDOM_BYTES` random bytes."""
    key = load_key(key_pem)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ROOT_NAME)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(_serial(serial))
        .not_valid_before(_minute(now - BACKDATE_S))
        .not_valid_after(_minute(now + ROOT_VALIDITY_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Authority:
    """A root with its key: signs leaves. About 100 us a signature; the key is parsed once."""

    def __init__(self, root_pem: bytes, key_pem: bytes) -> None:
        """Raises `CertificateError` when the key is not that of one of the roots."""
        self._key = load_key(key_pem)
        public = self._key.public_key()
        matching = [root for root in load_certificates(root_pem) if root.public_key() == public]
        if not matching:
            raise CertificateError("the signing key belongs to none of the cluster's root certificates")
        self._root = matching[0]

    @property
    def expires_at(self) -> float:
        """When the root itself ends, seconds since 1970."""
        return self._root.not_valid_after_utc.timestamp()

    def issue(
        self, request_pem: bytes, *, node_id: str, cluster_id: str, role: PeerRole, expiry_s: float, serial: bytes,
        now: float,
    ) -> bytes:  # fmt: skip
        """PEM of a leaf for the request's public key; the identity comes from the arguments alone.

        `expiry_s` counts from `now` and is at least `LEAF_EXPIRY_S_MIN`; the leaf never outlives the root.
        Raises `CertificateError` for a request that is damaged, not signed by its own key, or not of a P-256 key.
        """
        public = public_key_of_request(request_pem)
        unit = _ROLE_UNITS[role]
        names = [unit, node_id] + ([ROOT_NAME] if role is PeerRole.MANAGER else [])
        not_after = min(now + max(expiry_s, LEAF_EXPIRY_S_MIN), self.expires_at)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(node_id, unit, cluster_id))
            .issuer_name(self._root.subject)
            .public_key(public)
            .serial_number(_serial(serial))
            .not_valid_before(_minute(now - BACKDATE_S))
            .not_valid_after(_minute(not_after))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(_both_sides(), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def verify_chain(chain_pem: bytes, root_pem: bytes, now: float, *, grace_s: float = 0.0) -> Peer:
    """Who the chain's leaf says its owner is, after checking it up to one of the roots.

    `chain_pem` is the leaf, then its intermediates in order. `grace_s` accepts a leaf that expired at most so long ago.
    Raises `CertificateExpired` when only the date of the leaf is wrong, `CertificateError` for everything else.
    """
    chain = load_certificates(chain_pem)
    roots = load_certificates(root_pem)
    if len(chain) > CHAIN_LENGTH_MAX:
        raise CertificateError(f"the chain has {len(chain)} certificates, more than {CHAIN_LENGTH_MAX}")
    root = _anchor(chain, roots)
    for certificate in [*chain[1:], root]:
        _check_authority(certificate, now)
    peer = _peer(chain[0])
    _check_dates(chain[0], now, grace_s)
    return peer


def peer_of(certificate: bytes) -> Peer:
    """Who a certificate (DER, or PEM whose first one counts) says its owner is. Its chain is not checked here."""
    return _peer(_load_leaf(certificate))


def validity_of(certificate: bytes) -> Validity:
    """The window of a certificate (DER or PEM, the first one)."""
    leaf = _load_leaf(certificate)
    return Validity(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())


def serial_of(certificate: bytes) -> str:
    """The serial number in hex."""
    return f"{_load_leaf(certificate).serial_number:x}"


def issuer_key_hash(chain_pem: bytes, root_pem: bytes) -> str:
    """SHA-256 in hex of the public key that signed the leaf: tells whether a node moved to a new root."""
    leaf = _load_leaf(chain_pem)
    for candidate in [*load_certificates(chain_pem)[1:], *load_certificates(root_pem)]:
        if _signed_by(leaf, candidate):
            return hashlib.sha256(_public_bytes(candidate.public_key())).hexdigest()
    raise CertificateError("the certificate was signed by none of the given roots")


def public_key_of_request(request_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request, after checking that the request was signed with it."""
    if len(request_pem) > PEM_SIZE_BYTES_MAX:
        raise CertificateError("the signing request is too large")
    try:
        request = x509.load_pem_x509_csr(request_pem)
        public = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"the signing request cannot be read: {error}") from None
    if not valid:
        raise CertificateError("the signing request is not signed by its own key")
    return _require_p256(public)


def request_key_bytes(request_pem: bytes) -> bytes:
    """The request's public key in DER: two requests of one key give the same bytes."""
    return _public_bytes(public_key_of_request(request_pem))


def certificate_key_bytes(certificate: bytes) -> bytes:
    """The certificate's public key in DER, to compare with `request_key_bytes`."""
    return _public_bytes(_load_leaf(certificate).public_key())


def check_pair(certificate: bytes, key_pem: bytes) -> None:
    """Raises `CertificateError` unless the private key belongs to the certificate."""
    if certificate_key_bytes(certificate) != _public_bytes(load_key(key_pem).public_key()):
        raise CertificateError("the private key does not belong to the certificate")


def load_key(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The private key; `CertificateError` when it is damaged, encrypted, or not P-256."""
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"the private key cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the private key is not an ECDSA P-256 key")
    return key


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """All certificates of a PEM bundle, in order; `CertificateError` when there is none or one is damaged."""
    if len(pem) > PEM_SIZE_BYTES_MAX:
        raise CertificateError("the certificate bundle is too large")
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"the certificate cannot be read: {error}") from None


def normalise_bundle(pem: bytes) -> bytes:
    """The bundle without headers, comments and odd spacing: equal bundles become equal bytes."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in load_certificates(pem))


def _load_leaf(certificate: bytes) -> x509.Certificate:
    if b"-----BEGIN" in certificate:
        return load_certificates(certificate)[0]
    try:
        return x509.load_der_x509_certificate(certificate)
    except ValueError as error:
        raise CertificateError(f"the certificate cannot be read: {error}") from None


def _peer(leaf: x509.Certificate) -> Peer:
    unit = _name_part(leaf, NameOID.ORGANIZATIONAL_UNIT_NAME, "OU")
    role = _UNIT_ROLES.get(unit)
    if role is None:
        raise CertificateError(f"the certificate's role (OU) is {unit!r}, not one of {', '.join(sorted(_UNIT_ROLES))}")
    return Peer(
        role=role,
        node_id=_name_part(leaf, NameOID.COMMON_NAME, "CN"),
        cluster_id=_name_part(leaf, NameOID.ORGANIZATION_NAME, "O"),
        expires_at=leaf.not_valid_after_utc.timestamp(),
    )


def _name_part(leaf: x509.Certificate, oid: x509.ObjectIdentifier, short: str) -> str:
    values = leaf.subject.get_attributes_for_oid(oid)
    if len(values) != 1 or not values[0].value:
        raise CertificateError(f"the certificate's subject has {len(values)} {short} parts instead of one")
    return str(values[0].value)


def _anchor(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> x509.Certificate:
    for certificate, following in itertools.pairwise(chain):
        if not _signed_by(certificate, following):
            raise CertificateError("the chain is out of order: a certificate was not signed by the one after it")
    for root in roots:
        if _signed_by(chain[-1], root):
            return root
    raise CertificateError("the certificate was not signed by this cluster's root: it is of another cluster")


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_authority(certificate: x509.Certificate, now: float) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        raise CertificateError("the chain holds a certificate that may not sign others")
    if not certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp():
        raise CertificateError(
            f"the signing certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC only; check this machine's clock"
        )


def _check_dates(leaf: x509.Certificate, now: float, grace_s: float) -> None:
    if now < leaf.not_valid_before_utc.timestamp():
        raise CertificateError(
            f"the certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, which by this "
            "machine's clock has not come; check the clocks"
        )
    if now > leaf.not_valid_after_utc.timestamp() + grace_s:
        raise CertificateExpired(f"the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")


def _require_p256(public: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise CertificateError("the key is not an ECDSA P-256 key")
    return public


def _public_bytes(public: object) -> bytes:
    return _require_p256(public).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _subject(node_id: str, unit: str, cluster_id: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, node_id),
        ]
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, content_commitment=False, key_encipherment=not authority,
        data_encipherment=False, key_agreement=False, key_cert_sign=authority, crl_sign=authority,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _both_sides() -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


def _serial(random_bytes: bytes) -> int:
    if len(random_bytes) != SERIAL_RANDOM_BYTES:
        raise ValueError(f"a serial number is made from {SERIAL_RANDOM_BYTES} random bytes, not {len(random_bytes)}")
    return int.from_bytes(random_bytes, "big") | 1 << (8 * SERIAL_RANDOM_BYTES - 1)


def _minute(at: float) -> datetime:
    return datetime.fromtimestamp(at // 60 * 60, UTC)
