"""Shells: /etc/shells from the lists in packages, as debianutils' update-shells(8) makes it the first time.

Law: one handler; the order is the template's, then that of the names in shells.d; every shell also under its real path.
"""

from __future__ import annotations

from collections.abc import Iterable

from rootfs.configure.root import Root
from rootfs.configure.script import Script
from rootfs.tree import FileEntry, file

_TEMPLATE = "usr/share/debianutils/shells"
_LISTS = "usr/share/debianutils/shells.d"


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
    yield file("etc/shells", (template + added).encode())
    yield file("var/lib/shells.state", "".join(f"{shell}\n" for shell in shells).encode())
