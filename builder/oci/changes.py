"""Changes: what a layer must hold so that one Tree becomes another (image-spec 1.1, layer.md, "Change Types").

Law: pure; Trees in, a Tree out. Applying the changes (`builder.oci.flatten`) to the lower Tree gives the upper one
exactly: contents, owners, modes, times, attributes and which names are one file. What is gone is an entry `.wh.NAME`;
an opaque directory (`.wh..wh..opq`) stands in their place where that makes the layer smaller. Names of one file travel
together: a link into a lower layer would be a copy on a runtime's disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from rootfs.errors import IntegrityError
from rootfs.tree import FileEntry, Kind, Tree, file, parent, path_order

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

_BLOCK = 512


def changes(lower: Tree, upper: Tree) -> Tree:
    """The entries of a layer that makes `upper` of `lower`, whiteouts among them: `pack(..., whiteouts=True)`.

    Directories that a Tree does not name are 0755. With each change come the directories it lies in, as `upper` has
    them. IntegrityError for a hard link to no file, and for a file whose name means a whiteout.
    """
    lower, upper = lower.with_parents(), upper.with_parents()
    for path in upper:
        if path.rpartition("/")[2].startswith(WHITEOUT):
            raise IntegrityError("a layer cannot hold this name: it means a whiteout", at=path)
    old, new = _files(lower), _files(upper)
    entries = {path: upper[path] for path, found in new.items() if old.get(path) != found}
    gone = [path for path in lower if path not in upper and _is_directory(upper, parent(path))]
    for path in (*entries, *gone):
        _add_parents(path, upper, entries)
    opaque = _opaque(upper, gone, entries)
    entries |= {path: upper[path] for path in upper if _lies_in(path, opaque)}
    hidden = [f"{parent(path)}/{WHITEOUT}{path.rpartition('/')[2]}" for path in gone if not _lies_in(path, opaque)]
    marks = [file(path.lstrip("/"), b"", mode=0) for path in (*hidden, *(f"{path}/{OPAQUE}" for path in opaque))]
    return Tree([*entries.values(), *marks])


def _files(tree: Tree) -> dict[str, tuple[FileEntry, frozenset[str]]]:
    """path -> the file, as it is under any of its names, and all these names."""
    carriers = {path: _carrier(tree, entry) for path, entry in tree.items()}
    names: dict[str, set[str]] = {}
    for path, carrier in carriers.items():
        names.setdefault(carrier.path, set()).add(path)
    shared = {path: (min(found, key=path_order), frozenset(found)) for path, found in names.items()}
    return {
        path: (replace(carrier, path=shared[carrier.path][0]), shared[carrier.path][1])
        if len(names[carrier.path]) > 1
        else (carrier, frozenset())
        for path, carrier in carriers.items()
    }


def _carrier(tree: Tree, entry: FileEntry) -> FileEntry:
    """The entry that a hard link is another name of; any other is its own."""
    found, seen = entry, {entry.path}
    while found.kind is Kind.HARDLINK:
        target = tree.get(found.link)
        if target is None or target.kind is Kind.DIRECTORY or target.path in seen:
            raise IntegrityError("hard link without a file", at=entry.path, because=f"{found.link} is none")
        found = target
        seen.add(found.path)
    return found


def _add_parents(path: str, upper: Tree, entries: dict[str, FileEntry]) -> None:
    up = parent(path)
    while up and up not in entries:
        entries[up] = upper[up]
        up = parent(up)


def _is_directory(tree: Tree, path: str) -> bool:
    return not path or (path in tree and tree[path].kind is Kind.DIRECTORY)


def _lies_in(path: str, directories: set[str]) -> bool:
    return any(up in directories for up in _above(path))


def _above(path: str) -> Iterator[str]:
    """The directories a path lies in, the innermost first, without the root."""
    while path := parent(path):
        yield path


@dataclass(slots=True)
class _Costs:
    """Of a directory: bytes of archive that it takes to hide what is gone below it (`hiding`, with these directories
    `opaque`), and to bring again what stays (`again`, None when that cannot be brought by itself).
    """

    hiding: int = 0
    again: int | None = 0
    opaque: set[str] = field(default_factory=set)


def _opaque(upper: Tree, gone: list[str], changed: Mapping[str, FileEntry]) -> set[str]:
    """The directories that are smaller brought anew than with a whiteout for each path that is gone."""
    costs = {up: _Costs() for path in gone for up in (parent(path), *_above(parent(path)))}
    for path in gone:
        costs[parent(path)].hiding += _BLOCK
    linked = _linked(upper) if costs else set()
    for path, entry in upper.items() if costs else ():
        if path not in changed:
            _count(entry, costs, linked=path in linked)
    opaque = set()
    for path in sorted(costs, key=path_order, reverse=True):  # what lies in a directory comes before it
        own = costs[path]
        if path and own.again is not None and own.again + _BLOCK < own.hiding:
            own.hiding, own.opaque = own.again + _BLOCK, {path}
        if parent(path) in costs and path:
            costs[parent(path)].hiding += own.hiding
            costs[parent(path)].opaque |= own.opaque
        else:
            opaque |= own.opaque
    return opaque


def _count(entry: FileEntry, costs: Mapping[str, _Costs], *, linked: bool) -> None:
    """Add what it takes to bring an entry again to every directory it lies in."""
    for up in _above(entry.path):
        above = costs.get(up)
        if above is not None and above.again is not None:
            above.again = None if linked else above.again + _BLOCK + entry.size + -entry.size % _BLOCK


def _linked(tree: Tree) -> set[str]:
    """The paths of files with several names."""
    links = [entry for entry in tree.values() if entry.kind is Kind.HARDLINK]
    return {path for entry in links for path in (entry.path, _carrier(tree, entry).path)}
