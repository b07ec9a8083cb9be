"""Host directory -> Tree: what a sandboxed command installed, as a value with its contents in the Store.

Law: reads one directory, follows no link, and keeps nothing of the host in the Tree: everything is root's, times are
0 unless they are asked for, the order is the Tree's. The same files give the same Tree and the same blob wherever they
lie.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rootfs.errors import HostError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Slice, Tree, normalise

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Something on the host's disk, and the path it gets in the Tree."""

    path: str
    place: bytes
    status: os.stat_result
    times: bool

    def entry(self, kind: Kind, *, link: str = "", content: bytes | Slice = b"") -> FileEntry:
        mode, mtime = stat.S_IMODE(self.status.st_mode), int(self.status.st_mtime) if self.times else 0
        return FileEntry(path=self.path, kind=kind, mode=mode, mtime=mtime, link=link, content=content)

    def is_still(self, entry: FileEntry | None) -> bool:
        """Whether this is the file that was extracted from the entry, untouched: by mode, size and time, as make(1)."""
        return (
            entry is not None
            and entry.kind is Kind.FILE
            and (entry.mode, entry.mtime, entry.size)
            == (stat.S_IMODE(self.status.st_mode), int(self.status.st_mtime), self.status.st_size)
        )


def collect(directory: Path, store: Store, *, prefix: str = "", times: bool = False, since: Tree | None = None) -> Tree:
    """The Tree of what lies in `directory`, each path below `prefix` (whose own directories are not entries).

    Modes are the disk's; uid and gid are 0, and so is mtime unless `times` asks for the disk's (in whole seconds). All
    file contents are one blob; those of files that are still as in `since`, the Tree that was extracted to
    `directory`, are its. Of several names of a file the first in path order is the file, the others are hard links.
    Sockets, fifos, devices and extended attributes are left out. HostError when something cannot be read.
    """
    try:
        found = list(_walk(os.fsencode(directory), normalise(prefix), times))
        entries = [entry for item in found if (entry := _entry_without_content(item))]
    except OSError as error:
        raise _unreadable(error) from error
    before = since or Tree()
    first: dict[tuple[int, int], _Found] = {}
    for item in found:
        if not stat.S_ISREG(item.status.st_mode):
            continue
        file = first.setdefault((item.status.st_dev, item.status.st_ino), item)
        if file is not item:
            entries.append(item.entry(Kind.HARDLINK, link=file.path))
    still = [item for item in first.values() if item.is_still(before.get(item.path))]
    kept = {item.path for item in still}
    changed = [item for item in first.values() if item.path not in kept]
    entries += [item.entry(Kind.FILE, content=before[item.path].content) for item in still]
    return Tree([*entries, *_store_files(changed, store)])


def _walk(place: bytes, path: str, times: bool) -> Iterator[_Found]:
    """Everything below a directory, in path order: by the names' bytes, a directory's content right after it."""
    with os.scandir(place) as listing:
        members = sorted(listing, key=lambda member: member.name)
    for member in members:
        name = member.name.decode("utf-8", "surrogateescape")
        inside = f"{path}/{name}" if path else name
        yield _Found(path=inside, place=member.path, status=member.stat(follow_symlinks=False), times=times)
        if member.is_dir(follow_symlinks=False):
            yield from _walk(member.path, inside, times)


def _entry_without_content(item: _Found) -> FileEntry | None:
    if stat.S_ISDIR(item.status.st_mode):
        return item.entry(Kind.DIRECTORY)
    if stat.S_ISLNK(item.status.st_mode):
        target = os.readlink(item.place)  # noqa: PTH115 - bytes
        return item.entry(Kind.SYMLINK, link=target.decode("utf-8", "surrogateescape"))
    return None


def _store_files(files: Iterable[_Found], store: Store) -> Iterator[FileEntry]:
    """One blob of all contents in path order, and the entries that point into it."""
    sizes: list[tuple[_Found, int]] = []
    blob = store.put(_contents(files, sizes)).digest
    offset = 0
    for item, size in sizes:
        # An empty file needs no blob, so its entry does not change with the files around it.
        content = Slice(blob=blob, offset=offset, size=size) if size else b""
        yield item.entry(Kind.FILE, content=content)
        offset += size


def _contents(files: Iterable[_Found], sizes: list[tuple[_Found, int]]) -> Iterator[bytes]:
    """The files' bytes as chunks; `sizes` gets what was really read of each, in order."""
    for item in files:
        size = 0
        try:
            with open(item.place, "rb", buffering=0, opener=_open_no_follow) as stream:
                while chunk := stream.read(_CHUNK):
                    size += len(chunk)
                    yield chunk
        except OSError as error:
            raise _unreadable(error) from error
        sizes.append((item, size))


def _open_no_follow(place: str, flags: int) -> int:
    return os.open(place, flags | os.O_NOFOLLOW)


def _unreadable(error: OSError) -> HostError:
    place = os.fsdecode(error.filename) if error.filename is not None else None
    return HostError("cannot read a file that was built", at=place, because=error.strerror or str(error))
