"""Accounts: shadow passwords, as shadowconfig(8) turns them on.

Law: one handler. Passwords are locked; the day they were "changed" is that of the epoch, not of a clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from rootfs.configure.root import Root
from rootfs.configure.script import Script
from rootfs.tree import FileEntry, file

_DAY = 86_400


def hide_passwords(root: Root, _script: Script) -> Iterable[FileEntry]:
    """/etc/passwd and /etc/group refer to /etc/shadow and /etc/gshadow, which only the group shadow reads."""
    shadow = root.group("shadow")
    changed = root.epoch // _DAY
    users, groups = _records(root, "etc/passwd"), _records(root, "etc/group")
    yield file("etc/passwd", _text([name, "x", *rest] for name, _, *rest in users))
    yield file("etc/group", _text([name, "x", *rest] for name, _, *rest in groups))
    fields = [str(changed), "0", "99999", "7", "", "", ""]
    yield file("etc/shadow", _text([name, "*", *fields] for name, *_ in users), 0o640, gid=shadow)
    yield file("etc/gshadow", _text([name, "*", "", ""] for name, *_ in groups), 0o640, gid=shadow)


def _records(root: Root, path: str) -> list[list[str]]:
    return [line.split(":") for line in root.read(path).decode().splitlines()]


def _text(records: Iterable[list[str]]) -> bytes:
    return "".join(":".join(record) + "\n" for record in records).encode()
