"""Amounts in words: the same wording wherever the scheduler explains itself."""

from __future__ import annotations

from swarm.model.specs import NANO_CPUS_PER_CORE

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(size_bytes: int) -> str:
    """A number of bytes in the largest unit that keeps it exact, else with at most two decimals, rounded down."""
    value, unit = size_bytes, 0
    while unit < len(_UNITS) - 1 and value >= 1024 and value % 1024 == 0:
        value, unit = value // 1024, unit + 1
    if value < 10_240 or unit == len(_UNITS) - 1:
        return f"{value} {_UNITS[unit]}"
    unit = max(number for number in range(len(_UNITS)) if size_bytes >= 1024**number)
    whole, rest = divmod(size_bytes * 100 // 1024**unit, 100)
    return f"{whole}.{rest:02d}".rstrip("0").rstrip(".") + f" {_UNITS[unit]}"


def cores(nano_cpus: int) -> str:
    """A number of nano-CPUs in cores, with at most three decimals, rounded down."""
    thousandths = nano_cpus * 1000 // NANO_CPUS_PER_CORE
    whole, rest = divmod(thousandths, 1000)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".")


def nodes_in_words(count: int) -> str:
    """`1 node`, `3 nodes`."""
    return "1 node" if count == 1 else f"{count} nodes"


def counted(count: int, noun: str) -> str:
    """`1 task`, `no task`, `3 tasks`."""
    return f"no {noun}" if count == 0 else f"{count} {noun}" + ("" if count == 1 else "s")
