"""Manifest and index: what an image, or several images of one name, consist of (image-spec 1.1, manifest.md,
image-index.md).

Law: pure; bytes to values and back. Bytes leave as canonical JSON, so equal values have equal digests. Docker's forms
of the two (schema 2) are read as what they are: the same documents under other media types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.oci.descriptor import EMPTY, INDEX, MANIFEST, Descriptor, Fields, read_object
from builder.oci.mediatypes import INDEXES, MANIFESTS, SCHEMA1
from rootfs.digest import canonical_json
from rootfs.errors import IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image (config and layers, lowest first), or an artifact with its type and the subject it is about."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None
    subject: Descriptor | None = None
    media_type: str = MANIFEST

    def __post_init__(self) -> None:
        if self.config.media_type == EMPTY and not self.artifact_type:
            raise IntegrityError("a manifest with an empty config has no `artifactType`", at="manifest")

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """Everything the manifest needs to be whole; the subject is not among it."""
        return (self.config, *self.layers)

    @classmethod
    def parse(cls, data: bytes, media_type: str = MANIFEST) -> Manifest:
        """Read a manifest's bytes; IntegrityError for anything else, or more than 4 MiB."""
        fields = _read(data, media_type, foreign=("manifests",))
        fields.required("layers")
        return cls(
            config=Descriptor.from_dict(fields.required("config"), "manifest.config"),
            layers=tuple(Descriptor.from_dict(value, at) for value, at in fields.items("layers")),
            annotations=fields.table("annotations"),
            artifact_type=fields.optional("artifactType", str) or None,
            subject=Descriptor.from_dict(fields.required("subject"), "manifest.subject")
            if "subject" in fields
            else None,
            media_type=media_type,
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON, without the members that are not set."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.subject:
            value["subject"] = self.subject.to_dict()
        return canonical_json(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several manifests: the platforms of one image, the references of a layout, the referrers of a subject."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    media_type: str = INDEX

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """Everything the index needs to be whole."""
        return self.manifests

    @classmethod
    def parse(cls, data: bytes, media_type: str = INDEX) -> Index:
        """Read an index's bytes; IntegrityError for anything else, or more than 4 MiB."""
        fields = _read(data, media_type, foreign=("config", "layers"))
        fields.required("manifests")
        return cls(
            manifests=tuple(Descriptor.from_dict(value, at) for value, at in fields.items("manifests")),
            annotations=fields.table("annotations"),
            media_type=media_type,
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON, without the members that are not set."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_dict() for manifest in self.manifests],
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return canonical_json(value)


def parse(media_type: str, data: bytes) -> Manifest | Index:
    """Read the bytes a descriptor with this media type points to; IntegrityError for other media types."""
    if media_type in MANIFESTS:
        return Manifest.parse(data, media_type)
    if media_type in INDEXES:
        return Index.parse(data, media_type)
    if media_type in SCHEMA1:
        hint = "push the image anew with a tool of the last ten years, as in `skopeo copy --format v2s2`"
        raise IntegrityError(
            "a manifest of Docker's first schema, which nobody verifies", because=media_type, hint=hint
        )
    raise IntegrityError("neither an image manifest nor an image index", because=f"its media type is {media_type}")


def _read(data: bytes, media_type: str, foreign: tuple[str, ...]) -> Fields:
    fields = read_object(data, "index" if media_type in INDEXES else "manifest")
    if fields.integer("schemaVersion") != 2:
        raise IntegrityError("`schemaVersion` is not 2", at=fields.at)
    found = fields.optional("mediaType", str) or media_type
    if found != media_type:
        raise IntegrityError("`mediaType` is another one", at=fields.at, because=f"expected {media_type}, got {found}")
    for name in foreign:  # one document must not be read as two things (CVE-2021-41190)
        if name in fields:
            raise IntegrityError(f"`{name}` does not belong here", at=fields.at)
    return fields
