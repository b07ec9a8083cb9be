"""Recompress: a layer's archive as it is, compressed another way (image-spec 1.1, layer.md).

Law: the archive stays, and so does the diff id; the blob follows from it and the compression alone, whatever the number
of threads. Everything is read once, checked against digest and diff id, and cut into the blocks of `builder.oci.layer`;
a few of them are in memory at a time. What was made once is found again under the diff id.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard

from builder.oci.descriptor import Descriptor, Fetch
from builder.oci.layer import MEMBER_SIZE, Compress, codec_of
from builder.oci.listing import archive_chunks
from rootfs.digest import Digest
from rootfs.errors import UsageError
from rootfs.ports import Origin, Store

_REVISION = 2


def recompressed(
    layer: Descriptor, diff_id: Digest, fetch: Fetch, store: Store, *, compression: str, threads: int | None = None
) -> Descriptor:
    """The layer in the store, compressed as `builder.oci.layer.pack` names it; IntegrityError for a damaged one.

    UsageError for a form that is more than a compression: its files would have to be packed anew.
    """
    codec, level = codec_of(compression)
    if codec.form is not None:
        hint = "add --squash, which packs all files anew, or choose gzip, zstd or none"
        raise UsageError(f"a layer cannot be compressed as {compression} as it is", at=str(layer.digest), hint=hint)
    key = Digest.of_value(
        {
            "kind": "recompressed",
            "revision": _REVISION,
            "diff_id": str(diff_id),
            "codec": [codec.media_type, level],
        }
    )
    made = store.lookup(key)
    if made is None:
        pieces = archive_chunks(layer, diff_id, fetch, store)
        if level >= codec.whole:
            made = store.put(_one_frame(pieces, level)).digest
        else:
            workers = threads or max(2, len(os.sched_getaffinity(0)))
            with ThreadPoolExecutor(workers, "recompress") as pool:
                made = store.put(_compressed(pieces, pool, codec.compressor(level), workers)).digest
        store.link(key, made, Origin(kind="recompressed"))
    with store.open(made) as stream:
        return Descriptor(media_type=codec.media_type, digest=made, size=stream.seek(0, io.SEEK_END))


def _one_frame(pieces: Iterable[bytes], level: int) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=level).compressobj()
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _compressed(pieces: Iterable[bytes], pool: ThreadPoolExecutor, compress: Compress, workers: int) -> Iterator[bytes]:
    """The compressed blocks in order; one more is in flight than there are workers."""
    window: deque[Future[bytes | bytearray]] = deque()
    try:
        for block in _blocks(pieces):
            window.append(pool.submit(compress, block))
            if len(window) > workers:
                yield bytes(window.popleft().result())
        while window:
            yield bytes(window.popleft().result())
    finally:
        for one in window:  # a failure: what has not begun need not
            one.cancel()


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of MEMBER_SIZE, the last one shorter."""
    block = bytearray()
    for piece in pieces:
        block += piece
        while len(block) >= MEMBER_SIZE:
            yield bytes(block[:MEMBER_SIZE])
            del block[:MEMBER_SIZE]
    if block:
        yield bytes(block)
