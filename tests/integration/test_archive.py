"""The trust chain on Debian's own archive: what an honest mirror gives, and what a broken or hostile one must not."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path

import pytest

from rootfs.architecture import Architecture
from rootfs.archive import Download, fetch, read_index, read_release
from rootfs.debian.index import PackageIndex
from rootfs.debian.release import Release
from rootfs.debian.solve import solve
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, RecipeError, ResolveError, TransferError
from rootfs.ports import Request, Transport
from rootfs.store import DiskStore
from rootfs.suite import CANONICAL, Suite, from_mirror, package_url, standard_suites
from rootfs.transport import HttpTransport
from tests.fakes.reporter import ListReporter
from tests.peers.mirror import Mirror, flip

pytestmark = pytest.mark.archive
AMD64 = Architecture.parse("amd64")


@pytest.fixture
def mirror(served: Mirror) -> Mirror:
    served.damage.clear()
    served.short.clear()
    served.missing.clear()
    served.requests.clear()
    return served


@pytest.fixture
def transport() -> Iterator[Transport]:
    with HttpTransport(sleep=lambda _seconds: None) as real:
        yield real


def resolve_index(mirrors: Mapping[str, str], transport: Transport, store: DiskStore, now: int) -> PackageIndex:
    ports = {"transport": transport, "store": store, "mirrors": mirrors}
    suites = [(s, read_release(s, now=now, **ports)) for s in standard_suites("trixie", ["main"])]
    return read_index(suites, AMD64, reporter=ListReporter(), **ports)


@pytest.fixture(scope="module")
def index(served: Mirror, tmp_path_factory: pytest.TempPathFactory) -> PackageIndex:
    with HttpTransport() as transport:
        store = DiskStore(tmp_path_factory.mktemp("store"))
        return resolve_index(served.mirrors(), transport, store, int(time.time()))


def test_the_essential_set_of_trixie_is_the_one_that_apt_installs(index: PackageIndex) -> None:
    """59 and 69 packages: counted on mmdebstrap's trees of trixie 13.7 (variants essential and apt)."""
    assert len(solve(index, []).packages) == 59
    assert len(solve(index, ["apt"]).packages) == 69


def test_awk_is_mawk_and_systemd_stays_out(index: PackageIndex) -> None:
    deny = ["systemd", "systemd-sysv", "udev", "dbus"]
    names = {package.name for package in solve(index, ["apt", "gcc", "g++", "make"], deny=deny).packages}
    assert "mawk" in names
    assert "gawk" not in names
    assert not names & set(deny)


def test_a_denied_package_that_is_asked_for_is_refused_with_its_reason(index: PackageIndex) -> None:
    with pytest.raises(ResolveError) as caught:
        solve(index, ["systemd-sysv"], deny=["systemd"])
    assert ": denied" in (caught.value.because or "")


def test_every_version_of_the_archive_can_be_read_and_dpkg_agrees_on_a_sample(
    index: PackageIndex, peer: Callable[[str], str]
) -> None:
    packages = [index.named(name)[0] for name in sorted(index.names())[::400]]
    for one, other in pairwise(packages):
        operator = "lt" if one.version < other.version else "eq" if one.version == other.version else "gt"
        command = [peer("dpkg"), "--compare-versions", str(one.version), operator, str(other.version)]
        assert subprocess.run(command, check=False).returncode == 0, command


def _release(suite: str, mirror: Mirror, transport: Transport, store: Path, now: int | None = None) -> Release:
    chosen = standard_suites(suite.partition("-")[0], ["main"])[suite.endswith("-security")]
    when = int(time.time()) if now is None else now
    ports = {"transport": transport, "store": DiskStore(store), "mirrors": mirror.mirrors()}
    return read_release(chosen, now=when, **ports)


@pytest.mark.parametrize("position", [60, 400, 5000, 100000, -40])
def test_a_changed_byte_of_inrelease_is_refused(
    position: int, mirror: Mirror, transport: Transport, tmp_path: Path
) -> None:
    mirror.damage["/InRelease"] = flip(position)
    with pytest.raises(IntegrityError) as caught:
        _release("trixie", mirror, transport, tmp_path)
    assert (caught.value.at or "").endswith("/dists/trixie/InRelease")
    assert not (tmp_path / "blobs").exists()


def test_one_valid_signature_suffices(mirror: Mirror, transport: Transport, tmp_path: Path) -> None:
    """As for apt: three keys sign trixie, and the one whose signature is damaged here is not needed."""
    mirror.damage["/InRelease"] = flip(-700)
    release = _release("trixie", mirror, transport, tmp_path)
    assert len(release.signers) == 2


def test_an_unsigned_release_is_refused(mirror: Mirror, transport: Transport, tmp_path: Path) -> None:
    mirror.damage["/InRelease"] = lambda data: data.partition(b"\n\n")[2].partition(b"-----BEGIN PGP SIGNATURE")[0]
    with pytest.raises(IntegrityError):
        _release("trixie", mirror, transport, tmp_path)


def test_text_outside_the_signature_is_refused(mirror: Mirror, transport: Transport, tmp_path: Path) -> None:
    evil = b"Suite: evil\nCodename: evil\n\n"
    mirror.damage["/InRelease"] = lambda data: evil + data
    with pytest.raises(IntegrityError, match="not a signed Release"):
        _release("trixie", mirror, transport, tmp_path)


def test_without_an_inrelease_the_detached_signatures_are_read(
    mirror: Mirror, transport: Transport, tmp_path: Path
) -> None:
    mirror.missing.add("/InRelease")
    release = _release("trixie", mirror, transport, tmp_path)
    assert len(release.signers) == 3
    assert [path.rpartition("/")[2] for path in mirror.requests] == ["InRelease", "Release", "Release.gpg"]
    mirror.damage["/Release"] = flip(5000)
    with pytest.raises(IntegrityError):
        _release("trixie", mirror, transport, tmp_path)


SUITES = [
    "bullseye",
    "bullseye-security",
    "bullseye-updates",
    "bookworm",
    "bookworm-security",
    "bookworm-updates",
    "bookworm-backports",
    "trixie-updates",
    "trixie-backports",
    "sid",
    "unstable",
    "testing",
    "forky",
    "forky-security",
]


@pytest.mark.parametrize("name", SUITES)
def test_the_suites_of_debian_are_trusted(name: str, mirror: Mirror, transport: Transport, tmp_path: Path) -> None:
    """Held against the time of its own making: the mirror at hand may be a cache that is behind."""
    suite = Suite.parse(name)
    with transport.send(
        Request(method="GET", url=from_mirror(f"{suite.directory}/InRelease", mirror.mirrors()))
    ) as got:
        if got.status == 404:
            pytest.skip(f"the mirror at hand does not carry {name}")
        made = re.search(rb"^Date: (.*)$", got.read(), re.MULTILINE)
    assert made is not None
    now = int(parsedate_to_datetime(made[1].decode().replace("UTC", "GMT")).timestamp())
    ports = {"transport": transport, "store": DiskStore(tmp_path), "mirrors": mirror.mirrors()}
    release = read_release(suite, now=now, **ports)
    assert release.signers
    assert release.priority == (100 if "backports" in name else 500)


def test_the_index_of_another_architecture_is_read_whole(mirror: Mirror, transport: Transport, tmp_path: Path) -> None:
    suite = Suite.parse("trixie")
    ports = {"transport": transport, "store": DiskStore(tmp_path), "mirrors": mirror.mirrors()}
    releases = [(suite, read_release(suite, now=int(time.time()), **ports))]
    found = read_index(releases, Architecture.parse("arm64"), reporter=ListReporter(), **ports)
    chosen = solve(found, ["apt"]).packages
    assert {package.architecture for package in chosen} == {"arm64", "all"}
    assert len(chosen) > 60


def test_a_snapshots_bytes_come_from_the_mirror_that_stands_in_for_it(
    mirror: Mirror, transport: Transport, tmp_path: Path, index: PackageIndex
) -> None:
    """The snapshots cannot be had everywhere: the archive of today is asked under the name of one."""
    timestamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    suites = standard_suites("trixie", ["main"], security=False, snapshot=timestamp)
    mirrors = {suites[0].canonical: f"{mirror.url}/debian"}
    ports = {"transport": transport, "store": DiskStore(tmp_path), "mirrors": mirrors}
    release = read_release(suites[0], now=int(time.time()), **ports)
    assert release.codename == "trixie"
    package = index.named("hostname")[0]
    url = package_url(package, suites)
    assert url.startswith(f"https://snapshot-cloudflare.debian.org/archive/debian/{timestamp}/pool/main/h/hostname/")
    download = Download(url=url, digest=package.digest, size=package.size)
    fetch([download], reporter=ListReporter(), task="debs", **ports)
    assert ports["store"].exists(package.digest)


def test_where_the_mirror_has_no_by_hash_the_plain_path_is_read(
    mirror: Mirror, transport: Transport, tmp_path: Path
) -> None:
    suite = Suite.parse("trixie-security")
    ports = {"transport": transport, "store": DiskStore(tmp_path), "mirrors": mirror.mirrors()}
    releases = [(suite, read_release(suite, now=int(time.time()), **ports))]
    path = "main/binary-amd64/Packages.xz"
    mirror.missing.add(f"/by-hash/SHA256/{releases[0][1].files[path].digest.hex}")
    read_index(releases, AMD64, reporter=ListReporter(), **ports)
    assert mirror.requests[-1].endswith(path)


def test_another_suites_release_is_refused(
    mirror: Mirror, transport: Transport, tmp_path: Path, debian_mirror: str
) -> None:
    """bookworm's Release bears a signature by a key that may sign trixie: only the name tells them apart."""
    with transport.send(Request(method="GET", url=f"{debian_mirror}/dists/bookworm/InRelease")) as response:
        other = response.read()
    mirror.damage["/InRelease"] = lambda _data: other
    with pytest.raises(IntegrityError, match="another suite"):
        _release("trixie", mirror, transport, tmp_path)


def test_an_expired_release_is_refused(mirror: Mirror, transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="expired"):
        _release("trixie-security", mirror, transport, tmp_path, now=int(time.time()) + 30 * 86400)


def test_a_suite_without_pinned_keys_is_refused(mirror: Mirror, transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no keys are pinned"):
        _release("jessie", mirror, transport, tmp_path)
    assert mirror.requests == []


@pytest.mark.parametrize("damage", [flip(1000), lambda data: data[:-1], lambda data: data + b"x"])
def test_a_damaged_index_is_refused(
    damage: Callable[[bytes], bytes], mirror: Mirror, transport: Transport, tmp_path: Path
) -> None:
    mirror.damage["/InRelease"] = lambda data: data  # first match wins: this one stays whole
    mirror.damage[""] = damage
    store = DiskStore(tmp_path)
    with pytest.raises(IntegrityError) as caught:
        resolve_index(mirror.mirrors(), transport, store, int(time.time()))
    assert "/binary-amd64/" in (caught.value.at or "")


@pytest.fixture(scope="module")
def deb(index: PackageIndex) -> Download:
    package = index.named("hostname")[0]
    url = f"{CANONICAL['debian']}/{package.filename}"
    return Download(url=url, digest=package.digest, size=package.size)


def _fetch(deb: Download, mirror: Mirror, transport: Transport, store: DiskStore) -> ListReporter:
    reporter = ListReporter()
    fetch([deb], transport=transport, store=store, mirrors=mirror.mirrors(), reporter=reporter, task="debs")
    return reporter


def test_a_deb_is_fetched_once(deb: Download, mirror: Mirror, transport: Transport, tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    reporter = _fetch(deb, mirror, transport, store)
    assert store.exists(deb.digest)
    assert ("begin", "debs", deb.size, "B") in reporter.events
    assert _fetch(deb, mirror, transport, store).events == []
    assert len(mirror.requests) == 1


@pytest.mark.parametrize("damage", [flip(0), flip(-1), lambda data: data[:-1], lambda data: data + b"x"])
def test_a_damaged_deb_is_refused_and_a_rerun_goes_on(
    damage: Callable[[bytes], bytes], deb: Download, mirror: Mirror, transport: Transport, tmp_path: Path
) -> None:
    store = DiskStore(tmp_path)
    mirror.damage[".deb"] = damage
    with pytest.raises(IntegrityError) as caught:
        _fetch(deb, mirror, transport, store)
    assert (caught.value.at or "").endswith(".deb")
    assert not store.exists(deb.digest)
    assert list((tmp_path / "tmp").iterdir()) == []
    mirror.damage.clear()
    _fetch(deb, mirror, transport, store)
    assert store.exists(deb.digest)


def test_a_download_that_breaks_off_goes_on_where_it_was(
    deb: Download, mirror: Mirror, transport: Transport, tmp_path: Path
) -> None:
    store = DiskStore(tmp_path)
    mirror.short[".deb"] = deb.size // 3 + 1
    _fetch(deb, mirror, transport, store)
    assert store.exists(deb.digest)
    assert len(mirror.requests) == 3


def test_a_missing_deb_says_how_to_go_on(mirror: Mirror, transport: Transport, tmp_path: Path) -> None:
    gone = Download(url=f"{CANONICAL['debian']}/pool/main/n/none/none_1_all.deb", digest=Digest.of(b"x"), size=1)
    with pytest.raises(TransferError) as caught:
        _fetch(gone, mirror, transport, DiskStore(tmp_path))
    assert "404" in caught.value.message
    assert "ocibuild lock" in (caught.value.hint or "")


def test_an_unreachable_mirror_is_a_transfer_error(deb: Download, transport: Transport, tmp_path: Path) -> None:
    nowhere = Mirror(url="http://127.0.0.1:9")
    with pytest.raises(TransferError) as caught:
        _fetch(deb, nowhere, transport, DiskStore(tmp_path))
    assert caught.value.exit_code == 6
    assert "127.0.0.1:9" in (caught.value.at or "")
