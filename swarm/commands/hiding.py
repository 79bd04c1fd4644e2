"""Secrets that were typed on the command line are taken out of what the machine's process list shows.

Linux shows a process's arguments and environment from the process's own memory; overwriting them there hides them. Nothing can
be done about the milliseconds between the start of the process and this code, nor about a shell's history: that is why the
other three ways to give a secret exist, and why a typed one gets a warning. Runs first of all, so it imports next to nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence, Set

SECRET_FLAGS = ("--token", "--passphrase", "--registry-auth")
SECRET_VARIABLES = ("SWARM_TOKEN", "SWARM_PASSPHRASE", "SWARM_REGISTRY_AUTH")
_FIELDS = ((45, 46), (47, 48))
"""Where arguments and environment lie in the process's memory: fields 48 to 51 of /proc/self/stat, counted from the field
after the process's name; proc_pid_stat(5)."""


def typed_secrets(arguments: Sequence[str]) -> list[str]:
    """What follows a secret's flag as text, not as `-` or `@FILE`; only what stands before `--`."""
    found: list[str] = []
    expected = False
    for argument in arguments:
        if argument == "--":
            break
        flag, is_joined, value = argument.partition("=")
        if expected or (is_joined and flag in SECRET_FLAGS):
            found.append(argument if expected else value)
        expected = not expected and argument in SECRET_FLAGS
    return [secret for secret in found if secret not in ("", "-") and not secret.startswith("@")]


def hide_secrets() -> None:
    """Overwrite the secrets of this process's arguments and environment where other processes see them.

    This process keeps its own copies (`sys.argv`, `os.environ`). Where the kernel does not let it, nothing happens.
    """
    secrets = typed_secrets(sys.argv[1:])
    entries = {*secrets, *(f"{flag}={secret}" for secret in secrets for flag in SECRET_FLAGS)}
    entries |= {f"{name}={os.environ[name]}" for name in SECRET_VARIABLES if os.environ.get(name)}
    if not entries:
        return
    try:
        _overwrite({os.fsencode(entry) for entry in entries})
    except (OSError, ValueError, IndexError):
        return


def is_in_process_list(secret: str) -> bool:
    """Whether this process's arguments show it still."""
    try:
        with open("/proc/self/cmdline", "rb") as shown:
            return os.fsencode(secret) in shown.read()
    except OSError:
        return True


def _overwrite(entries: Set[bytes]) -> None:
    """Mask whole entries only: part of another one may look like a short secret."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    memory = os.open("/proc/self/mem", os.O_RDWR)
    try:
        for first, last in _FIELDS:
            start, end = int(fields[first]), int(fields[last])
            shown = os.pread(memory, end - start, start).split(b"\0")
            masked = [_masked(entry) if entry in entries else entry for entry in shown]
            if masked != shown:
                os.pwrite(memory, b"\0".join(masked), start)
    finally:
        os.close(memory)


def _masked(entry: bytes) -> bytes:
    name, joined, secret = entry.partition(b"=")
    is_named = joined and os.fsdecode(name) in (*SECRET_FLAGS, *SECRET_VARIABLES)
    return name + joined + b"*" * len(secret) if is_named else b"*" * len(entry)
