"""What this machine is called and how others reach it."""

from __future__ import annotations

import socket

_PROBE = ("192.0.2.1", 9)
"""An address for documentation: a UDP socket that is 'connected' to it sends nothing, but tells the outward address."""


def machine_hostname() -> str:
    """The machine's own name."""
    return socket.gethostname()


def outward_host() -> str:
    """The address of the interface that leads out of this machine; loopback when none does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_PROBE)
            host: str = probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
    return host if host != "0.0.0.0" else "127.0.0.1"
