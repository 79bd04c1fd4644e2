"""The entropy port: the only place where random bytes and random numbers come from."""

from __future__ import annotations

import os
import random
from typing import Protocol

from swarm.model.ids import ID_RANDOM_BYTES, id_from_bytes


class Entropy(Protocol):
    """Random bytes for secrets, ids for objects, numbers for jitter. Also an `Ids`."""

    def bytes(self, size: int) -> bytes:
        """`size` unpredictable bytes."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number between low and high, for jitter; not for secrets."""
        ...

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]; not for secrets."""
        ...

    def new(self) -> str:
        """A fresh object id."""
        ...


class SystemEntropy:
    """The operating system's entropy."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def bytes(self, size: int) -> bytes:
        """From the kernel."""
        return os.urandom(size)

    def uniform(self, low: float, high: float) -> float:
        """From the kernel."""
        return self._random.uniform(low, high)

    def integer(self, low: int, high: int) -> int:
        """From the kernel."""
        return self._random.randint(low, high)

    def new(self) -> str:
        """From the kernel."""
        return id_from_bytes(self.bytes(ID_RANDOM_BYTES))


class SeededEntropy:
    """Everything drawn from one seed, the same on every machine: for simulation and tests, never for secrets."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def bytes(self, size: int) -> bytes:
        """From the seed."""
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        """From the seed."""
        return self._random.uniform(low, high)

    def integer(self, low: int, high: int) -> int:
        """From the seed."""
        return self._random.randint(low, high)

    def new(self) -> str:
        """From the seed."""
        return id_from_bytes(self.bytes(ID_RANDOM_BYTES))
