"""From unpacked packages to a Tree, on invented packages."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rootfs.architecture import Architecture
from rootfs.bootstrap import bootstrap
from rootfs.debian.deb import Unpacked
from rootfs.debian.package import Package
from rootfs.errors import BuildError
from rootfs.tree import FileEntry, Kind, Tree, directory, file, symlink
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore
from tests.peers import mmdebstrap as mm

EPOCH = 1_700_000_000
AMD64 = Architecture.parse("amd64")
DPKG = "var/lib/dpkg"


def deb(stanza: str, *entries: FileEntry, **control: str) -> Unpacked:
    members = {"md5sums": "", **control, "control": stanza}
    return Unpacked(
        package=Package.parse(stanza), control={k: v.encode() for k, v in members.items()}, tree=Tree(entries)
    )


A = deb(
    """Package: a
Version: 1:2-3
Architecture: amd64
Multi-Arch: same
Essential: yes
Maintainer: M <m@example.org>
Depends: x(>=1)|y , z:any
Homepage: https://example.org
Section: libs
Description: short
 long
""",
    directory("etc"),
    file("etc/a.conf", b"conf"),
    directory("usr"),
    FileEntry(path="usr/late", kind=file("x", b"").kind, content=b"1", mtime=EPOCH + 5),
    FileEntry(path="usr/early", kind=file("x", b"").kind, content=b"1", mtime=7),
    conffiles="/etc/a.conf\nremove-on-upgrade /etc/old.conf\n",
    triggers="# made by hand\ninterest ldconfig\ninterest-noawait /usr/share/x\nactivate y\n",
    postinst="#!/bin/sh\nset -e\nexit 0\n",
)
B = deb(
    "Package: b\nVersion: 1\nArchitecture: all\nMulti-Arch: no\nEssential: no\nDescription: b\n",
    directory("usr"),
    symlink("usr/b", "late"),
    triggers="interest-noawait ldconfig\n",
)


D = deb("Package: dpkg\nVersion: 1\nArchitecture: all\n")


def build(*packages: Unpacked, dpkg: bool = True) -> Tree:
    return bootstrap([*packages, *([D] if dpkg else [])], store=MemoryStore(), epoch=EPOCH, architecture=AMD64)


def content(tree: Tree, path: str) -> str:
    data = tree[path].content
    assert isinstance(data, bytes)
    return data.decode()


def test_the_status_file_is_as_dpkg_writes_it() -> None:
    md5 = hashlib.md5(b"conf").hexdigest()
    assert (
        content(build(B, A), f"{DPKG}/status")
        == f"""Package: a
Essential: yes
Status: install ok installed
Section: libs
Maintainer: M <m@example.org>
Architecture: amd64
Multi-Arch: same
Version: 1:2-3
Depends: x (>= 1) | y, z:any
Conffiles:
 /etc/a.conf {md5}
 /etc/old.conf newconffile remove-on-upgrade
Description: short
 long
Homepage: https://example.org

Package: b
Status: install ok installed
Architecture: all
Version: 1
Description: b

Package: dpkg
Status: install ok installed
Architecture: all
Version: 1

"""
    )


def test_the_other_files_of_the_database() -> None:
    tree = build(A, B)
    assert content(tree, f"{DPKG}/info/a:amd64.list") == "/.\n/etc\n/etc/a.conf\n/usr\n/usr/early\n/usr/late\n"
    assert content(tree, f"{DPKG}/info/b.list") == "/.\n/usr\n/usr/b\n"
    assert tree[f"{DPKG}/info/a:amd64.postinst"].mode == 0o755
    assert tree[f"{DPKG}/info/a:amd64.conffiles"].mode == 0o644
    assert f"{DPKG}/info/a:amd64.control" not in tree
    assert content(tree, f"{DPKG}/info/format") == "1\n"
    assert content(tree, f"{DPKG}/triggers/ldconfig") == "a:amd64\nb/noawait\n"
    assert content(tree, f"{DPKG}/triggers/File") == "/usr/share/x a:amd64/noawait\n"
    assert content(tree, f"{DPKG}/arch") == "amd64\n"


def test_without_dpkg_there_is_what_scanners_read() -> None:
    tree = build(A, B, dpkg=False)
    status = f"{DPKG}/status.d"
    assert [path for path in tree if path.startswith(DPKG)] == [
        DPKG,
        status,
        *(f"{status}/{name}" for name in ("a", "a.md5sums", "b", "b.md5sums")),
    ]
    assert content(tree, f"{status}/b") == content(build(B), f"{DPKG}/status").partition("\n\n")[0] + "\n"


def test_without_triggers_on_paths_there_is_no_file_of_them() -> None:
    assert f"{DPKG}/triggers/File" not in build(B)


def test_md5sums_are_made_when_the_package_has_none() -> None:
    link = FileEntry(path="y", kind=Kind.HARDLINK, link="x")
    entries = (file("etc/c", b"1"), file("x", b"2"), link, symlink("z", "x"))
    bare = deb("Package: a\nVersion: 1\nArchitecture: all\n", *entries, conffiles="/etc/c\n")
    bare = Unpacked(
        package=bare.package, control={k: v for k, v in bare.control.items() if k != "md5sums"}, tree=bare.tree
    )
    one, two = (hashlib.md5(content).hexdigest() for content in (b"1", b"2"))
    assert content(build(bare), f"{DPKG}/info/a.md5sums") == f"{one}  etc/c\n{two}  x\n{two}  y\n"


def test_times_are_clamped_and_directories_have_the_epoch() -> None:
    tree = build(A, B)
    assert (tree["usr/late"].mtime, tree["usr/early"].mtime) == (EPOCH, 7)
    assert {tree[path].mtime for path in ("usr", "etc", "var", f"{DPKG}/status", f"{DPKG}/info")} == {EPOCH}


def test_the_order_of_the_packages_does_not_matter() -> None:
    assert build(A, B).to_bytes() == build(B, A).to_bytes()


def test_one_package_twice_is_refused() -> None:
    with pytest.raises(BuildError, match="twice"):
        build(B, B)


def test_a_conffile_must_be_in_the_package() -> None:
    with pytest.raises(BuildError, match="a 1 names a conffile") as caught:
        build(deb("Package: a\nVersion: 1\nArchitecture: all\n", conffiles="/etc/x\n"))
    assert caught.value.at == "/etc/x"


def test_nothing_lies_below_a_file() -> None:
    broken = deb("Package: c\nVersion: 1\nArchitecture: all\n", file("var/lib", b""))
    with pytest.raises(BuildError, match="in the way") as caught:
        build(broken)
    assert caught.value.at == "/var/lib"


def test_progress_is_reported() -> None:
    reporter = ListReporter()
    bootstrap([A], store=MemoryStore(), epoch=EPOCH, architecture=AMD64, reporter=reporter)
    assert [event[0] for event in reporter.events] == ["begin", "finish"]


def test_the_docs_list_all_that_may_differ_from_mmdebstraps_tree() -> None:
    text = (Path(__file__).parents[2] / "docs/explanation/rootfs.md").read_text()
    tables = (mm.LEFT_OUT, mm.LEFT_OUT_WITHOUT_APT, mm.OTHER_OWNER, mm.COPIED_APART, mm.SAME_BUT_FOR)
    assert [path for table in tables for path in table if f"`{path}`" not in text] == []
