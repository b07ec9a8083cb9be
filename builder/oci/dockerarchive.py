"""Docker archive: what `docker save` writes and `docker load` reads (moby, image/spec/v1.2.md, "Combined image JSON").

Law: what is written is an image layout that holds a `manifest.json` beside: its layers and config are the layout's own
blobs, so every consumer finds the digests a registry has. What is read may be older: an archive without a layout gets
the one manifest that follows from its bytes (`classic`), the same wherever it is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from builder.oci.archive import Archive, Member, write_archive
from builder.oci.config import ImageConfig
from builder.oci.descriptor import (
    CONFIG,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
    REF_NAME,
    Descriptor,
    Fields,
    read_object,
    verified,
)
from builder.oci.layout import IMAGE_NAME
from builder.oci.manifest import Manifest
from builder.oci.mediatypes import FOREIGN, compression_of
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError, UsageError
from rootfs.ports import Store, read_blob
from rootfs.tree import file, normalise

_MANIFEST = "manifest.json"
_LAYERS = {"none": LAYER_TAR, "gzip": LAYER_GZIP, "zstd": LAYER_ZSTD}
_NAMED_BY_DIGEST = re.compile(r"([0-9a-f]{64})\.json\Z")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+:[0-9]{1,5})"
_NAME = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """What Docker calls an image: `full` as containerd has it, `docker.io/library/wee:1.0`; `familiar`: `wee:1.0`."""

    full: str
    familiar: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> ImageName:
        """Read `[HOST/]NAME[:TAG]`, with `latest` for a tag when there is none; UsageError for anything else."""
        match = _NAME.match(text)
        if match is None:
            hint = "write NAME:TAG or HOST/NAME:TAG, the name in lower-case letters"
            raise UsageError(f"not an image's name: {text!r:.200}", hint=hint)
        host, path, tag = match["host"], match["path"], match["tag"] or "latest"
        if host in (None, "docker.io", "index.docker.io"):
            path = path.removeprefix("library/")
            full = path if "/" in path else f"library/{path}"
            return cls(full=f"docker.io/{full}:{tag}", familiar=f"{path}:{tag}", tag=tag)
        return cls(full=f"{host}/{path}:{tag}", familiar=f"{host}/{path}:{tag}", tag=tag)


def write_docker_archive(path: Path, store: Store, descriptor: Descriptor, *, name: str) -> None:
    """Write a stored image (of one platform) as a Docker archive that is an image layout, whole or not at all.

    `name` is `NAME:TAG`, or "" for none: then the image is loaded under its id alone.
    """
    manifest = Manifest.parse(read_blob(store, descriptor.digest), descriptor.media_type)
    absent = [one for one in manifest.layers if one.media_type in FOREIGN and not store.exists(one.digest)]
    if absent:
        because = f"its layer {absent[0].digest} is foreign, and not here"
        raise UsageError("a Docker archive of this image would not be whole", at=str(path), because=because)
    known = ImageName.parse(name) if name else None
    entry = {
        "Config": _blob(manifest.config),
        "RepoTags": [known.familiar] if known else None,
        "Layers": [_blob(layer) for layer in manifest.layers],
    }
    notes = {**descriptor.annotations, **({IMAGE_NAME: known.full, REF_NAME: known.tag} if known else {})}
    beside = [file(_MANIFEST, canonical_json([entry]))]
    write_archive(path, store, replace(descriptor, annotations=notes), beside=beside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classic:
    """An image of a Docker archive without a layout: the manifest made for it, and where its blobs lie."""

    archive: Archive
    descriptor: Descriptor
    manifest: bytes
    blobs: dict[Digest, Member]

    def holds(self, descriptor: Descriptor) -> bool:
        """Whether a blob is here."""
        return descriptor.digest == self.descriptor.digest or descriptor.digest in self.blobs

    def fetch(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A blob, checked; the manifest is one."""
        at = f"{self.archive.path}: {descriptor.digest}"
        if descriptor.digest == self.descriptor.digest:
            yield self.manifest
        elif descriptor.digest in self.blobs:
            yield from verified(self.archive.chunks(self.blobs[descriptor.digest]), descriptor, at)
        else:
            raise IntegrityError("the archive lacks a blob", at=at)


def classic(archive: Archive, name: str) -> Classic:
    """The image with this name in an archive of `docker save`, `podman save` or skopeo; "" when there is but one.

    Its manifest is image-spec's with the config as it lies there and the layers as they lie there: uncompressed layers
    stay so and have their diff id for a digest. So the same image gives the same digest, whoever saved it.
    """
    if _MANIFEST not in archive:
        raise IntegrityError(
            "the archive holds no image",
            at=str(archive.path),
            because="neither index.json nor manifest.json is in it",
            hint="`ocibuild pack` makes an image of a file system's archive; Docker's before 1.10 are not read",
        )
    entry = _chosen(archive, name)
    config_name = normalise(entry.text("Config"))
    data = archive.document(config_name)
    digest = Digest.of(data)
    told = _NAMED_BY_DIGEST.search(config_name)
    if told and told[1] != digest.hex:
        raise IntegrityError("digest differs", at=f"{archive.path}: {config_name}", because=f"got {digest}")
    config = ImageConfig.parse(data)
    names = entry.texts("Layers")
    if len(names) != len(config.diff_ids):
        because = f"{len(names)} layers and {len(config.diff_ids)} diff ids"
        raise IntegrityError("manifest and config do not fit each other", at=str(archive.path), because=because)
    blobs = {digest: archive.find(config_name)}
    layers = []
    for layer_name, diff_id in zip(names, config.diff_ids, strict=True):
        member = archive.find(normalise(layer_name))
        layers.append(_layer(archive, member, diff_id))
        blobs[layers[-1].digest] = member
    manifest = Manifest(config=Descriptor.of(CONFIG, data), layers=tuple(layers)).to_bytes()
    descriptor = replace(Descriptor.of(MANIFEST, manifest), platform=config.platform)
    return Classic(archive=archive, descriptor=descriptor, manifest=manifest, blobs=blobs)


def _chosen(archive: Archive, name: str) -> Fields:
    """The entry of `manifest.json` that is meant."""
    images = read_object(b'{"images":%b}' % archive.document(_MANIFEST), f"{archive.path}: {_MANIFEST}").items("images")
    entries = [Fields(value, at) for value, at in images]
    wanted = [one for one in entries if not name or is_named(name, one.texts("RepoTags"))]
    if len(wanted) == 1:
        return wanted[0]
    known = ", ".join(tag for one in entries for tag in one.texts("RepoTags"))
    message = "the archive holds several images" if wanted else "no such image in the archive"
    raise UsageError(
        message, at=str(archive.path), hint=f"write {archive.path}:NAME:TAG; it holds {known or 'no names'}"
    )


def is_named(name: str, known: tuple[str, ...]) -> bool:
    """Whether a name is one of these, short forms and long ones being the same."""
    try:
        wanted = ImageName.parse(name).full
    except UsageError:
        return name in known
    return any(_full(one) == wanted for one in known)


def _full(name: str) -> str:
    try:
        return ImageName.parse(name).full
    except UsageError:
        return name


def _layer(archive: Archive, member: Member, diff_id: Digest) -> Descriptor:
    start = next(archive.chunks(replace(member, size=min(member.size, 4))), b"")
    compression = compression_of(start)
    if compression == "none":
        return Descriptor(media_type=LAYER_TAR, digest=diff_id, size=member.size)
    hasher = hashlib.sha256()
    for chunk in archive.chunks(member):
        hasher.update(chunk)
    return Descriptor(media_type=_LAYERS[compression], digest=Digest("sha256", hasher.hexdigest()), size=member.size)


def _blob(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"
