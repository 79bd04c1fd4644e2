"""How the tree is shown and loaded: branches that are imported when they are typed, help in sections, in 80 columns.

Making one command from its signature costs half a millisecond, importing what it needs more; a person who types
`swarm node ls` pays for the branch `node` only, and `swarm --help` for none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import click
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

PANEL_DEFAULT = "Options"
"""The section of options that name none; it stands last."""


class Branch(NamedTuple):
    """A command, or a group of them, in a module with a Typer `app`; `help` is the line that the tree shows of it.

    A tuple and no attrs class: attrs would be a fourth of what `swarm --help` loads.
    """

    module: str
    help: str
    is_group: bool = False
    hidden: bool = False

    def load(self, name: str) -> click.Command:
        """The command itself."""
        group = get_group(import_module(self.module).app)
        if not self.is_group:
            return group.commands[name]
        group.name = name
        return group


class PanelCommand(TyperCommand):
    """A command whose options are shown in sections (`rich_help_panel` of `typer.Option`), in the order in which they come."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Arguments, then each section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                is_argument = param.param_type_name == "argument"
                panel = "Arguments" if is_argument else getattr(param, "rich_help_panel", None) or PANEL_DEFAULT
                sections.setdefault(panel, []).append(record)
        last = [PANEL_DEFAULT] if PANEL_DEFAULT in sections else []
        for panel in [*(panel for panel in sections if panel != PANEL_DEFAULT), *last]:
            with formatter.section(panel):
                formatter.write_dl(sections[panel])


class WholeLinesGroup(TyperGroup):
    """A group that shows the whole first sentence of each command, wrapped where the terminal ends."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The section `Commands`."""
        rows = list(self.help_lines(ctx))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def help_lines(self, ctx: click.Context) -> Iterator[tuple[str, str]]:
        """Each command that is shown, with its line."""
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                yield name, command.get_short_help_str(limit=1_000)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was typed; a name that is not known gets the names that are close to it."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = get_close_matches(args[0], self.list_commands(ctx))
            hint = f" Did you mean {', '.join(repr(name) for name in near)}?" if near else ""
            ctx.fail(f"no such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


class LazyGroup(WholeLinesGroup):
    """A group whose commands are `branches`, each loaded when it is needed."""

    branches: ClassVar[Mapping[str, Branch]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names that are shown, in the order of the table."""
        return [name for name, branch in self.branches.items() if not branch.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, None for one that is not known."""
        branch = self.branches.get(cmd_name)
        return None if branch is None else branch.load(cmd_name)

    def help_lines(self, ctx: click.Context) -> Iterator[tuple[str, str]]:
        """From the table, so that nothing is loaded."""
        return ((name, self.branches[name].help) for name in self.list_commands(ctx))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was typed; Ctrl-C where the command itself has nothing to say about it has a code of its own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            from swarm.commands.context import Exit
            from swarm.commands.output import note

            note("interrupted; a change that was under way may have been made")
            raise SystemExit(int(Exit.INTERRUPTED)) from None
