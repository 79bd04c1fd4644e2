"""The one clock of blocking code: the command line has no trio, and must not load it for a deadline."""

from __future__ import annotations

import time


def monotonic() -> float:
    """Seconds that only move forward; comparable within one process only."""
    return time.monotonic()
