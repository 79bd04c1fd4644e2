"""The operating system's files, as the rest of the node uses them: small functions, one system call deep or nearly.

Paths are text. Every error is the `OSError` of the system, which names the path; what it means to a user is said above.
This module decides nothing and keeps no state.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Sequence
from functools import cache

from attrs import frozen

from swarm.model.ids import Instant

_PUNCH_KEEPING_SIZE = 0x03
"""FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE (fallocate(2)); Python has no name for them."""
_STAT_BLOCK_BYTES = 512


@frozen
class FileFacts:
    """A file's apparent size, what it really takes on the disk, and when it was last written."""

    size_bytes: int
    disk_bytes: int
    modified_at: Instant


def read_bytes(path: str) -> bytes:
    """All of a file."""
    with open(path, "rb", buffering=0) as file:
        return file.read()


def read_at(path: str, offset: int, size: int) -> bytes:
    """Up to `size` bytes from `offset`; fewer at the end of the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def first_data(path: str) -> int:
    """Where a file's content begins, after the hole at its head if it has one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EINVAL):
            return 0
        raise
    finally:
        os.close(descriptor)


def write_bytes(path: str, data: bytes) -> None:
    """Writes into a file that exists (one of /proc or /sys, usually) or makes it, in one system call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def replace_bytes(path: str, data: bytes) -> None:
    """Puts `data` in the file's place at once: a reader sees the old content or the new, never a part. Not synced."""
    write_bytes(path + ".new", data)
    os.replace(path + ".new", path)


def append_bytes(path: str, data: bytes) -> None:
    """Adds to the end of a file, in one system call, making it when missing."""
    descriptor = open_append(path)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def open_append(path: str) -> int:
    """A descriptor that writes at the end of a file, made when missing, readable by its owner only."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


def close(descriptors: Sequence[int]) -> None:
    """Closes them."""
    for descriptor in descriptors:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Takes the exclusive lock of an open file, or says that somebody else holds it.

    The lock belongs to the open file, so a child that inherits the descriptor keeps it until the child ends.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def facts(path: str) -> FileFacts | None:
    """Size and time of a file, None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return FileFacts(found.st_size, found.st_blocks * _STAT_BLOCK_BYTES, Instant(found.st_mtime))


def is_directory(path: str) -> bool:
    """Whether it is a directory (or a link to one)."""
    return os.path.isdir(path)


def is_executable(path: str) -> bool:
    """Whether it is a file that this process may execute."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def is_file(path: str) -> bool:
    """Whether it is a regular file (or a link to one)."""
    return os.path.isfile(path)


def list_directory(path: str) -> list[str]:
    """The names in a directory, empty when there is none."""
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def make_directory(path: str, mode: int = 0o700) -> None:
    """Makes a directory and its parents; there already is success."""
    os.makedirs(path, mode=mode, exist_ok=True)


def give_to(path: str, user_id: int, group_id: int) -> None:
    """Changes a file's owner."""
    os.chown(path, user_id, group_id)


def remove_empty_directory(path: str) -> bool:
    """Removes an empty directory; False when it is busy or not empty, True when it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True


def remove_tree(path: str) -> None:
    """Removes a directory with all in it; gone already is success."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if os.path.lexists(path):
            shutil.rmtree(path)


def truncate(path: str, size: int) -> None:
    """Cuts a file to `size` bytes."""
    os.truncate(path, size)


def punch_hole(path: str, offset: int, size: int) -> bool:
    """Gives the disk space of a range back while the file keeps its size; False where the file system cannot."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if _fallocate()(descriptor, _PUNCH_KEEPING_SIZE, offset, size) == 0:
            return True
        code = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), path)


@cache
def _fallocate() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    return function
