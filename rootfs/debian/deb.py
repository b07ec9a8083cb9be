"""Deb: the binary package format 2.0, an ar archive of control.tar and data.tar (deb(5)).

Law: a stream of a .deb becomes an Unpacked value; nothing is executed or written to a file system. Every way an archive
may lie (absolute paths, `..`, device nodes, sizes) is refused with the member's name.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from rootfs.debian.package import Package
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Slice, Tree, normalise

_MAGIC = b"!<arch>\n"
_CHUNK = 1 << 20
_CONTROL_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A .deb's content: its control data, the other members of control.tar by name, and data.tar as a Tree.

    The Tree's content lies in one stored blob: the decompressed data.tar.
    """

    package: Package
    control: Mapping[str, bytes]
    tree: Tree

    def to_bytes(self) -> bytes:
        """The canonical JSON form, for the store."""
        control = {name: data.hex() for name, data in self.control.items()}
        return canonical_json({"control": control, "tree": self.tree.to_bytes().decode("utf-8", "surrogateescape")})

    @classmethod
    def from_bytes(cls, data: bytes) -> Unpacked:
        """Read what `to_bytes` wrote."""
        value = json.loads(data.decode("utf-8", "surrogateescape"))
        control = {name: bytes.fromhex(text) for name, text in value["control"].items()}
        tree = Tree.from_bytes(value["tree"].encode("utf-8", "surrogateescape"))
        return cls(package=_package(control), control=control, tree=tree)


class _Decompressor(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


def unpack(stream: BinaryIO, store: Store, name: str) -> Unpacked:
    """Read a .deb; `name` is for messages. IntegrityError when it is not a well-formed, harmless .deb."""
    try:
        control: Mapping[str, bytes] = {}
        tree: Tree | None = None
        for member, chunks in _ar_members(stream):
            if member == "debian-binary":
                if not b"".join(chunks).startswith(b"2."):
                    raise IntegrityError("not a .deb of format 2")
            elif member.startswith("control.tar"):
                control = _read_control(b"".join(_decompress(member, chunks)))
            elif member.startswith("data.tar"):
                tree = _read_data(_decompress(member, chunks), store)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, ValueError, OSError) as error:
        raise IntegrityError(f"damaged .deb: {name}", because=str(error)) from error
    except IntegrityError as error:
        raise IntegrityError(f"refused .deb: {name}", at=error.at, because=error.because or error.message) from error
    if "control" not in control or tree is None:
        raise IntegrityError(f"damaged .deb: {name}", because="control.tar or data.tar is missing")
    return Unpacked(package=_package(control), control=control, tree=tree)


def _package(control: Mapping[str, bytes]) -> Package:
    return Package.parse(control["control"].decode("utf-8", "surrogateescape"))


def _ar_members(stream: BinaryIO) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Name and data of each member; the data must be consumed before the next member is asked for."""
    if stream.read(8) != _MAGIC:
        raise IntegrityError("not an ar archive")
    while header := stream.read(60):
        if len(header) != 60 or header[58:] != b"`\n":
            raise IntegrityError("broken ar header")
        name = header[:16].decode("ascii").strip().rstrip("/")
        size = int(header[48:58])
        yield name, _read_exactly(stream, size)
        stream.read(size % 2)


def _read_exactly(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            raise IntegrityError("ar member is shorter than its header says")
        size -= len(chunk)
        yield chunk


def _decompress(member: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    suffix = member.rpartition(".tar")[2]
    makers: dict[str, _Decompressor | None] = {
        "": None,
        ".gz": zlib.decompressobj(wbits=31),
        ".xz": lzma.LZMADecompressor(),
        ".bz2": bz2.BZ2Decompressor(),
    }
    if suffix not in makers:
        raise IntegrityError(f"compression of {member} is not supported")
    decompressor = makers[suffix]
    for chunk in chunks:
        yield decompressor.decompress(chunk) if decompressor else chunk
    if decompressor is not None and not getattr(decompressor, "eof", True):
        raise IntegrityError(f"{member} is truncated")


def _read_control(data: bytes) -> dict[str, bytes]:
    if len(data) > _CONTROL_LIMIT:
        raise IntegrityError("control.tar is larger than 16 MiB")
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                members[normalise(member.name)] = content.read()
    return members


def _read_data(chunks: Iterator[bytes], store: Store) -> Tree:
    stored = store.put(chunks)
    with store.open(stored.digest) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        entries = [_entry(member, stored.digest) for member in archive if normalise(member.name)]
    paths = {entry.path for entry in entries}
    if len(paths) != len(entries):
        raise IntegrityError("data.tar names a path twice")
    return Tree(entries)


_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
}


def _entry(member: tarfile.TarInfo, blob: Digest) -> FileEntry:
    kind = _KINDS.get(member.type)
    if kind is None:
        raise IntegrityError("data.tar holds a device, a fifo or an unknown type", at=member.name)
    if member.name.startswith("/"):
        raise IntegrityError("data.tar holds an absolute path", at=member.name)
    link = normalise(member.linkname) if kind is Kind.HARDLINK else member.linkname
    return FileEntry(
        path=normalise(member.name),
        kind=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        link=link if kind in (Kind.SYMLINK, Kind.HARDLINK) else "",
        content=Slice(blob=blob, offset=member.offset_data, size=member.size) if kind is Kind.FILE else b"",
    )
