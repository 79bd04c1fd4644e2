"""Groups of changes to bytes and back: whatever the mix, smaller by columns, and damage is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import attrs
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model_plain import anything

from swarm.model.change_codec import COLUMNS_MIN, decode_groups, decode_objects, encode_groups, encode_objects
from swarm.model.changes import Advance, Assign, Create, Delete, Group, Kind, Update
from swarm.model.columns import codec_of
from swarm.model.ids import id_from_bytes
from swarm.model.objects import Cluster, Node, Revision, Service, Task, TaskStatus
from swarm.model.plain import PlainError
from swarm.model.reasons import Reason, ReasonCode
from swarm.model.specs import ContainerSpec, GenericResource, ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import TaskState

GOLDEN = Path(__file__).parent.parent / "testdata" / "entry_format_1.hex"

objects = st.one_of([anything(cls) for cls in (Cluster, Node, Service, Revision, Task)])
changes = st.one_of(objects.map(Create), objects.map(Update), anything(Delete), anything(Advance), anything(Assign))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(changes, max_size=4).map(tuple), max_size=6))
def test_any_groups_survive(groups: list[Group]) -> None:
    assert decode_groups(encode_groups(groups)) == groups


@settings(max_examples=30, deadline=None)
@given(st.lists(anything(Task), min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=COLUMNS_MIN, max_size=40))
def test_long_tables_survive_whatever_repeats(drawn: list[Task], picks: list[int]) -> None:
    groups: list[Group] = [(Create(drawn[pick % len(drawn)]),) for pick in picks]
    assert decode_groups(encode_groups(groups)) == groups


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.lists(anything(ServiceSpec), min_size=1, max_size=10).map(lambda values: (ServiceSpec, values)),
        st.lists(st.integers(-5, 5), min_size=1).map(lambda values: (int, values)),
        st.lists(st.floats(allow_nan=False), min_size=1).map(lambda values: (float, values)),
        st.lists(st.sampled_from(TaskState), min_size=1).map(lambda values: (TaskState, values)),
        st.lists(
            st.none() | st.sampled_from([Reason(ReasonCode.JOB, "a"), Reason(ReasonCode.JOB, "b")]), min_size=1
        ).map(lambda values: (Reason | None, values)),
    )
)
def test_any_column_survives(drawn: tuple[Any, list[Any]]) -> None:
    type, values = drawn
    codec = codec_of(type)
    plain = msgpack.unpackb(msgpack.packb(codec.encode(values)), strict_map_key=False)
    assert codec.decode(plain, len(values)) == values


@pytest.mark.parametrize("distinct", [256, 257, 65536, 65537])
def test_columns_of_few_values_have_indexes_of_any_width(distinct: int) -> None:
    values = [f"v{number % distinct}" for number in range(2 * distinct)]
    codec = codec_of(str)
    assert codec.decode(codec.encode(values), len(values)) == values


def a_batch(count: int) -> list[Group]:
    """Tasks as an orchestrator makes them: ids, slots, and the rest in common."""
    source = random.Random(7)
    reason = Reason(ReasonCode.SCALED_UP, "scaled to 10000")
    return [
        (Create(Task(id_from_bytes(source.randbytes(17)), "s" * 25, 3, slot, created_at=5.0, reason=reason)),)
        for slot in range(1, count + 1)
    ]


def test_ten_thousand_tasks_cost_little_more_than_their_ids() -> None:
    groups = a_batch(10_000)
    ids = sum(2 + len(change.object.id) for (change,) in groups)
    assert len(encode_groups(groups)) < ids + 200


def test_what_a_batch_shares_is_shared_again_after_reading() -> None:
    read = decode_groups(encode_groups(a_batch(COLUMNS_MIN)))
    assert len({id(change.object.reason) for (change,) in read}) == 1
    assert len({id(change.object.service_id) for (change,) in read}) == 1


def test_objects_come_back_in_their_order() -> None:
    spec = ServiceSpec("web", TaskSpec(ContainerSpec("busybox")))
    rows = [Cluster("c"), Node("n"), Service("s", spec), Revision("s", 1, spec), Task("t", "s", 1), Node("n2")]
    assert decode_objects(encode_objects(rows)) == rows
    assert decode_objects(encode_objects(rows * 10)) == rows * 10
    assert decode_objects(encode_objects([])) == []


def golden_groups() -> list[Group]:
    """One of everything, as the first version wrote it into `entry_format_1.hex`."""
    spec = ServiceSpec("web", TaskSpec(ProcessSpec(("sleep", "1"))), labels={"a": "b"})
    status = TaskStatus(TaskState.RUNNING, 1.5, "started", pid=7)
    reason = Reason(ReasonCode.PLACED, "least loaded")
    advances: list[Group] = [(Advance(f"t{n}", TaskState.RUNNING, attrs.evolve(status, pid=n)),) for n in range(10)]
    assigns: list[Group] = [
        (Assign(f"t{n}", 5 + n % 2, f"n{n % 3}", status, (GenericResource("gpu", 1),), reason),) for n in range(10)
    ]
    return [
        (Create(Cluster("c1")), Create(Node("n1")), Create(Service("s1", spec)), Create(Revision("s1", 1, spec))),
        (Update(Node("n1", version=4)), Delete(Kind.TASK, "t9", 3), Delete(Kind.NODE, "n9")),
        *((Create(Task(f"t{n}", "s1", 1, n + 1)),) for n in range(10)),
        *advances,
        *assigns,
    ]


def test_bytes_of_the_first_version_read() -> None:
    assert decode_groups(bytes.fromhex(GOLDEN.read_text())) == golden_groups()


def packed(*parts: Any) -> bytes:
    return b"\x01" + msgpack.packb(list(parts))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "format none"),
        (b"\x02\x90", "format 2 is not known to this version"),
        (b"\x01", "damaged"),
        (b"\x01\xc1", "damaged"),
        (packed(), "damaged"),
        (packed(None), "damaged"),
        (packed(None, None, [99, [[]]]), "code 99"),
        (packed(None, None, [15, 10]), "damaged"),
        (packed(None, None, [15, 1 << 40, [0, ["t", "s", 1]]]), "cannot have"),
        (packed(None, None, [15, True, [0, ["t", "s", 1]]]), "cannot have"),
        (packed(None, None, [15, 9, [2, [["t", "s", 1]]]]), "holds 1 values instead of 9"),
        (packed(None, None, [15, 9, [7]]), "unknown form 7"),
        (packed(None, None, [15, 9, 5]), "unknown form None"),
        (packed(None, None, [15, 9, [4, [2, ["t"] * 9]]]), "required fields"),
        (packed(None, None, [15, 9, [4, [2, ["t"] * 9], [1, [2, ["s"]], b""]]]), "indexes"),
        (packed(None, None, [15, 9, [4, [2, [5] * 9], [0, "s"], [0, 1]]]), "expected str, got int"),
        (packed(None, b"\x00", [15, [["t", "s", 1]]], [11, [["c"]]]), "leaves out rows"),
        (packed(None, b"\x00\x00", [15, [["t", "s", 1]]], [11, [["c"]]]), "not there"),
        (packed(None, b"\x00\x05", [15, [["t", "s", 1]]], [11, [["c"]]]), "not there"),
        (packed(None, None, [15, [["t", "s", 1]]], [11, [["c"]]]), "without an order"),
        (packed([2], None, [15, [["t", "s", 1]]]), "add up"),
    ],
)
def test_damage_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(PlainError, match=text):
        decode_groups(data)


def test_every_flipped_byte_gives_groups_or_a_refusal() -> None:
    data = encode_groups(golden_groups())
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0x41
        try:
            decode_groups(bytes(flipped))
        except PlainError:
            pass
