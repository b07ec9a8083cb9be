"""Host directory, as it stands: every name in it with what an archive keeps, its content read once and in place.

Law: follows no link below the directory, writes nothing, stores nothing; the order is the Tree's, so it does not depend
on readdir. What changes while it is read is an error and never half of one state and half of another. Holes of sparse
files are found (lseek(2), SEEK_DATA) and not read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from rootfs.errors import HostError
from rootfs.tree import Kind

_KINDS: Mapping[int, Kind] = MappingProxyType(
    {
        stat.S_IFREG: Kind.FILE,
        stat.S_IFDIR: Kind.DIRECTORY,
        stat.S_IFLNK: Kind.SYMLINK,
        stat.S_IFCHR: Kind.CHARACTER,
        stat.S_IFBLK: Kind.BLOCK,
        stat.S_IFIFO: Kind.FIFO,
    }
)
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class Content(Protocol):
    """A file's bytes, from front to back; valid until the next name is asked for."""

    is_sparse: bool

    def fill(self, view: memoryview) -> None:
        """The next bytes, as many as the view holds; raises when there are fewer."""

    def runs(self) -> Iterator[tuple[int, bool]]:
        """The file as (length, whether it is a hole); `fill` reads what is none."""


class Found(NamedTuple):
    """A name in the directory; no dataclass, since there are tens of thousands and each costs time.

    `path` is relative, bytes as on the disk; `mtime` whole seconds; `link` a symlink's text or, of a hard link, the
    path of the name that came first; `size` and `content` are a file's.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    size: int = 0
    content: Content | None = None


class _Open:
    """An open file's bytes."""

    __slots__ = ("_descriptor", "_path", "_size", "is_sparse")

    def __init__(self, descriptor: int, path: bytes, status: os.stat_result) -> None:
        self._descriptor = descriptor
        self._path = path
        self._size = status.st_size
        self.is_sparse = status.st_blocks * 512 < status.st_size

    def fill(self, view: memoryview) -> None:
        """The next bytes of the file, as many as the view holds; HostError when there are fewer."""
        try:
            got = os.readv(self._descriptor, (view,))
            while got < len(view):
                more = os.readv(self._descriptor, (view[got:],))
                if not more:
                    raise _changed(self._path)
                got += more
        except OSError as error:
            raise _unreadable(error, self._path) from error

    def runs(self) -> Iterator[tuple[int, bool]]:
        """The file as (length, whether it is a hole); `fill` reads what is none."""
        if not self.is_sparse:
            yield self._size, False
            return
        at = 0
        while at < self._size:
            data = self._seek(at, os.SEEK_DATA)
            if data > at:
                yield data - at, True
            at = min(self._seek(data, os.SEEK_HOLE), self._size) if data < self._size else data
            if at > data:
                os.lseek(self._descriptor, data, os.SEEK_SET)
                yield at - data, False

    def _seek(self, at: int, whence: int) -> int:
        """Where the next data or hole begins; no data to the end is a hole as long as that."""
        try:
            return min(os.lseek(self._descriptor, at, whence), self._size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self._size
            raise _unreadable(error, self._path) from error


def read_tree(directory: Path, *, on_skip: Callable[[str, str], None]) -> Generator[Found, None, None]:
    """Everything below `directory`, in the Tree's order; the directory itself is not in it.

    Of several names of a file the first carries it. Kept of extended attributes are `security.capability` and `user.*`.
    `on_skip` gets the path and the kind of what no archive can hold, a socket. HostError when something cannot be read
    or is changed by somebody meanwhile.
    """
    walk = _Walk(on_skip=on_skip, place=os.fsencode(directory / "x")[:-1])
    try:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError("cannot read the directory", at=str(directory), because=error.strerror) from error
    yield from walk.below(root)


@dataclass(slots=True, kw_only=True)
class _Walk:
    """One reading of a directory: what names in it begin with for people; the first name of a file of several."""

    on_skip: Callable[[str, str], None]
    place: bytes
    first: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def below(self, root: int) -> Iterator[Found]:
        """Depth first, without recursion: a directory may be deeper than Python's stack. Takes `root` over."""
        levels = [_level(root, b"", self.place)]
        try:
            while levels:
                place, above, names, status = levels[-1]
                member = next(names, None)
                if member is None:
                    _require_same(os.fstat(place), status, self.place + above)  # no name came or went
                    levels.pop()
                    os.close(place)
                    continue
                path = above + os.fsencode(member.name)
                try:
                    found = yield from self._one(place, member, path)
                except OSError as error:
                    raise _unreadable(error, self.place + path) from error
                if found is not None:
                    levels.append(_level(found, path + b"/", self.place))
        finally:
            for place, _, _, _ in levels:
                os.close(place)

    def _one(self, place: int, member: os.DirEntry[str], path: bytes) -> Generator[Found, None, int | None]:
        """The name itself; returns a directory's descriptor."""
        status = member.stat(follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        common = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime_ns // 1_000_000_000))
        if kind is None:
            self.on_skip(_shown(path), "a socket")
        elif kind is Kind.DIRECTORY:
            descriptor = os.open(member.name, _FLAGS | os.O_DIRECTORY, dir_fd=place)
            try:
                _require_same(os.fstat(descriptor), status, self.place + path)
                yield Found(path, kind, *common, xattrs=_xattrs(descriptor))
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor
        elif status.st_nlink > 1 and (known := self.first.setdefault((status.st_dev, status.st_ino), path)) != path:
            yield Found(path, Kind.HARDLINK, *common, link=known)
        elif kind is Kind.FILE:
            yield from _file(place, member.name, path, status, common, self.place + path)
        elif kind is Kind.SYMLINK:
            link = os.fsencode(os.readlink(member.name, dir_fd=place))
            yield Found(path, kind, *common, link=link)
        else:
            device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind is not Kind.FIFO else (0, 0)
            yield Found(path, kind, *common, device=device)
        return None


def _file(
    place: int, name: str, path: bytes, status: os.stat_result, common: tuple[int, int, int, int], called: bytes
) -> Iterator[Found]:
    """A file, for people `called` by its whole path."""
    descriptor = os.open(name, _FLAGS, dir_fd=place)
    try:
        content = _Open(descriptor, called, status)
        yield Found(path, Kind.FILE, *common, xattrs=_xattrs(descriptor), size=status.st_size, content=content)
        _require_same(os.fstat(descriptor), status, called)
    finally:
        os.close(descriptor)


def _require_same(now: os.stat_result, before: os.stat_result, path: bytes) -> None:
    """The file that was listed, and nothing wrote to it since."""
    if now.st_ctime_ns != before.st_ctime_ns or now.st_ino != before.st_ino or now.st_size != before.st_size:
        raise _changed(path)


def _level(place: int, above: bytes, root: bytes) -> tuple[int, bytes, Iterator[os.DirEntry[str]], os.stat_result]:
    """An open directory, what its names' paths begin with, the names in order, what it was before they were read."""
    try:
        status = os.fstat(place)
        with os.scandir(place) as listing:
            return place, above, iter(sorted(listing, key=_name)), status
    except BaseException as error:
        os.close(place)
        if isinstance(error, OSError):
            raise _unreadable(error, root + above) from error
        raise


def _name(member: os.DirEntry[str]) -> bytes:
    return os.fsencode(member.name)


def _xattrs(descriptor: int) -> tuple[tuple[str, bytes], ...]:
    """The attributes that say something of the file and not of this host, by name."""
    try:
        names = os.listxattr(descriptor)
        if not names:
            return ()
        kept = sorted(name for name in names if name == "security.capability" or name.startswith("user."))
        return tuple((name, os.getxattr(descriptor, name)) for name in kept)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return ()
        raise


def _changed(path: bytes) -> HostError:
    hint = "stop what writes there, or pack a copy or a snapshot"
    return HostError("a file changed while it was read", at=_shown(path), hint=hint)


def _unreadable(error: OSError, path: bytes) -> HostError:
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ESTALE):
        return _changed(path)
    hint = "run as who may read it, or move it away" if error.errno in (errno.EACCES, errno.EPERM) else None
    return HostError("cannot read a file of the directory", at=_shown(path), because=error.strerror, hint=hint)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
