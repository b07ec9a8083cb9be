"""Accounts: shadow passwords, as shadowconfig(8) turns them on, and system users, as adduser(8) makes them.

Law: handlers. Passwords are locked; the day they were "changed" is that of the epoch, not of a clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from rootfs.configure.root import Handler, Root
from rootfs.configure.script import Script
from rootfs.debian.version import Version
from rootfs.tree import FileEntry, file

_DAY = 86_400
_FIRST_SYSTEM_UID = 100
# shadow 4.20 knows no least age of a password any more
_NO_LEAST_AGE = Version.parse("1:4.20")


def add_system_user(name: str) -> Handler:
    """`adduser --system --no-create-home --home /nonexistent`: the first free number from 100, in nogroup."""

    def handler(root: Root, _script: Script) -> Iterable[FileEntry]:
        users = _records(root, "etc/passwd")
        if name not in (user[0] for user in users):
            taken = {int(user[2]) for user in users}
            uid = next(uid for uid in range(_FIRST_SYSTEM_UID, 1000) if uid not in taken)
            group = root.group("nogroup")
            users.append([name, "*", str(uid), str(group), "", "/nonexistent", "/usr/sbin/nologin"])
            yield file("etc/passwd", _text(users))

    return handler


def hide_passwords(root: Root, script: Script) -> Iterable[FileEntry]:
    """/etc/passwd and /etc/group refer to /etc/shadow and /etc/gshadow, which only the group shadow reads."""
    shadow = root.group("shadow")
    changed = root.epoch // _DAY
    users, groups = _records(root, "etc/passwd"), _records(root, "etc/group")
    yield file("etc/passwd", _text([name, "x", *rest] for name, _, *rest in users))
    yield file("etc/group", _text([name, "x", *rest] for name, _, *rest in groups))
    least = "" if script.version and Version.parse(script.version) >= _NO_LEAST_AGE else "0"
    fields = [str(changed), least, "99999", "7", "", "", ""]
    yield file("etc/shadow", _text([name, "*", *fields] for name, *_ in users), 0o640, gid=shadow)
    yield file("etc/gshadow", _text([name, "*", "", ""] for name, *_ in groups), 0o640, gid=shadow)


def _records(root: Root, path: str) -> list[list[str]]:
    return [line.split(":") for line in root.read(path).decode().splitlines()]


def _text(records: Iterable[list[str]]) -> bytes:
    return "".join(":".join(record) + "\n" for record in records).encode()
