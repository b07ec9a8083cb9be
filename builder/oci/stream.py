"""Stream: members in the order they come -> a layer, in one pass (image-spec 1.1, layer.md).

Law: every byte is read once and written once, compressed; nothing of it is kept but a few blocks in memory.
The tar is cut into blocks of 4 MiB, which threads hash (the diff id) and compress while the next are filled; block size
and compression are those of `builder.oci.layer`, so equal members give equal bytes, whatever the number of threads.
Where contents come from is the caller's. A block of zeros, of a hole, is compressed once.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import zstandard

from builder.oci.descriptor import Descriptor
from builder.oci.layer import MEMBER_SIZE, Buffer, Compress, Layer, codec_of
from builder.oci.seekable import pack_seekable
from builder.oci.tar import END
from rootfs.digest import Digest
from rootfs.ports import Store

_BLOCK = 512
_MOST_WORKERS = 12  # more would need more memory than it is worth: each holds 12 MiB
_AHEAD = 3  # blocks that wait for a worker, so that none waits for the disk
_ZEROS = bytes(MEMBER_SIZE)

Fill = Callable[[memoryview], None]
"""Puts the content's next bytes into all of a view, or raises."""


class Member(NamedTuple):
    """A member: its header's bytes and, of a file, the content. `runs`, for a sparse one, are (length, is a hole)."""

    header: bytes
    size: int = 0
    fill: Fill | None = None
    runs: Iterable[tuple[int, bool]] | None = None


def pack_stream(
    members: Iterable[Member],
    store: Store,
    *,
    created_by: str,
    compression: str = "gzip",
    threads: int | None = None,
    on_block: Callable[[int], None] = lambda _: None,
) -> Layer:
    """Write the members, and the archive's end, as a layer blob; `on_block` gets the bytes of each block of tar.

    `compression` and `threads` are as in `builder.oci.layer.pack`, but that a frame of level 19 or more does not tell
    its size, which nobody knows when it begins.
    """
    codec, level = codec_of(compression)
    if codec.form:
        form, compress = codec.form(level), codec.compressor(level)
        made = pack_seekable(members, store, form=form, compress=compress, threads=threads, on_block=on_block)
        return Layer(descriptor=made.descriptor, diff_id=made.diff_id, created_by=created_by)
    workers = min(threads or max(2, len(os.sched_getaffinity(0))), _MOST_WORKERS)
    line = _Line(workers=workers, on_block=on_block)
    with ThreadPoolExecutor(workers, "pack", _after_others) as pool, ThreadPoolExecutor(1, "hash") as hashing:
        blocks = line.blocks(members)
        if level >= codec.whole:
            pieces = line.one_frame(blocks, hashing, level)
        else:
            pieces = line.compressed(blocks, pool, hashing, codec.compressor(level))
        stored = store.put(pieces)
    return Layer(
        descriptor=Descriptor(media_type=codec.media_type, digest=stored.digest, size=stored.size),
        diff_id=Digest("sha256", line.hasher.hexdigest()),
        created_by=created_by,
    )


def _after_others() -> None:
    """A worker lets the thread go first that reads, and so feeds all of them (Linux: nice is each thread's own)."""
    with suppress(OSError):
        os.nice(5)


class _Filled(NamedTuple):
    """A block on its way: the buffer to use again, its hashing and its compressing."""

    buffer: bytearray | None
    hashed: Future[None]
    packed: Future[bytes | bytearray]


@dataclass(slots=True, kw_only=True)
class _Line:
    """An assembly line of one layer. Buffers go round: memory that is new costs as much time as reading into it."""

    workers: int
    on_block: Callable[[int], None]
    hasher: hashlib._Hash = field(default_factory=hashlib.sha256)
    spare: list[bytearray] = field(default_factory=list)

    def blocks(self, members: Iterable[Member]) -> Iterator[tuple[Buffer, bytearray | None]]:
        """The archive in blocks of MEMBER_SIZE, the last one shorter; each with the buffer it lies in."""
        cutter = _Cutter(self.spare)
        for header, size, fill, runs in members:
            whole = len(header) + size + -size % _BLOCK
            if runs is None and whole <= cutter.room:
                cutter.small(header, size, fill)
            else:
                yield from cutter.large(header, size, fill, runs)
        yield from cutter.spread(END)
        yield from cutter.rest()

    def compressed(
        self,
        blocks: Iterable[tuple[Buffer, bytearray | None]],
        pool: ThreadPoolExecutor,
        hashing: ThreadPoolExecutor,
        compress: Compress,
    ) -> Iterator[bytes]:
        """The compressed blocks in order, while a few more are in flight than there are workers."""
        window: deque[_Filled] = deque()
        zeros: Future[bytes | bytearray] | None = None
        try:
            for block, buffer in blocks:
                if block is _ZEROS:
                    packed = zeros = zeros or pool.submit(compress, block)
                else:
                    packed = pool.submit(compress, block)
                window.append(_Filled(buffer, hashing.submit(self.hasher.update, block), packed))
                self.on_block(len(block))
                if len(window) > self.workers + _AHEAD:
                    yield self._taken(window.popleft())
            while window:
                yield self._taken(window.popleft())
        finally:
            for one in window:  # a failure: what has not begun need not
                one.hashed.cancel()
                one.packed.cancel()

    def one_frame(
        self, blocks: Iterable[tuple[Buffer, bytearray | None]], hashing: ThreadPoolExecutor, level: int
    ) -> Iterator[bytes]:
        """The whole layer as one zstd frame."""
        compressor = zstandard.ZstdCompressor(level=level).compressobj()
        for block, buffer in blocks:
            hashed = hashing.submit(self.hasher.update, block)
            yield compressor.compress(block)
            hashed.result()
            self.on_block(len(block))
            if buffer is not None:
                self.spare.append(buffer)
        yield compressor.flush()

    def _taken(self, one: _Filled) -> bytes:
        """The compressed block; its buffer is free again."""
        data = one.packed.result()
        one.hashed.result()
        if one.buffer is not None:
            self.spare.append(one.buffer)
        return data  # type: ignore[return-value] # a bytearray is as good for who writes and hashes it


class _Cutter:
    """Puts headers and contents into blocks."""

    __slots__ = ("_at", "_buffer", "_spare", "_view", "room")

    def __init__(self, spare: list[bytearray]) -> None:
        self._spare = spare
        self._next()

    def _next(self) -> None:
        with suppress(IndexError):
            self._buffer = self._spare.pop()
            self._begin()
            return
        self._buffer = bytearray(MEMBER_SIZE)
        self._begin()

    def _begin(self) -> None:
        self._view = memoryview(self._buffer)
        self._at = 0
        self.room = MEMBER_SIZE

    def small(self, header: bytes, size: int, fill: Fill | None) -> None:
        """A member that fits into the room there is: nearly all."""
        at = self._at + len(header)
        self._view[self._at : at] = header
        if size:
            assert fill is not None
            end = at + size
            fill(self._view[at:end])
            at = end + -size % _BLOCK
            self._view[end:at] = _ZEROS[: at - end]
        self._at = at
        self.room = MEMBER_SIZE - at

    def large(
        self, header: bytes, size: int, fill: Fill | None, runs: Iterable[tuple[int, bool]] | None
    ) -> Iterator[tuple[Buffer, bytearray | None]]:
        """A member that goes over the block's end, or has holes."""
        yield from self.spread(header)
        for length, is_hole in runs if runs is not None else ((size, False),):
            if is_hole:
                yield from self._zeros(length)
                continue
            left = length
            while left:
                part = min(left, self.room)
                assert fill is not None
                fill(self._view[self._at : self._at + part])
                left -= part
                yield from self._advance(part)
        yield from self._zeros(-size % _BLOCK)

    def spread(self, data: bytes) -> Iterator[tuple[Buffer, bytearray | None]]:
        """Bytes at hand."""
        done = 0
        while done < len(data):
            part = min(len(data) - done, self.room)
            self._view[self._at : self._at + part] = data[done : done + part]
            done += part
            yield from self._advance(part)

    def rest(self) -> Iterator[tuple[Buffer, bytearray | None]]:
        """What is left at the end."""
        if self._at:
            yield self._view[: self._at], None

    def _zeros(self, length: int) -> Iterator[tuple[Buffer, bytearray | None]]:
        while length:
            part = min(length, self.room)
            if part == MEMBER_SIZE:  # a block of nothing else
                yield _ZEROS, None
            else:
                self._view[self._at : self._at + part] = _ZEROS[:part]
                yield from self._advance(part)
            length -= part

    def _advance(self, part: int) -> Iterator[tuple[Buffer, bytearray | None]]:
        self._at += part
        self.room -= part
        if not self.room:
            yield self._view, self._buffer
            self._next()
