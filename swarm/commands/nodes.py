"""`swarm node ...`: the machines of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve

from swarm.commands import output, parse
from swarm.commands.context import Context, fail, stop, usage
from swarm.commands.task_table import print_tasks
from swarm.model.objects import Node
from swarm.model.specs import NodeSpec
from swarm.model.states import Availability, Role
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.client import LocalClient
from swarm.wire.messages.control import GetNode, ListNodes, ListTasks, NodeView, RemoveNode, UpdateNode
from swarm.wire.messages.node import GetNodeStatus

if TYPE_CHECKING:
    from swarm.commands.progress import Wait

E = TypeVar("E", bound=Enum)

CONFLICT_RETRIES = 5
HEADER = ("ID", "HOSTNAME", "STATUS", "MANAGER", "TASKS", "RUNS")
"""Of the list. What is the same for nearly all nodes, that they are active, is a word of the status where it is not."""


def list_nodes(context: Context, stale: bool) -> None:
    """All nodes; the one that was asked is marked."""
    views = context.ask(ListNodes(stale=stale))
    context.show(views, (view.node.id for view in views), lambda: _print_list(context, views))


def _print_list(context: Context, views: Iterable[NodeView]) -> None:
    here = context.ask(GetNodeStatus()).node_id
    output.print_table(HEADER, [row(view, here) for view in views])


def row(view: NodeView, here: str) -> tuple[str, ...]:
    """A node's line in the list; `here` is the id of the node that was asked."""
    node = view.node
    return (
        node.id[: output.SHORT_ID] + (" *" if node.id == here else ""),
        node.description.hostname,
        status_text(node),
        manager_text(view),
        str(view.tasks),
        ", ".join(node.description.executors),
    )


def status_text(node: Node) -> str:
    """`Ready`, `Down`; with `drain` or `pause` when no new tasks are placed there."""
    state = node.status.state.name.capitalize()
    if node.spec.availability is Availability.ACTIVE:
        return state
    return f"{state}, {node.spec.availability.name.lower()}"


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
    context.show(views, (view.node.id for view in views), lambda: _print_details(context, views, now))


def _print_details(context: Context, views: Iterable[NodeView], now: float) -> None:
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
    """Activate, pause or drain nodes; draining waits until their tasks are elsewhere, on none of the named ones."""
    drained = _change_each(context, names, lambda spec: evolve(spec, availability=availability))
    if availability is Availability.DRAIN and not wait.detach:
        from swarm.commands.progress import wait_for_drain

        for view in drained:
            wait_for_drain(context, view.node, wait)


def set_role(context: Context, names: Sequence[str], role: Role) -> None:
    """Promote to manager or demote to worker."""
    _change_each(context, names, lambda spec: evolve(spec, desired_role=role))


def _change_each(context: Context, names: Sequence[str], changed: Callable[[NodeSpec], NodeSpec]) -> list[NodeView]:
    """Change nodes, none when a name is not known; those that were changed are told even when a later one is refused."""
    done: list[NodeView] = []
    ids = _ids_of(context, names)
    try:
        for id in ids:
            done.append(change(context, id, changed))
    finally:
        _show_written(context, done, [view.node for view in done])
    return done


def _ids_of(context: Context, names: Sequence[str]) -> list[str]:
    """The ids of nodes by name, each once; a name that is not known ends the command."""
    return list(dict.fromkeys(context.ask(GetNode(_self(context, name))).node.id for name in names))


def _show_written(context: Context, objects: Sequence[Any], nodes: Sequence[Node]) -> None:
    if objects:
        names = [node.description.hostname or node.id for node in nodes]
        context.show(objects, [node.id for node in nodes], lambda: output.print_lines(names))
        output.deliver()  # what was written is told before the wait


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
        wanted_availability = _member("--availability", Availability, availability)
        wanted_role = _member("--role", Role, role)
    except ValueError as error:
        usage(error)
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

    node = change(context, name, changed)
    shown = node.node.description.hostname or node.node.id
    context.show(node, [node.node.id], lambda: output.print_lines([shown]))


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


def _member(flag: str, choices: type[E], text: str | None) -> E | None:
    """The member of an enum that was typed, None when none was."""
    if text is None:
        return None
    known = {choice.name.lower(): choice for choice in choices}
    if text.lower() not in known:
        raise ValueError(f"{flag} {text!r} is not known: {', '.join(known)}")
    return known[text.lower()]


def remove(context: Context, names: Sequence[str], force: bool) -> None:
    """Forget nodes; their certificates are refused from then on. None is forgotten when a name is not known."""
    done: list[Node] = []
    ids = _ids_of(context, names)
    try:
        for id in ids:
            done.append(context.ask(RemoveNode(id, force=force)))
    finally:
        _show_written(context, done, done)
