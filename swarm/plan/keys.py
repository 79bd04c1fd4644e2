"""Keys of the orchestrators: a service, one part of a service, a node, or everything.

A planner is called with keys, so that the cost of a change can be the size of the change: one failed task plans one slot
of its service (`SERVICE/SLOT`, for global kinds `SERVICE/NODE`), one lost node plans the slots that it held (`@NODE`), and
only a change of the service itself plans all of it (`SERVICE`). `SERVICE/all` is the whole without trust in what is
remembered of it, `SERVICE/next` what follows in an update that one call could not finish.
"""

from __future__ import annotations

from attrs import frozen

from swarm.model.ids import NodeId, ServiceId

EVERYTHING = "*"
"""All services: a cluster setting that they depend on changed."""
ALL = "all"
"""The part that stands for every part: look at the whole service anew."""
NEXT = "next"
"""The part that stands for what is under way in a service: go on with it, from what is remembered of it."""
_NODE = "@"
_PART = "/"


@frozen
class Key:
    """A parsed key: exactly one of `everything`, `node` and `service` is set; `part` may be set beside `service`."""

    service: ServiceId | None = None
    part: str = ""
    """A slot number, or a node id for the global kinds; empty for the whole service."""
    node: NodeId | None = None
    everything: bool = False


def part_key(service_id: ServiceId, part: object) -> str:
    """The key of one slot, or of one node's share of a global service."""
    return f"{service_id}{_PART}{part}"


def node_key(node_id: NodeId) -> str:
    """The key of all that a node's state touches."""
    return f"{_NODE}{node_id}"


def parse_key(text: str) -> Key:
    """What a key names."""
    if text == EVERYTHING:
        return Key(everything=True)
    if text.startswith(_NODE):
        return Key(node=NodeId(text[1:]))
    service, _, part = text.partition(_PART)
    return Key(service=ServiceId(service), part=part)
