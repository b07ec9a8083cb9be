"""The Store on disk: one directory of content-addressed blobs, and links from step keys to results.

Law: knows files and digests, never what a blob means. `blobs/<algorithm>/<hex>` is the blob directory of an image
layout (image-spec, image-layout.md), `links/<hex>` holds the digest a step made. Everything is written to `tmp/`,
synced and renamed, so a blob that is here is whole; blobs are read-only files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.files import unfinished
from rootfs.ports import Stored


class DiskStore:
    """`rootfs.ports.Store` in a directory, made on first use; safe for several processes and threads."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def exists(self, digest: Digest) -> bool:
        """Whether the blob is here."""
        return self._blob(digest).exists()

    def open(self, digest: Digest) -> BinaryIO:
        """The blob for reading; its `name` is its path, so that writers of layouts may hard-link it."""
        try:
            return self._blob(digest).open("rb")
        except FileNotFoundError as error:
            raise IntegrityError(
                f"blob is not in the store: {digest}",
                at=str(self.root),
                hint="run the build again: what is missing is made or fetched anew",
            ) from error

    def put(self, chunks: Iterable[bytes], *, expect: Digest | None = None, size: int | None = None) -> Stored:
        """Write a blob while hashing it; nothing is left behind when it is not the expected one."""
        algorithm = expect.algorithm if expect else "sha256"
        hasher = hashlib.new(algorithm)
        written = 0
        with unfinished(self.root / "tmp") as file:
            for chunk in chunks:
                hasher.update(chunk)
                file.stream.write(chunk)
                written += len(chunk)
                if size is not None and written > size:
                    break
            digest = Digest(algorithm, hasher.hexdigest())
            check(digest, written, expect=expect, size=size)
            file.publish(self._blob(digest), 0o444)
        return Stored(digest=digest, size=written)

    def adopt(self, path: Path, digest: Digest) -> None:
        """Take a finished and synced file below `root` as this blob; who calls has counted its digest."""
        path.chmod(0o444)
        target = self._blob(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)

    def link(self, key: Digest, target: Digest) -> None:
        """Remember a step's result; a later link with the same key takes the place of the earlier."""
        with unfinished(self.root / "tmp") as file:
            file.stream.write(str(target).encode())
            file.publish(self._link(key), 0o444, sync=False)  # one that is damaged is no link: see lookup

    def lookup(self, key: Digest) -> Digest | None:
        """A step's result, or None when the step has not run here or its blob is gone."""
        try:
            target = Digest.parse(self._link(key).read_text())
        except (FileNotFoundError, IntegrityError):
            return None
        return target if self.exists(target) else None

    def _blob(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.hex

    def _link(self, key: Digest) -> Path:
        return self.root / "links" / key.hex


def check(digest: Digest, written: int, *, expect: Digest | None, size: int | None) -> None:
    """IntegrityError unless the bytes written are the bytes expected."""
    if size is not None and written != size:
        got = "more" if written > size else f"{written}"
        raise IntegrityError("size differs", because=f"expected {size} bytes, got {got}")
    if expect is not None and digest != expect:
        raise IntegrityError("digest differs", because=f"expected {expect}, got {digest}")
