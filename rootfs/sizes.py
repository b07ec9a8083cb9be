"""Sizes: what each package of a Tree costs, by dpkg's lists of files, and what each slimming rule would save.

Law: pure; a Tree in, rows and their text out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rootfs.debian.dpkg import ADMIN, STATUS_FILES
from rootfs.ports import Store, read_content
from rootfs.slim import Saved, slim
from rootfs.slimrules import RULES
from rootfs.tree import Kind, Tree

_LISTS = f"{ADMIN}/info"
NO_PACKAGE = "(no package)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one package holds of a Tree: entries that are no directory, and bytes of file content."""

    name: str
    entries: int
    size: int


def package_sizes(tree: Tree, store: Store) -> tuple[Row, ...]:
    """A row for each package, the largest first, and one for what no package owns; together they are the whole Tree.

    What two packages list (a diverted or replaced file) counts for the first by name.
    """
    owner_of = owners(tree, store)
    entries: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for path, entry in tree.items():
        if entry.kind is not Kind.DIRECTORY:
            owner = owner_of.get(path, NO_PACKAGE)
            entries[owner] = entries.get(owner, 0) + 1
            sizes[owner] = sizes.get(owner, 0) + entry.size
    rows = (Row(name=name, entries=count, size=sizes[name]) for name, count in entries.items())
    return tuple(sorted(rows, key=lambda row: (-row.size, row.name)))


def owners(tree: Tree, store: Store) -> dict[str, str]:
    """path -> the package that dpkg's database says it is of; what several list is of the first by name.

    Without dpkg the lists of checksums are all there is (`rootfs.debian.dpkg`): they name neither links nor conffiles.
    """
    return {path: name for path, name in reversed(list(_owned(tree, store))) if path in tree}


def _owned(tree: Tree, store: Store) -> Iterator[tuple[str, str]]:
    """(path in the tree, package) for every line of dpkg's lists."""
    for place, ending, column in ((_LISTS, ".list", 0), (STATUS_FILES, ".md5sums", 34)):
        for entry in tree.below(place):
            if entry.path.endswith(ending):
                name = entry.path.removeprefix(f"{place}/").removesuffix(ending)
                for line in read_content(store, entry.content).decode("utf-8", "surrogateescape").split("\n"):
                    yield tree.resolve(line[column:]), name


def rule_sizes(tree: Tree) -> Mapping[str, Saved]:
    """What each named rule would save if it were the only one; rules that save nothing are left out."""
    saved = {name: slim(tree, [rule]).saved[name] for name, rule in RULES.items()}
    return {name: one for name, one in saved.items() if one.entries}


def render(packages: Iterable[Row], rules: Mapping[str, Saved]) -> str:
    """Both as a table of plain text, a line each, with the total of the packages."""
    rows = tuple(packages)
    total = Row(name="total", entries=sum(row.entries for row in rows), size=sum(row.size for row in rows))
    lines = [("package", "files", "bytes")]
    lines += [(row.name, f"{row.entries:,}", f"{row.size:,}") for row in (*rows, total)]
    if rules:
        lines += [("", "", ""), ("rule", "saves", "bytes")]
        lines += [(name, f"{saved.entries:,}", f"{saved.size:,}") for name, saved in rules.items()]
    width = max(len(name) for name, _, _ in lines)
    return "".join(f"{name:<{width}} {count:>9} {size:>15}".rstrip() + "\n" for name, count, size in lines)
