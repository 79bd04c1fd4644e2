"""Where a node's things are by default, for commands that must not load more than they need."""

from __future__ import annotations

import os
from pathlib import Path

SOCKET_NAME, LOG_NAME = "swarm.sock", "swarm.log"


def default_state_dir() -> Path:
    """/var/lib/swarm for root; for others `swarm` in the XDG state directory (~/.local/state by default)."""
    if os.geteuid() == 0:
        return Path("/var/lib/swarm")
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "swarm"
