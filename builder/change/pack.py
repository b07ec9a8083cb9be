"""Pack: directories and tars at hand -> an image, one layer for each, in order.

Law: nothing of the host gets into the bytes but what the directories and tars hold themselves. Contents go straight
from where they lie into the compressed layer.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor, Platform
from builder.oci.edit import Edit
from builder.oci.image import assemble
from builder.oci.layer import Layer
from builder.oci.stream import Member, pack_stream
from builder.oci.tar import check_whiteout, header, refuse_whiteout
from rootfs.errors import HostError, UsageError
from rootfs.hosttree import Found, read_tree
from rootfs.ports import Reporter, Store
from rootfs.tarstream import read_tar
from rootfs.tree import Kind

_IDS = re.compile(r"(\d{1,10})(?::(\d{1,10}))?\Z", re.ASCII)
_HIGHEST = 0xFFFFFFFE  # the id above means "leave it" to chown(2)

QUICK: Mapping[str, str] = MappingProxyType({"gzip": "gzip:5", "zstd": "zstd:2"})
"""Levels for who waits: six sevenths of gzip 6's time for half a percent more, four fifths of zstd 3's for four."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose the files are in the image: (uid, gid), or who owns them where they lie (None)."""

    ids: tuple[int, int] | None

    @classmethod
    def parse(cls, text: str) -> Owner:
        """`keep`, `root`, `UID` or `UID:GID` in numbers; UsageError for anything else."""
        if text in ("keep", "root"):
            return cls(ids=None if text == "keep" else (0, 0))
        match = _IDS.match(text)
        ids = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
        if not all(0 <= number <= _HIGHEST for number in ids):
            raise UsageError(f"not an owner: {text!r:.80}", hint="write keep, root, or numbers: UID:GID")
        return cls(ids=ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How to pack. `epoch` (seconds) caps every mtime and is the image's time; without an `owner` everything in a
    directory becomes root's, and a tar's members keep theirs; `edit` says the rest of the config. A compression without
    a level has that of QUICK.
    """

    platform: Platform
    epoch: int = 0
    owner: Owner | None = None
    compression: str = "gzip"
    threads: int | None = None
    edit: Edit = field(default_factory=Edit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A directory or a tar: where it lies, or a stream it comes from; `name` is what it is called."""

    name: str
    path: Path
    stream: BinaryIO | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is none of the other."""
        return self.stream is None and self.path.is_dir()


def pack_image(sources: Sequence[Source], packing: Packing, store: Store, *, reporter: Reporter) -> Descriptor:
    """The image of these sources, the lowest first, in the store.

    The lowest layer begins with the root directory, 0755; that of a source is not taken, whose mode is often mktemp's.
    HostError when something cannot be read or changes meanwhile, IntegrityError for what a layer cannot hold.
    """
    layers = [
        pack_layer(source, packing, store, lowest=number == 0, reporter=reporter)
        for number, source in enumerate(sources)
    ]
    edit = packing.edit
    config = ImageConfig(
        platform=packing.platform,
        created=packing.epoch,
        env=tuple(f"{name}={value}" for name, value in edit.env.items()),
        entrypoint=edit.entrypoint or (),
        cmd=edit.cmd or (),
        user=edit.user or "",
        working_dir=edit.working_dir or "",
        labels={name: value for name, value in edit.labels.items() if value is not None},
        exposed_ports=tuple(sorted(edit.ports)),
        volumes=tuple(sorted(edit.volumes)),
        stop_signal=edit.stop_signal or "",
    )
    notes = {name: value for name, value in edit.annotations.items() if value is not None}
    image = assemble(layers, config, annotations=notes)
    for document in (image.config, image.manifest):
        store.put([document])
    return image.descriptor


def pack_layer(source: Source, packing: Packing, store: Store, *, lowest: bool, reporter: Reporter) -> Layer:
    """One source as a layer in the store; the `lowest` one of an image begins with the root directory.

    In any other one a tar's whiteouts are what they are in a layer. In a directory, and where there is nothing below,
    such a name is refused.
    """
    task = f"pack {source.name}"
    whiteouts = not lowest and not source.is_directory
    owner = packing.owner or Owner.parse("root" if source.is_directory else "keep")
    reporter.begin(task)
    result = "failed"
    try:
        with closing(_found(source, reporter)) as found:
            layer = pack_stream(
                _members(found, epoch=packing.epoch, ids=owner.ids, lowest=lowest, whiteouts=whiteouts),
                store,
                created_by="ocibuild pack",
                compression=QUICK.get(packing.compression, packing.compression),
                threads=packing.threads,
                on_block=lambda size: reporter.advance(task, size),
            )
        result = "done"
    finally:
        reporter.finish(task, result)
    return layer


def _found(source: Source, reporter: Reporter) -> Generator[Found, None, None]:
    """What is in a source, its content with it."""
    if source.is_directory:
        skip = lambda path, kind: reporter.note(f"{source.name}: {path} is left out: it is {kind}")  # noqa: E731
        yield from read_tree(source.path, on_skip=skip)
    elif source.stream is not None:
        yield from read_tar(source.stream, source.name)
    else:
        try:
            stream = source.path.open("rb")
        except OSError as error:
            raise HostError("cannot read", at=source.name, because=error.strerror) from error
        with stream:
            yield from read_tar(stream, source.name)


def _members(
    found: Iterable[Found], *, epoch: int, ids: tuple[int, int] | None, lowest: bool, whiteouts: bool
) -> Iterator[Member]:
    """The same as members of an archive."""
    if lowest:
        yield Member(header(path=b"./", kind=Kind.DIRECTORY, mode=0o755, mtime=epoch))
    for path, kind, mode, uid, gid, mtime, link, device, xattrs, size, content in found:
        if whiteouts:
            check_whiteout(path, is_empty=kind is Kind.FILE and not size)
        else:
            refuse_whiteout(path)
        block = header(
            path=path + b"/" if kind is Kind.DIRECTORY else path,
            kind=kind,
            mode=mode,
            uid=uid if ids is None else ids[0],
            gid=gid if ids is None else ids[1],
            size=size,
            mtime=mtime if mtime < epoch else epoch,
            link=link,
            device=device,
            xattrs=xattrs,
        )
        if content is None:
            yield Member(block)
        else:
            yield Member(block, size, content.fill, content.runs() if content.is_sparse else None)
