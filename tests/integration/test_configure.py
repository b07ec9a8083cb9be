"""Configured trees against the real thing: what mmdebstrap, dpkg and the maintainer scripts make of the same .debs.

The comparison, and the list of what may differ, is in `tests.peers.mmdebstrap`.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootfs.architecture import Architecture
from rootfs.bootstrap import bootstrap
from rootfs.debian.deb import unpack
from rootfs.ports import read_content
from rootfs.tree import FileEntry, Kind
from tests.peers.mirror import serve
from tests.peers.mmdebstrap import AMD64, EPOCH, Built, Wish, differences, extract, run

pytestmark = [pytest.mark.archive, pytest.mark.peer]
ARM64 = Architecture.parse("arm64")
RUNTIME = """apt ca-certificates openssl tzdata netbase media-types libssl3t64 libsqlite3-0 libbz2-1.0 liblzma5 libffi8
    libreadline8t64 libncursesw6 libexpat1 libgdbm6t64 libgdbm-compat4t64 zlib1g libuuid1 libzstd1 libdb5.3t64"""
DEVELOPMENT = """gcc g++ make libc6-dev libssl-dev libsqlite3-dev libbz2-dev liblzma-dev libffi-dev libreadline-dev
    libncurses-dev libexpat1-dev libgdbm-dev libgdbm-compat-dev zlib1g-dev uuid-dev libzstd-dev"""
OTHERS = "passwd login adduser less gawk nano xz-utils gpgv perl procps fontconfig-config"
AGAIN = """base-files base-passwd bash ca-certificates dash debconf debianutils gcc libc-bin libpam-runtime netbase
    passwd readline-common tar tzdata util-linux"""
OLD_TOOLS = f"ca-certificates openssl tzdata netbase media-types pkg-config xz-utils {DEVELOPMENT}"
WISHES = {
    "trixie essential": Wish(suite="trixie", variant="essential"),
    "trixie apt": Wish(suite="trixie", variant="apt"),
    "trixie minbase": Wish(suite="trixie", variant="minbase"),
    "trixie toolchain": Wish(suite="trixie", variant="essential", include=f"{RUNTIME} pkgconf {DEVELOPMENT} {OTHERS}"),
    "bookworm minbase": Wish(suite="bookworm", variant="minbase"),
}
SWEPT = {
    "bookworm toolchain": Wish(suite="bookworm", variant="minbase", include=OLD_TOOLS),
    "bullseye minbase": Wish(suite="bullseye", variant="minbase"),
    "bullseye toolchain": Wish(suite="bullseye", variant="minbase", include=OLD_TOOLS),
    "sid minbase": Wish(suite="sid", variant="minbase"),
    "sid toolchain": Wish(suite="sid", variant="minbase", include=f"ca-certificates pkgconf {DEVELOPMENT}"),
}

Builder = Callable[[str], Built]


@pytest.fixture(scope="module")
def built(
    peer: Callable[[str], str],
    debian_mirror: str,
    debian_security_mirror: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Builder]:
    """A wish by its name -> both trees, made once."""
    top = tmp_path_factory.mktemp("oracle")
    top.chmod(0o755)
    mirrors = (debian_mirror, debian_security_mirror)
    made: dict[str, Built] = {}

    def build(name: str) -> Built:
        if name not in made:
            made[name] = run({**WISHES, **SWEPT}[name], peer("mmdebstrap"), mirrors, top)
        return made[name]

    yield build
    shutil.rmtree(top)  # pytest would keep gigabytes of it


@pytest.mark.parametrize("name", [*WISHES, *(pytest.param(name, marks=pytest.mark.sweep) for name in SWEPT)])
def test_the_tree_is_the_one_mmdebstrap_makes(built: Builder, name: str) -> None:
    assert differences(built(name)) == []


@pytest.fixture(scope="module")
def minbase(built: Builder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from _extracted(built("trixie minbase"), tmp_path_factory.mktemp("minbase"))


@pytest.fixture(scope="module")
def toolchain(built: Builder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from _extracted(built("trixie toolchain"), tmp_path_factory.mktemp("toolchain"))


def _extracted(made: Built, top: Path) -> Iterator[Path]:
    extract(made, top)
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            os.mknod(top / "dev/null", 0o020666, os.makedev(1, 3))
    yield top
    shutil.rmtree(top)


def run_in(top: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a tree: as root by chroot, else in a user namespace, with the host's /dev/null."""
    inside: list[str] = []
    if os.geteuid() != 0:
        (top / "dev/null").touch()
        bind = 'mount --bind /dev/null "$0/dev/null" && exec "$@"'
        inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", bind, str(top)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [*inside, shutil.which("chroot", path="/usr/sbin:/sbin") or "chroot", str(top), *argv],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


SOUND = ("dpkg --audit", "dpkg --verify", "apt-get --quiet=2 check", "pwck --read-only --quiet", "grpck --read-only")


def assert_sound(top: Path, command: str) -> None:
    answer = run_in(top, *command.split())
    complaints = [line for line in answer.stderr.splitlines() if "nonexistent" not in line]
    if command.startswith("pwck"):  # base-passwd's users have homes that no package makes: status 2, also in Debian
        assert (answer.returncode in (0, 2), complaints) == (True, [])
    else:
        assert (answer.returncode, answer.stdout, complaints) == (0, "", [])


@pytest.mark.parametrize("command", SOUND)
def test_the_tree_is_sound(minbase: Path, command: str) -> None:
    assert_sound(minbase, command)


@pytest.mark.parametrize("command", SOUND)
def test_the_larger_tree_is_sound(toolchain: Path, command: str) -> None:
    assert_sound(toolchain, command)


def test_apt_installs_a_package_into_the_tree(minbase: Path, debian_mirror: str, tmp_path: Path) -> None:
    if os.geteuid() == 0 and not (minbase / "dev/null").is_char_device():
        pytest.skip("no right to make a device node")
    scratch = tmp_path / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", minbase, scratch], check=True)
    with serve({"debian": debian_mirror}, tmp_path / "cache") as mirror:
        (scratch / "etc/apt/sources.list").write_text(f"deb {mirror.url}/debian trixie main\n")
        options = ("--quiet=2", "--option=Acquire::Languages=none", "--option=APT::Sandbox::User=root")
        for words in (("update", "--error-on=any"), ("install", "--yes", "hello")):
            answer = run_in(scratch, "apt-get", *options, *words)
            assert answer.returncode == 0, answer.stdout + answer.stderr
    assert run_in(scratch, "hello").stdout == "Hello, world!\n"
    assert run_in(scratch, "dpkg", "--verify").stdout == ""
    assert run_in(scratch, "dpkg", "--audit").stdout == ""
    assert run_in(scratch, "apt-get", "--quiet=2", "check").returncode == 0
    shutil.rmtree(scratch)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("readlink -f /usr/bin/cc", "/usr/bin/x86_64-linux-gnu-gcc-14"),
        ("readlink -f /usr/bin/awk /usr/bin/pager", "/usr/bin/gawk\n/usr/bin/less"),
        ("date --date=@0 +%Z", "UTC"),
        ("stat --format=%U:%G:%a /etc/shadow", "root:shadow:640"),
        ("dpkg-query --search /usr/bin/sh", "dash: /usr/bin/sh"),
        (
            "openssl verify -CApath /etc/ssl/certs /etc/ssl/certs/ISRG_Root_X1.pem",
            "/etc/ssl/certs/ISRG_Root_X1.pem: OK",
        ),
    ],
)
def test_what_the_handlers_made_is_used(toolchain: Path, command: str, expected: str) -> None:
    if "stat" in command and os.geteuid() != 0:
        pytest.skip("owners are kept only when root extracts")
    assert run_in(toolchain, *command.split()).stdout.strip() == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="making /dev/null and chown need root")
def test_dpkg_runs_the_real_scripts_over_it_and_they_change_nothing(built: Builder, toolchain: Path) -> None:
    if not (toolchain / "dev/null").is_char_device():
        pytest.skip("no right to make a device node")
    again = AGAIN.split()
    for name in again:
        (toolchain / "tmp" / f"{name}.deb").write_bytes(built("trixie toolchain").debs[name])
    before = digest_of_configuration(toolchain)
    answer = run_in(toolchain, "dpkg", "--install", *(f"/tmp/{name}.deb" for name in again))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "0 added, 0 removed" in answer.stdout
    assert digest_of_configuration(toolchain) == before
    assert run_in(toolchain, "dpkg", "--verify").stdout == ""
    assert run_in(toolchain, "dpkg", "--audit").stdout == ""


def digest_of_configuration(top: Path) -> dict[str, object]:
    """Kind, mode, owner and content of what the scripts care for; not the timers they enable, nor logs."""
    found: dict[str, object] = {}
    for place in ("etc", "var/lib/pam", "var/lib/dpkg/alternatives", "var/log", "usr/local", "root"):
        for path in (top / place).rglob("*"):
            name = path.relative_to(top).as_posix()
            if name.startswith("etc/systemd/system") or name.endswith(("-", ".log")):
                continue
            status = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else ""
            if path.is_file() and not content:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


@pytest.fixture(scope="module")
def arm64(
    built: Builder,
    peer: Callable[[str], str],
    debian_mirror: str,
    debian_security_mirror: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Built]:
    """The packages of trixie minbase for arm64, fetched by the host's apt and configured here; nothing is run."""
    top = tmp_path_factory.mktemp("arm64")
    amd64 = built("trixie minbase")
    for name in ("lists/partial", "cache/archives/partial", "etc", "debs"):
        (top / name).mkdir(parents=True)
    (top / "status").touch()
    (top / "etc/sources.list").write_text(
        f"deb {debian_mirror} trixie main\ndeb {debian_security_mirror} trixie-security main\n"
    )
    (top / "apt.conf").write_text(
        f"""APT::Architecture "arm64"; APT::Architectures {{ "arm64"; }}; APT::Sandbox::User "root";
        Dir::State::lists "{top}/lists"; Dir::State::status "{top}/status"; Dir::Cache "{top}/cache";
        Dir::Etc "{top}/etc"; Dir::Etc::trustedparts "/usr/share/keyrings"; Acquire::Languages "none";
        """
    )
    names = [one.package.name for one in amd64.packages]
    for words in (("update", "--error-on=any"), ("download", *names)):
        argv = [peer("apt-get"), "--quiet=2", *words]
        environment = {**os.environ, "APT_CONFIG": str(top / "apt.conf")}
        answer = subprocess.run(argv, cwd=top / "debs", env=environment, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
    debs = {path.name: path.read_bytes() for path in sorted((top / "debs").iterdir())}
    packages = [unpack(io.BytesIO(data), amd64.store, name) for name, data in debs.items()]
    tree = bootstrap(packages, store=amd64.store, epoch=EPOCH, architecture=ARM64)
    yield Built(oracle=top, packages=packages, tree=tree, store=amd64.store, debs=debs)
    shutil.rmtree(top)


def test_another_architectures_tree_is_configured_alike(built: Builder, arm64: Built) -> None:
    """All that scripts made: the same paths, kinds, modes, owners, links, and contents but for IN_EVERY_PACKAGE."""
    ours, theirs = _configured(arm64, ARM64), _configured(built("trixie minbase"), AMD64)
    assert ours.keys() == theirs.keys()
    assert {path: (ours[path], theirs[path]) for path in ours if ours[path] != theirs[path]} == {}


def test_another_architectures_cache_of_libraries_is_read_by_ldconfig(
    built: Builder, arm64: Built, peer: Callable[[str], str], tmp_path: Path
) -> None:
    found = {}
    for flag, made in (("AArch64", arm64), ("x86-64", built("trixie minbase"))):
        cache = tmp_path / flag
        cache.write_bytes(read_content(made.store, made.tree["etc/ld.so.cache"].content))
        argv = [peer("ldconfig"), "-p", "-C", str(cache)]
        listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        found[flag] = set(re.findall(rf"(lib\S+) \(libc6,{flag}[,)]", listed))
    assert found["AArch64"] == found["x86-64"] - {"libmvec.so.1"} | {"libmvec.so.1"}
    assert len(found["AArch64"]) > 60


IN_EVERY_PACKAGE = {
    "etc/ld.so.cache": "names libraries: see the test of it",
    "var/lib/dpkg/diversions": "names the dynamic loader",
    "var/lib/dpkg/info/*": "the packages' own lists, sums and scripts",
    "var/lib/dpkg/status": "the packages' own versions, sizes and relations",
    "var/lib/dpkg/triggers/File": "names the loader's directory",
}


def _configured(made: Built, architecture: Architecture) -> dict[str, tuple[object, ...]]:
    """What no package holds, the names of the architecture taken out."""

    def portable(text: str) -> str:
        return text.replace(architecture.triplet, "TRIPLET").replace(architecture.debian, "ARCHITECTURE")

    def content(entry: FileEntry) -> str:
        if entry.kind is not Kind.FILE or any(fnmatch.fnmatchcase(entry.path, at) for at in IN_EVERY_PACKAGE):
            return ""
        return portable(read_content(made.store, entry.content).decode("latin-1"))

    held = {path for one in made.packages for path in one.tree}
    return {
        portable(entry.path): (entry.kind, entry.mode, entry.uid, entry.gid, entry.link, content(entry))
        for entry in made.tree.values()
        if entry.path not in held
    }
