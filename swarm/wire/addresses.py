"""host:port texts, with brackets around IPv6 addresses."""

from __future__ import annotations


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of `host:port`, `1.2.3.4:port` or `[::1]:port`; `ValueError` says what is wrong with it."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is no address: it has to be HOST:PORT, as in 10.0.0.5:4242 or [fd00::5]:4242")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r} is no address: an IPv6 host needs brackets, as in [fd00::5]:4242")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The text of a host and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
