"""Who is at the other end: roles and peers as certificates tell them."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen


class PeerRole(StrEnum):
    """What a caller may be. LOCAL is the unix socket of this machine: whoever may open it is an operator."""

    ANONYMOUS = "anonymous"
    WORKER = "worker"
    MANAGER = "manager"
    LOCAL = "local"


@frozen
class Peer:
    """A caller's identity: subject CN, OU and O of its verified certificate; empty ids for anonymous and local."""

    role: PeerRole
    node_id: str = ""
    cluster_id: str = ""
    expires_at: float = 0.0
    """Not-after of its certificate, seconds since 1970; 0 for none."""


ANONYMOUS = Peer(PeerRole.ANONYMOUS)
LOCAL = Peer(PeerRole.LOCAL)
