"""Remote: results of steps in a registry's repository, by key, so that the second machine builds nothing.

Law: for a step that is worth it one small manifest with the tag `step-<hex of its key>`: its layers are the result and
the blobs that refers to, each checked against its digest on the way in. But a key is no digest of what it stands for:
who may write to the repository decides what is built, so none is asked that the user has not named. What the cache
cannot give, or not as it should be, is built; its failures are told, and break nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

import zstandard

from builder.execute import references
from builder.oci.check import check_image
from builder.oci.descriptor import EMPTY, MANIFEST, Descriptor
from builder.oci.manifest import Manifest
from builder.plan import Step
from builder.registry.client import Registry
from builder.registry.transfer import push
from rootfs.digest import Digest
from rootfs.errors import BuildError, HostError, IntegrityError, OcibuildError, TransferError
from rootfs.ports import Origin, Reporter, Store, read_blob

ARTIFACT = "application/vnd.ocibuild.step.v1"
KINDS = frozenset({"train", "count", "compile", "arrange", "install", "layer", "layers", "image"})
"""Kinds of steps whose results are kept: what takes minutes, and what is made of that. The rest is made again faster
than it is fetched, and refers to thousands of blobs."""

_PLAIN = "application/octet-stream"
_ZSTD = "application/vnd.ocibuild.blob.v1+zstd"
_PACKED = frozenset({"train", "count", "compile", "arrange", "install"})  # what layers hold is compressed already
_KEY, _KIND, _RESULT = (f"vnd.ocibuild.step.{name}" for name in ("key", "kind", "result"))
_BLOB, _SIZE = (f"vnd.ocibuild.blob.{name}" for name in ("digest", "size"))
_LEVEL = 3
_CHUNK = 1 << 20
_AT_ONCE = 4
_MOST = 1000


def tag_of(key: Digest) -> str:
    """The tag of a step's result."""
    return f"step-{key.hex}"


class RemoteCache:
    """`builder.tools.StepCache`: asks `sources`, the first one first, and gives to `target`; end it with a `with`.

    Results are given by a thread of its own, while the build goes on; leaving the `with` waits for that.
    """

    def __init__(
        self, store: Store, reporter: Reporter, *, sources: Sequence[Registry] = (), target: Registry | None = None
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._sources = list(sources)
        self._target = target
        self._known: dict[Digest, bool] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cache")
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None and not issubclass(kind, OcibuildError))

    def take(self, step: Step) -> bool:
        """Have a step's result in the store, with all it refers to, if a source has it; whether that is so now."""
        if step.kind not in KINDS:
            return False
        with self._lock:
            if step.key not in self._known:
                self._known[step.key] = any(self._from(source, step) for source in tuple(self._sources))
            return self._known[step.key]

    def offer(self, step: Step) -> None:
        """Give a step's result, which is whole in the store, to the target, unless it was taken from a source."""
        target = self._target
        if target is None or step.kind not in KINDS:
            return
        with self._lock:
            if self._known.get(step.key):
                return
            self._known[step.key] = True
        self._pool.submit(self._give, step, target)

    def _from(self, source: Registry, step: Step) -> bool:
        try:
            return self._fetch(source, step)
        except (IntegrityError, BuildError) as error:
            self._reporter.note(f"{step.title}: not as it should be in {source.reference.name}: {error.message}")
        except TransferError as error:
            self._reporter.note(f"{source.reference.name}: {error.message} ({error.because}): not asked any more")
            self._sources.remove(source)
        return False

    def _fetch(self, source: Registry, step: Step) -> bool:
        try:
            descriptor, data = source.get_manifest(tag_of(step.key))
        except TransferError as error:
            if (error.because or "").startswith("404"):
                return False
            raise
        manifest = Manifest.parse(data, descriptor.media_type)
        said = manifest.annotations
        if manifest.artifact_type != ARTIFACT or said.get(_KEY) != str(step.key) or len(manifest.layers) > _MOST:
            raise IntegrityError("it is not the result of this step", at=f"{source.reference.name}@{descriptor.digest}")
        task = f"{step.title}: from {source.reference.name}"
        self._reporter.begin(task, sum(layer.size for layer in manifest.layers))
        done = "failed"
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(lambda layer: self._bring(source, layer, task), manifest.layers))
            self._link(step, Digest.parse(said.get(_RESULT, "")))
            done = "done"
        finally:
            self._reporter.finish(task, done)
        return True

    def _bring(self, source: Registry, layer: Descriptor, task: str) -> None:
        """One blob of a result into the store, as the bytes its digest means."""
        if layer.media_type == _PLAIN:
            source.fetch(layer, self._store, advance=lambda amount: self._reporter.advance(task, amount))
            return
        said = layer.annotations
        blob = Digest.parse(said.get(_BLOB, ""))
        if layer.media_type != _ZSTD or not said.get(_SIZE, "").isdecimal():
            raise IntegrityError("a blob of an unknown form", at=str(layer.digest), because=layer.media_type)
        if not self._store.exists(blob):
            packed = _told(source.open(layer), lambda amount: self._reporter.advance(task, amount))
            self._store.put(_unpacked(packed, str(layer.digest)), expect=blob, size=int(said[_SIZE]))

    def _link(self, step: Step, result: Digest) -> None:
        """The result is what a step of this kind gives, and whole; then it is the step's."""
        if not self._store.exists(result):
            raise IntegrityError("the result itself is missing", at=str(step.key))
        data = read_blob(self._store, result)
        try:
            missing = [blob for blob in references(step.kind, data, self._store) if not self._store.exists(blob)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError("the result cannot be read", at=str(result), because=type(error).__name__) from error
        if missing:
            raise IntegrityError("what the result refers to is missing", at=str(result), because=str(missing[0]))
        if step.kind == "image":
            check_image(self._store, Descriptor.of(MANIFEST, data))
        self._store.link(step.key, result, Origin(kind=step.kind, title=step.title))

    def _give(self, step: Step, target: Registry) -> None:
        if self._target is None:
            return
        try:
            if target.head_manifest(tag_of(step.key)) is None:
                push(self._store, self._manifest(step), target, [tag_of(step.key)], self._reporter)
        except (TransferError, IntegrityError, HostError) as error:
            self._reporter.note(f"{step.title}: not kept in {target.reference.name}: {error.message} ({error.because})")
            if isinstance(error, TransferError) and not (error.because or "").startswith("413"):
                self._target = None  # nor would it take the next one; what is too large is one step's trouble

    def _manifest(self, step: Step) -> Descriptor:
        """The manifest of a step's result, in the store with all it needs."""
        store = self._store
        result = store.lookup(step.key)
        if result is None:
            raise IntegrityError("a step has no result", at=step.title)
        blobs = dict.fromkeys((result, *references(step.kind, read_blob(store, result), store)))
        empty = b"{}"
        store.put([empty])
        manifest = Manifest(
            config=Descriptor.of(EMPTY, empty),
            layers=tuple(_layer(blob, store, packed=step.kind in _PACKED) for blob in blobs),
            annotations={_KEY: str(step.key), _KIND: step.kind, _RESULT: str(result)},
            artifact_type=ARTIFACT,
        ).to_bytes()
        store.put([manifest])
        return Descriptor.of(MANIFEST, manifest)


def _layer(blob: Digest, store: Store, *, packed: bool) -> Descriptor:
    """A blob as a layer: as it is, or compressed."""
    with store.open(blob) as stream:
        size = stream.seek(0, 2)
        if not packed:
            return Descriptor(media_type=_PLAIN, digest=blob, size=size)
        stream.seek(0)
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        stored = store.put(compressor.read_to_iter(stream, size=size))
    layer = Descriptor(media_type=_ZSTD, digest=stored.digest, size=stored.size)
    return replace(layer, annotations={_BLOB: str(blob), _SIZE: str(size)})


def _told(chunks: Iterator[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        advance(len(chunk))


def _unpacked(chunks: Iterator[bytes], at: str) -> Iterator[bytes]:
    """What was compressed, piece by piece; what comes out is limited by who takes it."""
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), _CHUNK // 16):
                yield decompressor.decompress(chunk[start : start + _CHUNK // 16])
    except zstandard.ZstdError as error:
        raise IntegrityError("a blob cannot be decompressed", at=at, because=str(error)) from error
