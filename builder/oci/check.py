"""Check: what must hold of an image before anybody can pull it, and of any image (image-spec 1.1).

Law: reads the blobs again and believes nothing that packing and assembling said. It goes on after a finding, so that
one run tells all; blobs are streamed, each is read once. What the build made must be free of notes, too.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Container, Generator, Iterator, Mapping
from dataclasses import dataclass, field

import zstandard

from builder.oci.annotations import BASE_DIGEST, CREATED, fault_of
from builder.oci.config import ImageConfig
from builder.oci.descriptor import EMPTY, SIZE_LIMIT, Descriptor, Fetch, Platform
from builder.oci.flatten import decompressed
from builder.oci.listing import Forward
from builder.oci.manifest import Index, Manifest, parse
from builder.oci.mediatypes import CONFIGS, DOCUMENTS, FOREIGN, LAYERS
from builder.oci.walk import Finding, Walk
from rootfs.digest import Digest, canonical_json
from rootfs.errors import BuildError, IntegrityError, OcibuildError
from rootfs.ports import Store

_READ_SIZE = 1 << 20
_DEEPEST = 4
Pair = tuple[Digest, Digest]
"""A layer's digest and its diff id."""

_DECODING = (OSError, EOFError, zlib.error, zstandard.ZstdError)


def check_image(store: Store, descriptor: Descriptor, *, known: Container[Pair] = ()) -> None:
    """Check an image, or all images of an index; BuildError that lists every finding, notes among them.

    Of a layer and diff id that are `known` to fit each other, the blob alone is read, and compared with its digest.

    Checked are: size and digest of every blob, media types, canonical JSON, the platform, annotations, the diff ids (by
    decompressing), and that layers, diff ids and history entries that made a layer are equal in number.
    """

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        with store.open(wanted.digest) as stream:
            while chunk := stream.read(_READ_SIZE):
                yield chunk

    findings = [str(finding) for finding in findings_of(descriptor, fetch, members=False, known=known)]
    if findings:
        raise BuildError(
            "the image is not sound" if len(findings) == 1 else f"the image is not sound: {len(findings)} findings",
            at=str(descriptor.digest),
            because="; ".join(findings),
            hint="this is a fault of ocibuild or of the disk; remove the step's result and build again",
        )


def findings_of(
    descriptor: Descriptor, fetch: Fetch, *, members: bool = True, known: Container[Pair] = ()
) -> Iterator[Finding]:
    """Everything wrong with an image, an artifact, or all that an index holds; with `members`, with the paths in the
    layers, too. `fetch` gives a blob's bytes; IntegrityError from it is a finding, other errors end the check.
    """
    yield from _Checking(fetch=fetch, members=members, known=known).document(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checking:
    """One run. `seen` is every document so far, as it was first described, and the platform its config has."""

    fetch: Fetch
    members: bool
    known: Container[Pair]
    seen: dict[Digest, tuple[Descriptor, Platform | None]] = field(default_factory=dict)

    def document(self, descriptor: Descriptor, depth: int = 0) -> Iterator[Finding]:
        """Findings about a manifest or an index and what it refers to; of one that was seen, about its descriptor."""
        if descriptor.digest in self.seen:
            yield from _again(descriptor, *self.seen[descriptor.digest])
            return
        self.seen[descriptor.digest] = descriptor, None
        if descriptor.media_type not in DOCUMENTS or descriptor.size > SIZE_LIMIT or depth > _DEEPEST:
            deep = ", too deep in indexes" if depth > _DEEPEST else ""
            yield _error(descriptor, f"is no manifest: {descriptor.media_type}, {descriptor.size} bytes{deep}")
            return
        data = yield from self._data(descriptor)
        if data is None:
            return
        try:
            document = parse(descriptor.media_type, data)
        except IntegrityError as error:
            yield _error(descriptor, _told(error))
            return
        yield from _form(descriptor, data)
        yield from _annotations(descriptor, document.annotations)
        if ".docker." not in descriptor.media_type:
            yield from (
                _note(one, f"is no layer or document of OCI: {one.media_type}")
                for one in document.children
                if ".docker." in one.media_type
            )
        if "mediaType" not in json.loads(data):
            yield _note(descriptor, "does not say its media type")
        if isinstance(document, Index):
            yield from self._index(document, depth)
        else:
            yield from self._manifest(document, descriptor)

    def _index(self, index: Index, depth: int) -> Iterator[Finding]:
        platforms = Counter(str(manifest.platform) for manifest in index.manifests)
        for manifest in index.manifests:
            if manifest.platform is None and manifest.artifact_type is None:
                yield _note(manifest, "has no platform in the index")
            elif manifest.platform and platforms[str(manifest.platform)] > 1 and not _is_nowhere(manifest.platform):
                yield _note(manifest, f"is not the only one for {manifest.platform} in the index")
            yield from _annotations(manifest, manifest.annotations)
            yield from self.document(manifest, depth + 1)

    def _manifest(self, manifest: Manifest, descriptor: Descriptor) -> Iterator[Finding]:
        for one in manifest.children:
            yield from _annotations(one, one.annotations)
        if manifest.subject is not None:
            yield from self._subject(manifest.subject)
        if manifest.config.media_type not in CONFIGS and (
            manifest.artifact_type or manifest.config.media_type == EMPTY
        ):
            for one in manifest.children:
                yield from self._blob(one)
            return
        config = yield from self._config(manifest.config)
        yield from _layer_list(manifest)
        walk = Walk(latest=config.created if config else 0)
        for number, layer in enumerate(manifest.layers):
            diff_id = config.diff_ids[number] if config and number < len(config.diff_ids) else None
            yield from self._layer(layer, diff_id, walk if config else None)
        if config is not None:
            self.seen[descriptor.digest] = descriptor, config.platform
            yield from _agreement(manifest, config, descriptor)

    def _subject(self, subject: Descriptor) -> Iterator[Finding]:
        """A subject need not be where its referrer is; one that is there is as it is said to be."""
        try:
            first = next(self.fetch(subject), b"")
        except IntegrityError:
            yield _note(subject, "is the subject, and is not here")
            return
        if first:
            yield from self._blob(subject)

    def _config(self, descriptor: Descriptor) -> Generator[Finding, None, ImageConfig | None]:
        """Findings about a config; returns it when it could be read."""
        if descriptor.media_type not in CONFIGS:
            yield _error(descriptor, f"is no image config: {descriptor.media_type}")
            yield from self._blob(descriptor)
            return None
        data = yield from self._data(descriptor)
        if data is None:
            return None
        try:
            config = ImageConfig.parse(data)
        except IntegrityError as error:
            yield _error(descriptor, _told(error))
            return None
        yield from _form(descriptor, data)
        if not json.loads(data).get("created"):
            yield _note(descriptor, "does not say when the image was created")
        return config

    def _layer(self, layer: Descriptor, diff_id: Digest | None, walk: Walk | None) -> Iterator[Finding]:
        """Findings about a layer: its blob, the archive in it, and with `members` what that holds."""
        if layer.media_type not in LAYERS:
            yield _error(layer, f"is no layer: {layer.media_type}")
        if layer.media_type in FOREIGN and (yield from self._foreign(layer)):
            return
        if layer.media_type not in LAYERS or diff_id is None or (layer.digest, diff_id) in self.known:
            yield from self._blob(layer)
            return
        blob = _Hashing(layer.digest.algorithm)
        archive = _Hashing(diff_id.algorithm)
        try:
            chunks = blob.over(self.fetch(layer))
            stream = Forward(archive.over(decompressed(layer, chunks)))
            try:
                if self.members and walk is not None:
                    yield from walk.layer(stream, layer)
            except IntegrityError as error:
                yield _error(layer, _told(error))
            stream.drain()
            for _ in chunks:
                pass
        except _DECODING as error:
            yield from list(self._blob(layer)) or [_error(layer, f"cannot be decompressed: {error}")]
            return
        except IntegrityError as error:
            yield _error(layer, _told(error))
            return
        yield from blob.findings(layer)
        if archive.hex != diff_id.hex and blob.hex == layer.digest.hex:
            yield _error(layer, f"has the diff id {diff_id.algorithm}:{archive.hex}, the config says {diff_id}")

    def _foreign(self, layer: Descriptor) -> Generator[Finding, None, bool]:
        """Findings about a foreign layer; whether it is only where its maker has it (image-spec, layer.md)."""
        yield _note(layer, "is a non-distributable layer, which the specification has given up")
        try:
            next(self.fetch(layer), b"")
        except IntegrityError as error:
            if layer.urls:
                yield _note(layer, f"cannot be had here ({_told(error)}), but from {', '.join(layer.urls)}")
                return True
        return False

    def _data(self, descriptor: Descriptor) -> Generator[Finding, None, bytes | None]:
        """The bytes of a document, None when they are not the described ones."""
        if descriptor.size > SIZE_LIMIT:
            yield _error(descriptor, f"is too large for a document: {descriptor.size} bytes")
            return None
        read: list[bytes] = []
        faults = list(self._blob(descriptor, read))
        yield from faults
        return None if faults else b"".join(read)

    def _blob(self, descriptor: Descriptor, read: list[bytes] | None = None) -> Iterator[Finding]:
        """Findings about a blob's presence, size and digest; its bytes go to `read`."""
        blob = _Hashing(descriptor.digest.algorithm)
        try:
            for chunk in blob.over(self.fetch(descriptor)):
                if read is not None:
                    read.append(chunk)
        except IntegrityError as error:
            yield _error(descriptor, _told(error))
            return
        yield from blob.findings(descriptor)


class _Hashing:
    """Chunks that are hashed and counted as they pass."""

    def __init__(self, algorithm: str) -> None:
        self._hasher = hashlib.new(algorithm)
        self._is_whole = True
        self.size = 0

    @property
    def hex(self) -> str:
        """Of what has passed."""
        return self._hasher.hexdigest()

    def over(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks."""
        try:
            for chunk in chunks:
                self._hasher.update(chunk)
                self.size += len(chunk)
                yield chunk
        except IntegrityError:
            self._is_whole = False
            raise

    def findings(self, descriptor: Descriptor) -> Iterator[Finding]:
        """What is wrong with the blob that has passed; one that could not be had says so itself."""
        if not self._is_whole:
            return
        if self.size != descriptor.size:
            yield _error(descriptor, f"has {self.size} bytes, its descriptor says {descriptor.size}")
        if self.hex != descriptor.digest.hex:
            yield _error(descriptor, f"holds other bytes: {descriptor.digest.algorithm}:{self.hex}")


def _again(descriptor: Descriptor, first: Descriptor, platform: Platform | None) -> Iterator[Finding]:
    """What another descriptor of the same bytes says that they are not."""
    if descriptor.size != first.size:
        yield _error(descriptor, f"has two sizes: {first.size} and {descriptor.size} bytes")
    if descriptor.media_type != first.media_type:
        yield _error(descriptor, f"has two media types: {first.media_type} and {descriptor.media_type}")
    if platform is not None:
        yield from _other_platform(descriptor, platform)


def _other_platform(descriptor: Descriptor, platform: Platform) -> Iterator[Finding]:
    if descriptor.platform and descriptor.platform != platform:
        yield _error(descriptor, f"is for {descriptor.platform}, its config for {platform}")


def _layer_list(manifest: Manifest) -> Iterator[Finding]:
    if not manifest.layers:
        yield _note(manifest.config, "is the config of an image without layers")
    for digest, count in Counter(layer.digest for layer in manifest.layers).items():
        if count > 1:
            layer = next(layer for layer in manifest.layers if layer.digest == digest)
            yield _note(layer, f"is {count} layers of one image")


def _agreement(manifest: Manifest, config: ImageConfig, descriptor: Descriptor) -> Iterator[Finding]:
    """Whether the documents of an image say the same."""
    made = sum(not entry.empty_layer for entry in config.history)
    if not config.history and manifest.layers:
        yield _note(manifest.config, "has no history")
        made = len(manifest.layers)
    if not len(manifest.layers) == len(config.diff_ids) == made:
        counts = f"{len(manifest.layers)} layers, {len(config.diff_ids)} diff ids and {made} history entries"
        yield _error(descriptor, f"has {counts} that made one")
    yield from _other_platform(descriptor, config.platform)


def _form(descriptor: Descriptor, data: bytes) -> Iterator[Finding]:
    if canonical_json(json.loads(data)) != data:
        yield _note(descriptor, "is not canonical JSON")


def _annotations(descriptor: Descriptor, annotations: Mapping[str, str]) -> Iterator[Finding]:
    """A name or value that is not of its form is an error where programs read it."""
    for name, value in annotations.items():
        fault = fault_of(name, value)
        if fault:
            told = _error if name in (CREATED, BASE_DIGEST) else _note
            yield told(descriptor, f"has the annotation {name}={value!r}: {fault}")


def _is_nowhere(platform: Platform) -> bool:
    """Of attestations: they run nowhere."""
    return platform.os == "unknown"


def _error(descriptor: Descriptor, text: str) -> Finding:
    return Finding(severity="error", at=str(descriptor.digest), text=text)


def _note(descriptor: Descriptor, text: str) -> Finding:
    return Finding(severity="note", at=str(descriptor.digest), text=text)


def _told(error: OcibuildError) -> str:
    return ", ".join(filter(None, (error.message, error.at and f"at {error.at}", error.because)))
