"""Ports to listen on that nobody else takes in the meantime: for demos, tests and benchmarks on loopback."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from swarm.ports.entropy import SystemEntropy

PORTS = range(10_000, 32_000)
"""Where ports are drawn from: above what services usually have."""
PORTS_MIN = 1_000
"""With fewer to draw from, two that draw at once are likely to meet."""
TRIES_MAX = 100
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_OUTGOING_DEFAULT = range(32_768, 61_000)


def below_outgoing(outgoing: range, ports: range = PORTS) -> range:
    """Those of `ports` that lie below what the kernel gives to outgoing connections.

    A daemon that is down must find its port free again, and one that starts must not lose its port to a connection that some
    program opens between the choice and the listening. Where too few are left, all: a machine that gives every port away has no
    safe ones.
    """
    below = range(ports.start, max(ports.start, min(ports.stop, outgoing.start)))
    return below if len(below) >= PORTS_MIN else ports


def free_port(ports: range = PORTS) -> int:
    """A port on loopback that was free a moment ago, and that no outgoing connection is given by chance."""
    entropy = SystemEntropy()
    drawn_from = below_outgoing(_outgoing(), ports)
    for _ in range(TRIES_MAX):
        port = entropy.integer(drawn_from.start, drawn_from.stop - 1)
        if is_free(port):
            return port
    raise RuntimeError(f"no free port found among {TRIES_MAX} between {drawn_from.start} and {drawn_from.stop}")


def is_free(port: int) -> bool:
    """Whether it can be bound on loopback now."""
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _outgoing() -> range:
    try:
        first, last = _OUTGOING.read_text().split()
    except OSError:
        return _OUTGOING_DEFAULT
    return range(int(first), int(last) + 1)
