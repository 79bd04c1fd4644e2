"""Linux control groups: a group for each task with limits, which also finds and kills its processes. Versions 1 and 2.

Its one idea: below the group that this node itself runs in, where it may write if it is root or was delegated to, lies
`swarm-tasks/<task>`. What the machine does not allow is reported as text, never as an error: a task runs without.

Version 2 gives one group with everything; version 1 gives one per controller, made only for tasks that need the limit.
"""

from __future__ import annotations

import errno
import os
import re

from attrs import frozen

from swarm.ports import disk

MOUNT_TABLE = "/proc/self/mountinfo"
OWN_GROUPS = "/proc/self/cgroup"
TASKS_GROUP = "swarm-tasks"
NODE_GROUP = "swarm-node"
"""Where the node moves itself: a group of version 2 with limits below it may hold no processes of its own."""
CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1_000
"""The kernel refuses less."""
_ESCAPE = re.compile(r"\\([0-7]{3})")


@frozen
class Limits:
    """What a task may use; 0 is no limit."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0

    @property
    def wanted(self) -> tuple[str, ...]:
        """Which controllers they need."""
        amounts = {"cpu": self.nano_cpus, "memory": self.memory_bytes, "pids": self.pids}
        return tuple(name for name, amount in amounts.items() if amount > 0)


@frozen
class Home:
    """The group that this node runs in, in one hierarchy."""

    directory: str
    version: int
    controllers: frozenset[str]


@frozen
class Group:
    """One task's groups; `tracked` is empty when no group could be made that holds all its processes."""

    tracked: str = ""
    directories: tuple[str, ...] = ()
    unenforced: tuple[str, ...] = ()
    """Controllers whose limit could not be set, each as `cpu: why`."""

    @property
    def process_files(self) -> tuple[str, ...]:
        """Where the task's first process writes itself in."""
        return tuple(f"{directory}/cgroup.procs" for directory in self.directories)


def parse_homes(mount_table: str, own_groups: str) -> tuple[Home, ...]:
    """The node's groups, from the text of /proc/self/mountinfo and /proc/self/cgroup; version 2 first."""
    own: dict[str, str] = {}
    for line in own_groups.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    homes: list[Home] = []
    for line in mount_table.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, mount_point = (_ESCAPE.sub(lambda found: chr(int(found[1], 8)), text) for text in left.split(" ")[3:5])
        if kind == "cgroup2" and "" in own:
            homes.append(Home(_below(mount_point, root, own[""]), 2, frozenset()))
        elif kind == "cgroup":
            names = frozenset(options.split(" ")[-1].split(",")) & frozenset(own)
            if names & {"cpu", "memory", "pids"}:
                homes.append(Home(_below(mount_point, root, own[min(names)]), 1, names))
    return tuple(sorted(homes, key=lambda home: (-home.version, home.directory)))


def homes() -> tuple[Home, ...]:
    """The node's groups on this machine, those that exist and may be written to."""
    try:
        found = parse_homes(disk.read_bytes(MOUNT_TABLE).decode(), disk.read_bytes(OWN_GROUPS).decode())
    except (FileNotFoundError, ValueError):
        return ()
    usable: list[Home] = []
    for home in found:
        directory = home.directory.removesuffix(f"/{NODE_GROUP}")
        if not os.access(directory, os.W_OK):
            continue
        controllers = home.controllers
        if home.version == 2:
            controllers = frozenset(disk.read_bytes(f"{directory}/cgroup.controllers").decode().split())
        usable.append(Home(directory, home.version, controllers))
    return tuple(usable)


def enforceable(found: tuple[Home, ...]) -> frozenset[str]:
    """Which of cpu, memory and pids some hierarchy could limit."""
    offered = frozenset[str]().union(*(home.controllers for home in found))
    return offered & {"cpu", "memory", "pids"}


def create(found: tuple[Home, ...], name: str, limits: Limits) -> Group:
    """Makes a task's groups and sets its limits; there already is success. Without a limit there is no group.

    Joining a group costs the machine an RCU grace period, 10 to 25 ms, during which nothing else can fork: too much to
    pay for every start when a session holds the processes of nearly all tasks together just as well.
    """
    if not limits.wanted:
        return Group()
    tracked = ""
    directories: list[str] = []
    missing = dict.fromkeys(limits.wanted, "no control group of this machine can be written to by the node")
    for home in found:
        wanted = [
            controller for controller in limits.wanted if controller in home.controllers and controller in missing
        ]
        if home.version == 1 and not wanted:
            continue
        try:
            directory = _make(home, name, wanted)
            for controller in wanted:
                _set_limit(directory, home.version, controller, limits)
                del missing[controller]
        except OSError as error:
            missing.update(
                {controller: f"{error.strerror} ({error.filename})" for controller in wanted if controller in missing}
            )
            directory = f"{home.directory}/{TASKS_GROUP}/{name}"
            if not disk.is_directory(directory):
                continue
        directories.append(directory)
        if home.version == 2:
            tracked = directory
    return Group(tracked, tuple(directories), tuple(f"{key}: {why}" for key, why in missing.items()))


def existing(found: tuple[Home, ...], name: str) -> Group:
    """The groups of a task that were made before."""
    paths = {home: f"{home.directory}/{TASKS_GROUP}/{name}" for home in found}
    present = {home: path for home, path in paths.items() if disk.is_directory(path)}
    tracked = next((path for home, path in present.items() if home.version == 2), "")
    return Group(tracked, tuple(present.values()))


def members(group: Group) -> list[int]:
    """The pids in the tracked group and the groups below it."""
    pids: list[int] = []
    for directory, _, names in os.walk(group.tracked):
        if "cgroup.procs" in names:
            try:
                pids += map(int, disk.read_bytes(f"{directory}/cgroup.procs").split())
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):
                    raise
    return pids


def kill(group: Group) -> bool:
    """Kills all of a tracked group in one stroke where the kernel can (5.14 and later)."""
    path = f"{group.tracked}/cgroup.kill"
    if not group.tracked or not disk.is_file(path):
        return False
    disk.write_bytes(path, b"1")
    return True


def remove(group: Group) -> bool:
    """Removes a task's groups, and the common parent when it was the last; False while a process is in one of them."""
    gone = True
    for directory in group.directories:
        for below, _, _ in os.walk(directory, topdown=False):
            gone = disk.remove_empty_directory(below) and gone
        disk.remove_empty_directory(os.path.dirname(directory))
    return gone


def _below(mount_point: str, root: str, own: str) -> str:
    """Where group `own` is found in a hierarchy of which `root` is mounted at `mount_point`."""
    relative = own.removeprefix(root.rstrip("/")).strip("/")
    return f"{mount_point}/{relative}" if relative else mount_point


def _make(home: Home, name: str, wanted: list[str]) -> str:
    parent = f"{home.directory}/{TASKS_GROUP}"
    directory = f"{parent}/{name}"
    disk.make_directory(parent, 0o755)
    if home.version == 2 and wanted:
        enable = " ".join(f"+{controller}" for controller in wanted).encode()
        try:
            disk.write_bytes(f"{home.directory}/cgroup.subtree_control", enable)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _step_aside(home)
            disk.write_bytes(f"{home.directory}/cgroup.subtree_control", enable)
        disk.write_bytes(f"{parent}/cgroup.subtree_control", enable)
    disk.make_directory(directory, 0o755)
    return directory


def _step_aside(home: Home) -> None:
    """Moves this process into a group of its own, so that its former group may have limited ones below."""
    disk.make_directory(f"{home.directory}/{NODE_GROUP}", 0o755)
    disk.write_bytes(f"{home.directory}/{NODE_GROUP}/cgroup.procs", b"0")


def _set_limit(directory: str, version: int, controller: str, limits: Limits) -> None:
    quota = max(CPU_QUOTA_US_MIN, limits.nano_cpus * CPU_PERIOD_US // 10**9)
    match controller, version:
        case "cpu", 2:
            disk.write_bytes(f"{directory}/cpu.max", f"{quota} {CPU_PERIOD_US}".encode())
        case "cpu", _:
            disk.write_bytes(f"{directory}/cpu.cfs_period_us", str(CPU_PERIOD_US).encode())
            disk.write_bytes(f"{directory}/cpu.cfs_quota_us", str(quota).encode())
        case "memory", 2:
            disk.write_bytes(f"{directory}/memory.max", str(limits.memory_bytes).encode())
            if disk.is_file(f"{directory}/memory.oom.group"):
                disk.write_bytes(f"{directory}/memory.oom.group", b"1")
        case "memory", _:
            disk.write_bytes(f"{directory}/memory.limit_in_bytes", str(limits.memory_bytes).encode())
        case _:
            disk.write_bytes(f"{directory}/pids.max", str(limits.pids).encode())
