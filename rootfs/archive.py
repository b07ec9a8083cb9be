"""Archive: a Debian mirror -> verified Release -> PackageIndex -> .debs in the Store.

Law: the chain of trust is walked here and nowhere else: a pinned key vouches for the Release (`rootfs.keyring` decides
that), the Release for the indexes, an index for each .deb. The mirror is only where bytes come from; URLs that are
written down name the archives' own hosts. Layout: Debian repository format, https://wiki.debian.org/DebianRepository.
"""

from __future__ import annotations

import gzip
import lzma
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import deflate

from rootfs.architecture import Architecture
from rootfs.debian.index import TABLE_REVISION, PackageIndex, PackagesFile, Text
from rootfs.debian.release import IndexFile, Release
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, OcibuildError, RecipeError, ResolveError, TransferError
from rootfs.keyring import pinned_keys, read_certificates, verify_release
from rootfs.ports import Origin, Reporter, Request, Store, Transport, read_blob
from rootfs.suite import Suite, from_mirror
from rootfs.url import redact

_RELEASE_LIMIT = 8 << 20
_COMPRESSIONS = (".gz", ".xz", "")  # gzip first: it takes a tenth of the time of xz to decode
_GONE = frozenset({404, 410})


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file to have in the store: its canonical URL, digest and size in bytes.

    `otherwise` is a second URL, for when the first is not there.
    """

    url: str
    digest: Digest
    size: int
    otherwise: str = ""


def read_release(suite: Suite, *, transport: Transport, store: Store, mirrors: Mapping[str, str], now: int) -> Release:
    """The suite's verified Release; the signed file is kept in the store as evidence.

    `now` (seconds since the epoch) is what its dates and its keys' are held against; a snapshot's own time goes before.
    """
    if suite.at is not None and suite.at > now:
        raise RecipeError(f"the snapshot {suite.snapshot} lies in the future", hint="is this machine's clock right?")
    keys = read_certificates(suite.keys) if suite.keys else pinned_keys(suite.name)
    url = from_mirror(f"{suite.directory}/InRelease", mirrors)
    data, signature = _get(url, transport), None
    if data is None:
        url = from_mirror(f"{suite.directory}/Release", mirrors)
        data, signature = _get(url, transport), _get(f"{url}.gpg", transport)
        if data is None:
            raise _refused(url, 404, f"is there a suite {suite.name} in this archive? check the mirror, too")
        if signature is None:
            raise IntegrityError(
                "the Release is not signed", at=redact(url), because="there is no InRelease, and no Release.gpg"
            )
    try:
        release = verify_release(
            data, keys, name=suite.name, now=now if suite.at is None else suite.at, signature=signature
        )
    except IntegrityError as error:
        error.at = error.at or redact(url)
        raise
    for evidence in filter(None, (data, signature)):
        if not store.exists(Digest.of(evidence)):
            store.put([evidence])
    return release


def read_index(
    suites: Sequence[tuple[Suite, Release]],
    architecture: Architecture,
    *,
    transport: Transport,
    store: Store,
    mirrors: Mapping[str, str],
    reporter: Reporter,
) -> PackageIndex:
    """The packages of all the suites' components for one architecture (and `all`)."""
    listed = [
        (suite, release, path, wanted)
        for suite, release in suites
        for component in suite.components
        for path, wanted in _index_files(suite, release, component, architecture)
    ]
    index = PackageIndex()
    with fetching(
        [_index_download(suite, release, path, wanted) for suite, release, path, wanted in listed],
        transport=transport,
        store=store,
        mirrors=mirrors,
        reporter=reporter,
        task="indexes",
    ) as arriving:
        for suite, release, path, wanted in listed:
            if wanted.digest in arriving:
                arriving[wanted.digest].result()
            index.add_file(
                _packages(release, path, wanted, store),
                suite.archive,
                suites={suite.name, release.suite, release.codename},
                pin=release.priority,
            )
    return index


def read_listed(
    suite: Suite,
    release: Release,
    name: str,
    *,
    transport: Transport,
    store: Store,
    mirrors: Mapping[str, str],
    reporter: Reporter,
) -> bytes | None:
    """The text of a file that the Release lists, as `main/source/Sources`, in any compression; None: it lists none."""
    for path in (f"{name}{suffix}" for suffix in _COMPRESSIONS):
        wanted = release.files.get(path)
        if wanted is not None:
            download = _index_download(suite, release, path, wanted)
            fetch([download], transport=transport, store=store, mirrors=mirrors, reporter=reporter, task=name)
            return bytes(_index_text(release, path, read_blob(store, wanted.digest)))
    return None


def _index_files(
    suite: Suite, release: Release, component: str, architecture: Architecture
) -> Iterator[tuple[str, IndexFile]]:
    """The Packages files of a component, each in the first compression that the Release lists."""
    found = False
    for machine in (architecture.debian, "all") if release.all_apart else (architecture.debian,):
        paths = [f"{component}/binary-{machine}/Packages{suffix}" for suffix in _COMPRESSIONS]
        for path in [path for path in paths if path in release.files][:1]:
            found = True
            yield path, release.files[path]
    if not found:
        # security archives list their components as "updates/main", and their files as "main/..."
        components = ", ".join(name.removeprefix("updates/") for name in release.components)
        raise ResolveError(
            f"{suite.name} has no component {component} for {architecture.debian}",
            hint=f"components: {components}; architectures: {', '.join(release.architectures)}",
        )


def _index_download(suite: Suite, release: Release, path: str, wanted: IndexFile) -> Download:
    """By digest where the archive offers it, so that a mirror in the middle of an update does no harm."""
    plain = f"{suite.directory}/{path}"
    if not release.by_hash:
        return Download(url=plain, digest=wanted.digest, size=wanted.size)
    url = f"{plain.rpartition('/')[0]}/by-hash/SHA256/{wanted.digest.hex}"
    return Download(url=url, digest=wanted.digest, size=wanted.size, otherwise=plain)


def _packages(release: Release, path: str, wanted: IndexFile, store: Store) -> PackagesFile:
    """A Packages file that lies in the store; its table is made once and kept there, too."""
    text = _index_text(release, path, read_blob(store, wanted.digest))
    key = Digest.of(f"packages-table {TABLE_REVISION} {wanted.digest}".encode())
    table = store.lookup(key)
    if table is not None:
        return PackagesFile.from_bytes(text, read_blob(store, table))
    packages = PackagesFile.scan(text)
    store.link(key, store.put([packages.to_bytes()]).digest, Origin(kind="packages", blobs=(wanted.digest,)))
    return packages


def _index_text(release: Release, path: str, data: bytes) -> Text:
    try:
        if path.endswith(".xz"):
            return lzma.decompress(data)
        if not path.endswith(".gz"):
            return data
        plain = release.files.get(path.removesuffix(".gz"))
        text = deflate.gzip_decompress(data)
        # libdeflate stops after the first member of a gzip file
        return text if plain is not None and len(text) == plain.size else gzip.decompress(data)
    except (lzma.LZMAError, zlib.error, deflate.DeflateError, ValueError, OSError, EOFError) as error:
        raise IntegrityError(f"the index {path} cannot be read", because=str(error)) from error


def fetch(
    downloads: Iterable[Download],
    *,
    transport: Transport,
    store: Store,
    mirrors: Mapping[str, str],
    reporter: Reporter,
    task: str,
    connections: int = 8,
) -> None:
    """Have every file in the store; as `fetching`, and nothing else meanwhile."""
    with fetching(
        downloads,
        transport=transport,
        store=store,
        mirrors=mirrors,
        reporter=reporter,
        task=task,
        connections=connections,
    ) as arriving:
        for future in arriving.values():
            future.result()


@contextmanager
def fetching(
    downloads: Iterable[Download],
    *,
    transport: Transport,
    store: Store,
    mirrors: Mapping[str, str],
    reporter: Reporter,
    task: str,
    connections: int = 8,
) -> Iterator[Mapping[Digest, Future[None]]]:
    """Fetch what is missing in parallel, verified as it is written, while the block runs; a future for each file.

    A future's result is None once the file is in the store, or raises. When the block ends what is under way is waited
    for; when it raises, what has not begun is dropped. What was fetched stays.
    """
    missing = {download.digest: download for download in downloads if not store.exists(download.digest)}
    if not missing:
        yield {}
        return
    reporter.begin(task, total=sum(download.size for download in missing.values()))
    left = _Countdown(len(missing), lambda: reporter.finish(task, f"{len(missing)} fetched"))
    pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="fetch")
    try:
        arriving = {
            digest: pool.submit(_fetch_one, download, mirrors, transport, store, reporter, task)
            for digest, download in missing.items()
        }
        for future in arriving.values():
            future.add_done_callback(left.one_less)
        yield arriving
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if not left.reached:
            reporter.finish(task, "failed")


class _Countdown:
    """Calls `at_zero` when as many futures have ended well as there were."""

    def __init__(self, number: int, at_zero: Callable[[], None]) -> None:
        self._left = number
        self._at_zero = at_zero
        self._lock = threading.Lock()
        self.reached = False

    def one_less(self, future: Future[None]) -> None:
        """A future ended."""
        if future.cancelled() or future.exception() is not None:
            return
        with self._lock:
            self._left -= 1
            self.reached = self._left == 0
        if self.reached:
            self._at_zero()


def _fetch_one(
    download: Download, mirrors: Mapping[str, str], transport: Transport, store: Store, reporter: Reporter, task: str
) -> None:
    places = [from_mirror(place, mirrors) for place in (download.url, download.otherwise) if place]
    for url in places:
        with transport.send(Request(method="GET", url=url)) as response:
            if response.status in _GONE and url != places[-1]:
                continue
            if response.status != 200:
                raise _refused(url, response.status)
            chunks = _counted(response.chunks, reporter, task)
            try:
                store.put(chunks, expect=download.digest, size=download.size)
            except OcibuildError as error:
                error.at = error.at or redact(url)
                if isinstance(error, IntegrityError):
                    error.hint = error.hint or "the mirror's file is damaged or replaced; try another --mirror"
                raise
            return


def _counted(chunks: Iterable[bytes], reporter: Reporter, task: str) -> Iterator[bytes]:
    for chunk in chunks:
        reporter.advance(task, len(chunk))
        yield chunk


def _get(url: str, transport: Transport) -> bytes | None:
    """A small file; None when it is not there."""
    with transport.send(Request(method="GET", url=url)) as response:
        if response.status in _GONE:
            return None
        if response.status != 200:
            raise _refused(url, response.status)
        return response.read(_RELEASE_LIMIT)


def _refused(url: str, status: int, hint: str = "") -> TransferError:
    usual = (
        "the archive no longer has this file: resolve anew with `ocibuild lock RECIPE`, or check --mirror"
        if status in _GONE
        else "check --mirror and the proxy settings (`ocibuild settings`)"
    )
    return TransferError(f"the mirror answered {status}", at=redact(url), hint=hint or usual)
