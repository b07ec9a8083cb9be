"""Takeout: one file or directory out of an image, without unpacking the rest.

Law: links are followed inside the image and nowhere else. Only the layers that hold what is wanted are read again, as
streams, and only that is kept; every byte is checked against the layer's digest and diff id.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from builder.images import ReadImage
from builder.look.listed import listed_tree, listings
from builder.look.tables import shown
from builder.oci.descriptor import Descriptor
from builder.oci.listing import Forward, archive_chunks
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.errors import UsageError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Slice, Tree, parent

_LINKS = 40  # as Linux (path_resolution(7))
_NEAR = 5
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was asked for, its contents in the store: `file`, under its own name, or else the `tree` of a directory."""

    path: str
    file: FileEntry | None
    tree: Tree


def take(image: ReadImage, path: str, tools: Tools) -> Taken:
    """What lies at a path of an image; UsageError with what lies near when there is nothing.

    IntegrityError when a layer that has to be read is not what its digest, size or diff id say.
    """
    tree = listed_tree(image, listings([image], tools), placed=True)
    place = follow(tree, path)
    entry = tree.get(place)
    if entry is None or entry.kind is Kind.DIRECTORY:
        return Taken(path=place, file=None, tree=kept(below(tree, place), image, tools.store))
    alone = replace(_carrier(tree, entry), path=place.rpartition("/")[2])
    stored = kept(Tree([alone]), image, tools.store)
    return Taken(path=place, file=stored[alone.path], tree=stored)


def follow(tree: Tree, path: str) -> str:
    """The path with every link on the way followed, the last one, too; "" is the root.

    UsageError when it is not there.
    """
    if "\0" in path:
        raise UsageError("not a path: it holds a NUL")
    found = path
    for _ in range(_LINKS):
        found = tree.resolve(found)
        entry = tree.get(found)
        if entry is None or entry.kind is not Kind.SYMLINK:
            break
        found = entry.link if entry.link.startswith("/") else f"{parent(found)}/{entry.link}"
    else:
        raise UsageError(f"too many symbolic links: {shown(path)}")
    if found and found not in tree and not any(tree.below(found)):
        near = _near(tree, found)
        led = f"it leads to /{shown(found)}" if found != path.strip("/") else None
        hint = f"there is {', '.join(f'/{shown(one)}' for one in near)}" if near else None
        raise UsageError(f"the image has no {shown(path)}", because=led, hint=hint)
    return found


def chunks_of(entry: FileEntry, store: Store) -> Iterator[bytes]:
    """A file's content in pieces; IntegrityError when it is not in the store."""
    if not isinstance(entry.content, Slice):
        yield entry.content
        return
    with store.open(entry.content.blob) as stream:
        stream.seek(entry.content.offset)
        left = entry.size
        while left and (piece := stream.read(min(left, _CHUNK))):
            left -= len(piece)
            yield piece


def _near(tree: Tree, path: str) -> list[str]:
    """Paths that may have been meant: the same name elsewhere, then like names where it should have been."""
    name, up = path.rpartition("/")[2], parent(path)
    same = [known for known in tree if known.rpartition("/")[2] == name]
    while up and up not in tree:
        name, up = up.rpartition("/")[2], parent(up)
    siblings = {known.rpartition("/")[2]: known for known in tree if parent(known) == up}
    like = [siblings[one] for one in difflib.get_close_matches(name, siblings, n=_NEAR)]
    return list(dict.fromkeys([*same[:_NEAR], *like]))[:_NEAR]


def below(tree: Tree, place: str) -> Tree:
    """The Tree of a directory. A file whose first name lies elsewhere is carried by its first name in here."""
    carriers: dict[str, str] = {}
    entries = []
    for entry in tree.below(place) if place else tree.values():
        path = entry.path.removeprefix(f"{place}/") if place else entry.path
        carrier = _carrier(tree, entry)
        first = carriers.setdefault(carrier.path, path)
        if first == path:
            entries.append(replace(carrier, path=path))
        else:
            entries.append(replace(carrier, path=path, kind=Kind.HARDLINK, link=first, content=b"", xattrs=()))
    return Tree(entries)


def _carrier(tree: Tree, entry: FileEntry) -> FileEntry:
    """A Tree of listings has its links one step from the file."""
    return tree[entry.link] if entry.kind is Kind.HARDLINK else entry


def kept(tree: Tree, image: ReadImage, store: Store) -> Tree:
    """A Tree whose contents lie in the layers of an image, with its contents in the store."""
    fetched = []
    for layer, diff_id, entries in _by_layer(tree, image):
        if not store.exists(diff_id):
            pieces = archive_chunks(layer, diff_id, image.found.fetch, store)
            fetched += list(_copied(entries, _ranges(entries, pieces), store))
    return tree.with_entries(fetched)


def gathered(tree: Tree, image: ReadImage, store: Store) -> Tree:
    """The same with all contents in one blob, so that what is made of them does not tell where they lay before."""
    parts = _by_layer(tree, image)
    contents = (
        _ranges(entries, archive_chunks(layer, diff_id, image.found.fetch, store)) for layer, diff_id, entries in parts
    )
    every = [entry for _, _, entries in parts for entry in entries]
    return tree.with_entries(_copied(every, chain.from_iterable(contents), store) if every else ())


def _by_layer(tree: Tree, image: ReadImage) -> list[tuple[Descriptor, Digest, list[FileEntry]]]:
    """The layers that hold contents of the Tree, each with the files in the order of its archive."""
    wanted: dict[Digest, list[FileEntry]] = {}
    for entry in tree.values():
        if isinstance(entry.content, Slice):
            wanted.setdefault(entry.content.blob, []).append(entry)
    found = ((layer, diff_id, sorted(wanted.pop(diff_id, ()), key=_offset)) for layer, diff_id in image.layers)
    return [part for part in found if part[2]]


def _copied(entries: list[FileEntry], contents: Iterable[bytes], store: Store) -> Iterator[FileEntry]:
    """The entries with their contents one after the other in a new blob of the store."""
    blob = store.put(contents).digest
    offset = 0
    for entry in entries:
        yield replace(entry, content=Slice(blob=blob, offset=offset, size=entry.size))
        offset += entry.size


def _ranges(entries: Iterable[FileEntry], pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The contents, in the order of the archive; all of it is read, which checks it."""
    stream = Forward(pieces)
    for entry in entries:
        stream.seek(_offset(entry))
        for part in stream.parts(entry.size):
            yield bytes(part)
    stream.drain()


def _offset(entry: FileEntry) -> int:
    assert isinstance(entry.content, Slice)
    return entry.content.offset
