"""A cluster whose machines were switched off past the end of their certificates, with real daemons."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from attrs import define

from swarm.actors.bootstrap import NodeSettings, new_cluster
from swarm.ca.certificates import validity_of
from swarm.model.ids import Instant
from swarm.ports.entropy import SystemEntropy
from swarm.ports.free_ports import free_port
from swarm.ports.state_dir import open_state_dir
from swarm.testing.daemons import local_cluster, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
OFF_S = 200 * 86400.0


@define
class LongAgo:
    """The clock of the day on which the cluster was made."""

    def now(self) -> Instant:
        return Instant(time.time() - OFF_S)

    def monotonic(self) -> float:
        return 0.0


def test_a_single_manager_that_was_off_for_months_starts_and_lets_others_join() -> None:
    with local_cluster() as cluster:
        root, address = cluster.directory / "m", f"127.0.0.1:{free_port()}"
        state = open_state_dir(root)
        settings = NodeSettings(hostname="m", listen=address, executors=("process",))
        made = new_cluster(state, settings, clock=LongAgo(), entropy=SystemEntropy())
        state.close()
        assert validity_of(made.credentials.certificate_pem).not_after < time.time()
        cluster.addresses["m"] = address
        cluster.names.append("m")
        cluster.run("up", "--state-dir", str(root), "--detach")
        wait_until(lambda: _expiry(root) > time.time(), "the certificate is renewed")
        cluster.start("w")
        wait_until(
            lambda: [view["node"]["status"]["state"] for view in cluster.json("node", "ls", node="m")] == ["ready"] * 2,
            "both nodes are ready",
        )
        assert _expiry(root) > time.time() + 86400, "the leader recorded it: it lasts"


def _expiry(root: Path) -> float:
    return validity_of((root / "pki" / "node.pem").read_bytes().partition(b"-----END PRIVATE KEY-----")[2]).not_after
