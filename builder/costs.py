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

_CHUNK = 1 << 20
_LEVEL = 3  # zstd's own default: what is shared out are proportions, which a higher level hardly changes
_WITH_CODE: tuple[PartKind, ...] = ("interpreter", "extension")
_BYTECODE = (".pyc", ".pyo")


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
    """Files of one directory that no package owns; a CPython that none owns is one such row, without its paths."""

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
    owner_of = owners(tree, store)
    known = pythons(tree)
    claims = parts(tree, known)
    entries = [entry for entry in tree.values() if entry.kind is not Kind.DIRECTORY]
    groups = _grouped((_group(entry.path, owner_of, claims), entry) for entry in entries)
    with ExitStack() as stack:
        contents = _Contents(store, stack)
        shares = apportion(compressed, {key: contents.weight(found) for key, found in groups.items()})
        by_python = [
            PythonCosts(
                python=python,
                parts=_parts(python, claims, tree, contents, owner_of, [s for (_, p), s in shares.items() if p == python]),
            )
            for python in known
        ]
        alone = _unowned(groups, shares, contents)
    packages = _grouped((package, (found, shares[package, python])) for (package, python), found in groups.items())
    rows = (
        _cost(name, [entry for found, _ in listed for entry in found], sum(share for _, share in listed))
        for name, listed in packages.items()
    )
    saved = sorted(rule_sizes(tree).items(), key=lambda item: (-item[1].size, item[0]))
    return Costs(
        packages=tuple(sorted(rows, key=_largest)), pythons=tuple(by_python), unowned=alone, rules=dict(saved)
    )


_Group = tuple[str, Python | None]


def _group(path: str, owner_of: Mapping[str, str], claims: Mapping[str, tuple[Python, Part]]) -> _Group:
    """What is compressed together: the files of a package, those of a CPython apart from the others."""
    claim = claims.get(path)
    return owner_of.get(path, NO_PACKAGE), claim[0] if claim else None


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


def _grouped(pairs: Iterable[tuple[_Key, Any]]) -> dict[_Key, list[Any]]:
    groups: dict[_Key, list[Any]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _cost(name: str, entries: Iterable[FileEntry], compressed: int) -> Cost:
    sizes = [entry.size for entry in entries]
    return Cost(name=name, files=len(sizes), size=sum(sizes), compressed=compressed)


def _largest(row: Cost) -> tuple[int, str]:
    """Sort key: the largest first."""
    return -row.size, row.name
