"""Sources: an image that was found -> where what is pushed lies (`registry.source`), be it a layout, an archive or a
registry.

Law: reads. A layout's blobs are uploaded from where they lie; an archive's go by the store, where an upload can move
about in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from builder.finding import FoundImage
from builder.oci.descriptor import REF_NAME, SIZE_LIMIT, Descriptor
from builder.oci.layout import COSIGN_TAG
from builder.oci.manifest import Index
from builder.oci.mediatypes import DOCUMENTS, INDEXES
from builder.registry.referrers import cosign_tags, subject_of
from builder.registry.source import Source, registry_source
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, UsageError
from rootfs.ports import Reporter, Store, Upload


def source_of(found: FoundImage, store: Store) -> Source:
    """Where a found image, and what is attached to it, is had from."""
    if found.registry is not None:
        return replace(registry_source(found.registry), fetch=found.fetch)
    about = _Attached(found)
    return Source(
        name=found.name,
        fetch=found.fetch,
        body=lambda blob: Upload(open=lambda: _opened(found, blob, store), size=blob.size),
        holds=found.holds,
        attached=about.referrers,
        tagged=about.tagged,
    )


def part_of(found: FoundImage, platforms: Sequence[str], reporter: Reporter, *, one: bool = False) -> FoundImage:
    """What is meant of a found image: all of an index, or what these platforms are of it; just `one` is this machine's
    where none is named. See `narrowed`.
    """
    if not platforms and not (one and found.descriptor.media_type in INDEXES):
        return found
    from builder.narrow import narrowed  # noqa: PLC0415 (most images are no index, or all of it is meant)

    return narrowed(found, platforms, reporter, one=one)


def _opened(found: FoundImage, blob: Descriptor, store: Store) -> BinaryIO:
    if found.layout is None:
        if not store.exists(blob.digest):
            store.put(found.fetch(blob), expect=blob.digest, size=blob.size)
        return store.open(blob.digest)
    path = _path(found.layout, blob)
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise IntegrityError("the layout lacks a blob", at=str(path)) from error
    if (size := path.stat().st_size) != blob.size:
        stream.close()
        raise IntegrityError("size differs", at=str(path), because=f"expected {blob.size} bytes, got {size}")
    return stream


def _path(layout: Path, blob: Descriptor) -> Path:
    return layout / "blobs" / blob.digest.algorithm / blob.digest.hex


class _Attached:
    """What a layout, or an archive of one, lists about others; read when it is first asked for."""

    def __init__(self, found: FoundImage) -> None:
        self._found = found
        self._about: dict[Digest, dict[Digest, Descriptor]] | None = None

    def referrers(self, subject: Digest) -> Sequence[Descriptor]:
        """What has this manifest as its subject, also what only a referrers index lists."""
        if self._about is None:
            about_whom: dict[Digest, dict[Digest, Descriptor]] = {}
            for one in self._documents(self._found.listed):
                about = subject_of(self._read(one))
                if about is not None:
                    plain = replace(one, annotations={})
                    about_whom.setdefault(about, {})[one.digest] = plain
            self._about = about_whom  # at once: who asks meanwhile must not see a part
        return tuple(self._about.get(subject, {}).values())

    def tagged(self, subject: Digest) -> Sequence[Descriptor]:
        """What cosign's tags name."""
        names = cosign_tags(subject)
        tags = [(one, one.annotations.get(REF_NAME) or one.annotations.get(COSIGN_TAG)) for one in self._found.listed]
        return [replace(one, annotations={REF_NAME: tag}) for one, tag in tags if tag in names]

    def _documents(self, listed: Iterable[Descriptor]) -> Iterable[Descriptor]:
        """Manifests and indexes that are listed, and what the indexes of referrers among them list."""
        for one in listed:
            if one.media_type not in DOCUMENTS:
                continue
            yield one
            if one.media_type in INDEXES:
                yield from (
                    child
                    for child in Index.parse(self._read(one), one.media_type).manifests
                    if child.media_type in DOCUMENTS and self._found.holds(child)
                )

    def _read(self, one: Descriptor) -> bytes:
        if one.size > SIZE_LIMIT:
            raise IntegrityError("document is too large", at=str(one.digest), because=f"{one.size} bytes")
        return b"".join(self._found.fetch(one))


def tag_of(found: FoundImage) -> str:
    """The name of an image in its layout, where it may be a tag, or its tag in a registry; else UsageError."""
    tag = found.registry.reference.tag if found.registry else None
    name = tag or found.descriptor.annotations.get(REF_NAME, "")
    if not name:
        raise UsageError("no tag to push to", at=found.name, hint="write host/repository:tag, or --tag TAG")
    return name
