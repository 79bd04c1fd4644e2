"""`swarm backup` and `swarm restore`: the whole cluster as one file, and a new manager from it."""

from __future__ import annotations

import os
from pathlib import Path

from swarm.ca import backup
from swarm.commands import output
from swarm.commands.context import Context, fail, read_secret, stop, usage
from swarm.commands.daemon import Options, checked
from swarm.runtime.errors import SwarmError
from swarm.wire.messages.control import TakeBackup

TIMEOUT_S = 600.0


def save(context: Context, file: str, passphrase: str | None, force: bool) -> None:
    """Write the cluster's state to a file, sealed when there is a passphrase."""
    from swarm.ports.entropy import SystemEntropy

    path = Path(file)
    if path.exists() and not force:
        stop(f"{file} exists; name another file, or replace it with --force")
    if not path.absolute().parent.is_dir():
        stop(f"there is no directory {path.absolute().parent}")
    secret = read_secret(passphrase, "SWARM_PASSPHRASE", "--passphrase") or ""
    body, last = bytearray(), None
    try:
        for part in context.stream(TakeBackup(), timeout_s=TIMEOUT_S):
            body += part.data
            last = part
    except SwarmError as error:
        fail(error)
    if last is None or not last.last:
        stop("the cluster's state did not come whole; try again")
    random = SystemEntropy().bytes(backup.SALT_BYTES + backup.NONCE_BYTES)
    data = backup.encode(last.cluster_id, last.index, last.created_at, bytes(body), secret, random)
    _replace(path, data)
    if not secret:
        output.note(
            f"warning: {file} is not encrypted and holds the cluster's keys and tokens: whoever reads it owns the cluster. "
            "Only you can read the file here; give --passphrase -, --passphrase @FILE or SWARM_PASSPHRASE to seal it"
        )
    output.print_lines([f"{file}: cluster {last.cluster_id} as of change {last.index}, {output.size(len(data))}"])


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        stop(f"{path} cannot be written: {error.strerror}")


def restore(options: Options, file: str, passphrase: str | None) -> None:
    """Make a state directory that goes on from a backup."""
    config = checked(options)
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        usage(f"{file}: {error.strerror}")
    try:
        sealed = backup.header_of(data).sealed
        secret = (read_secret(passphrase, "SWARM_PASSPHRASE", "--passphrase") or "") if sealed else ""
        header, body = backup.decode(data, secret)
    except backup.BackupError as error:
        stop(f"{file}: {error}")
    import trio

    from swarm.actors.daemon import SystemPorts
    from swarm.actors.restoring import restore_state

    try:
        made = trio.run(restore_state, config, SystemPorts(), body, header.index)
    except SwarmError as error:
        fail(error)
    output.note(
        f"cluster {header.cluster_id} as of change {header.index}: "
        f"{output.counted(made.services, 'service')}, {output.counted(made.workers, 'worker')}"
    )
    if made.forgotten:
        output.note(
            f"its managers of that time are forgotten and refused: {', '.join(made.forgotten)}. Do not run them any more; "
            "their machines can join again with a token, after swarm leave --force there"
        )
    output.print_lines([made.node.node_id])
    output.note(
        f"start it: swarm up --state-dir {config.state_dir}\n"
        "workers find it by themselves when it is reached where a manager was; else tell them, on each of them: "
        "swarm stop; swarm up --manager HOST:PORT"
    )
