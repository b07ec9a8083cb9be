"""Docker: an image under Docker's media types, or back under OCI's, for who asks for it (image manifest V2, schema 2).

Law: changes documents, never a layer: the same blobs under other names. Docker's schema has no annotations, artifacts
or subjects, and no name for a layer that is not gzip: what cannot be said in it is refused, annotations are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from builder.oci.descriptor import MANIFEST, Descriptor
from builder.oci.manifest import Index, Manifest, parse
from builder.oci.mediatypes import DOCKER_NAMES, OCI_NAMES
from rootfs.errors import UsageError
from rootfs.ports import Store, read_blob

Schema = Literal["oci", "docker"]

_NAMES: Mapping[Schema, Mapping[str, str]] = MappingProxyType({"docker": DOCKER_NAMES, "oci": OCI_NAMES})


def converted(descriptor: Descriptor, store: Store, schema: Schema) -> Descriptor:
    """Have a stored image or index in the store under that schema's media types; the same one when it has them.

    UsageError for what has no name there: in Docker's schema a zstd or uncompressed layer, an artifact, a subject.
    """
    names = _NAMES[schema]

    def named(one: Descriptor) -> Descriptor:
        if one.media_type in names.values():
            return one
        if one.media_type not in names:
            raise _nameless(one, schema)
        return replace(one, media_type=names[one.media_type], artifact_type=None)

    document = parse(descriptor.media_type, read_blob(store, descriptor.digest))
    if isinstance(document, Index):
        children = tuple(converted(child, store, schema) for child in document.manifests)
        other: Manifest | Index = replace(document, manifests=children)
    else:
        other = _manifest(document, named, descriptor, schema)
    other = replace(other, media_type=named(descriptor).media_type)
    if other == document:
        return descriptor
    if schema == "docker":
        other = _bare(other)
    data = other.to_bytes()
    store.put([data])
    return replace(named(descriptor), digest=Descriptor.of(MANIFEST, data).digest, size=len(data))


def _manifest(
    manifest: Manifest, named: Callable[[Descriptor], Descriptor], descriptor: Descriptor, schema: Schema
) -> Manifest:
    if schema == "docker" and (manifest.artifact_type or manifest.subject):
        what = "an artifact" if manifest.artifact_type else "a manifest with a subject"
        raise UsageError(f"{what} has no form in Docker's schema", at=str(descriptor.digest), hint="copy it as it is")
    return replace(manifest, config=named(manifest.config), layers=tuple(map(named, manifest.layers)))


def _bare(document: Manifest | Index) -> Manifest | Index:
    """Without the annotations, which Docker's schema does not have."""

    def plain(one: Descriptor) -> Descriptor:
        return replace(one, annotations={})

    if isinstance(document, Index):
        return replace(document, annotations={}, manifests=tuple(map(plain, document.manifests)))
    return replace(document, annotations={}, config=plain(document.config), layers=tuple(map(plain, document.layers)))


def _nameless(descriptor: Descriptor, schema: Schema) -> UsageError:
    hint = 'leave --format out, or build with compression = "gzip"' if schema == "docker" else "leave --format out"
    what = {"docker": "Docker's schema", "oci": "the OCI's specification"}[schema]
    return UsageError(
        f"no media type for this in {what}", at=str(descriptor.digest), because=descriptor.media_type, hint=hint
    )
