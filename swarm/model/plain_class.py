"""Generated code that turns one attrs class into a list of its fields and back.

What is generated for `class Point: x: int; y: float = 0.0; tags: tuple[str, ...] = ()` is, in essence:

    def encode(it):                                    def decode(values, _):
        if it.tags != d2:                                  n = len(values)
            return [it.x, it.y, hook2(it.tags)]            return construct(
        if it.y != d1:                                         (v if type(v := values[0]) is int else wrong(...)),
            return [it.x, it.y]                                (... if n > 1 else d1),
        return [it.x]                                          (hook2(values[2], type2) if n > 2 else d2))

so that a task costs its fields and nothing else: no look-up by type, no dict of names.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NoReturn, cast

import attrs

from swarm.model.construct import constructor_of

GetHook = Callable[[Any], Callable[..., Any]]
_FACTORY: Any = attrs.Factory
_EXACT = (str, int, bool, bytes)


class PlainError(ValueError):
    """A plain value, or bytes, that stand for no object of the expected type."""


def wrong(where: str, expected: Any, value: Any) -> NoReturn:
    """Refuse a value of the wrong type."""
    name = getattr(expected, "__name__", str(expected))
    raise PlainError(f"{where}: expected {name}, got {type(value).__name__}")


def encode_class(cls: type[Any], hook_of: GetHook) -> Callable[[Any], list[Any]]:
    """From an object to its list of fields, those at the end that have their default left out."""
    fields = fields_of(cls)
    scope: dict[str, Any] = {}
    parts = []
    for i, field in enumerate(fields):
        kind = base_of(field.type)
        if kind in (*_EXACT, float):
            parts.append(f"it.{field.name}")
        elif is_enum(kind):
            parts.append(f"it.{field.name}._value_")
        else:
            scope[f"hook{i}"] = hook_of(field.type)
            parts.append(f"hook{i}(it.{field.name})")
    lines = ["def encode(it):"]
    end = len(fields)
    while end and (default := default_of(fields[end - 1])) is not None:
        i = end - 1
        scope[f"d{i}"] = default()
        name = fields[i].name
        lines += [f"    if it.{name} is not d{i} and it.{name} != d{i}:", f"        return [{', '.join(parts[:end])}]"]
        end -= 1
    lines.append(f"    return [{', '.join(parts[:end])}]")
    exec("\n".join(lines), scope)
    return cast("Callable[[Any], list[Any]]", scope["encode"])


def decode_class(cls: type[Any], hook_of: GetHook) -> Callable[[Any, Any], Any]:
    """From a list of fields to an object. What a newer version added at the end of the list is passed over."""
    fields = fields_of(cls)
    required = max((i + 1 for i, field in enumerate(fields) if field.default is attrs.NOTHING), default=0)
    scope: dict[str, Any] = {"construct": constructor_of(cls), "wrong": wrong, "PlainError": PlainError}
    parts = []
    for i, field in enumerate(fields):
        part = _decode_field(cls, i, field, scope, hook_of)
        if i >= required:
            shared = not isinstance(field.default, _FACTORY)
            scope[f"d{i}"] = field.default if shared else default_of(field)
            part = f"({part} if n > {i} else d{i}{'' if shared else '()'})"
        parts.append(part)
    lines = [
        "def decode(values, _):",
        "    if type(values) is not list: wrong(" + repr(cls.__name__) + ", list, values)",
        "    n = len(values)",
        f"    if n < {required}: raise PlainError(f'{cls.__name__}: {{n}} of {required} required fields')",
        f"    return construct({', '.join(parts)})",
    ]
    exec("\n".join(lines), scope)
    return cast("Callable[[Any, Any], Any]", scope["decode"])


def _decode_field(cls: type[Any], i: int, field: attrs.Attribute[Any], scope: dict[str, Any], hook_of: GetHook) -> str:
    kind = base_of(field.type)
    where = repr(f"{cls.__name__}.{field.name}")
    if kind in _EXACT:
        return f"(v if type(v := values[{i}]) is {kind.__name__} else wrong({where}, {kind.__name__}, v))"
    if kind is float:
        return f"(v if type(v := values[{i}]) is float else float(v) if type(v) is int else wrong({where}, float, v))"
    scope[f"hook{i}"] = hook_of(field.type)
    scope[f"type{i}"] = field.type
    return f"hook{i}(values[{i}], type{i})"


def fields_of(cls: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    """The fields of a class in stored order, their types resolved; TypeError for a field that is not plainly positional."""
    attrs.resolve_types(cls)
    fields = tuple(field for field in attrs.fields(cls) if field.init)
    for field in fields:
        if field.alias != field.name or field.kw_only:
            raise TypeError(f"{cls.__name__}.{field.name} is not a plain positional field")
    return fields


def base_of(type: Any) -> Any:
    """What a NewType stands for; any other type itself."""
    while hasattr(type, "__supertype__"):
        type = type.__supertype__
    return type


def is_enum(kind: Any) -> bool:
    """Whether a type is an enum."""
    return isinstance(kind, type) and issubclass(kind, Enum)


def default_of(field: attrs.Attribute[Any]) -> Callable[[], Any] | None:
    """What makes the field's default, None when it has none."""
    default: Any = field.default
    if default is attrs.NOTHING:
        return None
    return cast("Callable[[], Any]", default.factory) if isinstance(default, _FACTORY) else lambda: default
