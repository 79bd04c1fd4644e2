"""`swarm node ...`: the machines of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import evolve

from swarm.commands import output, parse
from swarm.commands.context import Context, fail, stop, usage
from swarm.commands.progress import Wait, wait_for_drain
from swarm.commands.services import print_tasks
from swarm.model.specs import NodeSpec
from swarm.model.states import Availability, Role
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.client import LocalClient
from swarm.wire.messages.control import GetNode, ListNodes, ListTasks, NodeView, RemoveNode, UpdateNode
from swarm.wire.messages.node import GetNodeStatus

CONFLICT_RETRIES = 5


def list_nodes(context: Context, stale: bool) -> None:
    """All nodes; the one that was asked is marked."""
    views = context.ask(ListNodes(stale=stale))
    if context.quiet:
        output.print_lines(view.node.id for view in views)
    elif context.json:
        output.print_json(views)
    else:
        here = context.ask(GetNodeStatus()).node_id
        header = ("ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "TASKS", "RUNS")
        output.print_table(header, [_row(view, here) for view in views])


def _row(view: NodeView, here: str) -> tuple[str, ...]:
    node = view.node
    return (
        node.id[: output.SHORT_ID] + (" *" if node.id == here else ""),
        node.description.hostname,
        node.status.state.name.capitalize(),
        node.spec.availability.name.capitalize(),
        manager_text(view),
        str(view.tasks),
        ", ".join(node.description.executors),
    )


def manager_text(view: NodeView) -> str:
    """`Leader`, `Reachable`, `Unreachable`, with how far it lags; empty for a worker."""
    if view.node.role is not Role.MANAGER:
        return "Promoting" if view.node.spec.desired_role is Role.MANAGER else ""
    if view.leader:
        return "Leader"
    if view.reachable is None:
        return "Joining"
    text = "Reachable" if view.reachable else "Unreachable"
    return f"{text}, {view.lag} behind" if view.lag > 0 else text


def inspect(context: Context, names: Sequence[str], now: float) -> None:
    """Everything that is known of nodes, then what runs on them."""
    views = [context.ask(GetNode(_self(context, name))) for name in names]
    if context.json:
        output.print_json(views)
        return
    if context.quiet:
        output.print_lines(view.node.id for view in views)
        return
    for view in views:
        output.print_fields(_fields(view, now))
        output.print_lines([""])
        tasks = context.ask(ListTasks(node=view.node.id, all=False))
        print_tasks(context, tasks, now)


def _fields(view: NodeView, now: float) -> Iterable[tuple[str, str]]:
    node = view.node
    description = node.description
    yield "ID", node.id
    yield "Hostname", description.hostname
    yield "Labels", ", ".join(f"{key}={value}" for key, value in node.spec.labels.items())
    yield "Role", node.role.name.lower()
    yield "Availability", node.spec.availability.name.lower()
    since = output.age(now, node.status.since)
    yield "Status", f"{node.status.state.name.lower()}{f' for {since}' if since else ''} {node.status.message}".rstrip()
    yield "Address", node.status.address
    yield "Manager", manager_text(view)
    if node.manager is not None:
        yield "Manager address", node.manager.address
        yield "Raft member", str(node.manager.raft_id)
    yield "Platform", f"{description.platform.os}/{description.platform.architecture}".strip("/")
    resources = description.resources
    yield "CPUs", f"{resources.nano_cpus / 1e9:g}" if resources.nano_cpus else ""
    yield "Memory", output.size(resources.memory_bytes) if resources.memory_bytes else ""
    yield "Resources", ", ".join(f"{generic.kind}={generic.amount}" for generic in resources.generic)
    yield "Runs", ", ".join(description.executors)
    yield "Engine", description.engine_version
    yield "Engine labels", ", ".join(f"{key}={value}" for key, value in description.engine_labels.items())


def _self(context: Context, name: str) -> str:
    return context.ask(GetNodeStatus()).node_id if name == "self" else name


def set_availability(context: Context, names: Sequence[str], availability: Availability, wait: Wait) -> None:
    """Activate, pause or drain nodes; draining waits until their tasks are elsewhere."""
    for name in names:
        view = change(context, name, lambda spec: evolve(spec, availability=availability))
        output.print_lines([view.node.id if context.quiet else view.node.description.hostname or view.node.id])
        if availability is Availability.DRAIN and not wait.detach:
            wait_for_drain(context, view.node, wait)


def set_role(context: Context, names: Sequence[str], role: Role) -> None:
    """Promote to manager or demote to worker."""
    for name in names:
        view = change(context, name, lambda spec: evolve(spec, desired_role=role))
        output.print_lines([view.node.id if context.quiet else view.node.description.hostname or view.node.id])


def update(
    context: Context,
    name: str,
    label_add: Sequence[str],
    label_rm: Sequence[str],
    availability: str | None,
    role: str | None,
) -> None:
    """Change labels, availability or role of a node."""
    try:
        added = dict(parse.key_value(text, "--label-add") for text in label_add)
        wanted_availability = None if availability is None else Availability[availability.upper()]
        wanted_role = None if role is None else Role[role.upper()]
    except ValueError as error:
        usage(error)
    except KeyError:
        usage("--availability is active, pause or drain; --role is worker or manager")
    if not (added or label_rm or availability or role):
        usage("nothing to change: give --label-add, --label-rm, --availability or --role")

    def changed(spec: NodeSpec) -> NodeSpec:
        missing = [key for key in label_rm if key not in spec.labels]
        if missing:
            stop(f"node {name} has no label {missing[0]!r}")
        labels = {key: value for key, value in spec.labels.items() if key not in label_rm} | added
        return evolve(
            spec,
            labels=labels,
            availability=spec.availability if wanted_availability is None else wanted_availability,
            desired_role=spec.desired_role if wanted_role is None else wanted_role,
        )

    view = change(context, name, changed)
    output.print_lines([view.node.id if context.quiet else view.node.description.hostname or view.node.id])


def change(context: Context, name: str, changed: Callable[[NodeSpec], NodeSpec]) -> NodeView:
    """Read, change, write; again when somebody else wrote in between."""
    who = _self(context, name)
    try:
        with LocalClient(context.socket) as client:
            for attempt in range(CONFLICT_RETRIES):
                node = client.ask(GetNode(who), timeout_s=30).node
                try:
                    return client.ask(UpdateNode(node.id, node.version, changed(node.spec)), timeout_s=30)
                except SwarmError as error:
                    if error.code is not ErrorCode.OUT_OF_DATE or attempt == CONFLICT_RETRIES - 1:
                        raise
    except SwarmError as error:
        fail(error)
    raise AssertionError("the loop returns or raises")


def remove(context: Context, names: Sequence[str], force: bool) -> None:
    """Forget nodes; their certificates are refused from then on."""
    for name in names:
        node = context.ask(RemoveNode(name, force=force))
        output.print_lines([node.id if context.quiet else node.description.hostname or node.id])
