"""What the log store says when the disk does not do its part: which file, what is wrong, what is lost, and the way out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from swarm.ports.log_store import LogDamaged, LogWriteFailed
from swarm.runtime.errors import ErrorCode, SwarmError

WAY_OUT = (
    "If other managers have a quorum: remove this node (`swarm node rm`), erase its state directory and join it again; the "
    "others have everything. If it is the only manager: `swarm restore` a backup"
)


class DiskFull(LogWriteFailed):
    """No space is left: nothing of the batch was written, and it may be written again when there is space."""


def damaged(path: Path, what: str, lost: str) -> LogDamaged:
    """The refusal to use a file of which `what` is wrong and that has therefore `lost` something."""
    return LogDamaged(f"{path} is damaged: {what}; {lost}. {WAY_OUT}")


def refusal(path: Path, error: sqlite3.Error) -> SwarmError:
    """What an error of SQLite means to whoever asked for the work."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(
            f"the disk of {path} is full: nothing is committed on this manager until space is free there "
            f"(`df {path.parent}` shows it)"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        text = f"{path} is in use by another process: does a node with this state directory run already?"
        return SwarmError(ErrorCode.EXISTS, text)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error), "it cannot be read")
    return LogWriteFailed(f"the disk of {path} refuses: {error}")
