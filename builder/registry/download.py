"""The download of one blob into the Store (distribution-spec 1.1, "Pulling blobs"; RFC 9110, section 14).

Law: knows ranges and files, and asks for bytes by the function it is given. A big blob comes by several ranges at a
time, all asked for at once, from a server that proves it can (206, the right Content-Range, one ETag); every other
comes in one stream, and so do big ones when several come at once: a range is written, then read again to be counted, a
stream is counted as it comes. Memory does not depend on the blob's size. Nothing becomes a blob of the Store before its
size and digest were counted, and it was synced: the disk begins with that while the rest is on its way.

A big blob is written to `tmp/part-<digest>` of the store. What of it is whole, up to a number of bytes that is kept
beside it, is counted again and kept when a process that was killed is followed by another.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from builder.oci.descriptor import Descriptor, verified
from builder.registry.refusal import refusal
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError
from rootfs.files import Flusher, host_error, locked
from rootfs.ports import Response, Store, Stored
from rootfs.store import DiskStore, check
from rootfs.url import redact

BIG = 4 << 20
"""From this size on a download that was killed is gone on with."""
_PARALLEL = 8
_RANGES = 5
_LEAST, _PART = 2 << 20, 16 << 20
_PARTS = 8
_CHUNK = 1 << 20
_LIFE = 7 * 86400.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")
Get = Callable[[Mapping[str, str]], Response]
Advance = Callable[[int], None]


def download(
    get: Get, descriptor: Descriptor, store: Store, advance: Advance | None = None, *, ranges: int = _RANGES
) -> Stored:
    """Have the blob in the Store; `get` sends a GET for it with headers, `advance` is told the bytes as they come.

    A big one comes by so many ranges at a time.

    TransferError when the registry refuses; IntegrityError when the bytes are not the described ones, and HostError
    when they cannot be written.
    """
    advance = advance or _nobody
    if store.exists(descriptor.digest):
        return Stored(digest=descriptor.digest, size=descriptor.size)
    if isinstance(store, DiskStore) and descriptor.size >= BIG:
        with _partial(store.root / "tmp", descriptor.digest) as partial:
            if partial is not None:
                with closing(Flusher(partial.file)) as flusher:
                    _Ranged(get, descriptor, partial, advance, flusher, ranges).run()
                store.adopt(partial.path, descriptor.digest)
                return Stored(digest=descriptor.digest, size=descriptor.size)
    with get({}) as response:
        if response.status != 200:
            raise refusal(response, f"blob {descriptor.digest}")
        chunks = verified(_counted(response.chunks, advance), descriptor, redact(response.url))
        return store.put(chunks, expect=descriptor.digest, size=descriptor.size)


def ranges_for(size: int, together: Iterable[int]) -> int:
    """How many ranges at a time a blob is worth that is fetched together with blobs of these sizes, itself one of them.

    Its share of all bytes, so that all end at the same time: what several streams gain is that a long link is full
    sooner, and that many blobs do by themselves.
    """
    return max(1, min(_RANGES, round(_PARALLEL * size / max(1, size, sum(together)))))


def _nobody(_amount: int) -> None:
    """Nobody wants to know."""


def _counted(chunks: Iterator[bytes], advance: Advance) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        advance(len(chunk))


class _Partial:
    """An unfinished blob on the disk: `path`, of which the first `whole` bytes are as they shall be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_suffix(".whole")
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def whole(self) -> int:
        """How many bytes are known to be there; never more than the file has."""
        try:
            told = int(self._note.read_text())
        except (OSError, ValueError):
            return 0
        return max(0, min(told, os.fstat(self.file).st_size))

    def note(self, whole: int) -> None:
        """So many bytes are there: for who comes after a kill, not after a power cut, whose damage the digest shows."""
        new = self._note.with_suffix(".new")
        new.write_text(str(whole))
        new.replace(self._note)

    def discard(self) -> None:
        """Begin at nothing the next time."""
        self._note.unlink(missing_ok=True)
        os.ftruncate(self.file, 0)


@contextmanager
def _partial(place: Path, digest: Digest) -> Iterator[_Partial | None]:
    """The partial file of a blob, or None while somebody else is at it; gone when the blob is in the Store."""
    path = place / f"part-{digest.algorithm}-{digest.hex}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        with locked(path.with_suffix(".lock")) as is_ours:
            if not is_ours:
                yield None
                return
            partial = _Partial(path)
            try:
                yield partial
            finally:
                if partial.whole == 0:  # nothing to go on with
                    path.unlink(missing_ok=True)
                os.close(partial.file)
                if not path.exists():
                    for suffix in (".whole", ".lock"):
                        path.with_suffix(suffix).unlink(missing_ok=True)
    except OSError as error:
        raise host_error(error, place) from error


def _sweep(place: Path) -> None:
    """Remove what was given up long ago."""
    with suppress(OSError):
        for path in place.glob("part-*"):
            if time.time() - path.stat().st_mtime > _LIFE:
                path.unlink(missing_ok=True)


class _NoRangesError(Exception):
    """The server's ranges do not fit together: one stream is safer."""


class _Ranged:
    """The bytes into a partial file: several ranges at a time, counted in order as they are whole."""

    def __init__(
        self,
        get: Get,
        descriptor: Descriptor,
        partial: _Partial,
        advance: Advance,
        flusher: Flusher,
        ranges: int,
    ) -> None:
        self._get = get
        self._flusher = flusher
        self._ranges = ranges
        self._size = min(_PART, max(_LEAST, descriptor.size // _PARTS))
        self._etag: str | None = None
        self._descriptor = descriptor
        self._partial = partial
        self._advance = advance
        self._hasher = hashlib.new(descriptor.digest.algorithm)
        self._counted = 0
        self._told = 0
        self._next = 0
        self._parts: set[int] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> None:
        """All of it; what is wrong is thrown away, what is only not finished is kept."""
        size, digest = self._descriptor.size, self._descriptor.digest
        self._count(min(self._partial.whole, size))
        self._tell(self._counted)
        resumed = self._counted > 0
        if self._counted < size:
            try:
                self._fill()
            except _NoRangesError:
                self._stopped = False
                with self._get({}) as response:
                    self._stream(response)
        try:
            got = Digest(digest.algorithm, self._hasher.hexdigest())
            check(got, os.fstat(self._partial.file).st_size, expect=digest, size=size)
        except IntegrityError:
            self._partial.discard()
            if not resumed:
                raise
            # What was there was not what it seemed.
            _Ranged(self._get, self._descriptor, self._partial, _nobody, self._flusher, self._ranges).run()
        os.fsync(self._partial.file)

    def _fill(self) -> None:
        if self._ranges == 1 and not self._counted:
            with self._get({}) as response:
                self._stream(response)
            return
        starts = range(self._counted, self._descriptor.size, self._size)
        self._next = starts[0]
        with ThreadPoolExecutor(self._ranges) as pool:
            parts = [pool.submit(self._part, start) for start in starts]
            try:
                self._follow(starts, parts)
            except BaseException:
                self._stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _follow(self, starts: range, parts: list[Future[None]]) -> None:
        """Count each part when it and all before it are there."""
        for start, part in zip(starts, parts, strict=True):
            part.result()
            self._count(min(start + self._size, self._descriptor.size))

    def _count(self, end: int) -> None:
        while self._counted < end and not self._stopped:
            chunk = os.pread(self._partial.file, min(_CHUNK, end - self._counted), self._counted)
            if not chunk:
                raise IntegrityError("a partial download became shorter", at=str(self._partial.path))
            self._hasher.update(chunk)
            self._counted += len(chunk)

    def _stream(self, response: Response) -> None:
        """All of it, from the beginning; counted as it comes."""
        if response.status != 200:
            raise refusal(response, f"blob {self._descriptor.digest}")
        self._hasher = hashlib.new(self._descriptor.digest.algorithm)
        self._counted = 0
        self._partial.discard()
        following = self._size
        for chunk in response.chunks:
            if self._counted + len(chunk) > self._descriptor.size:
                break
            _write(self._partial.file, chunk, self._counted)
            self._hasher.update(chunk)
            self._counted += len(chunk)
            self._tell(self._counted - self._told)
            if self._counted >= following:
                following = self._counted + self._size
                self._partial.note(self._counted)
                self._flusher.begin()

    def _tell(self, amount: int) -> None:
        """So many bytes more are there; the ones that come a second time are not told again."""
        if amount > 0:
            self._told += amount
            self._advance(amount)

    def _part(self, start: int) -> None:
        with self._ask(start) as response:
            self._take(response, start)

    def _take(self, response: Response, start: int) -> None:
        offset, end = start, min(start + self._size, self._descriptor.size)
        for chunk in response.chunks:
            if self._stopped:
                raise TransferError("stopped, because another range failed")
            if offset + len(chunk) > end:
                break
            _write(self._partial.file, chunk, offset)
            offset += len(chunk)
            with self._lock:
                self._tell(len(chunk))
        if offset != end:
            raise _NoRangesError
        self._landed(start)

    def _landed(self, start: int) -> None:
        """A part is there; keep how much there is without a gap."""
        with self._lock:
            self._parts.add(start)
            whole = None
            while self._next in self._parts:
                self._parts.remove(self._next)
                whole = self._next = min(self._next + self._size, self._descriptor.size)
            if whole is not None:
                self._partial.note(whole)
            self._flusher.begin()

    def _ask(self, start: int) -> Response:
        """The answer for one part, with what was asked for."""
        size = self._descriptor.size
        end = min(start + self._size, size)
        response = self._get({"Range": f"bytes={start}-{end - 1}"})
        if response.status not in (200, 206):
            with response:
                raise refusal(response, f"blob {self._descriptor.digest}")
        told = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        fits = told is not None and tuple(map(int, told.groups())) == (start, end - 1, size)
        etag = response.headers.get("etag", "")
        with self._lock:
            self._etag = etag if self._etag is None else self._etag
            same = self._etag == etag
        if response.status != 206 or not (fits and same):
            with response:
                raise _NoRangesError
        return response


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
