"""One manager's disk goes bad: it is full, or bytes of its log are flipped or cut off while the daemon is down.

What nobody was told of may be dropped; anything else is refused with a text that names the file and the way out, and the way
out works: the others carry on, and the member comes back empty and gets everything from them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from chaos_clients import idle_service
from chaos_cluster import ChaosCluster, state_file

from swarm.runtime.errors import SwarmError
from swarm.testing.daemons import wait_until
from swarm.wire.messages.control import CreateService, ListServices

LEADER_TRIES = 3
ANSWER_S = 10.0
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


def write(three: ChaosCluster, node: str, names: list[str]) -> None:
    """One acknowledged write a name."""
    for name in names:
        three.ask(node, CreateService(idle_service(name)))


def services(three: ChaosCluster, node: str, stale: bool = False) -> set[str]:
    return {view.service.spec.name for view in three.ask(node, ListServices(stale=stale))}


def has(three: ChaosCluster, node: str, names: set[str]) -> bool:
    """Whether this manager's own state holds them; one that starts has none yet."""
    try:
        return names <= services(three, node, stale=True)
    except SwarmError:
        return False


def flip(path: Path, share: float) -> None:
    """One bit of one byte, that far into the file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 0x10
    path.write_bytes(bytes(data))


def log_files(three: ChaosCluster, node: str) -> tuple[Path, Path]:
    """The database and its write-ahead log."""
    return state_file(three, node, "raft", "log.db"), state_file(three, node, "raft", "log.db-wal")


def start_again(three: ChaosCluster, node: str) -> tuple[int, str]:
    """Exit code and what it said of a start that is expected to be refused."""
    done = three.attempt_up(node)
    return done.returncode, done.stderr


def test_a_torn_last_write_is_dropped_and_got_again_from_the_others(three: ChaosCluster) -> None:
    write(three, "m1", [f"torn-{number}" for number in range(5)])
    wait_until(lambda: has(three, "m2", {"torn-4"}), "m2 has them")
    three.kill("m2")
    _, wal = log_files(three, "m2")
    size = wal.stat().st_size
    assert size > 4096, "the last writes are in the write-ahead log"
    with wal.open("r+b") as file:
        file.truncate(size - 100)
    three.restart("m2")
    expected = {f"torn-{number}" for number in range(5)}
    wait_until(lambda: has(three, "m2", expected), "m2 has all again")
    assert expected <= services(three, "m2")


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_flipped_byte_is_refused_with_the_way_out_and_the_way_out_works(three: ChaosCluster, share: float) -> None:
    names = [f"flip-{int(share * 10)}-{number}" for number in range(8)]
    write(three, "m1", names)
    wait_until(lambda: has(three, "m2", set(names)), "m2 has them")
    three.kill("m2")
    _, wal = log_files(three, "m2")
    flip(wal, share)
    code, said = start_again(three, "m2")
    assert code == 1, said
    assert "is damaged" in said and "log.db" in said
    assert "node rm" in said and "join it again" in said
    assert "Traceback" not in said
    before = services(three, "m1")
    assert set(names) <= before, "the others have everything and carry on"
    write(three, "m1", [f"without-m2-{int(share * 10)}"])
    # The way out, as the text says it.
    three.remove("m2")
    three.erase("m2")
    three.join_again("m2", "manager")
    missed = f"without-m2-{int(share * 10)}"
    wait_until(lambda: has(three, "m2", before | {missed}), "m2 has all again")
    wait_until(lambda: sum(view.reachable for view in three.status("m1").members) == 3, "three members again")


def test_a_full_disk_stops_nobody_else_says_so_and_catches_up_when_there_is_space(three: ChaosCluster) -> None:
    if not three.small_disks:
        pytest.skip(f"no small disk can be mounted here: {three.why}")
    for _ in range(LEADER_TRIES):
        if (leader := three.leader()) in (None, "m3"):
            break
        three.pause(str(leader))
        wait_until(lambda: three.leader_of("m3") not in (None, leader), "another one leads")
        three.resume(str(leader))
    three.fill_disk("m3")
    names = {f"full-{number}" for number in range(20)}
    try:
        # The first may find a leader that cannot write: that answers soon, and lets another one lead.
        with suppress(SwarmError):
            three.ask("m1", CreateService(idle_service("full-first")), ANSWER_S)
        write(three, "m1", sorted(names))
        assert names <= services(three, "m1")
        wait_until(
            lambda: "is full" in three.local.log("m3") or not has(three, "m3", names), "it is behind, or says so"
        )
    finally:
        three.free_disk("m3")
    assert three.running("m3"), three.logs()
    wait_until(lambda: has(three, "m3", names), "m3 has all")
