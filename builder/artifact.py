"""Profile artifact: a profile and what it fits, as an OCI artifact in a registry or as one file (image-spec 1.1).

Law: believes nothing it reads: every blob is checked against its descriptor, the tar against the digest its config
names, and it may hold nothing but counters; the counts of a layout, the second layer if there is one, likewise. Whether
a profile fits is not decided here. The file is an image layout in an uncompressed canonical tar (what skopeo and oras
read as an OCI archive), with the very manifest a registry gets.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import zstandard
from msgspec import Struct

from builder.lock import LockedProfile
from builder.oci.archive import read_archive, write_archive
from builder.oci.descriptor import LAYER_ZSTD, MANIFEST, REF_NAME, SIZE_LIMIT, Descriptor, Fetch
from builder.oci.manifest import Manifest
from builder.python.counters import members
from builder.python.layout import check
from builder.registry.client import Registry
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError
from rootfs.ports import Store, read_blob

ARTIFACT = "application/vnd.ocibuild.profile.v1"
CONFIG = "application/vnd.ocibuild.profile.config.v1+json"
COUNTS = "application/vnd.ocibuild.profile.layout.v1+zstd"

_TITLE = "org.opencontainers.image.title"  # the name under which oras writes a layer
_LAYERS = ((LAYER_ZSTD, "profile.tar.zst"), (COUNTS, "layout.fdata.zst"))
_LEVEL = 19
_LIMIT = 64 << 20  # bytes of a profile, twenty times what CPython's has
_KNOWN_BY = "profile"  # the name in the file's own index


class Trained(Struct, frozen=True, kw_only=True):
    """An artifact's config: the profile with what it fits, and in words which CPython that is, on which platform."""

    profile: LockedProfile
    python: str
    platform: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """An artifact that was found: where, its manifest's descriptor, its config; its layers are read by `admit` only.

    They stand in the order of the profile's `digests`.
    """

    at: str
    descriptor: Descriptor
    trained: Trained
    layers: tuple[Descriptor, ...]
    fetch: Fetch


def assemble(trained: Trained, store: Store) -> Descriptor:
    """Have the artifact of a stored profile in the store; its manifest. IntegrityError when the profile is not."""
    layers = []
    for digest, (media_type, title) in zip(trained.profile.digests, _LAYERS, strict=False):
        data = read_blob(store, digest)
        packed = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(data)
        store.put([packed])
        layers.append(replace(Descriptor.of(media_type, packed), annotations={_TITLE: title}))
    config = canonical_json(msgspec.to_builtins(trained))
    described = Descriptor.of(CONFIG, config)
    manifest = Manifest(config=described, layers=tuple(layers), artifact_type=ARTIFACT).to_bytes()
    for blob in (config, manifest):
        store.put([blob])
    return Descriptor.of(MANIFEST, manifest)


def in_registry(registry: Registry, name: str | Digest) -> Offered:
    """The artifact with this tag or digest; IntegrityError when it is no profile, TransferError when it is not had."""
    descriptor, data = registry.get_manifest(name)
    return _offered(f"{registry.reference.name}@{descriptor.digest}", descriptor, data, registry.open)


def in_file(path: Path) -> Offered:
    """The artifact in a file that `write_file` wrote; IntegrityError when it is another or damaged."""
    archive = read_archive(path)
    if not archive.is_layout:
        raise _no_profile(str(path), "it holds no image layout")
    found = archive.index().manifests
    if len(found) != 1:
        raise _no_profile(str(path), f"its index.json names {len(found)} manifests")
    if found[0].size > SIZE_LIMIT:
        raise _no_profile(str(path), f"its manifest has {found[0].size} bytes")
    return _offered(str(path), found[0], b"".join(archive.fetch(found[0])), archive.fetch)


def admit(offered: Offered, store: Store) -> LockedProfile:
    """Have the artifact's profile in the store; IntegrityError when it is not the one its config names, or is none."""
    checks = (members, check)
    blobs = []
    for layer, expected, checked in zip(offered.layers, offered.trained.profile.digests, checks, strict=False):
        data = _unpacked(offered, layer)
        if Digest.of(data) != expected:
            because = f"expected {expected}, got {Digest.of(data)}"
            raise IntegrityError("the profile is not the one its config names", at=offered.at, because=because)
        checked(data, at=offered.at)
        blobs.append(data)
    for data in blobs:
        store.put([data])
    return offered.trained.profile


def _unpacked(offered: Offered, layer: Descriptor) -> bytes:
    packed = b"".join(offered.fetch(layer))
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True) as stream:
            data = stream.read(_LIMIT + 1)
    except zstandard.ZstdError as error:
        raise IntegrityError("the profile cannot be decompressed", at=offered.at, because=str(error)) from error
    if len(data) > _LIMIT:
        raise IntegrityError("the profile is too large", at=offered.at, because=f"over {_LIMIT} bytes")
    return data


def write_file(path: Path, manifest: Descriptor, store: Store) -> None:
    """Write an artifact of the store to a file; the same artifact gives the same bytes."""
    write_archive(path, store, replace(manifest, annotations={REF_NAME: _KNOWN_BY}, artifact_type=ARTIFACT))


def _offered(at: str, descriptor: Descriptor, data: bytes, fetch: Fetch) -> Offered:
    """An artifact whose manifest and config are read."""
    if descriptor.media_type != MANIFEST:
        raise _no_profile(at, f"its media type is {descriptor.media_type}")
    manifest = Manifest.parse(data)
    if (manifest.artifact_type, manifest.config.media_type) != (ARTIFACT, CONFIG):
        raise _no_profile(at, f"it is {manifest.artifact_type or manifest.config.media_type}")
    types = [layer.media_type for layer in manifest.layers]
    if types not in ([LAYER_ZSTD], [LAYER_ZSTD, COUNTS]):
        raise _no_profile(at, f"expected one layer, {LAYER_ZSTD}, and perhaps {COUNTS}")
    for blob, limit in ((manifest.config, SIZE_LIMIT), *((layer, _LIMIT) for layer in manifest.layers)):
        if blob.size > limit:
            raise IntegrityError("the profile is too large", at=at, because=f"{blob.digest} has {blob.size} bytes")
    config = b"".join(fetch(manifest.config))
    try:
        trained = msgspec.json.decode(config, type=Trained)
        digests = trained.profile.digests
    except (msgspec.MsgspecError, IntegrityError) as error:
        raise IntegrityError("the profile's config cannot be read", at=at, because=str(error)) from error
    if len(digests) != len(types):
        raise _no_profile(at, f"its config names {len(digests)} parts, and there are {len(types)} layers")
    return Offered(at=at, descriptor=descriptor, trained=trained, layers=manifest.layers, fetch=fetch)


def _no_profile(at: str, because: str) -> IntegrityError:
    hint = "`ocibuild profile push` and `ocibuild profile export` make profiles that can be read back"
    return IntegrityError("not a profile", at=at, because=because, hint=hint)
