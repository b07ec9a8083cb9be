"""Flatten: an image's layers, put on top of each other, as one Tree (image-spec 1.1, layer.md, "Applying").

Law: believes nothing: digest, size and diff id are checked while a layer is read, and a member that no honest layer
holds is refused by its name. An uncompressed layer becomes one blob of the Store, in which the contents lie. A
whiteout hides what the layers below have, never what its own layer brings. Where blobs come from is the caller's.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, cast

import zstandard

from builder.oci.descriptor import Descriptor, Fetch
from builder.oci.mediatypes import LAYERS, compression_of
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import Store
from rootfs.readback import entry_of
from rootfs.tree import FileEntry, Kind, Slice, Tree, normalise, parent, path_order

_CHUNK = 1 << 20
_HEADER = 1 << 20  # bytes of one extended header; Linux keeps 64 KiB of attributes of a file, and 4 KiB of a name
_PATH = 4096  # bytes, PATH_MAX: longer ones cannot be named on any system
_FREE = 64 << 30  # bytes of an archive that are nobody's business, however small they are when compressed
_RATIO = 1100  # beyond that, bytes out of one compressed byte; gzip cannot give more than 1032
_BLOCK = 512
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_RESERVED = ".wh..wh."  # aufs kept its own files under such names: no runtime shows them
_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
    tarfile.FIFOTYPE: Kind.FIFO,
}


def flatten(layers: Iterable[tuple[Descriptor, Digest]], fetch: Fetch, store: Store) -> Tree:
    """The Tree of these layers (each with its diff id), lowest first; owners, modes, times and attributes are theirs.

    Names of one file stay hard links, to the first of them. IntegrityError for bytes that are not the described ones,
    a damaged archive, and a member that is no path of the image, comes twice or lies below something other than a
    directory.
    """
    files = Files()
    for layer, diff_id in layers:
        blob = unpacked(layer, diff_id, fetch, store)
        with store.open(blob) as stream:
            size = stream.seek(0, io.SEEK_END)
            files.apply(list(_members(stream, blob, size, layer)), str(layer.digest))
    return files.tree()


def unpacked(layer: Descriptor, diff_id: Digest, fetch: Fetch, store: Store) -> Digest:
    """The uncompressed layer in the store, whose digest is the diff id; all of the blob is read and checked."""
    chunks = fetch(layer)
    try:
        store.put(decompressed(layer, chunks), expect=diff_id)
        for _ in chunks:  # what follows the end of the compressed stream
            pass
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise IntegrityError("a layer cannot be decompressed", at=str(layer.digest), because=str(error)) from error
    except IntegrityError as error:
        if error.at is None:
            message = "a layer is not the one the image config names"
            raise IntegrityError(message, at=str(layer.digest), because=error.because) from error
        raise
    return diff_id


def decompressed(layer: Descriptor, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The tar archive of a layer's blob in pieces; errors of the codecs are the caller's to translate."""
    source = io.BufferedReader(_Chunks(chunks), _CHUNK)
    if layer.media_type not in LAYERS:
        raise IntegrityError("not a layer", at=str(layer.digest), because=f"its media type is {layer.media_type}")
    # Docker's types never said: layers that are no gzip are found under the one that has it in its name
    said = LAYERS[layer.media_type] if ".docker." not in layer.media_type else compression_of(source.peek(4)[:4])
    stream: BinaryIO | gzip.GzipFile | zstandard.ZstdDecompressionReader = cast(BinaryIO, source)
    if said == "gzip":
        stream = gzip.GzipFile(fileobj=cast(BinaryIO, source))
    elif said == "zstd":
        stream = zstandard.ZstdDecompressor().stream_reader(cast(BinaryIO, source), read_across_frames=True)
    size = 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if size > max(_FREE, _RATIO * layer.size):
            because = f"over {size} bytes come out of {layer.size}"
            raise IntegrityError("a layer is a decompression bomb", at=str(layer.digest), because=because)
        yield chunk


class _Chunks(io.RawIOBase):
    """An iterator of bytes as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a layer; `hides` is what it is a whiteout of: one path, or with `opaque` all below it."""

    entry: FileEntry | None = None
    hides: str = ""
    opaque: bool = False


def _members(stream: BinaryIO, blob: Digest, size: int, layer: Descriptor) -> Iterator[Member]:
    """The members in their order; the root directory itself is no entry of a Tree."""
    stream.seek(0)
    start = end = 0
    try:
        # pax headers that are not UTF-8 (capabilities are bytes) come as surrogate escapes
        headers = cast(BinaryIO, Headers(stream))
        with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                if member.offset_data <= start or member.size < 0 or member.offset_data + member.size > size:
                    raise IntegrityError("a member reaches beyond the end of its layer", at=member.name)
                start, end = member.offset_data, member.offset_data + member.size
                yield from read_member(member, blob)
            stream.seek(archive.offset)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        if end == size and not isinstance(
            error, RecursionError
        ):  # Go's readers do without what follows the last member, and umoci's writer, too
            return
        raise IntegrityError("a layer is no tar archive", at=str(layer.digest), because=str(error)) from error
    # tarfile takes a damaged header for the end
    if any(stream.read(_BLOCK)):
        raise IntegrityError("a layer holds bytes that are no member", at=str(layer.digest))


class Headers:
    """A stream of which `tarfile` may read headers of a sane size."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; tarfile.ReadError when that is more than any header has."""
        check_header(size)
        return self._stream.read(size)


def check_header(size: int) -> None:
    """tarfile.ReadError when an extended header claims a size that would only fill the memory."""
    if size > _HEADER:
        raise tarfile.ReadError(f"a header of {size} bytes")


def read_member(member: tarfile.TarInfo, blob: Digest) -> Iterator[Member]:
    """A member of the archive `blob`, unless it is the root directory; IntegrityError for what a layer cannot hold."""
    path = _path(member.name, member)
    name = path.rpartition("/")[2]
    if not path and member.isdir():
        return
    if name == _OPAQUE:
        yield Member(hides=parent(path), opaque=True)
    elif name.startswith(_RESERVED):
        return
    elif name.startswith(_WHITEOUT):
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise IntegrityError("a whiteout of nothing", at=member.name)
        yield Member(hides=f"{parent(path)}/{hidden}".lstrip("/"))
    else:
        yield Member(entry=_entry(member, path, blob))


def _path(text: str, member: tarfile.TarInfo) -> str:
    if text.startswith("/"):
        raise IntegrityError("a layer holds an absolute path", at=member.name)
    if len(text) > _PATH:
        raise IntegrityError(
            "a layer holds a path that is too long", at=f"{text[:80]}...", because=f"{len(text)} characters"
        )
    try:
        return normalise(text)
    except IntegrityError as error:
        raise IntegrityError("a layer holds a path that leaves the image", at=member.name) from error


def _entry(member: tarfile.TarInfo, path: str, blob: Digest) -> FileEntry:
    kind = _KINDS.get(member.type)
    if kind is None or member.issparse() or not path:
        because = "a sparse file" if member.issparse() else f"type {member.type!r}"
        raise IntegrityError("a layer holds a member of a kind that we cannot keep", at=member.name, because=because)
    if member.size and kind is not Kind.FILE:
        raise IntegrityError("a member that is no file has content", at=member.name, because=f"{member.size} bytes")
    link = _path(member.linkname, member) if kind is Kind.HARDLINK else member.linkname
    if kind in (Kind.SYMLINK, Kind.HARDLINK) and (not link or "\0" in link):
        raise IntegrityError("a layer holds a link to nowhere", at=member.name)
    if not (-(1 << 63) <= member.mtime < 1 << 63 and 0 <= member.uid < 1 << 32 and 0 <= member.gid < 1 << 32):
        because = f"mtime {member.mtime}, uid {member.uid}, gid {member.gid}"
        raise IntegrityError("a layer holds a time or an owner that no file can have", at=member.name, because=because)
    return replace(
        entry_of(member, path=path, kind=kind, link=link if kind in (Kind.SYMLINK, Kind.HARDLINK) else ""),
        content=Slice(blob=blob, offset=member.offset_data, size=member.size) if member.size else b"",
        device=(member.devmajor, member.devminor) if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
    )


@dataclass(slots=True)
class Files:
    """What the layers so far amount to: path -> the entry of its file. Names of one file share the same object, so a
    file lives on under its other names when one of them is replaced.
    """

    entries: dict[str, FileEntry] = field(default_factory=dict)

    def apply(self, members: list[Member], layer: str) -> None:
        """Put a layer on top, which errors call `layer`.

        IntegrityError for a path that comes twice: some readers show the first, some the last, so what one has looked
        at is not what another runs. A directory may come again as it is, its time aside: tools that put archives
        together write layers like that, and every reader makes one directory of it, with the last one's time.
        """
        self._hide(members)
        held: dict[str, FileEntry] = {}
        for member in members:
            if (entry := member.entry) is not None:
                before = held.setdefault(entry.path, entry)
                if before is not entry and (
                    entry.kind is not Kind.DIRECTORY or replace(before, mtime=entry.mtime) != entry
                ):
                    hint = "`ocibuild check` tells all that is wrong with the image"
                    raise IntegrityError("a layer holds a path twice", at=f"{layer}: {entry.path}", hint=hint)
                self._put(entry)

    def tree(self) -> Tree:
        """Of the names of one file the first carries it, the others are hard links to that one."""
        carriers: dict[int, str] = {}
        found = []
        for path in sorted(self.entries, key=path_order):
            entry = self.entries[path]
            self._check_place(path)  # again: what came last may have put a file where a directory has to be
            carrier = carriers.setdefault(id(entry), path)
            if carrier == path:
                found.append(replace(entry, path=path))
            else:
                found.append(replace(entry, path=path, kind=Kind.HARDLINK, link=carrier, content=b"", xattrs=()))
        return Tree(found)

    def _check_place(self, path: str) -> None:
        """Directories that no layer names are the runtime's to make; a link on the way would lead it anywhere."""
        up = parent(path)
        while up:
            above = self.entries.get(up)
            if above is not None and above.kind is not Kind.DIRECTORY:
                raise IntegrityError(f"a layer has a path through a {above.kind}", at=path, because=f"{up} is one")
            up = parent(up)

    def _hide(self, members: list[Member]) -> None:
        hidden = {member.hides for member in members if member.hides and not member.opaque}
        opaque = {member.hides for member in members if member.opaque}
        if hidden or opaque:
            self.entries = {path: entry for path, entry in self.entries.items() if not _is_below(path, hidden, opaque)}

    def _put(self, entry: FileEntry) -> None:
        path = entry.path
        self._check_place(path)
        if entry.kind is Kind.HARDLINK:
            target = self.entries.get(entry.link)
            if target is None or target.kind is Kind.DIRECTORY:
                message = "a layer has a hard link to what is no file of the image"
                raise IntegrityError(message, at=path, because=entry.link)
            entry = target
        before = self.entries.get(path)
        if before is not None and before.kind is Kind.DIRECTORY and entry.kind is not Kind.DIRECTORY:
            self.entries = {known: old for known, old in self.entries.items() if not known.startswith(path + "/")}
        self.entries[path] = entry


def _is_below(path: str, hidden: set[str], opaque: set[str]) -> bool:
    """Whether a whiteout hides the path: its own, one of a directory it lies in, or an opaque such directory."""
    if path in hidden:
        return True
    while path:
        path = parent(path)
        if path in opaque or (path and path in hidden):
            return True
    return False
