"""Ahead: layers of an image into the repositories it is going to be pushed to, while the rest of it is being made.

Law: sends blobs alone. No manifest and no tag is written here, so what never becomes an image leaves nothing that
anybody could pull, and what the registry's garbage collection takes. Nothing that goes wrong here is the end of a
build: it is told, and the push tries again. Only a registry that lets nobody in is an error, and before the work.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import groupby
from types import TracebackType
from typing import Self

from builder.oci.descriptor import Descriptor
from builder.registry.client import Registry
from builder.registry.refusal import refusal
from builder.registry.source import AT_ONCE, store_source
from builder.registry.transfer import Earlier, Transfer, push_blob
from builder.registry.upload import location
from rootfs.digest import Digest
from rootfs.errors import OcibuildError, TransferError
from rootfs.ports import Reporter, Request, Response, Store

_BUSY = frozenset({408, 429})
_GRACE = 5.0  # seconds that an upload gets to end in when the build has failed: the registry may say nothing


class Ahead:
    """`builder.tools.PushAhead` to these repositories, by threads of its own; end it with a `with`.

    Leaving the `with` waits for what is under way; an exception, Ctrl-C among them, stops that, and is not held up by a
    server that says nothing.
    """

    def __init__(self, store: Store, reporter: Reporter, registries: Iterable[Registry]) -> None:
        self._source = store_source(store)
        self._reporter = reporter
        found = {registry.reference.name: registry for registry in registries}
        self._registries = sorted(found.values(), key=lambda registry: registry.name)
        self._uploads: dict[str, dict[Digest, Future[Transfer | None]]] = {name: {} for name in found}
        self._begun: list[Future[Transfer | None]] = []
        self._lost: set[str] = set()
        self._admitted = False
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ahead")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stop.set()
        self._pool.shutdown(wait=kind is None or not wait(self._begun, timeout=_GRACE).not_done)

    def begins(self) -> None:
        """Ask each repository, once, whether it takes what is pushed: TransferError when it does not.

        One that is busy is told, and passed over.
        """
        if self._admitted:
            return
        self._admitted = True
        for registry in self._registries:
            busy = registry.hold(_opening(registry.url), "push")
            if busy is not None:
                self._reporter.note(f"{registry.reference.name}: {busy.because}: the push will tell")

    def packed(self, layers: Sequence[Descriptor]) -> None:
        """Send these layers, which are in the store, whole; each once.

        What goes to several repositories of one registry goes there one after the other: the second mounts it.
        """
        with self._lock:
            for _, together in groupby(self._registries, key=lambda registry: registry.name):
                registries = [one for one in together if one.reference.name in self._uploads]
                for layer in layers:
                    before: Future[Transfer | None] | None = None
                    for registry in registries:
                        uploads = self._uploads[registry.reference.name]
                        if layer.digest not in uploads:
                            uploads[layer.digest] = self._pool.submit(self._send, layer, registry, before)
                            self._begun.append(uploads[layer.digest])
                        before = uploads[layer.digest]

    def of(self, registry: Registry) -> Earlier:
        """What was sent to a repository, for the push there; nothing more is sent to it from here on."""
        with self._lock:
            return Earlier(uploads=self._uploads.pop(registry.reference.name, {}), stop=self._stop)

    def _send(self, layer: Descriptor, registry: Registry, before: Future[Transfer | None] | None) -> Transfer | None:
        """What became of a layer; None when it is left to the push."""
        if before is not None:  # it was submitted earlier, so a thread has it, or had it
            wait([before])
        name = registry.reference.name
        if self._stop.is_set() or name in self._lost:
            return None
        task = f"push {layer.digest.hex[:12]}" + (f" to {name}" if len(self._registries) > 1 else "")
        try:
            body = self._source.body(layer)
            return push_blob(layer, body, registry, self._reporter, self._stop, task=task)
        except OcibuildError as error:
            self._lost.add(name)
            if not self._stop.is_set():
                self._reporter.note(f"{task}: {error.message} ({error.because}): tried again when the image is made")
            return None


def _opening(repository: str) -> Generator[Request, Response, TransferError | None]:
    """An upload session that is opened and cancelled; what a busy registry says. TransferError when there is none."""
    response = yield Request(method="POST", url=f"{repository}/blobs/uploads/")
    if response.status != 202:
        refused = refusal(response, f"an upload to {repository.partition('/v2/')[2]}")
        if response.status >= 500 or response.status in _BUSY:
            return refused
        raise refused
    with suppress(TransferError):
        yield Request(method="DELETE", url=location(response, None), attempts=1)
    return None
