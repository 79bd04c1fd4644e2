"""Who sent what reached a mailbox over a link: a twin of `wire/authorize.py` that takes nothing from it but the declarations.

One idea: the kernel tells of every turn whom its message counted as sent by. What the committed entries say of that node (let in,
made a manager, on which host) is held against it, and its address against the host. A caller that a manager forwards is
looked at in the same way; whether it was a manager that forwarded it is not seen here.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field

from swarm.ca.identity import PeerRole
from swarm.model.events import Event
from swarm.model.objects import Node
from swarm.model.states import Role
from swarm.runtime.ref import Caller
from swarm.wire.registry import by_class

_WITHOUT_CERTIFICATE = (PeerRole.ANONYMOUS.value, PeerRole.LOCAL.value)


@define
class Senders:
    """What is known of the cluster's nodes, from the entries that were committed."""

    hosts: dict[str, str] = field(factory=dict)
    """Id of every node that was ever let in, to the host it runs on; empty until it has told."""
    managers: set[str] = field(factory=set)
    """Ids of those that are, were or are to be managers: a certificate outlives a demotion."""

    def see(self, event: Event) -> None:
        """An entry changed something."""
        node = event.after
        if isinstance(node, Node):
            self.hosts[node.id] = node.description.hostname or self.hosts.get(node.id, "")
            if Role.MANAGER in (node.role, node.spec.desired_role):
                self.managers.add(node.id)

    def objection(self, message: Any, caller: Caller, cluster_id: str) -> str:
        """Why this message must not have come to a mailbox; empty when it may. `cluster_id` is empty before it is known."""
        if caller.is_local_actor:
            return ""
        name = type(message).__name__
        declared = by_class(type(message))
        if declared is None:
            return f"{name} of {caller} is not declared to cross a link"
        if caller.role not in {role.value for role in declared.roles}:
            return f"{name} of {caller} may not be sent by this role"
        if caller.role in _WITHOUT_CERTIFICATE or not cluster_id:
            return ""
        if caller.cluster_id != cluster_id:
            return f"{name} of {caller} is of another cluster"
        if caller.node_id not in self.hosts:
            return f"{name} of {caller} is of a node that was never let in"
        if caller.role == PeerRole.MANAGER.value and caller.node_id not in self.managers:
            return f"{name} of {caller} counts as a manager's, and that node never was one"
        host = caller.address.rpartition(":")[0]
        known = self.hosts[caller.node_id]
        if host and known and host != known:
            return f"{name} of {caller} came from {host}, and that node is {known}"
        return ""
