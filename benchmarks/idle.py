"""What does a node cost that has nothing to do? Resident memory (MB) and share of a core (%), from /proc, over a minute.

The bars: a worker under 60 MB and 0.5 %, a manager under 90 MB and 1 %. The peer (dockerd with containerd, idle): a manager
125 to 135 MB and 0.9 to 1.25 %, a worker 118 MB.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from swarm.testing.daemons import local_cluster

SECONDS = float(os.environ.get("SWARM_IDLE_SECONDS", "60"))
SETTLE_S = 5.0


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError(f"process {pid} has no resident memory")


def main() -> None:
    """Print the figures of one manager alone, of three, and of a worker."""
    with local_cluster() as cluster:
        cluster.start("manager-1")
        measure({"manager, alone": cluster.pid("manager-1")})
        cluster.start("manager-2", "manager")
        cluster.start("manager-3", "manager")
        cluster.start("worker")
        leader = next(
            view["node"]["description"]["hostname"]
            for view in cluster.json("node", "ls", node="manager-1")
            if view["leader"]
        )
        follower = next(name for name in cluster.names if name.startswith("manager") and name != leader)
        measure(
            {
                "manager, leader of three": cluster.pid(leader),
                "manager, follower of three": cluster.pid(follower),
                "worker": cluster.pid("worker"),
            }
        )


def measure(pids: dict[str, int]) -> None:
    """Watch processes side by side for a while."""
    time.sleep(SETTLE_S)
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    time.sleep(SECONDS)
    for name, pid in pids.items():
        share = (cpu_s(pid) - before[name]) / SECONDS * 100
        print(f"{name:<30} {resident_mb(pid):6.1f} MB   {share:5.2f} % of a core over {SECONDS:g} s")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
