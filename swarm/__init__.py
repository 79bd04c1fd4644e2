"""`swarm`: a cluster orchestrator built as actors in Trio nurseries. See docs/design/ for the house and its rules."""

__version__ = "0.1.0"
