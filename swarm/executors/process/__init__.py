"""Plain processes as tasks. The entry point `process` of the group `swarm.executors`."""

from swarm.executors.process.executor import ProcessExecutor, factory

__all__ = ["ProcessExecutor", "factory"]
