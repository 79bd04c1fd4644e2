"""Placeholders in a task's arguments and environment: the part of Go's text templates that users of Docker know.

`{{.Service.Name}}`, `{{.Service.Labels.tier}}`, `{{index .Service.Labels "com.example/tier"}}`, `{{join "-" .Service.Name
.Task.Slot}}`, `{{"{{"}}` for two braces; no pipes, conditions or loops. Expanded on the node that runs the task.

Its one idea: an unknown name, a missing label, a stray brace are errors that say which placeholder and what there is,
never an empty text. Nothing that was inserted is expanded again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from attrs import evolve, frozen

from swarm.executors.base import ExecutorError, Workload
from swarm.model.ids import NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.specs import ContainerSpec, Mount, ProcessSpec, ServiceSpec

Value: TypeAlias = "str | Mapping[str, Value]"

DEPTH_MAX = 16
"""Parentheses inside parentheses; more is a mistake, not a template."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<raw>`[^`]*`)"""
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<sign>[().|])|(?P<other>\S+))"""
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
_ESCAPE_HINT = 'for two literal braces write {{"{{"}}'


class TemplateError(ValueError):
    """A placeholder cannot be expanded; the text names it and says what there is."""


def expand(text: str, values: Mapping[str, Value]) -> str:
    """`text` with its placeholders replaced by what they stand for in `values`."""
    if "{{" not in text:
        return text
    parts: list[str] = []
    position = 0
    while (opening := text.find("{{", position)) >= 0:
        closing = _closing(text, opening)
        placeholder = text[opening : closing + 2]
        parts.append(text[position:opening])
        parts.append(_expand_one(placeholder, values))
        position = closing + 2
    parts.append(text[position:])
    return "".join(parts)


def values_of(workload: Workload) -> dict[str, Value]:
    """What the placeholders of a task stand for, as nested mappings: `values["Service"]["Name"]`."""
    return {
        "Service": {
            "ID": str(workload.service_id),
            "Name": workload.spec.name,
            "Labels": dict(workload.spec.labels),
        },
        "Node": {
            "ID": str(workload.node_id),
            "Hostname": workload.hostname or workload.description.hostname,
            "Platform": {
                "Architecture": workload.description.platform.architecture,
                "OS": workload.description.platform.os,
            },
        },
        "Task": {
            "ID": str(workload.task_id),
            "Name": workload.name,
            "Slot": str(workload.slot or workload.node_id),
        },
    }


def expand_workload(workload: Workload) -> Workload:
    """The workload with every placeholder expanded; raises `ExecutorError` that says where the bad one stands."""
    try:
        return evolve(workload, spec=_expand_spec(workload.spec, values_of(workload)))
    except TemplateError as error:
        raise ExecutorError(str(error)) from None


def check(spec: ServiceSpec) -> None:
    """Raises `TemplateError` (a `ValueError`) when a placeholder of the spec cannot be expanded on any node."""
    sample = Workload(TaskId("t"), ServiceId("s"), RevisionNumber(1), Slot(1), NodeId("n"), "host", spec)
    _expand_spec(spec, values_of(sample))


def _expand_spec(spec: ServiceSpec, values: Mapping[str, Value]) -> ServiceSpec:
    runtime = spec.task.runtime
    expanded = runtime
    match runtime:
        case ProcessSpec():
            expanded = evolve(
                runtime,
                command=_expand_all(runtime.command, values, "argument"),
                env=_expand_env(runtime.env, values),
                dir=_expand_at("directory", runtime.dir, values),
            )
        case ContainerSpec():
            expanded = evolve(
                runtime,
                command=_expand_all(runtime.command, values, "command"),
                args=_expand_all(runtime.args, values, "argument"),
                env=_expand_env(runtime.env, values),
                hostname=_expand_at("hostname", runtime.hostname, values),
                mounts=tuple(_expand_mount(mount, values) for mount in runtime.mounts),
            )
    return spec if expanded == runtime else evolve(spec, task=evolve(spec.task, runtime=expanded))


def _expand_all(texts: Sequence[str], values: Mapping[str, Value], what: str) -> tuple[str, ...]:
    return tuple(_expand_at(f"{what} {number}", text, values) for number, text in enumerate(texts, 1))


def _expand_env(env: Sequence[str], values: Mapping[str, Value]) -> tuple[str, ...]:
    """Values only; an entry without `=` stays as it is."""
    entries: list[str] = []
    for entry in env:
        name, equals, value = entry.partition("=")
        entries.append(name + equals + _expand_at(f"environment variable {name}", value, values))
    return tuple(entries)


def _expand_mount(mount: Mount, values: Mapping[str, Value]) -> Mount:
    def expand_labels(what: str, labels: Mapping[str, str]) -> dict[str, str]:
        return {key: _expand_at(f"{what} {key} of mount {mount.target}", text, values) for key, text in labels.items()}

    return evolve(
        mount,
        source=_expand_at(f"source of mount {mount.target}", mount.source, values),
        target=_expand_at(f"target of mount {mount.target}", mount.target, values),
        labels=expand_labels("label", mount.labels),
        driver_options=expand_labels("driver option", mount.driver_options),
    )


def _expand_at(where: str, text: str, values: Mapping[str, Value]) -> str:
    try:
        return expand(text, values)
    except TemplateError as error:
        raise TemplateError(f"{where}: {error}") from None


# --- one placeholder -----------------------------------------------------------------------------------------------
@frozen
class _Token:
    kind: str
    text: str


def _closing(text: str, opening: int) -> int:
    """Where the `}}` of the placeholder at `opening` begins; braces inside its quotes do not count."""
    quote = ""
    position = opening + 2
    while position < len(text):
        character = text[position]
        if quote:
            if character == "\\" and quote == '"':
                position += 1
            elif character == quote:
                quote = ""
        elif character in '"`':
            quote = character
        elif text.startswith("}}", position):
            return position
        position += 1
    raise TemplateError(f"{text[opening : opening + 40]!r} is not closed by }}}}; {_ESCAPE_HINT}")


def _expand_one(placeholder: str, values: Mapping[str, Value]) -> str:
    tokens = list(_tokens(placeholder[2:-2], placeholder))
    if not tokens:
        raise TemplateError(f"{placeholder} is empty; {_known(values)}")
    value, rest = _call(tokens, values, placeholder, depth=0)
    if rest:
        raise TemplateError(f"{placeholder}: {rest[0].text!r} is not understood here; {_known(values)}")
    if not isinstance(value, str):
        raise TemplateError(f'{placeholder} is a set of labels; take one with {{{{index .Service.Labels "name"}}}}')
    return value


def _tokens(body: str, placeholder: str) -> Iterator[_Token]:
    position, end = 0, len(body.rstrip())
    while position < end:
        match = _TOKEN.match(body, position)
        assert match is not None and match.lastgroup is not None, "the last alternative takes any character"
        text = match.group(match.lastgroup)
        if match.lastgroup == "other" or text == "|" or text == ".":
            hint = "pipes are not supported, " if text == "|" else ""
            raise TemplateError(f"{placeholder}: {text!r} is not understood; {hint}{_ESCAPE_HINT}")
        yield _Token(match.lastgroup, text)
        position = match.end()


def _call(
    tokens: list[_Token], values: Mapping[str, Value], placeholder: str, depth: int
) -> tuple[Value, list[_Token]]:
    """The value of `function operand...` or of one operand, and the tokens after it."""
    if tokens and tokens[0].kind == "word":
        name = tokens[0].text
        operands, rest = _operands(tokens[1:], values, placeholder, depth)
        match name:
            case "index":
                return _index(operands, placeholder), rest
            case "join":
                return _join(operands, placeholder), rest
            case _:
                raise TemplateError(f"{placeholder}: {name!r} is not a function; {_known(values)}; {_ESCAPE_HINT}")
    return _operand(tokens, values, placeholder, depth)


def _operands(
    tokens: list[_Token], values: Mapping[str, Value], placeholder: str, depth: int
) -> tuple[list[Value], list[_Token]]:
    operands: list[Value] = []
    while tokens and tokens[0].text != ")":
        operand, tokens = _operand(tokens, values, placeholder, depth)
        operands.append(operand)
    return operands, tokens


def _operand(
    tokens: list[_Token], values: Mapping[str, Value], placeholder: str, depth: int
) -> tuple[Value, list[_Token]]:
    if not tokens or depth > DEPTH_MAX:
        raise TemplateError(f"{placeholder} is not complete; {_known(values)}")
    token, rest = tokens[0], tokens[1:]
    match token.kind:
        case "field":
            return _field(token.text, values, placeholder), rest
        case "raw":
            return token.text[1:-1], rest
        case "text":
            return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), token.text[1:-1]), rest
        case "sign" if token.text == "(":
            value, rest = _call(rest, values, placeholder, depth + 1)
            if not rest or rest[0].text != ")":
                raise TemplateError(f"{placeholder}: a parenthesis is not closed")
            return value, rest[1:]
        case _:
            raise TemplateError(f"{placeholder}: {token.text!r} is not understood here; {_known(values)}")


def _field(path: str, values: Mapping[str, Value], placeholder: str) -> Value:
    value: Value = values
    walked = ""
    for name in path[1:].split("."):
        if isinstance(value, str):
            raise TemplateError(f"{placeholder}: {walked} is a text and has no field {name!r}")
        if name not in value:
            raise _missing(name, walked, value, values, placeholder)
        value = value[name]
        walked += "." + name
    return value


def _index(operands: list[Value], placeholder: str) -> Value:
    if len(operands) != 2 or isinstance(operands[0], str) or not isinstance(operands[1], str):
        raise TemplateError(f'{placeholder}: index takes a set and a name: {{{{index .Service.Labels "name"}}}}')
    labels, key = operands[0], operands[1]
    if key not in labels:
        raise _missing(key, ".Service.Labels", labels, {}, placeholder)
    return labels[key]


def _join(operands: list[Value], placeholder: str) -> str:
    texts = [operand for operand in operands if isinstance(operand, str)]
    if not texts or len(texts) != len(operands):
        raise TemplateError(
            f'{placeholder}: join takes a separator and texts: {{{{join "-" .Service.Name .Task.Slot}}}}'
        )
    return texts[0].join(texts[1:])


def _missing(
    name: str, walked: str, where: Mapping[str, Value], values: Mapping[str, Value], placeholder: str
) -> TemplateError:
    if walked == ".Service.Labels":
        labels = ", ".join(sorted(where)) or "none"
        return TemplateError(f"{placeholder}: the service has no label {name!r} (it has: {labels})")
    return TemplateError(f"{placeholder}: {walked}.{name} is not known; {_known(values)}")


def _known(values: Mapping[str, Value]) -> str:
    return "known: " + ", ".join(_paths("", values)) + ", index, join"


def _paths(prefix: str, values: Mapping[str, Value]) -> Iterator[str]:
    for name, value in values.items():
        path = f"{prefix}.{name}"
        if isinstance(value, str) or path == ".Service.Labels":
            yield path
        else:
            yield from _paths(path, value)
