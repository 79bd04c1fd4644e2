"""`python -m tests.sim [SEED] [--seeds N] [--jobs J] ...`: random stories in simulated clusters; failing seeds, a summary."""

from __future__ import annotations

import argparse
import sys
import time

from swarm.testing.sim_machine import Level
from swarm.testing.world import Outcome
from tests.sim.runner import Progress, Setting, run_seeds


def main() -> int:
    """The exit code is 1 when a seed failed."""
    arguments = parse()
    managers, workers = (int(part) for part in arguments.nodes.split(","))
    setting = Setting(managers, workers, arguments.minutes, arguments.log, arguments.level)
    if arguments.plant:
        from tests.sim.plants import find_all

        return find_all(arguments)
    seeds = seeds_of(arguments)
    progress = Progress(len(seeds))

    def tell(outcome: Outcome) -> None:
        progress.step(outcome)
        if outcome.violations:
            print(f"FAILED seed {outcome.seed}: {outcome.violations[0]}", flush=True)
            print(f"  replay: {setting.replay(outcome.seed)}", flush=True)
        elif arguments.verbose:
            text = f"{outcome.virtual_s:.0f} s in {outcome.wall_s / outcome.told:.1f} s {outcome.hash}"
            print(f"ok seed {outcome.seed} {text}", flush=True)

    began = time.monotonic()
    totals = run_seeds(setting, seeds, arguments.jobs, tell)
    print("\n".join(totals.lines(time.monotonic() - began)))
    return 1 if totals.failed else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", nargs="?", default="1", help="the first seed, a number or any text (default: 1)")
    parser.add_argument("--seeds", type=int, default=1, help="how many, counted up from SEED")
    parser.add_argument("--jobs", type=int, default=1, help="so many processes share the seeds (default: 1)")
    parser.add_argument(
        "--level",
        choices=[level.value for level in Level],
        default="frames",
        help="frames (default), or bytes: real TLS and websockets",
    )
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


if __name__ == "__main__":
    sys.exit(main())
