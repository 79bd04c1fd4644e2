"""Faults from a seed: which, on whom, how long. Every kind once before any comes again; each is undone before the next but one.

A kind begins by hurting and returns how to heal. Faults change the cluster only through `ChaosCluster` and its network.
Managers that leave or lose their log need the others to agree, so that such a fault has no other one beside it.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeAlias

from chaos_cluster import ChaosCluster, state_file

Heal: TypeAlias = Callable[[], None]
Kind: TypeAlias = Callable[["Faults"], tuple[str, Heal]]

LENGTH_S: Final = (0.3, 3.0)
CALM_S: Final = (0.3, 1.5)
LEADER_SHARE: Final = 0.5
"""How often a fault among managers takes the leader."""
SKEW_S_MAX: Final = 1800.0
"""Half of what certificates are backdated by: OpenSSL reads the machine's clock, not the one that jumps here."""
PROGRESS_S: Final = 15.0


class Faults:
    """Hurts a cluster for a while; `spared` is never hurt itself."""

    def __init__(
        self, cluster: ChaosCluster, seed: int, spared: str = "", tell: Callable[[str], None] = lambda text: None
    ) -> None:
        self.cluster = cluster
        self._tell = tell
        self._told_at = time.monotonic()
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.story: list[str] = []
        self.spared = spared
        self._started_at = time.monotonic()
        self._bag: list[str] = []
        self._last = ""

    @property
    def kinds(self) -> dict[str, Kind]:
        """What can be done on this machine."""
        found: dict[str, Kind] = {**PLAIN, **ALONE}
        if self.cluster.net is not None:
            found |= NETWORK
        if self.cluster.small_disks:
            found |= DISK
        return found

    def run(self, seconds: float) -> None:
        """Fault after fault, at times two at once, and all healed at the end."""
        self._started_at = self._told_at = time.monotonic()
        end = self._started_at + seconds
        while time.monotonic() < end:
            healing = [self.begin()]
            time.sleep(self.random.uniform(*LENGTH_S))
            if self.random.random() < 0.3 and self._last not in ALONE:
                healing.append(self.begin(beside=True))
                time.sleep(self.random.uniform(*LENGTH_S))
            for heal in healing:
                heal()
            self._progress(end)
            time.sleep(self.random.uniform(*CALM_S))

    def _progress(self, end: float) -> None:
        """One line now and then, for whoever watches."""
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_S or now >= end:
            self._told_at = now
            length = end - self._started_at
            count = sum(self.counts.values())
            self._tell(f"{now - self._started_at:.0f} of {length:.0f} s: {count} faults, the last: {self._last}")

    def begin(self, beside: bool = False) -> Heal:
        """One fault; how to end it. `beside`: another one goes on, so that it is none that must be alone."""
        if not self._bag or (beside and set(self._bag) <= set(ALONE)):
            more = sorted(self.kinds)
            self.random.shuffle(more)
            self._bag = [*more, *self._bag]
        at = max(at for at, name in enumerate(self._bag) if not (beside and name in ALONE))
        name = self._bag.pop(at)
        self._last = name
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
        return self.random.choice([name for name in self.cluster.workers if name != self.spared])

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
    if not faults.cluster.running(name):
        return f"{name} is killed already", _nothing  # it would not start again while there is no space
    faults.cluster.fill_disk(name)
    return name, lambda: faults.cluster.free_disk(name)


def _jump(faults: Faults) -> tuple[str, Heal]:
    name = faults.random.choice([name for name in faults.cluster.nodes if name != faults.spared])
    skew_s = faults.random.uniform(-SKEW_S_MAX, SKEW_S_MAX)
    faults.cluster.set_clock(name, skew_s)
    return f"{name} by {skew_s:.0f} s", lambda: faults.cluster.set_clock(name, 0.0)


def _restart(faults: Faults) -> tuple[str, Heal]:
    name = faults.manager()
    if name in faults.cluster.paused:
        return f"{name} hears no signal", _nothing
    faults.cluster.stop(name)
    return name, lambda: faults.cluster.restart(name)


# --- managers that come and go: nothing else is broken meanwhile, and all that is there can agree -----------------------
def _demote(faults: Faults) -> tuple[str, Heal]:
    name = faults.manager()
    faults.cluster.demote(name)
    return name, lambda: faults.cluster.promote(name)


def _leave(faults: Faults) -> tuple[str, Heal]:
    name = faults.manager()
    faults.cluster.leave(name)
    return name, lambda: faults.cluster.join_again(name, "manager")


def _lose(faults: Faults) -> tuple[str, Heal]:
    name = faults.manager()
    faults.cluster.kill(name)
    return name, lambda: _replace(faults, name)


def _damage(faults: Faults) -> tuple[str, Heal]:
    """One bit of its log, wherever that is; or the last bytes are missing."""
    cluster, name = faults.cluster, faults.manager()
    cluster.kill(name)
    path = state_file(cluster, name, "raft", faults.random.choice(("log.db", "log.db-wal")))
    data = bytearray(path.read_bytes() if path.exists() else b"")
    if data and path.suffix == ".db-wal" and faults.random.random() < 0.5:
        lost = faults.random.randint(1, min(len(data), 4096))
        path.write_bytes(data[:-lost])
        about = f"{name}: {path.name} without its last {lost} bytes"
    elif data:
        at = faults.random.randrange(len(data))
        data[at] ^= 1 << faults.random.randrange(8)
        path.write_bytes(data)
        about = f"{name}: {path.name} with one bit at {at} flipped"
    else:
        about = f"{name}: {path.name} is empty"

    def heal() -> None:
        started = cluster.attempt_up(name)
        if started.returncode:
            assert "is damaged" in started.stderr and "join it again" in started.stderr, started.stderr
            faults.counts["refused a damaged log"] += 1
            _replace(faults, name)

    return about, heal


def _replace(faults: Faults, name: str) -> None:
    """What operators do for a manager that is lost for good: take it out, set its machine up anew, join it."""
    faults.cluster.remove(name)
    faults.cluster.erase(name)
    faults.cluster.join_again(name, "manager")


def _nothing() -> None:
    """There is nothing to heal."""


PLAIN: Final[dict[str, Kind]] = {
    "kill a manager": lambda faults: _kill(faults, faults.manager()),
    "kill a worker": lambda faults: _kill(faults, faults.worker()),
    "pause a manager": lambda faults: _pause(faults, faults.manager()),
    "pause a worker": lambda faults: _pause(faults, faults.worker()),
    "restart a manager": _restart,
    "a clock jumps": _jump,
}
ALONE: Final[dict[str, Kind]] = {
    "demote and promote a manager": _demote,
    "a manager leaves and joins": _leave,
    "lose a manager for good": _lose,
    "damage a log": _damage,
}
NETWORK: Final[dict[str, Kind]] = {
    "cut off a manager": _isolate,
    "part the managers": _split_managers,
    "part all managers": _shatter,
    "deafen a manager": _deaf,
    "mute a manager": _mute,
}
DISK: Final[dict[str, Kind]] = {"fill a disk": _fill}
