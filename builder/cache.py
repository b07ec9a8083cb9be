"""Cache: what lies in the store's directory beside blobs and links, what there is of each kind, and what is to go.

Law: knows the names that other modules give to directories there; marking and sweeping are `rootfs.prune`'s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rootfs.digest import Digest
from rootfs.errors import HostError
from rootfs.holdings import Holdings, Reach, entries, holdings
from rootfs.ports import Reporter
from rootfs.prune import BUSY, GRACE, Place, Swept, Wish, choose, forecast, pruning, sweep
from rootfs.scrub import Fault, scrub

LEFTOVER = 86400.0
"""Seconds after which a file that a process was writing is one that a killed process has left."""

_BLOCK = 512
_READ = "read all blobs"
_ORDER = (
    *("packages", "resolve", "sources", "fragment", "rootfs", "slim", "archive", "configure", "instrument", "train"),
    *("compile", "install", "section", "layer", "layers", "image", "flattened", "listing", "accept", "attest", ""),
)
"""Kinds of links: a blob that several lead to is counted with the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind: how many links or places, bytes on the disk, when the last was of use (epoch seconds)."""

    kind: str
    number: int
    size: int
    used: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The store's content; `shared` bytes have names outside the store, too: deleting it does not free them."""

    rows: tuple[Row, ...]
    size: int
    shared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went or would go, what stays (bytes), and whether another process works with the store."""

    swept: Swept
    stays: int
    busy: bool


def list_cache(root: Path) -> Listed:
    """What there is, by kind; nothing when there is no store."""
    held = holdings(root)
    rows = [*_link_rows(held), *_place_rows(root)]
    return Listed(
        rows=tuple(rows),
        size=sum(row.size for row in rows),
        shared=sum(blob.size for blob in held.blobs.values() if blob.names > 1),
    )


def _link_rows(held: Holdings) -> Iterator[Row]:
    reach = Reach(held.blobs)
    counted: set[Digest] = set()
    kinds = {link.kind for link in held.links}
    by_kind = {kind: [link for link in held.links if link.kind == kind] for kind in kinds}
    targets = {
        one: kind for kind in sorted(kinds, key=_rank, reverse=True) for link in by_kind[kind] for one in link.starts
    }
    for kind in sorted(kinds, key=_rank):
        own = {one for one, its in targets.items() if its == kind and one in held.blobs} - counted
        others = {one for one in targets if targets[one] != kind}
        found = own | (reach.closure(own, counted) - others)
        counted |= found
        links = by_kind[kind]
        size = sum(held.blobs[one].size for one in found)
        used = max(link.used for link in links)
        yield Row(kind=kind or "of no known kind", number=len(links), size=size, used=used)
    left = [blob for digest, blob in held.blobs.items() if digest not in counted]
    if left:
        used = max(blob.used for blob in left)
        yield Row(kind="blobs without a link", number=len(left), size=sum(blob.size for blob in left), used=used)


def _rank(kind: str) -> tuple[int, str]:
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER) - 1, kind)


def _place_rows(root: Path) -> Iterator[Row]:
    found = list(places(root))
    for kind in sorted({place.kind for place in found}):
        of_kind = [place for place in found if place.kind == kind]
        size, used = sum(place.size for place in of_kind), max(place.used for place in of_kind)
        yield Row(kind=kind, number=len(of_kind), size=size, used=used)


def places(root: Path) -> Iterator[Place]:
    """What was extracted, left by a failed step, fetched for tests, noted or left unfinished: all can be made anew."""
    try:
        yield from _locked(root / "work" / "roots", "extracted trees")
        yield from _locked(root / "work", "failed steps")
        yield from _plain(root / "work" / "log", "logs")
        yield from _plain(root / "wheels", "wheels")
        if (root / "bench").is_dir():
            yield _place("benchmarks", root / "bench")
        yield from _plain(root / "tmp", "unfinished files", life=LEFTOVER)
        for directory in (root / "registries").glob("**/"):
            yield from (one for one in _plain(directory, "registry notes") if one.path.is_file())
    except PermissionError as error:
        raise HostError(f"cannot read the store in {root}", because=f"{error.strerror}: {error.filename}") from error


def _locked(directory: Path, kind: str) -> Iterator[Place]:
    """Directories that are worked in alone, and the locks of those that are gone."""
    for entry in entries(directory):
        path = Path(entry)
        if entry.is_dir(follow_symlinks=False) and path.name not in ("roots", "log"):
            yield _place(kind, path, lock=path.with_suffix(".lock"))
        elif path.suffix == ".lock" and not path.with_suffix("").exists():
            yield _place("locks", path, lock=path)


def _plain(directory: Path, kind: str, life: float = float("inf")) -> Iterator[Place]:
    for entry in entries(directory):
        if not entry.name.endswith(".lock"):
            path = Path(entry)
            yield _place(kind, path, life=life if path.name.startswith(".tmp-") else float("inf"))


def _place(kind: str, path: Path, *, lock: Path | None = None, life: float = float("inf")) -> Place:
    """With what is in it. Where there are locks their time counts; where one is gone, that of the directory's making:
    the mtime is a Tree's.
    """
    try:
        gone = lock is not None and not lock.exists()
        used = path.lstat().st_ctime if gone else (lock or path).lstat().st_mtime
        size = sum({found.st_ino: found.st_blocks * _BLOCK for found in _below(path)}.values())
    except FileNotFoundError:
        used, size = 0.0, 0
    return Place(kind=kind, path=path, size=size, used=used, lock=lock, life=life)


def _below(path: Path) -> Iterator[os.stat_result]:
    yield path.lstat()
    if path.is_dir() and not path.is_symlink():
        with suppress(PermissionError):  # a directory that a sandboxed program has made its own
            for entry in entries(path):
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(Path(entry))
                else:
                    yield entry.stat(follow_symlinks=False)


def prune_cache(root: Path, wish: Wish, *, everything: bool, dry: bool, remove: Callable[[Path], None]) -> Pruned:
    """Take out what the wish does not keep; with `everything` also what was used a moment ago, if nobody is at work.

    HostError when another prune is at work, or the store is not this user's.
    """
    if not root.is_dir():
        raise HostError("there is no store", at=str(root), hint="choose another with --store or OCIBUILD_STORE")
    now = time.time()
    with pruning(root, alone=everything) as idle:
        young = now - BUSY if not idle else float("inf") if everything else now - GRACE
        doomed = choose(holdings(root), list(places(root)), wish, young=young, now=now)
        swept = forecast(doomed) if dry else sweep(root, doomed, young=young, remove=remove)
    return Pruned(swept=swept, stays=doomed.stays, busy=not idle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How much was read (bytes on the disk), how long it took (seconds), and what was found."""

    blobs: int
    links: int
    size: int
    seconds: float
    faults: tuple[Fault, ...]


def verify_cache(root: Path, *, jobs: int, reporter: Reporter) -> Checked:
    """Read every blob and link; HostError when one cannot be opened."""
    held = holdings(root)
    size = sum(blob.size for blob in held.blobs.values())
    began = time.monotonic()
    reporter.begin(_READ, total=size)
    faults = scrub(held, jobs=jobs, advance=lambda amount: reporter.advance(_READ, amount))
    reporter.finish(_READ)
    seconds = time.monotonic() - began
    return Checked(blobs=len(held.blobs), links=len(held.links), size=size, seconds=seconds, faults=tuple(faults))
