"""One manager's disk goes bad: bytes of its log are flipped or cut off while it is down.

What nobody was told of may be dropped; anything else is refused with a text that names the file and the way out, and the way
out works: the others carry on, and the member comes back empty and gets everything from them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_cluster import ChaosCluster, chaos_cluster, state_file

from swarm.model.specs import ProcessSpec, Replicated, ServiceSpec, TaskSpec
from swarm.runtime.errors import SwarmError
from swarm.testing.daemons import wait_until
from swarm.wire.messages.control import CreateService, ListServices

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ChaosCluster]:
    with chaos_cluster(managers=3, workers=0) as found:
        yield found


def write(cluster: ChaosCluster, node: str, names: list[str]) -> None:
    """One acknowledged write a name."""
    for name in names:
        cluster.ask(node, CreateService(ServiceSpec(name, TaskSpec(ProcessSpec(("true",))), Replicated(0))))


def services(cluster: ChaosCluster, node: str, stale: bool = False) -> set[str]:
    return {view.service.spec.name for view in cluster.ask(node, ListServices(stale=stale))}


def has(cluster: ChaosCluster, node: str, names: set[str]) -> bool:
    """Whether this manager's own state holds them; one that starts has none yet."""
    try:
        return names <= services(cluster, node, stale=True)
    except SwarmError:
        return False


def flip(path: Path, share: float) -> None:
    """One bit of one byte, that far into the file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 0x10
    path.write_bytes(bytes(data))


def log_files(cluster: ChaosCluster, node: str) -> tuple[Path, Path]:
    """The database and its write-ahead log."""
    return state_file(cluster, node, "raft", "log.db"), state_file(cluster, node, "raft", "log.db-wal")


def start_again(cluster: ChaosCluster, node: str) -> tuple[int, str]:
    """Exit code and what it said of a start that is expected to be refused."""
    done = cluster.attempt_up(node)
    return done.returncode, done.stderr


def test_a_torn_last_write_is_dropped_and_got_again_from_the_others(cluster: ChaosCluster) -> None:
    write(cluster, "m1", [f"torn-{number}" for number in range(5)])
    wait_until(lambda: has(cluster, "m3", {"torn-4"}), "m3 has them")
    cluster.kill("m3")
    _, wal = log_files(cluster, "m3")
    size = wal.stat().st_size
    assert size > 4096, "the last writes are in the write-ahead log"
    with wal.open("r+b") as file:
        file.truncate(size - 100)
    cluster.restart("m3")
    expected = {f"torn-{number}" for number in range(5)}
    wait_until(lambda: has(cluster, "m3", expected), "m3 has all again", 10)
    assert expected <= services(cluster, "m3")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_flipped_byte_is_refused_with_the_way_out_and_the_way_out_works(cluster: ChaosCluster, share: float) -> None:
    names = [f"flip-{int(share * 10)}-{number}" for number in range(8)]
    write(cluster, "m1", names)
    wait_until(lambda: has(cluster, "m3", set(names)), "m3 has them")
    cluster.kill("m3")
    _, wal = log_files(cluster, "m3")
    flip(wal, share)
    code, said = start_again(cluster, "m3")
    assert code == 1, said
    assert "is damaged" in said and "log.db" in said
    assert "node rm" in said and "join it again" in said
    assert "Traceback" not in said
    before = services(cluster, "m1")
    assert set(names) <= before, "the others have everything and carry on"
    write(cluster, "m1", [f"without-m3-{int(share * 10)}"])
    # The way out, as the text says it.
    cluster.local.run("node", "rm", "--force", cluster.ids["m3"], node="m1")
    shutil.rmtree(cluster.local.directory / "m3")
    cluster.join_again("m3", "manager")
    missed = f"without-m3-{int(share * 10)}"
    wait_until(lambda: has(cluster, "m3", before | {missed}), "m3 has all again", 10)
    wait_until(lambda: sum(view.reachable for view in cluster.status("m1").members) == 3, "three members again")
