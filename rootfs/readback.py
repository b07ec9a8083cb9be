"""A tar of the root that dpkg configured -> Tree: owners and modes as they are in it, contents in the Store.

Law: reads one archive; what a run of the scripts leaves but nobody wants (LEFTOVERS) does not get into the Tree, and
nothing is later than the epoch. A file that is as a package has it keeps the content it has in the package's own Tree,
so only what the scripts made is stored anew.
"""

from __future__ import annotations

import fnmatch
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import BinaryIO

from rootfs.errors import BuildError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Slice, Tree, normalise

_CHUNK = 1 << 20
_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.FIFOTYPE: Kind.FIFO,
}
_XATTR = "SCHILY.xattr."
_MOUNTED = ("dev", "proc", "tmp")

# Patterns of paths, `*` for any text also with slashes: left out unless they are in a package, and why.
LEFTOVERS: Mapping[str, str] = {
    "dev/*": "device nodes: a container's runtime makes them",
    "etc/.pwd.lock": "a lock",
    "etc/group-": "a copy from before the last change",
    "etc/gshadow-": "a copy from before the last change",
    "etc/machine-id": "of one machine",
    "etc/passwd-": "a copy from before the last change",
    "etc/rc[0-6S].d*": "no init: no service is enabled",
    "etc/shadow-": "a copy from before the last change",
    "etc/subgid-": "a copy from before the last change",
    "etc/subuid-": "a copy from before the last change",
    "etc/systemd/system/*.wants*": "no systemd: no unit is enabled",
    "run/[!l]*": "of one boot; run/lock stays, since var/lock leads to it",
    "tmp/*": "of one boot",
    "usr/sbin/policy-rc.d": "our own: no service starts while dpkg runs",
    "var/cache/apt/*.bin": "apt's caches",
    "var/cache/debconf/*": "debconf makes its database when it is first asked",
    "var/cache/ldconfig/*": "a cache with inode numbers in it",
    "var/lib/apt/extended_states": "which packages apt chose by itself: here all are from one selection",
    "var/lib/dbus/machine-id": "of one machine",
    "var/lib/dpkg/*-old": "a copy from before the last change",
    "var/lib/dpkg/lock*": "a lock",
    "var/lib/dpkg/triggers/Lock": "a lock",
    "var/lib/systemd/deb-systemd-helper-*": "no systemd: no unit is enabled",
    "var/log/*.log": "logs, with the time of the run in them",
    "var/log/apt/*": "logs, with the time of the run in them",
    "var/tmp/*": "of one run",
}


def read_back(stream: BinaryIO, store: Store, packages: Iterable[Tree], *, epoch: int) -> Tree:
    """The Tree of a (seekable) tar archive; `packages` are the Trees that were unpacked into it, `epoch` in seconds.

    BuildError when it is no archive, IntegrityError when it names what is no path.
    """
    unwanted = re.compile("|".join(fnmatch.translate(pattern) for pattern in LEFTOVERS))
    try:
        # pax headers that are not UTF-8 (capabilities are bytes) come as surrogate escapes
        with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            found = [(entry, member) for member in archive if (entry := _entry(member))]
            tree = Tree(entry for entry, _ in found)
            held = {tree.resolve(path): entry for package in packages for path, entry in package.items()}
            wanted = [pair for pair in found if pair[0].path in held or not unwanted.match(pair[0].path)]
            entries = [*(entry for entry, _ in wanted if entry.kind is not Kind.FILE)]
            entries += _with_contents(wanted, archive, store, held)
    except tarfile.TarError as error:
        raise BuildError("cannot read what dpkg configured", because=str(error)) from error
    # What lay under the sandbox's own mounts is not in the archive as it was.
    entries += [replace(held[path], path=path) for path in _MOUNTED if path in held]
    return _timed(Tree(entries), epoch, held)


def _entry(member: tarfile.TarInfo) -> FileEntry | None:
    """An entry without its content; None for the root itself and for devices."""
    path, kind = normalise(member.name), _KINDS.get(member.type)
    if not path or kind is None:
        return None
    link = normalise(member.linkname) if kind is Kind.HARDLINK else member.linkname
    return entry_of(member, path=path, kind=kind, link=link)


def entry_of(member: tarfile.TarInfo, *, path: str, kind: Kind, link: str) -> FileEntry:
    """What a member's header says of a file, as an entry without content (SCHILY.xattr: extended attributes)."""
    headers = member.pax_headers
    xattrs = [(name.removeprefix(_XATTR), value) for name, value in headers.items() if name.startswith(_XATTR)]
    return FileEntry(
        path=path,
        kind=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        link=link,
        xattrs=tuple(sorted((name, value.encode("utf-8", "surrogateescape")) for name, value in xattrs)),
    )


def _with_contents(
    found: Iterable[tuple[FileEntry, tarfile.TarInfo]],
    archive: tarfile.TarFile,
    store: Store,
    held: Mapping[str, FileEntry],
) -> Iterator[FileEntry]:
    """The files: with a package's content where it is the same, and one new blob of all others'."""
    made: list[tuple[FileEntry, tarfile.TarInfo]] = []
    for entry, member in found:
        if entry.kind is not Kind.FILE:
            continue
        package = held.get(entry.path)
        if package and package.kind is Kind.FILE and _is_same(archive, member, store, package):
            yield replace(entry, content=package.content)
        elif member.size:
            made.append((entry, member))
        else:
            yield entry
    blob = store.put(chunk for _, member in made for chunk in _chunks(_open(archive, member), member.size)).digest
    offset = 0
    for entry, member in made:
        yield replace(entry, content=Slice(blob=blob, offset=offset, size=member.size))
        offset += member.size


def _is_same(archive: tarfile.TarFile, member: tarfile.TarInfo, store: Store, package: FileEntry) -> bool:
    if member.size != package.size:
        return False
    content = package.content
    if isinstance(content, bytes):
        return _open(archive, member).read() == content
    with store.open(content.blob) as stream:
        stream.seek(content.offset)
        pairs = zip(_chunks(_open(archive, member), member.size), _chunks(stream, content.size), strict=True)
        return all(ours == theirs for ours, theirs in pairs)


def _open(archive: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    stream = archive.extractfile(member)
    assert stream is not None
    return stream  # type: ignore[return-value]


def _chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (chunk := stream.read(min(size, _CHUNK))):
        size -= len(chunk)
        yield chunk


def _timed(tree: Tree, epoch: int, held: Mapping[str, FileEntry]) -> Tree:
    """Nothing is later than the epoch. What has no time of its own has the epoch: directories, links that scripts made
    (an alternative's has its target's time) and dpkg's files (theirs are out of the packages' control.tar).
    """

    def timed(entry: FileEntry) -> bool:
        if entry.kind is Kind.SYMLINK:
            return entry.path in held and held[entry.path].kind is Kind.SYMLINK
        return entry.kind is not Kind.DIRECTORY and not entry.path.startswith("var/lib/dpkg/")

    return Tree(e if timed(e) else replace(e, mtime=epoch) for e in tree.values()).clamped(epoch)
