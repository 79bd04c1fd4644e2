"""Many seeds: one after another here, or shared out to subprocesses; one result a seed, in the order of the seeds.

One idea: a subprocess is this module with seeds on its standard input and a JSON line for each on its standard output. Which
process ran a seed, and what it ran before, must not show in the result: so the summary is the same whatever the number of jobs.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import blake2b
from subprocess import PIPE
from typing import Any

import attrs
import trio
from attrs import define, field

from swarm.testing.sim_machine import Level
from swarm.testing.world import Outcome, run_world
from tests.sim.storm import Storm

TWICE_ONE_IN = 20
"""One seed in so many is run twice; both runs must have the same hash."""
LIFE_SIGN_S = 10.0
"""Between two lines of progress, so that a long run shows life."""


@define(frozen=True)
class Setting:
    """What all seeds of a run have in common."""

    managers: int
    workers: int
    minutes: float
    log: bool = False
    level: str = Level.FRAMES.value

    def run(self, seed: str) -> Outcome:
        """One seed's story."""
        story = Storm(self.managers, self.workers, self.minutes)
        return run_world(seed, story, level=Level(self.level), log=self.log)

    def checked(self, seed: str, *, twice: bool) -> Outcome:
        """One seed's story; with `twice` it is told again and must come out the same."""
        outcome = self.run(seed)
        if twice and not outcome.violations:
            again = self.run(seed)
            outcome.wall_s += again.wall_s
            outcome.told = 2
            if again.hash != outcome.hash:
                outcome.violations.append(f"run twice, the hashes differ: {outcome.hash} and {again.hash}")
        return outcome

    def replay(self, seed: str) -> str:
        """The command that tells a seed's story again."""
        command = f"python -m tests.sim {seed} --nodes {self.managers},{self.workers} --minutes {self.minutes:g}"
        return command if self.level == Level.FRAMES.value else f"{command} --level {self.level}"


@define
class Totals:
    """What a run of many seeds adds up to."""

    seeds: int = 0
    failed: list[str] = field(factory=list)
    virtual_s: float = 0.0
    """Of every story that was told, the second tellings with them."""
    busy_s: float = 0.0
    """Seconds of work, of all processes together."""
    faults: Counter[str] = field(factory=Counter)
    probes: Counter[str] = field(factory=Counter)
    _hash: Any = field(factory=lambda: blake2b(digest_size=8))

    def add(self, outcome: Outcome) -> None:
        """One seed more; seeds are added in their order, as the hash is over all of them."""
        self.seeds += 1
        self.virtual_s += outcome.virtual_s * outcome.told
        self.busy_s += outcome.wall_s
        self.faults.update(outcome.faults)
        self.probes.update(outcome.probes)
        self._hash.update(outcome.hash.encode())
        if outcome.violations:
            self.failed.append(outcome.seed)

    def lines(self, wall_s: float) -> list[str]:
        """The summary."""
        speed = self.virtual_s / self.busy_s if self.busy_s else 0.0
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        probes = ", ".join(f"{name} {count}" for name, count in sorted(self.probes.items()))
        hours = self.virtual_s / 3600
        return [
            f"{self.seeds} seeds, {len(self.failed)} failed, {hours:.2f} virtual hours, {wall_s:.0f} wall seconds,",
            f"{speed:.0f} virtual seconds per second of one process, schedule hash {self._hash.hexdigest()}",
            f"faults: {faults}",
            f"probes: {probes}",
        ]


@define
class Progress:
    """Life signs on stderr: where a long run is, and about how long it has to go."""

    seeds: int
    done: int = 0
    failed: int = 0
    _began: float = field(factory=time.monotonic)
    _spoke: float = field(factory=time.monotonic)

    def step(self, outcome: Outcome) -> None:
        """One seed is done."""
        self.done += 1
        self.failed += bool(outcome.violations)
        now = time.monotonic()
        if now - self._spoke >= LIFE_SIGN_S and self.done < self.seeds:
            self._spoke = now
            left_s = (now - self._began) / self.done * (self.seeds - self.done)
            text = (
                f"sim: {self.done} of {self.seeds} seeds, {self.failed} failed, about {left_s / 60:.1f} minutes to go"
            )
            print(text, file=sys.stderr, flush=True)


def run_seeds(setting: Setting, seeds: Sequence[str], jobs: int, tell: Callable[[Outcome], None]) -> Totals:
    """Run all seeds in `jobs` processes; `tell` gets each outcome as it comes in, the totals are in the order of the seeds."""
    work = [(seed, number % TWICE_ONE_IN == 0) for number, seed in enumerate(seeds)]
    outcomes: dict[str, Outcome] = {}

    def take(outcome: Outcome) -> None:
        outcomes[outcome.seed] = outcome
        tell(outcome)

    if jobs == 1:
        for seed, twice in work:
            take(setting.checked(seed, twice=twice))
    else:
        trio.run(_share_out, setting, work, jobs, take)
    totals = Totals()
    for seed in seeds:
        totals.add(outcomes[seed])
    return totals


async def _share_out(
    setting: Setting, work: Sequence[tuple[str, bool]], jobs: int, take: Callable[[Outcome], None]
) -> None:
    waiting = deque(work)
    async with trio.open_nursery() as nursery:
        for _ in range(min(jobs, len(work))):
            nursery.start_soon(_employ, setting, waiting, take)


async def _employ(setting: Setting, waiting: deque[tuple[str, bool]], take: Callable[[Outcome], None]) -> None:
    """One subprocess, which is given a seed whenever it has done one. Its stderr is ours."""
    command = [sys.executable, "-m", "tests.sim.runner", json.dumps(attrs.asdict(setting))]
    run = partial(trio.run_process, command, stdin=PIPE, stdout=PIPE)
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run)
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        while waiting:
            seed, twice = waiting.popleft()
            await process.stdin.send_all(json.dumps([seed, twice]).encode() + b"\n")
            take(Outcome(**json.loads(await _line_of(process.stdout))))
        await process.stdin.aclose()


async def _line_of(stream: trio.abc.ReceiveStream) -> bytes:
    """The answer to the one order that is under way: a line, and nothing is sent after it until the next order."""
    line = b""
    while not line.endswith(b"\n"):
        data = await stream.receive_some()
        if not data:
            raise RuntimeError("a process of the simulation ended before it had answered")
        line += data
    return line


def serve(setting: Setting, orders: Iterable[str]) -> None:
    """The subprocess: answer each order (a JSON line: seed, whether twice) with its outcome."""
    for order in orders:
        seed, twice = json.loads(order)
        print(json.dumps(attrs.asdict(setting.checked(seed, twice=twice))), flush=True)


if __name__ == "__main__":
    serve(Setting(**json.loads(sys.argv[1])), sys.stdin)
