"""How a task becomes something that runs. Third parties register theirs under the entry-point group `swarm.executors`."""
