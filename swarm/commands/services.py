"""`swarm svc ...`: declare, change, watch and explain services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from swarm.commands import output
from swarm.commands.context import Context, Exit, fail, read_secret, usage
from swarm.commands.parse import duration_s
from swarm.commands.progress import Wait, wait_for_service
from swarm.commands.service_fields import ports_text, spec_fields
from swarm.commands.service_spec import changed_spec, mode_name, new_spec, scaled_spec
from swarm.commands.task_table import print_tasks
from swarm.executors.base import Stream
from swarm.model.ids import Instant, NodeId, RevisionNumber
from swarm.model.objects import Revision
from swarm.model.specs import ContainerSpec, GenericSpec, ProcessSpec, ServiceSpec
from swarm.model.states import UpdateState
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.wire.client import LocalClient
from swarm.wire.messages.control import (
    CreateService,
    ExplainService,
    FollowLogs,
    GetService,
    ListNodes,
    ListRevisions,
    ListServices,
    ListTasks,
    RemoveService,
    RollbackService,
    ServiceView,
    ServiceWritten,
    UpdateService,
)
from swarm.wire.messages.node import TaskLogLine

CONFLICT_RETRIES = 5
"""How often a change is repeated on a service that somebody else changed at the same moment."""
KEEP = "keep"
"""The verb of a plan's line for a task that nothing happens to."""


# --- writing -------------------------------------------------------------------------------------------------------
def create(context: Context, flags: dict[str, Any], command: Sequence[str], plan: bool, wait: Wait) -> None:
    """Declare a service and wait for it."""
    try:
        spec = new_spec(_with_registry_auth(flags), command)
    except ValueError as error:
        usage(error)
    written = context.ask(CreateService(spec, plan_only=plan))
    _after_write(context, written, plan, wait)


def update(context: Context, who: str, flags: dict[str, Any], command: Sequence[str], plan: bool, wait: Wait) -> None:
    """Change a service by what was typed, on its newest version."""
    if not flags and not command:
        usage(
            "nothing to change: swarm svc update --help lists what can be set; --force replaces all tasks as they are"
        )
    flags = _with_registry_auth(flags)
    written = _change(context, who, lambda spec: changed_spec(spec, flags, command), plan)
    _after_write(context, written, plan, wait)


def scale(context: Context, targets: Sequence[str], wait: Wait) -> None:
    """Set the number of replicas of services, each given as NAME=N; of none when one of them is refused beforehand."""
    wanted: dict[str, int] = {}
    for target in targets:
        name, _, number = target.partition("=")
        if not name or not number.isdigit():
            usage(f"{target!r} is not NAME=N: write swarm svc scale web=5")
        service = context.ask(GetService(name)).service
        if service.id in wanted:
            usage(f"{service.spec.name} is named twice")
        try:
            scaled_spec(service.spec, int(number))
        except ValueError as error:
            usage(error)
        wanted[service.id] = int(number)
    written = [_change(context, id, _scaled(replicas), False) for id, replicas in wanted.items()]
    for one in written:
        _warn(one)
    services = [one.service for one in written]
    ids = [service.id for service in services]
    context.show(services, ids, lambda: output.print_lines(ids))
    if not wait.detach:
        for service in services:
            wait_for_service(context, service, wait)


def _scaled(replicas: int) -> Callable[[ServiceSpec], ServiceSpec]:
    return lambda spec: scaled_spec(spec, replicas)


def rollback(context: Context, who: str, to: int | None, wait: Wait) -> None:
    """Return to the previous or a named revision."""
    revision = None if to is None else RevisionNumber(to)
    _after_write(context, context.ask(RollbackService(who, to_revision=revision)), False, wait)


def remove(context: Context, names: Sequence[str], wait: Wait) -> None:
    """Remove services and wait until their tasks are gone; none is removed when a name is not known."""
    found = {service.id: service for service in (context.ask(GetService(name)).service for name in names)}
    removed = [context.ask(RemoveService(id)) for id in found]
    names_removed = [service.spec.name for service in removed]
    context.show(removed, [service.id for service in removed], lambda: output.print_lines(names_removed))
    if not wait.detach:
        for service in removed:
            wait_for_service(context, service, wait, removal=True)


def _change(context: Context, who: str, changed: Callable[[ServiceSpec], ServiceSpec], plan: bool) -> ServiceWritten:
    """Read, change, write; again when somebody else wrote in between."""
    try:
        with LocalClient(context.socket) as client:
            for attempt in range(CONFLICT_RETRIES):
                service = client.ask(GetService(who), timeout_s=30).service
                try:
                    spec = changed(service.spec)
                except ValueError as error:
                    usage(error)
                try:
                    request = UpdateService(service.id, service.version, spec, plan_only=plan)
                    return client.ask(request, timeout_s=30)
                except SwarmError as error:
                    if error.code is not ErrorCode.OUT_OF_DATE or attempt == CONFLICT_RETRIES - 1:
                        raise
    except SwarmError as error:
        fail(error)
    raise AssertionError("the loop returns or raises")


def _after_write(context: Context, written: ServiceWritten, plan: bool, wait: Wait) -> None:
    _warn(written)
    if plan:
        _print_plan(context, written)
        return
    id = written.service.id
    context.show(written.service, [id], lambda: output.print_lines([id]))
    output.deliver()  # what was written is told before the wait
    if not wait.detach:
        wait_for_service(context, written.service, wait)


def _warn(written: ServiceWritten) -> None:
    for warning in written.warnings:
        output.note(f"warning: {warning}")


def _print_plan(context: Context, written: ServiceWritten) -> None:
    """What would happen; tasks that stay are only counted, so that of a large service the change is what is seen."""
    if context.json:
        output.print_json(written.plan)
        return
    doing = [line for line in written.plan if line.verb != KEEP]
    staying = len(written.plan) - len(doing) + written.left_out.get(KEEP, 0)
    if doing:
        rows = [(line.verb, str(line.slot), line.node_name or "-", line.text) for line in doing]
        output.print_table(("ACTION", "SLOT", "NODE", "WHY"), rows)
    else:
        output.print_lines(["nothing would change"])
    for verb, count in sorted(written.left_out.items()):
        if verb != KEEP:
            output.note(f"{count} more to {verb}")
    if staying:
        output.note(f"{staying} task{'s stay as they are' if staying > 1 else ' stays as it is'}")


def _with_registry_auth(flags: dict[str, Any]) -> dict[str, Any]:
    if "registry_auth" not in flags:
        return flags
    secret = read_secret(flags["registry_auth"], "SWARM_REGISTRY_AUTH", "--registry-auth")
    return {**flags, "registry_auth": secret}


# --- reading -------------------------------------------------------------------------------------------------------
def list_services(context: Context, stale: bool) -> None:
    """All services with their counts."""
    views = context.ask(ListServices(stale=stale))
    header = ("ID", "NAME", "MODE", "REPLICAS", "RUNS", "PORTS")
    context.show(
        views,
        (view.service.id for view in views),
        lambda: output.print_table(header, [_service_row(view) for view in views]),
    )


def _service_row(view: ServiceView) -> tuple[str, ...]:
    spec = view.service.spec
    return (
        view.service.id[: output.SHORT_ID],
        spec.name,
        mode_name(spec.mode),
        replicas_text(view),
        runs_text(spec),
        ports_text(spec),
    )


def replicas_text(view: ServiceView) -> str:
    """`2/3`, `(max N per node)` when limited, a job's completions."""
    text = f"{view.running}/{view.desired}"
    mode = view.service.spec.mode
    if mode_name(mode).endswith("-job"):
        total = getattr(mode, "total_completions", view.desired + view.completed)
        return f"{text} ({view.completed}/{total} completed)"
    limit = view.service.spec.task.placement.max_replicas
    return f"{text} (max {limit} per node)" if limit else text


def runs_text(spec: ServiceSpec) -> str:
    """The image, or the beginning of the command."""
    match spec.task.runtime:
        case ContainerSpec(image=image):
            return image
        case ProcessSpec(command=command):
            text = " ".join(command)
            return text if len(text) <= 40 else text[:37] + "..."
        case GenericSpec(kind=kind):
            return kind


def tasks(context: Context, names: Sequence[str], all: bool, now: float) -> None:
    """The tasks of services, newest first in each slot."""
    views = [view for name in names for view in context.ask(ListTasks(service=name, all=all))]
    print_tasks(context, views, now)


def inspect(context: Context, names: Sequence[str]) -> None:
    """Everything that is known of services."""
    views = [context.ask(GetService(name)) for name in names]
    context.show(
        views,
        (view.service.id for view in views),
        lambda: output.print_sections(_service_fields(view) for view in views),
    )


def _service_fields(view: ServiceView) -> Iterable[tuple[str, str]]:
    service = view.service
    spec = service.spec
    yield "ID", service.id
    yield "Name", spec.name
    yield "Labels", ", ".join(f"{key}={value}" for key, value in spec.labels.items())
    yield "Mode", mode_name(spec.mode)
    yield "Replicas", replicas_text(view)
    yield "Revision", str(service.revision)
    yield "Created", _time(service.created_at)
    yield "Updated", _time(service.updated_at)
    if service.update_status is not None:
        state = service.update_status.state
        words = state.name.lower().replace("_", " ") if state is not UpdateState.UNKNOWN else ""
        message = service.update_status.message
        yield "Update", message if words in message else f"{words}: {message}".strip(": ")
    yield from spec_fields(spec)


def _time(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if instant else ""


def history(context: Context, who: str) -> None:
    """Kept revisions, newest first."""
    revisions = context.ask(ListRevisions(who))
    context.show(
        revisions, (str(revision.number) for revision in revisions), lambda: _print_history(context, revisions)
    )


def _print_history(context: Context, revisions: Iterable[Revision]) -> None:
    names = {view.node.id: view.node.description.hostname for view in context.ask(ListNodes())}
    rows = [
        (str(r.number), _time(r.created_at), names.get(NodeId(r.author)) or r.author, r.note, runs_text(r.spec))
        for r in revisions
    ]
    output.print_table(("REVISION", "CREATED", "BY", "CHANGE", "RUNS"), rows)


def why(context: Context, who: str) -> None:
    """Why each task is where it is, and what would place those that wait."""
    answer = context.ask(ExplainService(who))
    if context.json:
        output.print_json(answer)
        return
    spec = answer.view.service.spec
    lines = [f"{spec.name}: {replicas_text(answer.view)} running, {mode_name(spec.mode)}"]
    lines += [f"  {note}" for note in answer.notes]
    explained: dict[tuple[tuple[str, ...], str], str] = {}
    for slot in answer.slots:
        name = slot.task.name
        state = slot.task.task.status.state.name.lower()
        where = f"{state} on {slot.task.node_name}" if slot.task.node_name else "not placed"
        lines.append(f"  {name}  {where}: {slot.text}")
        if not slot.nodes and not slot.advice:
            continue
        same = explained.setdefault((slot.nodes, slot.advice), name)
        if same != name:
            lines.append(f"      as for {same}")
            continue
        lines += [f"      {verdict}" for verdict in slot.nodes]
        if slot.advice:
            lines.append(f"      to place it: {slot.advice}")
    output.print_lines(lines)


def logs(context: Context, who: str, follow: bool, tail: str, since: str | None, timestamps: bool, now: float) -> None:
    """A service's or a task's output; lines of stderr go to stderr, notes too. Ctrl-C is how one ends a follow: no error."""
    wanted = (
        None if tail == "all" else int(tail) if tail.isdigit() else usage(f"--tail {tail!r} is not a number or all")
    )
    try:
        start = None if since is None else Instant(_instant(since, now))
    except ValueError as error:
        usage(error)
    try:
        for item in context.stream(FollowLogs(who, follow=follow, tail=wanted, since=start)):
            if context.json:
                output.print_json_line(item)
            elif item.line is None:
                output.note(f"note: {item.note}")
            else:
                _print_line(item.task_name, item.node_name, item.line, timestamps)
            if not output.deliver():
                return
    except SwarmError as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(int(Exit.INTERRUPTED)) from None


def _print_line(task_name: str, node_name: str, line: TaskLogLine, timestamps: bool) -> None:
    stamp = f"{_time(line.at)} " if timestamps else ""
    text = f"{stamp}{task_name}@{node_name} | {line.data.decode(errors='replace')}"
    if line.stream is Stream.STDERR:
        output.note(text)
    else:
        output.print_lines([text])


def _instant(text: str, now: float) -> float:
    """Seconds since 1970 of `10m` (ago), an ISO time or a number of seconds since 1970."""
    if text.isdigit() and len(text) > 8:
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return now - duration_s(text)
