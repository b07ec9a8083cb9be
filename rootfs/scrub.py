"""Scrub: read every blob of a store again, and compare it with its name.

Law: finds and, asked to, takes away; what is gone is made or fetched anew by the next build.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rootfs.errors import HostError
from rootfs.files import host_error
from rootfs.holdings import HeldBlob, Holdings
from rootfs.store import digest_of

Severity = Literal["damage", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a file: damage makes builds fail or images wrong; a note is what builds do without."""

    severity: Severity
    path: Path
    text: str


def scrub(held: Holdings, *, jobs: int, advance: Callable[[int], None]) -> list[Fault]:
    """All faults, those of blobs first; `advance` is told bytes as they are read, by several threads.

    HostError when a file cannot be opened.
    """
    lock = threading.Lock()

    def read(blob: HeldBlob) -> Fault | None:
        fault = _fault(blob)
        with lock:
            advance(blob.size)
        return fault

    largest_first = sorted(held.blobs.values(), key=lambda blob: -blob.size)
    with ThreadPoolExecutor(jobs, thread_name_prefix="scrub") as pool:
        faults = [fault for fault in pool.map(read, largest_first) if fault is not None]
    damaged = {fault.path for fault in faults}
    faults += [Fault(severity="note", path=path, text="is no blob") for path in held.strange]
    faults += _of_links(held, damaged)
    return faults


def _fault(blob: HeldBlob) -> Fault | None:
    try:
        found = digest_of(blob.path, blob.digest.algorithm)
    except FileNotFoundError:  # pruned meanwhile
        return None
    except PermissionError as error:
        raise HostError(f"cannot read {blob.path}", because=error.strerror) from error
    except OSError as error:  # a bad disk
        return Fault(severity="damage", path=blob.path, text=f"cannot be read: {error.strerror}")
    if found == blob.digest:
        return None
    elsewhere = "" if blob.names == 1 else f"; so does the file in {blob.names - 1} layout(s) outside the store"
    return Fault(severity="damage", path=blob.path, text=f"holds other bytes: {found}{elsewhere}")


def _of_links(held: Holdings, damaged: Iterable[Path]) -> Iterable[Fault]:
    gone = frozenset(damaged)
    for one in held.links:
        if one.link is None:
            yield Fault(severity="damage", path=one.path, text="is no link: its first line is no digest")
            continue
        target = held.blobs.get(one.link.target)
        if target is None and one.path.exists():
            yield Fault(severity="note", path=one.path, text=f"leads to a blob that is not here: {one.link.target}")
        elif target is not None and target.path in gone:
            yield Fault(severity="note", path=one.path, text=f"leads to a damaged blob: {one.link.target}")


def repair(faults: Iterable[Fault]) -> None:
    """Take away what is damaged, and links that lead nowhere; HostError when that is not allowed."""
    for fault in faults:
        try:
            with suppress(FileNotFoundError):
                fault.path.unlink()
        except OSError as error:
            raise host_error(error, fault.path) from error
