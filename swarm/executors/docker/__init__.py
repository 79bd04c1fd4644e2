"""Containers of a Docker Engine as tasks. The entry point `docker` of the group `swarm.executors`.

Importing this package loads nothing of the Docker SDK: a node without an engine must not pay for it.
"""

from swarm.executors.docker.executor import DockerExecutor, factory

__all__ = ["DockerExecutor", "factory"]
