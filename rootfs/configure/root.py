"""Root: what a handler may look at, and the type of a handler.

Law: read-only. A handler is a function of a Root and of the maintainer script it stands for; it yields the entries
that are added or put in place of others, and has no other effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rootfs.architecture import Architecture
from rootfs.configure.script import Script
from rootfs.errors import BuildError
from rootfs.ports import Store, read_content
from rootfs.tree import FileEntry, Kind, Slice, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The tree so far, where contents lie, and the facts a handler may depend on.

    `epoch` is in seconds. Paths are relative, as everywhere in a Tree; reading follows symlinks inside the tree.
    """

    tree: Tree
    store: Store
    epoch: int
    architecture: Architecture

    def follow(self, path: str) -> FileEntry | None:
        """The entry a path leads to, symlinks and hard links followed; None when there is none."""
        for _ in range(40):
            entry = self.tree.get(self.tree.resolve(path))
            if entry is None or entry.kind not in (Kind.SYMLINK, Kind.HARDLINK):
                return entry
            absolute = entry.kind is Kind.HARDLINK or entry.link.startswith("/")
            path = entry.link if absolute else f"{entry.path.rpartition('/')[0]}/{entry.link}"
        return None

    def read(self, path: str) -> bytes:
        """A file's content; BuildError when there is no such file."""
        entry = self.follow(path)
        if entry is None or entry.kind is not Kind.FILE:
            raise BuildError("a file that configuring needs is not in the tree", at=f"/{path}")
        return self.content(entry)

    def content(self, entry: FileEntry) -> bytes:
        """A file entry's bytes."""
        return read_content(self.store, entry.content)

    @contextmanager
    def reading(self, entry: FileEntry) -> Iterator[Callable[[int, int], bytes]]:
        """Pieces of a file entry's bytes, by offset and size; shorter where it ends."""
        content = entry.content
        if not isinstance(content, Slice):
            yield lambda at, size: content[at : at + size]
            return
        with self.store.open(content.blob) as stream:

            def read(at: int, size: int) -> bytes:
                at = min(at, content.size)
                stream.seek(content.offset + at)
                return stream.read(min(size, content.size - at))

            yield read

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted by their bytes; empty when there is no such directory."""
        start = self.tree.resolve(f"{path}/.") + "/"
        found = (e.path[len(start) :] for e in self.tree.below(start[:-1]))
        return sorted((name for name in found if "/" not in name), key=lambda name: name.encode("utf-8", "replace"))

    def group(self, name: str) -> int:
        """A group's number, from /etc/group; BuildError when it is not there."""
        for line in self.read("etc/group").decode().splitlines():
            fields = line.split(":")
            if fields[0] == name:
                return int(fields[2])
        raise BuildError(f"no group {name} in /etc/group")


Handler = Callable[[Root, Script], Iterable[FileEntry]]
