"""What the actors of one node share: who the node is, its ports, its links. Data and look-ups only, no behaviour.

`NodeContext` lives as long as the daemon, `ManagerContext` as long as the manager scope.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from attrs import define, field, frozen

from swarm.ca.credentials import Credentials
from swarm.ca.identity import PeerRole
from swarm.model.ids import ClusterId, NodeId, RaftId
from swarm.model.snapshot import Snapshot
from swarm.ports.clock import Clock
from swarm.ports.entropy import Entropy
from swarm.ports.log_store import LogStore
from swarm.ports.net import Net
from swarm.ports.state_dir import NodeFile, StateDir

if TYPE_CHECKING:
    from swarm.executors.registry import Executors
    from swarm.ports.task_store import TaskStore
    from swarm.runtime.ref import Ref
    from swarm.wire.links import Links
    from swarm.wire.local import LocalListener
    from swarm.wire.router import Router

DEFAULT_PORT = 4242
DEFAULT_LISTEN = f"0.0.0.0:{DEFAULT_PORT}"


@frozen
class JoinTarget:
    """A manager to join through, and the token that lets this machine in."""

    address: str
    token: str = field(repr=False)


@frozen
class NodeConfig:
    """What was asked for at this start; None is "as the last time, else the default"."""

    state_dir: Path
    listen: str | None = None
    advertise: str | None = None
    hostname: str | None = None
    labels: dict[str, str] | None = None
    executor: str | None = None
    generic: tuple[str, ...] | None = None
    join: JoinTarget | None = None
    force_new_cluster: bool = False
    managers: tuple[str, ...] = ()
    """Managers to ask besides those that were known."""


class NodeNet(Net, Protocol):
    """A network whose proof of identity can be exchanged while it is in use."""

    def set_credentials(self, credentials: Credentials | None) -> None:
        """New connections are made with these; those that stand are not touched."""
        ...


class NodePorts(Protocol):
    """Everything of the outside world that a node touches; the simulator has its own."""

    clock: Clock
    entropy: Entropy

    def open_state(self, path: Path) -> StateDir:
        """The locked state directory; `StateDirError` says why not."""
        ...

    def open_net(self) -> AbstractAsyncContextManager[NodeNet]:
        """The network, without credentials at first."""
        ...

    def open_local(self, path: str) -> AbstractAsyncContextManager[LocalListener]:
        """Where operators of this machine come in, for as long as the context lasts; `DialError` says why not."""
        ...

    def log_store(self, state: StateDir, data_key: bytes) -> LogStore:
        """A manager's durable log."""
        ...

    def task_store(self, state: StateDir) -> TaskStore:
        """The agent's record of its tasks."""
        ...

    def executors(self, file: NodeFile, state: StateDir) -> Executors:
        """The runtimes that the node was asked for; `SwarmError` when one is not to be had."""
        ...

    def hostname(self) -> str:
        """The machine's own name."""
        ...

    def outward_host(self) -> str:
        """The address of this machine that others most likely reach."""
        ...

    def pid(self) -> int:
        """This process."""
        ...


@define
class NodeContext:
    """One node of the cluster, as its actors see it."""

    config: NodeConfig
    ports: NodePorts
    state: StateDir
    file: NodeFile
    credentials: Credentials
    net: NodeNet
    router: Router
    links: Links
    local_agent: Ref | None = None

    @property
    def clock(self) -> Clock:
        """The clock port."""
        return self.ports.clock

    @property
    def entropy(self) -> Entropy:
        """The entropy port."""
        return self.ports.entropy

    @property
    def node_id(self) -> NodeId:
        """This node."""
        return self.file.node_id

    @property
    def cluster_id(self) -> ClusterId:
        """Its cluster."""
        return self.file.cluster_id

    def save(self, file: NodeFile) -> None:
        """Remember what changed; durable when this returns."""
        if file != self.file:
            self.state.save_node(file)
            self.file = file

    def agent_of(self, node_id: NodeId) -> Ref | None:
        """The agent of a node that is connected here, over the link that it opened; the own one without a link."""
        if node_id == self.node_id:
            return self.local_agent
        for link in self.links.all:
            if link.is_open and link.peer.node_id == node_id and link.peer.role is not PeerRole.ANONYMOUS:
                return link.ref("agent")
        return None


@frozen
class ManagerContext:
    """A manager's own actors."""

    node: NodeContext
    raft_id: RaftId
    store: Ref
    raft: Ref
    membership: Ref
    view: Callable[[], Snapshot]
    """This manager's own view, which may be old."""

    @property
    def clock(self) -> Clock:
        """The clock port."""
        return self.node.clock

    @property
    def entropy(self) -> Entropy:
        """The entropy port."""
        return self.node.entropy

    @property
    def router(self) -> Router:
        """The node's router."""
        return self.node.router

    @property
    def node_id(self) -> NodeId:
        """This node."""
        return self.node.node_id

    @property
    def cluster_id(self) -> ClusterId:
        """Its cluster."""
        return self.node.cluster_id

    def agent_of(self, node_id: NodeId) -> Ref | None:
        """The agent of a node that is connected here."""
        return self.node.agent_of(node_id)

    def advertised(self) -> str:
        """host:port at which other nodes reach this manager."""
        return self.node.file.advertise
