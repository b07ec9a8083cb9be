"""Bootstrap: unpacked packages to a configured Tree, as dpkg and the maintainer scripts would have left it.

Law: no maintainer script is run, nothing is written to a disk. The same packages give the same Tree, in whatever order
they come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rootfs.architecture import Architecture
from rootfs.configure.merge import Merged, links_at_the_top, merge
from rootfs.configure.root import Root
from rootfs.configure.scripts import effects_of
from rootfs.debian.deb import Unpacked
from rootfs.debian.dpkg import Installed, database
from rootfs.errors import BuildError
from rootfs.ports import Reporter, Store
from rootfs.tree import FileEntry, Kind, Tree, parent

_TASK = "configure"


def bootstrap(
    unpacked: Sequence[Unpacked],
    *,
    store: Store,
    epoch: int,
    architecture: Architecture,
    reporter: Reporter | None = None,
) -> Tree:
    """Merge, configure, write dpkg's database, clamp every time to `epoch` (seconds).

    `unpacked` is a complete selection: its relations are not looked at again. BuildError when a maintainer script is
    unknown, when two packages hold the same file, or when one package comes twice.
    """
    if len({one.package.name for one in unpacked}) != len(unpacked):
        raise BuildError("a package comes twice", because="a root file system holds one version of each")
    effects = effects_of(unpacked)
    links = [replace(link, mtime=epoch) for link in links_at_the_top(unpacked)] if effects.merged_usr else []
    merged = merge(unpacked, effects.diversions, links)
    if reporter:
        reporter.begin(_TASK, len(effects.handlers), "handlers")
    root = Root(tree=merged.tree, store=store, epoch=epoch, architecture=architecture)
    for handler, script in effects.handlers:
        root = replace(root, tree=_with(root.tree, handler(root, script), epoch))
        if reporter:
            reporter.advance(_TASK, 1)
    installed = [_installed(one, merged, root) for one in unpacked]
    tree = _with(root.tree, database(installed, effects.diversions, architecture.debian), epoch)
    if reporter:
        reporter.finish(_TASK)
    return _timed(_whole(tree), epoch)


def _with(tree: Tree, entries: Iterable[FileEntry], epoch: int) -> Tree:
    """The tree with entries where their paths lead; what says no time gets the epoch; directories stay as they are."""
    placed = [replace(entry, path=tree.resolve(entry.path), mtime=entry.mtime or epoch) for entry in entries]
    return tree.with_entries(e for e in placed if e.kind is not Kind.DIRECTORY or e.path not in tree)


def _whole(tree: Tree) -> Tree:
    """The tree with every parent; BuildError when something lies below what is no directory."""
    whole = tree.with_parents()
    if any(up and whole[up].kind is not Kind.DIRECTORY for up in {parent(path) for path in whole}):
        up, path = next((up, path) for path in whole if (up := parent(path)) and whole[up].kind is not Kind.DIRECTORY)
        raise BuildError(f"a {whole[up].kind} is in the way", at=f"/{up}", because=f"/{path} lies below it")
    return whole


def _timed(tree: Tree, epoch: int) -> Tree:
    """Nothing is later than the epoch. Directories have it: what one package adds changes nothing of its parents."""
    return tree.with_entries(
        replace(e, mtime=epoch)
        for e in tree.values()
        if e.mtime > epoch or (e.kind is Kind.DIRECTORY and e.mtime != epoch)
    )


def _installed(one: Unpacked, merged: Merged, root: Root) -> Installed:
    """What the database holds of a package."""
    control = dict(one.control)
    conffiles = tuple(_conffiles(one, root))
    if "md5sums" not in control:
        control["md5sums"] = _md5sums(one, root)
    return Installed(package=one.package, control=control, paths=merged.owned[one.package.name], conffiles=conffiles)


def _conffiles(one: Unpacked, root: Root) -> Iterator[tuple[str, str]]:
    """(path, md5) of each conffile; of those only to be removed, what dpkg writes (deb-conffiles(5))."""
    for line in one.control.get("conffiles", b"").decode("utf-8", "surrogateescape").splitlines():
        path = line.strip().removeprefix("remove-on-upgrade ")
        if path != line.strip():
            yield path, "newconffile remove-on-upgrade"
        elif path:
            entry = one.tree.get(path.lstrip("/"))
            if entry is None or entry.kind is not Kind.FILE:
                raise BuildError(f"{one.package} names a conffile that it does not hold", at=path)
            yield path, _md5(entry, root)


def _md5sums(one: Unpacked, root: Root) -> bytes:
    """What dpkg makes of a package without it: each name of each file, conffiles too."""
    files = {e.path: one.tree[e.link] if e.kind is Kind.HARDLINK else e for e in one.tree.values()}
    lines = (f"{_md5(e, root)}  {path}\n" for path, e in files.items() if e.kind is Kind.FILE)
    return "".join(lines).encode("utf-8", "surrogateescape")


def _md5(entry: FileEntry, root: Root) -> str:
    return hashlib.md5(root.content(entry), usedforsecurity=False).hexdigest()
