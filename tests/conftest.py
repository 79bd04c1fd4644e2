"""What all tests share: `--rewrite`, golden files and scenario files under `tests/testdata`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

TESTDATA = Path(__file__).parent / "testdata"
SEPARATOR = "----"

Golden: TypeAlias = Callable[[str, str], None]
Scenario: TypeAlias = Callable[[str, Callable[[str], str]], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write golden files anew instead of comparing with them")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden(name, text)`: `text` is what `tests/testdata/<name>` says; `--rewrite` writes it there instead."""

    def check(name: str, text: str) -> None:
        path = TESTDATA / name
        if request.config.getoption("--rewrite"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        wanted = path.read_text() if path.exists() else ""
        if text != wanted:
            lines = difflib.unified_diff(wanted.splitlines(), text.splitlines(), name, "now", lineterm="")
            pytest.fail("\n".join([*lines, "", "run pytest with --rewrite if the change is meant"]), pytrace=False)

    return check


@pytest.fixture
def scenario(golden: Golden) -> Scenario:
    """`scenario(name, run)`: each block of the file, an input above `----` and an output below it, holds.

    `run` gets a block's input lines as one string and returns the output. Blocks are separated by an empty line; lines that
    start with `#` between blocks are comments and stay.
    """

    def check(name: str, run: Callable[[str], str]) -> None:
        written: list[str] = []
        for block in (TESTDATA / name).read_text().rstrip("\n").split("\n\n"):
            lines = block.split("\n")
            comments = [line for line in lines if line.startswith("#")]
            body = [line for line in lines if not line.startswith("#")]
            if not body:
                written.append("\n".join(comments))
                continue
            commands = body[: body.index(SEPARATOR)] if SEPARATOR in body else body
            output = run("\n".join(commands)).rstrip("\n")
            written.append("\n".join([*comments, *commands, SEPARATOR, *([output] if output else [])]))
        golden(name, "\n\n".join(written) + "\n")

    return check
