"""eStargz: a gzip layer of which each file can be read alone (stargz-snapshotter, docs/estargz.md).

Law: pure; knows the form, nothing of threads. A gzip member begins where the content of a file begins, and every 4 MiB
of it; what follows up to the next is in the same member. The table of contents is the tar's last file, in a member of
its own, and 51 bytes at the end say where. So any reader of gzip and tar can read it, and sees two files more.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Any

from builder.oci.descriptor import LAYER_GZIP
from builder.oci.tar import END, header
from builder.oci.toc import Entry
from rootfs.digest import canonical_json
from rootfs.tree import Kind

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
TAR_SIZE = "io.containers.estargz.uncompressed-size"
TOC_NAME = "stargz.index.json"
NO_PREFETCH = ".no.prefetch.landmark"
"""Says that no file is to be fetched before it is asked for: which ones a program will want we do not know."""

_PREFETCH = ".prefetch.landmark"
_LANDMARK = b"\x0f"
_BLOCK = 512


class Estargz:
    """The form, and the table of contents of one layer while that is packed."""

    media_type = LAYER_GZIP
    joined = True
    checked = False
    own = frozenset({TOC_NAME, NO_PREFETCH, _PREFETCH})
    """Names at the root that are the form's: what a tree has under them was another layer's, and is left out."""

    def __init__(self) -> None:
        self._entries = bytearray()
        self._at = 0
        self.annotations: dict[str, str] = {}

    def first(self) -> tuple[bytes, bytes] | None:
        """The header and the content of the member before all others."""
        return header(path=NO_PREFETCH.encode(), kind=Kind.FILE, mode=0o644, size=len(_LANDMARK)), _LANDMARK

    def add(self, entry: Entry) -> None:
        """The next member, whose chunks have their places."""
        for value in _lines(entry):
            self._entries += (b"," if self._entries else b"") + canonical_json(value)

    def rest(self, at: int, tar_size: int) -> bytes:
        """What is left of the tar, `tar_size` bytes into it: the table of contents and the end, for the blob's `at`."""
        data = b'{"entries":[%b],"version":1}' % bytes(self._entries)
        name = header(path=TOC_NAME.encode(), kind=Kind.FILE, mode=0o644, size=len(data))
        rest = b"".join((name, data, bytes(-len(data) % _BLOCK), END))
        self._at = at
        self.annotations[TOC_DIGEST] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.annotations[TAR_SIZE] = str(tar_size + len(rest))
        return rest

    def tail(self, at: int) -> bytes:
        """What follows the tar: an empty gzip member whose extra field says where the table of contents begins."""
        assert at > self._at
        field = b"%016xSTARGZ" % self._at
        extra = b"SG" + struct.pack("<H", len(field)) + field
        empty = b"\x01\x00\x00\xff\xff" + bytes(8)  # RFC 1951, 3.2.4: a last block that stores nothing; CRC, size: 0
        return b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra + empty


def _lines(entry: Entry) -> Iterator[dict[str, Any]]:
    """One value for a member, and one more for each further chunk of a large file."""
    value = dict(entry.said)
    for number, chunk in enumerate(entry.chunks):
        if number:
            value = {"type": "chunk", "name": entry.said["name"], "chunkOffset": chunk.at}
        else:
            value["digest"] = entry.digest
        value |= {"offset": chunk.begin, "chunkDigest": chunk.digest}
        if number < len(entry.chunks) - 1:
            value["chunkSize"] = chunk.size  # the last one's is said by its absence
        yield value
    if not entry.chunks:
        yield value
