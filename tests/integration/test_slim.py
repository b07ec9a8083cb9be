"""Slimming held against real dpkg: the same filters, the same files left, the same database."""

from __future__ import annotations

import io
import lzma
import os
import re
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from rootfs.debian.deb import unpack
from rootfs.digest import Digest
from rootfs.slim import slim
from rootfs.slimrules import RULES, Rule, named, paths
from rootfs.store import DiskStore
from rootfs.tree import Kind, Tree, directory
from tests.fakes.store import MemoryStore

pytestmark = [pytest.mark.archive, pytest.mark.peer]

SETS: dict[str, list[Rule]] = {
    "all": list(RULES.values()),
    "docs": [named("docs")],
    "locales but some": [named("locale:de,en,pt_BR,sr"), named("man")],
    "globs": [paths(exclude=["/usr/*/READ*", "/usr/share/*", "*.[0-9].gz"], include=["/usr/share/man/*/[a-l]*"])],
}
REAL = ("bash", "gettext-base", "hello", "info", "libc-bin", "man-db", "tzdata", "util-linux", "xz-utils")


def without_scripts(deb: bytes) -> bytes:
    """The .deb with nothing but its name and version in control.tar: a scratch root has nothing to run scripts with."""
    unpacked = unpack(io.BytesIO(deb), MemoryStore(), "deb")
    fields = unpacked.package.fields
    control = "".join(f"{name}: {fields[name]}\n" for name in ("Package", "Version", "Architecture", "Maintainer"))
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("control", "md5sums"):
            data = unpacked.control[name] if name != "control" else f"{control}Description: x\n".encode()
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    start = re.search(rb"data\.tar\S* ", deb)
    assert start is not None
    header = f"{'control.tar':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(stream.getvalue()):<10}`\n".encode()
    return deb[:72] + header + stream.getvalue() + deb[start.start() :]


@pytest.fixture(scope="module")
def debs(debian_mirror: str, shared_store: Path) -> list[bytes]:
    """Real packages, without their scripts; fetched once."""
    with urllib.request.urlopen(f"{debian_mirror}/dists/trixie/main/binary-amd64/Packages.xz", timeout=60) as response:
        index = lzma.decompress(response.read()).decode()
    store, found = DiskStore(shared_store), []
    for stanza in index.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Filename|SHA256): (.*)", stanza, re.M))
        if fields.get("Package") in REAL:
            digest = Digest("sha256", fields["SHA256"])
            if not store.exists(digest):
                with urllib.request.urlopen(f"{debian_mirror}/{fields['Filename']}", timeout=60) as response:
                    store.put([response.read()], expect=digest)
            with store.open(digest) as stream:
                found.append(without_scripts(stream.read()))
    assert len(found) == len(REAL)
    return found


def run_dpkg(program: str, root: Path, *arguments: str) -> str:
    """dpkg's output, on a root directory with an empty database or the one it made there."""
    admin = root / "var/lib/dpkg"
    if not admin.exists():
        (admin / "info").mkdir(parents=True)
        (admin / "updates").mkdir()
        (admin / "status").touch()
    argv = [program, f"--root={root}", "--force-depends", "--force-not-root", "--log=/dev/null", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert not done.returncode or "--verify" in arguments, done.stderr
    return done.stdout


def on_disk(root: Path) -> dict[str, tuple[str, int]]:
    """Path -> kind and, of files, links and size; dpkg's own directories left out."""
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if not f"{name}/".startswith(("var/lib/dpkg/", "etc/dpkg/")):
            kind = "symlink" if path.is_symlink() else "dir" if path.is_dir() else "file"
            found[name] = (kind, path.lstat().st_size if kind == "file" else 0)
    return found


def in_tree(tree: Tree) -> dict[str, tuple[str, int]]:
    """The same of a Tree; a hard link is a file."""
    found = {}
    for path, entry in tree.items():
        if not f"{path}/".startswith("etc/dpkg/"):
            file = tree[entry.link] if entry.kind is Kind.HARDLINK else entry
            found[path] = (file.kind.value, file.size)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg gives files to root, which needs root")
@pytest.mark.parametrize("rules", SETS.values(), ids=SETS)
def test_real_packages_are_left_as_dpkg_leaves_them(
    debs: list[bytes], rules: list[Rule], peer: Callable[[str], str], tmp_path: Path
) -> None:
    unpacked = [unpack(io.BytesIO(deb), MemoryStore(), "deb") for deb in debs]
    whole = Tree([directory("etc/dpkg/dpkg.cfg.d"), *(e for one in unpacked for e in one.tree.values())]).with_parents()
    slimmed = slim(whole, rules).tree
    lines = slimmed["etc/dpkg/dpkg.cfg.d/ocibuild-slim"].content
    assert isinstance(lines, bytes)
    files = []
    for number, deb in enumerate(debs):
        files.append(str(tmp_path / f"{number}.deb"))
        Path(files[-1]).write_bytes(deb)
    filters = [f"--{line}" for line in lines.decode().splitlines()]
    run_dpkg(peer("dpkg"), tmp_path / "root", *filters, "--unpack", *files)

    ours, theirs = in_tree(slimmed), on_disk(tmp_path / "root")
    kept = {path for path in ours if re.fullmatch(r"usr/share/man/man[1-9]", path)}  # ours on purpose: rule `man`
    assert {path: ours[path] for path in ours if path in theirs or path not in kept} == theirs
    assert len(ours) < len(whole)

    missing = run_dpkg(peer("dpkg"), tmp_path / "root", "--verify")
    assert set(re.findall(r"^missing +c? */(.*)$", missing, re.M)) == set(in_tree(whole)) - set(theirs)
