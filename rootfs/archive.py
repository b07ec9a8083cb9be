"""Archive: a Debian mirror -> verified Release -> PackageIndex -> .debs in the Store.

Law: the chain of trust is walked here and nowhere else: a pinned key vouches for InRelease, InRelease for the indexes,
an index for each .deb. The mirror is only where bytes come from; URLs that are written down name Debian's own hosts.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rootfs.architecture import Architecture
from rootfs.debian.package import PackageIndex
from rootfs.debian.release import IndexFile, Release
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, OcibuildError, ResolveError, TransferError
from rootfs.keyring import pinned_keys, verify_release
from rootfs.ports import Reporter, Request, Store, Transport, read_blob

CANONICAL = {
    "debian": "https://ftp.debian.org/debian",
    "debian-security": "https://security.debian.org/debian-security",
}
_RELEASE_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One suite to read: the archive it lies in, its name there, the components wanted."""

    archive: str
    name: str
    components: tuple[str, ...]

    @property
    def canonical(self) -> str:
        """The archive's own URL, the one a lock records."""
        return CANONICAL[self.archive]


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file to have in the store: its canonical URL, digest and size in bytes."""

    url: str
    digest: Digest
    size: int


def standard_suites(codename: str, components: Sequence[str], *, security: bool = True) -> tuple[Suite, ...]:
    """A Debian release and its security updates, in the order in which equal versions are preferred."""
    wanted = tuple(components)
    suites = [Suite(archive="debian", name=codename, components=wanted)]
    if security:
        suites.append(Suite(archive="debian-security", name=f"{codename}-security", components=wanted))
    return tuple(suites)


def from_mirror(url: str, mirrors: Mapping[str, str]) -> str:
    """A canonical URL, turned to the mirror that stands in for its archive; other URLs as they are."""
    for archive, base in CANONICAL.items():
        if url.startswith(base + "/"):
            return mirrors.get(archive, base).rstrip("/") + url.removeprefix(base)
    return url


def read_release(suite: Suite, *, transport: Transport, store: Store, mirrors: Mapping[str, str], now: int) -> Release:
    """The suite's verified Release; the signed file is kept in the store as evidence."""
    keys = pinned_keys(suite.name)
    url = from_mirror(f"{suite.canonical}/dists/{suite.name}/InRelease", mirrors)
    data = _get(url, transport)
    try:
        release = verify_release(data, keys)
        release.expect(suite.name, now=now)
    except IntegrityError as error:
        error.at = error.at or url
        raise
    store.put([data])
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
    index = PackageIndex()
    for suite, release in suites:
        for component in suite.components:
            path = f"{component}/binary-{architecture.debian}/Packages.xz"
            wanted = release.files.get(path)
            if wanted is None:
                raise ResolveError(
                    f"{suite.name} has no component {component} for {architecture.debian}",
                    hint=f"components: {', '.join(release.components)}; "
                    f"architectures: {', '.join(release.architectures)}",
                )
            downloads = _index_downloads(suite, release, path, wanted)
            fetch(downloads, transport=transport, store=store, mirrors=mirrors, reporter=reporter, task="indexes")
            data = read_blob(store, wanted.digest)
            try:
                index.add(lzma.decompress(data).decode("utf-8"), suite.archive)
            except (lzma.LZMAError, UnicodeDecodeError) as error:
                raise IntegrityError(f"the index {path} cannot be read", because=str(error)) from error
    return index


def _index_downloads(suite: Suite, release: Release, path: str, wanted: IndexFile) -> list[Download]:
    """By digest where the archive offers it, so that a mirror in the middle of an update does no harm."""
    directory, _, _ = path.rpartition("/")
    place = f"{directory}/by-hash/SHA256/{wanted.digest.hex}" if release.by_hash else path
    url = f"{suite.canonical}/dists/{suite.name}/{place}"
    return [Download(url=url, digest=wanted.digest, size=wanted.size)]


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
    """Have every file in the store: those missing are fetched in parallel and verified as they are written.

    The first failure is raised after the running downloads ended; what was fetched stays.
    """
    missing = {download.digest: download for download in downloads if not store.exists(download.digest)}
    if not missing:
        return
    reporter.begin(task, total=sum(download.size for download in missing.values()))
    result = "failed"
    try:
        with ThreadPoolExecutor(max_workers=connections) as pool:
            running = [
                pool.submit(_fetch_one, download, from_mirror(download.url, mirrors), transport, store, reporter, task)
                for download in missing.values()
            ]
            try:
                for future in running:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        result = f"{len(missing)} fetched"
    finally:
        reporter.finish(task, result)


def _fetch_one(download: Download, url: str, transport: Transport, store: Store, reporter: Reporter, task: str) -> None:
    with transport.send(Request(method="GET", url=url)) as response:
        if response.status != 200:
            raise _refused(url, response.status)

        def counted() -> Iterable[bytes]:
            for chunk in response.chunks:
                reporter.advance(task, len(chunk))
                yield chunk

        try:
            store.put(counted(), expect=download.digest, size=download.size)
        except OcibuildError as error:
            error.at = error.at or url
            if isinstance(error, IntegrityError):
                error.hint = error.hint or "the mirror's file is damaged or replaced; try another --mirror"
            raise


def _get(url: str, transport: Transport) -> bytes:
    with transport.send(Request(method="GET", url=url)) as response:
        if response.status != 200:
            raise _refused(url, response.status)
        return response.read(_RELEASE_LIMIT)


def _refused(url: str, status: int) -> TransferError:
    hint = (
        "the archive no longer has this file: resolve anew with `ocibuild lock RECIPE`, or check --mirror"
        if status in (404, 410)
        else "check --mirror and the proxy settings (`ocibuild settings`)"
    )
    return TransferError(f"the mirror answered {status}", at=url, hint=hint)
