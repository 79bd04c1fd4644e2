"""Secrets that were typed disappear from what other processes see of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.commands.hiding import typed_secrets


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["join", "h:1", "--token", "T"], ["T"]),
        (["join", "h:1", "--token=T"], ["T"]),
        (["join", "h:1", "--token", "-"], []),
        (["join", "h:1", "--token=@FILE"], []),
        (["join", "h:1", "--token"], []),
        (["backup", "f", "--passphrase", "P"], ["P"]),
        (["svc", "create", "--registry-auth=R", "--", "x", "--token", "T"], ["R"]),
        (["svc", "ls"], []),
    ],
)
def test_only_what_follows_a_secrets_flag_as_text_is_one(arguments: list[str], found: list[str]) -> None:
    assert typed_secrets(arguments) == found


def test_arguments_and_environment_are_masked_and_nothing_else_changes() -> None:
    code = (
        "from swarm.commands.hiding import hide_secrets, is_in_process_list\nimport os, sys\n"
        "hide_secrets()\n"
        "print(open('/proc/self/cmdline').read().split('\\0')[3:-1])\n"
        "print([e for e in open('/proc/self/environ').read().split('\\0') if e[:2] in ('SW', 'OT')])\n"
        "print(sys.argv[1:], os.environ['SWARM_TOKEN'], is_in_process_list('bin'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "join", "--token", "bin", "--passphrase=pass", "binary"],
        env={"PATH": os.environ["PATH"], "SWARM_TOKEN": "bin", "OTHER": "bin"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "['join', '--token', '***', '--passphrase=****', 'binary']",
        "['SWARM_TOKEN=***', 'OTHER=bin']",
        "['join', '--token', 'bin', '--passphrase=pass', 'binary'] bin True",
    ]
