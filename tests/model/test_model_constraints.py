"""Constraint expressions: what is refused, what is read, and which nodes match."""

from __future__ import annotations

import pytest

from swarm.model.constraints import Constraint, ConstraintError, key_problem, label_of, matcher, parse
from swarm.model.ids import NodeId
from swarm.model.objects import Node, NodeStatus
from swarm.model.specs import NodeDescription, NodeSpec, Platform
from swarm.model.states import NodeState, Role

LINUX = Platform("x86_64", "linux")


def node(
    id: str = "n1",
    hostname: str = "Host-1",
    address: str = "10.0.0.7",
    labels: dict[str, str] | None = None,
    engine: dict[str, str] | None = None,
    role: Role = Role.WORKER,
    platform: Platform = LINUX,
) -> Node:
    return Node(
        NodeId(id),
        NodeSpec(labels=labels or {}),
        role=role,
        description=NodeDescription(hostname=hostname, platform=platform, engine_labels=engine or {}),
        status=NodeStatus(NodeState.READY, address=address),
    )


def matches(expression: str, subject: Node) -> bool:
    return matcher((expression,)).matches(subject)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "neither"),
        ("   ", "neither"),
        ("node.id", "neither"),
        ("node.id=x", "neither"),
        ("node.id<x", "neither"),
        ("1node==x", "key '1node'"),
        ("no de==x", "key 'no de'"),
        ("node.*==x", "key 'node.*'"),
        ("node.$==x", "key 'node.$'"),
        ("n==x", "key 'n'"),
        ("==x", "key ''"),
        ("node.id==", "no value"),
        ("node.id==   ", "no value"),
        ("node.id!=", "no value"),
        ("node.id==a,b", "value 'a,b'"),
        ("node.id==ü", "value 'ü'"),
        ("a!=b==c", "key 'a!=b'"),
    ],
)
def test_an_expression_that_cannot_be_read_is_refused_with_the_reason_and_an_example(
    expression: str, complaint: str
) -> None:
    with pytest.raises(ConstraintError) as refused:
        parse(expression)
    assert complaint in str(refused.value)
    assert "for example: node.labels.zone == east" in str(refused.value)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("expression", "key", "negated", "value"),
    [
        ("node.id==x", "node.id", False, "x"),
        ("  node.ID  !=  x y  ", "node.ID", True, "x y"),
        ("_a.b-c==1", "_a.b-c", False, "1"),
        (r"node.labels.a==:-_.*()?+[]\^$|/", "node.labels.a", False, r":-_.*()?+[]\^$|/"),
        ("node.labels.example.com/zone==a", "node.labels.example.com/zone", False, "a"),
    ],
)
def test_an_expression_is_split_at_its_operator_and_trimmed(
    expression: str, key: str, negated: bool, value: str
) -> None:
    constraint = parse(expression)
    assert (constraint.key, constraint.negated, constraint.value) == (key, negated, value)


def test_equals_is_looked_for_before_differs_and_only_the_first_one_splits() -> None:
    with pytest.raises(ConstraintError, match="value"):
        parse("node.id==a==b")
    with pytest.raises(ConstraintError, match="value"):
        parse("node.id==a!=b")


def test_a_list_is_parsed_once() -> None:
    assert matcher(("node.id==a", "node.role==worker")) is matcher(("node.id==a", "node.role==worker"))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("node.id==n1", True),
        ("node.id==N1", True),
        ("node.id==n", False),
        ("node.id==n1x", False),
        ("node.id!=n1", False),
        ("NODE.ID==n1", True),
        ("node.hostname==host-1", True),
        ("node.hostname==host-*", False),
        ("node.role==Worker", True),
        ("node.role==manager", False),
        ("node.role!=manager", True),
        ("node.platform.os==LINUX", True),
        ("node.platform.arch==x86_64", True),
        ("node.platform.arch==amd64", False),
        ("node.labels.zone==east", True),
        ("Node.Labels.zone==EAST", True),
        ("node.labels.Zone==east", False),
        ("node.labels.zone!=west", True),
        ("node.labels.dots==a.c", True),
        ("node.labels.dots==a*c", False),
        ("node.labels.example.com/rack==r 1", True),
        ("engine.labels.gpu==yes", True),
        ("engine.labels.gpu!=yes", False),
        ("node.speed==fast", False),
        ("node.speed!=fast", False),
        ("node.labels.==a", False),
        ("node.labels.!=a", False),
    ],
)
def test_an_attribute_is_compared_whole_and_without_regard_to_case(expression: str, expected: bool) -> None:
    labels = {"zone": "East", "dots": "a.c", "example.com/rack": "R 1"}
    assert matches(expression, node(labels=labels, engine={"gpu": "Yes"})) is expected


@pytest.mark.parametrize("attribute", ["hostname", "platform.os", "platform.arch", "labels.zone"])
def test_missing_data_differs_from_everything(attribute: str) -> None:
    bare = node(hostname="", platform=Platform())
    assert not matches(f"node.{attribute}==x", bare)
    assert matches(f"node.{attribute}!=x", bare)


@pytest.mark.parametrize(
    ("value", "address", "equal", "differs"),
    [
        ("10.0.0.7", "10.0.0.7", True, False),
        ("10.0.0.7", "10.0.0.8", False, True),
        ("10.0.0.0/24", "10.0.0.7", True, False),
        ("10.0.0.9/24", "10.0.0.7", True, False),
        ("10.0.1.0/24", "10.0.0.7", False, True),
        ("::1", "0:0:0:0:0:0:0:1", True, False),
        ("fe80::/10", "fe80::1%eth0", True, False),
        ("10.0.0.7", "::ffff:10.0.0.7", True, False),
        ("fe80::/10", "10.0.0.7", False, True),
        ("10.0.0.7", "", False, True),
        ("10.0.0.0/24", "", False, True),
        ("10.0.0", "10.0.0.7", False, False),
        ("10.0.0.0/33", "10.0.0.7", False, False),
        ("10.0.0.0/255.255.255.0", "10.0.0.7", False, False),
        ("host", "10.0.0.7", False, False),
    ],
)
def test_addresses_compare_as_numbers_and_a_malformed_one_matches_nothing(
    value: str, address: str, equal: bool, differs: bool
) -> None:
    subject = node(address=address)
    assert matches(f"node.ip=={value}", subject) is equal
    assert matches(f"node.ip!={value}", subject) is differs


def test_all_constraints_of_a_list_are_required_and_those_that_fail_are_named() -> None:
    both = matcher(("node.role == worker", "node.labels.zone==east", "node.id!=n2"))
    assert both.matches(node(labels={"zone": "east"}))
    assert not both.matches(node(labels={"zone": "west"}))
    assert [constraint.text for constraint in both.failing(node(id="n2"))] == [
        "node.labels.zone == east",
        "node.id != n2",
    ]
    assert matcher(()).matches(node())


def test_a_preference_reads_the_same_labels() -> None:
    subject = node(labels={"zone": "a"}, engine={"kernel": "6"})
    assert label_of("node.labels.zone", subject) == "a"
    assert label_of("NODE.LABELS.zone", subject) == "a"
    assert label_of("node.labels.Zone", subject) == ""
    assert label_of("engine.labels.kernel", subject) == "6"
    assert label_of("node.id", subject) is None


@pytest.mark.parametrize("key", ["zone", "node.label.zone", "node.labels.", "node.name", "labels.zone"])
def test_a_key_that_no_node_has_is_told_with_those_that_are_known(key: str) -> None:
    problem = key_problem(Constraint(key, False, "a"))
    assert problem is not None
    assert repr(key) in problem and "node.labels.NAME" in problem and "node.hostname" in problem


@pytest.mark.parametrize(
    "key", ["node.id", "Node.Role", "node.ip", "node.labels.zone", "engine.labels.os", "NODE.LABELS.a"]
)
def test_a_key_that_nodes_have_is_right(key: str) -> None:
    assert key_problem(Constraint(key, True, "a")) is None
