"""A Store in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import BinaryIO

from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import Origin, Stored
from rootfs.store import check


class MemoryStore:
    """`rootfs.ports.Store` as two dictionaries."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.links: dict[Digest, Digest] = {}

    def exists(self, digest: Digest) -> bool:
        return digest in self.blobs

    def open(self, digest: Digest) -> BinaryIO:
        if digest not in self.blobs:
            raise IntegrityError(f"blob is not in the store: {digest}")
        return io.BytesIO(self.blobs[digest])

    def put(self, chunks: Iterable[bytes], *, expect: Digest | None = None, size: int | None = None) -> Stored:
        data = b"".join(chunks)
        check(Digest.of(data), len(data), expect=expect, size=size)
        self.blobs[Digest.of(data)] = data
        return Stored(digest=Digest.of(data), size=len(data))

    def link(self, key: Digest, target: Digest, origin: Origin | None = None) -> None:
        self.links[key] = target

    def lookup(self, key: Digest) -> Digest | None:
        target = self.links.get(key)
        return target if target in self.blobs else None
