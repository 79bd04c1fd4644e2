"""The tree of commands: what it shows without loading anything is what stands in the branches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from typer.main import get_group
from typer.testing import CliRunner

from swarm.cli import Root, app
from swarm.commands.service_flags import SERVICE_FLAGS

NARROW = {"terminal_width": 80, "max_content_width": 80}


def commands(group: click.Group, path: str = "swarm") -> Iterator[tuple[str, click.Command]]:
    """Every command below a group, with how it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


ALL = dict(commands(get_group(app)))


@pytest.mark.parametrize("name", Root.branches)
def test_the_line_shown_of_a_branch_is_the_first_of_its_own_help(name: str) -> None:
    branch = Root.branches[name]
    command = branch.load(name)
    assert command.name == name
    assert isinstance(command, click.Group) is branch.is_group
    if not branch.hidden:
        assert command.get_short_help_str(limit=1_000) == branch.help


@pytest.mark.parametrize("path", ALL)
def test_help_fits_a_narrow_terminal_and_cuts_no_sentence(path: str) -> None:
    context = click.Context(ALL[path], info_name=path, **NARROW)  # type: ignore[arg-type]  # the widths are numbers
    text = ALL[path].get_help(context)
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.replace("NAME...", "").replace("N...", "").replace("ARG...", "").replace("[ARGS]...", "")


def test_every_flag_of_a_service_stands_in_a_section() -> None:
    assert all(flag.panel for flag in SERVICE_FLAGS)
    text = CliRunner().invoke(app, ["svc", "create", "--help"], prog_name="swarm").output
    assert (
        text.index("The service:")
        < text.index("Placement:")
        < text.index("Containers only:")
        < text.index("\nOptions:")
    )


@pytest.mark.parametrize("path", [path for path, command in ALL.items() if not isinstance(command, click.Group)])
def test_what_prints_objects_takes_format_and_quiet(path: str) -> None:
    silent = {"up", "join", "stop", "leave", "backup", "restore"}
    options = {option for param in ALL[path].params for option in param.opts}
    if path.split()[1] not in silent:
        assert "--format" in options
    if path.split()[1] not in silent and path.split()[-1] not in ("logs", "why"):
        assert "-q" in options


@pytest.mark.parametrize(("typed", "near"), [(["nod"], "'node'"), (["svc", "crate"], "'create'")])
def test_a_mistyped_command_names_those_that_are_close(typed: list[str], near: str) -> None:
    done = CliRunner().invoke(app, typed)
    assert done.exit_code == 2
    assert done.output.count("Did you mean") == 1
    assert near in done.output


def test_help_loads_no_branch() -> None:
    code = (
        "import sys; sys.argv = ['swarm', '--help']\nfrom swarm.__main__ import main\ntry: main()\nexcept SystemExit: pass\n"
        "print(sorted({'attrs', 'trio', 'swarm.commands.tree.services'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
