"""Merge: the data trees of packages laid over each other as dpkg unpacks them (policy 6.6, 7.6.1, dpkg-divert(1)).

Law: pure. The result does not depend on the order the packages come in: base-files goes first, since its links at the
top (`bin -> usr/bin`) decide where the rest lands, then the others by name. Before trixie base-files has no such links:
then they are laid before it (`links_at_the_top`), or the tree is not merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rootfs.debian.deb import Unpacked
from rootfs.debian.dpkg import Diversion
from rootfs.debian.package import Package
from rootfs.errors import BuildError
from rootfs.tree import FileEntry, Kind, Tree, parent, symlink


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The tree, and the paths each package owns, by package name: spelled as the package spells them, in path order."""

    tree: Tree
    owned: Mapping[str, tuple[str, ...]]


_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32")


def links_at_the_top(packages: Iterable[Unpacked]) -> list[FileEntry]:
    """A link into /usr for each directory of a package that merged-/usr does away with, as usrmerge leaves them."""
    found = {(name, one.tree[name].kind) for one in packages for name in _TOP if name in one.tree}
    return [
        symlink(name, f"usr/{name}")
        for name, kind in sorted(found)
        if kind is Kind.DIRECTORY and (name, Kind.SYMLINK) not in found
    ]


def merge(
    packages: Iterable[Unpacked], diversions: Iterable[Diversion] = (), links: Iterable[FileEntry] = ()
) -> Merged:
    """Lay the trees over each other, and over `links`; BuildError when two packages hold the same file and may not."""
    ordered = sorted(packages, key=lambda one: (one.package.name != "base-files", one.package.name))
    merger = _Merger(diversions, links)
    for one in ordered:
        merger.unpack(one)
    owned = {
        one.package.name: tuple(path for path in one.tree if (one.package.name, path) not in merger.lost)
        for one in ordered
    }
    return Merged(tree=Tree(merger.entries.values()), owned=owned)


class _Merger:
    """The state of one merge: entries and their owners by the path they landed at."""

    def __init__(self, diversions: Iterable[Diversion], links: Iterable[FileEntry]) -> None:
        self.entries: dict[str, FileEntry] = {link.path: link for link in links}
        self.owners: dict[str, tuple[Package, str]] = {}
        self.lost: set[tuple[str, str]] = set()
        self._diversions = {diversion.path: diversion for diversion in diversions}
        self._directories: dict[str, str] = {}

    def unpack(self, one: Unpacked) -> None:
        """Lay one package over what is there."""
        for entry in one.tree.values():
            place = self._place(self._diverted(entry.path, one.package))
            landed = entry if place == entry.path else replace(entry, path=place)
            if entry.kind is Kind.HARDLINK:
                landed = replace(landed, link=self._place(self._diverted(entry.link, one.package)))
            self._land(landed, entry.path, one.package)

    def _diverted(self, path: str, package: Package) -> str:
        diversion = self._diversions.get("/" + path)
        return diversion.to.lstrip("/") if diversion and diversion.by != package.name else path

    def _place(self, path: str) -> str:
        """Where a path lands: the symlinks among its parents are followed, as they stand now."""
        up, _, name = path.rpartition("/")
        real = self._directories.get(up)
        if real is None:
            real = self._real(up)
            if real in self.entries:
                self._directories[up] = real
        return f"{real}/{name}" if real else name

    def _real(self, path: str) -> str:
        """The path with every symlink followed, in its last part too."""
        done, todo, hops = "", path.split("/"), 0
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            done = parent(done) if part == ".." else f"{done}/{part}".lstrip("/")
            entry = self.entries.get(done)
            if entry is not None and entry.kind is Kind.SYMLINK:
                hops += 1
                if hops > 40:
                    raise BuildError("too many symbolic links", at=f"/{path}")
                done = "" if entry.link.startswith("/") else parent(done)
                todo = entry.link.split("/") + todo
        return done

    def _land(self, entry: FileEntry, spelled: str, package: Package) -> None:
        there = self.entries.get(entry.path)
        if there is None:
            self.entries[entry.path] = entry
            self.owners[entry.path] = (package, spelled)
        elif Kind.DIRECTORY in (entry.kind, there.kind):
            self._beside_directory(entry, there, package)
        else:
            self._contest(entry, spelled, package)

    def _beside_directory(self, entry: FileEntry, there: FileEntry, package: Package) -> None:
        """What is there stays: a directory, or the symlink that stands for one; nothing else may."""
        if Kind.SYMLINK in (entry.kind, there.kind):
            link = entry if entry.kind is Kind.SYMLINK else there
            absolute = link.link if link.link.startswith("/") else f"{parent(link.path)}/{link.link}"
            target = self.entries.get(self._real(absolute))
            if target is None or target.kind is Kind.DIRECTORY:
                return
        elif entry.kind is there.kind:
            return
        owner = self.owners[entry.path][0]
        raise BuildError(
            f"{package} and {owner} disagree about what a path is",
            at=f"/{entry.path}",
            because=f"{there.kind} in {owner.name}, {entry.kind} in {package.name}",
        )

    def _contest(self, entry: FileEntry, spelled: str, package: Package) -> None:
        """Two packages hold one file: the one that Replaces the other keeps it."""
        owner, owner_spelled = self.owners[entry.path]
        if _replaces(package, owner):
            self.lost.add((owner.name, owner_spelled))
            self.entries[entry.path] = entry
            self.owners[entry.path] = (package, spelled)
        elif _replaces(owner, package):
            self.lost.add((package.name, spelled))
        else:
            raise BuildError(
                f"{owner} and {package} hold the same file",
                at=f"/{entry.path}",
                because="neither says that it Replaces the other (policy 7.6.1)",
                hint="leave one of them out: dpkg would not install them together either",
            )


def _replaces(package: Package, other: Package) -> bool:
    return any(
        relation.name == other.name and relation.accepts(other.version)
        for clause in package.relations("Replaces")
        for relation in clause
    )
