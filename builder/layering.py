"""Layering: how the files of an image are shared out among its layers: by parts, or by source package.

Law: the layers put on top of each other are the same files, to the byte, however they are shared out. By source package
a layer depends on its packages alone. What depends on all of them (dpkg's database, what configuring made, the times
of directories) lies in the topmost layer, which is small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from builder.budget import grouped
from builder.oci.layer import Layer, pack
from builder.plan import Step
from builder.python.register import Registration, registered
from builder.tools import Tools
from builder.work import Trees, result, result_tree
from rootfs.debian.deb import Unpacked
from rootfs.debian.dpkg import ADMIN, STATUS_FILES
from rootfs.digest import Digest, canonical_json
from rootfs.ports import Store, read_blob
from rootfs.tree import FileEntry, Kind, Slice, Tree, file, parent

_LDCONFIG = ("usr/sbin/ldconfig", "sbin/ldconfig")


def one_layer(step: Step, tools: Tools, at_hand: Trees) -> Digest:
    """Pack the layer of one part; the digest of what is stored of it."""
    parameters, store = step.parameters, tools.store
    if step.inputs[0].kind == "install":
        parts = installed_parts(read_blob(store, result(step.inputs[0], store)))
        tree = Tree.from_bytes(read_blob(store, parts[parameters["part"]]))
    else:
        tree = result_tree(step.inputs[0], store, at_hand)
    if len(step.inputs) > 1:
        tree = _upon(tree, result_tree(step.inputs[1], store, at_hand), parameters, store)
    layer = _packed(tree, tools, parameters, parameters["created_by"], lowest=len(step.inputs) == 1)
    return store.put([layer.to_bytes()]).digest


def package_layers(step: Step, tools: Tools, at_hand: Trees) -> Digest:
    """Pack all layers of an image, the base by source packages; the digest of what is stored of them.

    The step's inputs are the base, what was installed, and the fragments of the base's packages.
    """
    parameters, store = step.parameters, tools.store
    base = result_tree(step.inputs[0], store, at_hand)
    parts = installed_parts(read_blob(store, result(step.inputs[1], store)))
    unpacked = [Unpacked.from_bytes(read_blob(store, result(one, store))) for one in step.inputs[2:]]
    upper = []
    for part in parameters["parts"]:
        tree = Tree.from_bytes(read_blob(store, parts[part["part"]]))
        upper.append((str(part["created_by"]), _upon(tree, base, {**parameters, **part}, store)))
    shared = share_out(base, unpacked, upper, suite=parameters["suite"], budget=parameters["budget"])
    layers = [
        _packed(tree, tools, parameters, created_by, lowest=number == 0)
        for number, (created_by, tree) in enumerate(shared)
    ]
    return store.put([layers_to_bytes(layers)]).digest


def share_out(
    base: Tree, unpacked: Sequence[Unpacked], upper: Sequence[tuple[str, Tree]], *, suite: str, budget: int
) -> list[tuple[str, Tree]]:
    """What each layer says it is made by, and its entries, lowest first: the base's, `upper`'s, one of all the rest.

    `upper` are the layers that lie upon the base where it is one. The base's own are at most `budget`, the topmost one
    among them.
    """
    whole = Tree([*base.values(), *(entry for _, tree in upper for entry in tree.values())])
    sources = _sources(base, whole, unpacked)
    sizes: dict[str, int] = {}
    for path, source in sources.items():
        sizes[source] = sizes.get(source, 0) + base[path].size
    layers = []
    placed: set[str] = set()
    for group in grouped(sizes, budget - 1) if budget > 1 else []:
        paths = [path for path, source in sources.items() if source in group]
        placed.update(paths)
        layers.append((f"Debian {suite}: {', '.join(group)}", _alone(paths, base)))
    for created_by, tree in upper:
        paths = [path for path, entry in tree.items() if _is_carried(entry) and not path.startswith(f"{ADMIN}/")]
        placed.update(paths)
        layers.append((created_by, tree.where(_among(paths))))
    rest = whole.where(lambda entry: entry.path not in placed)
    return [*layers, (f"Debian {suite}: configuration and dpkg's database", rest)]


def installed_parts(data: bytes) -> dict[str, Digest]:
    """What was installed: the digest of each part's Tree, by name."""
    return {name: Digest.parse(text) for name, text in json.loads(data).items()}


def layers_to_bytes(layers: Iterable[Layer]) -> bytes:
    """Canonical JSON, for the store."""
    return canonical_json([json.loads(layer.to_bytes()) for layer in layers])


def layers_from_bytes(data: bytes) -> list[Layer]:
    """Read what `layers_to_bytes` wrote."""
    return [Layer.from_bytes(canonical_json(value)) for value in json.loads(data)]


def _packed(tree: Tree, tools: Tools, parameters: Mapping[str, Any], created_by: str, *, lowest: bool) -> Layer:
    epoch, compression = parameters["epoch"], parameters["compression"]
    layer = pack(tree, tools.store, created_by=created_by, epoch=epoch, compression=compression, lowest=lowest)
    if tools.ahead is not None:
        tools.ahead.packed([layer.descriptor])
    return layer


def _upon(tree: Tree, below: Tree, parameters: Mapping[str, Any], store: Store) -> Tree:
    """What a part adds to the base; with `register` dpkg knows it."""
    if said := parameters["register"]:
        said = Registration(**{**said, "depends": tuple(said["depends"])})
        if not any(path in below for path in _LDCONFIG):
            reader = files("builder.python").joinpath("ldconfig.py").read_bytes()
            tree = tree.with_entries([file(_LDCONFIG[0], reader, 0o755)])
        tree = registered(tree, below, said, store)
    return tree.dated(parameters["epoch"]).changes_since(below)


def _is_carried(entry: FileEntry) -> bool:
    return entry.kind is not Kind.DIRECTORY


def _among(paths: Iterable[str]) -> Callable[[FileEntry], bool]:
    """Whether an entry is one of these or a directory above one of them."""
    kept: set[str] = set()
    for path in paths:
        while path and path not in kept:
            kept.add(path)
            path = parent(path)  # noqa: PLW2901
    return lambda entry: entry.path in kept


def _alone(paths: Sequence[str], base: Tree) -> Tree:
    """These entries and the directories above them, whose times are the topmost layer's to say."""
    among = base.where(_among(paths))
    return Tree(replace(entry, mtime=0) if entry.kind is Kind.DIRECTORY else entry for entry in among.values())


def _sources(base: Tree, whole: Tree, unpacked: Sequence[Unpacked]) -> dict[str, str]:
    """path -> source package of what the image has of a package as that package brought it."""
    blobs: dict[Digest, str] = {}
    links: dict[tuple[str, str], str] = {}
    stems: dict[str, str] = {}
    for one in unpacked:
        source = one.package.source
        stems |= {f"{one.package.name}:{one.package.architecture}": source, one.package.name: source}
        for entry in one.tree.values():
            if isinstance(entry.content, Slice):
                blobs[entry.content.blob] = source
            elif entry.kind is Kind.SYMLINK:
                links[base.resolve(entry.path), entry.link] = source

    def source_of(entry: FileEntry) -> str | None:
        if isinstance(entry.content, Slice):
            return blobs.get(entry.content.blob)
        if entry.kind is Kind.SYMLINK:
            return links.get((entry.path, entry.link))
        if entry.kind is Kind.HARDLINK:
            target = whole.get(entry.link)
            return None if target is None or target.kind is Kind.HARDLINK else source_of(target)
        return _of_the_database(entry.path, stems)

    found = ((path, source_of(entry)) for path, entry in base.items() if whole[path] == entry)
    return {path: source for path, source in found if source is not None}


def _of_the_database(path: str, stems: Mapping[str, str]) -> str | None:
    """The source of a file that dpkg keeps for one package."""
    for directory in (f"{ADMIN}/info", STATUS_FILES):
        if parent(path) == directory:
            name = path.removeprefix(f"{directory}/")
            return stems.get(name) or stems.get(name.rpartition(".")[0])
    return None
