"""The interpreter as dpkg's database knows it, so that scanners, `dpkg -S` and `apt-get check` see what is there.

Law: pure but for reading contents from the store. It is a package by its own name, of Debian's source package of the
same line, at a version just below Debian's own of the same release: what Debian fixes by a patch is rightly missing
here. Source: deb-control(5), dpkg's `info/` files; for images without dpkg the `status.d/` that scanners read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from rootfs.ports import Store, read_content
from rootfs.tree import FileEntry, Kind, Tree, file

_STATUS = "var/lib/dpkg/status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the stanza says. `depends` are the packages of the libraries it loads; `architecture` is dpkg's word."""

    version: str
    variant: str
    architecture: str
    depends: tuple[str, ...]

    @property
    def line(self) -> str:
        """3.14."""
        return ".".join(self.version.split(".")[:2])

    @property
    def package(self) -> str:
        """The package's name."""
        return f"ocibuild-python{self.line}"


def registered(tree: Tree, below: Tree, said: Registration, store: Store) -> Tree:
    """The tree, with entries that make the dpkg database in `below` know its files; as it is when there is none."""
    size = sum(entry.size for entry in tree.values() if entry.kind is Kind.FILE)
    stanza = _stanza(said, size)
    sums = _sums(tree.values(), store)
    if _STATUS in below:
        status = read_content(store, below[_STATUS].content)
        info = f"var/lib/dpkg/info/{said.package}"
        listing = "".join(f"/{path}\n" for path in (".", *tree.with_parents()))
        added = [
            file(_STATUS, status.rstrip(b"\n") + b"\n\n" + stanza + b"\n"),
            file(f"{info}.list", listing.encode("utf-8", "surrogateescape")),
            file(f"{info}.md5sums", sums),
        ]
    elif f"{_STATUS}.d" in below:
        place = f"{_STATUS}.d/{said.package}"
        added = [file(place, stanza), file(f"{place}.md5sums", sums)]
    else:
        return tree
    return tree.with_entries(added)


def _stanza(said: Registration, size: int) -> bytes:
    fields = {
        "Package": said.package,
        "Status": "install ok installed",
        "Priority": "optional",
        "Section": "python",
        "Installed-Size": str((size + 1023) // 1024),
        "Maintainer": "ocibuild <ocibuild@localhost.invalid>",
        "Architecture": said.architecture,
        "Source": f"python{said.line}",
        "Version": f"{said.version.replace('rc', '~rc')}-0ocibuild",
        "Depends": ", ".join(said.depends),
        "Description": f"CPython {said.version} ({said.variant}) below /usr/local",
        "Homepage": "https://www.python.org/",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items()).encode()


def _sums(entries: Iterable[FileEntry], store: Store) -> bytes:
    lines = []
    for entry in sorted(entries, key=lambda entry: entry.path):
        if entry.kind is Kind.FILE:
            digest = hashlib.md5(read_content(store, entry.content), usedforsecurity=False)
            lines.append(f"{digest.hexdigest()}  {entry.path}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")
