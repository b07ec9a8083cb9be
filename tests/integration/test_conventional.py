"""Real dpkg in the sandbox: the tree that the handlers make, from every kind of user; scripts that nobody has read."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rootfs.archive import Download, fetch, read_index, read_release
from rootfs.bootstrap import bootstrap
from rootfs.conventional import conventional
from rootfs.debian.deb import Unpacked, unpack
from rootfs.debian.index import PackageIndex
from rootfs.debian.solve import solve
from rootfs.digest import Digest
from rootfs.errors import BuildError, HostError
from rootfs.ports import read_blob, read_content
from rootfs.sandbox.namespaces import NamespaceSandbox
from rootfs.store import DiskStore
from rootfs.suite import package_url, standard_suites
from rootfs.transport import HttpTransport
from rootfs.tree import FileEntry, Kind, Tree
from tests.conftest import OrdinaryUser
from tests.fakes.reporter import ListReporter
from tests.peers.mmdebstrap import AMD64, EPOCH, SAME_BUT_FOR

pytestmark = [pytest.mark.archive, pytest.mark.peer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Trixie: its index, and how to have .debs of it in a store."""

    index: PackageIndex
    mirrors: Mapping[str, str]

    def names(self, *wanted: str) -> list[str]:
        """The Essential packages, these, and what they depend on."""
        return [package.name for package in solve(self.index, wanted).packages]

    def minbase(self) -> list[str]:
        return self.names("apt", *(package.name for package in self.index.with_priority("required")))

    def fetch(self, names: Sequence[str], store: DiskStore) -> dict[str, Digest]:
        """The digest of each package's .deb, which is in the store then."""
        packages = solve(self.index, names).packages
        suites = standard_suites("trixie", ["main"])
        downloads = [Download(url=package_url(p, suites), digest=p.digest, size=p.size) for p in packages]
        with HttpTransport() as transport:
            fetch(
                downloads, transport=transport, store=store, mirrors=self.mirrors, reporter=ListReporter(), task="debs"
            )
        return {package.name: package.digest for package in packages}


@pytest.fixture(scope="module")
def archive(debian_mirror: str, debian_security_mirror: str, shared_store: Path) -> Archive:
    suites, store = standard_suites("trixie", ["main"]), DiskStore(shared_store)
    mirrors = dict(zip((suite.canonical for suite in suites), (debian_mirror, debian_security_mirror), strict=True))
    with HttpTransport() as transport:
        ports = {"transport": transport, "store": store, "mirrors": mirrors}
        releases = [(suite, read_release(suite, now=int(time.time()), **ports)) for suite in suites]
        index = read_index(releases, AMD64, reporter=ListReporter(), **ports)
    return Archive(index=index, mirrors=mirrors)


def read_debs(debs: Mapping[str, Digest], store: DiskStore) -> list[Unpacked]:
    unpacked = []
    for name, digest in debs.items():
        with store.open(digest) as stream:
            unpacked.append(unpack(stream, store, name))
    return unpacked


def configure(debs: Mapping[str, Digest], store: DiskStore, work: Path) -> Tree:
    """By whoever runs the suite; skips where that one has no range of ids."""
    unpacked, sandbox = read_debs(debs, store), NamespaceSandbox()
    try:
        return conventional(unpacked, debs, store=store, sandbox=sandbox, work=work, epoch=EPOCH, architecture=AMD64)
    except HostError as error:
        pytest.skip(f"no sandbox with a range of ids for this user: {error.render()}")


AS_ORDINARY_USER = f"""
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rootfs.architecture import Architecture
from rootfs.conventional import conventional
from rootfs.debian.deb import unpack
from rootfs.digest import Digest
from rootfs.errors import OcibuildError
from rootfs.sandbox.namespaces import NamespaceSandbox
from rootfs.store import DiskStore
store = DiskStore(Path("store").absolute())
debs = dict(word.split("=") for word in sys.argv[2:])
debs = {{name: Digest.parse(digest) for name, digest in debs.items()}}
try:
    tree = conventional([unpack(store.open(digest), store, name) for name, digest in debs.items()], debs, store=store,
        sandbox=NamespaceSandbox(), work=Path("work"), epoch={EPOCH}, architecture=Architecture.parse("amd64"))
    print(store.put([tree.to_bytes()]).digest)
except OcibuildError as error:
    print(error.exit_code, error.render())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Somebody:
    """An ordinary user with a store in `place`."""

    place: Path
    run: Callable[[Mapping[str, Digest]], str]

    @property
    def store(self) -> DiskStore:
        return DiskStore(self.place / "store")


@pytest.fixture(scope="module")
def somebody(
    ordinary_user: OrdinaryUser, ordinary_clone: Path, ordinary_python: Path, shared_store: Path
) -> Iterator[Somebody]:
    place = ordinary_user.home / "conventional"
    place.mkdir()

    def run(debs: Mapping[str, Digest]) -> str:
        """Configure with dpkg: the digest of the Tree, or the error."""
        for digest in debs.values():
            blob = Path("blobs", digest.algorithm, digest.hex)
            (place / "store" / blob).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shared_store / blob, place / "store" / blob)
        for path in (place, *place.rglob("*")):
            os.chown(path, ordinary_user.uid, ordinary_user.gid)
        words = [f"{name}={digest}" for name, digest in debs.items()]
        answer = ordinary_user.run([ordinary_python, "-c", AS_ORDINARY_USER, ordinary_clone, *words], cwd=place)
        assert answer.returncode == 0, answer.stderr
        if answer.stdout.startswith("7 "):
            pytest.skip(f"no sandbox with a range of ids for {ordinary_user.name}: {answer.stdout}")
        return answer.stdout.rstrip("\n")

    yield Somebody(place=place, run=run)
    shutil.rmtree(place, ignore_errors=True)


def alike(path: str, data: bytes) -> object:
    same = next((same for pattern, same in SAME_BUT_FOR.items() if fnmatch.fnmatchcase(path, pattern)), bytes)
    return same(data)


def differences(ours: Tree, theirs: Tree, store: DiskStore) -> list[str]:
    wrong = [f"{path}: only in one" for path in sorted(set(ours) ^ set(theirs))]
    for path in sorted(set(ours) & set(theirs)):
        pair = (ours[path], theirs[path])
        facts = [(e.kind, oct(e.mode), e.uid, e.gid, e.mtime, e.link, e.xattrs) for e in pair]
        contents = [alike(path, read_content(store, e.content)) if e.kind is Kind.FILE else None for e in pair]
        if facts[0] != facts[1]:
            wrong.append(f"{path}: {facts[0]}, not {facts[1]}")
        if contents[0] != contents[1]:
            wrong.append(f"{path}: content")
    return wrong


@pytest.fixture(scope="module")
def minbase(archive: Archive, somebody: Somebody, shared_store: Path) -> Tree:
    """An ordinary user's minbase."""
    debs = archive.fetch(archive.minbase(), DiskStore(shared_store))
    return Tree.from_bytes(read_blob(somebody.store, Digest.parse(somebody.run(debs))))


def test_an_ordinary_users_dpkg_gives_the_tree_of_the_handlers(
    minbase: Tree, archive: Archive, somebody: Somebody
) -> None:
    """Every path, kind, mode, owner, time, link, content; what may differ is in SAME_BUT_FOR, with the reason."""
    store = somebody.store
    unpacked = read_debs(archive.fetch(archive.minbase(), store), store)
    native = bootstrap(unpacked, store=store, epoch=EPOCH, architecture=AMD64)
    assert len(native) > 5000
    assert differences(minbase, native, store) == []
    assert not (somebody.place / "work").exists()


@pytest.mark.sweep
@pytest.mark.skipif(os.geteuid() != 0, reason="for root and somebody else it takes root")
def test_root_gets_the_same_bytes(minbase: Tree, archive: Archive, shared_store: Path, tmp_path: Path) -> None:
    store = DiskStore(shared_store)
    debs = archive.fetch(archive.minbase(), store)
    assert configure(debs, store, tmp_path / "work").to_bytes() == minbase.to_bytes()


ODD = """#!/bin/sh
set -e
test "$1" = configure && test -z "$2"
if /usr/sbin/policy-rc.d odd start; then exit 1; fi  # no service starts
mkdir -p -m 0700 /var/lib/odd
echo made > /var/lib/odd/file
mkfifo /var/lib/odd/pipe
chown -R 4242:4243 /var/lib/odd
grep -c : /proc/net/dev > /var/lib/odd-interfaces
"""


@pytest.fixture(scope="module")
def make_deb(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """A .deb with a postinst of its own."""

    def make(name: str, postinst: str) -> bytes:
        top = tmp_path_factory.mktemp(name)
        (top / "root/DEBIAN").mkdir(parents=True)
        (top / "root/DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: odd\n"
        )
        (top / "root/DEBIAN/postinst").write_text(postinst)
        (top / "root/DEBIAN/postinst").chmod(0o755)
        argv = [peer("dpkg-deb"), "--root-owner-group", "--build", str(top / "root"), str(top / "a.deb")]
        subprocess.run(argv, check=True, capture_output=True)
        return (top / "a.deb").read_bytes()

    return make


@pytest.fixture(scope="module")
def unknown(
    archive: Archive, make_deb: Callable[..., bytes], shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Tree:
    """Packages whose scripts ocibuild does not know: Debian's python3-minimal, and one made here."""
    store = DiskStore(shared_store)
    debs = archive.fetch(archive.names("python3-minimal"), store)
    debs["odd"] = store.put([make_deb("odd", ODD)]).digest
    with pytest.raises(BuildError, match="has no handler"):
        bootstrap(read_debs(debs, store), store=store, epoch=EPOCH, architecture=AMD64)
    return configure(debs, store, tmp_path_factory.mktemp("unknown") / "work")


def text(entry: FileEntry, store: Path) -> str:
    return read_content(DiskStore(store), entry.content).decode()


def test_scripts_nobody_has_read_are_run(unknown: Tree, shared_store: Path) -> None:
    assert "usr/lib/python3.13/__pycache__/os.cpython-313.pyc" in unknown
    status = text(unknown["var/lib/dpkg/status"], shared_store)
    assert status.count("\nStatus: install ok installed\n") == status.count("Package: ") > 60
    assert text(unknown["var/lib/odd/file"], shared_store) == "made\n"
    assert text(unknown["var/lib/odd-interfaces"], shared_store) == "1\n"  # loopback


def test_owners_and_modes_are_the_ones_the_scripts_set(unknown: Tree) -> None:
    assert {(unknown[p].uid, unknown[p].gid) for p in ("var/lib/odd", "var/lib/odd/file")} == {(4242, 4243)}
    assert unknown["var/lib/odd"].mode == 0o700
    assert unknown["var/lib/odd/pipe"].kind is Kind.FIFO
    assert (unknown["usr/sbin/unix_chkpwd"].gid, unknown["usr/sbin/unix_chkpwd"].mode) == (42, 0o2755)
    assert (unknown["var/mail"].gid, unknown["var/mail"].mode, unknown["var/tmp"].mode) == (8, 0o2775, 0o1777)


def test_nothing_of_the_run_is_in_the_tree(unknown: Tree) -> None:
    assert max(entry.mtime for entry in unknown.values()) == EPOCH
    assert "usr/sbin/policy-rc.d" not in unknown
    assert not [path for path in unknown if path.startswith(("tmp/", "dev/", "proc/", "var/cache/debconf/"))]
    assert not [path for path in unknown if path.endswith((".log", "-old", ".deb", ".dpkg-new"))]


BROKEN = """#!/bin/sh
mkdir -m 0700 /var/lib/broken && touch /var/lib/broken/file && chown -R 4242 /var/lib/broken
echo this script is broken >&2
exit 3
"""


@pytest.mark.sweep
def test_a_script_that_fails_is_shown_and_leaves_nothing_behind_but_its_log(
    archive: Archive, somebody: Somebody, make_deb: Callable[..., bytes], shared_store: Path
) -> None:
    """Also what belongs to an id that its user is not, in a directory its user may not enter."""
    store = DiskStore(shared_store)
    debs = archive.fetch(archive.names(), store)
    debs["broken"] = store.put([make_deb("broken", BROKEN)]).digest
    answer = somebody.run(debs)
    assert answer.startswith("1 error: configuring with dpkg: install-2 exited 1")
    assert "this script is broken" in answer
    assert "post-installation script subprocess returned error exit status 3" in answer
    assert [path.name for path in (somebody.place / "work").iterdir()] == ["log"]
