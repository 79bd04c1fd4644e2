"""Where a process task keeps its things on this node: one directory a task, named by its id."""

from __future__ import annotations

from attrs import frozen

from swarm.executors.base import Stream
from swarm.model.ids import TaskId


@frozen
class Layout:
    """The paths of one task."""

    root: str
    """The executor's directory."""
    task_id: TaskId

    @property
    def directory(self) -> str:
        """Everything of the task lies below."""
        return f"{self.root}/{self.task_id}"

    @property
    def record(self) -> str:
        """What happened to it, see `record`."""
        return f"{self.directory}/record"

    @property
    def scratch(self) -> str:
        """Its working directory, unless the spec names another; removed with the task."""
        return f"{self.directory}/work"

    def output(self, stream: Stream) -> str:
        """Where it writes."""
        return f"{self.directory}/{stream}"

    def marks(self, stream: Stream) -> str:
        """Which part of the output was written by when, see `marks`."""
        return f"{self.directory}/{stream}.marks"
