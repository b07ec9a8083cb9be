"""mmdebstrap as an oracle: what apt, dpkg and the maintainer scripts make of a selection, and how our Tree is compared.

The tables below are the whole list of what may differ, each with the reason; docs/explanation/rootfs.md repeats them.
"""

from __future__ import annotations

import fnmatch
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rootfs.architecture import Architecture
from rootfs.bootstrap import bootstrap
from rootfs.debian.deb import Unpacked, unpack
from rootfs.ports import read_content
from rootfs.store import DiskStore
from rootfs.tree import FileEntry, Kind, Tree, normalise

EPOCH = 1_763_700_000
AMD64 = Architecture.parse("amd64")

LEFT_OUT = {
    "dev/*": "device nodes: a container's runtime makes them",
    "etc/apt/apt.conf.d/99mmdebstrap": "mmdebstrap's own",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap": "mmdebstrap's own",
    "etc/apt/sources.list": "mmdebstrap's own: the recipe's mirrors are written elsewhere",
    "etc/fstab": "mmdebstrap's own",
    "etc/hostname": "the host's",
    "etc/resolv.conf": "the host's",
    "etc/systemd/system/*.target.wants*": "no systemd: no timer and no service is enabled",
    "var/lib/systemd/deb-systemd-helper-enabled*": "no systemd: no timer and no service is enabled",
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
    "etc/shadow-": "a copy from before the last change",
}
"""What mmdebstrap's tree holds and ours does not. Nothing may be the other way round."""

LEFT_OUT_WITHOUT_APT = {
    "etc/apt/*.d": "the apt that mmdebstrap runs from outside makes its directories",
    "var/*/apt": "the apt that mmdebstrap runs from outside makes its directories",
    "var/cache/apt/archives": "the apt that mmdebstrap runs from outside makes its directories",
    "var/lib/apt/lists": "the apt that mmdebstrap runs from outside makes its directories",
    "var/lib/apt/lists/partial": "the apt that mmdebstrap runs from outside makes its directories",
}
"""The same, of a set of packages without apt."""

OTHER_OWNER = {
    "var/cache/apt/archives/partial": "apt gives it to _apt when it first downloads as root",
    "var/lib/apt/lists/partial": "apt gives it to _apt when it first downloads as root",
}
"""What has another owner and mode."""

COPIED_APART = {
    "usr/bin/uncompress": "bookworm: usrmerge's conversion copies each name of a file; here it stays a hard link",
}
"""What is a hard link here and a file with the same content there."""


def in_any_order(data: bytes) -> object:
    """dpkg writes file lists in the order of the tar archive and triggers in that of the installation."""
    return sorted(data.splitlines())


def in_threes(data: bytes) -> object:
    """dpkg writes diversions in the order of a hash table."""
    return sorted(zip(*[iter(data.splitlines())] * 3, strict=True))


def without_blanks_at_the_end(data: bytes) -> object:
    """dpkg keeps a blank at the end of a field's line (libgdbm's descriptions have one)."""
    return re.sub(rb"[ \t]+$", b"", data, flags=re.M)


def without_zeros_at_the_end(data: bytes) -> object:
    """bullseye: useradd clears the record of the user _apt, which makes the log of logins a file of zeros."""
    return data.rstrip(b"\0")


SAME_BUT_FOR: Mapping[str, Callable[[bytes], object]] = {
    "var/lib/dpkg/info/*.list": in_any_order,
    "var/lib/dpkg/triggers/File": in_any_order,
    "var/lib/dpkg/diversions": in_threes,
    "var/lib/dpkg/status": without_blanks_at_the_end,
    "var/log/faillog": without_zeros_at_the_end,
    "var/log/lastlog": without_zeros_at_the_end,
}
"""What has the same content but for what the function takes away."""

KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to ask mmdebstrap for; `include` are more packages, by name."""

    suite: str
    variant: str
    include: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One selection, twice: mmdebstrap's tar, and our Tree from the .debs mmdebstrap used."""

    oracle: Path
    packages: Sequence[Unpacked]
    tree: Tree
    store: DiskStore
    debs: Mapping[str, bytes]

    @property
    def shipped(self) -> set[str]:
        """The paths that packages hold, but for directories."""
        return {path for one in self.packages for path, entry in one.tree.items() if entry.kind is not Kind.DIRECTORY}


def run(wish: Wish, program: str, mirrors: Sequence[str], top: Path) -> Built:
    """Have mmdebstrap make the tree in `top`, with Debian's archive and its security archive as `mirrors`; and us."""
    oracle = top / f"{wish.suite}-{wish.variant}-{len(wish.include)}.tar"
    argv = ["nice", program, f"--variant={wish.variant}", "--architectures=amd64", "--keyring=/usr/share/keyrings"]
    argv += [
        "--dpkgopt=force-unsafe-io",
        "--aptopt=Acquire::Languages none",
        "--skip=essential/unlink,cleanup/apt/cache",
    ]
    lines = [f"deb {mirrors[0]} {wish.suite} main"]
    if wish.suite == "sid":  # a mirror that stands still has one that is older than a week
        argv.append("--aptopt=Acquire::Check-Valid-Until false")
    else:
        lines.append(f"deb {mirrors[1]} {wish.suite}-security main")
    if wish.include:
        argv.append("--include=" + ",".join(wish.include.split()))
    # an ordinary user's sub-ids must be able to enter it
    place = str(top) if os.geteuid() == 0 else "/tmp"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": place}
    made = subprocess.run(
        [*argv, wish.suite, str(oracle), *lines], env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr[-3000:]
    store = DiskStore(top / "store")
    debs = dict(_debs(oracle))
    packages = [unpack(io.BytesIO(data), store, name) for name, data in debs.items()]
    tree = bootstrap(packages, store=store, epoch=EPOCH, architecture=AMD64)
    by_name = dict(zip((one.package.name for one in packages), debs.values(), strict=True))
    return Built(oracle=oracle, packages=packages, tree=tree, store=store, debs=by_name)


def _debs(oracle: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(oracle) as archive:
        for member in archive:
            if member.name.endswith(".deb"):
                yield member.name, _content(archive, member)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read()


def differences(built: Built) -> list[str]:
    """What the two trees disagree about: every path, kind, mode, owner, link, content; times of what packages hold.

    Times of directories and of what was configured are not compared: ours are the epoch.
    """
    shipped, found, seen = built.shipped, [], set()
    left_out = LEFT_OUT if "usr/bin/apt-get" in built.tree else LEFT_OUT | LEFT_OUT_WITHOUT_APT
    with tarfile.open(built.oracle) as archive:
        for member in archive:
            path = normalise(member.name)
            seen.add(path)
            entry = built.tree.get(path)
            if entry is None:
                found += [f"{path}: missing"] if path and not _matches(path, left_out) else []
                continue
            if path in COPIED_APART and entry.kind is Kind.HARDLINK and member.isreg():
                entry = replace(built.tree[entry.link], path=path)
            if path not in OTHER_OWNER:
                found += _headers(entry, member)
            if path in shipped and entry.mtime != member.mtime:
                found.append(f"{path}: time {entry.mtime}, not {member.mtime}")
            if entry.kind is Kind.FILE and member.isreg():
                alike = next((same for at, same in SAME_BUT_FOR.items() if fnmatch.fnmatchcase(path, at)), bytes)
                if alike(read_content(built.store, entry.content)) != alike(_content(archive, member)):
                    found.append(f"{path}: content")
    return found + [f"{path}: too much" for path in built.tree if path not in seen]


def _matches(path: str, patterns: Mapping[str, object]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _headers(entry: FileEntry, member: tarfile.TarInfo) -> list[str]:
    link = normalise(member.linkname) if member.islnk() else member.linkname
    pairs = {
        "kind": (entry.kind, KINDS[member.type]),
        "mode": (oct(entry.mode), oct(member.mode & 0o7777)),
        "owner": ((entry.uid, entry.gid), (member.uid, member.gid)),
        "link": (entry.link, link),
        "xattrs": (entry.xattrs, tuple(name for name in member.pax_headers if "xattr" in name)),
    }
    return [f"{entry.path}: {what} {ours}, not {theirs}" for what, (ours, theirs) in pairs.items() if ours != theirs]


def extract(built: Built, top: Path) -> None:
    """Our Tree to a directory, with GNU tar; owners only when root does it."""
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
