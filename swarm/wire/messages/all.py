"""Imports every message that may leave a node, for those who need all declarations to be known: daemons, golden files."""

from __future__ import annotations

from swarm.wire.messages import ca, control, dispatcher, node, raft

__all__ = ["ca", "control", "dispatcher", "node", "raft"]
