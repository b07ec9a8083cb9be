"""Tree -> host directory: what a sandbox needs to run programs of a Tree.

Law: writes below one new directory and nowhere else; follows no link on the way. Unless root asks for `owners`, they
stay in the Tree with setuid bits, extended attributes, devices and fifos: the directory belongs to whoever runs this,
and a sandbox shows it as root's.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from rootfs.digest import Digest
from rootfs.errors import HostError, IntegrityError
from rootfs.files import copy, host_error, write_all
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Slice, Tree, parent

_WRITERS = 4  # most of the time goes into waiting for the file system
_NODES = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


def extract(tree: Tree, store: Store, target: Path, *, owners: bool = False) -> None:
    """Write `tree` to `target`, which must not exist: all of it and on the disk, or nothing.

    Permission bits and mtimes are the entries'; parents that the Tree does not name are 0755. With `owners`, for root
    only, so is everything else: uid, gid, setuid bits, extended attributes, devices. IntegrityError when an entry lies
    below anything but a directory, a hard link leads nowhere, or a blob is too short; HostError when the disk refuses.
    What an interrupted run left in `target`.partial is removed first: two runs with one target need a lock of their
    caller's.
    """
    whole = tree.with_parents()
    _check(whole)
    if owners and os.geteuid() != 0:
        raise HostError(f"cannot extract to {target}", because="only root can give files to their owners")
    with arriving(target) as partial:
        partial.mkdir(parents=True)
        _write(whole, store, partial, owners=owners)
        partial.chmod(0o755)
        os.utime(partial, (0, 0))
        _sync(partial)


@contextmanager
def arriving(target: Path) -> Iterator[Path]:
    """`target`.partial, for the block to make a directory there, which is `target` afterwards; when the block raises,
    nothing is. HostError when there is a target already, and for an OSError of the block.
    """
    if os.path.lexists(target):
        hint = "choose a new directory, or move that one away"
        raise HostError(f"cannot extract to {target}", because="it exists already", hint=hint)
    partial = target.with_name(target.name + ".partial")
    try:
        remove(partial)
        yield partial
        partial.rename(target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise host_error(error, target) from error
        raise


def _check(tree: Tree) -> None:
    for path, entry in tree.items():
        up = parent(path)
        if up and tree[up].kind is not Kind.DIRECTORY:
            raise IntegrityError(f"not a directory in this tree: {up}", at=path)
        if entry.kind is Kind.HARDLINK:
            _link_target(tree, entry)


def _link_target(tree: Tree, entry: FileEntry) -> str:
    """The path of the file a hard link is another name of."""
    seen: set[str] = set()
    while entry.kind is Kind.HARDLINK and entry.path not in seen:
        seen.add(entry.path)
        target = tree.get(entry.link)
        if target is None:
            break
        entry = target
    if entry.kind not in (Kind.FILE, Kind.SYMLINK):
        raise IntegrityError(f"a hard link leads to no file: {entry.link or entry.path}", at=entry.path)
    return entry.path


def _write(tree: Tree, store: Store, base: Path, *, owners: bool) -> None:
    """Directories, what they hold, then links; the directories' own modes and times last, innermost first."""
    root = _encode(str(base))
    directories = [entry for entry in tree.values() if entry.kind is Kind.DIRECTORY]
    for entry in directories:
        os.mkdir(_place(root, entry.path), 0o700)  # noqa: PTH102 - paths are bytes, and there are thousands
    _write_files(tree, store, root, owners=owners)
    for entry in tree.values():
        place = _place(root, entry.path)
        if entry.kind is Kind.SYMLINK:
            os.symlink(_encode(entry.link), place)  # noqa: PTH211 - bytes
            if owners:
                os.chown(place, entry.uid, entry.gid, follow_symlinks=False)
            os.utime(place, (entry.mtime, entry.mtime), follow_symlinks=False)
        elif owners and entry.kind in _NODES:
            os.mknod(place, _NODES[entry.kind], os.makedev(*entry.device))
            _finish(place, entry, owners=owners)
    for entry in tree.values():
        if entry.kind is Kind.HARDLINK:
            os.link(_place(root, _link_target(tree, entry)), _place(root, entry.path), follow_symlinks=False)
    for entry in reversed(directories):
        _finish(_place(root, entry.path), entry, owners=owners)


def _finish(place: bytes | int, entry: FileEntry, *, owners: bool) -> None:
    """Owner, mode, attributes, time: in this order, since a change of owner takes setuid bits and capabilities away."""
    if owners:
        os.chown(place, entry.uid, entry.gid)
        for name, value in entry.xattrs:
            os.setxattr(place, name, value)
    os.chmod(place, entry.mode & (0o7777 if owners else 0o777))  # noqa: PTH101 - bytes
    os.utime(place, (entry.mtime, entry.mtime))


def _write_files(tree: Tree, store: Store, root: bytes, *, owners: bool) -> None:
    """Blob by blob, each opened once and read from front to back."""
    files = [entry for entry in tree.values() if entry.kind is Kind.FILE]
    for entry in files:
        if isinstance(entry.content, bytes):
            with _new_file(root, entry, owners=owners) as descriptor:
                write_all(descriptor, entry.content)
    sliced = [(entry.content, entry) for entry in files if isinstance(entry.content, Slice)]
    sliced.sort(key=lambda pair: (pair[0].blob, pair[0].offset))
    by_blob = [list(pairs) for _, pairs in groupby(sliced, key=lambda pair: pair[0].blob)]

    def write(pairs: Sequence[tuple[Slice, FileEntry]]) -> None:
        with store.open(pairs[0][0].blob) as stream:
            for content, entry in pairs:
                with _new_file(root, entry, owners=owners) as descriptor:
                    if copy(stream, descriptor, offset=content.offset, size=content.size) < content.size:
                        raise _short(content.blob)

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="extract") as pool:
        for _ in pool.map(write, by_blob):
            pass


@contextmanager
def _new_file(root: bytes, entry: FileEntry, *, owners: bool) -> Iterator[int]:
    descriptor = os.open(_place(root, entry.path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
        _finish(descriptor, entry, owners=owners)
    finally:
        os.close(descriptor)


def _short(blob: Digest) -> IntegrityError:
    return IntegrityError(
        f"blob is shorter than its tree says: {blob}", hint="remove it from the store and run the build again"
    )


def _encode(path: str) -> bytes:
    """A Tree's text as the bytes it stands for, whatever the host's locale."""
    return path.encode("utf-8", "surrogateescape")


def _place(root: bytes, path: str) -> bytes:
    return root + b"/" + _encode(path)


def _sync(directory: Path) -> None:
    """Everything on its file system to the disk at once (syncfs(2)): a sync for each file takes minutes."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(directory))
    finally:
        os.close(descriptor)


def remove(partial: Path) -> None:
    """Remove what is there, also directories that were made read-only."""
    if not partial.is_dir() or partial.is_symlink():
        partial.unlink(missing_ok=True)
        return
    for directory, names, _ in os.walk(partial):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(partial)
