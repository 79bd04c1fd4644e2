"""The supervising shell of a process task: a POSIX script of builtins only, so that it costs a few hundred kilobytes.

Its one idea: an agent may die at any moment, so the exit code is collected by a parent that does not: a shell, leader of
the task's own session, that runs the command as its child, survives every signal that the command's group gets, and
appends what happened to the task's record (descriptor 8), one line a `write`. The record's lines are read by `record`.

The script never execs a tool, writes no file but the record, and keeps no descriptor open in the command.
"""

from __future__ import annotations

from attrs import frozen

SHELL = "/bin/sh"
RECORD_FD = 8
"""Where the script finds the record; dash knows one-digit descriptors only."""
STAGE_NAME = "swarm-task"
PRIVATE_PREFIX = "SWARM__"
"""Of the script's own variables."""

# The command is a subshell in the foreground: in the background, POSIX shells ignore SIGINT and SIGQUIT in it for good.
# Variables carry a prefix and are unset, because a shell exports what it imported from the command's environment.
# The compound around `exec` makes the shell keep 8 under a number that closes by itself when the exec succeeds, and is
# there for the EXIT trap when it fails. (bash as /bin/sh runs no trap then: there the exit code alone tells.)
SCRIPT = """\
exec 9>&2 2>/dev/null
trap : $1
cd /
read -r SWARM__LINE </proc/$$/stat
printf 'shell %s\\n' "$SWARM__LINE" >&8
(
  trap 'printf "failed %s\\n" "$?" >&8' EXIT
  exec 2>&9
  cd -- "$2" || exit 126
  [ -z "$3" ] || ulimit -d "$3" || exit 126
  SWARM__KEEP=$4 SWARM__LEFT=$5
  shift 5
  while [ "$SWARM__LEFT" -gt 0 ]; do
    echo 0 >"$1" || exit 126
    shift
    SWARM__LEFT=$((SWARM__LEFT - 1))
  done
  read -r SWARM__LINE </proc/self/stat
  printf 'child %s\\n' "$SWARM__LINE" >&8
  [ -z "$SWARM__KEEP" ] || exec "$@" 9>&-
  unset SWARM__LINE SWARM__LEFT SWARM__KEEP
  { exec "$@"; } 8>&- 9>&-
)
printf 'exit %s\\n' "$?" >&8
"""

# Runs between the shell and the command when the command has another user: what no portable shell builtin can do.
# Python ignores two signals, which the command must not inherit.
SWITCH_USER = f"""\
import os, signal, sys
user, group, groups, program = sys.argv[1:5]
try:
    os.set_inheritable({RECORD_FD}, False)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.setgroups([int(number) for number in groups.split(",") if number])
    os.setgid(int(group))
    os.setuid(int(user))
    os.execv(program, sys.argv[4:])
except OSError as error:
    code = 127 if error.errno == 2 else 126
    os.write({RECORD_FD}, f"failed {{code}} {{error.strerror}}\\n".encode())
    sys.exit(code)
"""


@frozen
class Stage:
    """What the shell is told: where to run, under which limits, and the command with a program that is found already."""

    command: tuple[str, ...]
    directory: str
    data_limit_bytes: int = 0
    """RLIMIT_DATA of every process of the task; 0 is none."""
    control_groups: tuple[str, ...] = ()
    """`cgroup.procs` files that the command joins before it starts."""
    switch_user: tuple[str, ...] = ()
    """Program and arguments that change the user and then exec the command; empty: the shell's own user."""

    def arguments(self, signals: tuple[int, ...]) -> tuple[str, ...]:
        """The whole command line of the shell, which survives `signals`."""
        limit_kib = str(max(1, self.data_limit_bytes // 1024)) if self.data_limit_bytes else ""
        numbers = " ".join(map(str, signals))
        keep = "1" if self.switch_user else ""
        head = (
            SHELL,
            "-c",
            SCRIPT,
            STAGE_NAME,
            numbers,
            self.directory,
            limit_kib,
            keep,
            str(len(self.control_groups)),
        )
        return (*head, *self.control_groups, *self.switch_user, *self.command)


def is_not_yet_the_command(command_line: bytes) -> bool:
    """Whether a child's command line (NUL-separated) is still the shell's or the user switch's, before the exec."""
    return SCRIPT.encode() in command_line or SWITCH_USER.encode() in command_line
