"""Image layout: a directory that holds images as files (image-spec 1.1, image-layout.md).

Law: copies whole blobs and keeps `index.json`; what layers contain is not its business. Blobs come first and
`index.json` last, each renamed into place when it is on the disk, so that a reader finds every blob of every name.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from builder.oci.descriptor import INDEX, MANIFEST, REF_NAME, Descriptor, read_object
from builder.oci.manifest import Index, parse
from rootfs.digest import canonical_json
from rootfs.errors import HostError, IntegrityError, UsageError
from rootfs.files import host_error, replacing
from rootfs.ports import Store, read_blob

_VERSION = "1.0.0"
_COMPONENT = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")  # annotations.md, org.opencontainers.image.ref.name


def write_layout(directory: Path, store: Store, manifest: Descriptor, *, ref_name: str) -> None:
    """Add a manifest or index of the store, and all it refers to, to a layout under a name.

    The directory is made when it is not there; other names in it stay, the same name is moved. Blobs are hard links
    to the store's files where the file system allows, else copies. UsageError for a bad name or a directory that
    holds something else; IntegrityError for a blob that is missing or has the wrong size; HostError from the disk.
    """
    if not _REF.match(ref_name):
        raise UsageError(
            f"not a reference name: {ref_name!r}", hint="use letters and digits, separated by one of -._:@+/"
        )
    try:
        _prepare(directory)
        for descriptor in _closure(store, manifest):
            _add_blob(directory, store, descriptor)
        named = replace(manifest, annotations={**manifest.annotations, REF_NAME: ref_name}).to_dict()
        others = [e for e in _entries(directory) if (e.get("annotations") or {}).get(REF_NAME) != ref_name]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*others, named]}
        with replacing(directory / "index.json") as stream:
            stream.write(canonical_json(index))
    except OSError as error:
        raise host_error(error, directory) from error


def read_layout(directory: Path) -> Index:
    """The layout's `index.json`; IntegrityError when the directory is not an image layout."""
    try:
        version = read_object((directory / "oci-layout").read_bytes(), "oci-layout").text("imageLayoutVersion")
        if version != _VERSION:
            raise IntegrityError("unknown image layout version", at=str(directory), because=f"it is {version}")
        return Index.parse((directory / "index.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IntegrityError("not an image layout", at=str(directory), because=str(error)) from error
    except OSError as error:
        raise HostError("cannot read the image layout", at=str(directory), because=str(error)) from error


def _prepare(directory: Path) -> None:
    """Make the directory a layout without names; if it is one already, make sure that its names can be read."""
    directory.mkdir(parents=True, exist_ok=True)
    marker = directory / "oci-layout"
    if not marker.exists():
        if any(directory.iterdir()):
            raise UsageError(
                "directory holds something other than an image layout",
                at=str(directory),
                hint="choose a new or an empty directory",
            )
        with replacing(marker) as stream:
            stream.write(canonical_json({"imageLayoutVersion": _VERSION}))
    elif (directory / "index.json").exists():
        read_layout(directory)


def _entries(directory: Path) -> list[dict[str, Any]]:
    """The descriptors of `index.json` as they stand there: members unknown to us must survive."""
    index = directory / "index.json"
    entries: list[dict[str, Any]] = json.loads(index.read_bytes())["manifests"] if index.exists() else []
    return entries


def _closure(store: Store, descriptor: Descriptor) -> Iterator[Descriptor]:
    """What a descriptor leads to, children first, itself last."""
    if descriptor.media_type in (MANIFEST, INDEX):
        for child in parse(descriptor.media_type, read_blob(store, descriptor.digest)).children:
            yield from _closure(store, child)
    yield descriptor


def _add_blob(directory: Path, store: Store, descriptor: Descriptor) -> None:
    target = directory / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex
    if target.exists() and target.stat().st_size == descriptor.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with store.open(descriptor.digest) as source:
        if not _linked(source, target):
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
