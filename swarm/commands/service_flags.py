"""The flags of `svc create` and `svc update`, in one table: both commands take their parameters from here.

Typer reads a command's parameters from its signature; `with_flags` writes the table's flags into it, so that a flag stands
in one place with its type and its help. What the flags mean for a spec is in `service_spec.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum, Flag, auto
from typing import Annotated, Any

import typer
from attrs import evolve, frozen


class On(Flag):
    """Which command takes a flag."""

    CREATE = auto()
    UPDATE = auto()
    BOTH = CREATE | UPDATE


class Takes(Enum):
    """What follows a flag."""

    TEXT = auto()
    NUMBER = auto()
    MANY = auto()
    SWITCH = auto()


@frozen
class ServiceFlag:
    """One flag: its spelling, what follows it, its help, the commands that take it, short spelling, help panel."""

    name: str
    takes: Takes
    help: str
    on: On = On.BOTH
    short: str = ""
    panel: str = ""

    @property
    def key(self) -> str:
        """The name under which its value reaches a command: `reserve_cpu`."""
        return self.name.removeprefix("--").replace("-", "_")


def _list(name: str, help: str, short: str = "") -> tuple[ServiceFlag, ...]:
    """A list's three flags: `--NAME` on create, `--NAME-add` and `--NAME-rm` on update."""
    return (
        ServiceFlag(name, Takes.MANY, f"{help} (repeatable)", On.CREATE, short),
        ServiceFlag(f"{name}-add", Takes.MANY, f"Add or replace: {help} (repeatable)", On.UPDATE),
        ServiceFlag(f"{name}-rm", Takes.MANY, f"Remove by name: {help} (repeatable)", On.UPDATE),
    )


def _update_config(prefix: str, what: str, actions: str) -> tuple[ServiceFlag, ...]:
    return (
        ServiceFlag(f"--{prefix}-parallelism", Takes.NUMBER, f"Tasks {what} at a time; 0: all at once (default 1)"),
        ServiceFlag(f"--{prefix}-delay", Takes.TEXT, f"Wait between tasks {what} (default 0s)"),
        ServiceFlag(f"--{prefix}-monitor", Takes.TEXT, "How long a new task is watched for failure (default 5s)"),
        ServiceFlag(f"--{prefix}-max-failure-ratio", Takes.TEXT, "Share of new tasks that may fail (default 0)"),
        ServiceFlag(f"--{prefix}-failure-action", Takes.TEXT, f"On too many failures: {actions} (default pause)"),
        ServiceFlag(f"--{prefix}-order", Takes.TEXT, "stop-first (default) or start-first"),
    )


def _panel(title: str, *flags: ServiceFlag) -> tuple[ServiceFlag, ...]:
    """Flags that stand together in the help."""
    return tuple(evolve(flag, panel=title) for flag in flags)


SERVICE_FLAGS: tuple[ServiceFlag, ...] = (
    *_panel(
        "The service",
        ServiceFlag("--name", Takes.TEXT, "The service's name (required)", On.CREATE),
        ServiceFlag("--mode", Takes.TEXT, "replicated (default), global, replicated-job or global-job", On.CREATE),
        ServiceFlag("--replicas", Takes.NUMBER, "How many tasks (replicated; for a job: completions)"),
        ServiceFlag("--max-concurrent", Takes.NUMBER, "How many of a job's tasks may run at once"),
        *_list("--label", "Label of the service, NAME=VALUE", "-l"),
    ),
    *_panel(
        "What it runs",
        ServiceFlag("--image", Takes.TEXT, "Container image; without it the service runs a plain process"),
        ServiceFlag("--args", Takes.TEXT, "New command and arguments (one text, split as a shell does)", On.UPDATE),
        *_list("--env", "Environment variable, NAME=VALUE", "-e"),
        ServiceFlag("--workdir", Takes.TEXT, "Working directory", short="-w"),
        ServiceFlag("--user", Takes.TEXT, "User (and group) to run as: NAME, UID or UID:GID", short="-u"),
        *_list("--publish", "Port published on the task's node, PUBLISHED:TARGET[/PROTOCOL]", "-p"),
        ServiceFlag("--stop-signal", Takes.TEXT, "Signal that stops a task (default SIGTERM)"),
        ServiceFlag("--stop-grace-period", Takes.TEXT, "Time between the stop signal and the kill (default 10s)"),
    ),
    *_panel(
        "Resources",
        ServiceFlag("--reserve-cpu", Takes.TEXT, "Cores kept free for each task: 0.5"),
        ServiceFlag("--reserve-memory", Takes.TEXT, "Memory kept free for each task: 512m"),
        ServiceFlag("--limit-cpu", Takes.TEXT, "Cores that each task may use: 0.5"),
        ServiceFlag("--limit-memory", Takes.TEXT, "Memory that each task may use: 512m"),
        ServiceFlag("--limit-pids", Takes.NUMBER, "Processes that each task may have; 0: no limit"),
        *_list("--generic-resource", "Amount of a node's own resource, KIND=AMOUNT"),
    ),
    *_panel(
        "Placement",
        *_list("--constraint", "Where tasks may run, as in node.labels.zone==a"),
        *_list("--placement-pref", "Spread over a label, spread=node.labels.zone"),
        *_list("--platform", "Where tasks may run, OS/ARCHITECTURE"),
        ServiceFlag("--replicas-max-per-node", Takes.NUMBER, "Tasks of the service on one node; 0: no limit"),
    ),
    *_panel(
        "Restarts",
        ServiceFlag("--restart-condition", Takes.TEXT, "any (default), on-failure or none"),
        ServiceFlag("--restart-delay", Takes.TEXT, "Wait before a replacement starts (default 5s)"),
        ServiceFlag("--restart-max-attempts", Takes.NUMBER, "Replacements of a task before giving up; 0: no limit"),
        ServiceFlag("--restart-window", Takes.TEXT, "Time in which attempts are counted; 0: all"),
        ServiceFlag(
            "--replace-after",
            Takes.TEXT,
            "How long a node may be unreachable before its tasks are replaced, or default",
        ),
    ),
    *_panel(
        "Updates",
        *_update_config("update", "updated", "pause, continue or rollback"),
        ServiceFlag("--force", Takes.SWITCH, "Replace all tasks even when nothing changed", On.UPDATE),
    ),
    *_panel(
        "Rollbacks",
        *_update_config("rollback", "rolled back", "pause or continue"),
    ),
    *_panel(
        "Containers only",
        ServiceFlag("--entrypoint", Takes.TEXT, "Replaces the image's entrypoint (one text, split as a shell does)"),
        ServiceFlag("--hostname", Takes.TEXT, "A container's hostname"),
        *_list("--group", "Further group of a container's user"),
        *_list("--container-label", "Label of the containers, NAME=VALUE"),
        *_list("--mount", "Mount, type=bind,source=/srv,target=/data[,readonly]; or type volume, tmpfs"),
        ServiceFlag("--network", Takes.TEXT, "A container's network: default or host"),
        *_list("--host", "Line of a container's hosts file, NAME:IP"),
        ServiceFlag("--tty", Takes.SWITCH, "Give the container a terminal", short="-t"),
        ServiceFlag("--read-only", Takes.SWITCH, "Mount the container's root file system read-only"),
        ServiceFlag("--init", Takes.SWITCH, "Run an init process in each container"),
        ServiceFlag("--cap-add", Takes.MANY, "Capability to add to a container (repeatable)"),
        ServiceFlag("--cap-drop", Takes.MANY, "Capability to take from a container (repeatable)"),
        *_list("--sysctl", "Kernel parameter of a container, NAME=VALUE"),
        *_list("--ulimit", "Limit of a container, NAME=SOFT[:HARD]"),
        ServiceFlag("--log-driver", Takes.TEXT, "A container's log driver"),
        *_list("--log-opt", "Option of the log driver, NAME=VALUE"),
        ServiceFlag("--registry-auth", Takes.TEXT, "Registry credentials for the pull: @FILE, or - for standard input"),
    ),
    *_panel(
        "Health of containers",
        ServiceFlag("--health-cmd", Takes.TEXT, "Command that tells whether a container is healthy"),
        ServiceFlag("--health-interval", Takes.TEXT, "Time between two checks"),
        ServiceFlag("--health-timeout", Takes.TEXT, "Time that one check may take"),
        ServiceFlag("--health-retries", Takes.NUMBER, "Failures in a row that make it unhealthy"),
        ServiceFlag("--health-start-period", Takes.TEXT, "Time in which failures do not count"),
        ServiceFlag("--no-healthcheck", Takes.SWITCH, "Ignore the image's own health check"),
    ),
)

_TYPES: dict[Takes, Any] = {Takes.TEXT: str, Takes.NUMBER: int, Takes.MANY: list[str], Takes.SWITCH: bool}


def with_flags(command: On) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give the decorated command the table's flags; it gets those that were typed as `flags: dict[str, Any]`.

    A flag that was not typed is absent from the mapping, so that "not given" and "given as 0" stay apart.
    """
    chosen = [flag for flag in SERVICE_FLAGS if command in flag.on]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "flags"]
        parameters = own + [_parameter(flag) for flag in chosen]

        def run(**values: Any) -> None:
            typed = {flag.key: values.pop(flag.key) for flag in chosen}
            flags = {key: value for key, value in typed.items() if value is not None and value != []}
            function(**values, flags=flags)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameter(flag: ServiceFlag) -> inspect.Parameter:
    spellings = [flag.name, *([flag.short] if flag.short else [])]
    if flag.takes is Takes.SWITCH and flag.on is On.BOTH:
        bare = flag.name.removeprefix("--")
        opposite = bare.removeprefix("no-") if bare.startswith("no-") else f"no-{bare}"
        spellings[0] = f"{flag.name}/--{opposite}"
    kind: Any = _TYPES[flag.takes] | None
    option = typer.Option(*spellings, help=flag.help, rich_help_panel=flag.panel)
    annotation = Annotated.__class_getitem__((kind, option))  # type: ignore[attr-defined]  # made at run time
    return inspect.Parameter(flag.key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
