"""Tree: a file system as a value. Owner and mode are facts of the Tree, not of the host's disk.

Law: pure algebra; no file is opened here. A path is relative POSIX text without leading or trailing slash, `.` or `..`
(undecodable bytes as surrogate escapes); order is the order of the path's bytes, so a directory precedes what it holds.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from itertools import islice, takewhile
from operator import methodcaller
from types import MappingProxyType
from typing import Any

import msgspec

from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError

_FEW = 16  # less than one path in so many is put to its place; of more it is faster to sort all
_SLICE = re.compile(rb'"slice":\["([a-z0-9]+:[0-9a-f]+)"')


class Kind(StrEnum):
    """What an entry is; the values are the ones the serialised Tree holds."""

    FILE = "file"
    DIRECTORY = "dir"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHARACTER = "char"
    BLOCK = "block"
    FIFO = "fifo"


_KINDS: Mapping[str, Kind] = MappingProxyType({kind.value: kind for kind in Kind})


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """`size` bytes at `offset` of a stored blob."""

    blob: Digest
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One member of a Tree.

    `mode` holds the permission bits with setuid, setgid and sticky (0o0 to 0o7777); `mtime` is seconds since the epoch;
    `link` is a symlink's text or a hard link's target path in the same Tree; `content` is the file's bytes or where
    they lie (files only); `device` is (major, minor); `xattrs` are sorted (name, value) pairs.
    """

    path: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: str = ""
    content: bytes | Slice = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()

    def __post_init__(self) -> None:
        if normalise(self.path) != self.path or not self.path:
            raise IntegrityError(f"not a path inside a tree: {self.path!r}")
        if not 0 <= self.mode <= 0o7777:
            raise IntegrityError(f"not a file mode: {self.mode:#o}", at=self.path)

    @property
    def size(self) -> int:
        """Content length in bytes; 0 for everything but files."""
        return self.content.size if isinstance(self.content, Slice) else len(self.content)


def normalise(path: str) -> str:
    """`./usr//bin/` -> `usr/bin`; IntegrityError when the path is absolute after that, climbs out, or holds a NUL."""
    if not ("//" in path or "/." in path or "\0" in path or path.startswith((".", "/")) or path.endswith("/")):
        return path  # as nearly all are: every entry of every tree passes here
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise IntegrityError(f"path leaves the tree: {path!r}")
    return "/".join(parts)


def parent(path: str) -> str:
    """The directory a path lies in; "" for the root."""
    return path.rpartition("/")[0]


def path_order(path: str) -> bytes:
    """Sort key: the path's bytes, the separator below every other byte, so that a directory's content follows it."""
    return path.encode("utf-8", "surrogateescape").replace(b"/", b"\0")


_text_order = methodcaller("replace", "/", "\0")
"""`path_order` for text: UTF-8 keeps the order of the characters (RFC 3629, 1)."""


def _is_text(paths: Iterable[str]) -> bool:
    """Whether all can be encoded: none has bytes that are no text, as surrogate escapes."""
    try:
        "".join(paths).encode()
    except UnicodeEncodeError:
        return False
    return True


def directory(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> FileEntry:
    """A directory entry."""
    return FileEntry(path=path, kind=Kind.DIRECTORY, mode=mode, uid=uid, gid=gid)


def file(path: str, content: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> FileEntry:
    """A regular file whose bytes are at hand."""
    return FileEntry(path=path, kind=Kind.FILE, mode=mode, uid=uid, gid=gid, content=content)


def symlink(path: str, target: str) -> FileEntry:
    """A symbolic link."""
    return FileEntry(path=path, kind=Kind.SYMLINK, mode=0o777, link=target)


class Tree(Mapping[str, FileEntry]):
    """path -> FileEntry, immutable, iterated in path order. The root directory itself is not an entry."""

    __slots__ = ("_entries", "_order")

    def __init__(self, entries: Iterable[FileEntry] = ()) -> None:
        self._entries = {entry.path: entry for entry in entries}
        # paths in order, and those that have no place in it yet; one value, since several threads may ask for it
        self._order: tuple[list[str], Collection[str]] = [], self._entries

    def __getitem__(self, path: str) -> FileEntry:
        return self._entries[path]

    def __contains__(self, path: object) -> bool:
        return path in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._ordered())

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> ValuesView[FileEntry]:
        """The entries, in path order."""
        self._ordered()
        return self._entries.values()

    def items(self) -> ItemsView[str, FileEntry]:
        """Path and entry, in path order."""
        self._ordered()
        return self._entries.items()

    def _ordered(self) -> list[str]:
        """The paths, sorted when they are first wanted in order: most trees on the way are only asked for a few."""
        order, unplaced = self._order
        if unplaced:
            if len(unplaced) < len(order) // _FEW:
                order = list(order)
                for path in unplaced:
                    insort(order, path, key=path_order)
            else:
                order = sorted(self._entries, key=_text_order if _is_text(self._entries) else path_order)
            self._entries = {path: self._entries[path] for path in order}
            self._order = order, ()
        return order

    def with_entries(self, entries: Iterable[FileEntry]) -> Tree:
        """This tree with `entries` added or put in place of what stood there."""
        added = {entry.path: entry for entry in entries}
        order, unplaced = self._order  # before the entries: another thread may be putting them in order
        whole = Tree()
        whole._entries = {**self._entries, **added}
        whole._order = order, [*unplaced, *(path for path in added if path not in self._entries)]
        return whole

    def where(self, keep: Callable[[FileEntry], bool]) -> Tree:
        """The entries for which `keep` holds."""
        return Tree(entry for entry in self.values() if keep(entry))

    def below(self, prefix: str) -> Iterator[FileEntry]:
        """The entries that lie under a directory, in path order, without the directory."""
        start, order = prefix + "/", self._ordered()
        first = bisect_left(order, path_order(start), key=path_order)
        return (
            self._entries[path] for path in takewhile(lambda path: path.startswith(start), islice(order, first, None))
        )

    def changes_since(self, base: Tree) -> Tree:
        """What a layer upon `base` must carry: the entries `base` does not hold, and the directories they lie in.

        A directory that differs in nothing but its mtime is not a change. Directories above a change come as they are
        (in `base`, else here), since a runtime makes those that a layer leaves out with a mode of its own.
        """

        def changed(entry: FileEntry) -> bool:
            below = base.get(entry.path)
            if below is None or entry.kind is not Kind.DIRECTORY:
                return below != entry
            return replace(below, mtime=entry.mtime) != entry

        changes = {entry.path: entry for entry in self.values() if changed(entry)}
        for path in list(changes):
            up = parent(path)
            while up and up not in changes:
                changes[up] = base[up] if up in base else self[up]
                up = parent(up)
        return Tree(changes.values())

    def with_parents(self) -> Tree:
        """This tree with a 0755 root-owned directory for every parent it does not name."""
        missing: dict[str, FileEntry] = {}
        for up in {parent(path) for path in self._entries}:
            while up and up not in self._entries and up not in missing:
                missing[up] = directory(up)
                up = parent(up)  # noqa: PLW2901
        return self.with_entries(missing.values()) if missing else self

    def clamped(self, epoch: int) -> Tree:
        """This tree with no mtime later than `epoch` (seconds; reproducible-builds.org, SOURCE_DATE_EPOCH)."""
        return self.with_entries(replace(e, mtime=epoch) for e in self.values() if e.mtime > epoch)

    def dated(self, epoch: int) -> Tree:
        """This tree with every mtime set to `epoch` (seconds)."""
        return self.with_entries(replace(e, mtime=epoch) for e in self.values() if e.mtime != epoch)

    def resolve(self, path: str) -> str:
        """The path with every symlink among its parents followed inside the tree; the last part is not followed."""
        done: list[str] = []
        todo = [part for part in path.split("/") if part not in ("", ".")]
        hops = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            entry = self._entries.get("/".join([*done, part]))
            if entry is None or entry.kind is not Kind.SYMLINK or not todo:
                done.append(part)
                continue
            hops += 1
            if hops > 40:
                raise IntegrityError(f"too many symbolic links: {path!r}")
            if entry.link.startswith("/"):
                done = []
            todo = [p for p in entry.link.split("/") if p not in ("", ".")] + todo
        return "/".join(done)

    def to_bytes(self) -> bytes:
        """The canonical JSON form: a list with one object an entry, defaults left out."""
        values = [_to_value(entry) for entry in self.values()]
        try:
            return msgspec.json.encode(values, order="sorted")  # the same bytes, in a tenth of the time
        except UnicodeEncodeError:  # a name that is not UTF-8
            return canonical_json(values)

    @classmethod
    def from_bytes(cls, data: bytes) -> Tree:
        """Read what `to_bytes` wrote; IntegrityError when it is anything else."""
        try:
            try:
                values = msgspec.json.decode(data, type=list[_Stored])
            except (UnicodeDecodeError, msgspec.DecodeError):  # a name that is not UTF-8, or damage
                values = msgspec.convert(json.loads(data.decode("utf-8", "surrogateescape")), list[_Stored])
            return cls(map(_from_stored, values))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError("a stored tree cannot be read", because=str(error)) from error


@lru_cache(maxsize=4096)
def _digest(text: str) -> Digest:
    """A blob's digest: thousands of entries lie in one blob."""
    return Digest.parse(text)


def _to_value(entry: FileEntry) -> dict[str, Any]:
    value: dict[str, Any] = {"path": entry.path, "kind": entry.kind.value, "mode": entry.mode, "mtime": entry.mtime}
    if entry.uid or entry.gid:
        value["owner"] = [entry.uid, entry.gid]
    if entry.link:
        value["link"] = entry.link
    if isinstance(entry.content, Slice):
        value["slice"] = [str(entry.content.blob), entry.content.offset, entry.content.size]
    elif entry.content:
        value["bytes"] = entry.content.hex()
    if entry.device != (0, 0):
        value["device"] = list(entry.device)
    if entry.xattrs:
        value["xattrs"] = [[name, data.hex()] for name, data in entry.xattrs]
    return value


class _Stored(msgspec.Struct, frozen=True, gc=False):
    """An entry as `_to_value` has it; read into a struct, since that takes half the time."""

    path: str
    kind: str
    mode: int
    mtime: int
    owner: tuple[int, int] = (0, 0)
    link: str = ""
    slice: tuple[str, int, int] | None = None
    bytes: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, str], ...] = ()


def _from_stored(stored: _Stored) -> FileEntry:
    if stored.slice is not None:
        blob, offset, size = stored.slice
        content: bytes | Slice = Slice(blob=_digest(blob), offset=offset, size=size)
    else:
        content = bytes.fromhex(stored.bytes)
    uid, gid = stored.owner
    return FileEntry(
        path=stored.path,
        kind=_KINDS[stored.kind],
        mode=stored.mode,
        uid=uid,
        gid=gid,
        mtime=stored.mtime,
        link=stored.link,
        content=content,
        device=stored.device,
        xattrs=tuple((name, bytes.fromhex(data)) for name, data in stored.xattrs) if stored.xattrs else (),
    )


def blobs_of(stored: bytes) -> set[Digest]:
    """The blobs that a stored Tree's contents lie in, without reading the Tree: for asking whether they are there."""
    return {Digest.parse(text.decode()) for text in set(_SLICE.findall(stored))}
