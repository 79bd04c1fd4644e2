"""How machines get and renew certificates: the calls that are open to a peer without one, as it has none yet."""

from __future__ import annotations

from attrs import frozen

from swarm.model.ids import NodeId
from swarm.runtime.message import Request
from swarm.wire.registry import ANYONE, NODES, At, wire_message


@frozen
class RootCertificate:
    """PEM bundle of the cluster's trust roots; the caller checks it against its token's digest."""

    pem: bytes
    cluster_id: str


@wire_message("ca.root", to="ca", at=At.MANAGER, roles=ANYONE)
@frozen
class GetRootCertificate(Request[RootCertificate]):
    """The trust roots."""


@frozen
class IssuedCertificate:
    """A certificate for the caller's key, with its chain, and what the caller is now."""

    node_id: NodeId
    pem: bytes
    root_pem: bytes


@wire_message("ca.join", to="ca", at=At.LEADER, roles=ANYONE)
@frozen
class JoinWithToken(Request[IssuedCertificate]):
    """Become a node: the token decides the role. DENIED: not this cluster's present token.

    `nonce` is made once by the joiner, so that a call repeated after a lost answer makes no second node.
    """

    token: str
    csr_pem: bytes
    nonce: str
    labels: dict[str, str]


@wire_message("ca.renew", to="ca", at=At.LEADER, roles=NODES)
@frozen
class RenewCertificate(Request[IssuedCertificate]):
    """A fresh certificate for the caller's node id with its present observed role; no token needed."""

    csr_pem: bytes


@wire_message("ca.renew_expired", to="ca", at=At.LEADER, roles=ANYONE)
@frozen
class RenewExpired(Request[IssuedCertificate]):
    """A fresh certificate for a node whose own has expired, so that TLS takes it for anonymous.

    The request must be for the old certificate's key, which proves that the caller is its owner. DENIED: expired too long
    ago, of another cluster, another key, or the node was removed.
    """

    certificate_pem: bytes
    csr_pem: bytes
