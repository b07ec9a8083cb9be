"""Work: what every kind of step needs: another step's result, a place that no other process is in, a tree on the disk.

Law: knows the store and the work directory; not what any step does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.extract import extract
from rootfs.files import host_error
from rootfs.ports import Reporter, Store, read_blob
from rootfs.tree import Tree

if TYPE_CHECKING:
    from builder.plan import Step

Trees = Mapping[Digest, Tree]
"""Step key -> the Tree that the step has made a moment ago: equal to what the store holds of it, and not to be read."""

_NONE: Trees = MappingProxyType({})


def result(step: Step, store: Store) -> Digest:
    """What a step that has run made."""
    found = store.lookup(step.key)
    assert found is not None, f"{step.title} has no result"
    return found


def result_tree(step: Step, store: Store, at_hand: Trees = _NONE) -> Tree:
    """The Tree that a step that has run made."""
    found = at_hand.get(step.key)
    return Tree.from_bytes(read_blob(store, result(step, store))) if found is None else found


@contextmanager
def alone(place: Path, reporter: Reporter) -> Iterator[None]:
    """No other process is in this block for the same place: who comes second waits, and says so.

    The lock's time is that of the place's last use, for who prunes.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 (who finds all made does without)

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            reporter.note(f"another build is at work in {place}: waiting for it")
            lock.acquire()
        os.utime(lock.lock_file)
    except OSError as error:
        raise host_error(error, place.parent) from error
    try:
        yield
    finally:
        lock.release()


def place_of(step: Step, tools: Tools) -> Path:
    """The directory a step works in."""
    return tools.work / step.key.hex[:16]


def extracted(tree: Digest, tools: Tools, what: str) -> Path:
    """The directory of a stored Tree, extracted once for all who use it; nobody may write to it."""
    root = tools.work / "roots" / tree.hex[:16]
    with alone(root, tools.reporter):
        if not root.exists():
            tools.reporter.begin(f"extract {what}")
            extract(Tree.from_bytes(read_blob(tools.store, tree)), tools.store, root)
            tools.reporter.finish(f"extract {what}")
    return root
