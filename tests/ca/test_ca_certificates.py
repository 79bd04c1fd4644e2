"""Certificates: what the authority signs, what it refuses, what a peer's certificate says."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from swarm.ca import certificates as pki
from swarm.ca.identity import PeerRole

NOW = 1_800_000_000.0
DAY = 86400.0


def key(number: int) -> bytes:
    return pki.new_key(bytes([number]) * pki.KEY_RANDOM_BYTES)


SERIAL = bytes(range(pki.SERIAL_RANDOM_BYTES))
ROOT_KEY, NODE_KEY = key(1), key(2)
ROOT = pki.create_root(ROOT_KEY, SERIAL, NOW)


def leaf(
    role: PeerRole = PeerRole.WORKER,
    *,
    root: bytes = ROOT,
    root_key: bytes = ROOT_KEY,
    expiry_s: float = 90 * DAY,
    now: float = NOW,
) -> bytes:
    return pki.Authority(root, root_key).issue(
        pki.make_request(NODE_KEY), node_id="node1", cluster_id="cluster1", role=role, expiry_s=expiry_s,
        serial=SERIAL, now=now,
    )  # fmt: skip


def test_the_same_random_bytes_give_the_same_key() -> None:
    assert key(3) == key(3) != key(4)
    with pytest.raises(ValueError, match="40 random bytes"):
        pki.new_key(b"short")


@pytest.mark.parametrize("role", [PeerRole.WORKER, PeerRole.MANAGER])
def test_a_leaf_says_who_its_owner_is(role: PeerRole) -> None:
    peer = pki.verify_chain(leaf(role), ROOT, NOW)
    assert (peer.role, peer.node_id, peer.cluster_id) == (role, "node1", "cluster1")
    assert peer.expires_at == pytest.approx(NOW + 90 * DAY, abs=60)
    der = ssl.PEM_cert_to_DER_cert(leaf(role).decode())
    assert pki.peer_of(der) == pki.peer_of(leaf(role)) == peer


def test_a_leaf_is_backdated_by_an_hour() -> None:
    window = pki.validity_of(leaf())
    assert window.not_before == pytest.approx(NOW - 3600, abs=60)
    pki.verify_chain(leaf(), ROOT, NOW - 3000)
    with pytest.raises(pki.CertificateError, match="clock"):
        pki.verify_chain(leaf(), ROOT, NOW - 3601)


def test_names_of_a_leaf_are_role_and_node_and_for_managers_the_authority() -> None:
    def names(pem: bytes) -> list[str]:
        certificate = x509.load_pem_x509_certificate(pem)
        return certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value.get_values_for_type(x509.DNSName)  # fmt: skip

    assert names(leaf(PeerRole.WORKER)) == ["swarm-worker", "node1"]
    assert names(leaf(PeerRole.MANAGER)) == ["swarm-manager", "node1", "swarm-ca"]


def test_a_hostile_request_gets_nothing_but_its_key_signed() -> None:
    node_key = pki.load_key(NODE_KEY)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "swarm-manager")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("swarm-manager")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(node_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    signed = pki.Authority(ROOT, ROOT_KEY).issue(
        request, node_id="n", cluster_id="c", role=PeerRole.WORKER, expiry_s=DAY, serial=SERIAL, now=NOW
    )
    certificate = x509.load_pem_x509_certificate(signed)
    assert pki.peer_of(signed).role is PeerRole.WORKER
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "swarm-manager" not in names.get_values_for_type(x509.DNSName)


def test_requests_with_other_keys_or_damage_are_refused() -> None:
    def request(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    for bad in (request(ec.generate_private_key(ec.SECP384R1())), request(rsa.generate_private_key(65537, 2048))):
        with pytest.raises(pki.CertificateError, match="P-256"):
            pki.public_key_of_request(bad)
    for bad in (b"", b"nonsense", b"x" * 100_000, leaf()):
        with pytest.raises(pki.CertificateError):
            pki.public_key_of_request(bad)


def test_a_request_signed_by_another_key_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(pki.make_request(NODE_KEY)).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(pki.CertificateError, match="not signed by its own key"):
        pki.public_key_of_request(forged)


def test_expiry_has_a_minimum_and_never_outlives_the_root() -> None:
    assert pki.validity_of(leaf(expiry_s=1.0)).not_after == pytest.approx(NOW + 3600, abs=60)
    century = pki.validity_of(leaf(expiry_s=100 * 365 * DAY))
    assert century.not_after == pki.validity_of(ROOT).not_after


def test_an_expired_leaf_is_told_from_a_foreign_one_and_has_a_grace() -> None:
    later = NOW + 91 * DAY
    with pytest.raises(pki.CertificateExpired, match="expired on"):
        pki.verify_chain(leaf(), ROOT, later)
    assert pki.verify_chain(leaf(), ROOT, later, grace_s=2 * DAY).node_id == "node1"
    other = pki.create_root(key(9), SERIAL, NOW)
    with pytest.raises(pki.CertificateError, match="another cluster") as caught:
        pki.verify_chain(leaf(), other, later, grace_s=2 * DAY)
    assert not isinstance(caught.value, pki.CertificateExpired)


def test_a_leaf_may_not_sign() -> None:
    with pytest.raises(pki.CertificateError, match="none of the cluster's root"):
        pki.Authority(ROOT, NODE_KEY)
    forged = pki.Authority(leaf(), NODE_KEY).issue(
        pki.make_request(key(5)), node_id="evil", cluster_id="cluster1", role=PeerRole.MANAGER, expiry_s=DAY,
        serial=SERIAL, now=NOW,
    )  # fmt: skip
    with pytest.raises(pki.CertificateError, match="may not sign others"):
        pki.verify_chain(forged + leaf(), ROOT, NOW)


def test_a_subject_without_the_right_parts_is_refused() -> None:
    with pytest.raises(pki.CertificateError, match="OU"):
        pki.peer_of(ROOT)
    with pytest.raises(pki.CertificateError):
        pki.peer_of(b"\x30\x03junk")


def test_bundles_accept_any_of_their_roots_and_normalise() -> None:
    second_key = key(7)
    second = pki.create_root(second_key, SERIAL, NOW)
    both = b"# a comment\n" + ROOT + b"\n\n" + second
    assert pki.verify_chain(leaf(root=second, root_key=second_key), both, NOW).node_id == "node1"
    assert pki.verify_chain(leaf(), both, NOW).node_id == "node1"
    assert pki.normalise_bundle(both) == ROOT + second
    assert pki.issuer_key_hash(leaf(), both) != pki.issuer_key_hash(leaf(root=second, root_key=second_key), both)
    too_long = leaf() + ROOT * 4
    with pytest.raises(pki.CertificateError, match="more than 4"):
        pki.verify_chain(too_long, ROOT, NOW)


def test_openssl_accepts_the_chain_strictly(tmp_path: Path) -> None:
    """The TLS library's own view: a manager's certificate answers to the name that dialers expect, a worker's not."""
    now = time.time()  # OpenSSL reads the machine's clock
    root = pki.create_root(ROOT_KEY, SERIAL, now)
    for role, accepted in ((PeerRole.MANAGER, True), (PeerRole.WORKER, False)):
        (tmp_path / "node.pem").write_bytes(NODE_KEY + leaf(role, root=root, now=now))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tmp_path / "node.pem")
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(cadata=root.decode())
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        if accepted:
            _handshake(client, server)
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname"):
                _handshake(client, server)


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=pki.MANAGER_NAME)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert near.getpeercert() is not None
