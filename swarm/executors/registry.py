"""Which executors this node has: the built-in ones and those that other packages register.

Its one idea: an executor is a name in the entry-point group `swarm.executors` with a factory behind it; ours are found the
same way, or directly where the package was not installed. A factory that cannot work here says why, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from attrs import frozen

from swarm.executors.base import Executor, ExecutorContext, ExecutorFactory, ExecutorUnavailable

ENTRY_POINT_GROUP = "swarm.executors"
AUTO = "auto"
BUILT_IN = {
    "process": "swarm.executors.process:factory",
    "docker": "swarm.executors.docker:factory",
}


@frozen
class Executors:
    """A node's executors by kind, and why the others that are installed cannot be used here."""

    usable: dict[str, Executor]
    unavailable: dict[str, str]

    def named(self, kind: str) -> Executor | None:
        """The executor of a task's runtime kind, if this node has it."""
        return self.usable.get(kind)


def installed() -> dict[str, EntryPoint]:
    """Every executor by name; a third party's may replace a built-in one of the same name only by being installed."""
    found = {name: EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in BUILT_IN.items()}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        found[entry_point.name.lower()] = entry_point
    return found


def open_executors(context: ExecutorContext, names: Sequence[str] = (AUTO,)) -> Executors:
    """The executors that a node was asked for. `auto` means all that work here; a name must work.

    Raises `ExecutorUnavailable` when a named one is not installed or cannot be used, or when none is left.
    """
    available = installed()
    wanted = [name.lower() for name in names]
    usable: dict[str, Executor] = {}
    unavailable: dict[str, str] = {}
    for name in available if AUTO in wanted else wanted:
        if name not in available:
            raise ExecutorUnavailable(
                f"there is no executor {name!r}; installed: {', '.join(sorted(available))}, or {AUTO}"
            )
        try:
            executor = _load(available[name])(context)
        except ExecutorUnavailable as error:
            if name in wanted:
                raise ExecutorUnavailable(f"executor {name!r} cannot be used on this machine: {error}") from None
            unavailable[name] = str(error)
        else:
            usable[executor.kind] = executor
    if not usable:
        reasons = "; ".join(f"{name}: {why}" for name, why in unavailable.items())
        raise ExecutorUnavailable(f"no executor can be used on this machine: {reasons}")
    return Executors(usable, unavailable)


def _load(entry_point: EntryPoint) -> ExecutorFactory:
    module_name, _, attribute = entry_point.value.partition(":")
    try:
        factory: ExecutorFactory = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ExecutorUnavailable(f"its factory {entry_point.value} cannot be imported: {error}") from None
    return factory
