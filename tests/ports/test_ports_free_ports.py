"""Ports that are chosen now and listened on later."""

from __future__ import annotations

import socket

import pytest

from swarm.ports.free_ports import PORTS, below_outgoing, free_port, is_free


@pytest.mark.parametrize(
    ("outgoing", "wanted"),
    [
        (range(32_768, 61_000), PORTS),
        (range(20_000, 61_000), range(10_000, 20_000)),
        (range(10_500, 61_000), PORTS),  # five hundred are too few to draw from
        (range(1_024, 65_536), PORTS),
    ],
)
def test_what_outgoing_connections_get_is_avoided_where_that_leaves_enough(outgoing: range, wanted: range) -> None:
    assert below_outgoing(outgoing) == wanted


def test_a_port_in_use_is_not_given() -> None:
    port = free_port()
    assert port in PORTS
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        assert not is_free(port)
        with pytest.raises(RuntimeError, match="no free port"):
            free_port(range(port, port + 1))
    assert free_port(range(port, port + 1)) == port
