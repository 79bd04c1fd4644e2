"""Placement constraints: `node.labels.zone == a`, parsed once into a matcher over nodes.

A list of expressions is a logical AND. Text never reaches a comparison: `matcher(expressions)` gives the same compiled
object for the same tuple, and every check in it is a small closure. Values are literal (no glob, no regular expression)
and compare without regard to case, except addresses, which compare as numbers.

This module never guesses: what it cannot read is a `ConstraintError` that says what is wrong and shows a right one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from attrs import frozen

from swarm.model.objects import Node

NODE_LABEL_PREFIX = "node.labels."
ENGINE_LABEL_PREFIX = "engine.labels."
EXAMPLE = "for example: node.labels.zone == east"
CACHED_LISTS = 4096
"""Compiled lists that are kept: one per distinct list of a cluster's services, a few hundred bytes each."""

# A slash is allowed so that labels such as `example.com/zone` can be used.
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]+", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9\s:\-_.*()?+\[\]\\^$|/]+", re.ASCII)

Check: TypeAlias = Callable[[Node], bool]
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class ConstraintError(ValueError):
    """An expression that cannot be read; its text says what is wrong and shows a right one."""


@frozen
class Constraint:
    """One expression: `key == value`, or `key != value` when `negated`."""

    key: str
    negated: bool
    value: str

    @property
    def text(self) -> str:
        """The expression, written the one usual way."""
        return f"{self.key} {'!=' if self.negated else '=='} {self.value}"

    @property
    def node_label(self) -> str | None:
        """The node label that it asks about, None for every other key."""
        return _after(NODE_LABEL_PREFIX, self.key)


class Matcher:
    """A compiled list of constraints."""

    __slots__ = ("_checks", "constraints")

    def __init__(self, constraints: tuple[Constraint, ...]) -> None:
        self.constraints = constraints
        self._checks = tuple(_compile(constraint) for constraint in constraints)

    def matches(self, node: Node) -> bool:
        """Whether the node meets all of them."""
        for check in self._checks:  # noqa: SIM110  # asked of every node: a generator would take four times as long
            if not check(node):
                return False
        return True

    def failing(self, node: Node) -> tuple[Constraint, ...]:
        """Those that the node does not meet, in the order they were written."""
        pairs = zip(self.constraints, self._checks, strict=True)
        return tuple(constraint for constraint, check in pairs if not check(node))


def parse(expression: str) -> Constraint:
    """The constraint that an expression stands for; raises `ConstraintError`.

    `==` is looked for first, then `!=`; the text is split at the first one found.
    """
    for operator in ("==", "!="):
        key, found, value = expression.partition(operator)
        if found:
            break
    else:
        raise ConstraintError(f"constraint {expression!r} has neither '==' nor '!='; {EXAMPLE}")
    key, value = key.strip(), value.strip()
    if not _KEY.fullmatch(key):
        raise ConstraintError(
            f"constraint {expression!r}: the key {key!r} must start with a letter or '_' and go on with letters, "
            f"digits, '-', '_', '.' or '/'; {EXAMPLE}"
        )
    if not value:
        raise ConstraintError(f"constraint {expression!r} has no value; {EXAMPLE}")
    if not _VALUE.fullmatch(value):
        raise ConstraintError(
            f"constraint {expression!r}: the value {value!r} may hold letters, digits, blanks and "
            rf": - _ . * ( ) ? + [ ] \ ^ $ | / only; {EXAMPLE}"
        )
    return Constraint(key, operator == "!=", value)


def key_problem(constraint: Constraint) -> str | None:
    """Why no node can ever meet a constraint, whatever its value: its key is none that nodes have. None for a known one."""
    key = constraint.key
    if key.lower() in _ATTRIBUTES or key.lower() == "node.ip":
        return None
    if _after(NODE_LABEL_PREFIX, key) is not None or _after(ENGINE_LABEL_PREFIX, key) is not None:
        return None
    known = ", ".join([*_ATTRIBUTES, "node.ip", f"{NODE_LABEL_PREFIX}NAME", f"{ENGINE_LABEL_PREFIX}NAME"])
    return f"constraint {constraint.text!r}: {key!r} is not known; known are {known}"


@lru_cache(maxsize=CACHED_LISTS)
def matcher(expressions: tuple[str, ...]) -> Matcher:
    """The compiled list; the same object for the same expressions. Raises `ConstraintError`."""
    return Matcher(tuple(parse(expression) for expression in expressions))


def label_of(descriptor: str, node: Node) -> str | None:
    """What a node has for `node.labels.X` or `engine.labels.X` ("" when the label is missing), None for another key.

    The prefix is read without regard to case, the label's name exactly.
    """
    if (name := _after(NODE_LABEL_PREFIX, descriptor)) is not None:
        return node.spec.labels.get(name, "")
    if (name := _after(ENGINE_LABEL_PREFIX, descriptor)) is not None:
        return node.description.engine_labels.get(name, "")
    return None


def _after(prefix: str, key: str) -> str | None:
    if len(key) > len(prefix) and key[: len(prefix)].lower() == prefix:
        return key[len(prefix) :]
    return None


# --- compilation ---------------------------------------------------------------------------------------------------
_ATTRIBUTES: dict[str, Callable[[Node], str]] = {
    "node.id": lambda node: node.id,
    "node.hostname": lambda node: node.description.hostname,
    "node.role": lambda node: node.role.name,
    "node.platform.os": lambda node: node.description.platform.os,
    "node.platform.arch": lambda node: node.description.platform.architecture,
}


def _compile(constraint: Constraint) -> Check:
    key = constraint.key
    attribute = _ATTRIBUTES.get(key.lower())
    if attribute is not None:
        return _text_check(attribute, constraint)
    if key.lower() == "node.ip":
        return _address_check(constraint)
    if (name := _after(NODE_LABEL_PREFIX, key)) is not None:
        return _node_label_check(name, constraint)
    if (name := _after(ENGINE_LABEL_PREFIX, key)) is not None:
        return _engine_label_check(name, constraint)
    return _never


def _never(node: Node) -> bool:
    """An unknown key, or an address that is none: no node meets it, whatever the operator."""
    return False


def _text_check(attribute: Callable[[Node], str], constraint: Constraint) -> Check:
    wanted, negated = constraint.value.casefold(), constraint.negated
    return lambda node: (attribute(node).casefold() == wanted) is not negated


def _node_label_check(name: str, constraint: Constraint) -> Check:
    wanted, negated = constraint.value.casefold(), constraint.negated
    return lambda node: (node.spec.labels.get(name, "").casefold() == wanted) is not negated


def _engine_label_check(name: str, constraint: Constraint) -> Check:
    wanted, negated = constraint.value.casefold(), constraint.negated
    return lambda node: (node.description.engine_labels.get(name, "").casefold() == wanted) is not negated


def _address_check(constraint: Constraint) -> Check:
    negated = constraint.negated
    single = _address(constraint.value)
    if single is not None:
        return lambda node: (_address(node.status.address) == single) is not negated
    host, slash, prefix_length = constraint.value.partition("/")
    if not slash or not prefix_length.isdecimal() or _address(host) is None:
        return _never
    try:
        network = ipaddress.ip_network(constraint.value, strict=False)
    except ValueError:
        return _never

    def inside(node: Node) -> bool:
        address = _address(node.status.address)
        return (address is not None and address in network) is not negated

    return inside


@lru_cache(maxsize=CACHED_LISTS)
def _address(text: str) -> _Address | None:
    """The number behind an address, IPv4 inside IPv6 unwrapped, a zone left out; None when it is none or unknown."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
