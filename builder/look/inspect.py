"""Inspect: what an image is, layer by layer, and what it costs, as JSON and as text for people.

Law: tells what is there; judges nothing, runs nothing, changes nothing. Sizes are bytes.
"""

# ruff: noqa: PLC0415 (costs are a part of what is shown only when they are asked for)

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.images import ReadImage
from builder.look.tables import shown, table
from builder.oci.config import History, rfc3339
from builder.oci.descriptor import REF_NAME, Descriptor
from rootfs.digest import Digest
from rootfs.ports import Store
from rootfs.tree import Kind, Tree

if TYPE_CHECKING:
    from builder.look.costs import Cost, Costs, PartCost, PythonCosts

_NOT_READ = (
    "layers stay in the registry: --packages, --files, --layers and --sizes fetch them and show what they hold\n"
)
_COUNTED = ("files", "bytes", "compressed")


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedLayer:
    """A layer; `unpacked` is the size of its tar archive, None when it is no longer in the store."""

    descriptor: Descriptor
    diff_id: Digest
    created_by: str
    unpacked: int | None

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        return {
            "digest": str(self.descriptor.digest),
            "diff_id": str(self.diff_id),
            "media_type": self.descriptor.media_type,
            "created_by": self.created_by,
            "compressed": self.descriptor.size,
            "unpacked": self.unpacked,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """An image, its layers lowest first, and, when they were asked for, its costs. `tree` is None when no layer was
    read, `attached` when nobody was asked.
    """

    image: ReadImage
    tree: Tree | None
    layers: tuple[InspectedLayer, ...]
    costs: Costs | None
    attached: tuple[Descriptor, ...] | None = None

    @property
    def compressed(self) -> int:
        """Bytes of all layers as they are stored and sent."""
        return sum(layer.descriptor.size for layer in self.layers)

    @property
    def unpacked(self) -> int | None:
        """Bytes of all layers' archives; None when one is not known."""
        sizes = [layer.unpacked for layer in self.layers]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def files(self) -> tuple[int | None, int | None]:
        """The files one sees in a container, each counted once: how many, and their bytes; None when not known."""
        if self.tree is None:
            return None, None
        entries = [entry for entry in self.tree.values() if entry.kind is not Kind.DIRECTORY]
        return len(entries), sum(entry.size for entry in entries)

    def to_value(self) -> dict[str, Any]:
        """The JSON value (docs/reference/inspect.md)."""
        config = self.image.config
        files, size = self.files
        totals = {"compressed": self.compressed, "unpacked": self.unpacked, "files": files, "size": size}
        value: dict[str, Any] = {
            "image": self.image.found.name,
            "digest": str(self.image.descriptor.digest),
            "platform": str(config.platform),
            "created": rfc3339(config.created),
            "entrypoint": list(config.entrypoint),
            "cmd": list(config.cmd),
            "env": list(config.env),
            "user": config.user,
            "working_dir": config.working_dir,
            "exposed_ports": list(config.exposed_ports),
            "volumes": list(config.volumes),
            "stop_signal": config.stop_signal,
            "labels": dict(config.labels),
            "annotations": dict(self.image.manifest.annotations),
            "history": [_history_value(entry) for entry in config.history],
            "layers": [layer.to_value() for layer in self.layers],
            "totals": totals,
        }
        if self.attached is not None:
            value["attached"] = [one.to_dict() for one in self.attached]
        return value if self.costs is None else value | {"sizes": self.costs.to_value()}

    def render(self) -> str:
        """The text for people."""
        text = io.StringIO()
        text.write(_facts(self.image))
        text.write(f"\n{_layers(self)}")
        if self.attached:
            text.write(_attached(self.attached))
        if self.costs is not None:
            text.write(_sizes(self.costs))
        return text.getvalue()


def inspect_image(image: ReadImage, tree: Tree | None, store: Store, *, sizes: bool) -> Inspection:
    """Look at an image; `tree` has its layers applied, whose contents are in the store. With `sizes`, for which there
    has to be one, at every file of it.
    """
    history = [entry.created_by for entry in image.config.history if not entry.empty_layer]
    if len(history) != len(image.manifest.layers):  # it says nothing then of which layer is meant
        history = [""] * len(image.manifest.layers)
    layers = tuple(
        InspectedLayer(descriptor=descriptor, diff_id=diff_id, created_by=by, unpacked=_unpacked(diff_id, store))
        for descriptor, diff_id, by in zip(image.manifest.layers, image.config.diff_ids, history, strict=True)
    )
    compressed = sum(layer.descriptor.size for layer in layers)
    found = None
    if sizes and tree is not None:
        from builder.look.costs import costs

        found = costs(tree, store, compressed=compressed)
    return Inspection(image=image, tree=tree, layers=layers, costs=found)


def _unpacked(diff_id: Digest, store: Store) -> int | None:
    """The size of a layer's archive; a layer of which no file is left may be gone from the store."""
    if not store.exists(diff_id):
        return None
    with store.open(diff_id) as stream:
        return stream.seek(0, io.SEEK_END)


def _history_value(entry: History) -> dict[str, Any]:
    created = None if entry.created is None else rfc3339(entry.created)
    return {
        "created": created,
        "created_by": entry.created_by,
        "comment": entry.comment,
        "empty_layer": entry.empty_layer,
    }


def _facts(image: ReadImage) -> str:
    """Name and value, a line each; what is not set is left out."""
    config = image.config
    facts: list[tuple[str, Iterable[str]]] = [
        ("image", [image.found.name]),
        ("digest", [str(image.descriptor.digest)]),
        ("platform", [str(config.platform)]),
        ("created", [rfc3339(config.created)]),
        ("entrypoint", [_words(config.entrypoint)]),
        ("cmd", [_words(config.cmd)]),
        ("env", config.env),
        ("user", [config.user]),
        ("working dir", [config.working_dir]),
        ("port", config.exposed_ports),
        ("volume", config.volumes),
        ("stop signal", [config.stop_signal]),
        ("label", [f"{name}={value}" for name, value in sorted(config.labels.items())]),
        ("annotation", [f"{name}={value}" for name, value in sorted(image.manifest.annotations.items())]),
    ]
    return "".join(f"{name:<12} {shown(value)}\n" for name, values in facts for value in values if value)


def _words(words: Iterable[str]) -> str:
    """Words as a shell would take them."""
    import shlex

    return shlex.join(words)


def _layers(inspection: Inspection) -> str:
    rows: list[tuple[str, ...]] = [
        (
            str(number),
            _number(layer.descriptor.size),
            _number(layer.unpacked),
            layer.descriptor.media_type.rpartition(".")[2],
            str(layer.diff_id),
            shown(layer.created_by),
        )
        for number, layer in enumerate(inspection.layers, 1)
    ]
    rows.append(("total", _number(inspection.compressed), _number(inspection.unpacked), "", "", ""))
    header = ("layer", "compressed", "unpacked", "media type", "diff id", "created by")
    files, size = inspection.files
    seen = f"{_number(files)} files of {_number(size)} bytes\n" if files is not None else _NOT_READ
    return table(header, rows, left=(0, 3, 4, 5)) + seen


def _attached(attached: Sequence[Descriptor]) -> str:
    from builder.trust.attach import PREDICATE_TYPE

    rows = [
        (
            shown(one.artifact_type or one.annotations.get(REF_NAME) or one.media_type),
            shown(one.annotations.get(PREDICATE_TYPE, "")),
            str(one.digest),
        )
        for one in attached
    ]
    return f"\n== What is attached\n{table(('type', 'predicate', 'digest'), rows, left=(0, 1, 2))}"


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _sizes(found: Costs) -> str:
    """Every table of the costs, behind a line that says what it is of."""
    sections = [
        ("Debian packages", _packages(found)),
        *((str(one.python), _python(one)) for one in found.pythons),
        ("Files of no package", _counted("directory", [row.cost for row in found.unowned])),
        ("What each rule would still save", _rules(found)),
    ]
    if not found.pythons:
        sections.insert(1, ("CPython", "there is none\n"))
    return "".join(f"\n== {shown(title)}\n{text}" for title, text in sections)


def _packages(found: Costs) -> str:
    if not found.has_database:
        return "there is no dpkg database with files of this image\n"
    return _counted("package", found.packages)


def _counted(name: str, rows: Sequence[Cost]) -> str:
    """Rows and their total."""
    from builder.look.costs import total

    if not rows:
        return "none\n"
    lines = [*rows, total("total", rows)]
    return table((name, *_COUNTED), [(shown(row.name), *_counts(row)) for row in lines])


def _counts(row: Cost) -> tuple[str, str, str]:
    return _number(row.files), _number(row.size), _number(row.compressed)


def _python(one: PythonCosts) -> str:
    """Two tables: by kind, and part by part."""
    from builder.look.costs import total

    kinds: dict[str, list[Cost]] = {}
    for row in one.parts:
        kinds.setdefault(row.kind, []).append(row.cost)
    summed = sorted((total(kind, rows) for kind, rows in kinds.items()), key=lambda row: -row.size)
    rows: list[tuple[str, ...]] = [
        (shown(row.cost.name), row.kind, *_counts(row.cost), _number(row.bytecode), _needs(row)) for row in one.parts
    ]
    bytecode = _number(sum(row.bytecode for row in one.parts))
    rows.append(("total", "", *_counts(one.total), bytecode, ""))
    header = ("part", "kind", *_COUNTED, "of it .pyc", "needs")
    return _counted("kind", summed) + "\n" + table(header, rows, left=(0, 1, 6))


def _needs(row: PartCost) -> str:
    names = (one.name if one.path is not None else f"{one.name} (not there)" for one in row.needs)
    return shown(" ".join(names))


def _rules(found: Costs) -> str:
    if not found.rules:
        return "nothing\n"
    rows = [(name, _number(saved.entries), _number(saved.size)) for name, saved in found.rules.items()]
    return table(("rule", "files", "bytes"), rows)
