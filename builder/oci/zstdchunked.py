"""zstd:chunked: a zstd layer of which each file can be read alone (containers/storage, pkg/chunked).

Law: pure; knows the form, nothing of threads. A content is a frame of its own, or one for every 4 MiB of it, and what
lies between contents is a frame. Then come three skippable frames (RFC 8878, 3.1.2), which other readers pass over: the
table of contents, the tar-split, which proves the diff id to who fetched files only, and where the two lie. The same is
said in annotations, with the digest of the table of contents: it is what a puller trusts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Any

import zstandard

from builder.oci.descriptor import LAYER_ZSTD
from builder.oci.tar import END
from builder.oci.tarsplit import TarSplit, crc_end
from builder.oci.toc import CHUNK_SIZE, Entry
from rootfs.digest import canonical_json

_PREFIX = "io.github.containers.zstd-chunked."
CHECKSUM = f"{_PREFIX}manifest-checksum"
POSITION = f"{_PREFIX}manifest-position"
TAR_SPLIT = f"{_PREFIX}tarsplit-position"

_CRFS = 1  # the kind of the table of contents; there is no other
_MAGIC = b"GNUlInUx"
_TABLES_LEVEL = 9  # an eighth smaller than 3 makes them, for no time worth mentioning
_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A50


class ZstdChunked:
    """The form, and the two tables of one layer of `level` while that is packed."""

    media_type = LAYER_ZSTD
    joined = False
    checked = True
    own: frozenset[str] = frozenset()

    def __init__(self, level: int) -> None:
        self._toc = _Table(max(level, _TABLES_LEVEL))
        self._toc.write(b'{"entries":[')
        self._split = _Table(max(level, _TABLES_LEVEL))
        self._lines = TarSplit()
        self._comma = b""
        self._zeros = f"sha256:{hashlib.sha256(bytes(CHUNK_SIZE)).hexdigest()}"
        self.annotations: dict[str, str] = {}

    def first(self) -> tuple[bytes, bytes] | None:
        """No member before all others."""
        return None

    def add(self, entry: Entry) -> None:
        """The next member, whose chunks have their places."""
        for value in self._values(entry):
            self._toc.write(self._comma + canonical_json(value))
            self._comma = b","
        for line in self._lines.member(entry.said["name"], entry.header, entry.said.get("size", 0), crc_end(entry.crc)):
            self._split.write(line)

    def rest(self, _at: int, _tar_size: int) -> bytes:
        """What is left of the tar: its end."""
        self._split.write(self._lines.end(END))
        return END

    def tail(self, at: int) -> bytes:
        """What follows the tar in the blob, from `at` on."""
        split = self._split.end()
        self._toc.write(b'],"tarSplitDigest":"sha256:%b","version":1}' % hashlib.sha256(split).hexdigest().encode())
        toc = self._toc.end()
        begin = at + _SKIPPABLE.size
        begin_split = begin + len(toc) + _SKIPPABLE.size
        places = (begin, len(toc), self._toc.size), (begin_split, len(split), self._split.size)
        self.annotations[CHECKSUM] = f"sha256:{hashlib.sha256(toc).hexdigest()}"
        self.annotations[POSITION] = ":".join(map(str, (*places[0], _CRFS)))
        self.annotations[TAR_SPLIT] = ":".join(map(str, places[1]))
        footer = struct.pack("<7Q8s", *places[0], _CRFS, *places[1], _MAGIC)
        return b"".join(_SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(data)) + data for data in (toc, split, footer))

    def _values(self, entry: Entry) -> Iterator[dict[str, Any]]:
        """One value for a member, and one more for each further chunk of a large file."""
        value = dict(entry.said)
        for number, chunk in enumerate(entry.chunks):
            if number:
                value = {"type": "chunk", "name": entry.said["name"], "chunkOffset": chunk.at}
            else:
                value |= {"digest": entry.digest, "endOffset": entry.chunks[-1].end}
            value["offset"] = chunk.begin
            if len(entry.chunks) > 1:
                value |= {"chunkSize": chunk.size, "chunkDigest": chunk.digest}
                if chunk.digest == self._zeros:
                    value["chunkType"] = "zeros"
            yield value
        if not entry.chunks:
            yield value


class _Table:
    """Bytes that are compressed as they come."""

    def __init__(self, level: int) -> None:
        self._compressor = zstandard.ZstdCompressor(level=level).compressobj()
        self._packed = bytearray()
        self.size = 0

    def write(self, data: bytes) -> None:
        """More of it."""
        self.size += len(data)
        self._packed += self._compressor.compress(data)

    def end(self) -> bytes:
        """All of it, compressed."""
        return bytes(self._packed + self._compressor.flush())
