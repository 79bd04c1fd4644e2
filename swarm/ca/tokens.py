"""Join tokens: the one string that a new machine needs. `SWARM-1-<digest>-<secret>`.

The digest pins the cluster's root certificate, so that the joiner knows the right cluster over an untrusted network; the
secret is what the cluster checks, and which of its two secrets it is decides the role. Pure: the random bytes of a
secret are an argument. A token never appears in an error's text.
"""

from __future__ import annotations

import hashlib
import hmac

from attrs import field, frozen

from swarm.ca.certificates import normalise_bundle
from swarm.ca.identity import PeerRole

PREFIX = "SWARM-1"
DIGEST_LENGTH = 50
"""SHA-256 in base 36."""
SECRET_LENGTH = 25
"""128 bits in base 36."""
SECRET_RANDOM_BYTES = 16
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_HOW_TO_GET = "print it again with `swarm token worker` or `swarm token manager` on a manager and copy the whole line"


class TokenError(Exception):
    """A string that is no join token, or a token of another cluster; says what is wrong and how to get a right one."""


@frozen
class JoinToken:
    """A token's two parts."""

    digest: str
    """Of the root bundle, `DIGEST_LENGTH` base-36 characters."""
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{PREFIX}-{self.digest}-{self.secret}"


def new_token(root_pem: bytes, random_bytes: bytes) -> str:
    """A token with a fresh secret from `SECRET_RANDOM_BYTES` random bytes."""
    if len(random_bytes) != SECRET_RANDOM_BYTES:
        raise ValueError(f"a token's secret is made from {SECRET_RANDOM_BYTES} random bytes, not {len(random_bytes)}")
    return str(JoinToken(root_digest(root_pem), _base36(random_bytes, SECRET_LENGTH)))


def root_digest(root_pem: bytes) -> str:
    """What tokens carry of the trust roots: SHA-256 of the normalised bundle, base 36."""
    return _base36(hashlib.sha256(normalise_bundle(root_pem)).digest(), DIGEST_LENGTH)


def parse_token(text: str) -> JoinToken:
    """The token's parts; surrounding blanks and quotes of a pasted token are forgiven, nothing else."""
    token = text.strip().strip("'\"")
    if not token:
        raise TokenError(f"the join token is empty; {_HOW_TO_GET}")
    if token.upper().startswith("SWMTKN-"):
        raise TokenError(f"this is a join token of Docker Swarm, not of this cluster; {_HOW_TO_GET}")
    if not token.startswith(PREFIX + "-"):
        raise TokenError(f"a join token starts with {PREFIX}-, this one does not; {_HOW_TO_GET}")
    parts = token[len(PREFIX) + 1 :].split("-")
    if len(parts) > 2:
        raise TokenError(f"the join token has too many parts; {_HOW_TO_GET}")
    digest, secret = parts if len(parts) == 2 else (parts[0], "")
    missing = DIGEST_LENGTH + SECRET_LENGTH - len(digest) - len(secret)
    if missing > 0:
        raise TokenError(f"the join token is truncated: {missing} characters are missing; {_HOW_TO_GET}")
    if len(digest) != DIGEST_LENGTH or len(secret) != SECRET_LENGTH:
        raise TokenError(f"the join token is too long: something was added to it; {_HOW_TO_GET}")
    if not all(character in _DIGITS for character in digest + secret):
        raise TokenError(f"the join token holds characters that no token has; {_HOW_TO_GET}")
    return JoinToken(digest, secret)


def check_root(token: JoinToken, root_pem: bytes) -> None:
    """Raises `TokenError` unless the roots are those that the token was made for."""
    if not hmac.compare_digest(token.digest, root_digest(root_pem)):
        raise TokenError(
            "this join token is not of the cluster that answered: its digest and the cluster's root certificate "
            f"differ; check the address, or {_HOW_TO_GET}"
        )


def role_for(token: JoinToken, *, worker: str, manager: str) -> PeerRole | None:
    """The role that the secret gives among the cluster's present tokens, None for a wrong or rotated-away one.

    Both comparisons always run, each in constant time.
    """
    is_manager = hmac.compare_digest(str(token), manager)
    is_worker = hmac.compare_digest(str(token), worker)
    if is_manager:
        return PeerRole.MANAGER
    return PeerRole.WORKER if is_worker else None


def _base36(data: bytes, length: int) -> str:
    number = int.from_bytes(data, "big")
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits)).rjust(length, "0")
