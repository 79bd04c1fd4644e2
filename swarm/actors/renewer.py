"""Keeps a node's certificate fresh: in time, at once when its role changed, and takes over new trust roots.

The one idea: a fresh key for every certificate, written only together with it, and announced to the node only after it was
written. A renewal that fails is tried again with growing pauses; the old certificate serves until it expires. What the
manager answers is checked like anything else that comes from outside: right node, right cluster, right key, chain to roots
that are trusted already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio
from attrs import evolve, frozen

from swarm.ca.certificates import (
    KEY_RANDOM_BYTES,
    CertificateError,
    check_pair,
    make_request,
    new_key,
    normalise_bundle,
    peer_of,
    validity_of,
    verify_chain,
)
from swarm.ca.credentials import Credentials
from swarm.ca.identity import Peer, PeerRole
from swarm.ca.renewal import RenewalState, wait_s
from swarm.model.ids import Instant
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy
from swarm.ports.state_dir import StateDir
from swarm.runtime.actor import Actor, on
from swarm.runtime.errors import ActorDied, ErrorCode, SwarmError
from swarm.runtime.message import Message, Request
from swarm.runtime.ref import Ref
from swarm.runtime.turn import Turn
from swarm.wire.messages.ca import IssuedCertificate, RenewCertificate, RenewExpired

ASK_TIMEOUT_S = 20.0
WAIT_S_MAX = 3600.0
"""A longer wait is cut into pieces: wall clocks jump, and machines sleep."""

R = TypeVar("R")


@frozen
class RenewNow(Message):
    """Renew at once: the store says another role than the certificate. Renewed until the certificate says `role`."""

    role: PeerRole


@frozen
class TrustRoots(Message):
    """A manager sent these trust roots; taken over if they vouch for this node's own certificate too."""

    root_pem: bytes


@frozen
class CredentialsChanged(Message):
    """Told to the node: these are written to disk, new connections are to use them."""

    credentials: Credentials
    peer: Peer


@frozen
class GetRenewal(Request["RenewalView"]):
    """How renewal stands, for `swarm status` and tests."""


@frozen
class RenewalView:
    """The certificate's end, and why the last attempt failed (empty: it did not)."""

    expires_at: Instant
    failures: int
    problem: str


@frozen
class _Due(Message):
    """The wait is over; stale when `round` is not the present one."""

    round: int


@frozen
class _Answered(Message):
    """What became of an attempt."""

    round: int
    key_pem: bytes
    issued: IssuedCertificate | None
    error: SwarmError | None


class AskAuthority(Protocol):
    """Asks the authority of any manager that answers; made by the node."""

    async def __call__(self, request: Request[R], *, anonymous: bool, timeout_s: float) -> R:
        """The answer; `anonymous` dials without this node's certificate, which an expired one needs."""
        ...


class Renewer(Actor):
    """The actor `renewer` of a node."""

    def __init__(
        self,
        state: StateDir,
        ask: AskAuthority,
        node: Ref,
        clock: Clock,
        entropy: Entropy,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._state = state
        self._ask = ask
        self._node = node
        self._clock = clock
        self._entropy = entropy
        self._log = log
        self._credentials = state.require_credentials()
        self._peer = peer_of(self._credentials.certificate_pem)
        self._wanted: PeerRole | None = None
        """The role that the store says, while the certificate says another."""
        self._failures = 0
        self._problem = ""
        self._round = 0
        """Counts waits and attempts: what comes from an earlier one is passed over."""
        self._asking = False
        self._chance = entropy.uniform(0.0, 1.0)
        """Where in its span the renewal lies: drawn once per certificate and once per failure."""
        self._wait: trio.CancelScope | None = None

    async def started(self) -> None:
        """Begin to wait; an expired certificate is renewed at once."""
        self._plan()

    @on(RenewNow)
    def renew_now(self, message: RenewNow, _turn: Turn[None]) -> None:
        """Start an attempt unless one is under way."""
        if message.role is self._peer.role:
            self._wanted = None
        elif message.role is not self._wanted:
            self._wanted = message.role
            self._failures = 0
        else:
            return
        if not self._asking:
            self._plan()

    @on(TrustRoots)
    def trust_roots(self, message: TrustRoots, _turn: Turn[None]) -> None:
        """Take over roots that vouch for our own certificate: nobody can be talked out of the cluster it is in."""
        try:
            roots = normalise_bundle(message.root_pem)
            if roots == normalise_bundle(self._credentials.root_pem):
                return
            verify_chain(self._credentials.certificate_pem, roots, self._peer.expires_at)
        except CertificateError as error:
            self._log(f"new trust roots were refused: {error}")
            return
        self._take(evolve(self._credentials, root_pem=roots))

    @on(GetRenewal)
    def view(self, _request: GetRenewal, _turn: Turn[RenewalView]) -> RenewalView:
        """The present state."""
        return RenewalView(Instant(self._peer.expires_at), self._failures, self._problem)

    @on(_Due)
    def due(self, message: _Due, _turn: Turn[None]) -> None:
        """The wait is over, or a piece of it."""
        if message.round != self._round or self._asking:
            return
        if self._wait_s() > 0 and not self._failures:
            self._plan()
            return
        self._asking = True
        self._round += 1
        if self._is_expired():
            request: RenewCertificate | RenewExpired = RenewExpired(
                self._credentials.certificate_pem, make_request(self._credentials.key_pem)
            )
            key_pem = self._credentials.key_pem
        else:
            key_pem = new_key(self._entropy.bytes(KEY_RANDOM_BYTES))
            request = RenewCertificate(make_request(key_pem))
        self.job(self._attempt, self._round, key_pem, request)

    @on(_Answered)
    def answered(self, message: _Answered, _turn: Turn[None]) -> None:
        """Keep what was issued, or note why not, and plan the next attempt."""
        self._asking = False
        try:
            if message.error is not None:
                raise message.error
            assert message.issued is not None, "an attempt has an answer or an error"
            self._keep(message.issued, message.key_pem)
        except SwarmError as error:
            self._failures += 1
            self._chance = self._entropy.uniform(0.0, 1.0)
            self._problem = error.text
            self._log(f"the certificate was not renewed: {error.text}")
        else:
            done = self._wanted in (None, self._peer.role)
            self._failures = 0 if done else self._failures + 1
            self._problem = "" if done else f"it was renewed as {self._peer.role.value}, not yet as {self._wanted}"
            self._wanted = None if done else self._wanted
        self._plan()

    # --- inside -----------------------------------------------------------------------------------------------------
    def _keep(self, issued: IssuedCertificate, key_pem: bytes) -> None:
        try:
            check_pair(issued.pem, key_pem)
            peer = verify_chain(issued.pem, self._credentials.root_pem, self._clock.now())
        except CertificateError as error:
            raise SwarmError(ErrorCode.PRECONDITION, f"the new certificate cannot be used: {error}") from None
        if (peer.node_id, peer.cluster_id) != (self._peer.node_id, self._peer.cluster_id):
            raise SwarmError(ErrorCode.PRECONDITION, "the new certificate names another node")
        self._take(Credentials(issued.pem, key_pem, self._credentials.root_pem))

    def _take(self, credentials: Credentials) -> None:
        self._state.save_credentials(credentials)
        self._credentials = credentials
        self._peer = peer_of(credentials.certificate_pem)
        self._chance = self._entropy.uniform(0.0, 1.0)
        changed = CredentialsChanged(credentials, self._peer)
        if not self._node.offer(changed):
            self.job(self._tell_node, changed)

    def _is_expired(self) -> bool:
        return self._clock.now() >= self._peer.expires_at

    def _wait_s(self) -> float:
        forced = self._wanted is not None
        state = RenewalState(validity_of(self._credentials.certificate_pem), forced, self._failures)
        return wait_s(state, self._clock.now(), self._chance)

    def _plan(self) -> None:
        """Wait for the next attempt, instead of whatever was waited for."""
        if self._wait is not None:
            self._wait.cancel()
        self._round += 1
        self._wait = self.job(self._sleep, min(self._wait_s(), WAIT_S_MAX), self._round)

    async def _sleep(self, seconds: float, round: int) -> None:
        await trio.sleep(seconds)
        await self._tell_self(_Due(round))

    async def _attempt(self, round: int, key_pem: bytes, request: RenewCertificate | RenewExpired) -> None:
        issued: IssuedCertificate | None = None
        problem: SwarmError | None = None
        try:
            anonymous = isinstance(request, RenewExpired)
            issued = await self._ask(request, anonymous=anonymous, timeout_s=ASK_TIMEOUT_S)
        except SwarmError as error:
            problem = error
        await self._tell_self(_Answered(round, key_pem, issued, problem))

    async def _tell_node(self, message: Message) -> None:
        try:
            await self._node.tell(message)
        except ActorDied:
            pass  # the node is ending; it reads the files when it starts again

    async def _tell_self(self, message: Message) -> None:
        try:
            await self.ref.tell(message)
        except ActorDied:
            pass  # this actor is stopping
