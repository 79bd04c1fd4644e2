"""Entry point of the `swarm` command, and of `python -m swarm`."""

from __future__ import annotations

from swarm.commands.hiding import hide_secrets


def main() -> None:
    """Hide typed secrets before anything else is loaded, then run the command."""
    hide_secrets()
    from swarm.cli import main as run

    run()


if __name__ == "__main__":
    main()
