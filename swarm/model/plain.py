"""Objects as plain values that msgpack knows, and back: the one converter behind the log, snapshots and the wire.

An attrs object is the list of its fields in order, those at the end that have their default left out. So bytes of yesterday
read after a field was added at the end (with a default), and a longer list of a newer version reads without what is not known
here. A member of a union of classes is preceded by its tag. Enums are their values. Tags, values and the order of fields are
stored and sent: they never change.

cattrs finds the hook of a type, once; the hooks of attrs classes are generated code (`plain_class`), since a task crosses here
for each of its states. Reading is strict: what has another type than declared is refused with the name of the field, for the
bytes may come from a peer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import attrs
import msgpack
from cattrs import Converter

from swarm.model import objects, specs
from swarm.model.plain_class import PlainError, decode_class, encode_class, wrong

T = TypeVar("T")

_TAGS: dict[type, int | str] = {
    objects.Cluster: 1,
    objects.Node: 2,
    objects.Service: 3,
    objects.Revision: 4,
    objects.Task: 5,
    specs.ProcessSpec: 1,
    specs.ContainerSpec: 2,
    specs.GenericSpec: 3,
    specs.Replicated: 1,
    specs.Global: 2,
    specs.ReplicatedJob: 3,
    specs.GlobalJob: 4,
}

__all__ = ["PlainError", "decoder", "dumps", "encoder", "from_plain", "loads", "set_tag", "to_plain"]


def to_plain(value: Any, type: Any) -> Any:
    """`value`, declared as `type`, in lists, dicts, numbers, text and bytes."""
    return encoder(type)(value)


def from_plain(value: Any, type: type[T]) -> T:
    """The object of `type` that a plain value stands for; PlainError when it stands for none."""
    return cast("T", decoder(type)(value))


def dumps(value: Any, type: Any) -> bytes:
    """`value`, declared as `type`, as bytes."""
    return cast(bytes, msgpack.packb(encoder(type)(value)))


def loads(data: bytes, type: type[T]) -> T:
    """The object of `type` in `data`; PlainError when there is none."""
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise PlainError(f"not msgpack: {error}") from error
    return cast("T", decoder(type)(value))


def set_tag(cls: type, tag: int | str) -> None:
    """Give a class the tag that precedes it in unions, for good; without one its name is its tag."""
    _TAGS[cls] = tag


def encoder(type: Any) -> Callable[[Any], Any]:
    """What `to_plain` calls for this type: looked up once by whoever is in a hurry."""
    found = _ENCODERS.get(type)
    if found is None:
        found = _ENCODERS[type] = _converter.get_unstructure_hook(type)
    return found


def decoder(type: Any) -> Callable[[Any], Any]:
    """What `from_plain` calls for this type; every refusal is a PlainError."""
    found = _DECODERS.get(type)
    if found is None:
        found = _DECODERS[type] = _guarded(type, _converter.get_structure_hook(type))
    return found


_ENCODERS: dict[Any, Callable[[Any], Any]] = {}
_DECODERS: dict[Any, Callable[[Any], Any]] = {}


def _guarded(type: Any, hook: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    name = getattr(type, "__name__", str(type))

    def decode(value: Any) -> Any:
        try:
            return hook(value, type)
        except PlainError:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise PlainError(f"{name}: {error!r}") from error

    return decode


# --- hooks ---------------------------------------------------------------------------------------------------------
def _strict(expected: type) -> Callable[[Any, Any], Any]:
    """The hook of a primitive. cattrs goes by base classes, so that an `IntEnum` comes to the hook of `int`."""

    def structure(value: Any, type_: Any) -> Any:
        if type_ is not expected:
            return _structure_enum(value, type_)
        return value if type(value) is expected else wrong(expected.__name__, expected, value)

    return structure


def _is_tagged_union(type: Any) -> bool:
    members = _members(type)
    return len(members) > 1 and all(attrs.has(member) for member in members)


def _is_union_of_primitives(type: Any) -> bool:
    members = _members(type)
    return len(members) > 1 and all(member in (str, int, float, bool, bytes) for member in members)


def _members(type: Any) -> tuple[Any, ...]:
    """The members of a union, None apart; empty for anything else."""
    if get_origin(type) not in (Union, UnionType):
        return ()
    return tuple(member for member in get_args(type) if member is not NoneType)


def _tag_of(cls: type) -> int | str:
    return _TAGS.get(cls, cls.__name__)


def _encode_union(type_: Any) -> Callable[[Any], Any]:
    entries = {cls: (_tag_of(cls), _converter.get_unstructure_hook(cls)) for cls in _members(type_)}
    if len({tag for tag, _ in entries.values()}) != len(entries):
        raise TypeError(f"two members of {type_} have the same tag")

    def unstructure(value: Any) -> Any:
        if value is None:
            return None
        tag, hook = entries[type(value)]
        return [tag, *hook(value)]

    return unstructure


def _decode_union(type: Any) -> Callable[[Any, Any], Any]:
    entries = {_tag_of(cls): (cls, _converter.get_structure_hook(cls)) for cls in _members(type)}
    optional = len(get_args(type)) > len(entries)

    def structure(value: Any, _: Any) -> Any:
        if value is None and optional:
            return None
        if not isinstance(value, list) or not value or not isinstance(value[0], (int, str)) or value[0] not in entries:
            raise PlainError(f"expected a list that begins with one of the tags {list(entries)} of {type}")
        cls, hook = entries[value[0]]
        return hook(value[1:], cls)

    return structure


def _decode_primitives(type_: Any) -> Callable[[Any, Any], Any]:
    allowed = frozenset(get_args(type_))

    def structure(value: Any, _: Any) -> Any:
        return value if type(value) in allowed else wrong(str(type_), type_, value)

    return structure


def _is_many(type: Any) -> bool:
    return get_origin(type) is tuple and len(get_args(type)) == 2 and get_args(type)[1] is Ellipsis


def _encode_many(type: Any) -> Callable[[Any], Any]:
    hook = _converter.get_unstructure_hook(get_args(type)[0])
    return lambda value: [hook(item) for item in value]


def _decode_many(type: Any) -> Callable[[Any, Any], Any]:
    item_type = get_args(type)[0]
    hook = _converter.get_structure_hook(item_type)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return wrong(str(type), list, value)
        return tuple([hook(item, item_type) for item in value])

    return structure


def _structure_enum(value: Any, type: Any) -> Any:
    try:
        return type._value2member_map_[value]
    except (KeyError, TypeError):
        raise PlainError(f"{type.__name__} has no value {value!r}") from None


def _structure_float(value: Any, _: Any) -> float:
    if type(value) is float:
        return value
    return float(value) if type(value) is int else cast(float, wrong("float", float, value))


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False)
    for primitive in (str, int, bool, bytes):
        converter.register_structure_hook(primitive, _strict(primitive))
    converter.register_structure_hook(float, _structure_float)
    converter.register_unstructure_hook(bytes, lambda value: value)
    converter.register_unstructure_hook(Enum, operator.attrgetter("_value_"))
    converter.register_structure_hook(Enum, _structure_enum)
    converter.register_structure_hook(NoneType, _strict(NoneType))
    converter.register_unstructure_hook_factory(_is_many, _encode_many)
    converter.register_structure_hook_factory(_is_many, _decode_many)
    converter.register_unstructure_hook_factory(_is_union_of_primitives, lambda _: lambda value: value)
    converter.register_structure_hook_factory(_is_union_of_primitives, _decode_primitives)
    converter.register_unstructure_hook_factory(_is_tagged_union, _encode_union)
    converter.register_structure_hook_factory(_is_tagged_union, _decode_union)
    converter.register_unstructure_hook_factory(
        attrs.has, lambda cls: encode_class(cls, converter.get_unstructure_hook)
    )
    converter.register_structure_hook_factory(attrs.has, lambda cls: decode_class(cls, converter.get_structure_hook))
    return converter


_converter = _make_converter()
