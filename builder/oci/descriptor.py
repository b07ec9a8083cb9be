"""Descriptor: the only pointer in the system (image-spec 1.1, descriptor.md, media-types.md).

Law: pure values, and the strict reading of OCI JSON that every module above shares. Knows nothing of stores or
registries, nor of what the bytes behind a descriptor mean (`builder.oci.mediatypes`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from rootfs.digest import Digest
from rootfs.errors import IntegrityError

if TYPE_CHECKING:
    from rootfs.architecture import Architecture

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
EMPTY = "application/vnd.oci.empty.v1+json"

REF_NAME = "org.opencontainers.image.ref.name"

SIZE_LIMIT = 4 << 20  # distribution-spec, "Pushing Manifests": what every registry must take

_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}\Z")  # RFC 6838, section 4.2

_T = TypeVar("_T")


class Fields:
    """A JSON object read strictly: a member has the type asked for, or IntegrityError names its path.

    Members that nobody asks for are ignored, as the specification demands (considerations.md, "Extensibility");
    null is taken for absent, because Go's encoders write it for an empty list.
    """

    def __init__(self, value: object, at: str) -> None:
        if not isinstance(value, dict):
            raise IntegrityError("not a JSON object", at=at)
        self.at = at
        self._members: dict[str, Any] = value

    def __contains__(self, name: str) -> bool:
        return self._members.get(name) is not None

    def required(self, name: str) -> object:
        """A member of any type that must be there."""
        if name not in self:
            raise IntegrityError(f"`{name}` is missing", at=self.at)
        return self._members[name]

    def text(self, name: str) -> str:
        """A string that must be there."""
        return self._typed(self.required(name), str, name)

    def optional(self, name: str, kind: type[_T]) -> _T | None:
        """A value of that type, or None."""
        return self._typed(self._members[name], kind, name) if name in self else None

    def integer(self, name: str) -> int:
        """An integer that must be there."""
        return self._typed(self.required(name), int, name)

    def digest(self, name: str) -> Digest:
        """A digest that must be there."""
        return _digest(self.text(name), f"{self.at}.{name}")

    def items(self, name: str) -> list[tuple[object, str]]:
        """The values of a list, each with its path; [] when absent."""
        values = self.optional(name, list) or []
        return [(value, f"{self.at}.{name}[{number}]") for number, value in enumerate(values)]

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; () when absent."""
        return tuple(self._typed(value, str, f"{name}[{n}]") for n, (value, _) in enumerate(self.items(name)))

    def digests(self, name: str) -> tuple[Digest, ...]:
        """A list of digests; () when absent."""
        return tuple(_digest(text, f"{self.at}.{name}[{n}]") for n, text in enumerate(self.texts(name)))

    def table(self, name: str) -> dict[str, str]:
        """An object whose values are strings; {} when absent."""
        table = self.optional(name, dict) or {}
        return {key: self._typed(value, str, f"{name}[{key}]") for key, value in table.items()}

    def child(self, name: str) -> Fields:
        """An object that must be there."""
        return Fields(self.required(name), f"{self.at}.{name}")

    def _typed(self, value: object, kind: type[_T], name: str) -> _T:
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise IntegrityError(f"`{name}` is not of type {kind.__name__}", at=self.at, because=f"it is {value!r:.80}")
        return value


def read_object(data: bytes, at: str) -> Fields:
    """The JSON object in `data`; IntegrityError for other JSON, a name given twice, or more than `SIZE_LIMIT`."""
    if len(data) > SIZE_LIMIT:
        raise IntegrityError("document is too large", at=at, because=f"{len(data)} bytes, {SIZE_LIMIT} are allowed")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # an unpaired surrogate is no text
    except (ValueError, RecursionError) as error:
        raise IntegrityError("document cannot be read", at=at, because=f"not strict JSON: {error}") from error
    return Fields(value, at)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return members


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _digest(text: str, at: str) -> Digest:
    try:
        return Digest.parse(text)
    except IntegrityError as error:
        raise IntegrityError(error.message, at=at, hint=error.hint) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What an image runs on, in Go's words (image-index.md, `platform`); the OS is `linux` throughout ocibuild."""

    os: str = "linux"
    architecture: str
    variant: str | None = None

    @classmethod
    def from_fields(cls, fields: Fields) -> Platform:
        """Read from an index's `platform` or an image config: both use the same three names."""
        return cls(
            os=fields.text("os"),
            architecture=fields.text("architecture"),
            variant=fields.optional("variant", str) or None,
        )

    @classmethod
    def of(cls, architecture: Architecture) -> Platform:
        """The platform that a Debian architecture runs on."""
        return cls(architecture=architecture.oci, variant=architecture.variant)

    def to_dict(self) -> dict[str, str]:
        """The JSON value; `variant` only when there is one."""
        value = {"os": self.os, "architecture": self.architecture}
        return value | ({"variant": self.variant} if self.variant else {})

    def __str__(self) -> str:
        return "/".join(self.to_dict().values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Media type, digest and size (bytes) of a blob, and what else its referrer says of it."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    artifact_type: str | None = None
    urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for media_type in (self.media_type, self.artifact_type):
            if media_type is not None and not _MEDIA_TYPE.match(media_type):
                raise IntegrityError(f"not a media type: {media_type!r:.80}", at=str(self.digest))
        if self.size < 0:
            raise IntegrityError(f"not a size in bytes: {self.size}", at=str(self.digest))

    @classmethod
    def of(cls, media_type: str, data: bytes) -> Descriptor:
        """The descriptor of bytes at hand."""
        return cls(media_type=media_type, digest=Digest.of(data), size=len(data))

    @classmethod
    def from_dict(cls, value: object, at: str = "descriptor") -> Descriptor:
        """Read a JSON value; IntegrityError with its path when a member is missing or of the wrong type."""
        fields = Fields(value, at)
        return cls(
            media_type=fields.text("mediaType"),
            digest=fields.digest("digest"),
            size=fields.integer("size"),
            annotations=fields.table("annotations"),
            platform=Platform.from_fields(fields.child("platform")) if "platform" in fields else None,
            artifact_type=fields.optional("artifactType", str),
            urls=fields.texts("urls"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON value, without the members that are not set."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform:
            value["platform"] = self.platform.to_dict()
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.urls:
            value["urls"] = list(self.urls)
        return value


Fetch = Callable[[Descriptor], Iterator[bytes]]
"""The bytes of a blob; raises IntegrityError, at the latest at their end, when they are not the described ones."""


def verified(chunks: Iterable[bytes], descriptor: Descriptor, at: str) -> Iterator[bytes]:
    """The chunks of a blob; IntegrityError, at the latest at their end, when they are not the described bytes."""
    hasher = hashlib.new(descriptor.digest.algorithm)
    size = 0
    for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
        if size > descriptor.size:
            break
        yield chunk
    got = Digest(descriptor.digest.algorithm, hasher.hexdigest())
    if size != descriptor.size or got != descriptor.digest:
        raise IntegrityError(
            "digest differs" if size == descriptor.size else "size differs",
            at=at,
            because=f"expected {descriptor.digest} of {descriptor.size} bytes, got {got} of {size} bytes",
        )
