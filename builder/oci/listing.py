"""Listing: what a layer holds, with the digest of each file's content, but without the contents (image-spec, layer.md).

Law: a layer is read once, as a stream; its digest, size and diff id are checked meanwhile, and nothing of it is written
but the listing, which is kept in the store under the diff id. Contents that tools of every kind ask for (PRECIOUS:
dpkg's database, what names a release) stay in it. A Tree made of listings names contents by their own digests, so
that equal files are equal entries, in whatever layers they lie.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

import msgspec
import zstandard

from builder.oci.descriptor import Descriptor, Fetch
from builder.oci.flatten import Files, Member, check_header, decompressed, read_member
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import Origin, Store, read_blob
from rootfs.tree import FileEntry, Kind, Slice, Tree

PRECIOUS = (
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d/*",
    "var/lib/dpkg/info/*.list",
    "usr/lib/os-release",
    "*/patchlevel.h",
    "*/build-details.json",
)
"""Patterns of paths whose contents a listing keeps."""

_PRECIOUS_SIZE = 4 << 20
_REVISION = 1
_CHUNK = 1 << 20
_KINDS = {kind.value: kind for kind in Kind}


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member of a layer. Texts are bytes as they are in the archive; `offset` is that of the content in the archive,
    `digest` its sha256 (empty for no content), `kept` the content itself of what is precious. `hides` and `opaque` are
    those of `builder.oci.flatten.Member`.
    """

    path: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    link: bytes
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    offset: int
    size: int
    digest: bytes
    kept: bytes
    hides: bytes
    opaque: bool


class Listing(msgspec.Struct, frozen=True):
    """All members of a layer in their order; `size` is that of the uncompressed archive in bytes."""

    diff_id: str
    size: int
    rows: tuple[Row, ...]

    def members(self, *, placed: bool = False) -> Iterator[Member]:
        """The members; with `placed`, contents lie where they are in the archive, else under their own digests."""
        blob = Digest.parse(self.diff_id)
        for row in self.rows:
            if row.hides or row.opaque:
                yield Member(hides=_text(row.hides), opaque=row.opaque)
            else:
                yield Member(entry=_entry(row, blob if placed else None))


# made here and not where it is used: threads that make a type known to msgspec at once crash the process
_LISTING = msgspec.msgpack.Decoder(Listing)


def listing(layer: Descriptor, diff_id: Digest, fetch: Fetch, store: Store) -> Listing:
    """What the layer holds: from the store when it was read before, else of its blob, every byte of which is checked.

    IntegrityError for bytes that are not the described ones, and for a member that `flatten` would refuse.
    """
    kept = store.lookup(_key(diff_id))
    if kept is not None:
        return _LISTING.decode(read_blob(store, kept))
    found = _read(layer, diff_id, fetch, store)
    store.link(_key(diff_id), store.put([msgspec.msgpack.encode(found)]).digest, Origin(kind="listing"))
    return found


def is_kept(diff_id: Digest, store: Store) -> bool:
    """Whether the store has the listing."""
    return store.lookup(_key(diff_id)) is not None


def _key(diff_id: Digest) -> Digest:
    return Digest.of_value({"kind": "listing", "revision": _REVISION, "diff_id": str(diff_id)})


def tree_of(listings: Iterable[Listing], *, placed: bool = False) -> Tree:
    """The Tree of these layers, lowest first, as `flatten` makes it; what `placed` means: `Listing.members`."""
    files = Files()
    for one in listings:
        files.apply(list(one.members(placed=placed)), one.diff_id)
    return files.tree()


def archive_chunks(layer: Descriptor, diff_id: Digest, fetch: Fetch, store: Store) -> Iterator[bytes]:
    """The layer's archive in pieces, from the store or its blob; IntegrityError, at the latest at their end, when they
    are not those of the diff id, or the blob is not the described one.
    """
    hasher = hashlib.new(diff_id.algorithm)
    try:
        for piece in _pieces(layer, diff_id, fetch, store):
            hasher.update(piece)
            yield piece
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise IntegrityError("a layer cannot be decompressed", at=str(layer.digest), because=str(error)) from error
    if hasher.hexdigest() != diff_id.hex:
        because = f"expected {diff_id}, got {diff_id.algorithm}:{hasher.hexdigest()}"
        raise IntegrityError("a layer is not the one the image config names", at=str(layer.digest), because=because)


def _pieces(layer: Descriptor, diff_id: Digest, fetch: Fetch, store: Store) -> Iterator[bytes]:
    if store.exists(diff_id):
        with store.open(diff_id) as stream:
            while piece := stream.read(_CHUNK):
                yield piece
        return
    chunks = fetch(layer)
    yield from decompressed(layer, chunks)
    for _ in chunks:  # what follows the end of the compressed stream
        pass


class Forward:
    """Pieces of bytes as a file that is read from front to back, as far as `tarfile` asks for one."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")
        self._position = 0
        self.last = b""
        """What was read last, other than as parts."""

    def tell(self) -> int:
        """How many bytes were read or skipped."""
        return self._position

    def read(self, size: int) -> bytes:
        """The next bytes, fewer only at the end; tarfile.ReadError for more than any header has."""
        check_header(size)
        if size <= len(self._left):
            found = bytes(self._left[:size])
            self._left = self._left[size:]
            self._position += size
        else:
            found = b"".join(bytes(part) for part in self.parts(size))
        self.last = found
        return found

    def at_end(self) -> bool:
        """Whether nothing is left to be read."""
        return not next(self.parts(1), b"")

    def parts(self, size: int) -> Iterator[memoryview]:
        """The next bytes as they come."""
        while size:
            if not self._left:
                self._left = memoryview(next(self._pieces, b""))
                if not self._left:
                    return
            part, self._left = self._left[:size], self._left[size:]
            size -= len(part)
            self._position += len(part)
            yield part

    def drain(self) -> bool:
        """Read all that is left; whether any of it is other than zeros."""
        return bool(sum(len(part) - bytes(part).count(0) for part in self.parts(1 << 62)))

    def seek(self, position: int) -> int:
        """Skip to a later position."""
        if position < self._position:
            raise IntegrityError("a member begins before the end of the one before it")
        for _ in self.parts(position - self._position):
            pass
        return self._position


def _read(layer: Descriptor, diff_id: Digest, fetch: Fetch, store: Store) -> Listing:
    precious = re.compile("|".join(fnmatch.translate(pattern) for pattern in PRECIOUS))
    stream = Forward(archive_chunks(layer, diff_id, fetch, store))
    rows: list[Row] = []
    for member in members(stream, layer):
        for one in read_member(member, diff_id):
            entry = one.entry
            if entry is None:
                rows.append(_whiteout(one))
            else:
                keep = entry.size <= _PRECIOUS_SIZE and precious.match(entry.path) is not None
                rows.append(_row(entry, *_content(stream, entry, keep=keep)))
    return Listing(diff_id=str(diff_id), size=stream.tell(), rows=tuple(rows))


def members(stream: Forward, layer: Descriptor) -> Iterator[tarfile.TarInfo]:
    """The members' headers; at each the stream stands at the content, of which it need not be read further.

    At the end the stream was read whole. IntegrityError when it is no tar archive, or something follows it.
    """
    at, end = str(layer.digest), -1
    try:
        # pax headers that are not UTF-8 (capabilities are bytes) come as surrogate escapes
        with tarfile.open(fileobj=_file(stream), mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while member := archive.next():
                archive.members = []  # type: ignore[attr-defined] # it would remember every one
                if member.size < 0:
                    raise IntegrityError("a member reaches beyond the end of its layer", at=member.name)
                end = member.offset_data + member.size
                yield member
    except tarfile.TarError as error:
        # Go's readers do without what follows the last member, and umoci's writer, too
        if stream.tell() != end or not stream.at_end():
            raise IntegrityError("a layer is no tar archive", at=at, because=str(error)) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise IntegrityError("a layer is no tar archive", at=at, because=str(error)) from error
    # tarfile takes a damaged header for the end
    if stream.drain() or any(stream.last):
        raise IntegrityError("a layer holds bytes that are no member", at=at)


def _file(stream: Forward) -> BinaryIO:
    return cast(BinaryIO, stream)


def _content(stream: Forward, entry: FileEntry, *, keep: bool) -> tuple[bytes, bytes]:
    """The digest of a content, and with `keep` the content itself."""
    if not entry.size:
        return b"", b""
    hasher = hashlib.sha256()
    kept = []
    before = stream.tell()
    for part in stream.parts(entry.size):
        hasher.update(part)
        if keep:
            kept.append(bytes(part))
    if stream.tell() - before != entry.size:
        raise IntegrityError("a member reaches beyond the end of its layer", at=entry.path)
    return hasher.digest(), b"".join(kept)


def _whiteout(member: Member) -> Row:
    return Row(
        path=b"",
        kind="",
        mode=0,
        uid=0,
        gid=0,
        mtime=0,
        link=b"",
        device=(0, 0),
        xattrs=(),
        offset=0,
        size=0,
        digest=b"",
        kept=b"",
        hides=_bytes(member.hides),
        opaque=member.opaque,
    )


def _row(entry: FileEntry, digest: bytes, kept: bytes) -> Row:
    return Row(
        path=_bytes(entry.path),
        kind=entry.kind.value,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime,
        link=_bytes(entry.link),
        device=entry.device,
        xattrs=tuple((_bytes(name), value) for name, value in entry.xattrs),
        offset=entry.content.offset if isinstance(entry.content, Slice) else 0,
        size=entry.size,
        digest=digest,
        kept=kept,
        hides=b"",
        opaque=False,
    )


def _entry(row: Row, blob: Digest | None) -> FileEntry:
    """The entry; its content in `blob`, or, without one, named by its own digest."""
    content: bytes | Slice = row.kept
    if row.size and blob is not None:
        content = Slice(blob=blob, offset=row.offset, size=row.size)
    elif row.size and not row.kept:
        content = Slice(blob=Digest("sha256", row.digest.hex()), offset=0, size=row.size)
    return FileEntry(
        path=_text(row.path),
        kind=_KINDS[row.kind],
        mode=row.mode,
        uid=row.uid,
        gid=row.gid,
        mtime=row.mtime,
        link=_text(row.link),
        content=content if row.size else b"",
        device=row.device,
        xattrs=tuple((_text(name), value) for name, value in row.xattrs),
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
