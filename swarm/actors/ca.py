"""The cluster's authority: hands out the trust roots, lets machines in by token, renews certificates.

The one idea: there is no session and no memory here. A joiner's node id is computed from its nonce and its key, so that a
repeated join, on this leader or the next, finds the node that the first one made; every issue is recorded in the node's
object through Raft, so that only a leader can issue. What a request wants decides nothing: the token decides the role of a
new node, the store that of a known one.

Open to peers without a certificate: joining (proved by a token), renewing an expired certificate (proved by the old
certificate and its key), the public roots. Refusals say what to do and never repeat a secret.
"""

from __future__ import annotations

import hashlib

from attrs import evolve, frozen

from swarm.actors.store_messages import ProposeChanges, ReadBarrier, WatchStore
from swarm.ca.certificates import (
    SERIAL_RANDOM_BYTES,
    Authority,
    CertificateError,
    certificate_key_bytes,
    request_key_bytes,
    serial_of,
    validity_of,
    verify_chain,
)
from swarm.ca.identity import Peer, PeerRole
from swarm.ca.renewal import EXPIRED_GRACE_S
from swarm.ca.tokens import TokenError, check_root, parse_token, role_for
from swarm.model.changes import Create, RefusalCode, Update
from swarm.model.ids import ID_RANDOM_BYTES, Instant, NodeId, id_from_bytes
from swarm.model.objects import Cluster, Node
from swarm.model.snapshot import Snapshot
from swarm.model.specs import NodeSpec
from swarm.model.states import Membership, Role
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.ref import Caller, Ref
from swarm.runtime.turn import Turn
from swarm.wire.messages.ca import (
    GetRootCertificate,
    IssuedCertificate,
    JoinWithToken,
    RenewCertificate,
    RenewExpired,
    RootCertificate,
)

STORE_TIMEOUT_S = 10.0
"""For one commit; a cluster without a quorum answers UNAVAILABLE instead of letting a joiner wait."""
RECORD_ATTEMPTS = 8
"""A node's object may change between reading and writing it; more often than this in a row is no accident."""
NONCE_LENGTH_MIN = 16
NONCE_LENGTH_MAX = 128
PROVISIONAL_EXPIRY_S = 3600.0
"""Long enough to elect a leader and be renewed by it."""
_NO_LEADER = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.NOT_LEADER, ErrorCode.TIMEOUT})
_JOIN_AGAIN = "to bring the machine back, erase its state directory and join it again with a token"
LABELS_MAX = 64
LABEL_BYTES_MAX = 512
"""Per key and value: a token lets a machine in, not megabytes of labels into everyone's store."""

PEER_ROLES = {Role.WORKER: PeerRole.WORKER, Role.MANAGER: PeerRole.MANAGER}
STORED_ROLES = {peer: role for role, peer in PEER_ROLES.items()}


@frozen
class _Leaf:
    """A signed certificate and what is recorded of it."""

    pem: bytes
    serial: str
    expires_at: Instant


class CertificateAuthority(Actor):
    """The actor `ca` of a manager. The roots come from any manager; joins and renewals succeed on the leader only."""

    def __init__(self, store: Ref, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy

    @on(GetRootCertificate)
    def root_certificate(self, _request: GetRootCertificate, turn: Turn[RootCertificate]) -> None:
        """From this manager's own copy: it does not need a leader, and the caller checks it by its token's digest."""
        self.answer_in_job(turn, self._root_certificate)

    @on(JoinWithToken)
    def join(self, request: JoinWithToken, turn: Turn[IssuedCertificate]) -> None:
        """See `_join`."""
        self.answer_in_job(turn, self._join, request)

    @on(RenewCertificate)
    def renew(self, request: RenewCertificate, turn: Turn[IssuedCertificate]) -> None:
        """See `_renew`."""
        self.answer_in_job(turn, self._renew, request, turn.caller)

    @on(RenewExpired)
    def renew_expired(self, request: RenewExpired, turn: Turn[IssuedCertificate]) -> None:
        """See `_renew_expired`."""
        self.answer_in_job(turn, self._renew_expired, request, turn.caller)

    # --- jobs: these wait for the store and touch no field ----------------------------------------------------------
    async def _root_certificate(self) -> RootCertificate:
        cluster = _cluster_of(await self._own_copy())
        return RootCertificate(cluster.root_certificate, cluster.id)

    async def _join(self, request: JoinWithToken) -> IssuedCertificate:
        _check_shape(request)
        view = await self._read()
        cluster = _cluster_of(view)
        role = role_by_token(request.token, cluster)
        node_id = node_id_for(request.nonce, _requested_key(request.csr_pem))
        if node_id in cluster.removed_nodes:
            raise _denied(f"node {node_id} was removed from this cluster: erase its state directory and join again")
        if view.node(node_id) is None:
            leaf = self._sign(cluster, request.csr_pem, node_id, role)
            stored = STORED_ROLES[role]
            node = Node(
                node_id,
                NodeSpec(labels=request.labels, desired_role=stored, membership=Membership.ACCEPTED),
                stored,
                certificate_serial=leaf.serial,
                certificate_expires_at=leaf.expires_at,
                created_at=self._clock.now(),
            )
            (result,) = await self._store.ask(ProposeChanges(((Create(node),),)), timeout_s=STORE_TIMEOUT_S)
            if result is None:
                return IssuedCertificate(node_id, leaf.pem, cluster.root_certificate)
        return await self._issue(request.csr_pem, node_id)

    async def _renew(self, request: RenewCertificate, caller: Caller) -> IssuedCertificate:
        return await self._issue(request.csr_pem, NodeId(caller.node_id))

    async def _renew_expired(self, request: RenewExpired, caller: Caller) -> IssuedCertificate:
        try:
            cluster = _cluster_of(await self._read())
            peer = self._check_expired(request, cluster)
            return await self._issue(request.csr_pem, NodeId(peer.node_id))
        except SwarmError as error:
            if not caller.is_local_actor or error.code not in _NO_LEADER:
                raise
        return await self._issue_provisional(request)

    async def _issue_provisional(self, request: RenewExpired) -> IssuedCertificate:
        """For this manager itself, from its own copy of the store and not recorded, hence short-lived.

        When all managers were off past their certificates' expiry, none of them can reach another to elect a leader; with
        this they can, and the renewer then asks the leader in the ordinary way.
        """
        view = await self._own_copy()
        cluster = _cluster_of(view)
        node = view.node(NodeId(self._check_expired(request, cluster).node_id))
        if node is None or node.role is not Role.MANAGER:
            raise _denied("this node is no manager by its own copy of the store; " + _JOIN_AGAIN)
        brief = evolve(cluster, settings=evolve(cluster.settings, certificate_expiry_s=PROVISIONAL_EXPIRY_S))
        leaf = self._sign(brief, request.csr_pem, node.id, PeerRole.MANAGER)
        return IssuedCertificate(node.id, leaf.pem, cluster.root_certificate)

    def _check_expired(self, request: RenewExpired, cluster: Cluster) -> Peer:
        try:
            peer = verify_chain(
                request.certificate_pem, cluster.root_certificate, self._clock.now(), grace_s=EXPIRED_GRACE_S
            )
            same_key = request_key_bytes(request.csr_pem) == certificate_key_bytes(request.certificate_pem)
        except CertificateError as error:
            raise _denied(f"the certificate cannot be renewed: {error}; {_JOIN_AGAIN}") from None
        if peer.cluster_id != cluster.id:
            raise _denied(f"the certificate is of another cluster ({peer.cluster_id}); {_JOIN_AGAIN}")
        if not same_key:
            raise _denied("an expired certificate is renewed for its own key only, and the request has another")
        return peer

    async def _issue(self, csr_pem: bytes, node_id: NodeId) -> IssuedCertificate:
        """A certificate for a known node with the role that the store says, recorded in the node before it is given."""
        for _ in range(RECORD_ATTEMPTS):
            view = await self._read()
            cluster = _cluster_of(view)
            node = view.node(node_id)
            if node is None:
                raise _denied(f"node {node_id} is not, or no longer, of this cluster; {_JOIN_AGAIN}")
            if node.spec.membership is not Membership.ACCEPTED:
                raise _denied(f"node {node_id} was not accepted into this cluster yet")
            leaf = self._sign(cluster, csr_pem, node_id, PEER_ROLES[node.role])
            recorded = evolve(node, certificate_serial=leaf.serial, certificate_expires_at=leaf.expires_at)
            (result,) = await self._store.ask(ProposeChanges(((Update(recorded),),)), timeout_s=STORE_TIMEOUT_S)
            if result is None:
                return IssuedCertificate(node_id, leaf.pem, cluster.root_certificate)
            if result.code not in (RefusalCode.OUT_OF_DATE, RefusalCode.NOT_FOUND):
                raise SwarmError(ErrorCode.UNAVAILABLE, f"the certificate could not be recorded: {result.text}")
        raise SwarmError(ErrorCode.UNAVAILABLE, f"node {node_id} changes too fast to record its certificate; try again")

    async def _own_copy(self) -> Snapshot:
        """This manager's store as it is, which needs no leader."""
        async with self._store.stream(WatchStore(), window=1) as inlet:
            return (await inlet.receive()).snapshot

    async def _read(self) -> Snapshot:
        return await self._store.ask(ReadBarrier(), timeout_s=STORE_TIMEOUT_S)

    def _sign(self, cluster: Cluster, csr_pem: bytes, node_id: NodeId, role: PeerRole) -> _Leaf:
        _requested_key(csr_pem)
        pem = sign(cluster, csr_pem, node_id, role, self._clock.now(), self._entropy.bytes(SERIAL_RANDOM_BYTES))
        return _Leaf(pem, serial_of(pem), Instant(validity_of(pem).not_after))


def role_by_token(text: str, cluster: Cluster) -> PeerRole:
    """The role that the token gives in this cluster; DENIED (INVALID for what is no token) says what to do."""
    try:
        token = parse_token(text)
    except TokenError as error:
        raise SwarmError(ErrorCode.INVALID, str(error)) from None
    role = role_for(token, worker=cluster.tokens.worker, manager=cluster.tokens.manager)
    if role is not None:
        return role
    try:
        check_root(token, cluster.root_certificate)
    except TokenError as error:
        raise _denied(str(error)) from None
    raise _denied(
        "this join token is not valid any more: the cluster's tokens were rotated since it was printed, or a character "
        "of it is wrong; print the present one with `swarm token worker` or `swarm token manager` on a manager"
    )


def node_id_for(nonce: str, key: bytes) -> NodeId:
    """The id of the node that joins with this nonce and key: the same for every repetition, not to be chosen freely."""
    digest = hashlib.sha256(b"swarm node id\0" + nonce.encode() + b"\0" + key).digest()
    return NodeId(id_from_bytes(digest[:ID_RANDOM_BYTES]))


def sign(cluster: Cluster, csr_pem: bytes, node_id: NodeId, role: PeerRole, now: Instant, serial: bytes) -> bytes:
    """PEM of a certificate of the cluster for the request's key. Raises `CertificateError`."""
    return Authority(cluster.root_certificate, cluster.root_key).issue(
        csr_pem,
        node_id=node_id,
        cluster_id=cluster.id,
        role=role,
        expiry_s=cluster.settings.certificate_expiry_s,
        serial=serial,
        now=now,
    )


def _cluster_of(view: Snapshot) -> Cluster:
    if view.cluster is None:
        raise SwarmError(ErrorCode.UNAVAILABLE, "the cluster is being made; try again in a moment")
    return view.cluster


def _requested_key(csr_pem: bytes) -> bytes:
    try:
        return request_key_bytes(csr_pem)
    except CertificateError as error:
        raise SwarmError(ErrorCode.INVALID, str(error)) from None


def _check_shape(request: JoinWithToken) -> None:
    if not NONCE_LENGTH_MIN <= len(request.nonce) <= NONCE_LENGTH_MAX:
        raise SwarmError(ErrorCode.INVALID, f"a join's nonce has {NONCE_LENGTH_MIN} to {NONCE_LENGTH_MAX} characters")
    if len(request.labels) > LABELS_MAX:
        raise SwarmError(ErrorCode.INVALID, f"a node has {LABELS_MAX} labels at most")
    for key, value in request.labels.items():
        if not key or len(key.encode()) + len(value.encode()) > LABEL_BYTES_MAX:
            raise SwarmError(ErrorCode.INVALID, f"a label has a key, and {LABEL_BYTES_MAX} bytes at most: {key[:40]!r}")


def _denied(text: str) -> SwarmError:
    return SwarmError(ErrorCode.DENIED, text)
