"""A process task's record: what its supervising shell and the agents before us wrote of it. Pure: bytes to facts.

The file is only ever appended to, a whole line at a time, so a torn last line is a line that was not written. Lines:

    boot <boot id>            by the agent, before the shell starts; the last one counts
    shell <stat line>         the shell, as /proc/PID/stat shows it
    child <stat line>         the command, just before its exec
    failed <code> [text]      the command could not be executed
    exit <code>               the command ended; the file's time says when
"""

from __future__ import annotations

from attrs import frozen

from swarm.executors.base import Exit
from swarm.ports.processes import ProcessId, parse_stat

EXIT_CODE_NOT_FOUND = 127
EXIT_CODE_NOT_EXECUTABLE = 126


@frozen
class TaskRecord:
    """How far a task got, as far as its record tells."""

    boot: str = ""
    shell: ProcessId | None = None
    child: ProcessId | None = None
    failure: str = ""
    """Why the command could not be executed, in words."""
    exit_code: int | None = None

    @property
    def was_started(self) -> bool:
        """Whether a shell was started for it once; then it is never started again."""
        return self.shell is not None

    def runs_in(self, boot: str) -> ProcessId | None:
        """Its shell, if it was started in this boot: it may run, and its pid means something."""
        return self.shell if self.boot == boot else None

    def ending(self, boot: str) -> Exit:
        """How a task ended whose shell no longer runs, seen in this boot."""
        if self.exit_code is not None:
            return Exit(self.exit_code, self.failure or describe_exit(self.exit_code))
        if not self.was_started:
            return Exit(None, "it was never started")
        if self.boot != boot:
            return Exit(None, "the machine was restarted")
        return Exit(None, "the shell that watched over it was killed, so its exit code is not known")


def parse_record(data: bytes) -> TaskRecord:
    """The facts in a record's bytes; lines that make no sense (torn, from a newer version) say nothing."""
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\n")[:-1]:
        key, _, value = line.partition(" ")
        if key == "boot" or key not in values:
            values[key] = value
    exit_text = values.get("exit", "")
    return TaskRecord(
        boot=values.get("boot", ""),
        shell=_process(values.get("shell", "")),
        child=_process(values.get("child", "")),
        failure=_failure(values["failed"]) if "failed" in values else "",
        exit_code=int(exit_text) if exit_text.isdecimal() else None,
    )


def describe_exit(code: int) -> str:
    """What an exit code tells beyond its number; empty for an ordinary one."""
    if code == EXIT_CODE_NOT_FOUND:
        return "a command was not found"
    if code == EXIT_CODE_NOT_EXECUTABLE:
        return "a command could not be executed"
    if code == 128 + 9:
        return "killed (SIGKILL)"
    return ""


def _failure(value: str) -> str:
    code, _, text = value.partition(" ")
    if text:
        return text
    if code == str(EXIT_CODE_NOT_FOUND):
        return "it was not found, or the interpreter that its first line names was not"
    return "it is not an executable program, or permission was denied"


def _process(text: str) -> ProcessId | None:
    try:
        return parse_stat(text).id
    except ValueError:
        return None
