"""The four ports through which every effect passes, and the values they carry.

Law: Protocols and frozen values only; nothing here does I/O. Each port has a real implementation (`rootfs.store`,
`rootfs.transport`, `rootfs.sandbox`, `builder.progress`) and a fake in `tests/fakes`, held to one suite of tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, Self

if TYPE_CHECKING:
    from rootfs.digest import Digest
    from rootfs.tree import Slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What `Store.put` wrote: the digest of the bytes and their number."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a link stands for: the kind of step, a title for people, and blobs that belong to the result though it does
    not name them (the .deb of an unpacked package).
    """

    kind: str
    title: str = ""
    blobs: tuple[Digest, ...] = ()


class Store(Protocol):
    """Content-addressed blobs, and links from a step's key to the digest of its result."""

    def exists(self, digest: Digest) -> bool:
        """Whether the blob is here, whole."""

    def open(self, digest: Digest) -> BinaryIO:
        """The blob for reading, seekable; IntegrityError when it is not here."""

    def put(self, chunks: Iterable[bytes], *, expect: Digest | None = None, size: int | None = None) -> Stored:
        """Write a blob, all or nothing. IntegrityError when `expect` or `size` is given and does not hold."""

    def link(self, key: Digest, target: Digest, origin: Origin | None = None) -> None:
        """Remember that the step with this key made that blob; `origin` is for who lists and prunes the store."""

    def lookup(self, key: Digest) -> Digest | None:
        """The blob a step made, when it is linked and still here."""


def read_blob(store: Store, digest: Digest) -> bytes:
    """All bytes of a (small) blob."""
    with store.open(digest) as stream:
        return stream.read()


def read_content(store: Store, content: bytes | Slice) -> bytes:
    """All bytes of a (small) file of a Tree."""
    if isinstance(content, bytes):
        return content
    with store.open(content.blob) as stream:
        stream.seek(content.offset)
        return stream.read(content.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A request body that can be sent again: how to open it, and its length in bytes.

    The stream may be longer. A registry's uploads, which go on where they broke off, `seek` in it.
    """

    open: Callable[[], BinaryIO]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. Headers and body never show in a repr (they may hold a secret); `attempts` bounds the tries."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | Upload | None = field(default=None, repr=False)
    attempts: int = 5


class Response:
    """Status, headers (names in lower case) and the body as chunks; a context manager that closes the connection."""

    def __init__(
        self,
        *,
        status: int,
        url: str,
        headers: Mapping[str, str],
        chunks: Iterator[bytes],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.status = status
        self.url = url
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.chunks = chunks
        self.close = close

    def read(self, limit: int = 64 << 20) -> bytes:
        """The body, at most `limit` bytes of it (callers that must have all of it check the length)."""
        data = bytearray()
        for chunk in self.chunks:
            data += chunk
            if len(data) >= limit:
                break
        return bytes(data[:limit])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transport(Protocol):
    """HTTP with the one retry loop of the project."""

    def send(self, request: Request) -> Response:
        """The last answer, whatever its status; TransferError when none could be had within `request.attempts`.

        A GET's body that breaks off is resumed inside `chunks`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A host directory or file shown at `target` (absolute path inside the sandbox)."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to run in a root directory: read-only root, these binds, this environment, no network.

    /proc, /dev with /dev/shm and a tmpfs on /tmp are always there; `target`s of binds must exist in `root`.
    `on_line` sees every line of output as it comes; all of it goes to `log`. A `writable` root is changed in place.
    Of the ids, "one" is enough to be root; a "range" (0 to 65535) is needed to give files to others.
    """

    root: Path
    argv: tuple[str, ...]
    cwd: str = "/"
    environment: Mapping[str, str]
    binds: tuple[Bind, ...] = ()
    log: Path
    on_line: Callable[[str], None] | None = None
    writable: bool = False
    ids: Literal["one", "range"] = "one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a sandboxed command ended: exit status (128 + signal when killed), its log, seconds of wall time."""

    exit: int
    log: Path
    seconds: float


class Sandbox(Protocol):
    """Runs programs of a rootfs, away from the host."""

    def run(self, command: Command) -> Outcome:
        """Run to the end; HostError when this machine does not allow a sandbox (with the cause and a fix)."""

    def remove(self, directory: Path) -> None:
        """Remove a directory, if it is there, with all that programs with a range of ids left in it."""


class Reporter(Protocol):
    """Where progress goes: bars on a terminal, lines elsewhere. Thread-safe."""

    def begin(self, task: str, total: int | None = None, unit: str = "B") -> None:
        """A long task starts; `total` in `unit`s when known."""

    def advance(self, task: str, amount: int) -> None:
        """`amount` more units are done."""

    def finish(self, task: str, result: str = "done") -> None:
        """The task ended."""

    def note(self, text: str) -> None:
        """A line the user should see."""
