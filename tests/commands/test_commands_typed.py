"""What is typed wrongly is told before anything is asked or made."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarm.cli import app


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["up", "--hostname", "bad host!"], "--hostname"),
        (["up", "--hostname", "-x"], "--hostname"),
        (["up", "--hostname", ""], "--hostname"),
        (["up", "--listen", "nope"], "--listen"),
        (["up", "--listen", "127.0.0.1:70000"], "70000"),
        (["up", "--advertise", ":1"], "--advertise"),
        (["up", "--executor", "rkt"], "rkt"),
        (["up", "--label", "=x"], "--label"),
        (["up", "--log-level", "loud"], "loud"),
        (["join", "nope", "--token", "-"], "nope"),
        (["join", "h:1", "--token", "@/no/such/file"], "/no/such/file"),
        (["svc", "update", "web"], "nothing to change"),
        (["svc", "scale", "web"], "NAME=N"),
        (["node", "update", "a"], "nothing to change"),
        (["node", "update", "a", "--availability", "off"], "--availability 'off' is not known: active, pause, drain"),
        (["cluster", "update"], "nothing to change"),
        (["svc", "ls", "--format", "xml"], "xml"),
    ],
)
def test_it_is_exit_code_2_and_leaves_nothing(tmp_path: Path, typed: list[str], words: str) -> None:
    own = ["--state-dir", str(tmp_path / "n")] if typed[0] in ("up", "join") else ["--socket", str(tmp_path / "none")]
    done = CliRunner().invoke(app, [*typed, *own])
    assert (done.exit_code, words in done.output) == (2, True), done.output
    assert not list(tmp_path.iterdir())
