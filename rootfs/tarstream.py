"""A foreign tar, as it comes: every member with what an archive keeps, in one pass, also from a pipe.

Law: believes nothing. What is compressed is told by its first bytes. Read are v7, ustar, GNU's and pax's forms, sparse
members too; the order is the archive's. A member that leaves the root, lies below what is no directory, comes twice, or
links to what did not come before is refused by its name, and so is what follows the archive's end.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from types import MappingProxyType
from typing import BinaryIO, Protocol, cast

import zstandard

from rootfs.errors import HostError, IntegrityError
from rootfs.hosttree import Found
from rootfs.tree import Kind

_CHUNK = 1 << 20
_HEADERS = 8 << 20  # bytes before one member's content; tarfile keeps them all
_XATTR = "SCHILY.xattr."
_KINDS: Mapping[bytes, Kind] = MappingProxyType(
    {
        tarfile.REGTYPE: Kind.FILE,
        tarfile.AREGTYPE: Kind.FILE,
        tarfile.CONTTYPE: Kind.FILE,
        tarfile.GNUTYPE_SPARSE: Kind.FILE,
        tarfile.DIRTYPE: Kind.DIRECTORY,
        tarfile.SYMTYPE: Kind.SYMLINK,
        tarfile.LNKTYPE: Kind.HARDLINK,
        tarfile.CHRTYPE: Kind.CHARACTER,
        tarfile.BLKTYPE: Kind.BLOCK,
        tarfile.FIFOTYPE: Kind.FIFO,
    }
)
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


_Open = Callable[[BinaryIO], _Stream]
_MAGIC: Mapping[bytes, _Open] = MappingProxyType(
    {
        b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
        b"\x28\xb5\x2f\xfd": lambda stream: zstandard.ZstdDecompressor().stream_reader(
            stream, read_across_frames=True, closefd=False
        ),
        b"\xfd7zXZ\0": lzma.LZMAFile,
        b"BZh": bz2.BZ2File,
    }
)


def read_tar(source: BinaryIO, name: str) -> Iterator[Found]:
    """The members of a tar (gzip, zstd, xz, bzip2 or plain), in order; the root directory is not among them.

    `name` is what errors call it. Kept of extended attributes are `security.capability` and `user.*`. IntegrityError
    when it is damaged, no tar, or holds what a layer cannot.
    """
    buffered = source if isinstance(source, BufferedReader) else BufferedReader(source, _CHUNK)  # type: ignore[type-var]
    start = buffered.peek(6)
    opener = next((opener for magic, opener in _MAGIC.items() if start.startswith(magic)), None)
    if not start:
        raise IntegrityError("not a tar archive", at=name, because="it is empty")
    with _judging(name):
        if opener is None:
            yield from _members(cast(_Stream, buffered))
        else:
            with closing(opener(cast(BinaryIO, buffered))) as plain:
                yield from _members(plain)


@contextmanager
def _judging(name: str) -> Iterator[None]:
    """What decompressors and tarfile say of bytes that are not as they should be becomes an IntegrityError."""
    try:
        yield
    except _DAMAGE as error:
        raise IntegrityError("a tar archive is damaged, or none", at=name, because=str(error)) from error
    except RecursionError as error:  # tarfile reads a header that announces another one by recursion
        because = "headers that only announce headers"
        raise IntegrityError("a tar archive is damaged, or none", at=name, because=because) from error
    except OSError as error:  # gzip and bz2 have no error of their own
        if error.errno is not None:
            raise HostError("cannot read a tar archive", at=name, because=error.strerror) from error
        raise IntegrityError("a tar archive is damaged", at=name, because=str(error)) from error


class _TarInfo(tarfile.TarInfo):
    """A header: tarfile takes a damaged one for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _TarInfo:  # type: ignore[override]
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"{error}, in a member's header") from error


class _Metered:
    """The archive's bytes, of which only so many may be read while `left` is a number."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self.left: int | None = _HEADERS

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        if self.left is not None:
            self.left -= len(data)
            if self.left < 0:
                raise tarfile.ReadError(f"headers of more than {_HEADERS} bytes before one member")
        return data

    def close(self) -> None:
        """The stream is not ours."""


def _members(stream: _Stream) -> Iterator[Found]:
    """Every member, checked against those before it; its content has to be read before the next is asked for."""
    place = _Place()
    metered = _Metered(stream)
    # pax headers that are not UTF-8 (capabilities are bytes) come as surrogate escapes
    with tarfile.open(
        fileobj=cast(BinaryIO, metered),
        mode="r|",
        bufsize=_CHUNK,
        tarinfo=_TarInfo,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # it would keep them all
            found = _found(archive, member)
            if found is not None and place.takes(found):
                metered.left = None
                yield found
            metered.left = _HEADERS
        metered.left = None
        source = cast(_Stream, archive.fileobj)
        while rest := source.read(_CHUNK):
            if rest.count(0) != len(rest):
                hint = "archives that were joined: unpack them, and pack the directory"
                raise IntegrityError("a tar archive has bytes after its end", hint=hint)


def _found(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Found | None:
    """A member as it is to be kept; None for the root directory itself."""
    path = _path(member.name, member.name)
    kind = Kind.FILE if member.issparse() else _KINDS.get(member.type)
    if kind is None:
        raise IntegrityError("a tar holds a member no layer can", at=member.name, because=f"type {member.type!r}")
    if not path:
        if kind is Kind.DIRECTORY:
            return None
        raise IntegrityError("a tar holds a member without a name", at=member.name)
    content = _Content(archive, member) if kind is Kind.FILE and member.size else None
    link = _path(member.linkname, member.name) if kind is Kind.HARDLINK else _bytes(member.linkname)
    if kind in (Kind.SYMLINK, Kind.HARDLINK) and not link:
        raise IntegrityError("a tar holds a link to nowhere", at=member.name)
    return Found(
        path,
        kind,
        member.mode & 0o7777,
        member.uid,
        member.gid,
        math.floor(member.mtime),
        link=link if kind in (Kind.SYMLINK, Kind.HARDLINK) else b"",
        device=(member.devmajor, member.devminor) if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
        xattrs=() if kind is Kind.HARDLINK else _xattrs(member),
        size=member.size if kind is Kind.FILE else 0,
        content=content,
    )


def _path(text: str, member: str) -> bytes:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts:
        hint = "unpack it as you trust it, and pack the directory"
        raise IntegrityError("a tar holds a path that leaves the root", at=member, hint=hint)
    return _bytes("/".join(parts))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _xattrs(member: tarfile.TarInfo) -> tuple[tuple[str, bytes], ...]:
    held = {key.removeprefix(_XATTR): value for key, value in member.pax_headers.items() if key.startswith(_XATTR)}
    kept = sorted(name for name in held if name == "security.capability" or name.startswith("user."))
    return tuple((name, _bytes(held[name])) for name in kept)


class _Content:
    """A member's bytes, from front to back; valid until the next member is asked for."""

    __slots__ = ("_holes", "_path", "_stream", "is_sparse")

    def __init__(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        stream = archive.extractfile(member)
        assert stream is not None
        self._stream = stream
        self._path = member.name
        self.is_sparse = member.issparse()
        self._holes = _runs(member) if self.is_sparse else [(member.size, False)]

    def fill(self, view: memoryview) -> None:
        """The next bytes, as many as the view holds."""
        done = 0
        while done < len(view):
            data = self._read(min(len(view) - done, _CHUNK))
            view[done : done + len(data)] = data
            done += len(data)

    def runs(self) -> Iterator[tuple[int, bool]]:
        """The file as (length, whether it is a hole); `fill` reads what is none."""
        for length, is_hole in self._holes:
            yield length, is_hole
            left = length if is_hole else 0
            while left:  # tarfile cannot seek in a pipe: it makes the zeros, and here they end
                left -= len(self._read(min(left, _CHUNK)))

    def _read(self, size: int) -> bytes:
        with _judging(self._path):
            data = self._stream.read(size)
        if not data:
            raise IntegrityError("a tar archive is cut short", at=self._path)
        return data


def _runs(member: tarfile.TarInfo) -> list[tuple[int, bool]]:
    """What a sparse member's map says, checked: in order, and within the file."""
    runs, at = [], 0
    for offset, length in cast("list[tuple[int, int]] | None", member.sparse) or []:
        if offset < at or length < 0 or offset + length > member.size:
            raise IntegrityError("a sparse member's map does not fit it", at=member.name)
        runs += [(offset - at, True), (length, False)]
        at = offset + length
    runs.append((member.size - at, True))
    return [run for run in runs if run[0]]


@dataclass(slots=True)
class _Place:
    """What has come so far, by path: a directory as it is, and None of all else."""

    seen: dict[bytes, Found | None] = field(default_factory=dict)

    def takes(self, found: Found) -> bool:
        """Whether the member is to be kept: not when it is a directory that has come before, just as it is."""
        self._check_above(found)
        if found.kind is Kind.HARDLINK and self.seen.get(found.link, found) is not None:
            raise IntegrityError(
                "a tar has a hard link to what did not come before", at=_shown(found.path), because=_shown(found.link)
            )
        if found.path not in self.seen:
            self.seen[found.path] = found if found.kind is Kind.DIRECTORY else None
            return True
        if self.seen[found.path] == found:
            return False
        hint = "unpack it, so that the last one stays, and pack the directory"
        raise IntegrityError("a tar holds a path twice", at=_shown(found.path), hint=hint)

    def _check_above(self, found: Found) -> None:
        up = found.path.rpartition(b"/")[0]
        while up:
            if up in self.seen:
                if self.seen[up] is None:
                    message = "a tar has a path through what is no directory"
                    raise IntegrityError(message, at=_shown(found.path), because=f"{_shown(up)} is none")
                return  # what is above it was looked at when it came
            up = up.rpartition(b"/")[0]


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
