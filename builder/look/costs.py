"""Costs: what the files of an image cost, by Debian package, by part of CPython, and what nobody owns.

Law: reads a Tree and its contents, changes nothing. Every table adds up: the rows of `packages` are all files of the
Tree (a file with several names counts once), those of `unowned` the row of what no package owns, and each CPython's
rows its files. How `compressed` is worked out: docs/reference/inspect.md.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import zstandard

from builder.python.anatomy import Part, PartKind, Python, parts, pythons
from rootfs.configure.elf import needed
from rootfs.digest import Digest
from rootfs.ports import Store
from rootfs.sizes import NO_PACKAGE, owners, rule_sizes
from rootfs.slim import Saved
from rootfs.slimrules import RULES
from rootfs.tree import FileEntry, Kind, Slice, Tree, parent

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

_CHUNK = 1 << 20
_LEVEL = 3  # zstd's own default: what is shared out are proportions, which a higher level hardly changes
_WITH_CODE: tuple[PartKind, ...] = ("interpreter", "extension")
_BYTECODE = (".pyc", ".pyo")

_Group = tuple[str, Python | None]
"""What is compressed together: the files of a package, and those of a CPython apart from its others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a row stands for: entries that are no directory, bytes of their contents, bytes of the compressed layers."""

    name: str
    files: int
    size: int
    compressed: int

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        return {"name": self.name, "files": self.files, "size": self.size, "compressed": self.compressed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """A shared library that a program names (DT_NEEDED): its path and package, each None when there is none."""

    name: str
    path: str | None
    package: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCost:
    """What a part of CPython costs; `bytecode` is how much of its `size` is .pyc files."""

    kind: PartKind
    cost: Cost
    bytecode: int
    needs: tuple[Needed, ...]

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        needs = [{"name": one.name, "path": one.path, "package": one.package} for one in self.needs]
        return {"kind": self.kind, **self.cost.to_value(), "bytecode": self.bytecode, "needs": needs}


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCosts:
    """A CPython of the image, its parts with the largest first."""

    python: Python
    parts: tuple[PartCost, ...]

    @property
    def total(self) -> Cost:
        """The sum of the parts."""
        return total(self.python.name, (one.cost for one in self.parts))

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        found = [one.to_value() for one in self.parts]
        return {**self.total.to_value(), "library": self.python.library, "parts": found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unowned:
    """Files of one directory that no package owns, or all such files of a CPython in one row, without their paths."""

    cost: Cost
    paths: tuple[str, ...]

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        return {**self.cost.to_value(), "paths": list(self.paths)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The tables, each with the largest row first. `rules` holds what each slimming rule alone would still save."""

    packages: tuple[Cost, ...]
    pythons: tuple[PythonCosts, ...]
    unowned: tuple[Unowned, ...]
    rules: Mapping[str, Saved]

    @property
    def total(self) -> Cost:
        """All files of the image."""
        return total("total", self.packages)

    @property
    def has_database(self) -> bool:
        """Whether any file is known to be of a package."""
        return any(row.name != NO_PACKAGE for row in self.packages)

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        rules = [
            {"name": name, "files": saved.entries, "size": saved.size, "because": RULES[name].because}
            for name, saved in self.rules.items()
        ]
        return {
            "total": self.total.to_value(),
            "packages": [row.to_value() for row in self.packages],
            "pythons": [one.to_value() for one in self.pythons],
            "unowned": [row.to_value() for row in self.unowned],
            "rules": rules,
        }


def total(name: str, rows: Iterable[Cost]) -> Cost:
    """The sum of rows, as a row."""
    listed = list(rows)
    return Cost(
        name=name,
        files=sum(row.files for row in listed),
        size=sum(row.size for row in listed),
        compressed=sum(row.compressed for row in listed),
    )


def costs(tree: Tree, store: Store, *, compressed: int) -> Costs:
    """Work out every table; `compressed` is the size in bytes of the image's layers as they are, which is shared out.

    IntegrityError when a content is not in the store, or the tree's links go round in a circle.
    """
    known = pythons(tree)
    with ExitStack() as opened:
        image = _Image(
            tree=tree,
            owner_of=owners(tree, store),
            claims=parts(tree, known),
            contents=_Contents(store, opened),
            libraries=_libraries(tree),
        )
        groups = _grouped(
            (image.group(entry.path), entry) for entry in tree.values() if entry.kind is not Kind.DIRECTORY
        )
        shares = apportion(compressed, image.contents.weights(groups))
        by_python = tuple(image.python_costs(python, _share_of(python, shares)) for python in known)
    saved = sorted(rule_sizes(tree).items(), key=lambda item: (-item[1].size, item[0]))
    return Costs(
        packages=_packages(groups, shares), pythons=by_python, unowned=_unowned(groups, shares), rules=dict(saved)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """A Tree, and what is known of its paths; `libraries` are the paths of shared libraries by their name."""

    tree: Tree
    owner_of: Mapping[str, str]
    claims: Mapping[str, tuple[Python, Part]]
    contents: _Contents
    libraries: Mapping[str, str]

    def group(self, path: str) -> _Group:
        """Whose the file is."""
        claim = self.claims.get(path)
        return self.owner_of.get(path, NO_PACKAGE), claim[0] if claim else None

    def python_costs(self, python: Python, compressed: int) -> PythonCosts:
        """What each part of a CPython costs that has this share of the layers."""
        found = _grouped((part, self.tree[path]) for path, (owner, part) in self.claims.items() if owner == python)
        shares = apportion(compressed, self.contents.weights(found))
        rows = (
            PartCost(
                kind=part.kind,
                cost=_cost(part.name, entries, shares[part]),
                bytecode=sum(entry.size for entry in entries if entry.path.endswith(_BYTECODE)),
                needs=tuple(self._needs(entries)) if part.kind in _WITH_CODE else (),
            )
            for part, entries in found.items()
        )
        return PythonCosts(python=python, parts=tuple(sorted(rows, key=lambda row: (_largest(row.cost), row.kind))))

    def _needs(self, entries: Iterable[FileEntry]) -> Iterator[Needed]:
        """The libraries that any of the files names, by name."""
        files = (entry for entry in entries if entry.kind is Kind.FILE)
        for name in sorted({name for entry in files for name in needed(self.contents.read(entry))}):
            path = self.libraries.get(name)
            yield Needed(name=name, path=path, package=None if path is None else self.owner_of.get(path))


def _libraries(tree: Tree) -> dict[str, str]:
    """name -> path of every shared library, the one nearest to the root where there are several."""
    paths = [path for path, entry in tree.items() if ".so" in path and entry.kind is not Kind.DIRECTORY]
    return {path.rpartition("/")[2]: path for path in sorted(paths, key=lambda path: (-path.count("/"), path))}


class _Contents:
    """The contents of a Tree's files; each blob is opened once."""

    def __init__(self, store: Store, opened: ExitStack) -> None:
        self._store = store
        self._opened = opened
        self._streams: dict[Digest, BinaryIO] = {}
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)

    def read(self, entry: FileEntry) -> bytes:
        """All bytes of a (small) file."""
        return b"".join(self._pieces(entry))

    def weights(self, groups: Mapping[_Key, Iterable[FileEntry]]) -> dict[_Key, int]:
        """What each group's contents are compressed, in bytes, one after the other in path order; 0 for none."""
        return {key: self._weight(entries) for key, entries in groups.items()}

    def _weight(self, entries: Iterable[FileEntry]) -> int:
        stream = self._compressor.compressobj()
        whole = written = 0
        for entry in entries:
            whole += entry.size
            for piece in self._pieces(entry):
                written += len(stream.compress(piece))
        return written + len(stream.flush()) if whole else 0

    def _pieces(self, entry: FileEntry) -> Iterator[bytes]:
        if not isinstance(entry.content, Slice):
            yield entry.content
            return
        blob, left = entry.content.blob, entry.content.size
        if blob not in self._streams:
            self._streams[blob] = self._opened.enter_context(self._store.open(blob))
        stream = self._streams[blob]
        stream.seek(entry.content.offset)
        while left and (piece := stream.read(min(left, _CHUNK))):
            left -= len(piece)
            yield piece


def _share_of(python: Python, shares: Mapping[_Group, int]) -> int:
    return sum(share for (_, owner), share in shares.items() if owner == python)


def _packages(groups: Mapping[_Group, list[FileEntry]], shares: Mapping[_Group, int]) -> tuple[Cost, ...]:
    """A row for each package: its files that are of a CPython, and those that are not."""
    rows = (
        total(name, (_cost(name, groups[group], shares[group]) for group in found))
        for name, found in _grouped((group[0], group) for group in groups).items()
    )
    return tuple(sorted(rows, key=_largest))


def _unowned(groups: Mapping[_Group, list[FileEntry]], shares: Mapping[_Group, int]) -> tuple[Unowned, ...]:
    """A row for each directory with files of no package; of a CPython, whose parts are told elsewhere, one row."""
    rows = []
    for group, entries in groups.items():
        package, python = group
        if package == NO_PACKAGE and python is not None:
            rows.append(Unowned(cost=_cost(str(python), entries, shares[group]), paths=()))
        elif package == NO_PACKAGE:
            places = _grouped((parent(entry.path), entry) for entry in entries)
            # by size: here a compression of its own for each would say little more
            sizes = {place: sum(entry.size for entry in found) for place, found in places.items()}
            parted = apportion(shares[group], sizes)
            for place, found in places.items():
                cost = _cost(f"/{place}", found, parted[place])
                rows.append(Unowned(cost=cost, paths=tuple(entry.path for entry in found)))
    return tuple(sorted(rows, key=lambda row: _largest(row.cost)))


def apportion(amount: int, weights: Mapping[_Key, int]) -> dict[_Key, int]:
    """Share out an amount in proportion to the weights, all of it; nobody has anything where nothing has a weight."""
    whole = sum(weights.values())
    shares: dict[_Key, int] = {}
    given = reached = 0
    for key, weight in weights.items():
        reached += weight
        shares[key] = amount * reached // whole - given if whole else 0
        given += shares[key]
    return shares


def _grouped(pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, list[_Value]]:
    groups: dict[_Key, list[_Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _cost(name: str, entries: Iterable[FileEntry], compressed: int) -> Cost:
    sizes = [entry.size for entry in entries]
    return Cost(name=name, files=len(sizes), size=sum(sizes), compressed=compressed)


def _largest(row: Cost) -> tuple[int, str]:
    """Sort key: the largest first."""
    return -row.size, row.name
