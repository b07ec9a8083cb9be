"""Prune: take out of a store what nobody has used for long, while others work with it.

Law: mark and sweep. Roots are the links that were used not long ago, what is young, and what the caller names; whatever
they lead to (rootfs.holdings) stays, all else goes, links before blobs.

Builds go on meanwhile, and none breaks: who finds something notes that by its mtime before it counts as found. Prune
moves what is to go into `trash/`, and only then looks at its time once more: what was found meanwhile goes back, and
who looks for it in between takes it back (`rootfs.store.bring_back`). So what is gone for good was not found by
anybody, and is made anew. What was found stays for an hour, and for a day while anybody works with the store.
A prune that was killed leaves a whole store; the next one empties the trash.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rootfs.digest import Digest
from rootfs.errors import HostError
from rootfs.files import host_error
from rootfs.holdings import HeldBlob, HeldLink, Holdings, Reach
from rootfs.store import bring_back, trash_of

GRACE = 3600.0
"""Seconds that what was used stays, whatever is asked for (twice `rootfs.store.FRESH`)."""

BUSY = 86400.0
"""The same while another process works with the store: longer than any build takes."""

_LOCKS = ("prune.lock", "lock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory or file beside blobs and links that can be made anew. `lock` is held by who works in it, and goes
    with it. `size` is in bytes on the disk, `used` in epoch seconds; older than `life` seconds it goes in any case.
    """

    kind: str
    path: Path
    size: int
    used: float
    lock: Path | None = None
    life: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to stay: what was used since `since` (epoch seconds), at most `size` bytes in all (the latest used), and
    what `keys` (of links) and `digests` lead to, whatever its age.
    """

    since: float
    size: int | None = None
    keys: AbstractSet[Digest] = frozenset()
    digests: AbstractSet[Digest] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """What is to go, and the bytes on the disk that stay."""

    links: Sequence[HeldLink]
    blobs: Sequence[HeldBlob]
    places: Sequence[Place]
    stays: int


@dataclass(slots=True)
class Swept:
    """What went: numbers by kind, bytes given back, bytes of files that other names outside the store still hold."""

    numbers: dict[str, int] = field(default_factory=dict)
    freed: int = 0
    held: int = 0

    def count(self, kind: str, size: int, *, shared: bool = False) -> None:
        """One more."""
        self.numbers[kind] = self.numbers.get(kind, 0) + 1
        if shared:
            self.held += size
        else:
            self.freed += size


def choose(held: Holdings, places: Iterable[Place], wish: Wish, *, young: float, now: float) -> Doomed:
    """What goes by this wish; whatever was used since `young` stays, and so does what it leads to."""
    reach = Reach(held.blobs)
    named = {key.hex for key in wish.keys}
    since = min(wish.since, young)
    first = [link for link in held.links if link.used >= young or link.path.name in named]
    rest = [link for link in held.links if link.used < young and link.path.name not in named]
    starts = {one for link in first for one in link.starts} | wish.digests
    starts |= {blob.digest for blob in held.blobs.values() if blob.used >= young}
    kept = reach.closure(starts)
    stays = sum(held.blobs[one].size for one in kept)
    doomed_links: list[HeldLink] = []
    doomed_places: list[Place] = []
    full = False
    others: list[HeldLink | Place] = [*rest, *places]
    for one in sorted(others, key=lambda one: -one.used):  # what was used last first
        grown = reach.closure(one.starts, kept) if isinstance(one, HeldLink) else set()
        size = sum(held.blobs[blob].size for blob in grown) if isinstance(one, HeldLink) else one.size
        safe = isinstance(one, Place) and one.used >= young
        old = one.used < since or (isinstance(one, Place) and now - one.used > one.life)
        full = full or (wish.size is not None and not safe and not old and stays + size > wish.size)
        if safe or not (old or full):
            kept |= grown
            stays += size
        elif isinstance(one, HeldLink):
            doomed_links.append(one)
        else:
            doomed_places.append(one)
    blobs = [blob for blob in held.blobs.values() if blob.digest not in kept]
    return Doomed(links=doomed_links, blobs=blobs, places=doomed_places, stays=stays)


def forecast(doomed: Doomed) -> Swept:
    """What `sweep` would say."""
    swept = Swept()
    for _ in doomed.links:
        swept.count("links", 0)
    for blob in doomed.blobs:
        swept.count("blobs", blob.size, shared=blob.names > 1)
    for place in doomed.places:
        swept.count(place.kind, place.size)
    return swept


def sweep(root: Path, doomed: Doomed, *, young: float, remove: Callable[[Path], None]) -> Swept:
    """Take it out, less what was used since; `remove` takes a directory away whoever its files belong to.

    HostError when a file may not be removed: what went until then is gone, all else is as it was.
    """
    swept = Swept()
    try:
        (root / "trash").mkdir(exist_ok=True)
        _empty_trash(root, young, remove)
        for link in doomed.links:
            if _file_goes(root, link.path, young):
                swept.count("links", 0)
        for blob in doomed.blobs:
            names = _file_goes(root, blob.path, young)
            if names:
                swept.count("blobs", blob.size, shared=names > 1)
        for place in doomed.places:
            if _place_goes(root, place, young, remove):
                swept.count(place.kind, place.size)
    except OSError as error:
        raise host_error(error, root) from error
    return swept


def _file_goes(root: Path, path: Path, young: float) -> int:
    """Remove a file unless it was used meanwhile: how many names it had, 0 when it is still there or was not."""
    trash = trash_of(root, path)
    try:
        path.rename(trash)
    except FileNotFoundError:
        return 0
    return _out(root, trash, path, young)


def _out(root: Path, trash: Path, path: Path, young: float) -> int:
    """The second look at what lies in the trash."""
    try:
        found = trash.stat(follow_symlinks=False)
    except FileNotFoundError:  # somebody has taken it back
        return 0
    if found.st_mtime >= young:
        bring_back(root, path)
        return 0
    with suppress(FileNotFoundError):
        trash.unlink()
        return found.st_nlink
    return 0


def _empty_trash(root: Path, young: float, remove: Callable[[Path], None]) -> None:
    """What a prune that was killed has left."""
    for trash in (root / "trash").iterdir():
        if trash.name.startswith(("blobs+", "links+")):
            _out(root, trash, root / trash.name.replace("+", "/"), young)
        else:
            _gone(trash, remove)


def _place_goes(root: Path, place: Place, young: float, remove: Callable[[Path], None]) -> bool:
    """Remove a place that nobody works in or has used meanwhile."""
    with _locked(place.lock) as alone:
        if not alone:
            return False
        with suppress(FileNotFoundError):
            used = (place.lock if place.lock is not None and place.lock.exists() else place.path).lstat().st_mtime
            if used >= young:
                return False
        trash = trash_of(root, place.path)
        try:
            place.path.rename(trash)
        except FileNotFoundError:
            return False
        if place.lock is not None:
            place.lock.unlink(missing_ok=True)
    _gone(trash, remove)
    return True


def _gone(trash: Path, remove: Callable[[Path], None]) -> None:
    if trash.is_dir() and not trash.is_symlink():
        remove(trash)
    else:
        trash.unlink(missing_ok=True)


@contextmanager
def _locked(lock: Path | None) -> Iterator[bool]:
    """Whether nobody holds the lock, nor does in this block (filelock's locks are flock(2), and may be unlinked)."""
    try:
        descriptor = None if lock is None else os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = None
    if descriptor is None:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def pruning(root: Path, *, alone: bool) -> Iterator[bool]:
    """Whether nobody works with the store when the block begins; with `alone` nobody does until it ends, then.

    HostError when another prune is at work, or the store is not this user's.
    """
    descriptors: list[int] = []
    try:
        try:
            descriptors += [os.open(root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666) for name in _LOCKS]
            fcntl.flock(descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError("another prune is at work", at=str(root), hint="wait until it is done") from error
        except OSError as error:
            raise host_error(error, root) from error
        idle = True
        try:
            fcntl.flock(descriptors[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            idle = False
        if not alone:
            fcntl.flock(descriptors[1], fcntl.LOCK_UN)
        yield idle
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
