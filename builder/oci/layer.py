"""Layer: a Tree as a compressed canonical tar (image-spec 1.1, layer.md).

Law: equal trees give equal bytes, whatever the number of threads or what the store already holds. Each section of the
archive (`builder.oci.tar`) is compressed on its own, in members of 4 MiB of tar each, on several threads: members that
follow each other are one gzip stream (RFC 1952, 2.2; libdeflate writes the same bytes on every CPU, MTIME 0), frames
one zstd stream (RFC 8878, 3).
A section compressed once is kept in the store under its key, so assembling a layer is mostly concatenating.
From zstd's level 19 on small is all that counts: the whole layer is one frame, which is a tenth smaller.
Memory is bounded: a few members at a time, or zstd's window.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import deflate
import zstandard

from builder.oci.behind import Behind, hashing
from builder.oci.descriptor import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor, read_object
from builder.oci.estargz import Estargz
from builder.oci.seekable import Form, members_of, pack_seekable
from builder.oci.tar import END, Section, section_bytes, sections
from builder.oci.zstdchunked import ZstdChunked
from rootfs.digest import Digest, canonical_json
from rootfs.errors import RecipeError
from rootfs.ports import Origin, Store
from rootfs.tree import Tree

MEMBER_SIZE = 4 << 20  # bytes of tar in one compressed member; part of the format: a change changes every digest

Buffer = bytes | bytearray | memoryview
Compress = Callable[[Buffer], bytes | bytearray]
"""A block of tar to a gzip member or a zstd frame; any thread may call it, and none waits for another."""

_KEPT_SIZE = 64 << 20  # a section of more tar than this is compressed as it streams and not kept
_MADE_SIZE = 1 << 20  # so is one of less tar that lies in no blob: compressing it takes less time than syncing a file
_READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A way to compress: the layer's media type, how a block's compressor is made for a level, the levels it has and
    the one taken when none is named.
    """

    media_type: str
    compressor: Callable[[int], Compress]
    levels: range
    level: int
    whole: int = 1 << 31
    """The level from which on a layer is one frame."""
    form: Callable[[int], Form] | None = None
    """Makes the form of a layer of which each file can be read alone, for a level."""


class _Zstandard:
    """Blocks to frames, with a compressor for each thread: setting one up takes a twentieth of a block's time."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._mine = threading.local()

    def __call__(self, block: Buffer) -> bytes:
        compressor = getattr(self._mine, "compressor", None)
        if compressor is None:
            compressor = zstandard.ZstdCompressor(level=self._level, write_content_size=True)
            self._mine.compressor = compressor
        frame: bytes = compressor.compress(block)
        return frame


def _deflated(level: int) -> Compress:
    return lambda block: deflate.gzip_compress(block, level)


def _plain(_level: int) -> Compress:
    return bytes


_CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        "gzip": Codec(media_type=LAYER_GZIP, compressor=_deflated, levels=range(1, 13), level=6),
        "zstd": Codec(media_type=LAYER_ZSTD, compressor=_Zstandard, levels=range(1, 23), level=3, whole=19),
        "estargz": Codec(
            media_type=LAYER_GZIP, compressor=_deflated, levels=range(1, 13), level=6, form=lambda _: Estargz()
        ),
        "zstd:chunked": Codec(
            media_type=LAYER_ZSTD, compressor=_Zstandard, levels=range(1, 23), level=3, form=ZstdChunked
        ),
        "none": Codec(media_type=LAYER_TAR, compressor=_plain, levels=range(0), level=0),
    }
)

Submit = Callable[[bytes], Future[bytes | bytearray]]


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


def parse_compression(text: str) -> tuple[str, int]:
    """`gzip`, `zstd:19`, `zstd:chunked:19` or `none` as a name and a level; RecipeError when there is no such one."""
    name = max((known for known in _CODECS if f"{text}:".startswith(f"{known}:")), key=len, default="")
    if not name:
        said = text.partition(":")[0]
        raise RecipeError(f"unknown layer compression: {said}", hint=f"known: {', '.join(_CODECS)}")
    codec = _CODECS[name]
    _, colon, level = text[len(name) :].partition(":")
    if not colon:
        return name, codec.level
    if not codec.levels:
        raise RecipeError(f"{name} has no levels: {text}")
    if not level.isdecimal() or int(level) not in codec.levels:
        hint = f"choose {codec.levels.start} (fastest) to {codec.levels.stop - 1} (smallest)"
        raise RecipeError(f"no such level of {name}: {level}", hint=hint)
    return name, int(level)


def codec_of(text: str) -> tuple[Codec, int]:
    """The codec that `parse_compression` names, and the level."""
    name, level = parse_compression(text)
    return _CODECS[name], level


def pack(
    tree: Tree,
    store: Store,
    *,
    created_by: str,
    epoch: int,
    compression: str = "gzip",
    threads: int | None = None,
    lowest: bool = False,
    whiteouts: bool = False,
) -> Layer:
    """Write the tree's entries, and no others, as a layer blob.

    `epoch` (seconds) caps every mtime; `compression` is `gzip[:LEVEL]` (libdeflate's, 1 to 12, 6), `zstd[:LEVEL]` (1
    to 22, 3), `none`, or of the same levels `estargz[:LEVEL]` and `zstd:chunked[:LEVEL]`, whose descriptors have
    annotations; `threads` defaults to the cores, at least 2, and never changes the bytes.
    The `lowest` layer of an image begins with the root directory, 0755: runtimes give it another mode
    (containers/storage: 0555) where no layer names it. Directories above an entry are the caller's to include, for the
    same reason. With `whiteouts` entries may be such (`builder.oci.changes`). RecipeError for an unknown compression or
    level; IntegrityError for an entry that a layer cannot hold, a hard link out of the tree, or content that is not in
    the store.
    """
    name, level = parse_compression(compression)
    codec = _CODECS[name]
    compress = codec.compressor(level)
    workers = threads or max(2, os.cpu_count() or 2)
    parts = sections(tree, epoch=epoch, lowest=lowest, whiteouts=whiteouts)
    if codec.form:
        found = members_of(parts, store)
        packed = pack_seekable(found, store, form=codec.form(level), compress=compress, threads=threads)
        return Layer(descriptor=packed.descriptor, diff_id=packed.diff_id, created_by=created_by)
    with hashing() as hasher:
        if level >= codec.whole:
            stored = store.put(_frame(parts, store, level, hasher.update))
        else:
            kind = {"kind": "section", "revision": 3, "codec": f"{name}:{level}"}
            packer = _Packer(store=store, kind=kind, workers=workers, hasher=hasher)
            with ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool:
                stored = store.put(packer.layer(parts, lambda block: pool.submit(compress, block)))
        diff_id = Digest("sha256", hasher.hexdigest())
    descriptor = Descriptor(media_type=codec.media_type, digest=stored.digest, size=stored.size)
    return Layer(descriptor=descriptor, diff_id=diff_id, created_by=created_by)


def _frame(parts: Sequence[Section], store: Store, level: int, update: Callable[[bytes], None]) -> Iterator[bytes]:
    """The whole layer as one zstd frame; `update` sees every byte of the tar."""
    size = sum(section.size for section in parts) + len(END)
    compressor = zstandard.ZstdCompressor(level=level, write_content_size=True).compressobj(size=size)
    for piece in chain.from_iterable([*(section_bytes(section, store) for section in parts), (END,)]):
        update(piece)
        yield compressor.compress(piece)
    yield compressor.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packer:
    """Compresses sections, or takes them from the store; `hasher` gets every byte of the tar."""

    store: Store
    kind: Mapping[str, object]
    workers: int
    hasher: Behind

    def layer(self, parts: Iterable[Section], submit: Submit) -> Iterator[bytes]:
        """The compressed layer in pieces."""
        for section in parts:
            if section.size > _KEPT_SIZE or (section.blob is None and section.size < _MADE_SIZE):
                yield from self._compressed(section_bytes(section, self.store), submit)
            else:
                yield from self._kept(section, submit)
        yield from self._compressed([END], submit)

    def _kept(self, section: Section, submit: Submit) -> Iterator[bytes]:
        """A section whose compressed form the store holds, or holds from now on."""
        key = Digest.of_value({**self.kind, "section": str(section.key)})
        kept = self.store.lookup(key)
        if kept is None:
            kept = self.store.put(self._compressed(section_bytes(section, self.store), submit)).digest
            self.store.link(key, kept, Origin(kind="section"))
        else:
            self.hasher.follow(section_bytes(section, self.store))
        with self.store.open(kept) as stream:
            while piece := stream.read(_READ_SIZE):
                yield piece

    def _compressed(self, pieces: Iterable[bytes], submit: Submit) -> Iterator[bytes]:
        """The members in order, while at most `workers + 1` blocks are in flight."""
        window: deque[Future[bytes | bytearray]] = deque()
        for block in _blocks(pieces, self.hasher.update):
            window.append(submit(block))
            if len(window) > self.workers:
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
