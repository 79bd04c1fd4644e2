"""When a node renews its certificate. Pure: the chance and the time are arguments.

A renewal lies between 50 and 80 % of what a certificate lives, at a random point, so that nodes that joined together do
not renew together. The backdated hour does not count as lived: otherwise a certificate of one hour would be renewed the
moment it is issued.
"""

from __future__ import annotations

from attrs import frozen

from swarm.ca.certificates import BACKDATE_S, Validity

EARLIEST_SHARE = 0.5
LATEST_SHARE = 0.8
RETRY_S_FIRST = 1.0
RETRY_S_MAX = 3600.0
RETRY_S_MAX_URGENT = 30.0
"""Cap while the certificate has expired or the role changed: the node is of no use until it succeeds."""
EXPIRED_GRACE_S = 365 * 86400.0
"""How long after its expiry a certificate still proves its owner to the authority, and to nobody else.

A machine that was off for months comes back by itself. The risk is a stolen key of a machine that was thrown away
without removing its node; a removed node is refused at once, whatever its certificate says.
"""


@frozen
class RenewalState:
    """What a renewer knows: its certificate's window, whether it must renew whatever the dates, failures in a row."""

    validity: Validity
    forced: bool = False
    failures: int = 0


def renew_at(validity: Validity, share: float) -> float:
    """The instant to renew at; `share` in [0, 1] picks the point between the earliest and the latest."""
    backdate = min(BACKDATE_S, (validity.not_after - validity.not_before) / 2)
    issued = validity.not_before + backdate
    life = validity.not_after - issued
    return issued + life * (EARLIEST_SHARE + (LATEST_SHARE - EARLIEST_SHARE) * share)


def wait_s(state: RenewalState, now: float, share: float) -> float:
    """How long to wait before the next attempt; 0 for at once. `share` in [0, 1] is fresh chance for every call."""
    expired = now >= state.validity.not_after
    urgent = expired or state.forced
    if state.failures:
        return retry_s(state.failures, share, urgent=urgent)
    if urgent:
        return 0.0
    return max(0.0, renew_at(state.validity, share) - now)


def retry_s(failures: int, share: float, *, urgent: bool) -> float:
    """Pause after the n-th failure in a row: doubles up to a cap, and a random half of it, so that nodes spread out."""
    cap = RETRY_S_MAX_URGENT if urgent else RETRY_S_MAX
    pause = min(cap, RETRY_S_FIRST * 2.0 ** min(failures - 1, 20))
    return pause * (0.5 + share / 2)
