"""Who may send what: the one decision between a peer's frame and an actor's mailbox.

Pure: the declaration, the certificate of the peer at the other end of the connection, the caller that a manager forwards
for, the cluster's id and its removed nodes go in; the caller to act for comes out, or DENIED with the reason. Nothing in a
message's body takes part.
"""

from __future__ import annotations

from collections.abc import Container

from swarm.ca.identity import Peer, PeerRole
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.registry import At, WireMessage


def authorize(
    declared: WireMessage,
    direct: Peer,
    forwarded: Peer | None,
    cluster_id: str,
    removed: Container[str],
) -> Peer:
    """The peer that the message counts as sent by: `forwarded` if there is one, else `direct`.

    `direct` is who the connection's certificate says; `forwarded` is whom a manager says it asks for, believed from
    managers only, one hop at most, and only for messages that the leader answers. `removed` holds the ids of nodes that
    were removed from the cluster. Raises DENIED, saying who was refused what and why.
    """
    _admit(declared, direct, cluster_id, removed)
    if forwarded is None:
        caller = direct
    elif direct.role is not PeerRole.MANAGER:
        raise _denied(declared, direct, "it is no manager, and only managers ask for others")
    elif declared.at is not At.LEADER:
        raise _denied(declared, direct, "it asks for another, and only what the leader answers is forwarded")
    else:
        _admit(declared, forwarded, cluster_id, removed)
        caller = forwarded
    if caller.role not in declared.roles:
        allowed = ", ".join(sorted(role.value for role in declared.roles))
        raise _denied(declared, caller, f"this may be sent by: {allowed}")
    return caller


def _admit(declared: WireMessage, peer: Peer, cluster_id: str, removed: Container[str]) -> None:
    if peer.role in (PeerRole.ANONYMOUS, PeerRole.LOCAL):
        return
    if not cluster_id or peer.cluster_id != cluster_id:
        raise _denied(declared, peer, f"its certificate is of the cluster {peer.cluster_id!r}, not of this one")
    if not peer.node_id:
        raise _denied(declared, peer, "its certificate names no node")
    if peer.node_id in removed:
        raise _denied(
            declared,
            peer,
            "this node was removed from the cluster; after swarm leave --force it can join again with a token",
        )


def _denied(declared: WireMessage, peer: Peer, why: str) -> SwarmError:
    return SwarmError(ErrorCode.DENIED, f"{declared.tag} from {describe(peer)} is refused: {why}")


def describe(peer: Peer) -> str:
    """A peer in words: `worker 3k2...`, `a peer without a certificate`, `the local socket`."""
    if peer.role is PeerRole.ANONYMOUS:
        return "a peer without a certificate"
    if peer.role is PeerRole.LOCAL:
        return "the local socket" + (f" of {peer.node_id}" if peer.node_id else "")
    return f"{peer.role.value} {peer.node_id}"
