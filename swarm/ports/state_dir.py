"""A node's state directory: who it is, how it proves it, and where its other parts keep their things.

    lock            held while the node runs; has its process id
    node.json       `NodeFile`: identity and settings
    pki/roots.pem   the cluster's trust roots
    pki/node.pem    key and certificate in one file, so that one rename replaces both (mode 0600)
    pki/join.json   a join under way: the same key and nonce are used again after a crash
    pki/founding.json  a new cluster's root key, until its first leader has put it into the store
    raft/           a manager's log and its data key; erased on demotion
    agent/  tasks/  the agent's record of tasks; the executors' files
    swarm.sock      the local socket;  swarm.log  the log of a node that runs in the background

The one idea: every file is whole or absent at any crash, and a directory that is being left carries a mark (`leaving`)
until all is gone. This module never decides what to do with a bad directory; it says which file is bad and what helps.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cattrs
from attrs import field, frozen

from swarm.ca.certificates import KEY_RANDOM_BYTES, CertificateError, load_certificates, load_key, new_key, peer_of
from swarm.ca.credentials import Credentials
from swarm.ca.key_files import DATA_KEY_BYTES, decode_data_key, decode_identity, encode_data_key, encode_identity
from swarm.model.ids import ClusterId, Instant, NodeId, RaftId
from swarm.model.states import Role
from swarm.ports.entropy import Entropy
from swarm.ports.files import LOCK_NAME, DiskFiles, Files, StateDirError, lock_directory
from swarm.ports.paths import LOG_NAME, SOCKET_NAME
from swarm.runtime.errors import ErrorCode

NODE_FILE, ROOTS_FILE, IDENTITY_FILE, JOIN_FILE = "node.json", "pki/roots.pem", "pki/node.pem", "pki/join.json"
FOUNDING_FILE = "pki/founding.json"
DATA_KEY_FILE, LEAVING_FILE = "raft/data.key", "leaving"
SOCKET_PATH_BYTES_MAX = 107
"""What a unix socket's address can hold on Linux."""
NODE_FILE_FORMAT = 1
NONCE_RANDOM_BYTES = 16
_OURS = frozenset(
    {NODE_FILE, "pki", "raft", "agent", "tasks", LEAVING_FILE, SOCKET_NAME, LOG_NAME, LOCK_NAME, "lost+found"}
)
_AFTER_NODE_FILE = ("raft", "agent", "tasks")
"""Made by a node that has its `node.json`."""
_ERASED = ("raft", "tasks", "agent", "pki", NODE_FILE)
"""In this order, the mark last."""


@frozen
class NodeFile:
    """What a node remembers of itself between runs. Fields are only added, with defaults."""

    node_id: NodeId
    cluster_id: ClusterId
    role: Role = Role.WORKER
    """With which it joined, or what it was last promoted or demoted to."""
    hostname: str = ""
    listen: str = ""
    """host:port to listen on as a manager; empty for a worker that never was one."""
    advertise: str = ""
    """host:port that other nodes are told."""
    labels: dict[str, str] = field(factory=dict)
    executors: tuple[str, ...] = ()
    """Names of the executors that were asked for; empty for all that work here."""
    generic: tuple[str, ...] = ()
    """User-defined resources of this machine, `gpu=2` or `gpu=UUID1`."""
    managers: tuple[str, ...] = ()
    """host:port of every manager that was known last."""
    raft_id: RaftId = RaftId(0)
    """0 for a node that is no Raft member."""
    joined_at: Instant = Instant(0.0)
    format: int = NODE_FILE_FORMAT


@frozen
class PendingJoin:
    """The key and nonce of a join whose answer has not come: using them again makes no second node."""

    key_pem: bytes = field(repr=False)
    nonce: str = ""


@frozen
class Founding:
    """What the first leader of a new cluster puts into the store; afterwards the store alone has it."""

    root_certificate: bytes
    root_key: bytes = field(repr=False)
    labels: dict[str, str] = field(factory=dict)
    """Of the first node."""


class StateDir:
    """Typed access to a node's files. Made by `open_state_dir`, or over other `Files` by the simulator."""

    def __init__(self, files: Files) -> None:
        self._files = files
        if files.read(LEAVING_FILE) is not None:
            self.erase()

    @property
    def root(self) -> Path:
        """The directory itself."""
        return self._files.root

    def path(self, name: str) -> Path:
        """Where `raft`, `agent`, `tasks`, `swarm.sock` or `swarm.log` is (to be made by its owner, mode 0700)."""
        return self._files.root / name

    def close(self) -> None:
        """Let another process use the directory."""
        self._files.close()

    # --- identity and settings ------------------------------------------------------------------------------------
    def node(self) -> NodeFile | None:
        """Who this node is, None when the directory belongs to no cluster yet."""
        data = self._files.read(NODE_FILE)
        return None if data is None else self._decode_node(data)

    def require_node(self) -> NodeFile:
        """As `node`; `NOT_FOUND` when the directory belongs to no cluster."""
        found = self.node()
        if found is None:
            raise StateDirError(
                ErrorCode.NOT_FOUND,
                f"{self.root} holds no node: make a cluster with `swarm up` or join one with `swarm join`",
            )
        return found

    def require_empty(self) -> None:
        """`EXISTS` when the directory already belongs to a cluster."""
        found = self.node()
        if found is not None:
            raise StateDirError(
                ErrorCode.EXISTS,
                f"{self.root} already belongs to node {found.node_id} of cluster {found.cluster_id}: start it with "
                "`swarm up`, take it out of its cluster with `swarm leave`, or name another directory with "
                "--state-dir",
            )

    def require_new(self) -> None:
        """`PRECONDITION` when a node ran here whose `node.json` is gone: founding or joining would overwrite its key."""
        if self.node() is None and not set(_AFTER_NODE_FILE).isdisjoint(self._files.names()):
            raise self._damaged(NODE_FILE, "it is missing, and a node's state lies beside it")

    def began_raft(self) -> bool:
        """Whether there is, or was about to be, a log: the node may hold what it acknowledged."""
        return "raft" in self._files.names()

    def save_node(self, node: NodeFile) -> None:
        """Replace node.json; `PRECONDITION` when the directory belongs to another node."""
        before = self.node()
        if before is not None and (before.node_id, before.cluster_id) != (node.node_id, node.cluster_id):
            raise StateDirError(
                ErrorCode.PRECONDITION,
                f"{self.root} belongs to node {before.node_id} of cluster {before.cluster_id}, not to node "
                f"{node.node_id} of cluster {node.cluster_id}",
            )
        text = json.dumps(_CONVERTER.unstructure(node), indent=2, sort_keys=True)
        self._files.write(NODE_FILE, text.encode() + b"\n")

    # --- credentials ----------------------------------------------------------------------------------------------
    def credentials(self) -> Credentials | None:
        """Certificate, key and roots, None before the first join. Their dates are not checked here."""
        identity, roots = self._files.read(IDENTITY_FILE), self._files.read(ROOTS_FILE)
        if identity is None:
            return None
        if roots is None:
            raise self._damaged(ROOTS_FILE, "it is missing")
        try:
            load_certificates(roots)
        except CertificateError as error:
            raise self._damaged(ROOTS_FILE, str(error)) from None
        try:
            credentials = decode_identity(identity, roots)
            peer = peer_of(credentials.certificate_pem)
        except CertificateError as error:
            raise self._damaged(IDENTITY_FILE, str(error)) from None
        node = self.node()
        if node is not None and (node.node_id, node.cluster_id) != (peer.node_id, peer.cluster_id):
            raise self._damaged(
                IDENTITY_FILE, f"it is of node {peer.node_id} of cluster {peer.cluster_id}, {NODE_FILE} of another"
            )
        return credentials

    def require_credentials(self) -> Credentials:
        """As `credentials`; a node without them is damaged."""
        found = self.credentials()
        if found is None:
            raise self._damaged(IDENTITY_FILE, "it is missing")
        return found

    def save_credentials(self, credentials: Credentials) -> None:
        """Replace roots, then key and certificate together.

        Safe at any crash as long as new roots still vouch for the old certificate, which the authority sees to.
        """
        self._files.write(ROOTS_FILE, credentials.root_pem, mode=0o644)
        self._files.write(IDENTITY_FILE, encode_identity(credentials.certificate_pem, credentials.key_pem))

    def pending_join(self, entropy: Entropy) -> PendingJoin:
        """The key and nonce of a join that was cut short, or fresh ones, which are remembered before they are used."""
        data = self._files.read(JOIN_FILE)
        if data is not None:
            try:
                found = json.loads(data)
                pending = PendingJoin(found["key"].encode("ascii"), found["nonce"])
                load_key(pending.key_pem)
                return pending
            except (ValueError, KeyError, TypeError, AttributeError, CertificateError):
                pass  # nothing is lost by starting the join afresh
        pending = PendingJoin(new_key(entropy.bytes(KEY_RANDOM_BYTES)), entropy.bytes(NONCE_RANDOM_BYTES).hex())
        text = json.dumps({"key": pending.key_pem.decode("ascii"), "nonce": pending.nonce})
        self._files.write(JOIN_FILE, text.encode())
        return pending

    def join_done(self) -> None:
        """Forget the pending join."""
        self._files.remove(JOIN_FILE)

    def save_founding(self, founding: Founding) -> None:
        """Keep it until `founded`, so that a crash before the first commit loses nothing."""
        plain = {
            "root_certificate": founding.root_certificate.decode("ascii"),
            "root_key": founding.root_key.decode("ascii"),
            "labels": founding.labels,
        }
        self._files.write(FOUNDING_FILE, json.dumps(plain).encode())

    def founding(self) -> Founding | None:
        """What a new cluster still has to be given, None once that is done and for nodes that joined."""
        data = self._files.read(FOUNDING_FILE)
        if data is None:
            return None
        try:
            plain = json.loads(data)
            return Founding(plain["root_certificate"].encode(), plain["root_key"].encode(), dict(plain["labels"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(FOUNDING_FILE, str(error)) from None

    def founded(self) -> None:
        """The store has it: forget the root key here."""
        self._files.remove(FOUNDING_FILE)

    # --- a manager's data -----------------------------------------------------------------------------------------
    def data_key(self, entropy: Entropy) -> bytes:
        """The key that seals the Raft log, made when there is none. `PRECONDITION` when its file is damaged."""
        data = self._files.read(DATA_KEY_FILE)
        if data is None:
            key = entropy.bytes(DATA_KEY_BYTES)
            self._files.write(DATA_KEY_FILE, encode_data_key(key))
            return key
        try:
            return decode_data_key(data)
        except CertificateError as error:
            raise self._damaged(DATA_KEY_FILE, str(error)) from None

    def erase_raft(self) -> None:
        """Forget a manager's data: the key first, without which the rest is noise."""
        self._files.remove(DATA_KEY_FILE)
        self._files.remove("raft")

    def erase(self) -> None:
        """Leave the cluster behind. Interrupted, it is finished at the next opening."""
        self._files.write(LEAVING_FILE, b"")
        self._files.remove(DATA_KEY_FILE)
        for name in _ERASED:
            self._files.remove(name)
        self._files.remove(LEAVING_FILE)

    # --- inside ---------------------------------------------------------------------------------------------------
    def _decode_node(self, data: bytes) -> NodeFile:
        try:
            plain = json.loads(data)
            if not isinstance(plain, dict):
                raise ValueError("it is no JSON object")
            written_by = plain.get("format", NODE_FILE_FORMAT)
        except ValueError as error:
            raise self._damaged(NODE_FILE, str(error)) from None
        if not isinstance(written_by, int) or written_by > NODE_FILE_FORMAT:
            raise StateDirError(
                ErrorCode.PRECONDITION,
                f"{self.root / NODE_FILE} was written by a newer version of swarm (format {written_by}): start that one",
            )
        try:
            node = _CONVERTER.structure(plain, NodeFile)
        except cattrs.BaseValidationError as error:
            raise self._damaged(NODE_FILE, cattrs.transform_error(error)[0]) from None
        if not node.node_id or not node.cluster_id:
            raise self._damaged(NODE_FILE, "it names no node or no cluster")
        return node

    def _damaged(self, name: str, why: str) -> StateDirError:
        advice = (
            "Restore it from a backup; or erase the directory and join the cluster again with a new token "
            "(then remove this node's old record with `swarm node rm`)"
        )
        if name == DATA_KEY_FILE:
            advice = "Restore it from a backup; or, if other managers have a quorum, erase the directory and join again"
        return StateDirError(
            ErrorCode.PRECONDITION, f"{self.root / name} is damaged: {why}. {advice}", {"path": str(self.root / name)}
        )


def open_state_dir(path: Path) -> StateDir:
    """Take the directory for this process (making it when it is not there), or say why that cannot be.

    Raises `StateDirError`: EXISTS when a running node has it (details: `pid`), DENIED when it cannot be written,
    PRECONDITION when it holds other things or its path is too long for a socket.
    """
    root = path.absolute()
    if len(os.fsencode(root / SOCKET_NAME)) > SOCKET_PATH_BYTES_MAX:
        raise StateDirError(
            ErrorCode.PRECONDITION,
            f"the path {root} is too long: with the socket's name it must fit into {SOCKET_PATH_BYTES_MAX} bytes; "
            "name a shorter one with --state-dir",
        )
    refuse_foreign(root)
    files: DiskFiles = lock_directory(root)
    try:
        return StateDir(files)
    except BaseException:
        files.close()
        raise


def refuse_foreign(root: Path) -> None:
    """PRECONDITION when the directory holds other things, so that nothing of ours is ever mixed with them."""
    try:
        names = {entry.name for entry in root.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise StateDirError(
            ErrorCode.PRECONDITION, f"{root} is not a directory; name another one with --state-dir"
        ) from None
    except OSError:
        return  # locking it will say what is wrong
    if names and not names & _OURS:
        raise StateDirError(
            ErrorCode.PRECONDITION,
            f"{root} is not empty and holds no node ({', '.join(sorted(names)[:3])}, ...): name an empty or new "
            "directory with --state-dir",
        )


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_unstructure_hook(Role, lambda role: role.name.lower())
    converter.register_structure_hook(Role, _role)
    return converter


def _role(value: Any, _type: type) -> Role:
    try:
        return Role[str(value).upper()]
    except KeyError:
        raise ValueError(f"no role is called {value!r}") from None


_CONVERTER = _make_converter()
