"""`swarm token ...`: the secrets that let machines in."""

from __future__ import annotations

from swarm.commands import output
from swarm.commands.context import Context
from swarm.model.states import Role
from swarm.wire.messages.control import GetToken


def show(context: Context, role: Role, rotate: bool) -> None:
    """A role's join token, with the command to type on the new machine."""
    view = context.ask(GetToken(role, rotate=rotate))
    if context.quiet:
        output.print_lines([view.token])
    elif context.json:
        output.print_json(view)
    else:
        if rotate:
            output.note("the old token is refused from now on; nodes that have joined stay")
        output.print_lines(
            [
                f"To add a {role.name.lower()} to this cluster, run there:",
                "",
                f"    swarm join {view.address} --token {view.token}",
            ]
        )
