"""The small-files port: a node's few files, each written whole, durable once `write` returns.

For identity and settings only, a few kilobytes each: calls block for the milliseconds that a disk takes, and they happen
at starts, joins and renewals. The Raft log has a port of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import BinaryIO, Protocol

from swarm.runtime.errors import ErrorCode, SwarmError

LOCK_NAME = "lock"
_TEMPORARY_SUFFIX = ".new"
DIRECTORY_MODE = 0o700


class StateDirError(SwarmError):
    """The state directory cannot be used; the text names the path, says why and what to do."""


class Files(Protocol):
    """Files by name (`/` separates directories), relative to one root that this process alone uses."""

    @property
    def root(self) -> Path:
        """Where they are."""
        ...

    def read(self, name: str) -> bytes | None:
        """The whole file, None when there is none."""
        ...

    def write(self, name: str, data: bytes, *, mode: int = 0o600) -> None:
        """Replace the file as a whole: after a crash it holds the old bytes or the new ones, never a mixture."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, or a directory with all in it; absent already: nothing happens."""
        ...

    def names(self) -> list[str]:
        """What lies in the root, sorted."""
        ...

    def close(self) -> None:
        """Let another process use them."""
        ...


class DiskFiles:
    """A directory of mode 0700, locked for as long as this object is open."""

    def __init__(self, root: Path, lock: int) -> None:
        self._root = root
        self._lock = lock

    @property
    def root(self) -> Path:
        """Where they are."""
        return self._root

    def read(self, name: str) -> bytes | None:
        """The whole file, None when there is none."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _os_error(self._root / name, "read", error) from None

    def write(self, name: str, data: bytes, *, mode: int = 0o600) -> None:
        """Temporary file, fsync, rename, fsync of the directory."""
        path = self._root / name
        temporary = path.with_name(path.name + _TEMPORARY_SUFFIX)
        try:
            self._ensure_directory(path.parent)
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
            _sync_directory(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise _os_error(path, "written", error) from None

    def remove(self, name: str) -> None:
        """Remove a file, or a directory with all in it."""
        path = self._root / name
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            if path.parent.is_dir():
                _sync_directory(path.parent)
        except OSError as error:
            raise _os_error(path, "removed", error) from None

    def names(self) -> list[str]:
        """What lies in the root, sorted."""
        return sorted(entry.name for entry in self._root.iterdir())

    def close(self) -> None:
        """Unlock."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1

    def _ensure_directory(self, path: Path) -> None:
        if path.is_dir():
            return
        self._ensure_directory(path.parent)
        path.mkdir(mode=DIRECTORY_MODE)
        _sync_directory(path.parent)


def lock_directory(root: Path) -> DiskFiles:
    """Make the directory if it is not there, close it to others, and take it for this process."""
    try:
        root.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if root.stat().st_mode & 0o077:
            root.chmod(DIRECTORY_MODE)
        lock = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _os_error(root, "used as a state directory", error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
    except OSError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        os.close(lock)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise _os_error(root / LOCK_NAME, "locked", error) from None
        who = f"process {holder}" if holder else "another process"
        raise StateDirError(
            ErrorCode.EXISTS,
            f"a node already runs with the state directory {root} ({who}): use it as it is, stop it with "
            "`swarm stop`, or name another directory with --state-dir",
            {"pid": holder, "path": str(root)},
        ) from None
    return DiskFiles(root, lock)


def open_log(root: Path, name: str) -> BinaryIO:
    """The file at whose end a daemon's output is written; its directory is made if it is not there."""
    try:
        root.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        return (root / name).open("ab")
    except OSError as error:
        raise _os_error(root, "used as a state directory", error) from None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _os_error(path: Path, what: str, error: OSError) -> StateDirError:
    if error.errno in (errno.EACCES, errno.EPERM):
        advice = "; run as its owner or as root, or name another directory with --state-dir"
        return StateDirError(ErrorCode.DENIED, f"{path} cannot be {what}: permission denied{advice}")
    if error.errno == errno.EROFS:
        advice = "; name another directory with --state-dir"
        return StateDirError(ErrorCode.DENIED, f"{path} cannot be {what}: the file system is read-only{advice}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StateDirError(ErrorCode.UNAVAILABLE, f"{path} cannot be {what}: the disk is full; free some space")
    return StateDirError(ErrorCode.UNAVAILABLE, f"{path} cannot be {what}: {error.strerror or error}")
