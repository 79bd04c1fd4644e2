"""Clusters of cores under loss, reordering, repetition, crashes with unflushed writes, partitions and membership changes.

After every step the properties of the paper's figure 3: election safety, a leader only appends, logs match, leaders are complete,
applied states are equal.
"""

from __future__ import annotations

import pytest
from raft_net import Network

STEPS = 2000


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("seed", range(20))
def test_no_invariant_breaks_and_the_cluster_converges(seed: int, size: int) -> None:
    net = Network(seed, size)
    for _ in range(STEPS):
        net.step()
    net.settle()
