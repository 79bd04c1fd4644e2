"""What a node proves itself with: its certificate, its private key, and the roots that it trusts."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class Credentials:
    """One consistent set, all PEM; the TLS contexts of both directions are built from it.

    `key_pem` never appears in a repr, so that a log line cannot leak it.
    """

    certificate_pem: bytes
    """The leaf first, then the intermediates that it is to be sent with, if any."""
    key_pem: bytes = field(repr=False)
    """PKCS#8, not encrypted."""
    root_pem: bytes
    """Every root that peers' certificates may chain to; more than one while a root rotates."""
