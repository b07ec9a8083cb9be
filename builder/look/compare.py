"""Compare: what changed from one image to another: packages, Pythons, files, config, layers.

Law: tells differences, judges none. Layers that both share are not read, and contents are compared by their digests
(`builder.oci.listing`), so nothing is unpacked. A file with several names is compared under each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from builder.images import ReadImage
from builder.look.installed import NOTHING, Installed, installed
from builder.look.listed import listed_tree, listings
from builder.oci.config import rfc3339
from builder.oci.descriptor import Descriptor
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.tree import FileEntry, Kind, Slice, Tree, path_order

Aspect = Literal["kind", "content", "mode", "owner", "link", "device", "xattrs", "mtime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A path that is not the same: None where it is not there, and what differs when it is in both."""

    path: str
    before: FileEntry | None
    after: FileEntry | None
    aspects: tuple[Aspect, ...] = ()

    @property
    def growth(self) -> int:
        """By how many bytes of content the image is larger now."""
        return (self.after.size if self.after else 0) - (self.before.size if self.before else 0)

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        before, after = _file_value(self.before), _file_value(self.after)
        return {"path": self.path, "change": self.sort, "aspects": list(self.aspects), "before": before, "after": after}

    @property
    def sort(self) -> str:
        """`added`, `removed` or `changed`."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionChange:
    """A package, CPython or distribution that is not the same: version and bytes, None where it is not there."""

    name: str
    before: str | None
    after: str | None
    size_before: int | None = None
    size_after: int | None = None

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """A member of the config that is not the same; None where it is not set."""

    name: str
    before: Any
    after: Any

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        return {"name": self.name, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """A layer of either image. It is shared when the other has the same blob, or the same files in another one."""

    descriptor: Descriptor
    diff_id: Digest
    where: Literal["both", "before", "after"]
    same_files: bool

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        return {
            "digest": str(self.descriptor.digest),
            "diff_id": str(self.diff_id),
            "media_type": self.descriptor.media_type,
            "size": self.descriptor.size,
            "where": self.where,
            "same_files": self.same_files,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What changed. `retimed` counts the files that differ in nothing but their time; they are among `files` only when
    times were asked for. `fetched` is what a puller of `after` who has `before` still needs, in bytes.
    """

    before: ReadImage
    after: ReadImage
    packages: tuple[VersionChange, ...]
    pythons: tuple[VersionChange, ...]
    distributions: tuple[VersionChange, ...]
    files: tuple[FileChange, ...]
    retimed: int
    config: tuple[ConfigChange, ...]
    layers: tuple[LayerRow, ...]
    fetched: int

    def to_value(self) -> dict[str, Any]:
        """The JSON value (docs/reference/diff.md)."""
        return {
            "before": {"image": self.before.found.name, "digest": str(self.before.descriptor.digest)},
            "after": {"image": self.after.found.name, "digest": str(self.after.descriptor.digest)},
            "packages": [one.to_value() for one in self.packages],
            "pythons": [one.to_value() for one in self.pythons],
            "distributions": [one.to_value() for one in self.distributions],
            "files": [one.to_value() for one in self.files],
            "retimed": self.retimed,
            "config": [one.to_value() for one in self.config],
            "layers": [one.to_value() for one in self.layers],
            "fetched": self.fetched,
        }


def compare(before: ReadImage, after: ReadImage, tools: Tools, *, times: bool = False) -> Comparison:
    """What changed from one image to the other; with `times`, files that differ only in their mtime, too.

    IntegrityError when a layer that has to be read is not what its digest, size or diff id say.
    """
    changes: list[FileChange] = []
    of_old = of_new = NOTHING
    if before.config.diff_ids != after.config.diff_ids:
        known = listings((before, after), tools)
        old, new = listed_tree(before, known), listed_tree(after, known)
        changes = list(file_changes(old, new))
        of_old, of_new = (
            installed(tree, tools.store, dict(pair.split("=", 1) for pair in image.config.env))
            for tree, image in ((old, before), (new, after))
        )
    return Comparison(
        before=before,
        after=after,
        packages=tuple(_packages(of_old, of_new)),
        pythons=tuple(_versions(of_old.pythons, of_new.pythons)),
        distributions=tuple(_versions(of_old.distributions, of_new.distributions)),
        files=tuple(one for one in changes if times or one.aspects != ("mtime",)),
        retimed=sum(one.aspects == ("mtime",) for one in changes),
        config=tuple(_config(before, after)),
        layers=tuple(_layers(before, after)),
        fetched=_fetched(before, after),
    )


def file_changes(before: Tree, after: Tree) -> Iterator[FileChange]:
    """Every path that is not the same, in path order; a directory's time is none of it, nor its size."""
    paths = (path for path in {*before, *after} if before.get(path) != after.get(path) or before[path].link)
    for path in sorted(paths, key=path_order):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            yield FileChange(path=path, before=old, after=new)
            continue
        aspects = tuple(_aspects(_file(before, old), _file(after, new)))
        if aspects and not (aspects == ("mtime",) and new.kind is Kind.DIRECTORY):
            yield FileChange(path=path, before=old, after=new, aspects=aspects)


def _file(tree: Tree, entry: FileEntry) -> FileEntry:
    """The entry, of a hard link with all that is the file's; `link` keeps naming which file that is."""
    return replace(tree[entry.link], link=entry.link) if entry.kind is Kind.HARDLINK else entry


def _aspects(old: FileEntry, new: FileEntry) -> Iterator[Aspect]:
    if old.kind is not new.kind:
        yield "kind"
    if content_of(old) != content_of(new):
        yield "content"
    if old.mode != new.mode:
        yield "mode"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield "owner"
    if old.link != new.link:
        yield "link"
    if old.device != new.device:
        yield "device"
    if old.xattrs != new.xattrs:
        yield "xattrs"
    if old.mtime != new.mtime:
        yield "mtime"


def content_of(entry: FileEntry) -> Digest | None:
    """The digest of a content in a Tree made of listings; None when there is none."""
    if isinstance(entry.content, Slice):
        return entry.content.blob
    return Digest.of(entry.content) if entry.content else None


def _versions(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[VersionChange]:
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield VersionChange(name=name, before=before.get(name), after=after.get(name))


def _packages(before: Installed, after: Installed) -> Iterator[VersionChange]:
    """The packages of which version or bytes differ, by name; what no package owns last."""
    for name in sorted({*before.packages, *after.packages}):
        old, new = before.packages.get(name), after.packages.get(name)
        if old is None or new is None or (old.version, old.size) != (new.version, new.size):
            yield VersionChange(
                name=name,
                before=old.version if old else None,
                after=new.version if new else None,
                size_before=old.size if old else None,
                size_after=new.size if new else None,
            )


def _config(before: ReadImage, after: ReadImage) -> Iterator[ConfigChange]:
    """Variables, labels and annotations one by one, all else as a whole; diff ids and history are the layers'."""
    old, new = _config_value(before), _config_value(after)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield ConfigChange(name=name, before=old.get(name), after=new.get(name))


def _config_value(image: ReadImage) -> dict[str, Any]:
    config = image.config
    value: dict[str, Any] = {
        "platform": str(config.platform),
        "created": rfc3339(config.created),
        "entrypoint": list(config.entrypoint),
        "cmd": list(config.cmd),
        "user": config.user,
        "working_dir": config.working_dir,
        "exposed_ports": list(config.exposed_ports),
        "stop_signal": config.stop_signal,
    }
    value |= {f"env {name}": text for name, _, text in (pair.partition("=") for pair in config.env)}
    value |= {f"label {name}": text for name, text in config.labels.items()}
    value |= {f"annotation {name}": text for name, text in image.manifest.annotations.items()}
    return {name: one for name, one in value.items() if one}


def _layers(before: ReadImage, after: ReadImage) -> Iterator[LayerRow]:
    """The layers of the later image, lowest first, then those that only the earlier one has."""
    ids = {*before.config.diff_ids} & {*after.config.diff_ids}
    olds = {layer.digest for layer in before.manifest.layers}
    for layer, diff_id in after.layers:
        where: Literal["both", "after"] = "both" if layer.digest in olds else "after"
        yield LayerRow(descriptor=layer, diff_id=diff_id, where=where, same_files=diff_id in ids)
    news = {layer.digest for layer in after.manifest.layers}
    for layer, diff_id in before.layers:
        if layer.digest not in news:
            yield LayerRow(descriptor=layer, diff_id=diff_id, where="before", same_files=diff_id in ids)


def _fetched(before: ReadImage, after: ReadImage) -> int:
    """Bytes of the blobs, manifest included, that the earlier image does not have."""
    known = {one.digest for one in (before.descriptor, *before.manifest.children)}
    sizes = {one.digest: one.size for one in (after.descriptor, *after.manifest.children)}
    return sum(size for digest, size in sizes.items() if digest not in known)


def _file_value(entry: FileEntry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    content = content_of(entry)
    value: dict[str, Any] = {
        "kind": entry.kind.value,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": entry.mtime,
        "digest": content and str(content),
    }
    if entry.link:
        value["link"] = entry.link
    if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
        value["device"] = list(entry.device)
    if entry.xattrs:
        value["xattrs"] = {name: data.hex() for name, data in entry.xattrs}
    return value
