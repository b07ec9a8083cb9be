"""Shells: /etc/shells, as debianutils' update-shells(8) makes it from lists the first time, or add-shell(8) in turn.

Law: handlers. update-shells' order is the template's, then that of the names in shells.d; every shell also under its
real path.
"""

from __future__ import annotations

from collections.abc import Iterable

from rootfs.configure.root import Handler, Root
from rootfs.configure.script import Script
from rootfs.tree import FileEntry, file

_TEMPLATE = "usr/share/debianutils/shells"
_LISTS = "usr/share/debianutils/shells.d"
_SHELLS = "etc/shells"


def list_shells(root: Root, _script: Script) -> Iterable[FileEntry]:
    """/etc/shells and the state file that lets update-shells tell an administrator's changes."""
    template = root.read(_TEMPLATE).decode()
    shells: dict[str, None] = {}
    for path in (_TEMPLATE, *(f"{_LISTS}/{name}" for name in root.names(_LISTS))):
        for line in root.read(path).decode().splitlines():
            shell = line.partition("#")[0]
            if shell:
                shells[shell] = None
                shells["/" + root.tree.resolve(shell)] = None
    listed = {line.partition("#")[0] for line in template.splitlines()}
    added = "".join(f"{shell}\n" for shell in shells if shell not in listed)
    yield file(_SHELLS, (template + added).encode())
    yield file("var/lib/shells.state", "".join(f"{shell}\n" for shell in shells).encode())


def shells_in_usr_last(root: Root, _script: Script) -> Iterable[FileEntry]:
    """usrmerge converts a tree whose shells were listed before, so that those in /usr come after all the others."""
    lines = root.read(_SHELLS).decode().splitlines(keepends=True)
    yield file(_SHELLS, "".join(sorted(lines, key=lambda line: line.startswith("/usr/"))).encode())


def add_shells(*shells: str) -> Handler:
    """`add-shell`: the shells that are not listed yet, at the end. Without debianutils' list there is nothing to do."""

    def handler(root: Root, _script: Script) -> Iterable[FileEntry]:
        if _SHELLS in root.tree:
            lines = root.read(_SHELLS).decode().splitlines()
            lines += [shell for shell in shells if shell not in lines]
            yield file(_SHELLS, "".join(f"{line}\n" for line in lines).encode())

    return handler
