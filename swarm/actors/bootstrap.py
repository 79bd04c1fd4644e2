"""How a machine becomes a node: it founds a cluster, joins one, or renews a certificate that expired meanwhile.

The one idea: nothing secret is said to an unproved peer. A joiner first fetches the root certificate over a connection that
proves nothing, compares it with its token's digest, and only then dials again, now trusting that root alone, to show the
token. Each step is repeatable: key and nonce of a join are on disk before they are used, and node.json is written last.

Everything here either succeeds or raises a `SwarmError` that says what was refused, why and what to do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import trio
from attrs import field, frozen

from swarm.actors.ca import STORED_ROLES, sign
from swarm.ca.certificates import (
    KEY_RANDOM_BYTES,
    SERIAL_RANDOM_BYTES,
    CertificateError,
    CertificateExpired,
    check_pair,
    create_root,
    make_request,
    new_key,
    verify_chain,
)
from swarm.ca.credentials import Credentials
from swarm.ca.identity import Peer, PeerRole
from swarm.ca.tokens import TokenError, check_root, parse_token
from swarm.model.ids import ClusterId, Instant, NodeId
from swarm.model.objects import Cluster
from swarm.model.states import Role
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy
from swarm.ports.net import DialError
from swarm.ports.state_dir import Founding, NodeFile, StateDir
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.message import Request
from swarm.runtime.ref import Ref
from swarm.wire.messages.ca import GetRootCertificate, IssuedCertificate, JoinWithToken, RenewExpired, RootCertificate

DIAL_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 15.0
RETRY_FOR_S = 60.0
"""How long a join goes on while the cluster has no leader: an election, or the restart of a single manager."""
RETRY_PAUSE_S = 1.0
_TRANSIENT = frozenset(
    {ErrorCode.UNAVAILABLE, ErrorCode.NOT_LEADER, ErrorCode.TIMEOUT, ErrorCode.ACTOR_DIED, ErrorCode.MAILBOX_FULL}
)

R = TypeVar("R")
Progress = Callable[[str], None]


class AnonymousLink(Protocol):
    """A link to a manager that was dialled without a certificate; `wire.link.Link` is one."""

    @property
    def peer(self) -> Peer:
        """Who answers, from its certificate."""
        ...

    def ref(self, to: str) -> Ref:
        """One of its actors."""
        ...

    def close(self, reason: str) -> None:
        """End it."""
        ...


class Dialler(Protocol):
    """How a machine that is no node yet reaches a manager; `wire.links.Links` with its net makes one."""

    def trust(self, root_pem: bytes) -> None:
        """From now on accept only servers that chain to these roots; empty: any server (nothing is secret then)."""
        ...

    async def dial(self, address: str, *, timeout_s: float) -> AnonymousLink:
        """A link without a certificate; `DialError` says what is wrong and what to do."""
        ...


@frozen
class NodeSettings:
    """What the operator decides about a node when it is made."""

    hostname: str = ""
    listen: str = ""
    advertise: str = ""
    labels: dict[str, str] = field(factory=dict)
    executors: tuple[str, ...] = ()
    generic: tuple[str, ...] = ()


@frozen
class Made:
    """A node that is ready to start."""

    node: NodeFile
    credentials: Credentials


def new_cluster(state: StateDir, settings: NodeSettings, *, clock: Clock, entropy: Entropy) -> Made:
    """Found a cluster of one manager; `state.founding()` is what its first leader has to put into the store.

    EXISTS when the directory belongs to a cluster already.
    """
    state.require_empty()
    now = clock.now()
    cluster_id, node_id = ClusterId(entropy.new()), NodeId(entropy.new())
    root_key, node_key = new_key(entropy.bytes(KEY_RANDOM_BYTES)), new_key(entropy.bytes(KEY_RANDOM_BYTES))
    root = create_root(root_key, entropy.bytes(SERIAL_RANDOM_BYTES), now)
    cluster = Cluster(cluster_id, root_certificate=root, root_key=root_key)
    serial = entropy.bytes(SERIAL_RANDOM_BYTES)
    leaf = sign(cluster, make_request(node_key), node_id, PeerRole.MANAGER, now, serial)
    credentials = Credentials(leaf, node_key, root)
    state.save_founding(Founding(root, root_key, settings.labels))
    state.save_credentials(credentials)
    node = _node_file(settings, node_id, cluster_id, Role.MANAGER, (), now)
    state.save_node(node)
    return Made(node, credentials)


async def join(
    state: StateDir,
    address: str,
    token: str,
    settings: NodeSettings,
    *,
    dialler: Dialler,
    clock: Clock,
    entropy: Entropy,
    progress: Progress = lambda text: None,
) -> Made:
    """Become a node of the cluster whose manager answers at `address`; the token decides the role.

    Called again after a failure or a crash it goes on where it was, and makes no second node. `progress` is told what is
    being waited for. Raises `SwarmError`: EXISTS (the directory belongs to a cluster), INVALID (no token), DENIED (wrong,
    rotated-away or another cluster's token), UNAVAILABLE (address not reachable, or no leader for `RETRY_FOR_S`).
    """
    state.require_empty()
    try:
        parsed = parse_token(token)
    except TokenError as error:
        raise SwarmError(ErrorCode.INVALID, str(error)) from None
    root = await _fetch_root(dialler, address, progress)
    try:
        check_root(parsed, root.pem)
    except TokenError as error:
        raise SwarmError(ErrorCode.DENIED, f"{address}: {error}") from None
    except CertificateError as error:
        raise SwarmError(ErrorCode.DENIED, f"{address} sent no usable root certificate: {error}") from None
    pending = state.pending_join(entropy)
    request = JoinWithToken(str(parsed), make_request(pending.key_pem), pending.nonce, settings.labels)
    dialler.trust(root.pem)
    issued = await _ask_trusted(dialler, address, root.cluster_id, request, progress)
    credentials = Credentials(issued.pem, pending.key_pem, root.pem)
    peer = _check_issued(credentials, issued, root.cluster_id, clock)
    state.save_credentials(credentials)
    node = _node_file(
        settings, issued.node_id, ClusterId(root.cluster_id), STORED_ROLES[peer.role], (address,), clock.now()
    )
    state.save_node(node)
    state.join_done()
    return Made(node, credentials)


async def renew_expired(
    state: StateDir,
    addresses: tuple[str, ...],
    *,
    dialler: Dialler,
    clock: Clock,
    progress: Progress = lambda text: None,
) -> Credentials:
    """Renew a certificate that expired while the machine was off, through any manager that answers.

    Raises `SwarmError`: DENIED (removed, or expired too long ago: join again), UNAVAILABLE (no manager answers; a manager
    goes on then, since its own authority renews it once its store is open).
    """
    old, node = state.require_credentials(), state.require_node()
    dialler.trust(old.root_pem)
    request = RenewExpired(old.certificate_pem, make_request(old.key_pem))
    problems: list[str] = []
    for address in addresses:
        try:
            issued = await _ask_trusted(dialler, address, node.cluster_id, request, progress)
        except SwarmError as error:
            if error.code not in _TRANSIENT:
                raise
            problems.append(error.text)
            continue
        credentials = Credentials(issued.pem, old.key_pem, old.root_pem)
        _check_issued(credentials, issued, node.cluster_id, clock)
        state.save_credentials(credentials)
        return credentials
    why = "; ".join(problems) or "no manager's address is known"
    raise SwarmError(ErrorCode.UNAVAILABLE, f"this node's certificate has expired and no manager renews it: {why}")


def certificate_problem(credentials: Credentials, clock: Clock) -> CertificateExpired | None:
    """Whether the node's own certificate has expired; `SwarmError` when it is unusable for another reason."""
    try:
        verify_chain(credentials.certificate_pem, credentials.root_pem, clock.now())
    except CertificateExpired as expired:
        return expired
    except CertificateError as error:
        raise SwarmError(ErrorCode.PRECONDITION, f"this node's certificate cannot be used: {error}") from None
    return None


async def _fetch_root(dialler: Dialler, address: str, progress: Progress) -> RootCertificate:
    dialler.trust(b"")
    progress(f"asking {address} for the cluster's root certificate")
    async with _dialled(dialler, address) as link:
        return await _ask(link, GetRootCertificate(), address)


async def _ask_trusted(
    dialler: Dialler,
    address: str,
    cluster_id: str,
    request: JoinWithToken | RenewExpired,
    progress: Progress,
) -> IssuedCertificate:
    """Ask over a connection whose server proved to be a manager of the cluster, until there is a leader that answers."""
    give_up_at = trio.current_time() + RETRY_FOR_S
    while True:
        progress(f"asking {address} for a certificate")
        async with _dialled(dialler, address) as link:
            if link.peer.role is not PeerRole.MANAGER or link.peer.cluster_id != cluster_id:
                raise SwarmError(
                    ErrorCode.DENIED,
                    f"{address} is not a manager of this cluster: it proves to be {link.peer.role.value} "
                    f"{link.peer.node_id} of cluster {link.peer.cluster_id}; check the address",
                )
            try:
                return await _ask(link, request, address)
            except SwarmError as error:
                if error.code not in _TRANSIENT or trio.current_time() >= give_up_at:
                    raise
                progress(f"waiting for the cluster: {error.text}")
        await trio.sleep(RETRY_PAUSE_S)


@asynccontextmanager
async def _dialled(dialler: Dialler, address: str) -> AsyncIterator[AnonymousLink]:
    try:
        link = await dialler.dial(address, timeout_s=DIAL_TIMEOUT_S)
    except DialError as error:
        raise SwarmError(ErrorCode.UNAVAILABLE, str(error)) from None
    try:
        yield link
    finally:
        link.close("the certificate was asked for")


async def _ask(link: AnonymousLink, request: Request[R], address: str) -> R:
    try:
        return await link.ref("ca").ask(request, timeout_s=CALL_TIMEOUT_S)
    except SwarmError as error:
        raise SwarmError(error.code, f"{address}: {error.text}", error.details) from None


def _check_issued(credentials: Credentials, issued: IssuedCertificate, cluster_id: str, clock: Clock) -> Peer:
    """What was issued must be ours before it is kept: an error here is the cluster's, or a clock's."""
    try:
        check_pair(issued.pem, credentials.key_pem)
        peer = verify_chain(issued.pem, credentials.root_pem, clock.now())
    except CertificateError as error:
        raise SwarmError(ErrorCode.PRECONDITION, f"the certificate that was issued cannot be used: {error}") from None
    if (peer.node_id, peer.cluster_id) != (issued.node_id, cluster_id):
        raise SwarmError(ErrorCode.PRECONDITION, "the certificate that was issued names another node")
    return peer


def _node_file(
    settings: NodeSettings, node_id: NodeId, cluster_id: ClusterId, role: Role, managers: tuple[str, ...], now: float
) -> NodeFile:
    return NodeFile(
        node_id=node_id,
        cluster_id=cluster_id,
        role=role,
        hostname=settings.hostname,
        listen=settings.listen,
        advertise=settings.advertise,
        labels=settings.labels,
        executors=settings.executors,
        generic=settings.generic,
        managers=managers,
        joined_at=Instant(now),
    )
