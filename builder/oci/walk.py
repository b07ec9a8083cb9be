"""Walk: what is wrong with the members of an image's layers (image-spec 1.1, layer.md).

Law: reads headers of archives, lowest layer first, and remembers paths; contents are passed over. It judges, and goes
on after a finding: what cannot be a path of the image is told and left out. Alike findings of a layer are told once.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from builder.oci.changes import OPAQUE, WHITEOUT
from builder.oci.descriptor import Descriptor
from builder.oci.listing import Forward, members
from rootfs.errors import IntegrityError
from rootfs.tree import normalise, parent

Severity = Literal["error", "note"]

_RESERVED = ".wh..wh."
_KINDS = {
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symbolic link",
    **dict.fromkeys((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE), "file"),
    **dict.fromkeys((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE), "node"),
    tarfile.LNKTYPE: "hard link",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong, and where: an error breaks the specification or a consumer; a note is legal, but not what the
    specification's authors would write.
    """

    severity: Severity
    at: str
    text: str

    def __str__(self) -> str:
        return f"{self.at} {self.text}"


@dataclass(slots=True)
class _Layer:
    """What one layer holds: path -> kind, path -> what a directory is but for its time, the directories its paths lie
    in, path -> whether it is an opaque directory or hidden itself, path -> target of hard links.
    """

    held: dict[str, str] = field(default_factory=dict)
    directories: dict[str, tuple[object, ...]] = field(default_factory=dict)
    above: set[str] = field(default_factory=set)
    hidden: dict[str, bool] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def add(self, member: tarfile.TarInfo, latest: int) -> Iterator[tuple[Severity, str]]:
        """What is wrong with a header by itself, and beside those before it."""
        path = _inside(member.name)
        kind = _KINDS.get(member.type)
        if path is None:
            yield "error", "holds a path that is absolute or leaves the image"
        elif kind is None:
            yield "error", f"holds a member of the unknown type {member.type!r}"
        elif path.rpartition("/")[2].startswith(WHITEOUT):
            yield from _whiteout(member, path, self.hidden)
        elif path:
            yield from self._hold(path, kind, member)
            if kind == "hard link":
                self.links[path] = member.linkname
        if member.mtime > latest:
            yield "note", "holds a file that is later than the image"
        if member.uname or member.gname:
            yield "note", "names owners, which numbers tell already"
        if member.issparse():
            yield "note", "holds a sparse file, which not every reader knows"

    def _hold(self, path: str, kind: str, member: tarfile.TarInfo) -> Iterator[tuple[Severity, str]]:
        before = self.directories.get(path)
        if kind == "directory":
            self.directories[path] = (member.mode & 0o7777, member.uid, member.gid, _attributes(member))
        if path in self.held:
            again = before is not None and before == self.directories[path] and kind == "directory"
            yield ("note", "holds a directory twice") if again else ("error", "holds a path twice")
        elif kind == "directory" and path in self.above:
            yield "note", "holds a directory after what lies in it"
        self.held[path] = kind
        self.above.update(_above(path))


@dataclass(slots=True)
class Walk:
    """What the layers so far amount to: path -> what lies there. `latest` is the time (epoch seconds) that no member of
    a reproducible image is later than.
    """

    latest: int
    paths: dict[str, str] = field(default_factory=dict)

    def layer(self, stream: Forward, layer: Descriptor) -> Iterator[Finding]:
        """Findings about one more layer, all of whose archive is read; IntegrityError when that is no archive."""
        told: dict[tuple[Severity, str], list[str]] = {}
        found = _Layer()
        for member in members(stream, layer):
            for fault in found.add(member, self.latest):
                told.setdefault(fault, []).append(member.name)
        for severity, text, name in self._put(found):
            told.setdefault((severity, text), []).append(name)
        for (severity, text), names in told.items():
            more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            yield Finding(severity=severity, at=str(layer.digest), text=f"{text}: {names[0]!r}{more}")

    def _put(self, layer: _Layer) -> Iterator[tuple[Severity, str, str]]:
        """What is wrong with a layer upon those below it."""
        lower = {*self.paths, *(up for path in self.paths for up in _above(path))} if layer.hidden else set()
        for path, opaque in layer.hidden.items():
            if not opaque and path not in lower:
                yield "note", "hides what no layer below has", path
        self.paths = {path: kind for path, kind in self.paths.items() if not _is_hidden(path, layer.hidden)}
        replaced = {path for path, kind in layer.held.items() if kind != "directory"}
        replaced &= {path for path, kind in self.paths.items() if kind == "directory"}
        if replaced:
            self.paths = {path: kind for path, kind in self.paths.items() if replaced.isdisjoint(_above(path))}
        self.paths |= layer.held
        for path in layer.held:
            above = next((up for up in _above(path) if self.paths.get(up, "directory") != "directory"), None)
            if above is not None:
                yield "error", f"holds a path through a {self.paths[above]}", path
        for path, link in layer.links.items():
            target = _inside(link)
            if target is None or self.paths.get(target, "directory") == "directory":
                yield "error", "holds a hard link to what is no file of the image", path


def _attributes(member: tarfile.TarInfo) -> dict[str, str]:
    return {name: value for name, value in member.pax_headers.items() if name.startswith("SCHILY.xattr.")}


def _whiteout(member: tarfile.TarInfo, path: str, hidden: dict[str, bool]) -> Iterator[tuple[Severity, str]]:
    name = path.rpartition("/")[2]
    if name != OPAQUE and name.startswith(_RESERVED):
        yield "note", "holds a file of aufs"
        return
    if name in (WHITEOUT, f"{WHITEOUT}.", f"{WHITEOUT}.."):
        yield "error", "holds a whiteout of nothing"
        return
    if not member.isreg() or member.size:
        yield "note", "holds a whiteout that is no empty file"
    up = parent(path)
    if name == OPAQUE:
        hidden[up] = True
    else:
        hidden.setdefault(f"{up}/{name.removeprefix(WHITEOUT)}".lstrip("/"), False)


def _inside(name: str) -> str | None:
    """The path in the image; None when it is not in there."""
    try:
        return None if name.startswith("/") else normalise(name)
    except IntegrityError:
        return None


def _above(path: str) -> Iterator[str]:
    while path := parent(path):
        yield path


def _is_hidden(path: str, hidden: dict[str, bool]) -> bool:
    """Whether a whiteout names the path or a directory it lies in, or such a directory is opaque."""
    return hidden.get(path) is False or any(up in hidden for up in _above(path)) or hidden.get("") is True
