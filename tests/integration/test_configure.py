"""Configured trees against the real thing: what mmdebstrap, dpkg and the maintainer scripts make of the same .debs."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from rootfs.architecture import Architecture
from rootfs.bootstrap import bootstrap
from rootfs.debian.deb import Unpacked, unpack
from rootfs.ports import read_content
from rootfs.store import DiskStore
from rootfs.tree import FileEntry, Kind, Tree, normalise

pytestmark = [pytest.mark.archive, pytest.mark.peer]
EPOCH = 1_763_700_000
AMD64 = Architecture.parse("amd64")
RUNTIME = """apt ca-certificates openssl tzdata netbase media-types libssl3t64 libsqlite3-0 libbz2-1.0 liblzma5 libffi8
    libreadline8t64 libncursesw6 libexpat1 libgdbm6t64 libgdbm-compat4t64 zlib1g libuuid1 libzstd1 libdb5.3t64"""
TOOLCHAIN = """gcc g++ make pkgconf libc6-dev libssl-dev libsqlite3-dev libbz2-dev liblzma-dev libffi-dev
    libreadline-dev libncurses-dev libexpat1-dev libgdbm-dev libgdbm-compat-dev zlib1g-dev uuid-dev libzstd-dev"""
AGAIN = """base-files base-passwd bash ca-certificates dash debconf debianutils gcc libc-bin libpam-runtime netbase
    passwd readline-common tar tzdata util-linux"""
OTHERS = "passwd login adduser less gawk nano xz-utils gpgv perl procps fontconfig-config"

LEFT_OUT = {
    "dev/*": "device nodes: a container's runtime makes them",
    "etc/apt/apt.conf.d/99mmdebstrap": "mmdebstrap's own",
    "etc/apt/sources.list": "mmdebstrap's own: the recipe's mirrors are written elsewhere",
    "etc/fstab": "mmdebstrap's own",
    "etc/hostname": "the host's",
    "etc/resolv.conf": "the host's",
    "etc/systemd/system/timers.target.wants*": "no systemd: no timer is enabled",
    "var/lib/systemd/deb-systemd-helper-enabled*": "no systemd: no timer is enabled",
    "etc/rc[0-6S].d*": "no init: no service is enabled",
    "var/cache/apt/*.bin": "apt's caches",
    "var/cache/apt/archives/*": "apt's caches",
    "var/cache/debconf/*": "debconf makes its database when it is first asked",
    "var/lib/apt/extended_states": "which packages apt chose by itself: here all are from one selection",
    "var/lib/apt/lists/lock": "a lock",
    "var/lib/dpkg/lock*": "a lock",
    "var/lib/dpkg/triggers/Lock": "a lock",
    "etc/.pwd.lock": "a lock",
    "var/lib/dpkg/*-old": "a copy from before the last change",
    "etc/passwd-": "a copy from before the last change",
    "etc/group-": "a copy from before the last change",
}
OTHER_OWNER = {
    "var/cache/apt/archives/partial": "apt gives it to _apt when it first downloads as root",
    "var/lib/apt/lists/partial": "apt gives it to _apt when it first downloads as root",
}


def in_any_order(data: bytes) -> list[bytes]:
    """dpkg writes file lists in the order of the tar archive and triggers in that of the installation."""
    return sorted(data.splitlines())


def in_threes(data: bytes) -> list[tuple[bytes, ...]]:
    """dpkg writes diversions in the order of a hash table."""
    return sorted(zip(*[iter(data.splitlines())] * 3, strict=True))


def without_blanks_at_the_end(data: bytes) -> bytes:
    """dpkg keeps a blank at the end of a field's line (libgdbm's descriptions have one)."""
    return re.sub(rb"[ \t]+$", b"", data, flags=re.M)


SAME_BUT_FOR: Mapping[str, Callable[[bytes], object]] = {
    "var/lib/dpkg/info/*.list": in_any_order,
    "var/lib/dpkg/triggers/File": in_any_order,
    "var/lib/dpkg/diversions": in_threes,
    "var/lib/dpkg/status": without_blanks_at_the_end,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One selection, twice: mmdebstrap's tar, and our Tree from the .debs mmdebstrap used."""

    oracle: Path
    packages: list[Unpacked]
    tree: Tree
    store: DiskStore
    debs: dict[str, bytes]


@pytest.fixture(scope="module")
def built(
    peer: Callable[[str], str],
    debian_mirror: str,
    debian_security_mirror: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Built]:
    top = tmp_path_factory.mktemp("oracle")
    top.chmod(0o755)
    oracle = top / "oracle.tar"
    argv = [
        "nice",
        peer("mmdebstrap"),
        "--variant=essential",
        "--architectures=amd64",
        "--aptopt=Acquire::Languages none",
    ]
    argv += ["--keyring=/usr/share/keyrings", "--skip=essential/unlink,cleanup/apt/cache"]
    argv += ["--include=" + ",".join(f"{RUNTIME} {TOOLCHAIN} {OTHERS}".split()), "trixie", str(oracle)]
    argv += [f"deb {debian_mirror} trixie main", f"deb {debian_security_mirror} trixie-security main"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(top)}
    made = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    store = DiskStore(top / "store")
    packages, debs = [], {}
    with tarfile.open(oracle) as archive:
        for member in archive:
            if member.name.endswith(".deb"):
                stream = archive.extractfile(member)
                assert stream is not None
                data = stream.read()
                packages.append(unpack(io.BytesIO(data), store, member.name))
                debs[packages[-1].package.name] = data
    tree = bootstrap(packages, store=store, epoch=EPOCH, architecture=AMD64)
    yield Built(oracle=oracle, packages=packages, tree=tree, store=store, debs=debs)
    shutil.rmtree(top)  # pytest would keep a gigabyte of it


KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
}


def matches(path: str, patterns: Mapping[str, object]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def differences(entry: FileEntry, member: tarfile.TarInfo) -> list[str]:
    """What the headers disagree about; contents are compared elsewhere, times of directories not at all."""
    link = normalise(member.linkname) if member.islnk() else member.linkname
    pairs = {
        "kind": (entry.kind, KINDS[member.type]),
        "mode": (oct(entry.mode), oct(member.mode & 0o7777)),
        "owner": ((entry.uid, entry.gid), (member.uid, member.gid)),
        "link": (entry.link, link),
        "xattrs": (entry.xattrs, tuple(name for name in member.pax_headers if "xattr" in name)),
    }
    return [f"{entry.path}: {what} {ours}, not {theirs}" for what, (ours, theirs) in pairs.items() if ours != theirs]


def test_the_tree_is_the_one_mmdebstrap_makes(built: Built) -> None:
    """Every path, kind, mode, owner, link, content; what may differ is in the two tables above, with the reason."""
    shipped = {path for one in built.packages for path, entry in one.tree.items() if entry.kind is not Kind.DIRECTORY}
    wrong, seen = [], set()
    with tarfile.open(built.oracle) as archive:
        for member in archive:
            path = normalise(member.name)
            seen.add(path)
            entry = built.tree.get(path)
            if entry is None:
                wrong += [f"{path}: missing"] if path and not matches(path, LEFT_OUT) else []
                continue
            if path not in OTHER_OWNER:
                wrong += differences(entry, member)
            if path in shipped and entry.mtime != member.mtime:
                wrong.append(f"{path}: time {entry.mtime}, not {member.mtime}")
            if entry.kind is Kind.FILE and member.isreg():
                stream = archive.extractfile(member)
                assert stream is not None
                alike = next((same for at, same in SAME_BUT_FOR.items() if fnmatch.fnmatchcase(path, at)), bytes)
                if alike(read_content(built.store, entry.content)) != alike(stream.read()):
                    wrong.append(f"{path}: content")
    wrong += [f"{path}: too much" for path in built.tree if path not in seen]
    assert wrong == []


@pytest.fixture(scope="module")
def extracted(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    top = tmp_path_factory.mktemp("root")
    types = {kind: tar_type for tar_type, kind in KINDS.items()}
    owner = "--same-owner" if os.geteuid() == 0 else "--no-same-owner"
    argv = ["tar", "--extract", "--preserve-permissions", "--numeric-owner", owner, "--directory", str(top)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        with tarfile.open(fileobj=process.stdin, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for entry in sorted(built.tree.values(), key=lambda entry: entry.kind is Kind.HARDLINK):
                member = tarfile.TarInfo(entry.path)
                member.type, member.mode, member.linkname = types[entry.kind], entry.mode, entry.link
                member.uid, member.gid, member.mtime, member.size = entry.uid, entry.gid, entry.mtime, entry.size
                archive.addfile(member, io.BytesIO(read_content(built.store, entry.content)))
    assert process.returncode == 0
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            os.mknod(top / "dev/null", 0o020666, os.makedev(1, 3))
    yield top
    shutil.rmtree(top)


def run_in(top: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    inside = ["unshare", "--user", "--map-root-user"] if os.geteuid() != 0 else []
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [*inside, shutil.which("chroot", path="/usr/sbin:/sbin") or "chroot", str(top), *argv],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "dpkg --audit",
        "dpkg --verify",
        "apt-get --quiet=2 check",
        "pwck --read-only --quiet",
        "grpck --read-only",
    ],
)
def test_the_tree_is_sound(extracted: Path, command: str) -> None:
    answer = run_in(extracted, *command.split())
    complaints = [line for line in answer.stderr.splitlines() if "nonexistent" not in line]
    if command.startswith("pwck"):  # base-passwd's users have homes that no package makes: status 2, also in Debian
        assert (answer.returncode in (0, 2), complaints) == (True, [])
    else:
        assert (answer.returncode, answer.stdout, complaints) == (0, "", [])


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
def test_what_the_handlers_made_is_used(extracted: Path, command: str, expected: str) -> None:
    if "stat" in command and os.geteuid() != 0:
        pytest.skip("owners are kept only when root extracts")
    assert run_in(extracted, *command.split()).stdout.strip() == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="making /dev/null and chown need root")
def test_dpkg_runs_the_real_scripts_over_it_and_they_change_nothing(built: Built, extracted: Path) -> None:
    if not (extracted / "dev/null").is_char_device():
        pytest.skip("no right to make a device node")
    again = AGAIN.split()
    for name in again:
        (extracted / "tmp" / f"{name}.deb").write_bytes(built.debs[name])
    before = digest_of_configuration(extracted)
    answer = run_in(extracted, "dpkg", "--install", *(f"/tmp/{name}.deb" for name in again))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "0 added, 0 removed" in answer.stdout
    assert digest_of_configuration(extracted) == before
    assert run_in(extracted, "dpkg", "--verify").stdout == ""
    assert run_in(extracted, "dpkg", "--audit").stdout == ""


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
