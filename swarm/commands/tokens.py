"""`swarm token ...`: the secrets that let machines in."""

from __future__ import annotations

from swarm.commands import output
from swarm.commands.context import Context
from swarm.model.states import Role
from swarm.wire.messages.control import GetToken, TokenView


def show(context: Context, role: Role, rotate: bool) -> None:
    """A role's join token, with the command to type on the new machine."""
    view = context.ask(GetToken(role, rotate=rotate))
    if rotate:
        output.note("the old token is refused from now on; nodes that have joined stay")
    context.show(view, [view.token], lambda: output.print_lines(_instructions(role, view)))


def _instructions(role: Role, view: TokenView) -> list[str]:
    """A line to paste that shows the token in no process list: the environment of a process is its user's alone."""
    return [
        f"To add a {role.name.lower()} to this cluster, run there:",
        "",
        f"    SWARM_TOKEN={view.token} swarm join {view.address}",
    ]
