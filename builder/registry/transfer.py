"""Push: an image or index from the Store into a repository, children first and tags last (distribution-spec 1.1).

Law: decides the order and what is done in parallel; knows nothing of HTTP. A tag moves only when all it stands for is
there, and what the registry then has under it is compared with what was pushed.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, TypeVar, cast

from builder.oci.descriptor import Descriptor
from builder.oci.manifest import Index, Manifest, parse
from builder.registry.client import Registry
from builder.registry.upload import Action
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError
from rootfs.ports import Reporter, Store, Upload, read_blob

_UPLOADS = 4  # at a time: what the peers allow themselves per registry (3 to 6)
_BEGINNINGS = 3  # how often one upload is begun before its failure is the push's
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What became of one blob or manifest, and how many bytes of it were sent."""

    descriptor: Descriptor
    action: Action
    bytes: int


def push(
    store: Store, manifest: Descriptor, registry: Registry, tags: Sequence[str], reporter: Reporter
) -> tuple[Transfer, ...]:
    """Push what `manifest` points to, with all its children, then set the tags; one Transfer a blob and manifest.

    UsageError for a bad tag and IntegrityError for a missing document come before the first request; IntegrityError
    when the registry ends up with something else; TransferError when it refuses, or cannot be reached.
    """
    for tag in tags:
        replace(registry.reference, tag=tag)
    documents = tuple({document.descriptor.digest: document for document in _documents(store, manifest)}.values())
    manifests = [document.content for document in documents if isinstance(document.content, Manifest)]
    blobs = {blob.digest: blob for content in manifests for blob in (*content.layers, content.config)}
    stop = threading.Event()
    transfers = _parallel(lambda blob: _push_blob(store, blob, registry, reporter, stop), tuple(blobs.values()), stop)
    transfers += [_begun_anew(partial(_push_manifest, document, registry)) for document in documents]
    root = documents[-1]
    for tag in tags:
        if registry.head_manifest(tag) != manifest.digest:
            _begun_anew(partial(registry.put_manifest, tag, root.descriptor, root.data))
    names: tuple[str | Digest, ...] = (manifest.digest, *tags)
    for name in names:
        _read_back(name, manifest.digest, registry)
    return tuple(transfers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """A manifest or index: where it is pointed to, its bytes, and what they say."""

    descriptor: Descriptor
    data: bytes
    content: Manifest | Index


def _documents(store: Store, descriptor: Descriptor) -> Iterator[_Document]:
    """The manifests and indexes below this one, children first, and itself last."""
    data = read_blob(store, descriptor.digest)
    content = parse(descriptor.media_type, data)
    if isinstance(content, Index):
        for child in content.children:
            yield from _documents(store, child)
    yield _Document(descriptor=descriptor, data=data, content=content)


def _push_blob(
    store: Store, blob: Descriptor, registry: Registry, reporter: Reporter, stop: threading.Event
) -> Transfer:
    task = f"push {blob.digest.hex[:12]}"
    reporter.begin(task, blob.size)
    meter = _Meter(lambda amount: reporter.advance(task, amount), stop)
    body = Upload(open=lambda: cast(BinaryIO, _Metered(store.open(blob.digest), meter)), size=blob.size)
    result = "failed"
    try:
        pushed = registry.upload(blob, body)
        result = f"resumed at {pushed.resumed / 1e6:.1f} MB" if pushed.resumed else str(pushed.action)
    finally:
        reporter.finish(task, result)
    sent = blob.size - pushed.resumed if pushed.action is Action.UPLOADED else 0
    return Transfer(descriptor=blob, action=pushed.action, bytes=sent)


def _push_manifest(document: _Document, registry: Registry) -> Transfer:
    descriptor = document.descriptor
    if registry.head_manifest(descriptor.digest) == descriptor.digest:
        return Transfer(descriptor=descriptor, action=Action.EXISTS, bytes=0)
    registry.put_manifest(descriptor.digest, descriptor, document.data)
    return Transfer(descriptor=descriptor, action=Action.UPLOADED, bytes=len(document.data))


def _read_back(name: str | Digest, expected: Digest, registry: Registry) -> None:
    found = registry.head_manifest(name)
    if found != expected:
        raise IntegrityError(
            "the registry holds something else than what was pushed",
            at=f"{registry.reference.name}{'@' if isinstance(name, Digest) else ':'}{name}",
            because=f"expected {expected}, got {found or 'nothing'}",
            hint="is something else pushing to the same tag?",
        )


def _begun_anew(verb: Callable[[], _T]) -> _T:
    """The verb's result; it is begun again when the transport could not know whether repeating a part was safe."""
    for _ in range(_BEGINNINGS - 1):
        try:
            return verb()
        except TransferError as error:
            if not error.retryable:
                raise
    return verb()


def _parallel(
    verb: Callable[[Descriptor], Transfer], items: Sequence[Descriptor], stop: threading.Event
) -> list[Transfer]:
    """The results in the items' order; the first failure (or Ctrl-C) ends the others and is raised."""
    with ThreadPoolExecutor(max_workers=_UPLOADS) as pool:
        futures = [pool.submit(verb, item) for item in items]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


class _Meter:
    """Reports the bytes of a body once, also when it is sent more than once; stops the sending when told."""

    def __init__(self, advance: Callable[[int], None], stop: threading.Event) -> None:
        self._advance = advance
        self._stop = stop
        self._seen = 0

    def pass_to(self, position: int) -> None:
        """The body was read up to this position."""
        if self._stop.is_set():
            raise TransferError("stopped, because another upload failed")
        if position > self._seen:
            self._advance(position - self._seen)
            self._seen = position


class _Metered(io.RawIOBase):
    """A stream whose reads go through a meter."""

    def __init__(self, stream: BinaryIO, meter: _Meter) -> None:
        self._stream = stream
        self._meter = meter
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        self._meter.pass_to(self._position)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = self._stream.seek(offset, whence)
        return self._position

    def close(self) -> None:
        self._stream.close()
        super().close()
