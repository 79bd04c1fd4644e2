"""When certificates are renewed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.ca.certificates import BACKDATE_S, Validity
from swarm.ca.renewal import RETRY_S_MAX, RETRY_S_MAX_URGENT, RenewalState, renew_at, retry_s, wait_s

SHARES = st.floats(0, 1)
QUARTER = Validity(-BACKDATE_S, 90 * 86400.0)


@given(SHARES, st.floats(3600, 1e9))
def test_a_renewal_lies_between_half_and_four_fifths_of_the_life_that_is_left_at_issue(
    share: float, life: float
) -> None:
    at = renew_at(Validity(-BACKDATE_S, life), share)
    assert 0.5 * life - 1e-6 <= at <= 0.8 * life + 1e-3


def test_a_certificate_of_one_hour_is_not_renewed_at_once() -> None:
    assert wait_s(RenewalState(Validity(-BACKDATE_S, 3600.0)), 0.0, 0.0) == 1800.0


def test_expired_or_forced_means_now_and_failures_back_off() -> None:
    assert wait_s(RenewalState(QUARTER), 91 * 86400.0, 0.5) == 0.0
    assert wait_s(RenewalState(QUARTER, forced=True), 0.0, 0.5) == 0.0
    assert wait_s(RenewalState(QUARTER, forced=True, failures=1), 0.0, 0.0) == 0.5
    assert wait_s(RenewalState(QUARTER), 60 * 86400.0, 0.0) > 0 or renew_at(QUARTER, 0.0) <= 60 * 86400.0


@given(st.integers(1, 10_000), SHARES, st.booleans())
def test_pauses_grow_to_a_cap(failures: int, share: float, urgent: bool) -> None:
    pause = retry_s(failures, share, urgent=urgent)
    assert 0.5 <= pause <= (RETRY_S_MAX_URGENT if urgent else RETRY_S_MAX)
    assert retry_s(failures + 1, share, urgent=urgent) >= pause
