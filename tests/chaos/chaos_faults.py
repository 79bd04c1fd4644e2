"""Faults from a seed: which, on whom, how long. Every kind once before any comes again; each is undone before the next but one.

A kind begins by hurting and returns how to heal. Faults change the cluster only through `ChaosCluster` and its network.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeAlias

from chaos_cluster import ChaosCluster

Heal: TypeAlias = Callable[[], None]
Kind: TypeAlias = Callable[["Faults"], tuple[str, Heal]]

LENGTH_S: Final = (0.3, 3.0)
CALM_S: Final = (0.3, 1.5)
LEADER_SHARE: Final = 0.5
"""How often a fault among managers takes the leader."""


class Faults:
    """Hurts a cluster for a while; `spared` is never hurt itself."""

    def __init__(self, cluster: ChaosCluster, seed: int, spared: str = "") -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.story: list[str] = []
        self._spared = spared
        self._started_at = time.monotonic()
        self._bag: list[str] = []

    @property
    def kinds(self) -> dict[str, Kind]:
        """What can be done on this machine."""
        found: dict[str, Kind] = dict(PLAIN)
        if self.cluster.net is not None:
            found |= NETWORK
        if self.cluster.small_disks:
            found |= DISK
        return found

    def run(self, seconds: float) -> None:
        """Fault after fault, at times two at once, and all healed at the end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            healing = [self.begin()]
            time.sleep(self.random.uniform(*LENGTH_S))
            if self.random.random() < 0.3:
                healing.append(self.begin())
                time.sleep(self.random.uniform(*LENGTH_S))
            for heal in healing:
                heal()
            time.sleep(self.random.uniform(*CALM_S))

    def begin(self) -> Heal:
        """One fault; how to end it."""
        if not self._bag:
            self._bag = sorted(self.kinds)
            self.random.shuffle(self._bag)
        name = self._bag.pop()
        about, heal = self.kinds[name](self)
        self.counts[name] += 1
        self._say(f"{name}: {about}")

        def healed() -> None:
            heal()
            self._say(f"healed {name}: {about}")

        return healed

    # --- on whom ---------------------------------------------------------------------------------------------------------
    def manager(self) -> str:
        """One that runs; often the leader."""
        leader = self.cluster.leader() if self.random.random() < LEADER_SHARE else None
        running = [name for name in self.cluster.managers if self.cluster.running(name)]
        return leader if leader in running and leader is not None else self.random.choice(running)

    def worker(self) -> str:
        """One that may be hurt."""
        return self.random.choice([name for name in self.cluster.workers if name != self._spared])

    def _say(self, text: str) -> None:
        self.story.append(f"{time.monotonic() - self._started_at:6.1f} s  {text}")


def _kill(faults: Faults, name: str) -> tuple[str, Heal]:
    if not faults.cluster.running(name):
        return f"{name} is killed already", _nothing
    faults.cluster.kill(name)
    return name, lambda: faults.cluster.restart(name)


def _pause(faults: Faults, name: str) -> tuple[str, Heal]:
    if not faults.cluster.running(name):
        return f"{name} is killed already", _nothing
    pid = faults.cluster.pid(name)
    faults.cluster.pause(name)

    def resume() -> None:
        if faults.cluster.running(name) and faults.cluster.pid(name) == pid:
            faults.cluster.resume(name)

    return name, resume


def _isolate(faults: Faults) -> tuple[str, Heal]:
    net = faults.cluster.net
    assert net is not None
    name = faults.manager()
    net.split([name], [other for other in faults.cluster.nodes if other != name])
    return f"{name} from all", net.heal


def _split_managers(faults: Faults) -> tuple[str, Heal]:
    """The workers still reach everyone."""
    net = faults.cluster.net
    assert net is not None
    name = faults.manager()
    net.split([name], [other for other in faults.cluster.managers if other != name])
    return f"{name} from the managers", net.heal


def _shatter(faults: Faults) -> tuple[str, Heal]:
    net = faults.cluster.net
    assert net is not None
    names = faults.cluster.managers
    for at, name in enumerate(names):
        net.split([name], names[at + 1 :])
    return "every manager from every other", net.heal


def _deaf(faults: Faults) -> tuple[str, Heal]:
    net = faults.cluster.net
    assert net is not None
    name = faults.manager()
    for other in faults.cluster.managers:
        if other != name:
            net.drop(other, name)
    return f"{name} hears no manager", net.heal


def _mute(faults: Faults) -> tuple[str, Heal]:
    net = faults.cluster.net
    assert net is not None
    name = faults.manager()
    for other in faults.cluster.managers:
        if other != name:
            net.drop(name, other)
    return f"no manager hears {name}", net.heal


def _fill(faults: Faults) -> tuple[str, Heal]:
    name = sorted(faults.cluster.small_disks)[0]
    faults.cluster.fill_disk(name)
    return name, lambda: faults.cluster.free_disk(name)


def _nothing() -> None:
    """There is nothing to heal."""


PLAIN: Final[dict[str, Kind]] = {
    "kill a manager": lambda faults: _kill(faults, faults.manager()),
    "kill a worker": lambda faults: _kill(faults, faults.worker()),
    "pause a manager": lambda faults: _pause(faults, faults.manager()),
    "pause a worker": lambda faults: _pause(faults, faults.worker()),
}
NETWORK: Final[dict[str, Kind]] = {
    "cut off a manager": _isolate,
    "part the managers": _split_managers,
    "part all managers": _shatter,
    "deafen a manager": _deaf,
    "mute a manager": _mute,
}
DISK: Final[dict[str, Kind]] = {"fill a disk": _fill}
