"""Placeholders: what they stand for, and the words that a wrong one is refused with."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from swarm.executors.base import ExecutorError, Workload
from swarm.executors.template import TemplateError, check, expand, expand_workload, values_of
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.specs import (
    ContainerSpec,
    Mount,
    NodeDescription,
    Platform,
    ProcessSpec,
    RuntimeSpec,
    ServiceSpec,
    TaskSpec,
)


def workload(runtime: RuntimeSpec, slot: int = 3) -> Workload:
    spec = ServiceSpec("web", TaskSpec(runtime), labels={"tier": "front", "com.example/zone": "eu {{.Task.ID}}"})
    description = NodeDescription(hostname="box", platform=Platform("x86_64", "linux"))
    return Workload(
        TaskId("tid"), ServiceId("sid"), RevisionNumber(1), Slot(slot), NodeId("nid"), "box", spec, (), description
    )


VALUES = values_of(workload(ProcessSpec(("x",))))


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{.Service.ID}}/{{.Service.Name}}", "sid/web"),
        ("{{ .Node.ID }} {{.Node.Hostname}}", "nid box"),
        ("{{.Node.Platform.Architecture}}-{{.Node.Platform.OS}}", "x86_64-linux"),
        ("{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}", "tid web.3.tid 3"),
        ("80{{.Task.Slot}}", "803"),
        ("{{.Service.Labels.tier}}", "front"),
        ('{{index .Service.Labels "tier"}}', "front"),
        ("{{index .Service.Labels `tier`}}", "front"),
        ('{{index .Service.Labels "com.example/zone"}}', "eu {{.Task.ID}}"),
        ('{{join "-" .Service.Name .Task.Slot}}', "web-3"),
        ('{{join ", " (index .Service.Labels "tier") "a\\"b"}}', 'front, a"b'),
        ('{{"{{"}}.Names{{"}}"}}', "{{.Names}}"),
        ("a { b } c }} d", "a { b } c }} d"),
    ],
)
def test_placeholders(text: str, expanded: str) -> None:
    assert expand(text, VALUES) == expanded


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{.Service.Nmae}}", ["{{.Service.Nmae}}", ".Service.Name", "join"]),
        ("{{.Foo}}", [".Foo", "known:"]),
        ("{{.Service.Labels.nope}}", ["nope", "tier"]),
        ('{{index .Service.Labels "nope"}}', ["nope", "com.example/zone"]),
        ("{{.Service.Labels}}", ["index"]),
        ("{{.Service}}", ["set"]),
        ("{{.Service.Name.First}}", ["First"]),
        ("{{}}", ["empty"]),
        ("{{.Task.Slot", ["not closed", '{{"{{"}}']),
        ("{{.Task.Slot | printf}}", ["pipes"]),
        ("{{if .Task.Slot}}x{{end}}", ["'if'", "not a function"]),
        ("{{printf .Task.Slot}}", ["'printf'"]),
        ("{{.Task.Slot .Task.ID}}", [".Task.ID"]),
        ("{{index .Service.Labels}}", ["index takes"]),
        ("{{index .Service.Name .Service.Name}}", ["index takes"]),
        ("{{join}}", ["join takes"]),
        ("{{join (index .Service.Labels `tier`}}", ["parenthesis"]),
        ("{{(((((((((((((((((((((((.Task.ID}}", ["not complete"]),
        ("{{.Task.Slot + 1}}", ["'+'"]),
        ("{{$x}}", ["'$x'"]),
        ('{{"open}}', ["not closed"]),
    ],
)
def test_refusals_name_the_placeholder(text: str, words: list[str]) -> None:
    with pytest.raises(TemplateError) as refused:
        expand(text, VALUES)
    for word in words:
        assert word in str(refused.value)


def test_slot_of_a_global_task_is_its_node() -> None:
    assert expand("{{.Task.Slot}}", values_of(workload(ProcessSpec(("x",)), slot=0))) == "nid"


def test_process_fields() -> None:
    spec = ProcessSpec(("serve", "--port={{.Task.Slot}}"), env=("A={{.Task.ID}}", "{{.Bad"), dir="/srv/{{.Task.Slot}}")
    runtime = expand_workload(workload(spec)).spec.task.runtime
    assert runtime == ProcessSpec(("serve", "--port=3"), env=("A=tid", "{{.Bad"), dir="/srv/3")


def test_container_fields() -> None:
    spec = ContainerSpec(
        "image-{{.Task.Slot}}",
        command=("run", "{{.Task.Slot}}"),
        args=("{{.Service.Name}}",),
        env=("HOST={{.Node.Hostname}}",),
        hostname="{{.Service.Name}}-{{.Task.Slot}}",
        labels={"kept": "{{.Task.Slot}}"},
        mounts=(Mount("/t/{{.Task.Slot}}", "v{{.Task.Slot}}", labels={"s": "{{.Task.Slot}}"}),),
    )
    runtime = expand_workload(workload(spec)).spec.task.runtime
    assert runtime == evolve(
        spec,
        command=("run", "3"),
        args=("web",),
        env=("HOST=box",),
        hostname="web-3",
        mounts=(Mount("/t/3", "v3", labels={"s": "3"}),),
    )


def test_bad_placeholder_is_an_executor_error_with_its_place() -> None:
    with pytest.raises(ExecutorError, match=r"argument 2: \{\{.Nope\}\}"):
        expand_workload(workload(ProcessSpec(("x", "{{.Nope}}"))))


def test_check_before_any_node_is_known() -> None:
    check(workload(ProcessSpec(("x", "{{.Node.Hostname}} {{.Service.Labels.tier}}"))).spec)
    with pytest.raises(ValueError, match="environment variable A"):
        check(workload(ProcessSpec(("x",), env=("A={{.Service.Labels.nope}}",))).spec)


@given(st.text(alphabet='{}."`()|ab Task.SlotServiceNameindexjoin\\', max_size=40))
def test_any_text_expands_or_is_refused(text: str) -> None:
    try:
        expanded = expand(text, VALUES)
    except TemplateError:
        return
    assert "{{" in text or expanded == text


@given(st.text(max_size=20).filter(lambda text: "{{" not in text))
def test_inserted_text_is_not_expanded_again(text: str) -> None:
    values = {"Service": {"Name": text + "{{.Service.Name}}"}}
    assert expand("<{{.Service.Name}}>", values) == f"<{text}{{{{.Service.Name}}}}>"
