"""Deb: the binary package format 2.0, an ar archive of control.tar and data.tar (deb(5)).

Law: a stream of a .deb becomes an Unpacked value; nothing is executed or written to a file system. Every way an archive
may lie (absolute paths, `..`, devices, sizes, bombs, a path through a link) is refused with the member's name. Memory
does not grow with what a member decompresses to.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from rootfs.debian.package import Package
from rootfs.debian.tar import Member, members
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Slice, Tree, normalise, parent

_MAGIC = b"!<arch>\n"
_CHUNK = 1 << 20
_CONTROL_LIMIT = 16 << 20
_DATA_LIMIT = 1 << 30  # data.tar may be larger when it is no bomb:
_DATA_RATIO = 200  # times its compressed size, a ratio beyond that of any text
_DICTIONARY_LIMIT = 256 << 20  # xz: memory that a member may ask for; `xz -9` takes 65 MiB
_CONTROL_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A .deb's content: its control data, the other members of control.tar by name, and data.tar as a Tree.

    The Tree's content lies in one stored blob: the decompressed data.tar.
    """

    package: Package
    control: Mapping[str, bytes]
    tree: Tree

    def to_bytes(self) -> bytes:
        """The canonical form, for the store: a line of JSON with the control members, then the Tree's own."""
        control = {name: data.hex() for name, data in self.control.items()}
        return canonical_json(control) + b"\n" + self.tree.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Unpacked:
        """Read what `to_bytes` wrote; IntegrityError when it is anything else."""
        line, _, tree = data.partition(b"\n")
        try:
            control = {name: bytes.fromhex(text) for name, text in json.loads(line).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise IntegrityError("a stored package cannot be read", because=str(error)) from error
        return cls(package=_package(control), control=control, tree=Tree.from_bytes(tree))


class _Decompressor(Protocol):
    """What lzma and bz2 have, and `_Gunzip` makes of zlib."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gunzip:
    """A gzip stream, read as lzma reads xz: what does not fit into `max_length` is kept for the next call."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        output = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self.needs_input = len(output) < max_length and not self._stream.unconsumed_tail
        return output


def unpack(stream: BinaryIO, store: Store, name: str) -> Unpacked:
    """Read a .deb; `name` is for messages. IntegrityError when it is not a well-formed, harmless .deb."""
    try:
        control, tree = _read(stream, store)
        return Unpacked(package=_package(control), control=control, tree=tree)
    except (ValueError, OSError) as error:
        raise IntegrityError(f"damaged .deb: {name}", because=str(error)) from error
    except IntegrityError as error:
        because = f"{error.message}: {error.because}" if error.because else error.message
        raise IntegrityError(f"refused .deb: {name}", at=error.at, because=because) from error


def _read(stream: BinaryIO, store: Store) -> tuple[dict[str, bytes], Tree]:
    """control.tar's members and data.tar; what comes after data.tar is not looked at, as by dpkg-deb."""
    archive = (member for member in _ar_members(stream) if not member[0].startswith("_"))
    name, _, chunks = next(archive, ("", 0, iter(())))
    if name != "debian-binary" or not b"".join(_at_most(8, name, chunks)).startswith(b"2."):
        raise IntegrityError("not a .deb of format 2")
    name, _, chunks = next(archive, ("", 0, iter(())))
    if not name.startswith("control.tar"):
        raise IntegrityError("control.tar is missing", because=f"in its place is {name or 'nothing'}")
    control = _read_control(b"".join(_at_most(_CONTROL_LIMIT, name, _decompress(name, chunks))))
    name, size, chunks = next(archive, ("", 0, iter(())))
    if not name.startswith("data.tar"):
        raise IntegrityError("data.tar is missing", because=f"in its place is {name or 'nothing'}")
    limit = max(_DATA_LIMIT, _DATA_RATIO * size)
    return control, _read_data(_at_most(limit, name, _decompress(name, chunks)), store)


def _package(control: Mapping[str, bytes]) -> Package:
    if "control" not in control:
        raise IntegrityError("control.tar holds no file named control")
    return Package.parse(control["control"].decode("utf-8", "surrogateescape"))


def _ar_members(stream: BinaryIO) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Name, size and data of each member; what is not read of the data is skipped."""
    if stream.read(8) != _MAGIC:
        raise IntegrityError("not an ar archive")
    while header := stream.read(60):
        if len(header) != 60 or header[58:] != b"`\n":
            raise IntegrityError("broken ar header")
        name = header[:16].decode("ascii").rstrip().rstrip("/")
        digits = header[48:58].rstrip()
        if not digits.isdigit():
            raise IntegrityError("an ar member's size is no number", at=name, because=repr(header[48:58]))
        chunks = _read_exactly(stream, int(digits), name)
        yield name, int(digits), chunks
        for _ in chunks:
            pass
        stream.read(int(digits) % 2)


def _read_exactly(stream: BinaryIO, size: int, name: str) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            raise IntegrityError("an ar member is shorter than its header says", at=name)
        size -= len(chunk)
        yield chunk


def _decompress(name: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The tar in a member, in chunks of bounded size."""
    decompressor: _Decompressor
    match name.rpartition(".tar")[2]:
        case "":
            yield from chunks
            return
        case ".xz":
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY_LIMIT)
        case ".gz":
            decompressor = _Gunzip()
        case ".bz2":
            decompressor = bz2.BZ2Decompressor()
        case suffix:
            raise IntegrityError(f"compression {suffix} is not supported", at=name)
    for chunk in chunks:
        yield from _pieces(decompressor, chunk, name)
    if not decompressor.eof or decompressor.unused_data:
        because = "bytes follow its end" if decompressor.eof else "it is cut short"
        raise IntegrityError("a compressed stream does not end with its member", at=name, because=because)


def _pieces(decompressor: _Decompressor, data: bytes, name: str) -> Iterator[bytes]:
    """What some input decompresses to, _CHUNK bytes at a time."""
    try:
        yield decompressor.decompress(data, _CHUNK)
        while not (decompressor.eof or decompressor.needs_input):
            yield decompressor.decompress(b"", _CHUNK)
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:  # OSError is how bz2 says it
        raise IntegrityError("a compressed stream is damaged", at=name, because=str(error)) from error


def _at_most(limit: int, name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, as long as they are no bomb."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise IntegrityError("a member is larger than any honest one", at=name, because=f"over {limit} bytes")
        yield chunk


def _read_control(data: bytes) -> dict[str, bytes]:
    """The files of control.tar; they are files of dpkg's database later, so their names are plain."""
    found: dict[str, bytes] = {}
    for member in members(io.BytesIO(data), len(data)):
        name = _path(member.name, member)
        if not name and member.kind is Kind.DIRECTORY:
            continue
        if member.kind is not Kind.FILE:
            raise IntegrityError(f"control.tar holds a {member.kind}", at=member.name)
        if not _CONTROL_NAME.match(name) or name == "list":
            raise IntegrityError("control.tar holds a file of a name that dpkg does not know", at=member.name)
        if name in found:
            raise IntegrityError("control.tar names a file twice", at=member.name)
        found[name] = data[member.offset : member.offset + member.size]
    return found


def _read_data(chunks: Iterator[bytes], store: Store) -> Tree:
    stored = store.put(chunks)
    entries: dict[str, FileEntry] = {}
    with store.open(stored.digest) as stream:
        for member in members(stream, stored.size):
            path = _path(member.name, member)
            if path in entries:
                raise IntegrityError("data.tar names a path twice", at=member.name)
            if path:
                entries[path] = _entry(member, path, stored.digest)
            elif member.kind is not Kind.DIRECTORY:
                raise IntegrityError(f"data.tar makes the root a {member.kind}", at=member.name)
    _check_places(entries)
    return Tree(entries.values())


def _path(text: str, member: Member) -> str:
    try:
        return normalise(text)
    except IntegrityError as error:
        raise IntegrityError(error.message, at=member.name) from error


def _entry(member: Member, path: str, blob: Digest) -> FileEntry:
    if member.name.startswith("/") or "\n" in path:  # dpkg's lists of files are lines of text
        raise IntegrityError("data.tar holds an absolute path, or one with a line break", at=member.name)
    link = ""
    if member.kind in (Kind.SYMLINK, Kind.HARDLINK):
        link = _path(member.link, member) if member.kind is Kind.HARDLINK else member.link
        if not link:
            raise IntegrityError("data.tar holds a link to nowhere", at=member.name)
    return FileEntry(
        path=path,
        kind=member.kind,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime=member.mtime,
        link=link,
        content=Slice(blob=blob, offset=member.offset, size=member.size) if member.kind is Kind.FILE else b"",
    )


def _check_places(entries: Mapping[str, FileEntry]) -> None:
    """Nothing lies below what the same archive makes a link or a file, and a hard link is one to a file of it."""
    good = {""}
    for path, entry in entries.items():
        up = parent(path)
        while up not in good:
            above = entries.get(up)
            if above is not None and above.kind is not Kind.DIRECTORY:
                raise IntegrityError(f"data.tar has a path through a {above.kind} of its own", at=path)
            good.add(up)
            up = parent(up)
        if entry.kind is Kind.HARDLINK:
            target = entries.get(entry.link)
            if target is None or target.kind is not Kind.FILE:
                raise IntegrityError("data.tar holds a hard link to what is no file of it", at=path, because=entry.link)
