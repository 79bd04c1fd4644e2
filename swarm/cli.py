"""The `swarm` command: names the commands; what each does stands in `swarm/commands/`."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `swarm` command."""
    raise SystemExit("swarm: the command tree follows")
