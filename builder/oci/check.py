"""Check: what must hold of an image before a byte of it leaves the machine (image-spec 1.1).

Law: reads the stored blobs again and believes nothing that packing and assembling said. It goes on after a finding,
so that one run tells all; blobs are streamed.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO

import zstandard

from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, INDEX, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, MANIFEST, SIZE_LIMIT, Descriptor
from builder.oci.manifest import Index, Manifest, parse
from rootfs.digest import Digest
from rootfs.errors import BuildError, IntegrityError
from rootfs.ports import Store, read_blob

_READ_SIZE = 1 << 20


def check_image(store: Store, descriptor: Descriptor) -> None:
    """Check an image, or all images of an index; BuildError that lists every finding.

    Checked are: size and digest of every blob, media types, canonical JSON, the platform, the diff ids (by
    decompressing), and that layers, diff ids and history entries that made a layer are equal in number.
    """
    findings = list(_document(store, descriptor))
    if findings:
        raise BuildError(
            "the image is not sound" if len(findings) == 1 else f"the image is not sound: {len(findings)} findings",
            at=str(descriptor.digest),
            because="; ".join(findings),
            hint="this is a fault of ocibuild or of the disk; remove the step's result and build again",
        )


def _document(store: Store, descriptor: Descriptor) -> Iterator[str]:
    """Findings about a manifest or an index and what it refers to."""
    faults = list(_blob(store, descriptor))
    yield from faults
    if faults:
        return
    if descriptor.media_type not in (MANIFEST, INDEX) or descriptor.size > SIZE_LIMIT:
        yield f"{descriptor.digest} is no manifest: {descriptor.media_type}, {descriptor.size} bytes"
        return
    data = read_blob(store, descriptor.digest)
    try:
        document = parse(descriptor.media_type, data)
    except IntegrityError as error:
        yield _told(error, descriptor.digest)
        return
    if document.to_bytes() != data:
        yield f"{descriptor.digest} is not canonical JSON"
    yield from _index(store, document) if isinstance(document, Index) else _image(store, document, descriptor)


def _index(store: Store, index: Index) -> Iterator[str]:
    platforms = [manifest.platform for manifest in index.manifests]
    for manifest in index.manifests:
        if manifest.platform is None:
            yield f"{manifest.digest} has no platform in the index"
        elif platforms.count(manifest.platform) > 1:
            yield f"{manifest.digest} is not the only one for {manifest.platform} in the index"
        yield from _document(store, manifest)


def _image(store: Store, manifest: Manifest, descriptor: Descriptor) -> Iterator[str]:
    config = yield from _config(store, manifest.config)
    for number, layer in enumerate(manifest.layers):
        faults = list(_blob(store, layer))
        yield from faults
        if layer.media_type not in (LAYER_GZIP, LAYER_TAR, LAYER_ZSTD):
            yield f"{layer.digest} is no layer: {layer.media_type}"
        elif config and not faults and number < len(config.diff_ids):
            yield from _diff_id(store, layer, config.diff_ids[number])
    if config is None:
        return
    made = sum(not entry.empty_layer for entry in config.history)
    if not len(manifest.layers) == len(config.diff_ids) == made:
        yield f"{len(manifest.layers)} layers, {len(config.diff_ids)} diff ids and {made} history entries that made one"
    if descriptor.platform and descriptor.platform != config.platform:
        yield f"{descriptor.digest} is for {descriptor.platform}, its config for {config.platform}"


def _blob(store: Store, descriptor: Descriptor) -> Iterator[str]:
    """Findings about a blob's presence, size and digest."""
    hasher = hashlib.new(descriptor.digest.algorithm)
    size = 0
    try:
        with store.open(descriptor.digest) as stream:
            for chunk in _chunks(stream.read):
                hasher.update(chunk)
                size += len(chunk)
    except IntegrityError as error:
        yield _told(error, descriptor.digest)
        return
    if size != descriptor.size:
        yield f"{descriptor.digest} has {size} bytes, its descriptor says {descriptor.size}"
    if hasher.hexdigest() != descriptor.digest.hex:
        yield f"{descriptor.digest} holds other bytes: {descriptor.digest.algorithm}:{hasher.hexdigest()}"


def _config(store: Store, descriptor: Descriptor) -> Generator[str, None, ImageConfig | None]:
    """Findings about a config; returns it when it could be read."""
    faults = list(_blob(store, descriptor))
    yield from faults
    if descriptor.media_type != CONFIG:
        yield f"{descriptor.digest} is no image config: {descriptor.media_type}"
        return None
    if faults:
        return None
    data = read_blob(store, descriptor.digest)
    try:
        config = ImageConfig.parse(data)
    except IntegrityError as error:
        yield _told(error, descriptor.digest)
        return None
    if config.to_bytes() != data:
        yield f"{descriptor.digest} is not canonical JSON"
    return config


def _diff_id(store: Store, layer: Descriptor, expected: Digest) -> Iterator[str]:
    hasher = hashlib.new(expected.algorithm)
    with store.open(layer.digest) as stream:
        tar: BinaryIO | gzip.GzipFile | zstandard.ZstdDecompressionReader = stream
        if layer.media_type == LAYER_GZIP:
            tar = gzip.GzipFile(fileobj=stream)
        elif layer.media_type == LAYER_ZSTD:
            tar = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
        try:
            for chunk in _chunks(tar.read):
                hasher.update(chunk)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            yield f"{layer.digest} cannot be decompressed: {error}"
            return
    if hasher.hexdigest() != expected.hex:
        yield f"{layer.digest} has the diff id {expected.algorithm}:{hasher.hexdigest()}, the config says {expected}"


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(_READ_SIZE):
        yield chunk


def _told(error: IntegrityError, digest: Digest) -> str:
    parts = (error.message, error.at and f"at {error.at}", error.because)
    return f"{digest}: " + ", ".join(part for part in parts if part)
