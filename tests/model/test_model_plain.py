"""Objects to plain values and back: everything survives, yesterday's bytes read, and what is not right is refused."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.model import changes, objects, reasons, specs, states
from swarm.model.objects import Node, StoreObject, Task, TaskStatus
from swarm.model.plain import PlainError, dumps, encoder, from_plain, loads, set_tag, to_plain
from swarm.model.specs import ContainerSpec, Global, ProcessSpec, Replicated, ServiceSpec, TaskSpec
from swarm.model.states import TaskState

LAYOUT = Path(__file__).parent.parent / "testdata" / "stored_layout.txt"


def anything(cls: type) -> st.SearchStrategy[Any]:
    """Objects of an attrs class with every field drawn, those with defaults as well."""
    attrs.resolve_types(cls)
    return st.builds(
        cls, **{field.name: st.deferred(lambda type=field.type: of_type(type)) for field in attrs.fields(cls)}
    )


def of_type(type: Any) -> st.SearchStrategy[Any]:
    if attrs.has(type):
        return anything(type)
    if type is float:
        return st.floats(allow_nan=False)
    if type is int:
        return st.integers(-(2**63), 2**63 - 1)
    if hasattr(type, "__supertype__"):
        return of_type(type.__supertype__)
    args = get_args(type)
    if args and args[-1] is Ellipsis:
        return st.lists(of_type(args[0]), max_size=2).map(tuple)
    if args and type.__class__.__name__ in ("UnionType", "_UnionGenericAlias"):
        return st.one_of([st.none() if arg in (None, None.__class__) else of_type(arg) for arg in args])
    if get_origin(type) is dict:
        return st.dictionaries(of_type(args[0]), of_type(args[1]), max_size=3)
    return st.from_type(type)


@settings(max_examples=100, deadline=None)
@given(st.one_of([anything(cls) for cls in get_args(StoreObject)]))
def test_every_stored_object_survives(it: Any) -> None:
    assert loads(dumps(it, StoreObject), StoreObject) == it
    assert loads(dumps(it, type(it)), type(it)) == it


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(
        [anything(changes.Advance), anything(changes.Assign), anything(changes.Delete), anything(changes.Refusal)]
    )
)
def test_every_change_survives(it: Any) -> None:
    read = loads(dumps(it, type(it)), type(it))
    assert read == it
    for field in attrs.fields(type(it)):
        assert type(getattr(read, field.name)) is type(getattr(it, field.name))


def test_fields_that_have_their_default_are_left_out_at_the_end() -> None:
    assert to_plain(Replicated(), Replicated) == []
    assert to_plain(Task("t", "s", 1), Task) == ["t", "s", 1]
    assert to_plain(Task("t", "s", 1, version=7), Task)[-1] == 7


def test_bytes_of_yesterday_read_after_a_field_was_added() -> None:
    @attrs.frozen
    class Yesterday:
        name: str
        size: int = 0

    @attrs.frozen
    class Today:
        name: str
        size: int = 0
        labels: dict[str, str] = attrs.field(factory=dict)
        color: str = "red"

    assert loads(dumps(Yesterday("a", 5), Yesterday), Today) == Today("a", 5)
    assert (
        loads(dumps(Yesterday("a"), Yesterday), Today).labels
        is not loads(dumps(Yesterday("a"), Yesterday), Today).labels
    )
    assert loads(dumps(Today("a", 5, {"x": "y"}, "blue"), Today), Yesterday) == Yesterday("a", 5)


def test_stored_bytes_of_the_first_version_read() -> None:
    """Written by the first version of this code, kept as they were."""
    stored = bytes.fromhex(
        "9905a27431a273310302a26e31cd028095cd02c0cb3ff8000000000000a46e6f7465a665786974203101cb3ff0000000000000"
    )
    task = Task("t1", "s1", 3, 2, "n1", TaskState.SHUTDOWN, TaskStatus(TaskState.FAILED, 1.5, "note", "exit 1", 1), 1.0)
    assert loads(stored, StoreObject) == task


def test_a_member_of_a_union_carries_its_tag() -> None:
    spec = ServiceSpec("web", TaskSpec(ContainerSpec("busybox")), mode=Global())
    assert to_plain(spec, ServiceSpec) == ["web", [[2, "busybox"]], [2]]
    assert from_plain(to_plain(spec, ServiceSpec), ServiceSpec) == spec
    assert to_plain(Node("n"), StoreObject) == [2, "n"]


@attrs.frozen
class Left:
    a: int


@attrs.frozen
class Right:
    a: int


@attrs.frozen
class OtherLeft:
    a: int


@attrs.frozen
class OtherRight:
    a: int


def test_a_class_without_a_tag_is_tagged_by_its_name() -> None:
    assert to_plain(Right(1), Left | Right) == ["Right", 1]
    assert from_plain(["Left", 2], Left | Right | None) == Left(2)
    assert from_plain(None, Left | Right | None) is None and to_plain(None, Left | Right | None) is None


def test_tags_are_unique_within_a_union() -> None:
    set_tag(OtherLeft, "same")
    set_tag(OtherRight, "same")
    with pytest.raises(TypeError, match="same tag"):
        to_plain(OtherLeft(1), OtherLeft | OtherRight)


@pytest.mark.parametrize(
    ("value", "type", "text"),
    [
        (5, Task, "Task: expected list, got int"),
        (["t"], Task, "Task: 1 of 3 required fields"),
        (["t", "s", "1"], Task, "Task.revision: expected int, got str"),
        (["t", "s", True], Task, "Task.revision: expected int, got bool"),
        (["t", "s", 1, 1, "", 513], Task, "TaskState has no value 513"),
        (["t", "s", 1, 1, "", []], Task, "TaskState has no value"),
        ([["a"]], ProcessSpec, None),
        ([["a", 5]], ProcessSpec, "expected str, got int"),
        ([5], ProcessSpec, "expected list, got int"),
        (["a"], ProcessSpec, "expected list, got str"),
        ([9, "x"], StoreObject, "one of the tags"),
        ([[1], "x"], StoreObject, "one of the tags"),
        ([], StoreObject, "one of the tags"),
        (None, StoreObject, "one of the tags"),
        ([{}], specs.NodeSpec, None),
        ([[]], specs.NodeSpec, "NodeSpec"),
        ([{"a": 1}], specs.NodeSpec, "expected str, got int"),
        (["x"], specs.GenericResource, None),
        ([1], specs.UpdateConfig, None),
        ([1, "x"], specs.UpdateConfig, "UpdateConfig.delay_s: expected float, got str"),
    ],
)
def test_what_is_not_right_is_refused_by_name(value: Any, type: Any, text: str | None) -> None:
    if text is None:
        from_plain(value, type)
    else:
        with pytest.raises(PlainError, match=text.replace("|", "[|]")):
            from_plain(value, type)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", b"\x01\x01", b"\xdd\xff\xff\xff\xff"])
def test_bytes_that_are_no_msgpack_are_refused(data: bytes) -> None:
    with pytest.raises(PlainError):
        loads(data, Task)


def test_a_whole_number_reads_as_a_float() -> None:
    read = from_plain([1, 2], specs.UpdateConfig)
    assert type(read.delay_s) is float and read.delay_s == 2.0


def test_a_type_is_looked_up_once() -> None:
    assert encoder(Task) is encoder(Task)


def layout() -> dict[str, str]:
    """Class or enum to its stored fields or values in order."""
    classes = [
        cls
        for module in (objects, specs, reasons, changes, states)
        for cls in vars(module).values()
        if isinstance(cls, type) and cls.__module__ == module.__name__ and (attrs.has(cls) or issubclass(cls, Enum))
    ]
    return {
        cls.__name__: " ".join(
            [f"{it.name}={it.value}" for it in cls]
            if issubclass(cls, Enum)
            else [field.name for field in attrs.fields(cls)]
        )
        for cls in classes
    }


def test_the_stored_layout_only_grows() -> None:
    """Fields are only added at the end and values of enums never change; `stored_layout.txt` gets a line for a new class."""
    now = layout()
    for line in LAYOUT.read_text().splitlines():
        name, _, was = line.partition(": ")
        if was.count("="):
            assert set(was.split()) <= set(now[name].split()), name
        else:
            assert now[name].split()[: len(was.split())] == was.split(), name
    unknown = [name for name in now if f"\n{name}:" not in "\n" + LAYOUT.read_text()]
    assert unknown == [], "add these to tests/testdata/stored_layout.txt"
