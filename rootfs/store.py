"""The Store on disk: one directory of content-addressed blobs, and links from step keys to results.

Law: knows files and digests, never what a blob means. `blobs/<algorithm>/<hex>` is the blob directory of an image
layout (image-spec, image-layout.md), `links/<hex>` holds the digest a step made, and what it was (ADR 0008). Everything
is written to `tmp/`, synced and renamed, so a blob that is here is whole; blobs are read-only files.
A file's mtime says when it was last of use. What prune takes away lies in `trash/` for a moment, and whoever looks for
it then has it back: what was found stays (rootfs.prune).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError
from rootfs.files import Flusher, unfinished
from rootfs.ports import Origin, Stored

FRESH = 1800.0
"""Seconds. A use is noted when the last one is longer ago."""

_TRIES = 3
_FLUSHED = 64 << 20  # bytes of a blob after which the disk begins with them, while the rest is made
_READ_SIZE = 1 << 18


class DiskStore:
    """`rootfs.ports.Store` in a directory, made on first use; safe for several processes and threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._base = os.fspath(root)  # joining Paths takes longer than asking the kernel

    def exists(self, digest: Digest) -> bool:
        """Whether the blob is here; if so, it stays while who asks is running."""
        name = f"{self._base}/blobs/{digest.algorithm}/{digest.hex}"
        for attempt in range(_TRIES):
            try:
                _used(name, os.stat(name))  # noqa: PTH116
            except FileNotFoundError:
                if not bring_back(self.root, Path(name)) and attempt:
                    return False
            else:
                return True
        return False

    def open(self, digest: Digest) -> BinaryIO:
        """The blob for reading; its `name` is its path, so that writers of layouts may hard-link it."""
        stream = self._opened(f"{self._base}/blobs/{digest.algorithm}/{digest.hex}")
        if stream is not None:
            return stream
        raise IntegrityError(
            f"blob is not in the store: {digest}",
            at=str(self.root),
            hint="run the build again: what is missing is made or fetched anew",
        )

    def put(self, chunks: Iterable[bytes], *, expect: Digest | None = None, size: int | None = None) -> Stored:
        """Write a blob while hashing it; nothing is left behind when it is not the expected one."""
        counted = _Counted(chunks, expect.algorithm if expect else "sha256", size)
        pieces: Iterable[bytes] = counted
        if isinstance(chunks, list | tuple):  # all is at hand: nothing is written when the same is here
            pieces = list(counted)
            if self._is_there(counted.checked(expect), pieces):
                return counted.checked(expect)
        with unfinished(self.root / "tmp") as file:
            with closing(Flusher(file.stream.fileno())) as flusher:
                following = _FLUSHED
                for chunk in pieces:
                    file.stream.write(chunk)
                    if counted.size >= following:
                        following = counted.size + _FLUSHED
                        flusher.begin()
            stored = counted.checked(expect)
            file.stream.flush()
            if pieces is not counted or not self._is_there(stored, _pieces(file.path)):
                file.publish(self._blob(stored.digest), 0o444)
        return stored

    def _is_there(self, stored: Stored, pieces: Iterable[bytes]) -> bool:
        """Whether the blob is here and, read again, the same as these: that takes less time than syncing another."""
        try:
            if not self.exists(stored.digest):
                return False
            with self._blob(stored.digest).open("rb", buffering=0) as stream:
                same = os.fstat(stream.fileno()).st_size == stored.size
                return same and all(_begins(stream, piece) for piece in pieces)
        except OSError:
            return False

    def adopt(self, path: Path, digest: Digest) -> None:
        """Take a finished and synced file below `root` as this blob; who calls has counted its digest."""
        path.chmod(0o444)
        os.utime(path)
        target = self._blob(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)

    def link(self, key: Digest, target: Digest, origin: Origin | None = None) -> None:
        """Remember a step's result; a later link with the same key takes the place of the earlier."""
        with unfinished(self.root / "tmp") as file:
            file.stream.write(Link(target=target, origin=origin).to_bytes())
            file.publish(self._link(key), 0o444, sync=False)  # one that is damaged is no link: see lookup

    def lookup(self, key: Digest) -> Digest | None:
        """A step's result, or None when the step has not run here or its blob is gone."""
        stream = self._opened(f"{self._base}/links/{key.hex}")
        if stream is None:
            return None
        with stream:
            text = stream.read()
        try:
            target = Digest.parse(text.partition(b"\n")[0].decode("ascii", "replace"))
        except IntegrityError:
            return None
        return target if self.exists(target) else None

    def _opened(self, name: str) -> BinaryIO | None:
        """A file for reading, noted as used; None when it is not here."""
        for attempt in range(_TRIES):
            try:
                stream = open(name, "rb")  # noqa: PTH123, SIM115
                try:
                    _used(name, os.fstat(stream.fileno()))
                except BaseException:
                    stream.close()
                    raise
            except FileNotFoundError:
                if not bring_back(self.root, Path(name)) and attempt:
                    return None
            else:
                return stream
        return None

    def _blob(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.hex

    def _link(self, key: Digest) -> Path:
        return self.root / "links" / key.hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a link's file says: a line with the digest, and a line of JSON where the origin is known."""

    target: Digest
    origin: Origin | None = None

    def to_bytes(self) -> bytes:
        """The file."""
        first = str(self.target).encode()
        if self.origin is None:
            return first
        said = {"kind": self.origin.kind, "title": self.origin.title, "blobs": [str(one) for one in self.origin.blobs]}
        return first + b"\n" + canonical_json(said) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Link:
        """From the file; IntegrityError when the first line is no digest. A damaged second line is as good as none."""
        first, _, second = data.partition(b"\n")
        target = Digest.parse(first.decode("ascii", "replace"))
        try:
            said = json.loads(second)
            kind, title, named = said["kind"], said.get("title", ""), said.get("blobs", [])
            blobs = tuple(Digest.parse(text) for text in named)
        except (ValueError, KeyError, TypeError, AttributeError, IntegrityError):
            return cls(target=target)
        if not isinstance(kind, str) or not isinstance(title, str):
            return cls(target=target)
        return cls(target=target, origin=Origin(kind=kind, title=title, blobs=blobs))


class _Counted:
    """Chunks as they come, their size and their digest; no more of them than show that they are too many."""

    def __init__(self, chunks: Iterable[bytes], algorithm: str, limit: int | None) -> None:
        self.size = 0
        self._chunks = chunks
        self._hasher = hashlib.new(algorithm)
        self._limit = limit

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._hasher.update(chunk)
            self.size += len(chunk)
            yield chunk
            if self._limit is not None and self.size > self._limit:
                return

    def checked(self, expect: Digest | None) -> Stored:
        """What came; IntegrityError unless it is what was expected."""
        digest = Digest(self._hasher.name, self._hasher.hexdigest())
        check(digest, self.size, expect=expect, size=self._limit)
        return Stored(digest=digest, size=self.size)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as stream:
        while piece := stream.read(_READ_SIZE):
            yield piece


def _begins(stream: BinaryIO, data: bytes) -> bool:
    """Whether a stream goes on with these bytes, which are read."""
    starts = range(0, len(data), _READ_SIZE)
    return all(stream.read(min(_READ_SIZE, len(data) - at)) == data[at : at + _READ_SIZE] for at in starts)


def check(digest: Digest, written: int, *, expect: Digest | None, size: int | None) -> None:
    """IntegrityError unless the bytes written are the bytes expected."""
    if size is not None and written != size:
        got = "more" if written > size else f"{written}"
        raise IntegrityError("size differs", because=f"expected {size} bytes, got {got}")
    if expect is not None and digest != expect:
        raise IntegrityError("digest differs", because=f"expected {expect}, got {digest}")


def digest_of(path: Path, algorithm: str = "sha256") -> Digest:
    """The digest of a file's bytes; other threads run while it is counted."""
    with path.open("rb", buffering=0) as stream:
        return Digest(algorithm, hashlib.file_digest(stream, algorithm).hexdigest())


def trash_of(root: Path, path: Path) -> Path:
    """Where prune puts a file or directory of the store before it is gone."""
    return root / "trash" / "+".join(path.relative_to(root).parts)


def bring_back(root: Path, path: Path) -> bool:
    """Put a file that prune has taken to its place again, if it is not gone yet; never over one that is there."""
    trash = trash_of(root, path)
    try:
        os.link(trash, path)
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    except OSError:  # a file system without hard links
        with suppress(OSError):
            trash.rename(path)
        return path.exists()
    with suppress(OSError):
        trash.unlink()
    return True


@contextmanager
def in_use(root: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let prune know that somebody works with the store. `waiting` is called when `prune --all` is to be waited for."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # it cannot be written to, so nobody prunes it: whoever puts something into it will hear of it
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _used(name: str, known: os.stat_result) -> None:
    """Note a use by the file's name: FileNotFoundError when prune has taken the file meanwhile, noted or not before.

    Not when the last one is not long ago, or the file is another user's.
    """
    if time.time() - known.st_mtime > FRESH:
        try:
            os.utime(name)
        except FileNotFoundError:
            raise
        except OSError:
            return
