"""Equal specs as one object: a cluster of 100,000 services has few different ones, and every revision repeats its service's.

What comes off the wire, out of the log or out of a snapshot is made anew each time; without this every member but the one that
an object was born on would hold each spec twice, and a spec that a thousand services have a thousand times.
"""

from __future__ import annotations

from attrs import evolve

from swarm.model.specs import ServiceSpec, TaskSpec

KEPT_MAX = 4096
"""Different task specs remembered: more are no sign of much repetition. Forgetting them loses nothing but the sharing."""


class SharedSpecs:
    """The task specs seen so far."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[TaskSpec, TaskSpec] = {}

    def share(self, spec: ServiceSpec, beside: ServiceSpec | None) -> ServiceSpec:
        """A spec equal to `spec`: `beside` (its service's, or its revision's) if equal, else with a task spec seen before."""
        if beside is not None and (beside is spec or beside == spec):
            return beside
        tasks = self._tasks
        if len(tasks) >= KEPT_MAX:
            tasks.clear()
        task = tasks.setdefault(spec.task, spec.task)
        return spec if task is spec.task else evolve(spec, task=task)
