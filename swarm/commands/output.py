"""What commands print: tables that are readable without colour, JSON of any object, ages. Data goes to stdout only."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from enum import Enum, IntEnum
from typing import Any, TextIO

import attrs

SHORT_ID = 12
RUNS = "RUNS"
"""The header of the column that may be shortened: images and commands."""
RUNS_LENGTH_MIN = 12
_SECRET_FIELDS = frozenset({"registry_auth", "root_key"})


def to_json(value: Any) -> Any:
    """Plain JSON of any model object: fields by name, enums as words in lower case, bytes as text or base64.

    Secret fields are shown as `"***"` when they are set.
    """
    if attrs.has(type(value)):
        return {
            field.name: "***"
            if field.name in _SECRET_FIELDS and getattr(value, field.name)
            else to_json(getattr(value, field.name))
            for field in attrs.fields(type(value))
        } | _variant(value)
    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | frozenset | set):
        return [to_json(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return value


_VARIANTS = {
    "ProcessSpec": "process",
    "ContainerSpec": "container",
    "GenericSpec": "generic",
    "Replicated": "replicated",
    "Global": "global",
    "ReplicatedJob": "replicated-job",
    "GlobalJob": "global-job",
}


def _variant(value: Any) -> dict[str, str]:
    """The name of a union's member, which its fields alone would not tell."""
    name = _VARIANTS.get(type(value).__name__)
    return {"type": name} if name else {}


def write(text: str) -> None:
    """Data, on stdout. A reader that has had enough (`| head -1`) ends the command, which is no failure."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        silence(sys.stdout)
        raise SystemExit(0) from None


def deliver() -> bool:
    """Hand on what is in the buffer; False when nobody reads it, and then nothing more is written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        return False
    return True


def silence(stream: TextIO) -> None:
    """Let a standard stream lead nowhere, so that what its buffer holds fails no more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def print_json(value: Any) -> None:
    """One JSON document."""
    write(json.dumps(to_json(value), indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """One JSON document in one line, for documents that come one after the other."""
    write(json.dumps(to_json(value), ensure_ascii=False) + "\n")


def print_lines(lines: Iterable[str]) -> None:
    """Lines of data."""
    write("".join(f"{line}\n" for line in lines))


def counted(count: int, noun: str) -> str:
    """`1 service`, `2 services`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def tasks(count: int) -> str:
    """`1 task`, `2 tasks`."""
    return counted(count, "task")


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, two blanks apart; on a terminal made to fit it as far as that loses little."""
    table = [tuple(header), *(tuple(row) for row in rows)]
    if sys.stdout.isatty():
        table = fitted(table, shutil.get_terminal_size().columns)
    widths = _widths(table)
    print_lines("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def fitted(table: list[tuple[str, ...]], room: int) -> list[tuple[str, ...]]:
    """A table of which the first row is the header, narrower when it is wider than `room` columns.

    Columns without any entry go first, then what a task runs is shortened. Nothing else is: an error is read to its end.
    """
    if _width(table) > room and len(table) > 1:
        filled = [any(column[1:]) for column in zip(*table, strict=True)]
        table = [tuple(cell for cell, keep in zip(row, filled, strict=True) if keep) for row in table]
    excess = _width(table) - room
    if excess <= 0 or RUNS not in table[0]:
        return table
    at = table[0].index(RUNS)
    length = max(_widths(table)[at] - excess, RUNS_LENGTH_MIN)
    return [(*row[:at], _shortened(row[at], length), *row[at + 1 :]) for row in table]


def _width(table: Sequence[Sequence[str]]) -> int:
    widths = _widths(table)
    return sum(widths) + 2 * (len(widths) - 1)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """`Name:  value` lines, values aligned; lines with an empty value are left out."""
    shown = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in shown), default=0)
    print_lines(f"{name + ':':<{width + 1}} {value}" for name, value in shown)


def print_sections(objects: Iterable[Iterable[tuple[str, str]]]) -> None:
    """The fields of several objects, an empty line between two."""
    for number, fields in enumerate(objects):
        if number:
            print_lines([""])
        print_fields(fields)


def note(text: str) -> None:
    """A line for the reader, on stderr. Nobody may be reading there any more; that is no reason to end."""
    tell(text + "\n")


def tell(text: str) -> None:
    """Text for the reader, on stderr, at once."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


def age(now: float, then: float) -> str:
    """`8 seconds`, `3 minutes`, `2 hours`, `5 days`; empty for an instant that never was."""
    if then <= 0:
        return ""
    seconds = max(0, int(now - then))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}s"
    if seconds >= 60:
        return "1 minute"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def size(number_bytes: int) -> str:
    """`512 MiB`, `2 GiB`."""
    amount = float(number_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.4g} {unit}"
        amount /= 1024
    raise AssertionError("the loop returns")
