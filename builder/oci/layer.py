"""Layer: a Tree as a compressed tar (image-spec 1.1, layer.md; POSIX.1-2017 pax, "ustar" and "pax" formats).

Law: equal trees give equal bytes, whatever the host, the order of insertion or the number of threads. Members come in
path order; an extended header is written only for what ustar cannot hold; owners are numbers; no time is later than
the epoch. The archive is compressed in members of 4 MiB of tar each, on several threads: members that follow each
other are one gzip stream (RFC 1952, 2.2), and libdeflate writes the same bytes on every CPU, MTIME 0.
Memory is bounded: a few members, and at most 64 open blobs.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType, TracebackType
from typing import BinaryIO, Self

import deflate

from builder.oci.descriptor import LAYER_GZIP, Descriptor, read_object
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError, RecipeError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Slice, Tree

MEMBER_SIZE = 4 << 20  # bytes of tar in one compressed member; part of the format: a change changes every digest

_READ_SIZE = 1 << 20
_OPEN_BLOBS = 64
_BLOCK = 512
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_MAGIC = b"ustar\x0000"
_TYPES: Mapping[Kind, bytes] = MappingProxyType(
    {
        Kind.FILE: b"0",
        Kind.HARDLINK: b"1",
        Kind.SYMLINK: b"2",
        Kind.CHARACTER: b"3",
        Kind.BLOCK: b"4",
        Kind.DIRECTORY: b"5",
        Kind.FIFO: b"6",
    }
)
_CODECS: Mapping[str, tuple[str, Callable[[bytes, int], bytes | bytearray]]] = MappingProxyType(
    {"gzip": (LAYER_GZIP, deflate.gzip_compress)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A packed layer: the stored blob, the digest of its uncompressed tar, and the history's `created_by`."""

    descriptor: Descriptor
    diff_id: Digest
    created_by: str

    def to_bytes(self) -> bytes:
        """Canonical JSON, for the store."""
        value = {"descriptor": self.descriptor.to_dict(), "diff_id": str(self.diff_id), "created_by": self.created_by}
        return canonical_json(value)

    @classmethod
    def from_bytes(cls, data: bytes) -> Layer:
        """Read what `to_bytes` wrote; IntegrityError when it is anything else."""
        fields = read_object(data, "layer")
        return cls(
            descriptor=Descriptor.from_dict(fields.required("descriptor"), "layer.descriptor"),
            diff_id=fields.digest("diff_id"),
            created_by=fields.text("created_by"),
        )


def pack(
    tree: Tree,
    store: Store,
    *,
    created_by: str,
    epoch: int,
    compression: str = "gzip",
    level: int = 6,
    threads: int | None = None,
    lowest: bool = False,
) -> Layer:
    """Write the tree's entries, and no others, as a layer blob.

    `epoch` (seconds) caps every mtime; `level` is libdeflate's, 1 to 12; `threads` defaults to the cores, at least 2,
    and never changes the bytes. The `lowest` layer of an image begins with the root directory, 0755: runtimes give it
    another mode (containers/storage: 0555) where no layer names it. Directories above an entry are the caller's to
    include, for the same reason. RecipeError for an unknown compression or level; IntegrityError for an entry
    that a layer cannot hold, a hard link out of the tree, or content that is not in the store.
    """
    if compression not in _CODECS:
        raise RecipeError(f"unknown layer compression: {compression}", hint=f"known: {', '.join(_CODECS)}")
    if not 1 <= level <= 12:
        raise RecipeError(f"no such compression level: {level}", hint="choose 1 (fastest) to 12 (smallest)")
    media_type, compress = _CODECS[compression]
    workers = threads or max(2, os.cpu_count() or 2)
    hasher = hashlib.sha256()
    with ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool, _Contents(store) as contents:
        blocks = _blocks(_tar(tree, contents, epoch, lowest=lowest), hasher.update)
        stored = store.put(_compressed(blocks, lambda block: pool.submit(compress, block, level), workers))
    return Layer(
        descriptor=Descriptor(media_type=media_type, digest=stored.digest, size=stored.size),
        diff_id=Digest("sha256", hasher.hexdigest()),
        created_by=created_by,
    )


def _compressed(
    blocks: Iterable[bytes], submit: Callable[[bytes], Future[bytes | bytearray]], workers: int
) -> Iterator[bytes]:
    """The members in the order of the blocks, while at most `workers + 1` blocks are in flight."""
    window: deque[Future[bytes | bytearray]] = deque()
    for block in blocks:
        window.append(submit(block))
        if len(window) > workers:
            yield bytes(window.popleft().result())
    while window:
        yield bytes(window.popleft().result())


def _blocks(pieces: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    """The pieces joined and cut again, `MEMBER_SIZE` bytes each but for the last; `update` sees every one."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= MEMBER_SIZE:
            block = bytes(buffer[:MEMBER_SIZE])
            del buffer[:MEMBER_SIZE]
            update(block)
            yield block
    if buffer:
        block = bytes(buffer)
        update(block)
        yield block


def _tar(tree: Tree, contents: _Contents, epoch: int, *, lowest: bool) -> Iterator[bytes]:
    """The archive in pieces, ended by two blocks of zeros and no padding to a record: an archive is not a tape."""
    if lowest:
        zero = b"%011o\0" % 0
        yield _ustar(name=b"./", mode=0o755, size=zero, mtime=b"%011o\0" % epoch, typeflag=_TYPES[Kind.DIRECTORY])
    for entry in _members(tree):
        yield _header(entry, epoch)
        if entry.kind is Kind.FILE:
            yield from contents.read(entry)
            yield bytes(-entry.size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _members(tree: Tree) -> Iterator[FileEntry]:
    """The entries in path order; of the names of one file the first carries it and the others link to that name."""
    carriers: dict[str, str] = {}
    for entry in tree.values():
        if entry.path.rpartition("/")[2].startswith(".wh."):
            raise IntegrityError("a layer cannot hold this name: it means a whiteout", at=entry.path)
        target = _linked(tree, entry)
        carrier = carriers.setdefault(target.path, entry.path)
        if carrier == entry.path:
            yield replace(target, path=entry.path)
        else:
            yield replace(target, path=entry.path, kind=Kind.HARDLINK, link=carrier, content=b"", xattrs=())


def _linked(tree: Tree, entry: FileEntry) -> FileEntry:
    """The entry, or what it is another name of when it is a hard link."""
    target, seen = entry, {entry.path}
    while target.kind is Kind.HARDLINK:
        found = tree.get(target.link)
        if found is None or found.kind is Kind.DIRECTORY or found.path in seen:
            raise IntegrityError(
                "hard link without a file", at=entry.path, because=f"{target.link} is no file in the same layer"
            )
        target = found
        seen.add(target.path)
    return target


class _Contents:
    """The bytes of entries, through open streams kept in order of last use."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._streams: dict[Digest, BinaryIO] = {}

    def read(self, entry: FileEntry) -> Iterator[bytes]:
        """The content in pieces; IntegrityError when a slice reaches beyond its blob."""
        if isinstance(entry.content, bytes):
            yield entry.content
            return
        stream = self._stream(entry.content)
        stream.seek(entry.content.offset)
        left = entry.size
        while left:
            piece = stream.read(min(left, _READ_SIZE))
            if not piece:
                raise IntegrityError(
                    "blob is too short", at=entry.path, because=f"{entry.content.blob} lacks {left} bytes"
                )
            left -= len(piece)
            yield piece

    def _stream(self, content: Slice) -> BinaryIO:
        stream = self._streams.pop(content.blob, None)
        if stream is None:
            if len(self._streams) == _OPEN_BLOBS:
                self._streams.pop(next(iter(self._streams))).close()
            stream = self._store.open(content.blob)
        self._streams[content.blob] = stream
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams.values():
            stream.close()


class _Header:
    """One member's header block while it is filled, and the extended records for what it cannot hold."""

    def __init__(self, entry: FileEntry) -> None:
        self.records = {b"SCHILY.xattr." + _encoded(name, entry.path): value for name, value in entry.xattrs}
        if any(b"=" in keyword for keyword in self.records):
            raise IntegrityError("extended attribute's name holds `=`", at=entry.path)

    def number(self, keyword: str, value: int, width: int) -> bytes:
        """Octal digits and a NUL; 0 and a record when that is too narrow or the value negative."""
        if not 0 <= value < 8 ** (width - 1):
            self.records[keyword.encode()] = b"%d" % value
            value = 0
        return b"%0*o\0" % (width - 1, value)

    def text(self, keyword: str, value: bytes) -> bytes:
        """At most 100 ASCII bytes; else a record, and what fits of it for readers older than 2001."""
        if value.isascii() and len(value) <= 100:
            return value
        try:
            value.decode()
        except UnicodeDecodeError:
            self.records[b"hdrcharset"] = b"BINARY"  # pax: without it, values are UTF-8
        self.records[keyword.encode()] = value
        return value.decode("ascii", "replace").replace("\ufffd", "_").encode()[:100]

    def path(self, value: bytes) -> tuple[bytes, bytes]:
        """The prefix and the name: cut at a slash when that makes a long path fit."""
        if 100 < len(value) <= 256 and value.isascii():
            cut = value.find(b"/", len(value) - 101)
            if 0 < cut <= 155 and cut < len(value) - 1:
                return value[:cut], value[cut + 1 :]
        return b"", self.text("path", value)


def _header(entry: FileEntry, epoch: int) -> bytes:
    """The header block of a member, after an extended header where one is needed."""
    header = _Header(entry)
    path = _encoded(entry.path, entry.path) + (b"/" if entry.kind is Kind.DIRECTORY else b"")
    prefix, name = header.path(path)
    linked = entry.kind in (Kind.SYMLINK, Kind.HARDLINK)
    device = entry.device if entry.kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0)
    if not all(0 <= number < 8**7 for number in device):  # pax knows no wider form
        raise IntegrityError(f"device number is out of range: {device}", at=entry.path)
    block = _ustar(
        name=name,
        mode=entry.mode,
        uid=header.number("uid", entry.uid, 8),
        gid=header.number("gid", entry.gid, 8),
        size=header.number("size", entry.size if entry.kind is Kind.FILE else 0, 12),
        mtime=header.number("mtime", min(entry.mtime, epoch), 12),
        typeflag=_TYPES[entry.kind],
        link=header.text("linkpath", _encoded(entry.link, entry.path)) if linked else b"",
        device=device,
        prefix=prefix,
    )
    return _extended(header.records) + block


def _extended(records: Mapping[bytes, bytes]) -> bytes:
    """The extended header member that holds the records; nothing when there are none."""
    if not records:
        return b""
    ordered = sorted(records.items(), key=lambda item: (item[0] != b"hdrcharset", item))
    data = b"".join(_record(keyword, value) for keyword, value in ordered)
    header = _ustar(name=b"././@PaxHeader", mode=0o644, size=b"%011o\0" % len(data), typeflag=b"x")
    return header + data + bytes(-len(data) % _BLOCK)


def _record(keyword: bytes, value: bytes) -> bytes:
    """`length keyword=value\\n`, where the length counts its own digits."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)


def _ustar(
    *,
    name: bytes,
    mode: int,
    size: bytes,
    typeflag: bytes,
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
) -> bytes:
    """A ustar header block with its checksum: the sum of its bytes, the checksum's own taken for spaces."""

    def filled(checksum: bytes) -> bytes:
        major, minor = (b"%07o\0" % number for number in device)
        fields = (name, b"%07o\0" % mode, uid, gid, size, mtime, checksum, typeflag, link, _MAGIC)
        return _HEADER.pack(*fields, b"", b"", major, minor, prefix)

    return filled(b"%06o\0 " % sum(filled(b" " * 8)))


def _encoded(text: str, path: str) -> bytes:
    if "\0" in text:
        raise IntegrityError("a name or link holds a NUL", at=path)
    return text.encode("utf-8", "surrogateescape")
