"""Tar: a Tree as one canonical archive (POSIX.1-2017 pax, "ustar" and "pax" formats; image-spec 1.1, layer.md).

Law: equal trees give equal bytes, whatever the host or the order of insertion. The archive is a sequence of sections:
first all that lies in no blob (directories, links, small files made here), then one section for each blob that holds
file contents, by digest. A .deb is one blob, so a section depends on one package alone and can be compressed once for
every image that holds it. Inside a section entries come in path order; an extended header is written only for what
ustar cannot hold; owners are numbers; no time is later than the epoch.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import BinaryIO

from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Slice, Tree

_READ_SIZE = 1 << 20
_BLOCK = 512
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_MAGIC = b"ustar\x0000"
_PLAIN = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%b" + _MAGIC + bytes(64) + b"0000000\0" * 2 + bytes(167)
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
_WHITEOUT = "a layer cannot hold this name: it means a whiteout"
END = bytes(2 * _BLOCK)
"""What ends an archive: two blocks of zeros and no padding to a record, since an archive is not a tape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Entries whose contents lie in one blob (None: in no blob), each with its header block."""

    blob: Digest | None
    members: tuple[tuple[bytes, FileEntry], ...]

    @property
    def size(self) -> int:
        """Bytes of the section in the archive."""
        return sum(len(header) + entry.size + -entry.size % _BLOCK for header, entry in self.members)

    @property
    def key(self) -> Digest:
        """Equal keys mean equal bytes: headers, and where in which blob the contents lie."""
        parts = [str(self.blob).encode()]
        for header, entry in self.members:
            content = entry.content
            place = b"%d" % content.offset if isinstance(content, Slice) else hashlib.sha256(content).digest()
            parts += header, place
        return Digest.of(b"".join(parts))


def sections(tree: Tree, *, epoch: int, lowest: bool, whiteouts: bool = False) -> list[Section]:
    """The archive of a tree, less its end. With `lowest` the root directory itself comes first, 0755; with `whiteouts`
    entries may be such (`builder.oci.changes`).

    IntegrityError for what an archive or a layer cannot hold, or a hard link to a file that is not in the tree.
    """
    by_blob: dict[Digest | None, list[tuple[bytes, FileEntry]]] = {None: []}
    if lowest:
        by_blob[None].append((_root(epoch), FileEntry(path="root", kind=Kind.DIRECTORY)))
    for blob, entry in _members(tree, whiteouts=whiteouts):
        by_blob.setdefault(blob, []).append((_header(entry, epoch), entry))
    order = sorted(by_blob, key=lambda blob: "" if blob is None else str(blob))
    return [Section(blob=blob, members=tuple(by_blob[blob])) for blob in order if by_blob[blob]]


def section_bytes(section: Section, store: Store) -> Iterator[bytes]:
    """A section in pieces; IntegrityError when its blob is not in the store or shorter than an entry says."""
    with nullcontext() if section.blob is None else store.open(section.blob) as stream:
        for header, entry in section.members:
            yield header
            if entry.kind is Kind.FILE:
                yield from _content(entry, stream)
                yield bytes(-entry.size % _BLOCK)


def archive(tree: Tree, store: Store, *, epoch: int, lowest: bool) -> Iterator[bytes]:
    """The whole archive in pieces: the bytes whose digest is the diff id of the layer."""
    for section in sections(tree, epoch=epoch, lowest=lowest):
        yield from section_bytes(section, store)
    yield END


def _content(entry: FileEntry, stream: BinaryIO | None) -> Iterator[bytes]:
    if isinstance(entry.content, bytes):
        yield entry.content
        return
    assert stream is not None
    stream.seek(entry.content.offset)
    left = entry.size
    while left:
        piece = stream.read(min(left, _READ_SIZE))
        if not piece:
            raise IntegrityError("blob is too short", at=entry.path, because=f"{entry.content.blob} lacks {left} bytes")
        left -= len(piece)
        yield piece


def _members(tree: Tree, *, whiteouts: bool) -> Iterator[tuple[Digest | None, FileEntry]]:
    """Blob and entry, in path order; of the names of one file the first carries it and the others link to that name."""
    carriers: dict[str, str] = {}
    for entry in tree.values():
        if not whiteouts and entry.path.rpartition("/")[2].startswith(".wh."):
            raise IntegrityError(_WHITEOUT, at=entry.path)
        target = _linked(tree, entry)
        blob = target.content.blob if isinstance(target.content, Slice) else None
        carrier = carriers.setdefault(target.path, entry.path)
        if carrier == entry.path:
            yield blob, target if target.path == entry.path else replace(target, path=entry.path)
        else:
            yield blob, replace(target, path=entry.path, kind=Kind.HARDLINK, link=carrier, content=b"", xattrs=())


def _linked(tree: Tree, entry: FileEntry) -> FileEntry:
    """The entry, or what it is another name of when it is a hard link."""
    if entry.kind is not Kind.HARDLINK:
        return entry
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


def _root(epoch: int) -> bytes:
    return header(path=b"./", kind=Kind.DIRECTORY, mode=0o755, mtime=epoch)


def refuse_whiteout(path: bytes) -> None:
    """IntegrityError for a path that an image's runtime would take for a whiteout (image-spec, layer.md)."""
    if path.startswith(b".wh.") or b"/.wh." in path:
        raise IntegrityError(_WHITEOUT, at=_shown(path))


def check_whiteout(path: bytes, *, is_empty: bool) -> None:
    """IntegrityError for a path that looks like a whiteout and is none: it has to be an empty file (`is_empty`) that
    hides something, with nothing below it. Of aufs' own files the mark of an opaque directory alone means something.
    """
    above, _, name = path.rpartition(b"/")
    refuse_whiteout(above)
    hidden = name.removeprefix(b".wh.")
    if hidden != name and (
        not is_empty or hidden in (b"", b".", b"..") or (hidden.startswith(b".wh.") and hidden != b".wh..opq")
    ):
        raise IntegrityError("a whiteout of nothing, or with content", at=_shown(path))


def header(
    *,
    path: bytes,
    kind: Kind,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Sequence[tuple[str, bytes]] = (),
) -> bytes:
    """The header block of a member, after an extended header where one is needed.

    `path` and `link` are bytes as they are to stand there (a directory's path ends in a slash), `size` is a file's in
    bytes, `mtime` seconds since the epoch. IntegrityError for what an archive cannot hold.
    """
    if b"\0" in path or b"\0" in link:
        raise IntegrityError("a name or link holds a NUL", at=_shown(path))
    texts = len(path) <= 100 and path.isascii() and len(link) <= 100 and link.isascii()
    numbers = 0 <= uid < 8**7 and 0 <= gid < 8**7 and 0 <= size < 8**11 and 0 <= mtime < 8**11
    if texts and numbers and not xattrs and device == (0, 0):
        return _plain(path, mode, uid, gid, size, mtime, _TYPES[kind], link)
    fields = _Header(path, xattrs)
    prefix, name = fields.path(path)
    if not all(0 <= number < 8**7 for number in device):  # pax knows no wider form
        raise IntegrityError(f"device number is out of range: {device}", at=_shown(path))
    block = _ustar(
        name=name,
        mode=mode,
        uid=fields.number("uid", uid, 8),
        gid=fields.number("gid", gid, 8),
        size=fields.number("size", size, 12),
        mtime=fields.number("mtime", mtime, 12),
        typeflag=_TYPES[kind],
        link=fields.text("linkpath", link) if link else b"",
        device=device,
        prefix=prefix,
    )
    return _extended(fields.records) + block


class _Header:
    """One member's header block while it is filled, and the extended records for what it cannot hold."""

    def __init__(self, path: bytes, xattrs: Sequence[tuple[str, bytes]]) -> None:
        self.records: dict[bytes, bytes] = {}
        for name, value in xattrs:
            keyword = b"SCHILY.xattr." + name.encode("utf-8", "surrogateescape")
            if b"=" in keyword or b"\0" in keyword:
                raise IntegrityError("extended attribute's name holds `=` or a NUL", at=_shown(path))
            self.records[keyword] = value

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
    """The header of a Tree's entry."""
    return header(
        path=_encoded(entry.path) + (b"/" if entry.kind is Kind.DIRECTORY else b""),
        kind=entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size if entry.kind is Kind.FILE else 0,
        mtime=min(entry.mtime, epoch),
        link=_encoded(entry.link) if entry.kind in (Kind.SYMLINK, Kind.HARDLINK) else b"",
        device=entry.device if entry.kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
        xattrs=entry.xattrs,
    )


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


def _plain(path: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, typeflag: bytes, link: bytes) -> bytes:
    """`_ustar` of what needs no more, as nearly every member: in a third of the time."""
    fields = (path.ljust(100, b"\0"), mode, uid, gid, size, mtime, typeflag, link.ljust(100, b"\0"))
    return _summed(_PLAIN % fields)


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
    major, minor = (b"0000000\0", b"0000000\0") if device == (0, 0) else (b"%07o\0" % number for number in device)
    fields = (name, b"%07o\0" % mode, uid, gid, size, mtime, b" " * 8, typeflag, link, _MAGIC)
    block = _HEADER.pack(*fields, b"", b"", major, minor, prefix)
    return _summed(block)


def _summed(block: bytes) -> bytes:
    """The block with its checksum. Adler-32's low half is 1 + the sum modulo 65521, which 512 bytes of ASCII do not
    reach; that is 20 times as fast as sum().
    """
    return b"%b%06o\0 %b" % (block[:148], (zlib.adler32(block) & 0xFFFF) - 1, block[156:])


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
