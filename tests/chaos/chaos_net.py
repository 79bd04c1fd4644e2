"""A network of its own for each test: every node in a network namespace, all on one bridge that stands in another.

Nothing of the machine's own network is touched; daemons are reached over their unix sockets. What is dropped is dropped by
nftables where it arrives, so that any direction between any two nodes can be cut. 198.18.0.0/15 is set apart for tests of
networks (RFC 2544).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count

PREFIX = "198.18.77."
_numbers = count(1)
RULES = """
add table inet chaos
add set inet chaos gone { type ipv4_addr; }
add chain inet chaos input { type filter hook input priority 0; }
add rule inet chaos input ip saddr @gone drop
"""


class TestNet:
    """Nodes by name, each at an address of its own."""

    __test__ = False

    def __init__(self) -> None:
        self._mark = f"chaos-{os.getpid()}-{next(_numbers)}"
        self._hub = f"{self._mark}-hub"
        self._spaces: dict[str, str] = {}

    def open(self) -> None:
        """The bridge."""
        _run("ip", "netns", "add", self._hub)
        _run("ip", "-n", self._hub, "link", "add", "hub", "type", "bridge")
        _run("ip", "-n", self._hub, "link", "set", "hub", "up")

    def close(self) -> None:
        """Remove every namespace, and with it all that was in it."""
        for space in [*self._spaces.values(), self._hub]:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, timeout=30)

    def left(self) -> list[str]:
        """Its namespaces that still are there."""
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=30).stdout
        return [line for line in listed.splitlines() if line.startswith(f"{self._mark}-")]

    def add(self, name: str) -> str:
        """A node's address; from now on `inside` works for it."""
        number = len(self._spaces) + 1
        space = self._spaces[name] = f"{self._mark}-{name}"
        _run("ip", "netns", "add", space)
        _run("ip", "-n", self._hub, "link", "add", f"to{number}", "type", "veth", "peer", "name", "net", "netns", space)
        _run("ip", "-n", self._hub, "link", "set", f"to{number}", "master", "hub", "up")
        _run("ip", "-n", space, "addr", "add", f"{PREFIX}{number}/24", "dev", "net")
        _run("ip", "-n", space, "link", "set", "net", "up")
        _run("ip", "-n", space, "link", "set", "lo", "up")
        _run(*self.inside(name), "nft", "-f", "-", stdin=RULES)
        return f"{PREFIX}{number}"

    def inside(self, name: str) -> list[str]:
        """What to put before a command that shall run in a node's namespace."""
        return ["nsenter", f"--net=/run/netns/{self._spaces[name]}"]

    def drop(self, source: str, target: str) -> None:
        """From now on nothing from `source` arrives at `target`."""
        number = list(self._spaces).index(source) + 1
        rule = f"add element inet chaos gone {{ {PREFIX}{number} }}\n"
        _run(*self.inside(target), "nft", "-f", "-", stdin=rule)

    def split(self, one: Iterable[str], other: Iterable[str]) -> None:
        """Nothing passes between the two sides."""
        others = list(other)
        for a in one:
            for b in others:
                self.drop(a, b)
                self.drop(b, a)

    def heal(self) -> None:
        """Everything passes again."""
        for name in self._spaces:
            _run(*self.inside(name), "nft", "flush", "set", "inet", "chaos", "gone")


def why_not() -> str:
    """Why namespaces cannot be made here, in one line; empty when they can."""
    if missing := [tool for tool in ("ip", "nft", "nsenter") if shutil.which(tool) is None]:
        return f"{', '.join(missing)} is not installed"
    net = TestNet()
    try:
        net.open()
        net.add("probe")
    except RuntimeError as error:
        return str(error)
    finally:
        net.close()
    return ""


@contextmanager
def small_disk(directory: str, size_mib: int) -> Iterator[None]:
    """`directory` on a file system of its own."""
    os.makedirs(directory, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "swarm-chaos", directory)
    try:
        yield
    finally:
        _run("umount", "--lazy", directory)


def _run(*command: str, stdin: str = "") -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
