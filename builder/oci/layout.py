"""Image layout: a directory that holds images as files (image-spec 1.1, image-layout.md).

Law: copies whole blobs and keeps `index.json`; what layers contain is not its business. Blobs come first and
`index.json` last, each renamed into place when it is on the disk, so that a reader finds every blob of every name.
One writer at a time: who comes meanwhile waits, so that no name is lost.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from builder.oci.descriptor import INDEX, REF_NAME, SIZE_LIMIT, Descriptor, read_object
from builder.oci.manifest import Index, parse
from builder.oci.mediatypes import DOCUMENTS, FOREIGN
from rootfs.digest import Digest, canonical_json
from rootfs.errors import HostError, IntegrityError, UsageError
from rootfs.files import host_error, replacing
from rootfs.ports import Store, read_blob

VERSION = "1.0.0"
IMAGE_NAME = "io.containerd.image.name"
"""An annotation: the name that containerd, and Docker from 25 on, give the image when they import it."""
COSIGN_TAG = "vnd.ocibuild.tag"
"""An annotation: the tag that cosign gave this entry of an archive. What has a name there, containerd unpacks."""

_DEEPEST = 32  # an index, its manifests and their layers are three
_COMPONENT = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")  # annotations.md, org.opencontainers.image.ref.name
_REFERRERS = re.compile(r"sha(256|512)-[0-9a-f]{64}(\.(sig|att|sbom))?\Z")  # the ends are cosign's


def write_layout(directory: Path, store: Store, manifest: Descriptor, *, ref_name: str) -> None:
    """Add a manifest or index of the store, and all it refers to, to a layout under a name.

    The directory is made when it is not there; other names in it stay, the same name is moved. Blobs are hard links
    to the store's files where the file system allows, else copies. UsageError for a bad name or a directory that
    holds something else; IntegrityError for a blob that is missing or has the wrong size; HostError from the disk.
    """
    check_name(ref_name)
    try:
        with _alone(directory):
            for descriptor in closure(store, manifest):
                _add_blob(directory, store, descriptor)
            named = replace(manifest, annotations={**manifest.annotations, REF_NAME: ref_name}).to_dict()
            others = [e for e in _entries(directory) if (e.get("annotations") or {}).get(REF_NAME) != ref_name]
            _list(directory, [*others, named])
    except OSError as error:
        raise host_error(error, directory) from error


def relist(directory: Path, store: Store, *, add: Sequence[Descriptor], drop: AbstractSet[Digest]) -> None:
    """List manifests and indexes of the store in a layout as they are, with all they refer to; unlist those in `drop`.

    Everything else stays; blobs do, too. Errors are those of `write_layout`.
    """
    revise(directory, store, lambda: (add, drop))


def revise(
    directory: Path, store: Store, revision: Callable[[], tuple[Sequence[Descriptor], AbstractSet[Digest]]]
) -> None:
    """`relist` what `revision` gives, which may read the layout to say so: nobody writes to it meanwhile."""
    try:
        with _alone(directory):
            add, drop = revision()
            for descriptor in add:
                for part in closure(store, descriptor):
                    _add_blob(directory, store, part)
            gone = {str(digest) for digest in (*drop, *(one.digest for one in add))}
            others = [entry for entry in _entries(directory) if entry["digest"] not in gone]
            _list(directory, [*others, *(one.to_dict() for one in add)])
    except OSError as error:
        raise host_error(error, directory) from error


def referrers_tag(digest: Digest) -> str:
    """The name of the index that lists what refers to a manifest (distribution-spec 1.1, "Referrers Tag Schema")."""
    return f"{digest.algorithm}-{digest.hex[:64]}"


def is_attached(listed: Descriptor) -> bool:
    """Whether an entry of a layout is there for another's sake: an artifact without a name, or a referrers index."""
    name = listed.annotations.get(REF_NAME) or listed.annotations.get(COSIGN_TAG, "")
    return bool(_REFERRERS.match(name)) or (listed.artifact_type is not None and not name)


def read_layout(directory: Path) -> Index:
    """The layout's `index.json`; IntegrityError when the directory is not an image layout."""
    try:
        check_version(_head(directory / "oci-layout"), str(directory))
        return Index.parse(_head(directory / "index.json"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IntegrityError("not an image layout", at=str(directory), because=str(error)) from error
    except OSError as error:
        raise HostError("cannot read the image layout", at=str(directory), because=str(error)) from error


def _head(path: Path) -> bytes:
    """A document's bytes, and of one that is too large no more than shows it."""
    with path.open("rb") as stream:
        return stream.read(SIZE_LIMIT + 1)


def check_version(marker: bytes, at: str) -> None:
    """IntegrityError unless a layout's `oci-layout` says that it is one of the version known here."""
    version = read_object(marker, "oci-layout").text("imageLayoutVersion")
    if version != VERSION:
        raise IntegrityError("unknown image layout version", at=at, because=f"it is {version}")


def closure(store: Store, descriptor: Descriptor) -> Iterator[Descriptor]:
    """What a stored descriptor leads to, each digest once, children first, itself last; foreign layers only when they
    are here. IntegrityError for indexes within indexes without end.
    """
    return _closure(store, descriptor, set(), 0)


def _closure(store: Store, descriptor: Descriptor, seen: set[Digest], depth: int) -> Iterator[Descriptor]:
    if descriptor.digest in seen:
        return
    seen.add(descriptor.digest)
    if depth > _DEEPEST:
        raise IntegrityError("indexes lie too deep in indexes", at=str(descriptor.digest))
    if descriptor.media_type in DOCUMENTS:
        for child in parse(descriptor.media_type, read_blob(store, descriptor.digest)).children:
            yield from _closure(store, child, seen, depth + 1)
    if descriptor.media_type not in FOREIGN or store.exists(descriptor.digest):
        yield descriptor


def check_name(ref_name: str) -> None:
    """UsageError unless it may be a reference name (annotations.md, org.opencontainers.image.ref.name)."""
    if not _REF.match(ref_name):
        raise UsageError(
            f"not a reference name: {ref_name!r}", hint="use letters and digits, separated by one of -._:@+/"
        )


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """The directory is a layout, and nobody else writes to it in this block: flock(2), where the file system has it."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _prepare(directory)
        yield
    finally:
        os.close(descriptor)


def _prepare(directory: Path) -> None:
    """Make the directory a layout without names; if it is one already, make sure that its names can be read."""
    marker = directory / "oci-layout"
    if not marker.exists():
        if any(directory.iterdir()):
            raise UsageError(
                "directory holds something other than an image layout",
                at=str(directory),
                hint="choose a new or an empty directory",
            )
        with replacing(marker) as stream:
            stream.write(canonical_json({"imageLayoutVersion": VERSION}))
    elif (directory / "index.json").exists():
        read_layout(directory)


def _entries(directory: Path) -> list[dict[str, Any]]:
    """The descriptors of `index.json` as they stand there: members unknown to us must survive."""
    index = directory / "index.json"
    entries: list[dict[str, Any]] = json.loads(index.read_bytes())["manifests"] if index.exists() else []
    return entries


def _list(directory: Path, entries: list[dict[str, Any]]) -> None:
    """Put these into `index.json`, and nothing else."""
    with replacing(directory / "index.json") as stream:
        stream.write(canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))


def _add_blob(directory: Path, store: Store, descriptor: Descriptor) -> None:
    target = directory / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex
    if target.exists() and target.stat().st_size == descriptor.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with store.open(descriptor.digest) as source:
        if not _linked(source, target):
            import shutil  # noqa: PLC0415 (most file systems link)

            with replacing(target, 0o444) as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
    size = target.stat().st_size
    if size != descriptor.size:
        target.unlink()
        because = f"expected {descriptor.size} bytes, got {size}"
        raise IntegrityError("blob has the wrong size", at=str(descriptor.digest), because=because)


def _linked(source: BinaryIO, target: Path) -> bool:
    """Whether the source is a file that `target` could become another name of."""
    name = getattr(source, "name", None)
    if not isinstance(name, str):
        return False
    try:
        target.hardlink_to(name)
    except OSError:  # another file system, one without links, or a file of another user: copy
        return False
    return True
