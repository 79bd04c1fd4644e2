"""Every subsystem of a node as an isolated actor."""
