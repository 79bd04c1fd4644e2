"""Why a connection could not be made, in words for the one who wanted it, with what to do."""

from __future__ import annotations

from typing import Final

import trio_websocket


def handshake_reason(refused: BaseException | None) -> str:
    """Why the handshake after TLS failed."""
    if isinstance(refused, trio_websocket.ConnectionRejected):
        return f"it answers as a web server (status {refused.status_code}), not as swarm"
    if refused is None:
        return (
            "it closed the connection after the TLS handshake: it does not take this node's certificate "
            "(of another cluster, or expired), or it is stopping"
        )
    return f"the handshake failed: {refused or type(refused).__name__}"


def os_reason(error: OSError) -> str:
    """Why the machine could not connect or listen, and what may help."""
    causes = [cause for cause in getattr(error.__cause__, "exceptions", ()) if isinstance(cause, OSError)]
    error = causes[0] if causes else error
    name = type(error).__name__
    text = error.strerror or str(error) or name
    advice = _ADVICE.get(name) or _ADVICE_BY_TEXT.get(text, "")
    return f"{text.lower()}{'; ' + advice if advice else ''}"


_ADVICE: Final = {
    "ConnectionRefusedError": "is swarm running there, and is this its port?",
    "gaierror": "check the host name",
    "PermissionError": "ports below 1024 need privileges; choose another with --listen",
}
_ADVICE_BY_TEXT: Final = {
    "Address already in use": "another program has the port; choose another with --listen",
    "Cannot assign requested address": "this machine has no such address; choose one of its own with --listen",
    "No route to host": "check the network between the machines",
    "Network is unreachable": "check the network between the machines",
}
