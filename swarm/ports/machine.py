"""What this machine is: platform, processors, memory."""

from __future__ import annotations

import os

from attrs import frozen

_NANO_CPUS_PER_CORE = 1_000_000_000


@frozen
class Machine:
    """Processors are those that this process may use."""

    architecture: str
    os: str
    nano_cpus: int
    memory_bytes: int


def describe() -> Machine:
    """This machine."""
    system = os.uname()
    return Machine(
        architecture=system.machine,
        os=system.sysname.lower(),
        nano_cpus=len(os.sched_getaffinity(0)) * _NANO_CPUS_PER_CORE,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    )
