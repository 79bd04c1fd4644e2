"""Why a task is where it is: the durable answer behind `swarm svc why`."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen


class ReasonCode(StrEnum):
    """The kind of decision that was taken on a task."""

    PLACED = "placed"
    NO_NODE = "no-node"
    SCALED_UP = "scaled-up"
    SCALED_DOWN = "scaled-down"
    RESTARTED = "restarted"
    NOT_RESTARTED = "not-restarted"
    NODE_DOWN = "node-down"
    NODE_DRAINED = "node-drained"
    NODE_REMOVED = "node-removed"
    NODE_PAUSED = "node-paused"
    UPDATED = "updated"
    ROLLED_BACK = "rolled-back"
    SERVICE_REMOVED = "service-removed"
    CONSTRAINT = "constraint"
    SURPLUS = "surplus"
    WAITING = "waiting"
    JOB = "job"


@frozen
class Blocked:
    """Some nodes that failed the same filter: how many, the filter's name, a sentence, up to five node ids."""

    filter: str
    nodes: int
    text: str
    examples: tuple[str, ...] = ()


@frozen
class Reason:
    """One decision in words, with what stood in the way, most frequent first."""

    code: ReasonCode
    text: str
    blocked: tuple[Blocked, ...] = ()
    previous_task: str = ""
    """The task that this one replaces, if it does."""
    made: str = ""
    """Why the task was made, of one that replaces another and has to wait for a node: `text` says then what it waits for."""
