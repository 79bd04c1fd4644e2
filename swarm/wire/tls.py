"""TLS contexts and what a certificate says of its owner. TLS 1.3 only, mutual, one private root per cluster.

A peer is known by its certificate's subject: CN is the node id, OU the role, O the cluster id; host names play no part. A
server asks for a certificate and takes a peer without one as anonymous; a client never takes a server whose certificate is
not a manager's of its own cluster, unless it dials anonymously and knows no root yet. OpenSSL judges expiry by the machine's
clock; whoever uses a link judges it by the clock port as well (`Peer.expires_at`).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Final

from swarm.ca.certificates import peer_of
from swarm.ca.credentials import Credentials
from swarm.ca.identity import ANONYMOUS, Peer


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """For the wire port: proves this node, checks a client's certificate when it has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    context.load_verify_locations(cadata=credentials.root_pem.decode("ascii"))
    _load_identity(context, credentials)
    return context


def client_context(credentials: Credentials | None, *, anonymous: bool) -> ssl.SSLContext:
    """For dialling: checks the server against the roots and, unless `anonymous`, proves this node.

    Without any root (the first call of a machine that is to join) nothing is checked: the caller then compares the root
    certificate that it gets with its token's digest before it trusts anything.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    if credentials is not None and credentials.root_pem:
        context.load_verify_locations(cadata=credentials.root_pem.decode("ascii"))
    elif anonymous:
        context.verify_mode = ssl.CERT_NONE
    if not anonymous:
        if credentials is None or not credentials.certificate_pem:
            raise ValueError("this node has no certificate to prove itself with")
        _load_identity(context, credentials)
    return context


def _load_identity(context: ssl.SSLContext, credentials: Credentials) -> None:
    # OpenSSL's loader takes paths only; an anonymous memory file keeps the key off every disk.
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(credentials.key_pem + b"\n" + credentials.certificate_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def peer_of_stream(stream: ssl.SSLObject) -> Peer:
    """Who is at the other end after a handshake; anonymous without a certificate, and when none was asked for or checked.

    Raises `CertificateError` for a certificate of our root that names no node, role or cluster.
    """
    if not stream.getpeercert():
        return ANONYMOUS
    certificate = stream.getpeercert(binary_form=True)
    assert certificate is not None
    return peer_of(certificate)


def explain(error: BaseException | None) -> str:
    """A TLS failure in words for the one who dialled; empty when it is none that is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if "expired" in error.verify_message or "not yet valid" in error.verify_message:
            return f"its certificate is not valid now ({error.verify_message}); compare the clocks of both machines"
        return (
            "its certificate is not of this node's cluster: the address belongs to another cluster, or is not swarm's"
        )
    if not isinstance(error, ssl.SSLError):
        return ""
    reason = (error.reason or "").upper()
    for mark, text in _ALERTS.items():
        if mark in reason:
            return text
    return f"TLS failed: {error.reason or error}"


_ALERTS: Final[Mapping[str, str]] = {
    "UNKNOWN_CA": "it does not know the root of this node's certificate: this node belongs to another cluster",
    "CERTIFICATE_EXPIRED": "it says that this node's certificate has expired; compare the clocks, or join again",
    "BAD_CERTIFICATE": "it refuses this node's certificate; compare the clocks of both machines",
    "CERTIFICATE_UNKNOWN": "it refuses this node's certificate; compare the clocks of both machines",
    "CERTIFICATE_REVOKED": "it refuses this node's certificate",
    "WRONG_VERSION_NUMBER": "something that does not speak TLS answers there; is this swarm's port?",
    "HTTP_REQUEST": "something that does not speak TLS answers there; is this swarm's port?",
    "PROTOCOL_VERSION": "it does not speak TLS 1.3; is this swarm's port?",
}
