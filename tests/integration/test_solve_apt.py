"""The solver and the version order against apt and dpkg themselves, on Debian's own archive.

apt is trixie's: its packages are fetched through the verified chain, unpacked, and run with their own loader, so any
amd64 machine will do and nothing needs a privilege. It reads the same signed Release and the same indexes, and a dpkg
status file that says that the Essential packages and what they need are installed: what a wish meets in a rootfs.
"""

from __future__ import annotations

import gzip
import lzma
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from builder.python.packages import packages_for
from rootfs.architecture import Architecture
from rootfs.archive import Download, fetch, read_index, read_release
from rootfs.debian.index import PackageIndex
from rootfs.debian.package import Package
from rootfs.debian.release import Release
from rootfs.debian.solve import solve
from rootfs.debian.version import Version
from rootfs.errors import ResolveError
from rootfs.ports import read_blob
from rootfs.store import DiskStore
from rootfs.suite import Suite, package_url, standard_suites
from rootfs.transport import HttpTransport
from tests.fakes.reporter import ListReporter

pytestmark = [pytest.mark.archive, pytest.mark.peer]
AMD64 = Architecture.parse("amd64")
HOST = "archive.example.org"
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
APT_CONF = """
Dir "{dir}";
Dir::Etc "{dir}/etc";
Dir::Cache "{dir}/cache";
Dir::State "{dir}/state";
Dir::Bin::dpkg "/bin/false";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Get::Show-User-Simulation-Note "false";
Acquire::Languages "none";
pkgCacheGen::ForceEssential ",";
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """trixie as it stands, read through the trust chain."""

    suites: Sequence[tuple[Suite, Release]]
    index: PackageIndex
    store: DiskStore
    fetch: Callable[[Iterable[Package]], None]

    def sample(self, number: int, seed: str) -> list[str]:
        """Names chosen at random, but the same ones for as long as they are there."""
        names = (name for name in self.index.names() if self.index.named(name)[0].origin == "debian")
        return sorted(names, key=lambda name: sha256(f"{seed}/{name}".encode()).digest())[:number]


@pytest.fixture(scope="module")
def archive(debian_mirror: str, debian_security_mirror: str, shared_store: Path) -> Iterator[Archive]:
    store, reporter = DiskStore(shared_store), ListReporter()
    mirrors = {"debian": debian_mirror, "debian-security": debian_security_mirror}
    with HttpTransport() as transport:
        suites = [
            (suite, read_release(suite, transport=transport, store=store, mirrors=mirrors, now=int(time.time())))
            for suite in standard_suites("trixie", ["main"])
        ]
        index = read_index(suites, AMD64, transport=transport, store=store, mirrors=mirrors, reporter=reporter)

        def get(packages: Iterable[Package]) -> None:
            known = [suite for suite, _ in suites]
            debs = [Download(url=package_url(one, known), digest=one.digest, size=one.size) for one in packages]
            fetch(debs, transport=transport, store=store, mirrors=mirrors, reporter=reporter, task="debs")

        yield Archive(suites=suites, index=index, store=store, fetch=get)


@dataclass(frozen=True, slots=True, kw_only=True)
class Apt:
    """An apt 3.0 of its own: `root` is where it is unpacked, `directory` has its lists, cache and status files."""

    root: Path
    directory: Path

    def install(self, wishes: Sequence[str], *, status: str = "essential") -> frozenset[str] | None:
        """What is installed after `apt-get install`, beside what the status file has; None when apt refuses."""
        argv = [self.root / LOADER, "--library-path", self.root / "usr/lib/x86_64-linux-gnu"]
        argv += [self.root / "usr/bin/apt-get", "--simulate", "install", "--no-install-recommends", *wishes]
        argv += ["-o", f"Dir::State::status={self.directory / status}"]
        argv += ["-o", f"Dir::Cache::pkgcache={status}.bin"]  # one each: what is kept belongs to one status file
        environment = {"APT_CONFIG": str(self.directory / "apt.conf"), "LC_ALL": "C", "PATH": "/usr/bin:/bin"}
        run = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            assert "E: Unable to correct problems" in run.stderr or "has no installation candidate" in run.stderr, run
            return None
        assert "Remv " not in run.stdout
        return frozenset(re.findall(r"^Inst (\S+)", run.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def apt(archive: Archive, peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Apt:
    if Architecture.host() != AMD64:
        pytest.skip("trixie's apt is run without emulation: this machine is not amd64")
    top = tmp_path_factory.mktemp("apt")
    made = Apt(root=top / "root", directory=top / "apt")
    packages = solve(archive.index, ["apt"], essential=False).packages
    archive.fetch(packages)
    for package in packages:
        with archive.store.open(package.digest) as deb:
            subprocess.run([peer("dpkg-deb"), "--extract", deb.name, made.root], check=True)
    _configure(made.directory, archive)
    essential = [package.name for package in solve(archive.index, []).packages]
    (made.directory / "essential").write_text("".join(map(_installed, map(archive.index.named, essential))))
    return made


def _configure(directory: Path, archive: Archive) -> None:
    """A sources.list, and below lists/ the signed Releases and the indexes, as `apt-get update` would leave them."""
    for name in ("etc/apt.conf.d", "etc/preferences.d", "cache/archives/partial", "state/lists/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "apt.conf").write_text(APT_CONF.format(dir=directory))
    (directory / "empty").touch()
    (directory / "state/extended_states").touch()
    sources = []
    for suite, release in archive.suites:
        sources.append(f"deb [trusted=yes] http://{HOST}/{suite.archive} {suite.name} main\n")
        lists = directory / f"state/lists/{HOST}_{suite.archive}_dists_{suite.name}"
        Path(f"{lists}_InRelease").write_bytes(read_blob(archive.store, release.digest))
        Path(f"{lists}_main_binary-amd64_Packages").write_bytes(_packages(archive.store, release))
    (directory / "etc/sources.list").write_text("".join(sources))


def _packages(store: DiskStore, release: Release) -> bytes:
    for suffix, decompress in ((".gz", gzip.decompress), (".xz", lzma.decompress)):
        wanted = release.files.get(f"main/binary-amd64/Packages{suffix}")
        if wanted is not None and store.exists(wanted.digest):
            return decompress(read_blob(store, wanted.digest))
    raise AssertionError("read_index read neither .gz nor .xz")


def _installed(versions: Sequence[Package]) -> str:
    fields = {"Package": versions[0].name, "Status": "install ok installed", **versions[0].fields}
    kept = {name: value for name, value in fields.items() if name not in {"Filename", "Size", "MD5sum", "SHA256"}}
    return "".join(f"{name}: {value}\n" for name, value in kept.items()) + "\n"


def ours(archive: Archive, wishes: Sequence[str]) -> frozenset[str] | None:
    """As `Apt.install`."""
    there = {package.name for package in solve(archive.index, []).packages}
    try:
        return frozenset(package.name for package in solve(archive.index, wishes).packages) - there
    except ResolveError:
        return None


def differences(archive: Archive, apt: Apt, questions: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """The questions that the two answer differently, and in what."""
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(apt.install, questions))
    pairs = [(question, ours(archive, question), answer) for question, answer in zip(questions, answers, strict=True)]
    return {
        " ".join(question): sorted((mine or frozenset()) ^ (theirs or frozenset())) or ["only one of them refuses"]
        for question, mine, theirs in pairs
        if mine != theirs
    }


def test_the_essential_packages_are_those_that_apt_installs(archive: Archive, apt: Apt) -> None:
    assert apt.install(["?essential"], status="empty") == {
        package.name for package in solve(archive.index, []).packages
    }


def test_the_toolchain_is_the_one_that_apt_installs(archive: Archive, apt: Apt) -> None:
    assert differences(archive, apt, [packages_for("trixie").toolchain, ["apt"]]) == {}


def test_60_packages_of_trixie_bring_along_what_they_bring_along_with_apt(archive: Archive, apt: Apt) -> None:
    sample = archive.sample(60, "one")
    assert differences(archive, apt, [[name] for name in sample]) == {}


def test_conflicting_wishes_are_refused_by_both(archive: Archive, apt: Apt) -> None:
    wishes = ["exim4-daemon-light", "postfix"]
    assert ours(archive, wishes) is None
    assert apt.install(wishes) is None


@pytest.mark.sweep
@pytest.mark.parametrize("together", [1, 3])
def test_300_questions_are_answered_as_apt_answers_them(archive: Archive, apt: Apt, together: int) -> None:
    """One package each, and three at once; docs/explanation/solver.md explains what may differ."""
    sample = archive.sample(300 * together, f"sweep {together}")
    differ = differences(archive, apt, [sample[place::300] for place in range(300)])
    assert len(differ) < 3, differ


def version_pairs(archive: Archive, number: int) -> list[tuple[Version, Version]]:
    """Versions that are compared when packages are chosen: what is there with what a relation asks for."""
    pairs: dict[tuple[str, str], tuple[Version, Version]] = {}
    for name in archive.sample(2 * number, "versions"):
        for clause in archive.index.named(name)[0].relations(
            "Depends", "Breaks", "Conflicts", "Recommends", "Replaces"
        ):
            for relation in clause:
                for package in archive.index.named(relation.name)[:1]:
                    if relation.version is not None:
                        pair = package.version, relation.version
                        pairs[str(pair[0]), str(pair[1])] = pair
    return list(pairs.values())[:number]


@pytest.mark.parametrize("number", [1000, pytest.param(10_000, marks=pytest.mark.sweep)])
def test_dpkg_agrees_on_the_order_of_real_versions(archive: Archive, peer: Callable[[str], str], number: int) -> None:
    pairs = version_pairs(archive, number)
    assert len(pairs) == number
    said = [f"{a} {'lt' if a < b else 'eq' if a == b else 'gt'} {b}\n" for a, b in pairs]
    script = f'while read -r a is b; do {peer("dpkg")} --compare-versions "$a" "$is" "$b" || echo "$a $is $b"; done'
    run = subprocess.run(["sh", "-c", script], input="".join(said), capture_output=True, text=True, check=True)
    assert run.stdout == ""
