"""Archive: an image layout in one tar file (what skopeo and podman call an OCI archive), written and read in place.

Law: reads the headers of a tar once and then its blobs where they lie: nothing is unpacked. It believes nothing: what
is absolute, leads out, comes twice, or reaches beyond the end is refused by its name, and every blob is checked against
its digest. What is written is one canonical tar (`builder.oci.tar`): equal images give equal bytes.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from builder.oci.descriptor import SIZE_LIMIT, Descriptor, verified
from builder.oci.layout import VERSION, check_version, closure
from builder.oci.manifest import Index
from builder.oci.mediatypes import compression_of
from builder.oci.tar import archive
from rootfs.digest import canonical_json
from rootfs.errors import IntegrityError, UsageError
from rootfs.files import host_error, replacing
from rootfs.ports import Store
from rootfs.tree import FileEntry, Slice, Tree, file, parent

_CHUNK = 1 << 20
_MEMBERS = 100_000  # an image has a few dozen
_READS = 4096  # blocks of headers before one member; an honest one has a handful
_RATIO = 200  # bytes out of one compressed byte; layers, which are compressed themselves, give about 1
_FREE = 1 << 30  # bytes below which that is nobody's business
_LINKS = 8
_TAR_MAGIC = slice(257, 262)
STDIN = Path("-")
"""The archive that comes on stdin: kept in a nameless temporary file, for it is read back and forth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where a file of the archive lies (bytes from its start), or what it is a link to: None, to nothing inside it."""

    offset: int = 0
    size: int = 0
    link: str | None = ""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A tar file that was read up to its headers; the file stays open as long as somebody holds the value."""

    path: Path
    members: Mapping[str, Member]
    stream: BinaryIO = field(repr=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, self.stream.close)

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def find(self, name: str) -> Member:
        """The file with this name, links inside the archive followed; IntegrityError when there is none."""
        at = name
        for _ in range(_LINKS):
            member = self.members.get(at)
            if member is None:
                because = f"{name} leads to {at}" if at != name else None
                hint = "it was cut short, or made for an importer that has the rest"
                raise IntegrityError("the archive lacks a file", at=f"{self.path}: {at}", because=because, hint=hint)
            if member.link is None:
                raise IntegrityError("a link leads out of the archive", at=f"{self.path}: {at}")
            if not member.link:
                return member
            at = member.link
        raise IntegrityError("a link in the archive leads in a circle", at=f"{self.path}: {name}")

    def chunks(self, member: Member) -> Iterator[bytes]:
        """A file's bytes. Several threads may read at a time."""
        done = 0
        while chunk := os.pread(self.stream.fileno(), min(_CHUNK, member.size - done), member.offset + done):
            done += len(chunk)
            yield chunk

    def document(self, name: str) -> bytes:
        """All of a small file; IntegrityError when it is not there, or larger than a manifest may be."""
        member = self.find(name)
        if member.size > SIZE_LIMIT:
            raise IntegrityError("document is too large", at=f"{self.path}: {name}", because=f"{member.size} bytes")
        return b"".join(self.chunks(member))

    @property
    def is_layout(self) -> bool:
        """Whether it holds an image layout: what newer `docker save`s write does, too."""
        return "oci-layout" in self and "index.json" in self

    def index(self) -> Index:
        """The layout's `index.json`; IntegrityError when this is no layout, or one of an unknown version."""
        for name in ("oci-layout", "index.json"):
            self.find(name)
        check_version(self.document("oci-layout"), str(self.path))
        return Index.parse(self.document("index.json"))

    def holds(self, descriptor: Descriptor) -> bool:
        """Whether a blob of the layout is here."""
        return _blob(descriptor) in self

    def fetch(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A blob of the layout; IntegrityError when it is not there, or other bytes than the described ones."""
        name = _blob(descriptor)
        yield from verified(self.chunks(self.find(name)), descriptor, f"{self.path}: {name}")


def looks_like_archive(path: Path) -> bool:
    """Whether a file begins as a tar archive does, compressed or not."""
    with path.open("rb") as stream:
        start = stream.read(512)
    return compression_of(start) != "none" or start[_TAR_MAGIC] == b"ustar" or start.startswith(b"\xfd7zXZ")


def read_archive(path: Path) -> Archive:
    """The headers of a tar file; one that is compressed is decompressed to a nameless temporary file first.

    UsageError when it cannot be read; IntegrityError when it is no tar, or holds what an honest one does not.
    """
    try:
        stream = _plain(path)
    except OSError as error:
        raise UsageError("cannot read the archive", at=str(path), because=error.strerror or str(error)) from error
    try:
        return Archive(path=path, members=_members(stream, path), stream=stream)
    except BaseException:
        stream.close()
        raise


def write_archive(
    path: Path,
    store: Store,
    descriptor: Descriptor,
    *,
    beside: Iterable[FileEntry] = (),
    listed: Iterable[Descriptor] = (),
) -> None:
    """Write a stored image or index, with all it refers to, as an image layout in a tar, whole or not at all.

    `descriptor` is the one of its `index.json`, with annotations; `beside` is what else the archive is to hold, and
    `listed` what else of the store its `index.json` lists.
    """
    named = (descriptor, *listed)
    index = Index(manifests=named).to_bytes()
    blobs = {part.digest: part for one in named for part in closure(store, one)}
    files = [file("index.json", index), file("oci-layout", canonical_json({"imageLayoutVersion": VERSION}))]
    files += [_stored(one, store) for one in blobs.values()]
    tree = Tree([*files, *beside]).with_parents()
    try:
        with replacing(path) as stream:
            for piece in archive(tree, store, epoch=0, lowest=False):
                stream.write(piece)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise host_error(error, path) from error


def _stored(descriptor: Descriptor, store: Store) -> FileEntry:
    """A blob as a file of the archive."""
    with store.open(descriptor.digest) as stream:
        size = stream.seek(0, io.SEEK_END)
    if size != descriptor.size:
        because = f"expected {descriptor.size} bytes, got {size}"
        raise IntegrityError("blob has the wrong size", at=str(descriptor.digest), because=because)
    content = Slice(blob=descriptor.digest, offset=0, size=size)
    return replace(file(_blob(descriptor), b""), content=content if size else b"")


def _blob(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"


def _plain(path: Path) -> BinaryIO:
    """The uncompressed archive, seekable."""
    source = path.open("rb") if path != STDIN else _spooled()
    start = source.read(6)
    source.seek(0)
    if start == b"\xfd7zXZ\0":
        source.close()
        raise UsageError("the archive is compressed with xz", at=str(path), hint=f"xz --decompress --keep {path}")
    compression = compression_of(start)
    if compression == "none":
        return source
    with source:
        return _decompressed(source, compression == "gzip", path)


def _spooled() -> BinaryIO:
    """All that comes on stdin."""
    with os.fdopen(os.dup(0), "rb") as stdin, _temporary() as target:
        shutil.copyfileobj(stdin, target, _CHUNK)
        if not target.tell():
            raise UsageError("nothing came on stdin", hint="pipe an archive into it; it can be read only once")
    return target


def _decompressed(source: BinaryIO, is_gzip: bool, path: Path) -> BinaryIO:
    import gzip  # noqa: PLC0415 - rarely needed
    import zlib  # noqa: PLC0415

    packed: BinaryIO | gzip.GzipFile | zstandard.ZstdDecompressionReader = (
        gzip.GzipFile(fileobj=source)
        if is_gzip
        else zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    )
    size = os.fstat(source.fileno()).st_size
    with _temporary() as target:
        try:
            while chunk := packed.read(_CHUNK):
                target.write(chunk)
                if target.tell() > max(_FREE, _RATIO * size):
                    because = f"over {target.tell()} bytes come out of {size}"
                    hint = "if you trust it, decompress it and name the .tar"
                    raise IntegrityError("a decompression bomb", at=str(path), because=because, hint=hint)
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise IntegrityError("the archive cannot be decompressed", at=str(path), because=str(error)) from error
    return target


@contextmanager
def _temporary() -> Iterator[BinaryIO]:
    """A nameless file, open at its beginning when it is filled, and closed when that fails."""
    target = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it outlives the block
    try:
        yield target
        target.flush()
        target.seek(0)
    except OSError as error:
        target.close()
        raise host_error(error, Path(tempfile.gettempdir())) from error
    except BaseException:
        target.close()
        raise


def _members(stream: BinaryIO, path: Path) -> dict[str, Member]:
    """name -> where it lies, of files and links; directories and devices are nothing an image is read from."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    headers = _Headers(stream)
    found: dict[str, Member] = {}
    try:
        with tarfile.open(
            fileobj=cast(BinaryIO, headers), mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for member in tar:
                headers.reads = 0
                if not (member.isreg() or member.issym() or member.islnk()):
                    continue
                name, value = _member(member, size, path)
                if name in found:
                    raise IntegrityError("a member of the archive comes twice", at=f"{path}: {member.name}")
                found[name] = value
                if len(found) > _MEMBERS:
                    raise IntegrityError("the archive has too many members", at=str(path), because=f"over {_MEMBERS}")
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise IntegrityError("not a tar archive", at=str(path), because=str(error)) from error
    return found


def _member(member: tarfile.TarInfo, size: int, path: Path) -> tuple[str, Member]:
    at = f"{path}: {member.name}"
    name = _inside(member.name)
    if name is None:
        raise IntegrityError("a member of the archive lies outside of it", at=at)
    if member.issym():
        return name, Member(link=_inside(member.linkname, parent(name)))
    if member.islnk():
        return name, Member(link=_inside(member.linkname))
    if member.issparse():
        raise IntegrityError("a member of the archive is sparse", at=at, hint="make the archive without --sparse")
    if not 0 <= member.size <= size - member.offset_data:
        because = f"{member.size} bytes, {size - member.offset_data} are left"
        raise IntegrityError("a member reaches beyond the end of the archive", at=at, because=because)
    return name, Member(offset=member.offset_data, size=member.size)


def _inside(path: str, directory: str = "") -> str | None:
    """A path from that directory of the archive; None when it is absolute, leads out, or is that of the root."""
    parts = [part for part in directory.split("/") if part]
    for part in path.split("/"):
        if part == ".." and not parts:
            return None
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return None if path.startswith("/") or "\0" in path else "/".join(parts) or None


class _Headers:
    """A tar file of which only headers are read: one that claims to be large, or to go on for ever, is refused."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.reads = 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        if not 0 <= size <= _CHUNK or self.reads > _READS:
            raise tarfile.ReadError(f"a header at byte {self._stream.tell()} is too large")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
