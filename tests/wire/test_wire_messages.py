"""The golden list of all that may leave a node: a change of it is a change of the protocol and shows here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

import swarm.wire.messages.all  # noqa: F401
from swarm.ca.identity import PeerRole
from swarm.runtime.message import Request
from swarm.wire.registry import MANAGERS, At, WireMessage, by_tag, declared, wire_message


def test_every_message_with_its_actor_roles_and_fields(golden: Callable[[str, str], None]) -> None:
    golden("wire_messages.txt", "\n".join(_entry(what) for what in declared()))


def _entry(what: WireMessage) -> str:
    for cls in (what.cls, what.reply):
        if attrs.has(cls):
            attrs.resolve_types(cls)  # the codec does the same: the list must not depend on which tests ran before
    lines = [
        what.tag,
        f"  to      {what.to} at {what.at.value}, lane {what.lane.value}",
        f"  from    {', '.join(sorted(role.value for role in what.roles))}",
        f"  class   {what.cls.__name__}",
    ]
    lines += [f"  field   {_field(field)}" for field in attrs.fields(what.cls)]
    if what.reply is not None:
        lines += [f"  answer  {_type(what.reply)}"]
        if attrs.has(what.reply):
            lines += [f"  answer.field  {_field(field)}" for field in attrs.fields(what.reply)]
    return "\n".join(lines) + "\n"


def _field(field: attrs.Attribute[Any]) -> str:
    optional = "" if field.default is attrs.NOTHING else " (has a default)"
    return f"{field.name}: {_type(field.type)}{optional}"


def _type(type_: Any) -> str:
    text = type_ if isinstance(type_, str) else getattr(type_, "__qualname__", "") or str(type_)
    if hasattr(type_, "__args__"):
        text = str(type_)
    for part in ("swarm.wire.messages.", "swarm.model.", "typing."):
        text = text.replace(part, "")
    return text


def test_only_joining_and_status_are_open_to_peers_without_a_certificate() -> None:
    open_to_all = [what.tag for what in declared() if PeerRole.ANONYMOUS in what.roles]
    assert open_to_all == ["ca.join", "ca.renew_expired", "ca.root", "node.status"]


def test_a_message_without_roles_or_with_a_taken_tag_fails_at_import() -> None:
    class Nothing(Request[None]):
        pass

    with pytest.raises(TypeError, match="names no role"):
        wire_message("x", to="x", at=At.NODE, roles=frozenset())
    with pytest.raises(TypeError, match="declared twice"):
        wire_message("ca.root", to="x", at=At.NODE, roles=MANAGERS)(Nothing)
    with pytest.raises(TypeError, match="neither Message"):
        wire_message("x.y", to="x", at=At.NODE, roles=MANAGERS)(int)
    assert by_tag("x") is None


def test_fields_with_defaults_come_last() -> None:
    for what in declared():
        defaults = [field.default is not attrs.NOTHING for field in attrs.fields(what.cls)]
        assert defaults == sorted(defaults), what.tag
