"""User-defined resources: their text form, what of them is free on a node, and the claim of a task.

A node advertises an amount of a kind, or named items of it; a task asks for an amount and gets an amount or items. What
is free is always computed from what the node advertises and what its tasks hold now, so that no item is ever handed out
twice, whoever leads.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, MutableMapping
from typing import TypeAlias

from swarm.model.specs import GenericResource

Free: TypeAlias = "dict[str, int | tuple[str, ...]]"
"""Kind to the amount that is left, or to the items that are left in the order in which the node advertises them."""

EXAMPLE = "for example: gpu=2, or named items: gpu=card-0,gpu=card-1"


class GenericResourceError(ValueError):
    """A text that cannot be read; it says what is wrong and shows a right one."""


# --- text ----------------------------------------------------------------------------------------------------------
def parse(text: str) -> tuple[GenericResource, ...]:
    """What `kind=value,kind=value` advertises, in order of first mention; raises `GenericResourceError`.

    One whole number makes an amount; anything else names items.
    """
    values: dict[str, list[str]] = {}
    for kind, value in _pairs(text):
        values.setdefault(kind, []).append(value)
    return tuple(_resource(kind, found) for kind, found in values.items())


def parse_request(text: str) -> tuple[GenericResource, ...]:
    """What a task asks for: amounts only; raises `GenericResourceError`."""
    found = parse(text)
    for resource in found:
        if resource.items:
            raise GenericResourceError(
                f"generic resource {resource.kind!r}: a service asks for an amount, not for items; for example: gpu=2"
            )
    return found


def to_text(resources: Iterable[GenericResource]) -> str:
    """The text that `parse` reads back."""
    parts: list[str] = []
    for resource in resources:
        values = resource.items or (str(resource.amount),)
        parts.extend(f"{resource.kind}={value}" for value in values)
    return ",".join(parts)


def _pairs(text: str) -> list[tuple[str, str]]:
    if "\n" in text or "\r" in text:
        raise GenericResourceError(f"generic resources are one line, kind=value,kind=value; {EXAMPLE}")
    pairs: list[tuple[str, str]] = []
    for entry in next(csv.reader([text]), []):
        kind, found, value = entry.partition("=")
        kind, value = kind.strip(), value.strip()
        if not found or not kind or not value:
            raise GenericResourceError(f"generic resource {entry!r} is not kind=value; {EXAMPLE}")
        pairs.append((kind, value))
    return pairs


def _resource(kind: str, values: list[str]) -> GenericResource:
    numbers = [value for value in values if _is_whole_number(value)]
    if not numbers:
        if len(set(values)) < len(values):
            raise GenericResourceError(f"generic resource {kind!r} names an item twice; {EXAMPLE}")
        return GenericResource(kind, len(values), tuple(values))
    if len(numbers) < len(values):
        raise GenericResourceError(f"generic resource {kind!r} mixes an amount with named items; {EXAMPLE}")
    if len(values) > 1:
        raise GenericResourceError(f"generic resource {kind!r} is given more than one amount; {EXAMPLE}")
    amount = int(numbers[0])
    if amount < 0:
        raise GenericResourceError(f"generic resource {kind!r}: an amount is 0 or more, not {amount}; {EXAMPLE}")
    return GenericResource(kind, amount)


def _is_whole_number(value: str) -> bool:
    digits = value[1:] if value[:1] in "+-" else value
    return digits.isascii() and digits.isdecimal()


# --- what is free, what is claimed ---------------------------------------------------------------------------------
def free(
    advertised: Iterable[GenericResource],
    held_amounts: Mapping[str, int],
    held_items: Mapping[str, Mapping[str, int]],
) -> Free:
    """What a node has left, from what it advertises and what its tasks hold (`held_amounts` counts named items too).

    A kind whose form changed under running tasks loses one item for each unit that is held without a name, so that
    nothing is promised before those tasks have ended.
    """
    left: Free = {}
    for resource in advertised:
        kind = resource.kind
        held = held_amounts.get(kind, 0)
        if resource.items:
            names = held_items.get(kind, {})
            items = [item for item in resource.items if item not in names]
            left[kind] = tuple(items[held - sum(names.values()) :])
        else:
            left[kind] = max(0, resource.amount - held)
    return left


def amount_left(left: Mapping[str, int | tuple[str, ...]], kind: str) -> int:
    """How much of a kind is left; 0 for a kind that the node does not have."""
    found = left.get(kind, 0)
    return found if isinstance(found, int) else len(found)


def enough(left: Mapping[str, int | tuple[str, ...]], requests: Iterable[GenericResource]) -> bool:
    """Whether all requests fit together; a request for named items never does, nor one for a kind that is absent."""
    for request in requests:
        if request.items or request.kind not in left or request.amount > amount_left(left, request.kind):
            return False
    return True


def claim(
    left: MutableMapping[str, int | tuple[str, ...]], requests: Iterable[GenericResource]
) -> tuple[GenericResource, ...]:
    """Take what is asked for out of `left`: an amount, or the first items in order. `enough` must have said yes."""
    claimed: list[GenericResource] = []
    for request in requests:
        found = left[request.kind]
        if isinstance(found, int):
            assert request.amount <= found, "claim without enough"
            left[request.kind] = found - request.amount
            claimed.append(GenericResource(request.kind, request.amount))
        else:
            assert request.amount <= len(found), "claim without enough"
            left[request.kind] = found[request.amount :]
            claimed.append(GenericResource(request.kind, request.amount, found[: request.amount]))
    return tuple(claimed)


def merged(requests: Iterable[GenericResource]) -> tuple[GenericResource, ...]:
    """The same requests with each kind mentioned once; a request for named items is kept as it is."""
    amounts: dict[str, GenericResource] = {}
    for request in requests:
        before = amounts.get(request.kind)
        total = request.amount + (before.amount if before is not None else 0)
        items = request.items + (before.items if before is not None else ())
        amounts[request.kind] = GenericResource(request.kind, total, items)
    return tuple(amounts.values())


def lost(held: Iterable[GenericResource], left: MutableMapping[str, int | tuple[str, ...]]) -> GenericResource | None:
    """The first of a task's claims that the node no longer covers; None when all are, and then `left` is lowered by them.

    `left` starts as everything that the node advertises; tasks take their share in order of seniority.
    """
    for resource in held:
        found = left.get(resource.kind)
        if isinstance(found, int):
            if resource.items or resource.amount > found:
                return resource
        elif found is None or not resource.items or not set(resource.items) <= set(found):
            return resource
    for resource in held:
        found = left[resource.kind]
        if isinstance(found, int):
            left[resource.kind] = found - resource.amount
        else:
            left[resource.kind] = tuple(item for item in found if item not in resource.items)
    return None
