"""Throw-away clusters for tests: a root, and credentials of any role and age under it."""

from __future__ import annotations

import os
import time

from swarm.ca import certificates as ca
from swarm.ca.credentials import Credentials
from swarm.ca.identity import PeerRole

DAY_S = 86400.0


class TestCluster:
    """A root that signs what a test asks for."""

    __test__ = False

    def __init__(self, cluster_id: str = "cluster-a") -> None:
        self.id = cluster_id
        self._key = ca.new_key(os.urandom(ca.KEY_RANDOM_BYTES))
        self.root_pem = ca.create_root(self._key, os.urandom(ca.SERIAL_RANDOM_BYTES), time.time() - 100 * DAY_S)
        self._authority = ca.Authority(self.root_pem, self._key)

    def credentials(self, node_id: str, role: PeerRole = PeerRole.MANAGER, *, age_s: float = 0.0) -> Credentials:
        """Valid for one day from `age_s` ago."""
        key = ca.new_key(os.urandom(ca.KEY_RANDOM_BYTES))
        certificate = self._authority.issue(
            ca.make_request(key),
            node_id=node_id,
            cluster_id=self.id,
            role=role,
            expiry_s=DAY_S,
            serial=os.urandom(ca.SERIAL_RANDOM_BYTES),
            now=time.time() - age_s,
        )
        return Credentials(certificate, key, self.root_pem)

    def root_only(self) -> Credentials:
        """What a machine has that knows the root and is about to join."""
        return Credentials(b"", b"", self.root_pem)
