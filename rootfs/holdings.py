"""Holdings: what a store on disk holds, and what leads to what in it.

Law: reads; changes nothing, not even the time of a file's last use. A blob that is JSON leads to every blob whose
digest it names: so do trees, manifests, layers and all that steps leave behind, and a new kind of step needs nothing
here. What names a digest by chance keeps a blob too many, never one too few.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rootfs.digest import Digest
from rootfs.errors import HostError, IntegrityError
from rootfs.store import Link

_NAMED = re.compile(rb"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})(?![0-9a-f])")
_BLOCK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBlob:
    """A blob: its file, bytes on the disk, when it was last of use (epoch seconds), how many names the file has."""

    digest: Digest
    path: Path
    size: int
    used: float
    names: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLink:
    """A link: its file, when it was last of use, what it says; None when that cannot be read."""

    path: Path
    used: float
    link: Link | None

    @property
    def kind(self) -> str:
        """Of the step; empty when nobody has said."""
        return self.link.origin.kind if self.link is not None and self.link.origin is not None else ""

    @property
    def starts(self) -> tuple[Digest, ...]:
        """The blobs it leads to by itself."""
        if self.link is None:
            return ()
        return (self.link.target, *(self.link.origin.blobs if self.link.origin is not None else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Blobs by digest, and links. `strange` are files in their directories whose names say that they are neither."""

    blobs: Mapping[Digest, HeldBlob]
    links: tuple[HeldLink, ...]
    strange: tuple[Path, ...]


def holdings(root: Path) -> Holdings:
    """What the store in this directory holds; nothing when it is not there. HostError when it cannot be read."""
    blobs: dict[Digest, HeldBlob] = {}
    links: list[HeldLink] = []
    strange: list[Path] = []
    try:
        for algorithm in entries(root / "blobs"):
            for entry in entries(Path(algorithm)):
                try:
                    digest = Digest(algorithm.name, entry.name)
                    found = entry.stat(follow_symlinks=False)
                except IntegrityError:
                    strange.append(Path(entry))
                except FileNotFoundError:  # pruned meanwhile
                    continue
                else:
                    size = found.st_blocks * _BLOCK
                    blobs[digest] = HeldBlob(
                        digest=digest, path=Path(entry), size=size, used=found.st_mtime, names=found.st_nlink
                    )
        for entry in entries(root / "links"):
            held = _link(entry)
            if held is not None:
                links.append(held)
    except PermissionError as error:
        raise _unreadable(error, root) from error
    return Holdings(blobs=blobs, links=tuple(links), strange=tuple(strange))


def _link(entry: os.DirEntry[str]) -> HeldLink | None:
    try:
        used = entry.stat(follow_symlinks=False).st_mtime
        data = Path(entry).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return HeldLink(path=Path(entry), used=used, link=Link.parse(data))
    except IntegrityError:
        return HeldLink(path=Path(entry), used=used, link=None)


def entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a directory, by name; nothing when it is not there."""
    try:
        with os.scandir(directory) as found:
            yield from sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return


def _unreadable(error: OSError, root: Path) -> HostError:
    return HostError(
        f"cannot read the store in {root}",
        because=f"{error.strerror}: {error.filename}",
        hint="be the user whose it is, or choose another with --store or OCIBUILD_STORE",
    )


class Reach:
    """What blobs lead to. Each is read once, and only when it begins like JSON."""

    def __init__(self, blobs: Mapping[Digest, HeldBlob]) -> None:
        self._blobs = blobs
        self._named: dict[Digest, frozenset[Digest]] = {}

    def closure(self, starts: Iterable[Digest], known: Iterable[Digest] = ()) -> set[Digest]:
        """The blobs here that these lead to, themselves among them, less those `known` and what they lead to."""
        seen = known if isinstance(known, set) else set(known)
        found: set[Digest] = set()
        todo = [digest for digest in starts if digest in self._blobs and digest not in seen]
        while todo:
            digest = todo.pop()
            if digest not in found:
                found.add(digest)
                todo += [one for one in self._from(digest) if one not in found and one not in seen]
        return found

    def _from(self, digest: Digest) -> frozenset[Digest]:
        known = self._named.get(digest)
        if known is None:
            held = self._blobs[digest]
            known = self._named[digest] = frozenset(one for one in named_in(held.path) if one in self._blobs)
        return known


def named_in(path: Path) -> set[Digest]:
    """The digests that a file of JSON names; none for any other, and for one that is gone."""
    try:
        with path.open("rb") as stream:
            first = stream.read(1)
            if first not in (b"{", b"["):
                return set()
            data = first + stream.read()
    except FileNotFoundError:
        return set()
    except PermissionError as error:
        raise _unreadable(error, path) from error
    return {Digest.parse(text.decode()) for text in set(_NAMED.findall(data))}
