"""`python -m tests.sim [SEED] [--seeds N] ...`: random stories in simulated clusters; a line per failing seed, a summary."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from hashlib import blake2b

from swarm.testing.world import Outcome, run_world
from tests.sim.storm import Storm

TWICE_ONE_IN = 20
"""One seed in so many is run twice; both runs must have the same hash."""


def main() -> int:
    """The exit code is 1 when a seed failed."""
    arguments = parse()
    if arguments.plant:
        from tests.sim.plants import find_all

        return find_all(arguments)
    totals: Counter[str] = Counter()
    probes: Counter[str] = Counter()
    virtual_s = wall_s = 0.0
    failed: list[str] = []
    everything = blake2b(digest_size=8)
    seeds = seeds_of(arguments)
    for number, seed in enumerate(seeds):
        outcome = run_one(arguments, seed)
        virtual_s, wall_s = virtual_s + outcome.virtual_s, wall_s + outcome.wall_s
        totals.update(outcome.faults)
        probes.update(outcome.probes)
        everything.update(outcome.hash.encode())
        if not outcome.violations and number % TWICE_ONE_IN == 0:
            again = run_one(arguments, seed)
            if again.hash != outcome.hash:
                outcome.violations.append(f"run twice, the hashes differ: {outcome.hash} and {again.hash}")
        if outcome.violations:
            failed.append(seed)
            print(f"FAILED seed {seed}: {outcome.violations[0]}\n  replay: {replay(arguments, seed)}", flush=True)
        elif arguments.verbose:
            print(f"ok seed {seed} {outcome.virtual_s:.0f} s in {outcome.wall_s:.1f} s {outcome.hash}", flush=True)
    speed = virtual_s / wall_s if wall_s else 0.0
    print(f"{len(seeds)} seeds, {len(failed)} failed, {virtual_s / 3600:.2f} virtual hours, {wall_s:.0f} wall seconds,")
    print(f"{speed:.0f} virtual seconds per wall second, schedule hash {everything.hexdigest()}")
    print("faults: " + ", ".join(f"{name} {count}" for name, count in sorted(totals.items())))
    print("probes: " + ", ".join(f"{name} {count}" for name, count in sorted(probes.items())))
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", nargs="?", default="1", help="the first seed, a number or any text (default: 1)")
    parser.add_argument("--seeds", type=int, default=1, help="how many, counted up from SEED")
    parser.add_argument("--level", choices=["frames"], default="frames", help="what stands for the network")
    parser.add_argument("--nodes", default="3,4", metavar="M,W", help="managers and workers (default: 3,4)")
    parser.add_argument("--minutes", type=float, default=3.0, help="virtual minutes of faults per seed (default: 3)")
    parser.add_argument("--plant", default="", metavar="NAME|all", help="plant a known bug and see whether it is found")
    parser.add_argument("--log", action="store_true", help="every log line of every node, with virtual time")
    parser.add_argument("--verbose", action="store_true", help="a line for seeds that pass, too")
    return parser.parse_args()


def seeds_of(arguments: argparse.Namespace) -> list[str]:
    """The seeds that were asked for."""
    if arguments.seeds == 1 or not arguments.seed.isdigit():
        return [arguments.seed]
    first = int(arguments.seed)
    return [str(seed) for seed in range(first, first + arguments.seeds)]


def run_one(arguments: argparse.Namespace, seed: str) -> Outcome:
    """One seed's story."""
    managers, workers = (int(part) for part in arguments.nodes.split(","))
    return run_world(seed, Storm(managers, workers, arguments.minutes), log=arguments.log)


def replay(arguments: argparse.Namespace, seed: str) -> str:
    """The command that does the same again."""
    return f"python -m tests.sim {seed} --nodes {arguments.nodes} --minutes {arguments.minutes:g}"


if __name__ == "__main__":
    sys.exit(main())
