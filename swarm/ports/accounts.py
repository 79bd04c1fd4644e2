"""The machine's user accounts: who a name is, and whether this process may become them."""

from __future__ import annotations

import grp
import os
import pwd

from attrs import frozen


@frozen
class Account:
    """A user to run as: numbers, supplementary groups, and what the password file says of them."""

    user_id: int
    group_id: int
    groups: tuple[int, ...] = ()
    name: str = ""
    home: str = "/"
    shell: str = "/bin/sh"


class AccountError(ValueError):
    """No such user or group, in words for whoever named it."""


def current() -> Account:
    """Whom this process runs as."""
    return _from_password_file(str(os.getuid()), missing_is_error=False)


def may_become_others() -> bool:
    """Whether this process may start others under any account (root)."""
    return os.geteuid() == 0


def find(text: str) -> Account:
    """The account of `user`, `user:group`, by names or numbers; raises `AccountError`.

    A number without an entry in the password file needs a group beside it, because nothing tells its group.
    """
    user, _, group = text.partition(":")
    if not user:
        raise AccountError(f"user {text!r} names no user: write NAME, UID, NAME:GROUP or UID:GID")
    account = _from_password_file(user, missing_is_error=not (user.isdecimal() and group))
    if not group:
        return account
    group_id = _group(group)
    groups = account.groups if account.name else ()
    return Account(account.user_id, group_id, tuple({*groups, group_id}), account.name, account.home, account.shell)


def _from_password_file(user: str, *, missing_is_error: bool) -> Account:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if missing_is_error and user.isdecimal():
            raise AccountError(f"user {user} is not known on this machine; give its group too, as {user}:GID") from None
        if missing_is_error:
            raise AccountError(f"user {user!r} does not exist on this machine") from None
        return Account(int(user), os.getgid(), ())
    groups = tuple(sorted(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    return Account(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir, entry.pw_shell or "/bin/sh")


def _group(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise AccountError(f"group {group!r} does not exist on this machine") from None
