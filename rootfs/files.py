"""Files: writing one so that a reader sees the old bytes or the new ones, never half of them.

Law: temporary file beside the target, sync, rename; what the operating system refuses becomes a HostError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rootfs.errors import HostError

STDOUT = Path("/dev/stdout")
"""The target that is this process's stdout, and not replaced but written to."""

_CHUNK = 1 << 20
_NO_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A file that does not exist yet: write to `stream`, then `publish`, or it is gone at the end of the block."""

    stream: BinaryIO
    path: Path

    def publish(self, target: Path, mode: int = 0o644, *, sync: bool = True) -> None:
        """Sync the file and move it to its place, over what was there.

        Without `sync` a power cut may leave an empty file there: for what a reader recognises and does without.
        """
        self.stream.flush()
        os.fchmod(self.stream.fileno(), mode)
        if sync:
            os.fsync(self.stream.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)


class Flusher:
    """Has what was written to a file so far put on the disk by a thread, beside what else is done.

    An error of the disk is raised by `close`: the kernel tells it once, so a sync that follows would know of none.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def begin(self) -> None:
        """Begin with it, unless it is being done."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._sync)
            self._thread.start()

    def close(self) -> None:
        """When it is done; OSError when any of it could not be."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _sync(self) -> None:
        try:
            os.fdatasync(self._file)
        except OSError as error:
            self._error = error


@contextmanager
def unfinished(place: Path) -> Iterator[Unfinished]:
    """A new file in the directory `place` (made when missing), for targets on the same file system."""
    path: Path | None = None
    try:
        import tempfile  # noqa: PLC0415 (who only reads does without)

        place.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place, prefix=".tmp-")
        path = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield Unfinished(stream=stream, path=path)
    except OSError as error:
        raise host_error(error, place) from error
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


@contextmanager
def replacing(target: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A stream whose bytes take the target's place at the end of the block; nothing changes when the block raises.

    HostError when a directory, a device or a pipe is there: a rename over /dev/null would take it from everybody.
    What goes to STDOUT goes there at once, and what that refuses is an OSError.
    """
    if target == STDOUT:
        with os.fdopen(os.dup(1), "wb") as stream:
            yield stream
        return
    _check_replaceable(target)
    with unfinished(target.parent) as file:
        yield file.stream
        file.publish(target, mode)


def require_replaceable(target: Path) -> None:
    """HostError where `replacing` would fail now; makes the target's directory, as it would."""
    if target != STDOUT:
        _check_replaceable(target)
        with unfinished(target.parent):
            pass


def _check_replaceable(target: Path) -> None:
    """Links are followed: /dev/stderr is one. In /dev nothing is replaced, also where that leads to a plain file."""
    try:
        mode = target.stat().st_mode
    except OSError:  # nothing is there, or whoever writes will be told why not
        return
    if stat.S_ISREG(mode) and target.parent.absolute() != Path("/dev"):
        return
    because, hint = "it is a device, a pipe or a socket", "name a file; the shell's > and | take what goes to stdout"
    if stat.S_ISDIR(mode):
        because, hint = "it is a directory", "name a file in it"
    raise HostError(f"cannot write to {target}", because=because, hint=hint)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether nobody else holds the lock, a file made when missing; it ends with the process, however that ends."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(lock)


def copy(source: BinaryIO, target: int, *, offset: int, size: int) -> int:
    """Append `size` bytes at `offset` of a stream to an open file; how many there were.

    Inside the kernel (copy_file_range(2)) where the file systems allow it: twice as fast, and some share blocks.
    """
    done = _copy_in_kernel(source, target, offset, size)
    if done < size:
        source.seek(offset + done)
    while done < size and (chunk := source.read(min(_CHUNK, size - done))):
        write_all(target, chunk)
        done += len(chunk)
    return done


def _copy_in_kernel(source: BinaryIO, target: int, offset: int, size: int) -> int:
    """How many bytes copy_file_range(2) copied: all, or as many as before it would not."""
    done = 0
    try:
        descriptor = source.fileno()
        while done < size and (copied := os.copy_file_range(descriptor, target, size - done, offset + done)):
            done += copied
    except OSError as error:  # io.UnsupportedOperation, a stream without a file, has no errno
        if error.errno not in _NO_COPY and error.errno is not None:
            raise
    return done


def write_all(target: int, data: bytes) -> None:
    """Append all of `data` to an open file."""
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def host_error(error: OSError, place: Path) -> HostError:
    """What the operating system refused, as an error with a way out."""
    elsewhere = "name another place on the command line; OCIBUILD_STORE says where the store is"
    hints = {
        errno.ENOSPC: f"free some space, or {elsewhere}; what is finished is kept",
        errno.EDQUOT: f"free some of your quota, or {elsewhere}; what is finished is kept",
        errno.EACCES: elsewhere,
        errno.EPERM: elsewhere,
        errno.EROFS: elsewhere,
        errno.ENOTDIR: elsewhere,
        errno.EEXIST: elsewhere,
    }
    return HostError(f"cannot write to {place}", because=error.strerror or str(error), hint=hints.get(error.errno or 0))
