"""What all tests share: `--rewrite`, golden files and scenarios under `tests/testdata`, a real Docker Engine."""

from __future__ import annotations

import difflib
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from swarm.executors.docker.engine import address_of
from swarm.ports.sockets import why_nobody_answers

TESTDATA = Path(__file__).parent / "testdata"
SEPARATOR = "----"

Golden: TypeAlias = Callable[[str, str], None]
Scenario: TypeAlias = Callable[[str, Callable[[str], str]], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write golden files anew instead of comparing with them")
    parser.addoption("--chaos-minutes", help="how long tests/chaos draws faults (SWARM_CHAOS_MINUTES); by default 25 s")
    parser.addoption("--chaos-seed", help="the schedule of faults of tests/chaos (SWARM_CHAOS_SEED)")


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


# --- a real Docker Engine -----------------------------------------------------------------------------------------------
TEST_IMAGE = "swarm-test-busybox:latest"
DOCKERFILE = (
    b'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nCMD ["/bin/sh"]\n'
)
SKIPPED_WITHOUT_ENGINE = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `docker` are skipped when no engine answers; never run against anything that plays one."""
    marked = [item for item in items if item.get_closest_marker("docker")]
    address = address_of(os.environ)
    why = why_nobody_answers(address) if marked else ""
    if why:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"no Docker Engine answers at {address}: {why}"))
        config.stash[SKIPPED_WITHOUT_ENGINE] = (
            f"{len(marked)} engine tests were SKIPPED: no Docker Engine answers at {address} ({why}). To run them: "
            "apt-get install docker.io busybox-static, start dockerd, or run .ci/run, which does both."
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line that says so."""
    text = config.stash.get(SKIPPED_WITHOUT_ENGINE, "")
    if text:
        terminalreporter.write_line(text, yellow=True)


@pytest.fixture(scope="session")
def busybox_image() -> str:
    """An image with a shell, built from this machine's static busybox: no registry is needed."""
    import docker

    busybox = shutil.which("busybox")
    assert busybox is not None, "the engine tests need a static busybox: apt-get install busybox-static"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        header = tarfile.TarInfo("Dockerfile")
        header.size = len(DOCKERFILE)
        tar.addfile(header, io.BytesIO(DOCKERFILE))
        tar.add(busybox, "busybox")
    context.seek(0)
    api = docker.APIClient(version="auto")
    output = list(api.build(fileobj=context, custom_context=True, tag=TEST_IMAGE, rm=True, decode=True))
    api.close()
    errors = [message["error"] for message in output if "error" in message]
    assert not errors, errors
    return TEST_IMAGE
