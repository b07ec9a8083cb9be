"""Files that a script copies from elsewhere in the package, writes from its own text, or creates empty.

Law: makers of handlers; each says in its arguments all that it does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rootfs.configure.root import Handler, Root
from rootfs.configure.script import TRIPLET, Script
from rootfs.tree import FileEntry, Kind, directory, file, symlink


def copy(source: str, target: str) -> Handler:
    """`cp -p` unless the target is there (the scripts' `install_from_default`)."""

    def handler(root: Root, _script: Script) -> Iterable[FileEntry]:
        entry = root.follow(source)
        if entry is not None and entry.kind is Kind.FILE and target not in root.tree:
            yield replace(entry, path=target)

    return handler


def write(*targets: str) -> Handler:
    """The script's first here-documents, in order, to these files unless they are there."""

    def handler(root: Root, script: Script) -> Iterable[FileEntry]:
        for target, text in zip(targets, script.heredocs(), strict=False):
            if target not in root.tree:
                yield file(target, text.encode())

    return handler


def touch(target: str, mode: int = 0o644) -> Handler:
    """An empty file unless it is there."""

    def handler(root: Root, _script: Script) -> Iterable[FileEntry]:
        if target not in root.tree:
            yield file(target, b"", mode)

    return handler


def line(target: str, text: str) -> Handler:
    """A file of one line, in place of whatever is there."""
    return lambda _root, _script: [file(target, f"{text}\n".encode())]


def native_architecture(target: str) -> Handler:
    """A file with Debian's name of the tree's architecture."""
    return lambda root, _script: [file(target, f"{root.architecture.debian}\n".encode())]


def link(path: str, target: str) -> Handler:
    """A symbolic link in place of whatever is there; TRIPLET in its path is the architecture's."""
    return lambda root, _script: [symlink(path.replace(TRIPLET, root.architecture.triplet), target)]


def link_if_missing(path: str, target: str) -> Handler:
    """A symbolic link, unless the path leads to something."""
    return lambda root, _script: [symlink(path, target)] if root.follow(path) is None else []


def make_directory(path: str, mode: int = 0o755) -> Handler:
    """A directory owned by root, unless it is there."""

    def handler(root: Root, _script: Script) -> Iterable[FileEntry]:
        if path not in root.tree:
            yield directory(path, mode)

    return handler
