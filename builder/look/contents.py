"""Contents: what an image holds, path by path, layer by layer and package by package, as JSON and as text.

Law: tells what listings say (`builder.look.listed`); unpacks nothing, judges nothing. Sizes are bytes.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from builder.images import ReadImage
from builder.look.installed import Installed, installed
from builder.look.listed import listed_tree, listings
from builder.look.tables import shown, table
from builder.oci.listing import Listing
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.tree import FileEntry, Kind, Tree

_TYPES: Mapping[Kind, str] = {
    Kind.FILE: "-",
    Kind.DIRECTORY: "d",
    Kind.SYMLINK: "l",
    Kind.HARDLINK: "h",
    Kind.CHARACTER: "c",
    Kind.BLOCK: "b",
    Kind.FIFO: "p",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContents:
    """A layer by its number, from 1: entries that are no directory and bytes of their contents; how many of its paths
    take the place of one below; its whiteouts, opaque directories among them; bytes of contents that the image does
    not show in the end.
    """

    layer: int
    diff_id: str
    files: int
    size: int
    replaces: int
    whiteouts: int
    hidden: int

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What was asked for; None for what was not. A file comes with the number of the layer it is from, from 1."""

    layers: tuple[LayerContents, ...] | None
    packages: Installed | None
    files: tuple[tuple[int, FileEntry], ...] | None

    def to_value(self) -> dict[str, Any]:
        """The members to add to an inspected image's JSON value (docs/reference/inspect.md)."""
        value: dict[str, Any] = {}
        if self.layers is not None:
            value["layer_contents"] = [layer.to_value() for layer in self.layers]
        if self.packages is not None:
            value["packages"] = [
                {"name": one.name, "version": one.version, "architecture": one.architecture, "size": one.size}
                for one in self.packages.packages.values()
            ]
            value["pythons"] = dict(self.packages.pythons)
            value["distributions"] = dict(self.packages.distributions)
        if self.files is not None:
            value["files"] = [_file_value(number, entry) for number, entry in self.files]
        return value

    def render(self) -> str:
        """The text for people."""
        text = ""
        if self.layers is not None:
            header = ("layer", "files", "bytes", "replaces", "whiteouts", "of it not seen")
            rows = [
                (
                    str(one.layer),
                    *(f"{value:,}" for value in (one.files, one.size, one.replaces, one.whiteouts, one.hidden)),
                )
                for one in self.layers
            ]
            text += f"\n== Layers\n{table(header, rows)}"
        if self.packages is not None:
            text += _packages(self.packages)
        if self.files is not None:
            rows = [_file_row(number, entry) for number, entry in self.files]
            text += f"\n== Files\n{table(('mode', 'owner', 'bytes', 'layer', 'path'), rows, left=(0, 1, 4))}"
        return text


def contents(image: ReadImage, tools: Tools, *, layers: bool, packages: bool, files: str | None) -> Contents:
    """Look into an image's layers; `files` is a pattern of paths (`*` for any text, also with slashes)."""
    known = listings([image], tools)
    numbers = [number for number, one in enumerate(image.manifest.layers, 1) if one.digest not in image.absent]
    ordered = [(number, known[diff_id]) for number, (_, diff_id) in zip(numbers, image.layers, strict=True)]
    tree = listed_tree(image, known)
    environment = dict(pair.split("=", 1) for pair in image.config.env)
    return Contents(
        layers=tuple(_layers(ordered, listed_tree(image, known, placed=True))) if layers else None,
        packages=installed(tree, tools.store, environment) if packages else None,
        files=None if files is None else tuple(_files(ordered, tree, files)),
    )


def _layers(ordered: list[tuple[int, Listing]], tree: Tree) -> Iterator[LayerContents]:
    """A row for each layer; `tree` says which contents are seen in the end."""
    seen = {entry.content for entry in tree.values() if not isinstance(entry.content, bytes)}
    before: set[str] = set()
    for number, one in ordered:
        members = list(one.members(placed=True))
        entries = [member.entry for member in members if member.entry]
        yield LayerContents(
            layer=number,
            diff_id=one.diff_id,
            files=sum(entry.kind is not Kind.DIRECTORY for entry in entries),
            size=sum(entry.size for entry in entries),
            replaces=sum(entry.path in before and entry.kind is not Kind.DIRECTORY for entry in entries),
            whiteouts=len(members) - len(entries),
            hidden=sum(entry.size for entry in entries if entry.size and entry.content not in seen),
        )
        before.update(entry.path for entry in entries)


def _files(ordered: list[tuple[int, Listing]], tree: Tree, pattern: str) -> Iterator[tuple[int, FileEntry]]:
    """The entries that fit, each with the highest layer that has its path."""
    fits = re.compile(fnmatch.translate(pattern.lstrip("/")))
    numbers = {member.entry.path: number for number, one in ordered for member in one.members() if member.entry}
    return ((numbers[path], entry) for path, entry in tree.items() if fits.match(path))


def _file_value(number: int, entry: FileEntry) -> dict[str, Any]:
    value: dict[str, Any] = {
        "path": entry.path,
        "kind": entry.kind.value,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": entry.mtime,
        "size": entry.size,
        "layer": number,
    }
    if entry.size:
        content = entry.content
        value["digest"] = str(Digest.of(content) if isinstance(content, bytes) else content.blob)
    if entry.link:
        value["link"] = entry.link
    if entry.xattrs:
        value["xattrs"] = {name: data.hex() for name, data in entry.xattrs}
    return value


def _file_row(number: int, entry: FileEntry) -> tuple[str, ...]:
    path = f"{shown(entry.path)} -> {shown(entry.link)}" if entry.link else shown(entry.path)
    return f"{_TYPES[entry.kind]}{entry.mode:04o}", f"{entry.uid}:{entry.gid}", f"{entry.size:,}", str(number), path


def _packages(found: Installed) -> str:
    text = ""
    for title, named in (("CPython", found.pythons), ("pip", found.distributions)):
        if named:
            rows = [(shown(name), shown(version)) for name, version in named.items()]
            text += f"\n== {title}\n{table(('name', 'version'), rows, left=(0, 1))}"
    packages = [
        (shown(name), shown(one.version), shown(one.architecture), f"{one.size:,}")
        for name, one in sorted(found.packages.items())
    ]
    header = ("package", "version", "architecture", "bytes")
    return f"{text}\n== Debian packages\n{table(header, packages, left=(0, 1, 2)) if packages else 'none'}"
