"""Who this node is, at its start: it founds a cluster, joins one, or comes back as who it was. Decides, then asks bootstrap.

What was typed at this start replaces what was remembered, as far as it may change; the rest stays as it was the last time.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve

from swarm.actors.bootstrap import Made, NodeSettings, certificate_problem, join, new_cluster, renew_expired
from swarm.actors.context import DEFAULT_LISTEN, NodeConfig, NodeNet, NodePorts
from swarm.ca.credentials import Credentials
from swarm.model.states import Role
from swarm.ports.state_dir import NodeFile, StateDir
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.link import Link
from swarm.wire.links import Links


@define
class AnonymousDialler:
    """How a machine without a usable certificate reaches a manager."""

    net: NodeNet
    links: Links

    def trust(self, root_pem: bytes) -> None:
        """Accept only servers of these roots; empty: any (nothing secret is said then)."""
        self.net.set_credentials(Credentials(b"", b"", root_pem) if root_pem else None)

    async def dial(self, address: str, *, timeout_s: float) -> Link:
        """A link without a certificate."""
        return await self.links.dial(address, anonymous=True, timeout_s=timeout_s)


async def identify(
    config: NodeConfig,
    ports: NodePorts,
    state: StateDir,
    dialler: AnonymousDialler,
    waiting: Callable[[str], None],
) -> tuple[Made, bool]:
    """The node and its credentials, and whether a cluster was founded just now."""
    known = state.node()
    if known is None:
        state.require_new()
        settings = _settings(config, ports)
        if config.force_new_cluster:
            raise SwarmError(
                ErrorCode.PRECONDITION, f"{config.state_dir} holds no manager: --force-new-cluster is for a survivor's"
            )
        if config.join is None:
            return new_cluster(state, settings, clock=ports.clock, entropy=ports.entropy), True
        made = await join(
            state,
            config.join.address,
            config.join.token,
            settings,
            dialler=dialler,
            clock=ports.clock,
            entropy=ports.entropy,
            progress=waiting,
        )
        return made, False
    if config.join is not None:
        state.require_empty()
    file = _remembered(config, known)
    # A manager's address is kept once it listens there: one that was mistyped, or is taken, is not tried again.
    kept = file if file.role is not Role.MANAGER else evolve(file, listen=known.listen, advertise=known.advertise)
    if kept != known:
        state.save_node(kept)
    credentials = state.require_credentials()
    if certificate_problem(credentials, ports.clock) is not None:
        waiting("this node's certificate has expired; asking a manager to renew it")
        try:
            credentials = await renew_expired(
                state, file.managers, dialler=dialler, clock=ports.clock, progress=waiting
            )
        except SwarmError as error:
            if error.code is not ErrorCode.UNAVAILABLE or file.role is not Role.MANAGER:
                raise
            waiting("no other manager renews this node's certificate; its own authority will once its store is open")
    return Made(file, credentials), False


def _settings(config: NodeConfig, ports: NodePorts) -> NodeSettings:
    return NodeSettings(
        hostname=config.hostname or ports.hostname(),
        listen=config.listen or DEFAULT_LISTEN,
        advertise=config.advertise or "",
        labels=config.labels or {},
        executors=() if config.executor in (None, "auto") else (config.executor,),
        generic=config.generic or (),
    )


def _remembered(config: NodeConfig, known: NodeFile) -> NodeFile:
    """What was remembered, with what was typed this time. A new listen address asks for a new advertised one."""
    file = known
    if config.hostname is not None:
        file = evolve(file, hostname=config.hostname)
    if config.listen is not None and config.listen != file.listen:
        file = evolve(file, listen=config.listen, advertise="")
    if config.advertise is not None:
        file = evolve(file, advertise=config.advertise)
    if config.executor is not None:
        file = evolve(file, executors=() if config.executor == "auto" else (config.executor,))
    if config.generic is not None:
        file = evolve(file, generic=config.generic)
    if config.managers:
        file = evolve(file, managers=tuple(dict.fromkeys((*config.managers, *file.managers))))
    if config.labels is not None and config.labels != file.labels:
        raise SwarmError(
            ErrorCode.PRECONDITION,
            "--label is for a node's first start; its labels are kept by the cluster now",
            {"hint": "swarm node update NODE --label-add NAME=VALUE"},
        )
    return file
