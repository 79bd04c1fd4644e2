"""Whether something listens at an address: asked before a library is loaded to talk to it."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

CONNECT_TIMEOUT_S = 2.0


def why_nobody_answers(address: str) -> str:
    """Why nothing accepts connections at `unix:///path` or `tcp://host:port`; empty when something does. Blocks shortly."""
    parts = urlsplit(address)
    try:
        if parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(CONNECT_TIMEOUT_S)
                probe.connect(parts.path)
            return ""
        if parts.scheme in ("tcp", "http", "https") and parts.hostname and parts.port:
            socket.create_connection((parts.hostname, parts.port), CONNECT_TIMEOUT_S).close()
            return ""
    except FileNotFoundError:
        return "there is no such socket"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except ValueError as error:
        return str(error)
    return "it is neither unix:///PATH nor tcp://HOST:PORT"
