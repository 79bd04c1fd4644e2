"""The state directory: what is written reads back, crashes leave old or new, refusals say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve

from swarm.ca import certificates as pki
from swarm.ca.credentials import Credentials
from swarm.ca.identity import PeerRole
from swarm.model.ids import ClusterId, NodeId, RaftId
from swarm.model.states import Role
from swarm.ports import state_dir as module
from swarm.ports.entropy import SystemEntropy
from swarm.ports.paths import default_state_dir
from swarm.ports.state_dir import NodeFile, StateDir, StateDirError, open_state_dir
from swarm.runtime.errors import ErrorCode
from swarm.testing.memory_files import MemoryFiles

ROOT_KEY = pki.new_key(b"r" * pki.KEY_RANDOM_BYTES)
SERIAL = bytes(pki.SERIAL_RANDOM_BYTES)
ROOT = pki.create_root(ROOT_KEY, SERIAL, 1.8e9)
NODE = NodeFile(
    NodeId("node1"), ClusterId("cluster1"), Role.MANAGER, hostname="häst", listen="0.0.0.0:4242",
    labels={"zone": "a"}, executors=("process",), managers=("10.0.0.1:4242",), raft_id=RaftId(2**62),
)  # fmt: skip


def credentials(number: int, *, node_id: str = "node1", cluster_id: str = "cluster1") -> Credentials:
    key = pki.new_key(bytes([number]) * pki.KEY_RANDOM_BYTES)
    leaf = pki.Authority(ROOT, ROOT_KEY).issue(
        pki.make_request(key), node_id=node_id, cluster_id=cluster_id, role=PeerRole.MANAGER, expiry_s=1e6,
        serial=SERIAL, now=1.8e9,
    )  # fmt: skip
    return Credentials(leaf, key, ROOT)


def test_identity_and_credentials_read_back_after_a_restart(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path / "s")
    assert state.node() is None and state.credentials() is None
    state.save_node(NODE)
    state.save_credentials(credentials(1))
    key = state.data_key(SystemEntropy())
    state.close()
    again = open_state_dir(tmp_path / "s")
    assert again.require_node() == NODE
    assert again.require_credentials() == credentials_like(again, 1)
    assert again.data_key(SystemEntropy()) == key
    again.close()


def credentials_like(state: StateDir, number: int) -> Credentials:
    """The signature is fresh chance each time: compare the key, take the certificate as read."""
    found = state.require_credentials()
    assert found.key_pem == credentials(number).key_pem
    return found


def test_only_the_owner_may_read_secrets(tmp_path: Path) -> None:
    root = tmp_path / "s"
    root.mkdir(mode=0o755)
    state = open_state_dir(root)
    state.save_node(NODE)
    state.save_credentials(credentials(1))
    state.data_key(SystemEntropy())
    assert root.stat().st_mode & 0o777 == 0o700
    assert (root / "pki/node.pem").stat().st_mode & 0o777 == 0o600
    assert (root / "pki").stat().st_mode & 0o777 == 0o700
    assert (root / "raft/data.key").stat().st_mode & 0o777 == 0o600
    state.close()


def test_a_running_node_keeps_others_out_and_is_named(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path / "s")
    script = "import sys; from pathlib import Path; from swarm.ports.state_dir import open_state_dir\n"
    script += "try:\n open_state_dir(Path(sys.argv[1]))\nexcept Exception as e:\n print(e.details['pid'], e)"
    out = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "s")], capture_output=True, text=True, check=True
    ).stdout
    assert out.startswith(f"{os.getpid()} ") and "already runs" in out and "--state-dir" in out
    state.close()
    open_state_dir(tmp_path / "s").close()


def test_another_nodes_identity_does_not_overwrite(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path / "s")
    state.save_node(NODE)
    with pytest.raises(StateDirError, match="belongs to node node1 of cluster cluster1"):
        state.save_node(evolve(NODE, cluster_id=ClusterId("other")))
    with pytest.raises(StateDirError, match="swarm leave") as caught:
        state.require_empty()
    assert caught.value.code is ErrorCode.EXISTS
    state.close()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("node.json", b"{", "node.json is damaged"),
        ("node.json", b"[]", "no JSON object"),
        ("node.json", b"{}", "node.json is damaged"),
        ("node.json", b'{"node_id": "n", "cluster_id": "", "role": "worker"}', "names no node"),
        ("node.json", b'{"node_id": "n", "cluster_id": "c", "role": "king"}', r"Role @ \$\.role"),
        ("node.json", b'{"node_id": "n", "cluster_id": "c", "format": 99}', "newer version"),
        ("pki/roots.pem", b"junk", "roots.pem is damaged"),
        ("pki/roots.pem", None, "roots.pem is damaged: it is missing"),
        ("pki/node.pem", b"-----BEGIN", "no private key"),
        ("pki/node.pem", None, "node.pem is damaged: it is missing"),
        ("raft/data.key", b"\xff\xff", "data.key is damaged"),
    ],
)
def test_damage_names_the_file_and_a_way_out(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    state = open_state_dir(tmp_path / "s")
    state.save_node(NODE)
    state.save_credentials(credentials(1))
    state.data_key(SystemEntropy())
    target = tmp_path / "s" / name
    target.unlink() if content is None else target.write_bytes(content)
    with pytest.raises(StateDirError, match=says):
        state.require_node()
        state.require_credentials()
        state.data_key(SystemEntropy())
    state.close()


def test_a_directory_is_new_until_a_node_has_run_in_it(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path / "s")
    state.save_credentials(credentials(1))  # a founding that was cut short is done again
    state.require_new()
    assert not state.began_raft()
    state.save_node(NODE)
    state.data_key(SystemEntropy())
    state.require_new()
    assert state.began_raft()
    (tmp_path / "s" / "node.json").unlink()
    with pytest.raises(StateDirError, match=r"node\.json is damaged: it is missing, and"):
        state.require_new()
    state.close()


def test_a_certificate_of_another_node_is_damage(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path / "s")
    state.save_node(NODE)
    state.save_credentials(credentials(1, cluster_id="other"))
    with pytest.raises(StateDirError, match="of cluster other"):
        state.credentials()
    state.close()


def test_a_missing_node_says_how_to_begin(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path / "s")
    with pytest.raises(StateDirError, match="swarm up"):
        state.require_node()
    state.require_empty()
    state.close()


def test_directories_that_cannot_be_used(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    with pytest.raises(StateDirError, match="not empty and holds no node"):
        open_state_dir(home)
    with pytest.raises(StateDirError, match="not a directory"):
        open_state_dir(home / "letter.txt")
    with pytest.raises(StateDirError, match="too long"):
        open_state_dir(tmp_path / ("x" * 120))
    assert home.stat().st_mode & 0o077, "a foreign directory's mode is left alone"


def test_a_write_that_fails_is_told_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = open_state_dir(tmp_path / "s")
    state.save_node(NODE)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StateDirError, match="disk is full"):
            state.save_node(evolve(NODE, hostname="other"))
    assert state.node() == NODE
    assert not list((tmp_path / "s").glob("*.new"))
    state.close()


def test_a_pending_join_is_remembered_until_it_is_done() -> None:
    files = MemoryFiles()
    first = StateDir(files).pending_join(SystemEntropy())
    assert StateDir(files).pending_join(SystemEntropy()) == first
    files.content["pki/join.json"] = b'{"key": "junk", "nonce": "n"}'
    second = StateDir(files).pending_join(SystemEntropy())
    assert second != first
    StateDir(files).join_done()
    assert StateDir(files).pending_join(SystemEntropy()) != second


def test_leaving_that_was_cut_short_is_finished_at_the_next_opening() -> None:
    class Crash(Exception):
        pass

    class Torn(MemoryFiles):
        def __init__(self, content: dict[str, bytes], left: int) -> None:
            super().__init__(content=content)
            self.left = left

        def remove(self, name: str) -> None:
            if self.left == 0:
                raise Crash
            self.left -= 1
            super().remove(name)

    for steps in range(7):
        files = Torn({}, steps)
        state = StateDir(files)
        state.save_node(NODE)
        state.save_credentials(credentials(1))
        state.data_key(SystemEntropy())
        with pytest.raises(Crash):
            state.erase()
        survivor = MemoryFiles(content=files.content)
        assert StateDir(survivor).node() is None
        assert survivor.content == {}


def test_forgetting_raft_keeps_the_rest() -> None:
    files = MemoryFiles(content={"raft/log.db": b"x", "raft/data.key": b"k", "raftlike": b"y"})
    StateDir(files).erase_raft()
    assert files.names() == ["raftlike"]


def test_yesterdays_file_reads_and_unknown_fields_do_no_harm() -> None:
    files = MemoryFiles(content={"node.json": json.dumps({"node_id": "n", "cluster_id": "c", "later": 1}).encode()})
    assert StateDir(files).require_node() == NodeFile(NodeId("n"), ClusterId("c"))


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    assert default_state_dir() == Path("/var/lib/swarm")
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/x/state")
    assert default_state_dir() == Path("/x/state/swarm")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/u")
    assert default_state_dir() == Path("/home/u/.local/state/swarm")
