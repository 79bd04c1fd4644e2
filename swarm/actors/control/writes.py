"""What a control request changes: from a view and a request to one atomic group, or a refusal. Pure.

The group names the versions that the client saw, so that of two clients that change one object the second is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from attrs import evolve

from swarm.actors.control.lookup import find_node, find_service
from swarm.executors import template
from swarm.model.changes import Create, Delete, Group, Kind, Refusal, RefusalCode, Update
from swarm.model.ids import Ids, Instant, NodeId, RevisionNumber, ServiceId, Version
from swarm.model.objects import NEVER, Cluster, JoinTokens, Node, Revision, Service, UpdateStatus
from swarm.model.snapshot import Snapshot
from swarm.model.specs import ClusterSettings, ContainerSpec, GlobalJob, NodeSpec, ReplicatedJob, ServiceSpec
from swarm.model.states import NodeState, Role, UpdateState
from swarm.model.validate import problems, settings_problems
from swarm.plan.departure import departure
from swarm.runtime.errors import ErrorCode, SwarmError


def check_spec(view: Snapshot, spec: ServiceSpec) -> tuple[str, ...]:
    """Warnings for the author of a spec; INVALID names everything that is wrong with it."""
    wrong = problems(spec)
    try:
        template.check(spec)
    except ValueError as error:
        wrong.append(str(error))
    if wrong:
        raise SwarmError(ErrorCode.INVALID, "; ".join(wrong))
    return tuple(_warnings(view, spec))


def _warnings(view: Snapshot, spec: ServiceSpec) -> list[str]:
    kind = spec.task.runtime_kind
    if not any(kind in node.description.executors for node in view.nodes()):
        return [f"no node runs {kind} tasks now; the tasks wait until one does"]
    return []


# --- services ------------------------------------------------------------------------------------------------------
def create_service(
    view: Snapshot, spec: ServiceSpec, author: NodeId, now: Instant, ids: Ids
) -> tuple[ServiceId, Group]:
    """The new service's id, and the group that creates it with its first revision."""
    taken = view.service_named(spec.name)
    if taken is not None:
        raise SwarmError(
            ErrorCode.EXISTS,
            f"the name {spec.name!r} is taken by service {taken.id}",
            {"hint": f"swarm svc update {spec.name} changes it, swarm svc rm {spec.name} removes it"},
        )
    id = ServiceId(ids.new())
    service = Service(id=id, spec=spec, created_at=now, updated_at=now, last_execution=now if _is_job(spec) else NEVER)
    revision = Revision(id, RevisionNumber(1), spec, created_at=now, author=author, note="created")
    return id, (Create(service), Create(revision))


def update_service(
    view: Snapshot, id: ServiceId, version: Version, spec: ServiceSpec, author: NodeId, now: Instant
) -> Group:
    """The group that makes `spec` the service's next revision; an update under way is superseded."""
    service = find_service(view, id)
    if service.version != version:
        raise _out_of_date(service.spec.name)
    if service.spec.name != spec.name:
        raise SwarmError(ErrorCode.INVALID, f"service {service.spec.name} cannot be renamed to {spec.name!r}")
    if type(service.spec.mode) is not type(spec.mode):
        raise SwarmError(ErrorCode.INVALID, f"the mode of service {spec.name} cannot change; create another service")
    if type(service.spec.task.runtime) is not type(spec.task.runtime):
        raise SwarmError(ErrorCode.INVALID, f"the runtime of service {spec.name} cannot change; create another service")
    note = ", ".join(changed_fields(service.spec, spec)) or "no change"
    return _next_revision(view, service, spec, author, now, note, update_status=None)


def rollback_service(
    view: Snapshot, who: str, to: RevisionNumber | None, author: NodeId, now: Instant
) -> tuple[ServiceId, Group]:
    """The group that returns a service to its previous revision, or to a kept one.

    A job has no rolling update that could roll back: as with any change of it, its next run begins.
    """
    service = find_service(view, who)
    number = service.previous if to is None else to
    if number is None:
        raise SwarmError(
            ErrorCode.PRECONDITION,
            f"service {service.spec.name} has no earlier revision to return to",
            {"hint": f"swarm svc history {service.spec.name} lists those that --to can name"},
        )
    revision = view.revision(service.id, number)
    if revision is None:
        kept = ", ".join(str(revision.number) for revision in view.revisions_of(service.id))
        raise SwarmError(
            ErrorCode.NOT_FOUND, f"revision {number} of service {service.spec.name} is not kept; kept are {kept}"
        )
    status = None
    if not _is_job(revision.spec):
        status = UpdateStatus(UpdateState.ROLLBACK_STARTED, started_at=now, message="manually requested rollback")
    note = f"rolled back to revision {number}"
    return service.id, _next_revision(view, service, revision.spec, author, now, note, status)


def _next_revision(
    view: Snapshot,
    service: Service,
    spec: ServiceSpec,
    author: NodeId,
    now: Instant,
    note: str,
    update_status: UpdateStatus | None,
) -> Group:
    newest = max((revision.number for revision in view.revisions_of(service.id)), default=service.revision)
    number = RevisionNumber(newest + 1)
    job = _is_job(spec)
    changed = evolve(
        service,
        spec=spec,
        revision=number,
        previous=service.revision,
        update_status=update_status,
        updated_at=now,
        job_iteration=service.job_iteration + 1 if job else service.job_iteration,
        last_execution=now if job else service.last_execution,
    )
    return Update(changed), Create(Revision(service.id, number, spec, created_at=now, author=author, note=note))


def _is_job(spec: ServiceSpec) -> bool:
    return isinstance(spec.mode, ReplicatedJob | GlobalJob)


def changed_fields(before: ServiceSpec, after: ServiceSpec) -> list[str]:
    """What differs between two specs, in words: `image nginx:1 to nginx:2`, `replicas 2 to 5`, `env`."""
    found: list[str] = []
    replicas = (getattr(before.mode, "replicas", None), getattr(after.mode, "replicas", None))
    if replicas[0] != replicas[1]:
        found.append(f"replicas {replicas[0]} to {replicas[1]}")
    elif before.mode != after.mode:
        found.append("mode")
    old, new = before.task.runtime, after.task.runtime
    if isinstance(old, ContainerSpec) and isinstance(new, ContainerSpec) and old.image != new.image:
        found.append(f"image {old.image} to {new.image}")
    found += [name for name in _differing(old, new) if name != "image"]
    found += [name for name in _differing(before.task, after.task) if name != "runtime"]
    return found + [name for name in _differing(before, after) if name not in ("task", "mode")]


def _differing(before: attrs.AttrsInstance, after: attrs.AttrsInstance) -> list[str]:
    names = attrs.fields(type(before)) if type(before) is type(after) else ()
    return [_in_words(field.name) for field in names if getattr(before, field.name) != getattr(after, field.name)]


def _in_words(field: str) -> str:
    """A field as its flag names it: `stop_grace_s` is the stop grace, `force_update` was --force."""
    return "forced" if field == "force_update" else field.removesuffix("_s").replace("_", " ")


def remove_service(view: Snapshot, who: str) -> tuple[Service, Group]:
    """The service that goes, and the group that removes it; its tasks are stopped by their orchestrator."""
    service = find_service(view, who)
    return service, (Delete(Kind.SERVICE, service.id),)


# --- nodes ---------------------------------------------------------------------------------------------------------
def update_node(view: Snapshot, id: NodeId, version: Version, spec: NodeSpec) -> Group:
    """The group that replaces a node's spec. What a demotion needs beyond this is asked of the Raft member."""
    node = find_node(view, id)
    name = node.description.hostname or node.id
    if node.version != version:
        raise _out_of_date(name)
    if is_demotion(node, spec) and not any(
        other.spec.desired_role is Role.MANAGER for other in view.nodes() if other.id != id
    ):
        text = f"{name} is the only manager: without it there is no cluster"
        raise SwarmError(ErrorCode.PRECONDITION, text, {"hint": "swarm node promote another node first"})
    return (Update(evolve(node, spec=spec)),)


def is_demotion(node: Node, spec: NodeSpec) -> bool:
    """Whether a manager is asked to become a worker."""
    return node.spec.desired_role is Role.MANAGER and spec.desired_role is Role.WORKER


def remove_node(view: Snapshot, who: str, force: bool, now: Instant, *, member: bool) -> tuple[Node, Group]:
    """The node that goes, and the group that removes it: its tasks orphaned, its certificate refused from now on.

    `member`: it takes part in the managers' consensus. Such a one goes only by force, and not while it is READY; that the
    rest can go on without it is for the caller to see to.
    """
    node = find_node(view, who)
    name = node.description.hostname or node.id
    if member and (not force or node.status.state is NodeState.READY):
        hint = f"swarm node demote {name} first"
        if force and node.status.state is NodeState.READY:
            hint += "; one that was lost just now is removed by force once swarm node ls does not show it as Ready"
        if node.status.state is not NodeState.READY:
            hint += f"; or, as it is not reachable, swarm node rm --force {name}"
        raise SwarmError(ErrorCode.PRECONDITION, f"node {name} is a manager and cannot be removed", {"hint": hint})
    if node.status.state is NodeState.READY and not force:
        raise SwarmError(
            ErrorCode.PRECONDITION,
            f"node {name} is ready and cannot be removed",
            {"hint": f"run swarm leave on it, or swarm node rm --force {name}"},
        )
    return node, departure(view, the_cluster(view), node, now, f"node {name} was removed from the cluster")


# --- cluster -------------------------------------------------------------------------------------------------------
def the_cluster(view: Snapshot) -> Cluster:
    """The cluster object; UNAVAILABLE in the moments before the first leader has created it."""
    if view.cluster is None:
        raise SwarmError(ErrorCode.UNAVAILABLE, "the cluster is being created; ask again in a moment")
    return view.cluster


def rotate_token(view: Snapshot, role: Role, fresh: str) -> Group:
    """The group that replaces a role's join token."""
    cluster = the_cluster(view)
    tokens = cluster.tokens
    rotated = JoinTokens(
        worker=fresh if role is Role.WORKER else tokens.worker,
        manager=fresh if role is Role.MANAGER else tokens.manager,
    )
    return (Update(evolve(cluster, tokens=rotated)),)


def update_settings(view: Snapshot, version: Version, settings: ClusterSettings) -> Group:
    """The group that replaces the cluster's settings; whoever they concern reads them from the store."""
    cluster = the_cluster(view)
    if cluster.version != version:
        raise _out_of_date("the cluster")
    wrong = settings_problems(settings)
    if wrong:
        raise SwarmError(ErrorCode.INVALID, "; ".join(wrong))
    return (Update(evolve(cluster, settings=settings)),)


# --- refusals ------------------------------------------------------------------------------------------------------
def _out_of_date(name: str) -> SwarmError:
    return SwarmError(ErrorCode.OUT_OF_DATE, f"{name} was changed by somebody else meanwhile; read it again and repeat")


_CODES = {
    RefusalCode.EXISTS: ErrorCode.EXISTS,
    RefusalCode.NAME_TAKEN: ErrorCode.EXISTS,
    RefusalCode.NOT_FOUND: ErrorCode.NOT_FOUND,
    RefusalCode.OUT_OF_DATE: ErrorCode.OUT_OF_DATE,
}


def refused(results: Sequence[Refusal | None]) -> SwarmError | None:
    """The error for a proposal of which a group was refused, None when all were applied."""
    for result in results:
        if result is not None:
            return SwarmError(_CODES[result.code], result.text)
    return None
