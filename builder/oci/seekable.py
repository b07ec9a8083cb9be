"""Seekable: members in the order they come -> a layer of which each file can be read alone, in one pass.

Law: equal members give equal bytes, whatever the number of threads. The tar goes through a few blocks of memory; in a
block it is known where contents begin and end, and there it is cut for the compressor. One thread hashes the blocks in
order, others compress them. What the form adds is the form's (`builder.oci.estargz`, `builder.oci.zstdchunked`): a
table of contents, which is kept until the end and is all that grows with the number of files.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, Protocol

from builder.oci.descriptor import Descriptor
from builder.oci.tar import Section
from builder.oci.tarsplit import CRC_BEGIN, crc_update
from builder.oci.toc import CHUNK_SIZE, Chunk, Entry, described
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind

_BLOCK = 512
_MOST_WORKERS = 12  # more would need more memory than it is worth: each holds 12 MiB
_AHEAD = 3  # blocks that wait for a worker, so that none waits for the disk

Compress = Callable[[memoryview], bytes | bytearray]
Fill = Callable[[memoryview], object]
"""Puts the content's next bytes into all of a view, or raises."""

Member = tuple[bytes, int, Fill | None, Iterable[tuple[int, bool]] | None]
"""Header, size, what fills in the content, and of a sparse file the runs, as in `builder.oci.stream`."""


class Form(Protocol):
    """What a seekable layer is like. `joined`: what follows a content is compressed with it; `checked`: contents need a
    CRC; `own`: names at the root that are the form's; `annotations`: the descriptor's, once all is written.
    """

    media_type: str
    joined: bool
    checked: bool
    own: frozenset[str]
    annotations: dict[str, str]

    def first(self) -> tuple[bytes, bytes] | None:
        """The header and the content of a member before all others."""

    def add(self, entry: Entry) -> None:
        """The next member, whose chunks have their places."""

    def rest(self, at: int, tar_size: int) -> bytes:
        """What is left of the tar after `tar_size` bytes of it; in the blob it begins at `at`."""

    def tail(self, at: int) -> bytes:
        """What follows the tar in the blob, from `at` on."""


class Packed(NamedTuple):
    """The stored blob, and the digest of the tar in it."""

    descriptor: Descriptor
    diff_id: Digest


def pack_seekable(
    members: Iterable[Member],
    store: Store,
    *,
    form: Form,
    compress: Compress,
    threads: int | None = None,
    on_block: Callable[[int], None] = lambda _: None,
) -> Packed:
    """Write the members, what the form has beside them, and the archive's end; `on_block` gets sizes in bytes of tar.

    IntegrityError for what no table of contents can say (`builder.oci.toc`).
    """
    workers = min(threads or max(2, len(os.sched_getaffinity(0))), _MOST_WORKERS)
    line = _Line(form=form, compress=compress, on_block=on_block, window=workers + _AHEAD)
    with ThreadPoolExecutor(workers, "pack") as pool, ThreadPoolExecutor(1, "hash") as hashing:
        stored = store.put(line.pieces(members, pool, hashing))
    return Packed(
        Descriptor(media_type=form.media_type, digest=stored.digest, size=stored.size, annotations=form.annotations),
        Digest("sha256", line.hasher.hexdigest()),
    )


def members_of(parts: Iterable[Section], store: Store) -> Iterator[Member]:
    """The members of an archive's sections; IntegrityError when a blob is not in the store, or shorter than said."""
    for section in parts:
        with nullcontext() if section.blob is None else store.open(section.blob) as stream:
            for header, entry in section.members:
                content = entry.content
                if entry.kind is not Kind.FILE or not entry.size:
                    yield header, 0, None, None
                elif isinstance(content, bytes):
                    yield header, len(content), io.BytesIO(content).readinto, None
                else:
                    assert stream is not None
                    stream.seek(content.offset)
                    yield header, entry.size, _reader(stream, entry), None


def _reader(stream: BinaryIO, entry: FileEntry) -> Fill:
    def fill(view: memoryview) -> None:
        at = 0
        while at < len(view):
            got: int = stream.readinto(view[at:])  # type: ignore[attr-defined] # every stream of a Store has it
            if not got:
                raise IntegrityError("blob is too short", at=entry.path, because=f"it lacks {len(view) - at} bytes")
            at += got

    return fill


class _Mark(NamedTuple):
    """Where in a block a chunk of a file's content lies."""

    begin: int
    end: int
    entry: Entry
    chunk: Chunk


class _Unit(NamedTuple):
    """What is compressed together, and the chunk it begins with."""

    begin: int
    end: int
    chunk: Chunk | None


@dataclass(slots=True)
class _Block:
    """A piece of the tar, and the contents in it."""

    buffer: bytearray
    view: memoryview = field(init=False)
    size: int = 0
    marks: list[_Mark] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.view = memoryview(self.buffer)

    @property
    def room(self) -> int:
        """Bytes that go in."""
        return CHUNK_SIZE - self.size

    def take(self, size: int) -> memoryview:
        """The next bytes, to be filled."""
        self.size += size
        return self.view[self.size - size : self.size]

    def units(self, *, joined: bool) -> list[_Unit]:
        """The block cut where contents begin and, unless `joined`, where they end."""
        units, at = [], 0
        for number, mark in enumerate(self.marks):
            if mark.begin > at:
                units.append(_Unit(at, mark.begin, None))
            following = self.marks[number + 1].begin if number + 1 < len(self.marks) else self.size
            at = following if joined else mark.end
            units.append(_Unit(mark.begin, at, mark.chunk))
        return [*units, _Unit(at, self.size, None)] if self.size > at else units


class _InFlight(NamedTuple):
    """A block on its way, with its cuts: its hashing and its compressing."""

    block: _Block
    units: list[_Unit]
    hashed: Future[None]
    packed: Future[list[bytes | bytearray]]


@dataclass(slots=True, kw_only=True)
class _Line:
    """The assembly line of one layer. Buffers go round: memory that is new costs as much time as reading into it.

    `at` is how much of the blob is written, `tar_size` of what tar; `pending` are the entries of which a chunk has no
    place in the blob yet, and those after them.
    """

    form: Form
    compress: Compress
    on_block: Callable[[int], None]
    window: int
    at: int = 0
    tar_size: int = 0
    hasher: hashlib._Hash = field(default_factory=hashlib.sha256)
    large: hashlib._Hash = field(default_factory=hashlib.sha256)
    spare: list[bytearray] = field(default_factory=list)
    pending: deque[Entry] = field(default_factory=deque)

    def pieces(
        self, members: Iterable[Member], pool: ThreadPoolExecutor, hashing: ThreadPoolExecutor
    ) -> Iterator[bytes]:
        """The blob, while a few more blocks are in flight than there are workers."""
        flying: deque[_InFlight] = deque()
        try:
            for block in self._blocks(members):
                units = block.units(joined=self.form.joined)
                hashed = hashing.submit(self._hash, block)
                flying.append(_InFlight(block, units, hashed, pool.submit(self._pack, block, units)))
                if len(flying) > self.window:
                    yield self._taken(flying.popleft())
            while flying:
                yield self._taken(flying.popleft())
        finally:
            for one in flying:  # a failure: what has not begun need not
                one.hashed.cancel()
                one.packed.cancel()
        rest = self.form.rest(self.at, self.tar_size)
        self.hasher.update(rest)
        packed = bytes(self.compress(memoryview(rest)))
        self.on_block(len(rest))
        yield packed
        yield self.form.tail(self.at + len(packed))

    def _blocks(self, members: Iterable[Member]) -> Iterator[_Block]:
        """The archive less its end, in blocks."""
        cutter = _Cutter(spare=self.spare)
        if first := self.form.first():
            header, content = first
            yield from cutter.member(self._entry(header, described(header)), len(content), io.BytesIO(content).readinto)
        for header, size, fill, runs in members:
            said = described(header)
            if said["name"] not in self.form.own:
                yield from cutter.member(self._entry(header, said), size, _sparse(fill, runs) if runs else fill)
        yield cutter.block

    def _entry(self, header: bytes, said: dict[str, Any]) -> Entry:
        self.pending.append(Entry(header=header, said=said, crc=CRC_BEGIN))
        return self.pending[-1]

    def _hash(self, block: _Block) -> None:
        """The digests of the tar, of the chunks and of the files, as far as the block has them."""
        self.hasher.update(block.view[: block.size])
        for begin, end, entry, chunk in block.marks:
            content = block.view[begin:end]
            chunk.digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            if self.form.checked:
                entry.crc = crc_update(entry.crc, content)
            if entry.said["size"] == chunk.size:
                entry.digest = chunk.digest
                continue
            self.large = hashlib.sha256() if chunk.at == 0 else self.large
            self.large.update(content)
            entry.digest = f"sha256:{self.large.hexdigest()}"

    def _pack(self, block: _Block, units: Iterable[_Unit]) -> list[bytes | bytearray]:
        return [self.compress(block.view[begin:end]) for begin, end, _ in units]

    def _taken(self, one: _InFlight) -> bytes:
        """The compressed block, whose chunks now have their places; its buffer is free again."""
        packed = one.packed.result()
        one.hashed.result()
        for (_, _, chunk), data in zip(one.units, packed, strict=True):
            if chunk is not None:
                chunk.begin, chunk.end = self.at, self.at + len(data)
            self.at += len(data)
        for mark in one.block.marks:
            mark.entry.missing -= 1
        while self.pending and not self.pending[0].missing:
            self.form.add(self.pending.popleft())
        self.tar_size += one.block.size
        self.on_block(one.block.size)
        self.spare.append(one.block.buffer)
        return b"".join(packed)


class _Cutter:
    """Puts headers and contents into blocks, so that each chunk of a content lies in one."""

    def __init__(self, *, spare: list[bytearray]) -> None:
        self._spare = spare
        self.block = self._next()

    def member(self, entry: Entry, size: int, fill: Fill | None) -> Iterator[_Block]:
        """A member; the blocks that are full."""
        entry.missing = -(-size // CHUNK_SIZE)
        yield from self._loose(entry.header)
        for at in range(0, size, CHUNK_SIZE):
            chunk = Chunk(at=at, size=min(CHUNK_SIZE, size - at))
            if chunk.size > self.block.room:
                yield self._full()
            block = self.block
            assert fill is not None
            fill(block.take(chunk.size))
            entry.chunks.append(chunk)
            block.marks.append(_Mark(block.size - chunk.size, block.size, entry, chunk))
        yield from self._loose(bytes(-size % _BLOCK))

    def _loose(self, data: bytes) -> Iterator[_Block]:
        """What is no content."""
        while data:
            if not self.block.room:
                yield self._full()
            part = data[: self.block.room]
            self.block.take(len(part))[:] = part
            data = data[len(part) :]

    def _full(self) -> _Block:
        full, self.block = self.block, self._next()
        return full

    def _next(self) -> _Block:
        return _Block(self._spare.pop() if self._spare else bytearray(CHUNK_SIZE))


def _sparse(fill: Fill | None, runs: Iterable[tuple[int, bool]]) -> Fill:
    """Fills in holes, too."""
    parts = iter(runs)
    left, is_hole = 0, False

    def filled(view: memoryview) -> None:
        nonlocal left, is_hole
        at = 0
        while at < len(view):
            if not left:
                left, is_hole = next(parts)
                continue
            part = min(left, len(view) - at)
            if is_hole:
                view[at : at + part] = bytes(part)
            elif fill is not None:
                fill(view[at : at + part])
            at += part
            left -= part

    return filled
